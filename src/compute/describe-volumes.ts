/** DescribeVolumes and DescribeVolumeStatus: the read side of EBS volumes. */
import { ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import { zonesOf } from "../model/config.ts";
import type { VolumeRecord } from "../model/image.ts";
import type { Call, Describe } from "../model/operation.ts";
import { tags, volumes } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import { zoneId } from "../model/zones.ts";
import type {
  DescribeVolumeStatusRequest,
  DescribeVolumeStatusResult,
  DescribeVolumesRequest,
  DescribeVolumesResult,
  Volume,
  VolumeStatusItem,
} from "../schema/ec2/types.ts";
import { allOwned, getOwned } from "./owned.ts";

const viewVolume = memoView(
  (volume: VolumeRecord, tagsOf: TagsRecord | undefined, zone: string): Volume => ({
    VolumeId: volume.id,
    VolumeArn: `arn:aws:ec2:${volume.region}:${volume.accountId}:volume/${volume.id}`,
    OwnerId: volume.accountId,
    Size: volume.size,
    SnapshotId: volume.snapshotId ?? "",
    AvailabilityZone: volume.zone,
    AvailabilityZoneId: zone,
    State: volume.attachment ? "in-use" : "available",
    CreateTime: new Date(volume.createdAt),
    Attachments: volume.attachment
      ? [
          {
            VolumeId: volume.id,
            InstanceId: volume.attachment.instanceId,
            Device: volume.attachment.deviceName,
            State: "attached",
            AttachTime: new Date(volume.attachment.attachTime),
            DeleteOnTermination: volume.attachment.deleteOnTermination,
          },
        ]
      : [],
    Encrypted: volume.encrypted,
    VolumeType: volume.volumeType,
    ...(volume.iops !== undefined && { Iops: volume.iops }),
    ...(volume.throughput !== undefined && { Throughput: volume.throughput }),
    MultiAttachEnabled: false,
    FastRestored: false,
    Tags: tagList(tagsOf),
    Operator: { Managed: false },
  }),
);

const view = (volume: VolumeRecord, { state, config, region }: Call): Volume =>
  viewVolume(volume, state.get(tags, volume.id), zoneId(region, zonesOf(config), volume.zone));

export const describeVolumes: Describe<DescribeVolumesRequest, DescribeVolumesResult, Volume> = {
  kind: "describe",
  ids: {
    kind: "Volume",
    of: (input) => input.VolumeIds,
    idOf: (volume) => volume.VolumeId!,
    get(id, _input, call) {
      const volume = getOwned(call, volumes, id);
      return volume && view(volume, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, volumes).map((volume) => view(volume, call))),
  filters: {
    "attachment.status": (volume) => volume.Attachments?.map((attachment) => attachment.State),
    status: (volume) => volume.State,
  },
  page: { min: 5, max: 1000, key: (volume) => volume.VolumeId! },
  answer: (items) => ({ Volumes: items }),
};

const viewStatus = memoView(
  (volume: VolumeRecord, zone: string): VolumeStatusItem => ({
    VolumeId: volume.id,
    AvailabilityZone: volume.zone,
    AvailabilityZoneId: zone,
    VolumeStatus: {
      Status: "ok",
      Details: [
        { Name: "io-enabled", Status: "passed" },
        { Name: "io-performance", Status: "not-applicable" },
      ],
    },
    Actions: [],
    Events: [],
    AttachmentStatuses: [],
    Operator: { Managed: false },
  }),
);

const status = (volume: VolumeRecord, { config, region }: Call): VolumeStatusItem =>
  viewStatus(volume, zoneId(region, zonesOf(config), volume.zone));

export const describeVolumeStatus: Describe<DescribeVolumeStatusRequest, DescribeVolumeStatusResult, VolumeStatusItem> =
  {
    kind: "describe",
    ids: {
      kind: "Volume",
      of: (input) => input.VolumeIds,
      idOf: (item) => item.VolumeId!,
      get(id, _input, call) {
        const volume = getOwned(call, volumes, id);
        return volume && status(volume, call);
      },
    },
    list: (_input, call) => ok(allOwned(call, volumes).map((volume) => status(volume, call))),
    filters: {
      "attachment-status.instance-id": (item) => item.AttachmentStatuses?.map((attachment) => attachment.InstanceId),
      "attachment-status.io-performance": (item) =>
        item.AttachmentStatuses?.map((attachment) => attachment.IoPerformance),
    },
    page: { min: 5, max: 1000, key: (item) => item.VolumeId! },
    answer: (items) => ({ VolumeStatuses: items }),
  };
