import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type ComputeWorld, computeWorld } from "../../test/support/compute-world.ts";
import { seededRandom } from "../lib/random.ts";
import { newId } from "../model/ids.ts";
import { put } from "../model/store.ts";
import { instances, networkInterfaces, subnets, tags, volumes } from "../model/tables.ts";
import type { RunInstancesRequest } from "../schema/ec2/types.ts";

let world: ComputeWorld;
beforeEach(async () => {
  world = await computeWorld({ config: { zones: ["us-east-1a", "us-east-1b"] } });
});
afterEach(() => world.close());

const run = (over: Partial<RunInstancesRequest> = {}) =>
  world.ok("RunInstances", { ImageId: world.imageId, InstanceType: "t3.micro", MinCount: 1, MaxCount: 1, ...over });
const refused = (over: Partial<RunInstancesRequest>) =>
  world.refusal("RunInstances", {
    ImageId: world.imageId,
    InstanceType: "t3.micro",
    MinCount: 1,
    MaxCount: 1,
    ...over,
  });

/** Everything that is in the tables of instances and what belongs to them. */
const counts = () => {
  const state = world.store.read();
  return [instances, volumes, networkInterfaces, tags].map((table) => state.count(table));
};

test("a launch answers with pending instances that have all that AWS shows", async () => {
  const reservation = await run({ MinCount: 2, MaxCount: 2 });
  expect(reservation.OwnerId).toBe("123456789012");
  expect(reservation.ReservationId).toMatch(/^r-[0-9a-f]{17}$/);
  const [first, second] = reservation.Instances!;
  expect(first).toMatchObject({
    ImageId: world.imageId,
    InstanceType: "t3.micro",
    State: { Code: 0, Name: "pending" },
    StateReason: { Code: "pending", Message: "pending" },
    StateTransitionReason: "",
    AmiLaunchIndex: 0,
    LaunchTime: new Date(world.now),
    Placement: { AvailabilityZone: "us-east-1a", Tenancy: "default" },
    Monitoring: { State: "disabled" },
    CpuOptions: { CoreCount: 1, ThreadsPerCore: 2 },
    RootDeviceName: "/dev/xvda",
    RootDeviceType: "ebs",
    SubnetId: world.subnets[0]!.id,
    VpcId: world.subnets[0]!.vpcId,
    SecurityGroups: [{ GroupName: "default" }],
    MetadataOptions: { HttpTokens: "optional", HttpPutResponseHopLimit: 1, State: "applied" },
  });
  expect(second!.AmiLaunchIndex).toBe(1);
  expect(first!.PrivateIpAddress).toMatch(/^172\.31\.\d+\.\d+$/);
  expect(first!.PrivateDnsName).toBe(`ip-${first!.PrivateIpAddress!.replaceAll(".", "-")}.ec2.internal`);
  expect(first!.PublicIpAddress).toMatch(/^198\.18\.\d+\.\d+$/);
  expect(first!.PublicIpAddress).not.toBe("198.18.0.1");
  expect(first!.PublicIpAddress).not.toBe(second!.PublicIpAddress!);
  expect(first!.PrivateIpAddress).not.toBe(second!.PrivateIpAddress!);
  expect(first!.NetworkInterfaces![0]!.MacAddress).toMatch(/^02(:[0-9a-f]{2}){5}$/);
});

test("what is described afterwards is what the launch answered, and the same object while nothing changes", async () => {
  const reservation = await run({
    TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: "a" }] }],
  });
  const described = await world.ok("DescribeInstances", {});
  expect(described.Reservations).toEqual([reservation]);
  const again = await world.ok("DescribeInstances", {});
  expect(again.Reservations![0]).toBe(described.Reservations![0]!);
  await world.launch();
  const later = await world.ok("DescribeInstances", { InstanceIds: [reservation.Instances![0]!.InstanceId!] });
  expect(later.Reservations![0]!.Instances![0]).toBe(described.Reservations![0]!.Instances![0]!);
});

test("a new instance's volumes are in use and go with it", async () => {
  const reservation = await run();
  const { Volumes } = await world.ok("DescribeVolumes", {});
  expect(Volumes).toHaveLength(1);
  expect(Volumes![0]).toMatchObject({
    Size: 2,
    SnapshotId: world.snapshotId,
    VolumeType: "gp3",
    Iops: 3000,
    Throughput: 125,
    State: "in-use",
    Attachments: [
      { InstanceId: reservation.Instances![0]!.InstanceId, Device: "/dev/xvda", DeleteOnTermination: true },
    ],
  });
});

