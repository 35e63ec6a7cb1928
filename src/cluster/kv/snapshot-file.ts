/**
 * The bytes of a snapshot file. Little-endian; chunks one after another:
 *   0 u32 magic 0x4E535648 ("HVSN")   4 u32 format version, 1        8 u32 payload length, at most CHUNK_BYTES_MAX
 *   12 u32 CRC-32 of the chunk before (0 for the first): the chain   16 u32 CRC-32 of bytes 0 to 15 then payload
 *   20 payload, JSON in UTF-8
 * The first chunk is the SnapshotMeta; then come arrays of rows in ascending key order, a row being
 * [key, format, createRevision, modRevision, version, lease | null, value]; the last is {"rows": count}.
 * A file that has its name is whole: it is written as *.tmp, synced, renamed, and the directory synced.
 */
import { assert } from "../../lib/assert.ts";
import type { LeaseId, Revision } from "../../model/store.ts";
import { buildState } from "./build-state.ts";
import { deepFreeze } from "./command.ts";
import type { Disk } from "./disk.ts";
import { NewerFormat, type Schema, spaceOfKey, upgrade } from "./schema.ts";
import { scan } from "./sorted-map.ts";
import type { KeyValue, State } from "./state.ts";

export type SnapshotMeta = {
  /** The last log entry that the snapshot holds, and its term. */
  readonly index: number;
  readonly term: number;
  readonly revision: Revision;
  readonly leases: readonly (readonly [LeaseId, number])[];
};

const MAGIC = 0x4e535648;
const FORMAT_VERSION = 1;
const HEADER_BYTES = 20;
/** A slice of work between two returns to the event loop: well under a millisecond. */
const CHUNK_BYTES = 64 * 1024;
const ROWS_READ_AT_ONCE = 64;

export const snapshotName = (index: number): string => `${index.toString(16).padStart(16, "0")}.snapshot`;
export const isSnapshotName = (name: string): boolean => /^[0-9a-f]{16}\.snapshot$/.test(name);
export const indexOfSnapshot = (name: string): number => Number.parseInt(name, 16);

/**
 * Writes a state while others go on changing what comes after it: the state itself never changes. Rejects with the
 * disk's error, having removed what it wrote.
 * @returns the size of the file
 */
export async function writeSnapshot(disk: Disk, directory: string, meta: SnapshotMeta, state: State): Promise<number> {
  const path = `${directory}/${snapshotName(meta.index)}`;
  const temporary = `${path}.tmp`;
  await disk.remove(temporary).catch(() => {});
  const file = await disk.open(temporary, "create");
  try {
    let offset = 0;
    let chain = 0;
    for (const text of texts(meta, state)) {
      const chunk = encodeChunk(text, chain);
      chain = chunk.readUInt32LE(16);
      await file.write(offset, chunk);
      offset += chunk.length;
    }
    await file.datasync();
    await file.close();
    await disk.rename(temporary, path);
    await disk.syncDirectory(directory);
    return offset;
  } catch (error) {
    await file.close().catch(() => {});
    await disk.remove(temporary).catch(() => {});
    throw error;
  }
}

function* texts(meta: SnapshotMeta, state: State): Generator<string> {
  yield JSON.stringify(meta);
  let rows: string[] = [];
  let length = 0;
  let count = 0;
  let from: string | undefined;
  while (true) {
    const entries: KeyValue[] = scan(state.keys, from, undefined, ROWS_READ_AT_ONCE);
    for (const entry of entries) {
      const row = [
        entry.key,
        entry.format,
        entry.createRevision,
        entry.modRevision,
        entry.version,
        entry.lease ?? null,
      ];
      const text = JSON.stringify([...row, entry.value]);
      rows.push(text);
      length += text.length;
      if (length < CHUNK_BYTES) continue;
      yield `[${rows.join(",")}]`;
      rows = [];
      length = 0;
    }
    count += entries.length;
    if (entries.length < ROWS_READ_AT_ONCE) break;
    from = `${entries.at(-1)!.key}\0`;
  }
  yield `[${rows.join(",")}]`;
  yield JSON.stringify({ rows: count });
}

