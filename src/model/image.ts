import type { AccountId, ImageId, InstanceId, NodeId, SnapshotId, VolumeId } from "./ids.ts";

/** An AMI. */
export interface ImageRecord {
  readonly id: ImageId;
  readonly region: string;
  readonly ownerId: AccountId;
  /** Unique among an account's images in a region. 3 to 128 characters. */
  readonly name: string;
  readonly description?: string;
  readonly architecture: "x86_64" | "arm64" | "i386";
  readonly state: "available" | "deregistered";
  readonly createdAt: number;
  readonly deprecatedAt?: number;
  readonly rootDeviceName: string;
  readonly blockDevices: readonly ImageBlockDevice[];
  readonly bootMode?: "legacy-bios" | "uefi" | "uefi-preferred";
  readonly enaSupport: boolean;
  readonly sriovNetSupport?: string;
  readonly imdsSupport?: "v2.0";
  readonly platformDetails: string;
  readonly public: boolean;
  /** Accounts that may launch it, besides its owner. */
  readonly launchAccounts: readonly AccountId[];
  readonly imageLocation: string;
  /** Hive's own: a kernel and initrd beside the root snapshot let QEMU boot it without firmware. Files of the root snapshot's folder. */
  readonly directBoot?: DirectBoot;
}

export interface DirectBoot {
  readonly kernelFile: string;
  readonly initrdFile?: string;
  readonly commandLine: string;
}

export interface ImageBlockDevice {
  readonly deviceName: string;
  readonly snapshotId?: SnapshotId;
  readonly virtualName?: string;
  readonly noDevice?: boolean;
  /** GiB. */
  readonly volumeSize?: number;
  readonly volumeType: VolumeType;
  readonly iops?: number;
  readonly throughput?: number;
  readonly deleteOnTermination: boolean;
  readonly encrypted: boolean;
}

export type VolumeType = "gp2" | "gp3" | "io1" | "io2" | "st1" | "sc1" | "standard";

/** The bytes of a disk at one moment. Until snapshots are chunks in the object store, one qcow2 file on its node. */
export interface SnapshotRecord {
  readonly id: SnapshotId;
  readonly region: string;
  readonly ownerId: AccountId;
  readonly nodeId: NodeId;
  readonly state: "pending" | "completed" | "error";
  readonly startTime: number;
  readonly description: string;
  /** GiB, rounded up. */
  readonly volumeSize: number;
  /** Bytes that a guest sees. */
  readonly virtualBytes: number;
  readonly volumeId?: VolumeId;
}

/** A block device that outlives the machine it is plugged into. */
export interface VolumeRecord {
  readonly id: VolumeId;
  readonly accountId: AccountId;
  readonly region: string;
  readonly zone: string;
  readonly nodeId: NodeId;
  /** GiB. */
  readonly size: number;
  readonly volumeType: VolumeType;
  readonly iops?: number;
  readonly throughput?: number;
  readonly encrypted: boolean;
  readonly snapshotId?: SnapshotId;
  readonly createdAt: number;
  readonly attachment?: VolumeAttachment;
}

export interface VolumeAttachment {
  readonly instanceId: InstanceId;
  readonly deviceName: string;
  readonly deleteOnTermination: boolean;
  readonly attachTime: number;
}
