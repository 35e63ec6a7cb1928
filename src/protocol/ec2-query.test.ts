import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ec2OperationNames } from "../schema/ec2/tables.ts";
import type { Ec2OperationName } from "../schema/ec2/types.ts";
import { formOf, PARAMETER_NAME_CHARS_MAX, PARAMETERS_MAX, parseForm } from "./aws-query-form.ts";
import { decodeEc2Query, isEc2Operation } from "./ec2-query.ts";

/** The input in a form body, or `Code: message`. */
function decoded(operation: Ec2OperationName, body: string): unknown {
  const form = parseForm(body);
  const result = form.ok ? decodeEc2Query(operation, form.value) : form;
  return result.ok ? result.value : `${result.error.code}: ${result.error.message}`;
}

const accepted: [claim: string, operation: Ec2OperationName, body: string, input: unknown][] = [
  ["no parameters", "DescribeInstances", "", {}],
  ["common parameters are passed over", "DescribeVpcs", "Action=DescribeVpcs&Version=2016-11-15&X-Amz-Date=1", {}],
  [
    "ids and filters as the AWS CLI sends them",
    "DescribeInstances",
    "InstanceId.1=i-1&InstanceId.2=i-2&Filter.1.Name=tag%3AName&Filter.1.Value.1=a+b&Filter.1.Value.2=%E2%82%AC",
    { InstanceIds: ["i-1", "i-2"], Filters: [{ Name: "tag:Name", Values: ["a b", "€"] }] },
  ],
  [
    "lists may have gaps and come in any order",
    "DescribeInstances",
    "InstanceId.7=c&InstanceId.2=a&InstanceId.999999999=d&InstanceId.5=b",
    { InstanceIds: ["a", "b", "c", "d"] },
  ],
  [
    "structures of a list may come in any order",
    "DescribeInstances",
    "Filter.2.Name=b&Filter.1.Name=a&Filter.2.Value.1=2&Filter.1.Value.1=1",
    {
      Filters: [
        { Name: "a", Values: ["1"] },
        { Name: "b", Values: ["2"] },
      ],
    },
  ],
  ["lists may count from nought", "DescribeInstances", "InstanceId.0=a&InstanceId.1=b", { InstanceIds: ["a", "b"] }],
  ["booleans and numbers", "DescribeInstances", "DryRun=true&MaxResults=5", { DryRun: true, MaxResults: 5 }],
  ["Python's True", "DescribeInstances", "DryRun=True", { DryRun: true }],
  [
    "timestamps",
    "DescribeSpotPriceHistory",
    "StartTime=2016-11-15T08:30:00Z&EndTime=2016-11-15T08:30:00.123%2B02:00",
    { StartTime: new Date("2016-11-15T08:30:00Z"), EndTime: new Date("2016-11-15T06:30:00.123Z") },
  ],
  [
    "blobs in base64",
    "ImportKeyPair",
    "KeyName=k&PublicKeyMaterial=c3NoLXJzYQ%3D%3D",
    { KeyName: "k", PublicKeyMaterial: new TextEncoder().encode("ssh-rsa") },
  ],
  ["empty strings", "CreateSecurityGroup", "GroupDescription=&GroupName=g", { Description: "", GroupName: "g" }],
  [
    "Hive's own instance types",
    "RunInstances",
    "MinCount=1&MaxCount=1&InstanceType=h1.nano",
    { MinCount: 1, MaxCount: 1, InstanceType: "h1.nano" },
  ],
  [
    "numbers with a fraction where the model has them",
    "ModifySpotFleetRequest",
    "SpotFleetRequestId=s&LaunchTemplateConfig.1.Overrides.1.WeightedCapacity=1.5",
    { SpotFleetRequestId: "s", LaunchTemplateConfigs: [{ Overrides: [{ WeightedCapacity: 1.5 }] }] },
  ],
];

test.each(accepted)("takes %s", (_, operation, body, input) => {
  expect(decoded(operation, body)).toEqual(input);
});

const unknown = (name: string) => `UnknownParameter: The parameter ${name} is not recognized`;
const missing = (name: string) => `MissingParameter: The request must contain the parameter ${name}`;
const invalid = (name: string, value: string, why: string) =>
  `InvalidParameterValue: Value (${value}) for parameter ${name} is invalid. ${why}`;
