/** What an instance's machine should be, from the tables. Pure. */

import { createHash } from "node:crypto";
import { GIB } from "../lib/units.ts";
import type { InstanceId, NetworkInterfaceId, SnapshotId, VolumeId } from "../model/ids.ts";
import type { InstanceRecord } from "../model/instance.ts";
import { tapName } from "../model/network-names.ts";
import { snapshotFile, volumeFile } from "../model/node-files.ts";
import type { Reader } from "../model/store.ts";
import { images, networkInterfaces, snapshots, volumes } from "../model/tables.ts";

/** All files are relative to the data directory. */
export interface Desired {
  readonly id: InstanceId;
  readonly power: "on" | "off" | "terminated";
  readonly forced: boolean;
  readonly powerChangedAt: number;
  readonly bootGeneration: number;
  readonly rebootGeneration: number;
  readonly interruptGeneration: number;
  /** A machine that was lost with its host's power is started again. */
  readonly autoRecovery: boolean;
  readonly instanceType: string;
  readonly cores: number;
  readonly threadsPerCore: number;
  readonly memoryMib: number;
  /** The root disk first; the rest by device name. */
  readonly disks: readonly DesiredDisk[];
  /** By device index. */
  readonly nics: readonly DesiredNic[];
  readonly directBoot?: { readonly kernelFile: string; readonly initrdFile?: string; readonly commandLine: string };
  /** Begins with `ec2`, by which software in the guest knows where it runs. */
  readonly uuid: string;
  /** Volumes that go when the instance is terminated. */
  readonly deleteOnTermination: readonly VolumeId[];
  /** Why it cannot be started (yet): a snapshot that is not complete, a type that is not known. */
  readonly blocked?: { readonly reason: string; readonly permanent: boolean };
}

export interface DesiredDisk {
  readonly volumeId: VolumeId;
  readonly file: string;
  readonly format: "qcow2";
  readonly sizeBytes: number;
  readonly backing?: { readonly snapshotId: SnapshotId; readonly file: string; readonly format: "qcow2" };
  readonly deviceName: string;
  /** The volume's id without its hyphen, as on Nitro: 20 characters. */
  readonly serial: string;
  readonly root: boolean;
}

export interface DesiredNic {
  readonly eniId: NetworkInterfaceId;
  readonly tap: string;
  readonly mac: string;
  readonly deviceIndex: number;
}

/** `vol-0123…` → `vol0123…`. */
export const volumeSerial = (id: VolumeId): string => id.replace("-", "");

/** MiB of memory of an instance type; undefined for one that is not known. */
export type MemoryOfType = (instanceType: string) => number | undefined;

/** An id's UUID: `ec2` and digits that follow from the id, in the form of a random (version 4) one. */
export function instanceUuid(id: InstanceId): string {
  const hex = createHash("sha256").update(id).digest("hex");
  return `ec2${hex.slice(0, 5)}-${hex.slice(5, 9)}-4${hex.slice(9, 12)}-a${hex.slice(12, 15)}-${hex.slice(15, 27)}`;
}

/** The machine that `instance` asks for. */
export function desiredInstance(state: Reader, instance: InstanceRecord, memoryOf: MemoryOfType): Desired {
  const image = state.get(images, instance.imageId);
  const rootSnapshot = image?.blockDevices.find((d) => d.deviceName === image.rootDeviceName)?.snapshotId;
  const memoryMib = memoryOf(instance.instanceType);
  const disks = desiredDisks(state, instance);
  const blocked = whatBlocks(state, instance, disks, memoryMib);
  return {
    id: instance.id,
    power: instance.power,
    forced: instance.forced,
    powerChangedAt: instance.powerChangedAt,
    bootGeneration: instance.bootGeneration,
    rebootGeneration: instance.rebootGeneration,
    interruptGeneration: instance.interruptGeneration,
    autoRecovery: instance.maintenanceAutoRecovery === "default",
    instanceType: instance.instanceType,
    cores: instance.cpuOptions.coreCount,
    threadsPerCore: instance.cpuOptions.threadsPerCore,
    memoryMib: memoryMib ?? 0,
    disks,
    nics: desiredNics(state, instance),
    // The kernel beside the image is right for the disk only while the disk is a copy of it.
    ...(image?.directBoot && rootSnapshot && disks[0]?.root && disks[0].backing?.snapshotId === rootSnapshot
      ? {
          directBoot: {
            kernelFile: snapshotFile(rootSnapshot, image.directBoot.kernelFile),
            ...(image.directBoot.initrdFile
              ? { initrdFile: snapshotFile(rootSnapshot, image.directBoot.initrdFile) }
              : {}),
            commandLine: image.directBoot.commandLine,
          },
        }
      : {}),
    uuid: instanceUuid(instance.id),
    deleteOnTermination: instance.blockDevices.filter((d) => d.deleteOnTermination).map((d) => d.volumeId),
    ...(blocked ? { blocked } : {}),
  };
}

function desiredDisks(state: Reader, instance: InstanceRecord): readonly DesiredDisk[] {
  const disks = state.lookup(volumes, "byInstance", instance.id).map((volume): DesiredDisk => {
    const deviceName = volume.attachment!.deviceName;
    const { snapshotId } = volume;
    return {
      volumeId: volume.id,
      file: volumeFile(volume.id),
      format: "qcow2",
      sizeBytes: volume.size * GIB,
      ...(snapshotId ? { backing: { snapshotId, file: snapshotFile(snapshotId), format: "qcow2" } } : {}),
      deviceName,
      serial: volumeSerial(volume.id),
      root: deviceName === instance.rootDeviceName,
    };
  });
  return disks.sort((a, b) => Number(b.root) - Number(a.root) || (a.deviceName < b.deviceName ? -1 : 1));
}

function desiredNics(state: Reader, instance: InstanceRecord): readonly DesiredNic[] {
  return state
    .lookup(networkInterfaces, "byInstance", instance.id)
    .map((eni) => ({
      eniId: eni.id,
      tap: tapName(eni.id),
      mac: eni.macAddress,
      deviceIndex: eni.attachment!.deviceIndex,
    }))
    .sort((a, b) => a.deviceIndex - b.deviceIndex);
}

function whatBlocks(
  state: Reader,
  instance: InstanceRecord,
  disks: readonly DesiredDisk[],
  memoryMib: number | undefined,
): Desired["blocked"] {
  if (memoryMib === undefined) {
    return { reason: `This node does not know the instance type ${instance.instanceType}`, permanent: true };
  }
  for (const { backing, volumeId } of disks) {
    if (!backing) continue;
    const snapshot = state.get(snapshots, backing.snapshotId);
    if (snapshot?.state === "pending") {
      return { reason: `Snapshot ${backing.snapshotId} is not complete`, permanent: false };
    }
    if (snapshot?.state === "error") {
      return { reason: `Volume ${volumeId} needs snapshot ${backing.snapshotId}, which failed`, permanent: true };
    }
  }
  return undefined;
}
