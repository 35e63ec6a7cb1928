import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type ComputeWorld, computeWorld } from "../../test/support/compute-world.ts";
import { ok } from "../lib/result.ts";
import { networkInterfaces } from "../model/tables.ts";
import type { ModifyInstanceAttributeRequest } from "../schema/ec2/types.ts";

let world: ComputeWorld;
let id: string;
const console_ = { bytes: new Uint8Array(70_000).fill(65), at: 1_700_000_000_000 };
beforeEach(async () => {
  world = await computeWorld({
    ports: {
      consoleOutput: async () => ok(console_),
      screenshot: async (_id, wakeUp) => ok(Buffer.from(wakeUp ? "awake" : "asleep")),
    },
  });
  [id] = (await world.launch()) as [string];
});
afterEach(() => world.close());

const stop = async () => {
  await world.observe(id, "running");
  await world.ok("StopInstances", { InstanceIds: [id] });
  await world.observe(id, "absent");
};
const attribute = (Attribute: string) =>
  world.ok("DescribeInstanceAttribute", { InstanceId: id, Attribute: Attribute as never });
const modify = (change: Partial<ModifyInstanceAttributeRequest>) =>
  world.ok("ModifyInstanceAttribute", { InstanceId: id, ...change });
const refused = (change: Partial<ModifyInstanceAttributeRequest>) =>
  world.refusal("ModifyInstanceAttribute", { InstanceId: id, ...change });

describe("each attribute is read as it was set, in both forms", () => {
  const table: [name: string, change: Partial<ModifyInstanceAttributeRequest>, read: object][] = [
    ["instanceType", { InstanceType: { Value: "t3.small" } }, { InstanceType: { Value: "t3.small" } }],
    ["instanceType", { Attribute: "instanceType", Value: "m5.large" }, { InstanceType: { Value: "m5.large" } }],
    ["userData", { UserData: { Value: Buffer.from("#!/bin/sh") } }, { UserData: { Value: "IyEvYmluL3No" } }],
    ["userData", { Attribute: "userData", Value: "IyEvYmluL3No" }, { UserData: { Value: "IyEvYmluL3No" } }],
    ["disableApiStop", { DisableApiStop: { Value: true } }, { DisableApiStop: { Value: true } }],
    [
      "disableApiTermination",
      { Attribute: "disableApiTermination", Value: "true" },
      { DisableApiTermination: { Value: true } },
    ],
    ["ebsOptimized", { EbsOptimized: { Value: true } }, { EbsOptimized: { Value: true } }],
    ["sourceDestCheck", { SourceDestCheck: { Value: false } }, { SourceDestCheck: { Value: false } }],
    [
      "instanceInitiatedShutdownBehavior",
      { InstanceInitiatedShutdownBehavior: { Value: "terminate" } },
      { InstanceInitiatedShutdownBehavior: { Value: "terminate" } },
    ],
  ];
  test.each(table)("%s", async (name, change, read) => {
    await stop();
    await modify(change);
    expect(await attribute(name)).toEqual({ InstanceId: id, ...read });
  });
});

test("a volume's fate at termination is changed in the instance and in the volume", async () => {
  await modify({ BlockDeviceMappings: [{ DeviceName: "/dev/xvda", Ebs: { DeleteOnTermination: false } }] });
  const read = await attribute("blockDeviceMapping");
  expect(read.BlockDeviceMappings![0]!.Ebs!.DeleteOnTermination).toBe(false);
  const { Volumes } = await world.ok("DescribeVolumes", {
    Filters: [{ Name: "attachment.delete-on-termination", Values: ["false"] }],
  });
  expect(Volumes).toHaveLength(1);
  expect(await refused({ BlockDeviceMappings: [{ DeviceName: "/dev/sdz", Ebs: { DeleteOnTermination: true } }] })).toBe(
    "InvalidInstanceAttributeValue: No device is currently mapped at /dev/sdz",
  );
});

test("groups are replaced, and those of another network refused", async () => {
  const group = (await attribute("groupSet")).Groups![0]!;
  expect(group.GroupName).toBe("default");
  await modify({ Groups: [group.GroupId!, group.GroupId!] });
  expect((await attribute("groupSet")).Groups).toEqual([group]);
  expect(await refused({ Groups: ["sg-0123456789abcdef0"] })).toStartWith("InvalidGroup.NotFound");
});

