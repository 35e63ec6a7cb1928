/**
 * The bytes of a snapshot file. Little-endian; chunks one after another:
 *   0 u32 magic 0x4E535648 ("HVSN")   4 u32 format version, 3        8 u32 payload length, at most CHUNK_BYTES_MAX
 *   12 u32 CRC-32 of the chunk before (0 for the first): the chain   16 u32 CRC-32 of bytes 0 to 15 then payload
 *   20 payload, JSON in UTF-8
 * The first chunk is the SnapshotMeta; then {"leases": [[lease, ttlMs], …]} and {"sessions": [row, …]} (`sessions.ts`), as
 * many of each as it takes; then rows in ascending key order, a line each:
 *   [key, format, createRevision, modRevision, version, lease | null, value, successor?]
 *   format modRevision value     what the row above was before, newest first
 * The last is {"rows", "leases", "sessions"}, the count of each. A file that has its name is whole: it is written as *.tmp,
 * synced, renamed, and the directory synced.
 *
 * Earlier versions are still read: 2 kept no past, and rows as one array; 1 had no sessions and no configuration either, and
 * its leases in the meta.
 */
import { assert } from "../../lib/assert.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { MIB } from "../../lib/units.ts";
import type { LeaseId, Revision } from "../../model/store.ts";
import { VOTERS_MAX } from "../raft/configuration.ts";
import type { Configuration, Index, SnapshotPoint, Term } from "../raft/types.ts";
import { type buildState, buildStateInSlices } from "./build-state.ts";
import { deepFreeze } from "./command.ts";
import type { Disk, DiskFile } from "./disk.ts";
import type { Replicated } from "./replicated.ts";
import { checkFormat, NewerFormat, type Schema, upgrade } from "./schema.ts";
import { NO_SESSIONS, type SessionRow, sessionRows, sessionsOf } from "./sessions.ts";
import { scan } from "./sorted-map.ts";
import type { KeyValue } from "./state.ts";

/** How many commands of a term are in the state. */
export type TermCount = readonly [term: Term, commands: number];

/** Everything that a snapshot holds, and where in the log it stands. */
export type Snapshot = Replicated & {
  /** The last log entry that it holds, and its term. */
  readonly index: Index;
  readonly term: Term;
  /** The one in force at that entry; not known of a file of version 1, which a single node wrote. */
  readonly configuration: Configuration | undefined;
  /** `StateMachine.digest`. */
  readonly digest: number;
  /** Of the latest terms that have any, ascending. */
  readonly terms: readonly TermCount[];
};

type SnapshotMeta = {
  readonly index: Index;
  readonly term: Term;
  readonly revision: Revision;
  readonly configuration: Configuration;
  readonly digest: number;
  readonly terms: readonly TermCount[];
  readonly nextSession: number;
  readonly sessionUses: number;
};
type SnapshotEnd = { readonly rows: number; readonly leases: number; readonly sessions: number };

const MAGIC = 0x4e535648;
const FORMAT_VERSION = 3;
const HEADER_BYTES = 20;
/** A slice of work between two returns to the event loop: well under a millisecond. */
const CHUNK_BYTES = 64 * 1024;
/** A chunk ends with the row that fills it, and a row is one record of at most 1 MiB with its key and its successor. */
const CHUNK_BYTES_MAX = 4 * MIB;
const ROWS_READ_AT_ONCE = 64;
const READ_BYTES = 256 * 1024;

export const snapshotName = (index: number): string => `${index.toString(16).padStart(16, "0")}.snapshot`;
export const isSnapshotName = (name: string): boolean => /^[0-9a-f]{16}\.snapshot$/.test(name);
export const indexOfSnapshot = (name: string): number => Number.parseInt(name, 16);

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

const chunkCrc = (chunk: Buffer): number =>
  Bun.hash.crc32(chunk.subarray(HEADER_BYTES), Bun.hash.crc32(chunk.subarray(0, 16)));

/** Why a snapshot can't be used. `newer`: a later version of Hive wrote it. */
export type SnapshotError = { readonly reason: "damaged" | "newer"; readonly message: string };

/**
 * Reads a snapshot whole, or says what is wrong with it. Rejects with the disk's error.
 * @param build `buildState` for a node that does nothing else meanwhile
 */
