/** An AMI as AWS shows it, and who may do what with one. */
import { fail, ok, type Result } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import { idNotFound, parseId } from "../model/ids.ts";
import type { ImageBlockDevice, ImageRecord } from "../model/image.ts";
import type { Call } from "../model/operation.ts";
import { images, tags } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type { BlockDeviceMapping, Image } from "../schema/ec2/types.ts";
import { authFailure } from "./errors.ts";
import { mayLaunch } from "./image-access.ts";

export const viewImageDevice = (device: ImageBlockDevice): BlockDeviceMapping => ({
  DeviceName: device.deviceName,
  ...(device.virtualName !== undefined && { VirtualName: device.virtualName }),
  ...(device.noDevice && { NoDevice: "" }),
  ...(device.virtualName === undefined &&
    !device.noDevice && {
      Ebs: {
        DeleteOnTermination: device.deleteOnTermination,
        ...(device.snapshotId !== undefined && { SnapshotId: device.snapshotId }),
        ...(device.volumeSize !== undefined && { VolumeSize: device.volumeSize }),
        VolumeType: device.volumeType,
        ...(device.iops !== undefined && { Iops: device.iops }),
        ...(device.throughput !== undefined && { Throughput: device.throughput }),
        Encrypted: device.encrypted,
      },
    }),
});

const memoized = memoView(
  (image: ImageRecord, tagsOf: TagsRecord | undefined): Image => ({
    ImageId: image.id,
    ImageLocation: image.imageLocation,
    State: image.state,
    OwnerId: image.ownerId,
    CreationDate: new Date(image.createdAt).toISOString(),
    ...(image.deprecatedAt !== undefined && { DeprecationTime: new Date(image.deprecatedAt).toISOString() }),
    Public: image.public,
    ProductCodes: [],
    Architecture: image.architecture,
    ImageType: "machine",
    PlatformDetails: image.platformDetails,
    UsageOperation: "RunInstances",
    BlockDeviceMappings: image.blockDevices.map(viewImageDevice),
    ...(image.description !== undefined && { Description: image.description }),
    EnaSupport: image.enaSupport,
    Hypervisor: "xen",
    Name: image.name,
    RootDeviceName: image.rootDeviceName,
    RootDeviceType: "ebs",
    ...(image.sriovNetSupport !== undefined && { SriovNetSupport: image.sriovNetSupport }),
    Tags: tagList(tagsOf),
    VirtualizationType: "hvm",
    ...(image.bootMode !== undefined && { BootMode: image.bootMode }),
    ...(image.imdsSupport !== undefined && { ImdsSupport: image.imdsSupport }),
    DeregistrationProtection: "disabled",
    FreeTierEligible: false,
  }),
);

/** The view for one account: the tags are those of the owner. */
export const viewImage = (image: ImageRecord, { state, accountId }: Call): Image =>
  memoized(image, image.ownerId === accountId ? state.get(tags, image.id) : undefined);

export const notAvailable = (id: string): AwsError =>
  awsError("InvalidAMIID.Unavailable", `The AMI ID '${id}' is no longer available`);

/** An image that the caller may see, of its region. Errors: Malformed, NotFound, Unavailable. */
export function findImage(id: string, call: Call): Result<ImageRecord, AwsError> {
  const parsed = parseId("Image", id);
  if (!parsed.ok) return parsed;
  const image = call.state.get(images, id);
  if (!image || image.region !== call.region || !mayLaunch(image, call.accountId)) return fail(idNotFound("Image", id));
  return image.state === "deregistered" ? fail(notAvailable(id)) : ok(image);
}

/** An image of the caller's own. Errors: those of `findImage`, AuthFailure for another's. */
export function findOwnImage(id: string, call: Call): Result<ImageRecord, AwsError> {
  const image = findImage(id, call);
  if (!image.ok || image.value.ownerId === call.accountId) return image;
  return fail(authFailure(`Not authorized for image:${id}`));
}