test("what needs a stopped instance says so of a running one", async () => {
  await world.observe(id, "running");
  const error = `IncorrectInstanceState: The instance '${id}' is not in the 'stopped' state.`;
  expect(await refused({ InstanceType: { Value: "t3.small" } })).toBe(error);
  expect(await refused({ UserData: { Value: Buffer.from("x") } })).toBe(error);
});

test("one attribute a call, and one that is known", async () => {
  expect(await refused({})).toBe("InvalidParameterCombination: No attributes specified.");
  expect(await refused({ DisableApiStop: { Value: true }, EbsOptimized: { Value: true } })).toBe(
    "InvalidParameterCombination: Fields for multiple attribute types specified",
  );
  expect(await refused({ Attribute: "disableApiStop", Value: "maybe" })).toStartWith("InvalidParameterValue");
  await stop();
  expect(await refused({ InstanceType: { Value: "z9.huge" } })).toStartWith("InvalidInstanceAttributeValue");
  expect(await refused({ UserData: { Value: new Uint8Array(16385) } })).toStartWith("InvalidParameterValue: User data");
});

test("an attribute of the instance's interface is refused when it has two", async () => {
  const [two] = (await world.launch({ NetworkInterfaces: [{ DeviceIndex: 0 }, { DeviceIndex: 1 }] })) as [string];
  expect(await world.refusal("ModifyInstanceAttribute", { InstanceId: two, SourceDestCheck: { Value: false } })).toBe(
    `InvalidInstanceID: There are multiple interfaces attached to instance '${two}'. Please specify an interface ID for the operation instead.`,
  );
});

test("a smaller type must hold the interfaces that are there", async () => {
  const [wide] = (await world.launch({
    InstanceType: "t3.small",
    NetworkInterfaces: [0, 1, 2].map((DeviceIndex) => ({ DeviceIndex })),
  })) as [string];
  await world.observe(wide, "running");
  await world.ok("StopInstances", { InstanceIds: [wide] });
  await world.observe(wide, "absent");
  expect(
    await world.refusal("ModifyInstanceAttribute", { InstanceId: wide, InstanceType: { Value: "t3.micro" } }),
  ).toBe("AttachmentLimitExceeded: Interface count 3 exceeds the limit for t3.micro");
});

test("sourceDestCheck is reset to true", async () => {
  await modify({ SourceDestCheck: { Value: false } });
  await world.ok("ResetInstanceAttribute", { InstanceId: id, Attribute: "sourceDestCheck" });
  expect(world.store.read().all(networkInterfaces)[0]!.sourceDestCheck).toBe(true);
  expect(await world.refusal("ResetInstanceAttribute", { InstanceId: id, Attribute: "userData" })).toStartWith(
    "InvalidParameterValue",
  );
});

test("metadata options change one by one", async () => {
  const changed = await world.ok("ModifyInstanceMetadataOptions", { InstanceId: id, HttpTokens: "required" });
  expect(changed.InstanceMetadataOptions).toMatchObject({ HttpTokens: "required", HttpPutResponseHopLimit: 1 });
  expect(
    await world.refusal("ModifyInstanceMetadataOptions", { InstanceId: id, HttpPutResponseHopLimit: 0 }),
  ).toStartWith("InvalidParameterValue");
});

test("the kind of host name changes on a stopped instance", async () => {
  expect(
    await world.refusal("ModifyPrivateDnsNameOptions", { InstanceId: id, PrivateDnsHostnameType: "resource-name" }),
  ).toStartWith("IncorrectInstanceState");
  await stop();
  await world.ok("ModifyPrivateDnsNameOptions", { InstanceId: id, PrivateDnsHostnameType: "resource-name" });
  const { Reservations } = await world.ok("DescribeInstances", {});
  expect(Reservations![0]!.Instances![0]!.PrivateDnsName).toBe(`${id}.ec2.internal`);
});

test("the console's last 64 KiB in base64", async () => {
  const output = await world.ok("GetConsoleOutput", { InstanceId: id });
  expect(Buffer.from(output.Output!, "base64").length).toBe(65536);
  expect(output.Timestamp).toEqual(new Date(console_.at));
  expect(await world.refusal("GetConsoleScreenshot", { InstanceId: id })).toStartWith("IncorrectInstanceState");
  await world.observe(id, "running");
  const picture = await world.ok("GetConsoleScreenshot", { InstanceId: id, WakeUp: true });
  expect(Buffer.from(picture.ImageData!, "base64").toString()).toBe("awake");
});
