/**
 * Which volumes an instance starts with: the image's block devices, each overridden, suppressed or added to by the
 * request's mappings.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/block-device-mapping-concepts.html
 */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import { idNotFound, parseId, type SnapshotId } from "../model/ids.ts";
import type { ImageBlockDevice, ImageRecord, SnapshotRecord } from "../model/image.ts";
import type { Reader } from "../model/store.ts";
import { snapshots } from "../model/tables.ts";
import type { BlockDeviceMapping } from "../schema/ec2/types.ts";
import { notYet } from "./errors.ts";
import { VOLUMES_PER_INSTANCE_MAX } from "./instance-types.ts";
import { isBootable, type VolumeShape, volumeShape } from "./volume-rules.ts";

export interface PlannedVolume extends VolumeShape {
  readonly deviceName: string;
  readonly deleteOnTermination: boolean;
  readonly snapshotId?: SnapshotId;
}

const invalidMapping = (why: string): AwsError => awsError("InvalidBlockDeviceMapping", why);

/** EBS device names: `/dev/sdf`, `/dev/sda1`, `xvdb`, `/dev/xvdba`, `/dev/vda`. */
const DEVICE_NAME = /^(\/dev\/)?(sd[a-z]([1-9]|1[0-5])?|xvd[a-z]{1,2}\d{0,2}|vd[a-z]|hd[a-z]\d{0,2})$/;

/**
 * The volumes of one instance, the root first. Errors: InvalidBlockDeviceMapping, InvalidSnapshot.NotFound,
 * InvalidParameterValue, InvalidParameterCombination, AttachmentLimitExceeded.
 * @param visible whether the caller may use a snapshot that is not the image's own
 */
export function planVolumes(
  state: Reader,
  image: ImageRecord,
  mappings: readonly BlockDeviceMapping[] | undefined,
  visible: (snapshot: SnapshotRecord) => boolean,
): Result<PlannedVolume[], AwsError> {
  const overrides = new Map<string, BlockDeviceMapping>();
  for (const mapping of mappings ?? []) {
    const name = mapping.DeviceName;
    if (!name) return fail(awsError("MissingParameter", "The request must contain the parameter deviceName"));
    if (!DEVICE_NAME.test(name)) return fail(invalidMapping(`Invalid device name ${name}`));
    if (overrides.has(name))
      return fail(invalidMapping(`The device '${name}' is used in more than one block-device mapping`));
    overrides.set(name, mapping);
  }

  const planned: PlannedVolume[] = [];
  for (const device of image.blockDevices) {
    const override = overrides.get(device.deviceName);
    overrides.delete(device.deviceName);
    const isRoot = device.deviceName === image.rootDeviceName;
    if (override?.NoDevice !== undefined) {
      if (isRoot) return fail(invalidMapping(`The root device '${device.deviceName}' cannot be suppressed`));
      continue;
    }
    // Nitro machines have no ephemeral disks: the mapping is ignored, as there.
    if (device.noDevice || (device.virtualName !== undefined && !override?.Ebs)) continue;
    const volume = planVolume(state, device.deviceName, override?.Ebs ?? {}, device, isRoot, visible);
    if (!volume.ok) return volume;
    planned.push(volume.value);
  }
  for (const [name, mapping] of overrides) {
    if (mapping.NoDevice !== undefined || !mapping.Ebs) {
      if (mapping.NoDevice === undefined && mapping.VirtualName === undefined)
        return fail(invalidMapping(`The block device mapping for ${name} names neither a volume nor a virtual device`));
      continue;
    }
    const volume = planVolume(state, name, mapping.Ebs, undefined, false, visible);
    if (!volume.ok) return volume;
    planned.push(volume.value);
  }
  if (planned.length > VOLUMES_PER_INSTANCE_MAX)
    return fail(
      awsError(
        "AttachmentLimitExceeded",
        `The maximum number of volumes for an instance is ${VOLUMES_PER_INSTANCE_MAX}.`,
      ),
    );
  const rootFirst = (v: PlannedVolume) => (v.deviceName === image.rootDeviceName ? 0 : 1);
  return ok(planned.sort((a, b) => rootFirst(a) - rootFirst(b)));
}

function planVolume(
  state: Reader,
  deviceName: string,
  asked: NonNullable<BlockDeviceMapping["Ebs"]>,
  inherited: ImageBlockDevice | undefined,
  isRoot: boolean,
  visible: (snapshot: SnapshotRecord) => boolean,
): Result<PlannedVolume, AwsError> {
  if (asked.Encrypted || asked.KmsKeyId !== undefined) return fail(notYet("Encryption of volumes"));
  if (asked.OutpostArn !== undefined) return fail(notYet("A volume on an Outpost"));

  let snapshotId = inherited?.snapshotId;
  let snapshot = snapshotId && state.get(snapshots, snapshotId);
  if (asked.SnapshotId !== undefined && asked.SnapshotId !== snapshotId) {
    if (isRoot) return fail(invalidMapping("snapshotId cannot be modified on root device"));
    const id = parseId("Snapshot", asked.SnapshotId);
    if (!id.ok) return id;
    snapshotId = id.value;
    snapshot = state.get(snapshots, snapshotId);
    if (!snapshot || !visible(snapshot)) return fail(idNotFound("Snapshot", snapshotId));
  }
  if (snapshotId && !snapshot) return fail(idNotFound("Snapshot", snapshotId));
  if (snapshot && snapshot.state !== "completed")
    return fail(awsError("IncorrectState", `Snapshot is in invalid state - ${snapshot.state}`));

  const size = asked.VolumeSize ?? inherited?.volumeSize ?? snapshot?.volumeSize;
  if (size === undefined)
    return fail(
      awsError("MissingParameter", `The request must contain the parameter size or snapshotId for ${deviceName}`),
    );
  if (snapshot && size < snapshot.volumeSize)
    return fail(
      invalidMapping(
        `Volume of size ${size}GB is smaller than snapshot '${snapshot.id}', expect size >= ${snapshot.volumeSize}GB`,
      ),
    );
  // Another type leaves the image's figures behind: they were meant for the one it names.
  const sameType = asked.VolumeType === undefined || asked.VolumeType === inherited?.volumeType;
  const type = asked.VolumeType ?? inherited?.volumeType ?? "gp2";
  const inheritedIops = sameType && type !== "gp2" ? inherited?.iops : undefined;
  const shape = volumeShape(
    type,
    size,
    asked.Iops ?? inheritedIops,
    asked.Throughput ?? (sameType ? inherited?.throughput : undefined),
  );
  if (!shape.ok) return shape;
  if (isRoot && !isBootable(shape.value.volumeType))
    return fail(awsError("InvalidParameterValue", `The volume type ${type} cannot be used for a root volume.`));
  return ok({
    ...shape.value,
    deviceName,
    // A volume that an AMI or a request adds goes with the instance unless it says otherwise, as with EC2's API.
    deleteOnTermination: asked.DeleteOnTermination ?? inherited?.deleteOnTermination ?? true,
    ...(snapshotId && { snapshotId }),
  });
}
