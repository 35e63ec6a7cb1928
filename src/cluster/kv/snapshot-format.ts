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
import { MIB } from "../../lib/units.ts";
import type { Revision } from "../../model/store.ts";
import type { Configuration, Index, Term } from "../raft/types.ts";
import type { Replicated } from "./replicated.ts";

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

export type SnapshotMeta = {
  readonly index: Index;
  readonly term: Term;
  readonly revision: Revision;
  readonly configuration: Configuration;
  readonly digest: number;
  readonly terms: readonly TermCount[];
  readonly nextSession: number;
  readonly sessionUses: number;
};
export type SnapshotEnd = { readonly rows: number; readonly leases: number; readonly sessions: number };

export const MAGIC = 0x4e535648;
export const FORMAT_VERSION = 3;
export const HEADER_BYTES = 20;
/** A chunk ends with the row that fills it, and a row is one record of at most 1 MiB with its key and its successor. */
export const CHUNK_BYTES_MAX = 4 * MIB;

export const snapshotName = (index: number): string => `${index.toString(16).padStart(16, "0")}.snapshot`;
export const isSnapshotName = (name: string): boolean => /^[0-9a-f]{16}\.snapshot$/.test(name);
export const indexOfSnapshot = (name: string): number => Number.parseInt(name, 16);

export const chunkCrc = (chunk: Buffer): number =>
  Bun.hash.crc32(chunk.subarray(HEADER_BYTES), Bun.hash.crc32(chunk.subarray(0, 16)));
