import type { SnapshotId, VolumeId } from "./ids.ts";

/** Where a node keeps the bytes of a volume, relative to its data directory. */
export const volumeFile = (id: VolumeId): string => `volumes/${id}.qcow2`;

/** Where a node keeps a file of a snapshot, relative to its data directory: its disk, or the kernel and initrd beside it. */
export const snapshotFile = (id: SnapshotId, name = "disk.qcow2"): string => `snapshots/${id}/${name}`;
