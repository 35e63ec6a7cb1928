import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { ACCOUNT, type ComputeWorld, computeWorld, REGION } from "../../test/support/compute-world.ts";
import { seededRandom } from "../lib/random.ts";
import { GIB } from "../lib/units.ts";
import { type AccountId, type NodeId, newId } from "../model/ids.ts";
import { put } from "../model/store.ts";
import { images } from "../model/tables.ts";
import type { DescribeImagesRequest, RegisterImageRequest } from "../schema/ec2/types.ts";
import { decideImportImage } from "./register-image.ts";

const OTHER = "999999999999" as AccountId;
let world: ComputeWorld;
beforeEach(async () => {
  world = await computeWorld();
});
afterEach(() => world.close());

const names = async (input: Partial<DescribeImagesRequest> = {}, as = ACCOUNT) =>
  (await world.ok("DescribeImages", input, as)).Images!.map((image) => image.Name!).sort();
const root = () => ({ DeviceName: "/dev/sda1", Ebs: { SnapshotId: world.snapshotId } });
const register = (over: Partial<RegisterImageRequest> = {}) =>
  world.ok("RegisterImage", { Name: "mine", BlockDeviceMappings: [root()], ...over });
const refused = (over: Partial<RegisterImageRequest>) =>
  world.refusal("RegisterImage", { Name: "mine", BlockDeviceMappings: [root()], ...over });

test("an imported file is an image of its size with a snapshot, under a name of its own", async () => {
  const { Images } = await world.ok("DescribeImages", { Owners: ["self"] });
  expect(Images).toHaveLength(1);
  expect(Images![0]).toMatchObject({
    ImageId: world.imageId,
    Name: "tiny",
    State: "available",
    Public: false,
    OwnerId: ACCOUNT,
    ImageLocation: `${ACCOUNT}/tiny`,
    CreationDate: "1970-01-01T00:00:00.000Z",
    RootDeviceName: "/dev/xvda",
    BlockDeviceMappings: [{ DeviceName: "/dev/xvda", Ebs: { SnapshotId: world.snapshotId, VolumeSize: 2 } }],
  });
  const { Snapshots } = await world.ok("DescribeSnapshots", { OwnerIds: ["self"] });
  expect(Snapshots).toMatchObject([
    { SnapshotId: world.snapshotId, State: "completed", Progress: "100%", VolumeSize: 2 },
  ]);
  const file = {
    accountId: ACCOUNT,
    region: REGION,
    nodeId: "node-1" as NodeId,
    snapshotId: newId("Snapshot", seededRandom(3)),
    name: "tiny",
    virtualBytes: GIB,
    now: 0,
    random: seededRandom(4),
  };
  const again = decideImportImage(world.store.read(), file);
  expect(again).toMatchObject({ ok: false, error: { code: "InvalidAMIName.Duplicate" } });
  expect(decideImportImage(world.store.read(), { ...file, name: "x", virtualBytes: 0 })).toMatchObject({ ok: false });
  const odd = decideImportImage(world.store.read(), { ...file, name: "odd", virtualBytes: GIB + 1 });
  expect(odd.ok && odd.value.writes[0]).toMatchObject({ record: { volumeSize: 2 } });
});

test("a registered image launches, and one that is deregistered no longer", async () => {
  const { ImageId } = await register({ Description: "of mine" });
  const [id] = await world.launch({ ImageId: ImageId! });
  expect(id).toBeDefined();
  await world.ok("DeregisterImage", { ImageId: ImageId! });
  expect(await names()).toEqual(["tiny"]);
  const input = { ImageId: ImageId!, InstanceType: "h1.nano" as never, MinCount: 1, MaxCount: 1 };
  expect(await world.refusal("RunInstances", input)).toStartWith("InvalidAMIID.Unavailable");
  expect(await world.refusal("DeregisterImage", { ImageId: ImageId! })).toStartWith("InvalidAMIID.Unavailable");
  // The instance is still shown with it, and the name is free again.
  const { Reservations } = await world.ok("DescribeInstances", {});
  expect(Reservations![0]!.Instances![0]!.ImageId).toBe(ImageId!);
  await register();
});

test("the kernel beside a snapshot boots every image of it", async () => {
  const image = world.store.read().get(images, world.imageId)!;
  const directBoot = { kernelFile: "vmlinuz", commandLine: "console=ttyS0" };
  await world.write([put(images, { ...image, directBoot })]);
  const { ImageId } = await register();
  expect(world.store.read().get(images, ImageId!)!.directBoot).toEqual(directBoot);
});