function encodeChunk(text: string, chain: number): Buffer {
  const length = Buffer.byteLength(text);
  const chunk = Buffer.alloc(HEADER_BYTES + length);
  chunk.writeUInt32LE(MAGIC, 0);
  chunk.writeUInt32LE(FORMAT_VERSION, 4);
  chunk.writeUInt32LE(length, 8);
  chunk.writeUInt32LE(chain, 12);
  chunk.write(text, HEADER_BYTES);
  chunk.writeUInt32LE(chunkCrc(chunk), 16);
  return chunk;
}

const chunkCrc = (chunk: Buffer): number =>
  Bun.hash.crc32(chunk.subarray(HEADER_BYTES), Bun.hash.crc32(chunk.subarray(0, 16)));

/** Why a snapshot can't be used. `newer`: a later version of Hive wrote it. */
export type SnapshotError = { readonly reason: "damaged" | "newer"; readonly message: string };

/** Reads a snapshot whole, or says what is wrong with it. Rejects with the disk's error. */
export async function readSnapshot(
  disk: Disk,
  path: string,
  schema: Schema,
): Promise<{ meta: SnapshotMeta; state: State; bytes: number } | SnapshotError> {
  const file = await disk.open(path, "read");
  let bytes: Buffer;
  try {
    const read = await file.read(0, await file.size());
    bytes = Buffer.from(read.buffer, read.byteOffset, read.byteLength);
  } finally {
    await file.close();
  }
  const damaged = (at: number): SnapshotError => ({
    reason: "damaged",
    message: `The snapshot ${path} fails its checksum at offset ${at}.`,
  });
  const payloads: Buffer[] = [];
  let chain = 0;
  for (let at = 0; at < bytes.length; ) {
    if (at + HEADER_BYTES > bytes.length || bytes.readUInt32LE(at) !== MAGIC) return damaged(at);
    const end = at + HEADER_BYTES + bytes.readUInt32LE(at + 8);
    if (end > bytes.length || bytes.readUInt32LE(at + 12) !== chain) return damaged(at);
    const chunk = bytes.subarray(at, end);
    chain = chunk.readUInt32LE(16);
    if (chunkCrc(chunk) !== chain) return damaged(at);
    const version = chunk.readUInt32LE(4);
    if (version > FORMAT_VERSION) {
      return { reason: "newer", message: `${path} has format version ${version}: a later version of Hive wrote it.` };
    }
    payloads.push(chunk.subarray(HEADER_BYTES));
    at = end;
  }
  if (payloads.length < 2) return damaged(bytes.length);
  const meta = JSON.parse(payloads[0]!.toString()) as SnapshotMeta;
  const last = JSON.parse(payloads.at(-1)!.toString()) as { rows?: number };
  const entries: KeyValue[] = [];
  try {
    for (const payload of payloads.slice(1, -1)) {
      for (const row of JSON.parse(payload.toString()) as unknown[][]) entries.push(decodeRow(schema, row));
    }
  } catch (error) {
    if (error instanceof NewerFormat) return { reason: "newer", message: `${path}: ${error.message}.` };
    throw error;
  }
  // A file that was cut between two chunks is told by its missing end.
  if (last.rows !== entries.length) return damaged(bytes.length);
  return { meta, state: buildState(schema, meta.revision, new Map(meta.leases), entries), bytes: bytes.length };
}

function decodeRow(schema: Schema, row: unknown[]): KeyValue {
  const [key, format, createRevision, modRevision, version, lease, value] = row as [
    string,
    number,
    number,
    number,
    number,
    LeaseId | null,
    object,
  ];
  assert(row.length === 7, "a snapshot's row has seven elements");
  const upgraded = upgrade(spaceOfKey(schema, key), format, value);
  return {
    key,
    value: deepFreeze(upgraded.value),
    format: upgraded.format,
    createRevision,
    modRevision,
    version,
    ...(lease && { lease }),
  };
}