const once = (name: string) => `InvalidParameterCombination: The parameter ${name} may only be given once`;

const refused: [claim: string, operation: Ec2OperationName, body: string, error: string][] = [
  ["a parameter that is not the operation's", "DescribeInstances", "Foo=1", unknown("Foo")],
  ["a member's own name where the wire's differs", "DescribeInstances", "InstanceIds.1=i-1", unknown("InstanceIds.1")],
  ["another case", "DescribeInstances", "instanceId.1=i-1", unknown("instanceId.1")],
  ["an unknown parameter beneath a known one", "DescribeInstances", "Filter.1.Nam=x", unknown("Filter.1.Nam")],
  ["a list without an index", "DescribeInstances", "InstanceId=i-1", unknown("InstanceId")],
  ["a list with an empty index", "DescribeInstances", "InstanceId.=i-1", unknown("InstanceId.")],
  ["an index that is no number", "DescribeInstances", "InstanceId.x=i-1", unknown("InstanceId.x")],
  ["a negative index", "DescribeInstances", "InstanceId.-1=i-1", unknown("InstanceId.-1")],
  ["an index with leading noughts", "DescribeInstances", "InstanceId.01=i-1", unknown("InstanceId.01")],
  ["an index past nine digits", "DescribeInstances", "InstanceId.1000000000=i", unknown("InstanceId.1000000000")],
  ["more beneath a scalar", "DescribeInstances", "InstanceId.1.X=i-1", unknown("InstanceId.1.X")],
  ["a value for a structure", "DescribeInstances", "Filter.1=x", unknown("Filter.1")],
  ["the prototype as a member", "DescribeInstances", "__proto__=x", unknown("__proto__")],
  ["the prototype as a structure", "DescribeInstances", "__proto__.polluted=x", unknown("__proto__.polluted")],
  [
    "the constructor in a list",
    "DescribeInstances",
    "Filter.1.constructor.prototype=x",
    unknown("Filter.1.constructor.prototype"),
  ],
  [
    "an index named like the prototype",
    "DescribeInstances",
    "Filter.__proto__.Name=x",
    unknown("Filter.__proto__.Name"),
  ],
  ["a parameter twice", "DescribeInstances", "NextToken=a&NextToken=a", once("NextToken")],
  ["a list's index twice", "DescribeInstances", "InstanceId.1=a&InstanceId.1=b", once("InstanceId.1")],
  ["an absent required member", "RunInstances", "MinCount=1", missing("MaxCount")],
  ["an absent required list", "TerminateInstances", "", missing("InstanceId")],
  [
    "an absent required member of a structure in a list",
    "RunInstances",
    "MinCount=1&MaxCount=1&LicenseSpecification.1.Foo=1",
    unknown("LicenseSpecification.1.Foo"),
  ],
  [
    "an absent required member beneath",
    "RequestSpotFleet",
    "SpotFleetRequestConfig.IamFleetRole=r",
    missing("SpotFleetRequestConfig.TargetCapacity"),
  ],
  [
    "a word for an integer",
    "DescribeInstances",
    "MaxResults=many",
    invalid("MaxResults", "many", "Expected an integer."),
  ],
  ["a fraction for an integer", "RunInstances", "MinCount=1.5", invalid("MinCount", "1.5", "Expected an integer.")],
  ["hexadecimal for an integer", "RunInstances", "MinCount=0x10", invalid("MinCount", "0x10", "Expected an integer.")],
  [
    "an integer past 2^53",
    "RunInstances",
    "MinCount=9007199254740993",
    invalid("MinCount", "9007199254740993", "Expected an integer."),
  ],
  ["nothing for an integer", "RunInstances", "MinCount=", invalid("MinCount", "", "Expected an integer.")],
  ["a number for a boolean", "DescribeInstances", "DryRun=1", invalid("DryRun", "1", "Expected true or false.")],
  [
    "a date that is none",
    "DescribeSpotPriceHistory",
    "StartTime=2016-02-30T00:00:00Z",
    invalid("StartTime", "2016-02-30T00:00:00Z", "Expected a timestamp such as 2016-11-15T08:30:00Z."),
  ],
  [
    "text that is not base64",
    "ImportKeyPair",
    "KeyName=k&PublicKeyMaterial=!",
    invalid("PublicKeyMaterial", "!", "Expected base64."),
  ],
  [
    "a value outside of an enum",
    "RunInstances",
    "MinCount=1&MaxCount=1&Placement.Tenancy=mine",
    invalid("Placement.Tenancy", "mine", "Valid values: dedicated, default, host."),
  ],
  [
    "a broken escape",
    "DescribeInstances",
    "NextToken=%E2%82",
    "MalformedQueryString: The request contains an escape that is not percent-encoded UTF-8",
  ],
];

