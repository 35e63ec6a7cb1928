/** Volumes of instances as files: made when a machine first needs them, removed when their instance is terminated. */
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { DesiredDisk } from "../../compute/desired.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { VolumeId } from "../../model/ids.ts";
import { volumeFile } from "../../model/node-files.ts";
import type { HostError } from "../host-error.ts";
import { createVolume } from "../qemu-img.ts";

/** One empty file for each volume that was ever made here: a volume whose file has gone must never be made anew, and empty. */
const madeFile = (id: string) => join("volumes-made", id);

const volumeLost = (file: string, id: string): HostError => ({
  kind: "not-found",
  message: `The file of volume ${id} (${file}) is gone; it is not made again, as that would lose its data silently`,
});
const snapshotLost = (file: string, id: string): HostError => ({
  kind: "not-found",
  message: `Volume ${id} needs ${file}, which is not there`,
});

/** Makes the volume's file unless it is there: whole or not at all. */
export async function makeVolumeFile(dataDir: string, disk: DesiredDisk): Promise<Result<void, HostError>> {
  const file = join(dataDir, disk.file);
  const made = join(dataDir, madeFile(disk.volumeId));
  for (const folder of ["volumes", "volumes-made"]) mkdirSync(join(dataDir, folder), { recursive: true, mode: 0o710 });
  const backing = disk.backing && { file: join(dataDir, disk.backing.file), format: disk.backing.format };
  if (backing && !existsSync(backing.file)) return fail(snapshotLost(backing.file, disk.volumeId));
  if (!existsSync(file)) {
    if (existsSync(made)) return fail(volumeLost(file, disk.volumeId));
    const { format, sizeBytes } = disk;
    const created = await createVolume({ file, format, sizeBytes, ...(backing ? { backing } : {}) });
    if (!created.ok) return created;
  }
  if (!existsSync(made)) writeFileSync(made, "");
  return ok(undefined);
}

/** Removes what a daemon that was killed had begun to make. Only for when nothing is being made: at start. */
export function removeHalfMadeVolumes(dataDir: string): void {
  const folder = join(dataDir, "volumes");
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder)) {
    if (/^\.vol-.*\.tmp$/.test(name)) rmSync(join(folder, name), { force: true });
  }
}

export function removeVolumeFile(dataDir: string, id: VolumeId): void {
  rmSync(join(dataDir, volumeFile(id)), { force: true });
  rmSync(join(dataDir, madeFile(id)), { force: true });
}

/** Volumes whose files are here and which `known` lacks. They are not removed: what they hold may be all that is left of it. */
export function orphanVolumes(dataDir: string, known: ReadonlySet<string>): readonly string[] {
  const folder = join(dataDir, "volumes");
  if (!existsSync(folder)) return [];
  const ids = readdirSync(folder).map((name) => name.match(/^(vol-[0-9a-f]+)\.qcow2$/)?.[1]);
  return ids.filter((id) => id !== undefined && !known.has(id)) as string[];
}
