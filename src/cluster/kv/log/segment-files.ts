import { fail, ok, type Result } from "../../../lib/result.ts";
import { MIB } from "../../../lib/units.ts";
import { type Disk, type DiskFile, errorCode, isDiskFull } from "../disk.ts";
import type { LogError } from "./log-storage.ts";
import { encodeSegmentHeader, type SegmentHeader } from "./record.ts";

const SUFFIX = ".segment";
const PREPARED = "prepared.tmp";
const ZEROS = new Uint8Array(MIB);

/** How many damaged segments are kept for whoever wants to look; the oldest go. */
const SET_ASIDE_MAX = 8;

export const isSegmentName = (name: string): boolean => /^[0-9a-f]{16}\.segment$/.test(name);
export const isSetAsideName = (name: string): boolean => /^[0-9a-f]{16}\.segment\.damaged$/.test(name);
export const sequenceOf = (name: string): number => Number.parseInt(name, 16);
export const segmentPath = (directory: string, sequence: number): string =>
  `${directory}/${sequence.toString(16).padStart(16, "0")}${SUFFIX}`;

/** Moves damaged segments out of the log's way, in the order given. Durable once the directory is synced. */
export async function setAside(disk: Disk, directory: string, paths: readonly string[]): Promise<void> {
  if (paths.length === 0) return;
  for (const path of paths) await disk.rename(path, `${path}.damaged`);
  const names = (await disk.list(directory)).filter(isSetAsideName).toSorted();
  for (const name of names.slice(0, -SET_ASIDE_MAX)) await disk.remove(`${directory}/${name}`);
}

/** Turns a rejection of the disk into the log's error. */
export function logError(doing: string, cause: unknown): LogError {
  const code = errorCode(cause) ?? (cause instanceof Error ? cause.message : String(cause));
  return isDiskFull(cause)
    ? { reason: "full", message: `There is no space left on the disk for ${doing} (${code}).`, cause }
    : { reason: "failed", message: `The disk failed at ${doing} (${code}).`, cause };
}

export async function attempt<T>(doing: string, work: () => Promise<T>): Promise<Result<T, LogError>> {
  try {
    return ok(await work());
  } catch (cause) {
    return fail(logError(doing, cause));
  }
}

/**
 * Makes segment files: filled with zeros and synced under a temporary name, the next one ahead of time, and given their
 * header and name when they are needed. A file that has its name is whole.
 */
export class SegmentMaker {
  readonly #disk: Disk;
  readonly #directory: string;
  /** The file that is (being) prepared, and its size. Never rejects; an error has cleaned up after itself. */
  #prepared: { readonly bytes: number; readonly file: Promise<Result<DiskFile, LogError>> } | undefined;

  constructor(disk: Disk, directory: string) {
    this.#disk = disk;
    this.#directory = directory;
  }

  /** Begins to prepare the next file, unless that is under way. */
  prepare(bytes: number): void {
    this.#prepared ??= { bytes, file: this.#fill(bytes) };
  }

  /** A segment of at least `bytes`, open for writing, with its header and name, all durable. */
  async make(
    header: SegmentHeader,
    bytes: number,
  ): Promise<Result<{ readonly file: DiskFile; readonly path: string; readonly bytes: number }, LogError>> {
    let prepared = await this.#take();
    if (!prepared?.file.ok || prepared.bytes < bytes) {
      if (prepared?.file.ok) await this.#discard(prepared.file.value);
      prepared = { bytes, file: await this.#fill(bytes) };
    }
    if (!prepared.file.ok) return prepared.file;
    const file = prepared.file.value;
    const path = segmentPath(this.#directory, header.sequence);
    const named = await attempt("a new log segment", async () => {
      await file.writeDurable(0, encodeSegmentHeader(header));
      await this.#disk.rename(this.#path(PREPARED), path);
    });
    const synced = named.ok
      ? await attempt("a new log segment", () => this.#disk.syncDirectory(this.#directory))
      : named;
    if (synced.ok) return ok({ file, path, bytes: prepared.bytes });
    await file.close().catch(() => {});
    // With its name, it ends what the segments before it count for: the log can't go on in those, whatever the reason was.
    return named.ok ? fail({ ...synced.error, reason: "failed" }) : named;
  }

  /** Removes what was prepared and not used. */
  async close(): Promise<void> {
    const prepared = await this.#take();
    if (prepared?.file.ok) await this.#discard(prepared.file.value);
  }

  async #take() {
    const prepared = this.#prepared;
    this.#prepared = undefined;
    return prepared && { bytes: prepared.bytes, file: await prepared.file };
  }

  async #discard(file: DiskFile): Promise<void> {
    await file.close().catch(() => {});
    await this.#disk.remove(this.#path(PREPARED)).catch(() => {});
  }

  async #fill(bytes: number): Promise<Result<DiskFile, LogError>> {
    await this.#disk.remove(this.#path(PREPARED)).catch(() => {});
    let file: DiskFile | undefined;
    try {
      file = await this.#disk.open(this.#path(PREPARED), "create");
      for (let at = 0; at < bytes; at += ZEROS.length) {
        await file.write(at, ZEROS.subarray(0, Math.min(ZEROS.length, bytes - at)));
      }
      await file.datasync();
      return ok(file);
    } catch (cause) {
      // What was written so far would keep a full disk full.
      if (file) await this.#discard(file);
      return fail(logError("a new log segment", cause));
    }
  }

  #path(name: string): string {
    return `${this.#directory}/${name}`;
  }
}
