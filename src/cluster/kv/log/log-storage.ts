import type { Result } from "../../../lib/result.ts";

/** One entry of the replicated log, in Raft's terms. Indexes count from 1 and have no gaps; terms never fall. */
export type Entry = { readonly index: number; readonly term: number; readonly data: Uint8Array };

/** What a Raft node must not forget: its term, and whom it voted for in it ("" for nobody). */
export type HardState = { readonly term: number; readonly vote: string };

/**
 * `full`: no space; nothing of this call is in the log, the next call may succeed. `failed`: a write or sync failed in
 * another way; what is on the disk is unknown until the log is opened anew, and every later call fails the same way.
 * `corrupt`: what was read back fails its checksum.
 */
export type LogError = {
  readonly reason: "full" | "failed" | "corrupt";
  readonly message: string;
  readonly cause?: unknown;
};

/**
 * A durable log with Raft's hard state. Calls that change it are carried out one after another, in the order they were
 * made. The caller groups: one `append` is one write and one sync, however many entries it has.
 */
export interface LogStorage {
  /** The first index that is held; lastIndex + 1 when the log is empty. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly hardState: HardState;
  /** Bytes of all segment files. */
  readonly bytes: number;
  /** The term of an entry that is held, or of the one just before the first. */
  termOf(index: number): number | undefined;
  /** Appends entries that follow the last one, and the hard state if given. Durable when it resolves. */
  append(entries: readonly Entry[], hardState?: HardState): Promise<Result<void, LogError>>;
  /** Removes the entries after `index` (a follower whose leader disagrees). Durable when it resolves. */
  truncateAfter(index: number): Promise<Result<void, LogError>>;
  /** Entries `from` to `to`, both included and both held, or fewer: stops at `bytesMax`, but gives at least one. */
  read(from: number, to: number, bytesMax: number): Promise<Result<readonly Entry[], LogError>>;
  /** Entries up to `index` are no longer needed: a snapshot holds them. Frees whole segments; keeps the rest. */
  compact(index: number): Promise<Result<void, LogError>>;
  /** Starts over after a snapshot from elsewhere: the log is empty, and the next entry is `index + 1`. */
  restartAfter(index: number, term: number): Promise<Result<void, LogError>>;
  close(): Promise<void>;
}