export async function readSnapshot(
  disk: Disk,
  path: string,
  schema: Schema,
  build: typeof buildState | typeof buildStateInSlices = buildStateInSlices,
): Promise<Result<Snapshot & { readonly bytes: number }, SnapshotError>> {
  const entries: KeyValue[] = [];
  const leases = new Map<LeaseId, number>();
  const sessions: SessionRow[] = [];
  const read = await readFile(disk, path, schema, {
    entry: (entry) => entries.push(entry),
    lease: (lease, ttlMs) => leases.set(lease, ttlMs),
    session: (row) => sessions.push(row),
  });
  if (!read.ok) return read;
  const { meta, bytes } = read.value;
  const { index, term, configuration, digest, terms } = meta;
  return ok({
    index,
    term,
    configuration,
    digest,
    terms,
    bytes,
    state: await build(schema, meta.revision, leases, entries),
    sessions:
      sessions.length === 0 && meta.sessionUses === 0
        ? NO_SESSIONS
        : sessionsOf(meta.nextSession, meta.sessionUses, sessions),
  });
}

/** Reads a file that may hold anything, as far as to know that `readSnapshot` can. Rejects with the disk's error. */
export async function checkSnapshot(
  disk: Disk,
  path: string,
  schema: Schema,
): Promise<Result<SnapshotPoint, SnapshotError>> {
  const read = await readFile(disk, path, schema, { entry: () => {}, lease: () => {}, session: () => {} });
  if (!read.ok) return read;
  const { index, term, configuration } = read.value.meta;
  if (!configuration) return fail(damaged(path, "names no configuration"));
  return ok({ index, term, configuration });
}

type FileMeta = Omit<SnapshotMeta, "configuration"> & { readonly configuration: Configuration | undefined };
type Take = {
  readonly entry: (entry: KeyValue) => void;
  readonly lease: (lease: LeaseId, ttlMs: number) => void;
  readonly session: (row: SessionRow) => void;
};

const damaged = (path: string, what: string): SnapshotError => ({
  reason: "damaged",
  message: `The snapshot ${path} ${what}.`,
});

/** Reads a file chunk by chunk, never more than one in memory, and hands over what is in it. Nothing in it is believed. */
async function readFile(
  disk: Disk,
  path: string,
  schema: Schema,
  take: Take,
): Promise<Result<{ meta: FileMeta; bytes: number }, SnapshotError>> {
  const file = await disk.open(path, "read");
  try {
    const reader = new ChunkReader(path, file, await file.size());
    const first = await reader.next();
    if (!first.ok) return first;
    if (!first.value) return fail(damaged(path, "is empty"));
    const contents = new Contents(schema, take);
    try {
      const meta = contents.begin(first.value, reader.version);
      while (!contents.isComplete) {
        const chunk = await reader.next();
        if (!chunk.ok) return chunk;
        // A file that was cut between two chunks is told by its missing end.
        if (!chunk.value) return fail(damaged(path, `ends too early, at offset ${reader.offset}`));
        contents.add(chunk.value);
      }
      if (reader.offset !== reader.size)
        return fail(damaged(path, `goes on after its end, at offset ${reader.offset}`));
      return ok({ meta, bytes: reader.size });
    } catch (error) {
      if (error instanceof NewerFormat) return fail({ reason: "newer", message: `${path}: ${error.message}.` });
      if (!(error instanceof Malformed || error instanceof SyntaxError || error instanceof RangeError)) throw error;
      return fail(
        damaged(path, `holds what no version of Hive writes, before offset ${reader.offset}: ${error.message}`),
      );
    }
  } finally {
    await file.close();
  }
}

/** Chunks of a file whose checksums hold, in order. */
class ChunkReader {
  readonly #path: string;
  readonly #file: DiskFile;
  readonly size: number;
  #buffer: Buffer = Buffer.alloc(0);
  #bufferAt = 0;
  #chain = 0;
  offset = 0;
  version = 0;

  constructor(path: string, file: DiskFile, size: number) {
    this.#path = path;
    this.#file = file;
    this.size = size;
  }

