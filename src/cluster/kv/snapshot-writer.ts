/** Snapshots into files; how they look: `snapshot-format.ts`. */
import { assert } from "../../lib/assert.ts";
import type { Configuration } from "../raft/types.ts";
import type { Disk } from "./disk.ts";
import type { Replicated } from "./replicated.ts";
import { sessionRows } from "./sessions.ts";
import {
  CHUNK_BYTES_MAX,
  chunkCrc,
  FORMAT_VERSION,
  HEADER_BYTES,
  MAGIC,
  type Snapshot,
  type SnapshotEnd,
  type SnapshotMeta,
  snapshotName,
} from "./snapshot-format.ts";
import { scan } from "./sorted-map.ts";
import type { KeyValue } from "./state.ts";

/** A slice of work between two returns to the event loop: well under a millisecond. */
const CHUNK_BYTES = 64 * 1024;
const ROWS_READ_AT_ONCE = 64;

/**
 * Writes a snapshot while others go on changing what comes after it: the state itself never changes. Rejects with the
 * disk's error, having removed what it wrote.
 * @returns the size of the file
 */
export async function writeSnapshot(
  disk: Disk,
  directory: string,
  snapshot: Snapshot & { readonly configuration: Configuration },
): Promise<number> {
  const path = `${directory}/${snapshotName(snapshot.index)}`;
  const temporary = `${path}.tmp`;
  await disk.remove(temporary).catch(() => {});
  const file = await disk.open(temporary, "create");
  try {
    let offset = 0;
    let chain = 0;
    for (const text of texts(snapshot)) {
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

function* texts(snapshot: Snapshot & { readonly configuration: Configuration }): Generator<string> {
  const { index, term, configuration, digest, terms, state, sessions } = snapshot;
  const meta: SnapshotMeta = {
    index,
    term,
    revision: state.revision,
    configuration,
    digest,
    terms,
    nextSession: sessions.nextId,
    sessionUses: sessions.uses,
  };
  yield JSON.stringify(meta);
  let leases = 0;
  for (const list of inChunks(asJson(state.leases))) {
    leases += list.length;
    yield `{"leases":[${list.join(",")}]}`;
  }
  let sessionCount = 0;
  for (const list of inChunks(asJson(sessionRows(sessions)))) {
    sessionCount += list.length;
    yield `{"sessions":[${list.join(",")}]}`;
  }
  let rows = 0;
  for (const list of inChunks(lines(snapshot))) {
    rows += list.length;
    yield list.join("\n");
  }
  const end: SnapshotEnd = { rows, leases, sessions: sessionCount };
  yield JSON.stringify(end);
}

function* asJson(rows: Iterable<unknown>): Generator<string> {
  for (const row of rows) yield JSON.stringify(row);
}

function* lines({ state }: Replicated): Generator<string> {
  let from: string | undefined;
  while (true) {
    const entries: KeyValue[] = scan(state.keys, from, undefined, ROWS_READ_AT_ONCE);
    for (const { key, format, createRevision, modRevision, version, lease, value, successor, past, text } of entries) {
      const numbers = `${format},${createRevision},${modRevision},${version}`;
      const next = successor ? `,${JSON.stringify(successor)}` : "";
      yield `[${JSON.stringify(key)},${numbers},${lease ? `"${lease}"` : "null"},${text ?? JSON.stringify(value)}${next}]`;
      if (past) for (const earlier of past) yield `${earlier.format} ${earlier.modRevision} ${earlier.text}`;
    }
    if (entries.length < ROWS_READ_AT_ONCE) return;
    from = `${entries.at(-1)!.key}\0`;
  }
}

/** Texts in lists of about CHUNK_BYTES. */
function* inChunks(texts: Iterable<string>): Generator<readonly string[]> {
  let list: string[] = [];
  let length = 0;
  for (const text of texts) {
    list.push(text);
    length += text.length;
    if (length < CHUNK_BYTES) continue;
    yield list;
    list = [];
    length = 0;
  }
  if (list.length > 0) yield list;
}

function encodeChunk(text: string, chain: number): Buffer {
  const length = Buffer.byteLength(text);
  assert(length <= CHUNK_BYTES_MAX, "a chunk fits");
  const chunk = Buffer.allocUnsafe(HEADER_BYTES + length);
  chunk.writeUInt32LE(MAGIC, 0);
  chunk.writeUInt32LE(FORMAT_VERSION, 4);
  chunk.writeUInt32LE(length, 8);
  chunk.writeUInt32LE(chain, 12);
  chunk.write(text, HEADER_BYTES);
  chunk.writeUInt32LE(chunkCrc(chunk), 16);
  return chunk;
}
