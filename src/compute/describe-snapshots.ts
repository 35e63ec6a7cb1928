/** DescribeSnapshots: the read side of EBS snapshots. An account sees its own, and those of images that it may launch. */
import { fail, ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import { invalidValueFor } from "../model/errors.ts";
import type { SnapshotRecord } from "../model/image.ts";
import type { Call, Describe } from "../model/operation.ts";
import { images, snapshots, tags } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type { DescribeSnapshotsRequest, DescribeSnapshotsResult, Snapshot } from "../schema/ec2/types.ts";
import { mayLaunch } from "./image-access.ts";

const PROGRESS = { pending: "0%", completed: "100%", error: "" } as const;

const viewSnapshot = memoView(
  (snapshot: SnapshotRecord, tagsOf: TagsRecord | undefined): Snapshot => ({
    SnapshotId: snapshot.id,
    VolumeId: snapshot.volumeId ?? "vol-ffffffff",
    State: snapshot.state,
    StartTime: new Date(snapshot.startTime),
    Progress: PROGRESS[snapshot.state],
    OwnerId: snapshot.ownerId,
    Description: snapshot.description,
    VolumeSize: snapshot.volumeSize,
    Encrypted: false,
    StorageTier: "standard",
    TransferType: "standard",
    Tags: tagList(tagsOf),
  }),
);

/** Snapshots themselves are not shared yet; an image that may be launched shows its own. */
export function maySee(snapshot: SnapshotRecord, { state, accountId, region }: Call): boolean {
  if (snapshot.region !== region) return false;
  return (
    snapshot.ownerId === accountId ||
    state.lookup(images, "bySnapshot", snapshot.id).some((image) => mayLaunch(image, accountId))
  );
}

const view = (snapshot: SnapshotRecord, { state, accountId }: Call): Snapshot => {
  const own = state.get(tags, snapshot.id);
  return viewSnapshot(snapshot, own?.accountId === accountId ? own : undefined);
};

export const describeSnapshots: Describe<DescribeSnapshotsRequest, DescribeSnapshotsResult, Snapshot> = {
  kind: "describe",
  ids: {
    kind: "Snapshot",
    of: (input) => input.SnapshotIds,
    idOf: (snapshot) => snapshot.SnapshotId!,
    get(id, _input, call) {
      const snapshot = call.state.get(snapshots, id);
      return snapshot && maySee(snapshot, call) ? view(snapshot, call) : undefined;
    },
  },
  list(input, call) {
    const owners = new Set<string>();
    for (const owner of input.OwnerIds ?? []) {
      if (!/^(\d{12}|self|amazon|aws-marketplace)$/.test(owner)) return fail(invalidValueFor("owner", owner));
      owners.add(owner === "self" ? call.accountId : owner);
    }
    const restorable = input.RestorableByUserIds ?? [];
    const shared = (snapshot: SnapshotRecord) =>
      restorable.length === 0 || (restorable.includes("self") && snapshot.ownerId === call.accountId);
    return ok(
      call.state
        .all(snapshots)
        .filter((snapshot) => maySee(snapshot, call))
        .filter((snapshot) => (owners.size === 0 || owners.has(snapshot.ownerId)) && shared(snapshot))
        .map((snapshot) => view(snapshot, call)),
    );
  },
  filters: { status: (snapshot) => snapshot.State },
  page: { min: 5, max: 1000, key: (snapshot) => snapshot.SnapshotId! },
  answer: (items) => ({ Snapshots: items }),
};