test("the image's mapping is overridden, and more volumes are added", async () => {
  await run({
    BlockDeviceMappings: [
      { DeviceName: "/dev/xvda", Ebs: { VolumeSize: 10, VolumeType: "io2", Iops: 500, DeleteOnTermination: false } },
      { DeviceName: "/dev/sdb", VirtualName: "ephemeral0" },
      { DeviceName: "/dev/sdf", Ebs: { VolumeSize: 5, VolumeType: "gp2" } },
      { DeviceName: "/dev/sdg", Ebs: { SnapshotId: world.snapshotId } },
      { DeviceName: "/dev/sdh", NoDevice: "" },
    ],
    TagSpecifications: [{ ResourceType: "volume", Tags: [{ Key: "of", Value: "mine" }] }],
  });
  const { Volumes } = await world.ok("DescribeVolumes", { Filters: [{ Name: "tag:of", Values: ["mine"] }] });
  const byDevice = new Map(Volumes!.map((volume) => [volume.Attachments![0]!.Device, volume]));
  expect([...byDevice.keys()].sort()).toEqual(["/dev/sdf", "/dev/sdg", "/dev/xvda"]);
  expect(byDevice.get("/dev/xvda")).toMatchObject({
    Size: 10,
    VolumeType: "io2",
    Iops: 500,
    SnapshotId: world.snapshotId,
  });
  expect(byDevice.get("/dev/xvda")!.Attachments![0]!.DeleteOnTermination).toBe(false);
  expect(byDevice.get("/dev/sdf")).toMatchObject({ Size: 5, VolumeType: "gp2", Iops: 100, SnapshotId: "" });
  expect(byDevice.get("/dev/sdg")).toMatchObject({ Size: 2, SnapshotId: world.snapshotId });
});

test("two interfaces with addresses of their own and no public one", async () => {
  const subnet = world.subnets[0]!;
  const reservation = await run({
    NetworkInterfaces: [
      { DeviceIndex: 1, SubnetId: subnet.id, Description: "second" },
      {
        DeviceIndex: 0,
        SubnetId: subnet.id,
        PrivateIpAddress: "172.31.0.10",
        SecondaryPrivateIpAddressCount: 1,
        DeleteOnTermination: false,
      },
    ],
    TagSpecifications: [{ ResourceType: "network-interface", Tags: [{ Key: "k", Value: "v" }] }],
  });
  const instance = reservation.Instances![0]!;
  expect(instance.PublicIpAddress).toBeUndefined();
  expect(instance.PrivateIpAddress).toBe("172.31.0.10");
  const [first, second] = instance.NetworkInterfaces!;
  expect(first!.Attachment).toMatchObject({ DeviceIndex: 0, DeleteOnTermination: false });
  expect(first!.PrivateIpAddresses).toHaveLength(2);
  expect(second).toMatchObject({ Description: "second", Attachment: { DeviceIndex: 1, DeleteOnTermination: true } });
  const found = await world.ok("DescribeInstances", {
    Filters: [
      { Name: "network-interface.tag-key", Values: ["k"] },
      { Name: "network-interface.addresses.private-ip-address", Values: ["172.31.0.1?"] },
    ],
  });
  expect(found.Reservations).toHaveLength(1);
});

test("an interface that exists is attached, and cannot be twice", async () => {
  const reservation = await run();
  const eni = world.store.read().all(networkInterfaces)[0]!;
  const { attachment: _, ...free } = { ...eni, id: newId("NetworkInterface", seededRandom(9)) };
  await world.write([
    put(networkInterfaces, { ...free, privateIpAddresses: [{ address: "172.31.0.77", primary: true }] }),
  ]);
  const use = { NetworkInterfaces: [{ DeviceIndex: 0, NetworkInterfaceId: free.id }] };
  const second = await run(use);
  expect(second.Instances![0]!.PrivateIpAddress).toBe("172.31.0.77");
  expect(second.Instances![0]!.NetworkInterfaces![0]!.Attachment!.DeleteOnTermination).toBe(false);
  expect(await refused(use)).toBe(`InvalidNetworkInterface.InUse: Interface: [${free.id}] in use.`);
  expect(reservation.Instances).toHaveLength(1);
});