test.each(refused)("refuses %s", (_, operation, body, error) => {
  expect(decoded(operation, body)).toBe(error);
});

test("an operation that EC2 lacks is an invalid action", () => {
  expect(isEc2Operation("RunInstances")).toBe(true);
  expect(isEc2Operation("constructor")).toBe(false);
  expect(decodeEc2Query("MakeCoffee" as Ec2OperationName, formOf([]))).toMatchObject({
    error: { code: "InvalidAction" },
  });
});

describe("bounds", () => {
  test("parameters past the bound are refused without reading on", () => {
    const body = (count: number) => Array.from({ length: count }, (_, i) => `InstanceId.${i + 1}=i`).join("&");
    expect(decoded("DescribeInstances", body(PARAMETERS_MAX))).toMatchObject({
      InstanceIds: { length: PARAMETERS_MAX },
    });
    expect(decoded("DescribeInstances", body(PARAMETERS_MAX + 1))).toStartWith("InvalidRequest: ");
    expect(decoded("DescribeInstances", `${body(PARAMETERS_MAX)}&A=%zz`)).toStartWith("InvalidRequest: ");
  });

  test("a long name is refused, and a long value is shortened in the message", () => {
    expect(decoded("DescribeInstances", `${"a".repeat(PARAMETER_NAME_CHARS_MAX + 1)}=1`)).toStartWith(
      "MalformedQueryString: ",
    );
    const message = decoded("RunInstances", `MinCount=${"1".repeat(1_000_000)}`) as string;
    expect(message).toStartWith("InvalidParameterValue: ");
    expect(message.length).toBeLessThan(500);
  });

  test("no parameter reaches a prototype", () => {
    decoded("DescribeInstances", "Filter.1.__proto__.polluted=1");
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });
});

const wireNames = [
  "Filter",
  "InstanceId",
  "Name",
  "Value",
  "TagSpecification",
  "Tag",
  "Key",
  "Ebs",
  "BlockDeviceMapping",
];
const part = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.constantFrom(...wireNames, "MaxResults", "DryRun", "MinCount", "1", "2", "0", "999999999"),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom("", "__proto__", "constructor", "toString", "-1", "1e9", "length", "Action"),
  },
  { weight: 1, arbitrary: fc.string() },
);
const parameter = fc.tuple(
  fc.array(part, { minLength: 1, maxLength: 6 }).map((parts) => parts.join(".")),
  fc.oneof(fc.string(), fc.constantFrom("1", "true", "i-1", "gp3", "")),
);

describe("never throws", () => {
  test("on parameters put together at random", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...ec2OperationNames),
        fc.array(parameter, { maxLength: 12 }),
        (operation, parameters) => {
          const result = decodeEc2Query(operation, formOf(parameters));
          if (!result.ok) expect(result.error.code).toMatch(/^(Unknown|Missing|InvalidParameter)/);
        },
      ),
      { numRuns: 1000 },
    );
  });

  test("on a good request with bytes changed", () => {
    const good =
      "MinCount=1&MaxCount=2&ImageId=ami-1&BlockDeviceMapping.1.DeviceName=%2Fdev%2Fxvda&BlockDeviceMapping.1.Ebs.VolumeSize=8&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=b&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SecurityGroupId.1=sg-1";
    expect(decoded("RunInstances", good)).toBeObject();
    const edit = fc.record({ at: fc.nat(good.length), remove: fc.nat(4), insert: fc.string({ maxLength: 4 }) });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        const body = edits.reduce(
          (text, { at, remove, insert }) => text.slice(0, at) + insert + text.slice(at + remove),
          good,
        );
        const outcome = decoded("RunInstances", body);
        expect(typeof outcome === "string" || typeof outcome === "object").toBe(true);
      }),
      { numRuns: 1000 },
    );
  });
});
