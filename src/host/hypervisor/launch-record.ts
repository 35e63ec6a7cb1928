/**
 * What a daemon must know of a machine that an earlier daemon started: which start of the instance it is, and what is
 * plugged in. Written beside the instance's files before the process is started, in a folder that only the daemon writes.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { instanceFolder } from "../qemu/command-line.ts";

const schema = z.object({
  bootGeneration: z.int(),
  rebootGeneration: z.int(),
  interruptGeneration: z.int(),
  /** The host's boot in which it was started. */
  hostBootId: z.string(),
  /** Absent until the process is started. */
  process: z.object({ pid: z.int(), startTicks: z.number() }).optional(),
  vcpus: z.int(),
  disks: z.array(z.string()),
  nics: z.array(z.object({ eniId: z.string(), tap: z.string() })),
});

export type LaunchRecord = Readonly<z.infer<typeof schema>>;

const fileOf = (dataDir: string, id: string) => join(dataDir, instanceFolder(id), "generation.json");

/** The record; undefined when there is none, or it cannot be understood (then its machine is nobody's). */
export function readLaunchRecord(dataDir: string, id: string): LaunchRecord | undefined {
  try {
    const parsed = schema.safeParse(JSON.parse(readFileSync(fileOf(dataDir, id), "utf8")));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

export function writeLaunchRecord(dataDir: string, id: string, record: LaunchRecord): void {
  const file = fileOf(dataDir, id);
  writeFileSync(`${file}.tmp`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${file}.tmp`, file);
}

export function removeLaunchRecord(dataDir: string, id: string): void {
  rmSync(fileOf(dataDir, id), { force: true });
}
