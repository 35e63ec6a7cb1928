import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type ComputeWorld, computeWorld } from "../../test/support/compute-world.ts";
import { unresolvedFilters } from "../gateway/filters.ts";
import type { AccountId } from "../model/ids.ts";
import { put } from "../model/store.ts";
import { nodes } from "../model/tables.ts";
import { computeHandlers } from "./handlers.ts";
import type { ComputePorts } from "./ports.ts";

let world: ComputeWorld;
beforeEach(async () => {
  world = await computeWorld({
    config: {
      zones: ["us-east-1a", "us-east-1b"],
      instanceTypes: [{ name: "x9.tiny", vcpus: 3, memoryMib: 96 }],
    },
  });
});
afterEach(() => world.close());

test("every documented filter of every Describe has a meaning", () => {
  const unresolved = Object.entries(computeHandlers({} as ComputePorts)).flatMap(([name, operation]) =>
    operation.kind === "describe" ? unresolvedFilters(name, operation).map((filter) => `${name} ${filter}`) : [],
  );
  expect(unresolved).toEqual([]);
});

describe("DescribeInstances", () => {
  const found = async (Name: string, ...Values: string[]) =>
    (await world.ok("DescribeInstances", { Filters: [{ Name, Values }] })).Reservations!.flatMap((r) =>
      r.Instances!.map((i) => i.InstanceId!),
    );

  test("filters reach what their names say", async () => {
    await world.ok("CreateKeyPair", { KeyName: "mine", KeyType: "ed25519" });
    const [a] = (await world.launch({
      KeyName: "mine",
      InstanceInitiatedShutdownBehavior: "terminate",
      TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: "web-1" }] }],
      ClientToken: "token-a",
    })) as [string];
    const [b] = (await world.launch({ InstanceType: "x9.tiny" as never, CpuOptions: { CoreCount: 2 } })) as [string];
    await world.observe(a, "running");
    const [reservation] = (await world.ok("DescribeInstances", { InstanceIds: [a] })).Reservations!;
    const instance = reservation!.Instances![0]!;
    const eni = instance.NetworkInterfaces![0]!;
    const cases: [string, string][] = [
      ["instance-state-name", "running"],
      ["instance-state-code", "16"],
      ["key-name", "m?ne"],
      ["tag:Name", "web-*"],
      ["tag-key", "Name"],
      ["client-token", "token-a"],
      ["instance-type", "h1.nano"],
      ["ip-address", instance.PublicIpAddress!],
      ["private-ip-address", instance.PrivateIpAddress!],
      ["private-dns-name", instance.PrivateDnsName!],
      ["dns-name", instance.PublicDnsName!],
      ["reservation-id", reservation!.ReservationId!],
      ["block-device-mapping.volume-id", instance.BlockDeviceMappings![0]!.Ebs!.VolumeId!],
      ["network-interface.network-interface-id", eni.NetworkInterfaceId!],
      ["network-interface.mac-address", eni.MacAddress!],
      ["network-interface.attachment.attachment-id", eni.Attachment!.AttachmentId!],
      ["network-interface.attachment.instance-id", a],
      ["network-interface.addresses.private-ip-address", eni.PrivateIpAddress!],
      ["network-interface.association.public-ip", instance.PublicIpAddress!],
    ];
    for (const [name, value] of cases) expect([name, await found(name, value)]).toEqual([name, [a]]);
    const both: [string, string][] = [
      ["vpc-id", instance.VpcId!],
      ["subnet-id", instance.SubnetId!],
      ["instance.group-name", "default"],
      ["network-interface.group-id", instance.SecurityGroups![0]!.GroupId!],
      ["availability-zone", "us-east-1a"],
      ["availability-zone-id", "use1-az1"],
      ["launch-time", "2026-01-01T*"],
      ["owner-id", "123456789012"],
      ["image-id", world.imageId],
      ["root-device-name", "/dev/xvda"],
      ["block-device-mapping.device-name", "/dev/xvda"],
      ["block-device-mapping.delete-on-termination", "true"],
      ["network-interface.source-dest-check", "true"],
      ["network-interface.attachment.device-index", "0"],
      ["network-interface.addresses.primary", "true"],
      ["monitoring-state", "disabled"],
      ["tenancy", "default"],
      ["metadata-options.http-tokens", "optional"],
      ["architecture", "x86_64"],
      ["virtualization-type", "hvm"],
    ];
    for (const [name, value] of both) expect([name, (await found(name, value)).sort()]).toEqual([name, [a, b].sort()]);
    expect(await found("instance-state-name", "stopped")).toEqual([]);
    expect(
      (await world.ok("DescribeInstances", { InstanceIds: [b] })).Reservations![0]!.Instances![0]!.CpuOptions,
    ).toEqual({ CoreCount: 2, ThreadsPerCore: 1 });
  });

  test("a reservation that spans two pages is shown on both with its own instances", async () => {
    const ids = await world.launch({ MinCount: 8, MaxCount: 8 });
    const first = await world.ok("DescribeInstances", { MaxResults: 5 });
    const second = await world.ok("DescribeInstances", { MaxResults: 5, NextToken: first.NextToken! });
    expect(second.NextToken).toBeUndefined();
    const [a, b] = [first.Reservations!, second.Reservations!];
    expect([a.length, b.length, a[0]!.Instances!.length, b[0]!.Instances!.length]).toEqual([1, 1, 5, 3]);
    expect([...a[0]!.Instances!, ...b[0]!.Instances!].map((i) => i.InstanceId!)).toEqual(ids);
  });

  test("other accounts see nothing", async () => {
    await world.launch();
    expect((await world.ok("DescribeInstances", {}, "999999999999" as AccountId)).Reservations).toEqual([]);
  });
});