  /** The next payload; undefined at the end of the file. */
  async next(): Promise<Result<Buffer | undefined, SnapshotError>> {
    if (this.offset === this.size) return ok(undefined);
    const bad = fail(damaged(this.#path, `fails its checksum at offset ${this.offset}`));
    const header = await this.#peek(HEADER_BYTES);
    if (header.length < HEADER_BYTES || header.readUInt32LE(0) !== MAGIC) return bad;
    const length = header.readUInt32LE(8);
    if (length > CHUNK_BYTES_MAX || header.readUInt32LE(12) !== this.#chain) return bad;
    const chunk = await this.#peek(HEADER_BYTES + length);
    if (chunk.length < HEADER_BYTES + length || chunkCrc(chunk) !== chunk.readUInt32LE(16)) return bad;
    this.version = chunk.readUInt32LE(4);
    if (this.version > FORMAT_VERSION) {
      const message = `${this.#path} has format version ${this.version}: a later version of Hive wrote it.`;
      return fail({ reason: "newer", message });
    }
    this.#chain = chunk.readUInt32LE(16);
    this.offset += chunk.length;
    return ok(chunk.subarray(HEADER_BYTES));
  }

  /** The next bytes, or fewer at the end of the file. */
  async #peek(length: number): Promise<Buffer> {
    const at = this.offset - this.#bufferAt;
    if (at + length > this.#buffer.length && this.#bufferAt + this.#buffer.length < this.size) {
      const read = await this.#file.read(this.offset, Math.max(length, READ_BYTES));
      this.#buffer = Buffer.from(read.buffer, read.byteOffset, read.byteLength);
      this.#bufferAt = this.offset;
      return this.#buffer.subarray(0, length);
    }
    return this.#buffer.subarray(at, at + length);
  }
}

const BRACE = 0x7b;
const NEWLINE = 0x0a;

/** A chunk holds what is not described above. Thrown and caught within this file only. */
class Malformed extends Error {}

function check(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Malformed(what);
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isPair = (value: unknown): value is [unknown, unknown] => Array.isArray(value) && value.length === 2;

/** Takes the chunks' contents apart. @throws Malformed, SyntaxError, RangeError, NewerFormat */
class Contents {
  readonly #schema: Schema;
  readonly #take: Take;
  #version = FORMAT_VERSION;
  #revision = 0;
  /** The last row's, which may have a past that is still to come. */
  #entry: KeyValue | undefined;
  #lastSession = 0;
  #meta: FileMeta | undefined;
  readonly #leases = new Set<string>();
  #counts = { rows: 0, leases: 0, sessions: 0 };
  isComplete = false;

  constructor(schema: Schema, take: Take) {
    this.#schema = schema;
    this.#take = take;
  }

  begin(payload: Buffer, version: number): FileMeta {
    this.#meta = this.#readMeta(payload, version);
    return this.#meta;
  }

  #readMeta(payload: Buffer, version: number): FileMeta {
    this.#version = version;
    const raw = JSON.parse(payload.toString()) as Partial<SnapshotMeta> & { readonly leases?: unknown };
    check(typeof raw === "object" && raw !== null, "its first part is no object");
    const { index, term, revision } = raw;
    check(isCount(index) && isCount(term) && isCount(revision), "it has no place in a log");
    this.#revision = revision;
    if (version === 1) {
      this.#addLeases(raw.leases);
      const nothing = { digest: 0, terms: [], nextSession: NO_SESSIONS.nextId, sessionUses: 0 };
      return { index, term, revision, configuration: undefined, ...nothing };
    }
    const { digest, terms, nextSession, sessionUses } = raw;
    check(isCount(digest) && digest < 2 ** 32, "it has no digest");
    check(Array.isArray(terms) && terms.every((pair) => isPair(pair) && pair.every(isCount)), "it counts no terms");
    check(isCount(nextSession) && nextSession >= 1 && isCount(sessionUses), "it counts no sessions");
    const configuration = configurationIn(raw.configuration);
    const counts = terms as readonly TermCount[];
    return { index, term, revision, configuration, digest, terms: counts, nextSession, sessionUses };
  }

  add(payload: Buffer): void {
    if (this.#version >= 3 && payload[0] !== BRACE) {
      for (let at = 0; at < payload.length; ) {
        const end = payload.indexOf(NEWLINE, at);
        this.#addLine(payload.toString("utf8", at, end < 0 ? payload.length : end));
        at = end < 0 ? payload.length : end + 1;
      }
      return;
    }
    const value: unknown = JSON.parse(payload.toString());
    if (Array.isArray(value)) {
      check(this.#version < 3, "a part is a list");
      for (const row of value as unknown[]) this.#addEntry(row);
      return;
    }
    check(typeof value === "object" && value !== null, "a part is neither list nor object");
    const part = value as { readonly [name in keyof SnapshotEnd]?: unknown };
    if (part.rows !== undefined) this.#end(part);
    else if (part.sessions !== undefined) this.#addSessions(part.sessions);
    else this.#addLeases(part.leases);
  }

  #addLine(line: string): void {
    if (line.startsWith("[")) this.#addEntry(JSON.parse(line));
    else this.#addPast(line);
  }

  #end(end: { readonly [name in keyof SnapshotEnd]?: unknown }): void {
    const { rows, leases, sessions } = this.#counts;
    check(end.rows === rows, "rows are missing");
    this.#handOver();
    if (this.#version > 1) check(end.leases === leases && end.sessions === sessions, "leases or sessions are missing");
    this.isComplete = true;
  }

  #addLeases(list: unknown): void {
    check(Array.isArray(list), "leases are a list");
    for (const pair of list as unknown[]) {
      check(isPair(pair) && typeof pair[0] === "string" && isCount(pair[1]), "a lease has a name and a time");
      check(!this.#leases.has(pair[0]), "a lease is there twice");
      this.#leases.add(pair[0]);
      this.#take.lease(pair[0] as LeaseId, pair[1]);
      this.#counts.leases++;
    }
  }

  #addSessions(list: unknown): void {
    check(Array.isArray(list), "sessions are a list");
    for (const row of list as unknown[]) {
      check(Array.isArray(row) && row.length === 4 && row.slice(0, 3).every(isCount), "a session has a number");
      const [id, low, lastUse, done] = row as [number, number, number, unknown];
      check(
        id > this.#lastSession && id < this.#meta!.nextSession && lastUse <= this.#meta!.sessionUses,
        "sessions ascend",
      );
      check(Array.isArray(done) && done.every(isCount) && done.length % 2 === 0, "what a session did is numbers");
      const isAscending = done.every((n: number, i) => i === 0 || n >= (done[i - 1] as number));
      check(isAscending, "what a session did is in order");
      this.#lastSession = id;
      this.#take.session([id, low, lastUse, done as number[]]);
      this.#counts.sessions++;
    }
  }

  #addEntry(row: unknown): void {
    check(Array.isArray(row) && (row.length === 7 || row.length === 8), "a row has its elements");
    this.#counts.rows++;
    const [key, stored, createRevision, modRevision, version, lease, raw, rawSuccessor] = row as unknown[];
    check(typeof key === "string" && key > (this.#entry?.key ?? ""), "keys ascend");
    check(isCount(createRevision) && isCount(modRevision) && isCount(version), "a row has revisions");
    check(createRevision <= modRevision && modRevision <= this.#revision, "no row is newer than the snapshot");
    check(lease === null || (typeof lease === "string" && this.#leases.has(lease)), "a row's lease exists");
    check(row.length === 7 || lease !== null, "a successor follows on a lease");
    const { format, value } = this.#record(key, stored, raw);
    this.#handOver();
    this.#entry = {
      key,
      value,
      format,
      createRevision,
      modRevision,
      version,
      ...(lease !== null && { lease: lease as LeaseId }),
      ...(row.length === 8 && { successor: this.#record(key, stored, rawSuccessor).value }),
    };
  }

  #addPast(line: string): void {
    this.#counts.rows++;
    const entry = this.#entry;
    const formatEnd = line.indexOf(" ");
    const revisionEnd = line.indexOf(" ", formatEnd + 1);
    const format = Number(line.slice(0, formatEnd));
    const modRevision = Number(line.slice(formatEnd + 1, revisionEnd));
    const text = line.slice(revisionEnd + 1);
    check(entry && isCount(format) && isCount(modRevision), "a past follows on its row");
    check(text.startsWith("{"), "a past is the JSON of a record");
    checkFormat(this.#schema.spaceOfKey(entry.key), format);
    const { past = [] } = entry;
    check(modRevision < (past.at(-1)?.modRevision ?? entry.modRevision), "a past goes back in time");
    this.#entry = { ...entry, past: [...past, { text, format, modRevision }] };
  }

  /** A stored value, brought to this version of its table. */
  #record(key: string, format: unknown, stored: unknown): { readonly format: number; readonly value: object } {
    check(isCount(format), "a row has a format");
    check(typeof stored === "object" && stored !== null, "a row has a value");
    const upgraded = upgrade(this.#schema.spaceOfKey(key), format, stored);
    return { format: upgraded.format, value: deepFreeze(upgraded.value) };
  }

  #handOver(): void {
    if (this.#entry) this.#take.entry(this.#entry);
  }
}

function configurationIn(value: unknown): Configuration {
  check(typeof value === "object" && value !== null, "it names no configuration");
  const lists = value as { readonly [name in keyof Configuration]?: unknown };
  const names = (list: unknown, max: number): string[] => {
    check(Array.isArray(list) && list.length <= max, "a configuration is lists of names");
    check(
      list.every((name) => typeof name === "string" && name.length >= 1 && name.length <= 64),
      "a node has a name",
    );
    return list as string[];
  };
  return {
    voters: names(lists.voters, VOTERS_MAX),
    outgoing: names(lists.outgoing, VOTERS_MAX),
    learners: names(lists.learners, LEARNERS_MAX),
    joining: names(lists.joining, LEARNERS_MAX),
  };
}

const LEARNERS_MAX = 10_000;
