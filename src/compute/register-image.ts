/** RegisterImage, DeregisterImage, and the import of an image file that the daemon has at hand. */
import type { Random } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { GIB } from "../lib/units.ts";
import { type AwsError, awsError, invalidParameterValue, invalidValueFor, missingParameter } from "../model/errors.ts";
import {
  type AccountId,
  type ImageId,
  idNotFound,
  type NodeId,
  newId,
  parseId,
  type SnapshotId,
} from "../model/ids.ts";
import type { DirectBoot, ImageBlockDevice, ImageRecord, SnapshotRecord } from "../model/image.ts";
import type { Call, Mutation } from "../model/operation.ts";
import { put, type Reader, remove, type Write } from "../model/store.ts";
import { images, instances, snapshots, tags } from "../model/tables.ts";
import { tagsFor } from "../model/tags.ts";
import type {
  BlockDeviceMapping,
  DeregisterImageRequest,
  DeregisterImageResult,
  RegisterImageRequest,
  RegisterImageResult,
} from "../schema/ec2/types.ts";
import { notYet } from "./errors.ts";
import { findOwnImage } from "./image-view.ts";
import { oneOf } from "./instance-options.ts";
import { volumeShape } from "./volume-rules.ts";

/** A name of an AMI: 3 to 128 characters of EC2's set, not yet used by another of the account's images. */
export function freeImageName(
  state: Reader,
  ownerId: AccountId,
  region: string,
  name: string | undefined,
): Result<string, AwsError> {
  if (!name) return fail(missingParameter("Name"));
  if (!/^[A-Za-z0-9()[\] ./\-'@_]{3,128}$/.test(name))
    return fail(
      awsError(
        "InvalidAMIName.Malformed",
        "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', '/' and '_'",
      ),
    );
  const taken = state
    .lookup(images, "byName", `${ownerId}/${region}/${name}`)
    .find((image) => image.state === "available");
  return taken
    ? fail(awsError("InvalidAMIName.Duplicate", `AMI name ${name} is already in use by AMI ${taken.id}`))
    : ok(name);
}

export interface ImportedImage {
  readonly accountId: AccountId;
  readonly region: string;
  /** The node that holds the file. */
  readonly nodeId: NodeId;
  /** Under which the file was put in place before. */
  readonly snapshotId: SnapshotId;
  readonly name: string;
  readonly description?: string;
  readonly architecture?: ImageRecord["architecture"];
  readonly bootMode?: "legacy-bios" | "uefi" | "uefi-preferred";
  /** Bytes of the disk as a guest sees it. */
  readonly virtualBytes: number;
  /** `/dev/xvda` when absent. */
  readonly rootDeviceName?: string;
  readonly directBoot?: DirectBoot;
  readonly now: number;
  readonly random: Random;
}

/**
 * Makes an image file an AMI: a snapshot and an image record. Errors: InvalidAMIName.Malformed and .Duplicate,
 * InvalidParameterValue for a disk without bytes or of more than 64 TiB.
 */
export function decideImportImage(
  state: Reader,
  file: ImportedImage,
): Result<{ writes: Write[]; output: { imageId: ImageId; snapshotId: SnapshotId } }, AwsError> {
  const { accountId, region, now } = file;
  const name = freeImageName(state, accountId, region, file.name);
  if (!name.ok) return name;
  const size = Math.ceil(file.virtualBytes / GIB);
  if (!Number.isSafeInteger(file.virtualBytes) || size < 1 || size > 65536)
    return fail(invalidParameterValue(`A disk of ${file.virtualBytes} bytes cannot be imported.`));
  const snapshot: SnapshotRecord = {
    id: file.snapshotId,
    region,
    ownerId: accountId,
    nodeId: file.nodeId,
    state: "completed",
    startTime: now,
    description: `Imported for the image ${name.value}`,
    volumeSize: size,
    virtualBytes: file.virtualBytes,
  };
  const image: ImageRecord = {
    id: newId("Image", file.random),
    region,
    ownerId: accountId,
    name: name.value,
    ...(file.description !== undefined && { description: file.description }),
    architecture: file.architecture ?? "x86_64",
    state: "available",
    createdAt: now,
    rootDeviceName: file.rootDeviceName ?? "/dev/xvda",
    blockDevices: [
      {
        deviceName: file.rootDeviceName ?? "/dev/xvda",
        snapshotId: snapshot.id,
        volumeSize: size,
        volumeType: "gp3",
        deleteOnTermination: true,
        encrypted: false,
      },
    ],
    ...(file.bootMode !== undefined && { bootMode: file.bootMode }),
    enaSupport: true,
    platformDetails: "Linux/UNIX",
    public: false,
    launchAccounts: [],
    imageLocation: `${accountId}/${name.value}`,
    ...(file.directBoot && { directBoot: file.directBoot }),
  };
  return ok({
    writes: [put(snapshots, snapshot), put(images, image)],
    output: { imageId: image.id, snapshotId: snapshot.id },
  });
}

const invalidMapping = (why: string): AwsError => awsError("InvalidBlockDeviceMapping", why);

function readDevice(mapping: BlockDeviceMapping, call: Call): Result<ImageBlockDevice, AwsError> {
  const deviceName = mapping.DeviceName;
  if (!deviceName) return fail(missingParameter("deviceName"));
  const plain = { deviceName, volumeType: "gp2", deleteOnTermination: true, encrypted: false } as const;
  if (mapping.NoDevice !== undefined) return ok({ ...plain, noDevice: true });
  const ebs = mapping.Ebs;
  if (!ebs)
    return mapping.VirtualName === undefined
      ? fail(invalidMapping(`The block device mapping for ${deviceName} names neither a volume nor a virtual device`))
      : ok({ ...plain, virtualName: mapping.VirtualName });
  if (ebs.Encrypted || ebs.KmsKeyId !== undefined) return fail(notYet("Encryption of volumes"));
  let snapshot: SnapshotRecord | undefined;
  if (ebs.SnapshotId !== undefined) {
    const id = parseId("Snapshot", ebs.SnapshotId);
    if (!id.ok) return id;
    snapshot = call.state.get(snapshots, id.value);
    if (!snapshot || snapshot.ownerId !== call.accountId || snapshot.region !== call.region)
      return fail(idNotFound("Snapshot", id.value));
  }
  const size = ebs.VolumeSize ?? snapshot?.volumeSize;
  if (size === undefined) return fail(missingParameter(`size or snapshotId for ${deviceName}`));
  if (snapshot && size < snapshot.volumeSize)
    return fail(
      invalidMapping(
        `Volume of size ${size}GB is smaller than snapshot '${snapshot.id}', expect size >= ${snapshot.volumeSize}GB`,
      ),
    );
  const shape = volumeShape(ebs.VolumeType ?? "gp2", size, ebs.Iops, ebs.Throughput);
  if (!shape.ok) return shape;
  return ok({
    deviceName,
    ...(snapshot && { snapshotId: snapshot.id }),
    volumeSize: size,
    volumeType: shape.value.volumeType,
    ...(ebs.Iops !== undefined && { iops: ebs.Iops }),
    ...(ebs.Throughput !== undefined && { throughput: ebs.Throughput }),
    deleteOnTermination: ebs.DeleteOnTermination ?? true,
    encrypted: false,
  });
}

export const registerImage: Mutation<RegisterImageRequest, RegisterImageResult> = {
  kind: "mutation",
  decide(input, call) {
    if (input.ImageLocation !== undefined) return fail(notYet("An image in an S3 bucket (instance store)"));
    if (input.KernelId !== undefined || input.RamdiskId !== undefined)
      return fail(notYet("A paravirtual kernel or RAM disk"));
    if (input.TpmSupport !== undefined || input.UefiData !== undefined) return fail(notYet("NitroTPM"));
    if (input.BillingProducts?.length) return fail(notYet("A billing product"));
    const name = freeImageName(call.state, call.accountId, call.region, input.Name);
    if (!name.ok) return name;
    const virtualization = oneOf("VirtualizationType", input.VirtualizationType ?? "hvm", ["hvm"]);
    if (!virtualization.ok) return virtualization;
    // EC2's default is i386, which no machine of today is; Hive's is what its machines are.
    const architecture = oneOf("Architecture", input.Architecture ?? "x86_64", ["x86_64", "i386"]);
    if (!architecture.ok) return architecture;
    const boot = input.BootMode && oneOf("BootMode", input.BootMode, ["legacy-bios", "uefi", "uefi-preferred"]);
    if (boot && !boot.ok) return boot;
    const imds = input.ImdsSupport && oneOf("ImdsSupport", input.ImdsSupport, ["v2.0"]);
    if (imds && !imds.ok) return imds;
    if ((input.Description ?? "").length > 255)
      return fail(invalidValueFor("Description", "", "It can have up to 255 characters."));

    const blockDevices: ImageBlockDevice[] = [];
    for (const mapping of input.BlockDeviceMappings ?? []) {
      const device = readDevice(mapping, call);
      if (!device.ok) return device;
      if (blockDevices.some((other) => other.deviceName === device.value.deviceName))
        return fail(
          invalidMapping(`The device '${device.value.deviceName}' is used in more than one block-device mapping`),
        );
      blockDevices.push(device.value);
    }
    const rootDeviceName = input.RootDeviceName ?? "/dev/sda1";
    const root = blockDevices.find((device) => device.deviceName === rootDeviceName);
    if (!root?.snapshotId)
      return fail(
        invalidMapping(`The block device mapping must include a snapshot for the root device ${rootDeviceName}`),
      );
    const tagged = tagsFor(input.TagSpecifications, "image", ["image", "snapshot"]);
    if (!tagged.ok) return tagged;

    // A kernel beside the root snapshot boots every image that is made of it.
    const sibling = call.state
      .lookup(images, "bySnapshot", root.snapshotId)
      .find(
        (image) =>
          image.directBoot &&
          image.blockDevices.some((d) => d.deviceName === image.rootDeviceName && d.snapshotId === root.snapshotId),
      );
    const { accountId, region } = call;
    const image: ImageRecord = {
      id: newId("Image", call.random),
      region,
      ownerId: accountId,
      name: name.value,
      ...(input.Description !== undefined && { description: input.Description }),
      architecture: architecture.value,
      state: "available",
      createdAt: call.now,
      rootDeviceName,
      blockDevices,
      ...(boot && { bootMode: boot.value }),
      enaSupport: input.EnaSupport ?? false,
      ...(input.SriovNetSupport !== undefined && { sriovNetSupport: input.SriovNetSupport }),
      ...(imds && { imdsSupport: imds.value }),
      platformDetails: "Linux/UNIX",
      public: false,
      launchAccounts: [],
      imageLocation: `${accountId}/${name.value}`,
      ...(sibling?.directBoot && { directBoot: sibling.directBoot }),
    };
    const writes: Write[] = [put(images, image)];
    if (Object.keys(tagged.value).length > 0)
      writes.push(put(tags, { resourceId: image.id, resourceType: "image", accountId, region, tags: tagged.value }));
    return ok({ writes, output: { ImageId: image.id } });
  },
};

/**
 * The image can no longer be launched. Its record stays while an instance is made of it: a start needs to know how it
 * boots.
 */
export const deregisterImage: Mutation<DeregisterImageRequest, DeregisterImageResult> = {
  kind: "mutation",
  decide(input, call) {
    const image = findOwnImage(input.ImageId, call);
    if (!image.ok) return image;
    if (input.DeleteAssociatedSnapshots) return fail(notYet("Deleting snapshots together with their image"));
    const used = call.state.countOf(instances, "byImage", image.value.id) > 0;
    return ok({
      writes: [
        used ? put(images, { ...image.value, state: "deregistered" }) : remove(images, image.value.id),
        remove(tags, image.value.id),
      ],
      output: { Return: true },
    });
  },
};