test("a status is initializing, then ok, impaired without a network, and left out of what does not run", async () => {
  const [id] = (await world.launch()) as [string];
  const status = async (input = {}) => (await world.ok("DescribeInstanceStatus", input)).InstanceStatuses!;
  expect(await status()).toEqual([]);
  expect(await status({ InstanceIds: [id] })).toEqual([]);
  expect((await status({ IncludeAllInstances: true }))[0]).toMatchObject({
    InstanceState: { Name: "pending" },
    InstanceStatus: { Status: "not-applicable" },
    SystemStatus: { Status: "not-applicable" },
  });
  await world.observe(id, "running");
  expect((await status())[0]).toMatchObject({
    InstanceStatus: { Status: "initializing", Details: [{ Name: "reachability", Status: "initializing" }] },
  });
  world.now += 10_000;
  expect((await status({ Filters: [{ Name: "instance-status.reachability", Values: ["passed"] }] }))[0]).toMatchObject({
    InstanceStatus: { Status: "ok", Details: [{ Name: "reachability", Status: "passed" }] },
    SystemStatus: { Status: "ok" },
    AttachedEbsStatus: { Status: "ok" },
  });
  const node = world.store.read().all(nodes)[0]!;
  await world.write([put(nodes, { ...node, network: { mode: "ovs", ok: false, reason: "no bridge" } })]);
  expect((await status())[0]).toMatchObject({ InstanceStatus: { Status: "ok" }, SystemStatus: { Status: "impaired" } });
});

describe("instance types", () => {
  test("AWS's figures, Hive's own, and the operator's", async () => {
    const types = (
      await world.ok("DescribeInstanceTypes", {
        InstanceTypes: ["t3.micro", "m5.4xlarge", "h1.nano", "x9.tiny"] as never,
      })
    ).InstanceTypes!.map((type) => [
      type.InstanceType as string,
      type.VCpuInfo!.DefaultVCpus,
      type.VCpuInfo!.DefaultCores,
      type.MemoryInfo!.SizeInMiB,
      type.NetworkInfo!.MaximumNetworkInterfaces,
    ]);
    expect(types).toEqual([
      ["t3.micro", 2, 1, 1024, 2],
      ["m5.4xlarge", 16, 8, 65536, 8],
      ["h1.nano", 1, 1, 128, 2],
      ["x9.tiny", 3, 3, 96, 2],
    ]);
    expect(await world.refusal("DescribeInstanceTypes", { InstanceTypes: ["z9.huge"] as never })).toBe(
      "InvalidInstanceType: The following supplied instance types do not exist: [z9.huge]",
    );
  });
  test("burstable ones by filter, offered in each zone", async () => {
    const burstable = await world.ok("DescribeInstanceTypes", {
      Filters: [
        { Name: "burstable-performance-supported", Values: ["true"] },
        { Name: "vcpu-info.default-vcpus", Values: ["1"] },
      ],
    });
    expect(burstable.InstanceTypes!.map((type) => type.InstanceType as string).sort()).toEqual([
      "t2.micro",
      "t2.nano",
      "t2.small",
    ]);
    const offered = await world.ok("DescribeInstanceTypeOfferings", {
      LocationType: "availability-zone",
      Filters: [{ Name: "instance-type", Values: ["t3.micro"] }],
    });
    expect(offered.InstanceTypeOfferings!.map((offer) => offer.Location)).toEqual(["us-east-1a", "us-east-1b"]);
  });
});

