import { describe, expect, test } from "bun:test";
import { computeHandlers } from "../compute/handlers.ts";
import { ec2Service } from "../protocol/ec2-query.ts";
import { vpcHandlers } from "../vpc/handlers.ts";
import { itemShapeOf, kebab, resolvePath } from "./filter-paths.ts";
import { compileFilters, type RequestedFilter, unresolvedFilters } from "./filters.ts";

const unused = () => Promise.reject(new Error("not asked"));
const handlers = Object.entries({ ...vpcHandlers, ...computeHandlers({ consoleOutput: unused, screenshot: unused }) });
const describes = handlers.flatMap(([name, handler]) =>
  handler.kind === "describe" ? [[name, handler] as const] : [],
);

test.each(describes)("every documented filter of %s has a meaning", (name, handler) => {
  expect(itemShapeOf(ec2Service(), name)).toBeDefined();
  expect(unresolvedFilters(name, handler)).toEqual([]);
});

const instance = itemShapeOf(ec2Service(), "DescribeInstances")!;
const derived: [string, string | undefined][] = [
  ["instance-type", "InstanceType"],
  ["instance-state-name", "State.Name"],
  ["state-reason-code", "StateReason.Code"],
  ["tenancy", "Placement.Tenancy"],
  ["network-interface.addresses.private-ip-address", "NetworkInterfaces.PrivateIpAddresses.PrivateIpAddress"],
  ["network-interface.attachment.device-index", "NetworkInterfaces.Attachment.DeviceIndex"],
  ["block-device-mapping.volume-id", "BlockDeviceMappings.Ebs.VolumeId"],
  ["metadata-options.http-tokens", "MetadataOptions.HttpTokens"],
  // Placement has one, and so do the security groups: the operation has to say which is meant.
  ["group-name", undefined],
  ["no-such-thing", undefined],
];
test.each(derived)("%s of an instance is %s", (name, path) =>
  expect(resolvePath(instance, name)?.join(".")).toBe(path),
);

test("kebab case", () => {
  expect(["VpcId", "Ipv6CidrBlock", "VCpuInfo", "EbsOptimized", "SizeInGB"].map(kebab)).toEqual([
    "vpc-id",
    "ipv6-cidr-block",
    "vcpu-info",
    "ebs-optimized",
    "size-in-gb",
  ]);
});

describe("an item passes", () => {
  const items = [
    {
      VpcId: "vpc-1",
      CidrBlock: "10.0.0.0/16",
      IsDefault: true,
      State: "available",
      Tags: [{ Key: "Name", Value: "blue" }],
    },
    {
      VpcId: "vpc-2",
      CidrBlock: "10.1.0.0/16",
      IsDefault: false,
      State: "pending",
      Tags: [{ Key: "Team", Value: "blue*" }],
    },
  ];
  const select = (...filters: RequestedFilter[]) => {
    const compiled = compileFilters("DescribeVpcs", {}, filters);
    return compiled.ok ? items.filter(compiled.value).map((item) => item.VpcId) : compiled.error.message;
  };
  const table: [string, RequestedFilter[], string[] | string][] = [
    ["without filters", [], ["vpc-1", "vpc-2"]],
    ["with any of a filter's values", [{ Name: "vpc-id", Values: ["vpc-1", "vpc-2"] }], ["vpc-1", "vpc-2"]],
    [
      "with all filters",
      [
        { Name: "vpc-id", Values: ["vpc-*"] },
        { Name: "state", Values: ["pending"] },
      ],
      ["vpc-2"],
    ],
    ["by a boolean as text", [{ Name: "is-default", Values: ["true"] }], ["vpc-1"]],
    ["by a tag's value", [{ Name: "tag:Name", Values: ["bl?e"] }], ["vpc-1"]],
    ["by a literal asterisk", [{ Name: "tag:Team", Values: ["blue\\*"] }], ["vpc-2"]],
    ["by a tag's key", [{ Name: "tag-key", Values: ["Team"] }], ["vpc-2"]],
    ["by any tag's value", [{ Name: "tag-value", Values: ["blue"] }], ["vpc-1"]],
    ["in the same case only", [{ Name: "state", Values: ["Available"] }], []],
    ["not by an unknown name", [{ Name: "colour", Values: ["x"] }], "The filter 'colour' is invalid"],
    ["not by a name of Object's", [{ Name: "constructor", Values: ["x"] }], "The filter 'constructor' is invalid"],
    ["not without a name", [{ Values: ["x"] }], "The filter 'null' is invalid"],
    ["not without values", [{ Name: "state" }], "The filter 'state' must have at least one value"],
    [
      "not with 201 values",
      [{ Name: "state", Values: new Array(201).fill("x") }],
      "The maximum number of filter values specified on a single call is 200",
    ],
  ];
  test.each(table)("%s", (_, filters, expected) => expect(select(...filters)).toEqual(expected));
});
