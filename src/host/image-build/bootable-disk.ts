/**
 * A disk that a PC's BIOS can boot, made without root, loop device or mount: a boot record, GRUB's core in the gap behind it, and
 * one ext4 partition that mke2fs fills from a directory.
 */
import { open, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { assert } from "../../lib/assert.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { GIB, MIB, MINUTE_MS } from "../../lib/units.ts";
import { type HostError, missingProgram } from "../host-error.ts";
import { runChecked } from "../run.ts";
import { listTree } from "./tree.ts";

const SECTOR_BYTES = 512;
/** The first partition starts at 1 MiB, as every partitioning tool has it; GRUB's core fits before it. */
export const PARTITION_START_SECTOR = 2048;
/** Boot code ends where the disk's signature begins. */
const BOOT_CODE_BYTES = 440;

export type BootableDisk = {
  /** Raw, sparse; made anew. */
  readonly file: string;
  readonly bytes: number;
  /** Becomes the root file system; holds boot/grub/grub.cfg. */
  readonly tree: string;
  /** At most 16 characters. */
  readonly label: string;
  /** 16 hexadecimal digits that the file system's UUID and the disk's signature are derived from. */
  readonly key: string;
  /** Directory with GRUB's boot.img and modules, from the package grub-pc-bin. */
  readonly grubModules: string;
  /** Used when the host has no grub-mkimage. */
  readonly grubMkimage: string;
  readonly scratch: string;
  readonly signal?: AbortSignal | undefined;
};

export async function makeBootableDisk(disk: BootableDisk): Promise<Result<void, HostError>> {
  const limits = { timeoutMs: 10 * MINUTE_MS, ...(disk.signal ? { signal: disk.signal } : {}) };
  assert(disk.bytes % MIB === 0 && disk.bytes > 2 * MIB, "a disk is whole MiB");

  const core = await makeGrubCore(disk);
  if (!core.ok) return core;
  const bootCode = await readFile(join(disk.grubModules, "boot.img"));
  const signature = Number.parseInt(disk.key.slice(0, 8), 16);
  await writeFile(disk.file, "");
  await truncate(disk.file, disk.bytes);
  const handle = await open(disk.file, "r+");
  try {
    const record = masterBootRecord(
      bootCode,
      signature,
      PARTITION_START_SECTOR,
      disk.bytes / SECTOR_BYTES - PARTITION_START_SECTOR,
    );
    await handle.write(record, 0, record.length, 0);
    await handle.write(core.value, 0, core.value.length, SECTOR_BYTES);
  } finally {
    await handle.close();
  }

  const blocks = (disk.bytes - PARTITION_START_SECTOR * SECTOR_BYTES) / 4096;
  // metadata_csum_seed: GRUB 2.06 refuses a file system that has it.
  const uuid = `${disk.key.slice(0, 8)}-${disk.key.slice(8, 12)}-4${disk.key.slice(13, 16)}-8000-000000000000`;
  // resize=: room for the block group table to grow until the partition table's limit of 2 TiB. lazy_*=0: the tables are written
  // here, once (as zeroes, which the qcow2 file doesn't store), and not by every guest in its first minutes.
  const extended = `offset=${PARTITION_START_SECTOR * SECTOR_BYTES},root_owner=0:0,hash_seed=${uuid},resize=${(2048 * GIB) / 4096},lazy_itable_init=0,lazy_journal_init=0`;
  const made = await runChecked(
    [
      "mke2fs",
      "-q",
      "-F",
      "-t",
      "ext4",
      "-b",
      "4096",
      "-L",
      disk.label,
      "-U",
      uuid,
      "-O",
      "^metadata_csum_seed",
      "-E",
      extended,
    ].concat(["-d", disk.tree, disk.file, String(blocks)]),
    { ...limits, env: { E2FSPROGS_FAKE_TIME: "1700000000" } },
  );
  if (!made.ok) return made;
  return process.getuid?.() === 0 ? ok(undefined) : giveToRoot(disk);
}

/** mke2fs copies the owner of each file, which is whoever builds: everything becomes root's. */
async function giveToRoot(disk: BootableDisk): Promise<Result<void, HostError>> {
  const paths = await listTree(disk.tree);
  const commands = paths.flatMap((path) => [`sif "/${path}" uid 0`, `sif "/${path}" gid 0`]);
  const script = join(disk.scratch, "owners.debugfs");
  await writeFile(script, `${commands.join("\n")}\n`);
  const target = `${disk.file}?offset=${PARTITION_START_SECTOR * SECTOR_BYTES}`;
  const done = await runChecked(["debugfs", "-w", "-f", script, target], { timeoutMs: 10 * MINUTE_MS });
  return done.ok ? ok(undefined) : done;
}

/** GRUB's core with what it needs to read one ext4 partition of the disk it was started from, and a configuration there. */
async function makeGrubCore(disk: BootableDisk): Promise<Result<Buffer, HostError>> {
  const core = join(disk.scratch, "core.img");
  const modules = [
    "biosdisk",
    "part_msdos",
    "ext2",
    "linux",
    "normal",
    "configfile",
    "serial",
    "terminal",
    "echo",
    "test",
  ];
  // No disk in the prefix: the one that the BIOS booted.
  const rest = ["-d", disk.grubModules, "-O", "i386-pc", "-o", core, "-p", "(,msdos1)/boot/grub", ...modules];
  let made = await runChecked(["grub-mkimage", ...rest]);
  // The package's own, where the host has none: it runs if its two libraries are here.
  if (!made.ok && made.error.kind === "missing-program") made = await runChecked([disk.grubMkimage, ...rest]);
  if (!made.ok) return made.error.code === 127 ? fail(missingProgram("grub-mkimage")) : made;
  const bytes = await readFile(core);
  assert(bytes.length <= (PARTITION_START_SECTOR - 1) * SECTOR_BYTES, "GRUB's core fits before the partition");
  return ok(bytes);
}

/**
 * A master boot record with one bootable Linux partition. Little-endian; offsets in bytes:
 *   0 boot code   440 u32 disk signature   446 first entry: u8 0x80 (bootable), CHS of first sector, u8 type 0x83, CHS of last,
 *   u32 first sector, u32 sectors   510 0x55 0xAA. CHS addresses say "use the sector numbers" (254, 255, 255).
 */
export function masterBootRecord(
  bootCode: Uint8Array,
  signature: number,
  firstSector: number,
  sectors: number,
): Buffer {
  assert(firstSector + sectors <= 0xffff_ffff, "a partition lies within what 32 bits count");
  const record = Buffer.alloc(SECTOR_BYTES);
  record.set(bootCode.subarray(0, BOOT_CODE_BYTES), 0);
  record.writeUInt32LE(signature, 440);
  record.set([0x80, 254, 255, 255, 0x83, 254, 255, 255], 446);
  record.writeUInt32LE(firstSector, 454);
  record.writeUInt32LE(sectors, 458);
  record.set([0x55, 0xaa], 510);
  return record;
}