test("regions, zones and the account's attributes", async () => {
  expect((await world.ok("DescribeRegions", {})).Regions!.map((region) => region.RegionName)).toEqual(["us-east-1"]);
  expect(await world.refusal("DescribeRegions", { RegionNames: ["mars-1"] })).toStartWith("InvalidParameterValue");
  const zones = await world.ok("DescribeAvailabilityZones", { Filters: [{ Name: "zone-id", Values: ["use1-az2"] }] });
  expect(zones.AvailabilityZones!.map((zone) => zone.ZoneName)).toEqual(["us-east-1b"]);
  const attributes = await world.ok("DescribeAccountAttributes", { AttributeNames: ["default-vpc"] });
  expect(attributes.AccountAttributes).toEqual([
    { AttributeName: "default-vpc", AttributeValues: [{ AttributeValue: world.subnets[0]!.vpcId }] },
  ]);
});

describe("tags", () => {
  test("are written to resources of any kind, listed and filtered", async () => {
    const [id] = (await world.launch()) as [string];
    const subnet = world.subnets[0]!.id;
    await world.ok("CreateTags", {
      Resources: [id, subnet, world.imageId],
      Tags: [{ Key: "a", Value: "1" }, { Key: "b" }],
    });
    await world.ok("CreateTags", { Resources: [id], Tags: [{ Key: "a", Value: "2" }] });
    const listed = async (Name: string, ...Values: string[]) =>
      (await world.ok("DescribeTags", { Filters: [{ Name, Values }] })).Tags!.map(
        (tag) => `${tag.ResourceType} ${tag.Key}=${tag.Value}`,
      );
    expect(await listed("resource-id", id)).toEqual(["instance a=2", "instance b="]);
    expect(await listed("resource-type", "subnet", "image")).toHaveLength(4);
    expect(await listed("tag:a", "1")).toHaveLength(2);
    expect(await listed("value", "2")).toEqual(["instance a=2"]);
  });
  test("go by key, by key and value, or all", async () => {
    const [id] = (await world.launch()) as [string];
    const keys = async () => (await world.ok("DescribeTags", {})).Tags!.map((tag) => tag.Key);
    const Tags = ["a", "b", "c", "d"].map((Key) => ({ Key, Value: `is ${Key}` }));
    await world.ok("CreateTags", { Resources: [id], Tags });
    await world.ok("DeleteTags", { Resources: [id], Tags: [{ Key: "a" }, { Key: "b", Value: "is b" }] });
    expect(await keys()).toEqual(["c", "d"]);
    await world.ok("DeleteTags", { Resources: [id], Tags: [{ Key: "c", Value: "" }, { Key: "none" }] });
    expect(await keys()).toEqual(["c", "d"]);
    await world.ok("DeleteTags", { Resources: [id] });
    expect(await keys()).toEqual([]);
  });
  test("are bounded, and only for what exists", async () => {
    const [id] = (await world.launch()) as [string];
    const many = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => ({ Key: `k${from + i}`, Value: "" }));
    await world.ok("CreateTags", { Resources: [id], Tags: many(0, 50) });
    expect(await world.refusal("CreateTags", { Resources: [id], Tags: many(50, 1) })).toStartWith("TagLimitExceeded");
    await world.ok("CreateTags", { Resources: [id], Tags: many(0, 1) });
    const Tags = [{ Key: "a", Value: "" }];
    expect(await world.refusal("CreateTags", { Resources: ["i-00000000000000001"], Tags })).toStartWith(
      "InvalidInstanceID.NotFound",
    );
    expect(await world.refusal("CreateTags", { Resources: ["nonsense"], Tags })).toBe(
      "InvalidID: The ID 'nonsense' is not valid",
    );
    expect(await world.refusal("CreateTags", { Resources: [id], Tags }, "999999999999" as AccountId)).toStartWith(
      "InvalidInstanceID.NotFound",
    );
  });
});