const table: [claim: string, input: Partial<RegisterImageRequest>, error: string][] = [
  ["a short name", { Name: "ab" }, "InvalidAMIName.Malformed: AMI names must be between 3 and 128 characters long"],
  ["a name in use", { Name: "tiny" }, "InvalidAMIName.Duplicate: AMI name tiny is already in use by AMI ami-"],
  [
    "no root device",
    { RootDeviceName: "/dev/xvdq" },
    "InvalidBlockDeviceMapping: The block device mapping must include a snapshot for the root device /dev/xvdq",
  ],
  ["no mapping", { BlockDeviceMappings: [] }, "InvalidBlockDeviceMapping"],
  [
    "a snapshot that is not",
    { BlockDeviceMappings: [{ DeviceName: "/dev/sda1", Ebs: { SnapshotId: "snap-0123456789abcdef0" } }] },
    "InvalidSnapshot.NotFound",
  ],
  ["paravirtual", { VirtualizationType: "paravirtual" }, "InvalidParameterValue"],
  ["arm64", { Architecture: "arm64" }, "InvalidParameterValue"],
];
test.each(table)("RegisterImage refuses %s", async (_claim, input, error) => {
  expect(await refused(input)).toStartWith(error);
});

describe("sharing", () => {
  const permissions = async () =>
    (await world.ok("DescribeImageAttribute", { ImageId: world.imageId, Attribute: "launchPermission" }))
      .LaunchPermissions;
  const modify = (change: object) => world.ok("ModifyImageAttribute", { ImageId: world.imageId, ...change });

  test("with an account, by the structure and by the list", async () => {
    expect(await names({}, OTHER)).toEqual([]);
    await modify({ LaunchPermission: { Add: [{ UserId: OTHER }] } });
    expect(await permissions()).toEqual([{ UserId: OTHER }]);
    expect(await names({}, OTHER)).toEqual(["tiny"]);
    expect(await names({ ExecutableUsers: ["self"] }, OTHER)).toEqual(["tiny"]);
    expect(await names({ ExecutableUsers: ["self"] })).toEqual([]);
    expect(await world.refusal("DeregisterImage", { ImageId: world.imageId }, OTHER)).toBe(
      `AuthFailure: Not authorized for image:${world.imageId}`,
    );
    await modify({ Attribute: "launchPermission", OperationType: "remove", UserIds: [OTHER] });
    expect(await permissions()).toEqual([]);
  });
  test("with all, until it is reset", async () => {
    await modify({ LaunchPermission: { Add: [{ Group: "all" }] } });
    expect(await names({ ExecutableUsers: ["all"] }, OTHER)).toEqual(["tiny"]);
    expect(await names({ Filters: [{ Name: "is-public", Values: ["true"] }] })).toEqual(["tiny"]);
    await world.ok("ResetImageAttribute", { ImageId: world.imageId, Attribute: "launchPermission" });
    expect(await names({}, OTHER)).toEqual([]);
  });
  test("with nobody that is not an account", async () => {
    const LaunchPermission = { Add: [{ UserId: "bob" }] };
    expect(await world.refusal("ModifyImageAttribute", { ImageId: world.imageId, LaunchPermission })).toBe(
      `InvalidAMIAttributeItemValue: Invalid attribute item value "bob" for userId item type.`,
    );
  });
});

test("images are found by owner, name and description; deprecated ones only by their owner", async () => {
  await register();
  await world.ok("ModifyImageAttribute", { ImageId: world.imageId, Description: { Value: "very small" } });
  expect(await names({ Filters: [{ Name: "description", Values: ["*small"] }] })).toEqual(["tiny"]);
  expect(await names({ Filters: [{ Name: "name", Values: ["m*"] }] })).toEqual(["mine"]);
  expect(await names({ Owners: ["amazon"] })).toEqual([]);
  expect(await names({ Owners: [ACCOUNT] })).toEqual(["mine", "tiny"]);
  const image = world.store.read().get(images, world.imageId)!;
  await world.write([put(images, { ...image, public: true, deprecatedAt: world.now - 1 })]);
  expect(await names()).toEqual(["mine", "tiny"]);
  expect(await names({}, OTHER)).toEqual([]);
  expect(await names({ IncludeDeprecated: true }, OTHER)).toEqual(["tiny"]);
  expect(await names({ ImageIds: [world.imageId] }, OTHER)).toEqual(["tiny"]);
});
