/** Snapshots out of files that may hold anything; how they look: `snapshot-format.ts`. */
import { fail, ok, type Result } from "../../lib/result.ts";
import type { LeaseId } from "../../model/store.ts";
import { VOTERS_MAX } from "../raft/configuration.ts";
import type { Configuration, SnapshotPoint } from "../raft/types.ts";
import { type buildState, buildStateInSlices } from "./build-state.ts";
import { deepFreeze } from "./command.ts";
import type { Disk, DiskFile } from "./disk.ts";
import { checkFormat, NewerFormat, type Schema, upgrade } from "./schema.ts";
import { NO_SESSIONS, type SessionRow, sessionsOf } from "./sessions.ts";
import {
  CHUNK_BYTES_MAX,
  chunkCrc,
  FORMAT_VERSION,
  HEADER_BYTES,
  MAGIC,
  type Snapshot,
  type SnapshotEnd,
  type SnapshotMeta,
  type TermCount,
} from "./snapshot-format.ts";
import type { KeyValue } from "./state.ts";

const READ_BYTES = 256 * 1024;

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