test("an instance keeps the public half of its key pair", async () => {
  await world.ok("CreateKeyPair", { KeyName: "mine", KeyType: "ed25519" });
  const [id] = await world.launch({ KeyName: "mine" });
  await world.ok("DeleteKeyPair", { KeyName: "mine" });
  expect(world.store.read().get(instances, id!)!.publicKey).toMatch(/^ssh-ed25519 AAAA\S+ mine$/);
});

describe("capacity", () => {
  test("as many as fit between MinCount and MaxCount", async () => {
    const reservation = await run({ InstanceType: "t3.medium", MinCount: 1, MaxCount: 5 });
    expect(reservation.Instances).toHaveLength(2);
  });
  test("fewer than MinCount fit: none is launched", async () => {
    const before = counts();
    expect(await refused({ InstanceType: "t3.medium", MinCount: 3, MaxCount: 5 })).toStartWith(
      "InsufficientInstanceCapacity: We currently do not have sufficient t3.medium capacity in the Availability Zone you requested (us-east-1a).",
    );
    expect(counts()).toEqual(before);
  });
  test("a zone without nodes has no capacity", async () => {
    expect(await refused({ Placement: { AvailabilityZone: "us-east-1b" } })).toStartWith(
      "InsufficientInstanceCapacity",
    );
  });
  test("a stopped instance frees its share, and needs it back to start", async () => {
    const [first] = await world.launch({ InstanceType: "t3.large" });
    await world.observe(first!, "running");
    expect(await refused({ InstanceType: "t3.large" })).toStartWith("InsufficientInstanceCapacity");
    await world.ok("StopInstances", { InstanceIds: [first!] });
    expect(await refused({ InstanceType: "t3.large" })).toStartWith("InsufficientInstanceCapacity");
    await world.observe(first!, "absent");
    await run({ InstanceType: "t3.large" });
    expect(await world.refusal("StartInstances", { InstanceIds: [first!] })).toStartWith(
      "InsufficientInstanceCapacity",
    );
  });
});

test("a full subnet says so, and MinCount of what fits is launched", async () => {
  const base = world.subnets[0]!;
  const id = newId("Subnet", seededRandom(5));
  await world.write([
    put(subnets, { ...base, id, cidrBlock: "172.31.255.0/28", defaultForAz: false, mapPublicIpOnLaunch: false }),
  ]);
  const reservation = await run({ SubnetId: id, InstanceType: "h1.nano" as never, MinCount: 10, MaxCount: 20 });
  expect(reservation.Instances).toHaveLength(11);
  const addresses = new Set(reservation.Instances!.map((instance) => instance.PrivateIpAddress));
  expect(addresses.size).toBe(11);
  expect(reservation.Instances!.every((instance) => instance.PublicIpAddress === undefined)).toBe(true);
  expect(await refused({ SubnetId: id })).toBe(
    `InsufficientFreeAddressesInSubnet: There are not enough free addresses in subnet '${id}' to satisfy the requested number of instances.`,
  );
});

test("a launch is repeatable by its client token", async () => {
  const first = await run({ ClientToken: "once" });
  const second = await run({ ClientToken: "once" });
  expect(second.Instances![0]!.InstanceId).toBe(first.Instances![0]!.InstanceId!);
  expect(world.store.read().count(instances)).toBe(1);
});

test("a dry run launches nothing", async () => {
  expect(await refused({ DryRun: true })).toStartWith("DryRunOperation");
  expect(counts()).toEqual([0, 0, 0, 0]);
});

const ebs = (Ebs: object, DeviceName = "/dev/sdf") => ({ BlockDeviceMappings: [{ DeviceName, Ebs }] });
const nic = (...NetworkInterfaces: object[]) => ({ NetworkInterfaces });
const tagged = (count: number, key = "k") => ({
  TagSpecifications: [
    {
      ResourceType: "instance" as const,
      Tags: Array.from({ length: count }, (_, i) => ({ Key: `${key}${i}`, Value: "" })),
    },
  ],
});
const table: [claim: string, input: Partial<RunInstancesRequest>, error: string][] = [
  ["no image", { ImageId: undefined }, "MissingParameter: The request must contain the parameter ImageId"],
  ["an id that is none", { ImageId: "ami-x" }, "InvalidAMIID.Malformed"],
  [
    "an image that is not",
    { ImageId: "ami-0123456789abcdef0" },
    "InvalidAMIID.NotFound: The image id '[ami-0123456789abcdef0]' does not exist",
  ],
  [
    "an unknown type",
    { InstanceType: "z9.huge" as never },
    "InvalidParameterValue: Invalid value 'z9.huge' for InstanceType.",
  ],
  ["a count of none", { MinCount: 0 }, "InvalidParameterValue: Value (0) for parameter minCount is invalid."],
  [
    "more at least than at most",
    { MinCount: 2, MaxCount: 1 },
    "InvalidParameterValue: Value (1) for parameter maxCount",
  ],
  ["more than one request can launch", { MinCount: 1001, MaxCount: 1001 }, "InstanceLimitExceeded"],
  ["a key pair that is not", { KeyName: "nobody" }, "InvalidKeyPair.NotFound: The key pair 'nobody' does not exist"],
  [
    "user data that is not base64",
    { UserData: "%%%" },
    "InvalidUserData.Malformed: Invalid BASE64 encoding of user data.",
  ],
  [
    "user data of 16385 bytes",
    { UserData: Buffer.alloc(16385).toString("base64") },
    "InvalidParameterValue: User data is limited to 16384 bytes",
  ],
  [
    "a group that is not",
    { SecurityGroupIds: ["sg-0123456789abcdef0"] },
    "InvalidGroup.NotFound: The security group 'sg-0123456789abcdef0' does not exist",
  ],
  [
    "a group name that is not",
    { SecurityGroups: ["web"] },
    "InvalidGroup.NotFound: The security group 'web' does not exist in default VPC 'vpc-",
  ],
  ["a subnet that is not", { SubnetId: "subnet-0123456789abcdef0" }, "InvalidSubnetID.NotFound"],
  [
    "an unknown zone",
    { Placement: { AvailabilityZone: "mars-1a" } },
    "InvalidParameterValue: Invalid availability zone: [mars-1a]",
  ],
  ["a placement group", { Placement: { GroupName: "near" } }, "UnsupportedOperation: A placement group"],
  ["dedicated tenancy", { Placement: { Tenancy: "dedicated" } }, "UnsupportedOperation"],
  [
    "an address outside the subnet",
    { PrivateIpAddress: "10.0.0.5" },
    "InvalidParameterValue: Address 10.0.0.5 does not fall within the subnet's address range",
  ],
  [
    "a reserved address",
    { PrivateIpAddress: "172.31.0.1" },
    "InvalidParameterValue: Address 172.31.0.1 is in subnet's reserved address range",
  ],
  [
    "an address that is none",
    { PrivateIpAddress: "172.31.0.400" },
    "InvalidParameterValue: invalid value for parameter address: 172.31.0.400",
  ],
  ["one address for two", { PrivateIpAddress: "172.31.0.9", MinCount: 2, MaxCount: 2 }, "InvalidParameterCombination"],
  [
    "interfaces and a subnet",
    { ...nic({ DeviceIndex: 0 }), SubnetId: "subnet-1" },
    "InvalidParameterCombination: Network interfaces and an instance-level subnet ID may not be specified on the same request",
  ],
  [
    "interfaces and groups",
    { ...nic({ DeviceIndex: 0 }), SecurityGroupIds: ["sg-1"] },
    "InvalidParameterCombination: Network interfaces and an instance-level security groups may not be specified on the same request",
  ],
  [
    "interfaces and an address",
    { ...nic({ DeviceIndex: 0 }), PrivateIpAddress: "172.31.0.9" },
    "InvalidParameterCombination: Network interfaces and an instance-level private address",
  ],
  ["no index", nic({}), "InvalidParameterValue: Each network interface requires a device index."],
  [
    "an index twice",
    nic({ DeviceIndex: 0 }, { DeviceIndex: 0 }),
    "InvalidParameterValue: Each network interface requires a unique device index.",
  ],
  [
    "no primary",
    nic({ DeviceIndex: 1 }),
    "InvalidParameterValue: When specifying network interfaces, you must include a device at index 0.",
  ],
  [
    "an address twice",
    nic({ DeviceIndex: 0, PrivateIpAddress: "172.31.0.9" }, { DeviceIndex: 1, PrivateIpAddress: "172.31.0.9" }),
    "InvalidParameterValue: 172.31.0.9 is specified for more than one network interface.",
  ],
  [
    "too many interfaces",
    nic({ DeviceIndex: 0 }, { DeviceIndex: 1 }, { DeviceIndex: 2 }),
    "AttachmentLimitExceeded: Interface count 3 exceeds the limit for t3.micro",
  ],
  [
    "too many addresses",
    nic({ DeviceIndex: 0, SecondaryPrivateIpAddressCount: 2 }),
    "PrivateIpAddressLimitExceeded: Number of private addresses will exceed limit.",
  ],
  [
    "a public address for two interfaces",
    nic({ DeviceIndex: 0, AssociatePublicIpAddress: true }, { DeviceIndex: 1 }),
    "InvalidParameterCombination: The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces.",
  ],
  [
    "an interface that is not",
    nic({ DeviceIndex: 0, NetworkInterfaceId: "eni-0123456789abcdef0" }),
    "InvalidNetworkInterfaceID.NotFound",
  ],
  [
    "a root smaller than its snapshot",
    ebs({ VolumeSize: 1 }, "/dev/xvda"),
    "InvalidBlockDeviceMapping: Volume of size 1GB is smaller than snapshot 'snap-",
  ],
  [
    "another snapshot for the root",
    ebs({ SnapshotId: "snap-0123456789abcdef0" }, "/dev/xvda"),
    "InvalidBlockDeviceMapping: snapshotId cannot be modified on root device",
  ],
  ["a volume of no size", ebs({}), "MissingParameter"],
  [
    "a strange device",
    ebs({ VolumeSize: 1 }, "/dev/../etc"),
    "InvalidBlockDeviceMapping: Invalid device name /dev/../etc",
  ],
  ["a snapshot that is not", ebs({ SnapshotId: "snap-0123456789abcdef0" }), "InvalidSnapshot.NotFound"],
  [
    "an unknown volume type",
    ebs({ VolumeSize: 1, VolumeType: "gp9" }),
    "InvalidParameterValue: Value (gp9) for parameter volumeType is invalid.",
  ],
  [
    "iops for gp2",
    ebs({ VolumeSize: 1, VolumeType: "gp2", Iops: 100 }),
    "InvalidParameterCombination: The parameter iops is not supported for gp2 volumes.",
  ],
  [
    "io1 without iops",
    ebs({ VolumeSize: 4, VolumeType: "io1" }),
    "MissingParameter: The request must contain the parameter iops",
  ],
  [
    "gp3 with few iops",
    ebs({ VolumeSize: 1, VolumeType: "gp3", Iops: 100 }),
    "InvalidParameterValue: Volume iops of 100 is too low; minimum is 3000.",
  ],
  [
    "io1 above its ratio",
    ebs({ VolumeSize: 4, VolumeType: "io1", Iops: 201 }),
    "InvalidParameterValue: Iops to volume size ratio of 50.250000 is too high; maximum is 50.",
  ],
  [
    "a cold root",
    ebs({ VolumeSize: 125, VolumeType: "sc1" }, "/dev/xvda"),
    "InvalidParameterValue: The volume type sc1 cannot be used for a root volume.",
  ],
  ["an encrypted volume", ebs({ VolumeSize: 1, Encrypted: true }), "UnsupportedOperation: Encryption of volumes"],
  ["51 tags", tagged(51), "TagLimitExceeded"],
  [
    "a reserved tag",
    tagged(1, "aws:"),
    "InvalidParameterValue: Tag keys starting with 'aws:' are reserved for internal use",
  ],
  [
    "tags of another kind",
    { TagSpecifications: [{ ResourceType: "vpc", Tags: [{ Key: "a" }] }] },
    "InvalidParameterValue: 'vpc' is not a valid taggable resource type",
  ],
  [
    "a hop limit of 65",
    { MetadataOptions: { HttpPutResponseHopLimit: 65 } },
    "InvalidParameterValue: Value (65) for parameter HttpPutResponseHopLimit",
  ],
  [
    "three threads a core",
    { CpuOptions: { CoreCount: 1, ThreadsPerCore: 3 } },
    "InvalidParameterValue: Value (3) for parameter ThreadsPerCore",
  ],
  [
    "credits for a type that has none",
    { InstanceType: "m5.large", CreditSpecification: { CpuCredits: "unlimited" } },
    "InvalidParameterCombination",
  ],
  ["a launch template", { LaunchTemplate: { LaunchTemplateName: "x" } }, "UnsupportedOperation: A launch template"],
  ["the spot market", { InstanceMarketOptions: { MarketType: "spot" } }, "UnsupportedOperation"],
  ["hibernation", { HibernationOptions: { Configured: true } }, "UnsupportedOperation: Hibernation"],
];
test.each(table)("refused, and nothing changed: %s", async (_claim, input, error) => {
  expect(await refused(input)).toStartWith(error);
  expect(counts()).toEqual([0, 0, 0, 0]);
});
