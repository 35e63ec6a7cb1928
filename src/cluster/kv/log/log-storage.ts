import type { Result } from "../../../lib/result.ts";
import type { Entry, HardState } from "../../raft/types.ts";

export type { Entry, HardState };

/**
 * The vote of a node that can't know any more whom it voted for in its term. No node has this name: it counts as a vote
 * for somebody else, so that there is no second one in that term.
 */
export const UNKNOWN_VOTE = "?";

/**
 * `full`: no space; nothing of this call is in the log, the next call may succeed. `failed`: a write or sync failed in
 * another way; what is on the disk is unknown until the log is opened anew, and every later call fails the same way.
 * `corrupt`: what was read back fails its checksum; it is this call's failure only.
 */
export type LogError = {
  readonly reason: "full" | "failed" | "corrupt";
  readonly message: string;
  readonly cause?: unknown;
};

/** The whole log is gone: no index says what this node acknowledged. It has to join its cluster anew, under a new id. */
export const LOG_LOST = Number.MAX_SAFE_INTEGER;

/**
 * What a node owes after its log was damaged and cut at the damage. It may have acknowledged what it lost, so it must
 * neither vote nor stand for election before it holds again every entry up to `recoverThrough`, or a snapshot of it. It may
 * take entries from a leader, and acknowledge them, all the while. The debt is on the disk until `recovered`.
 */
export type Damage = {
  /** Where the log ended when it was opened. */
  readonly lastGoodIndex: number;
  /**
   * The highest entry that any whole record shows this node to have held, or LOG_LOST. A record that was itself the last
   * one, and is damaged beyond recognition, shows nothing: to be safe against that too, catch up with a leader as well.
   */
  readonly recoverThrough: number;
  /** The highest term seen in any whole record. The hard state's term is no lower. */
  readonly termAtLeast: number;
  /** The hard state's vote is UNKNOWN_VOTE: it may be among what was lost. */
  readonly voteUnknown: boolean;
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
  /** What was lost to damage and is still to be recovered from peers. */
  readonly damage: Damage | undefined;
  /** The term of an entry that is held, or of the one just before the first. */
  termOf(index: number): number | undefined;
  /** Appends entries that follow the last one, and the hard state if given. Durable when it resolves. */
  append(entries: readonly Entry[], hardState?: HardState): Promise<Result<void, LogError>>;
  /**
   * Removes the entries after `index` (a follower whose leader disagrees). Durable when it resolves. A crash between this
   * and the `append` of the leader's entries leaves a shorter log, which breaks no promise: what is removed was never
   * committed, and what is to come was not acknowledged yet.
   */
  truncateAfter(index: number): Promise<Result<void, LogError>>;
  /** Entries `from` to `to`, both included and both held, or fewer: stops at `bytesMax`, but gives at least one. */
  read(from: number, to: number, bytesMax: number): Promise<Result<readonly Entry[], LogError>>;
  /** Entries up to `index` are no longer needed: a snapshot holds them. Frees whole segments; keeps the rest. */
  compact(index: number): Promise<Result<void, LogError>>;
  /** Starts over after a snapshot from elsewhere: the log is empty, and the next entry is `index + 1`. */
  restartAfter(index: number, term: number): Promise<Result<void, LogError>>;
  /**
   * The log has held everything up to `damage.recoverThrough` again, durably (a leader may have cut it since). Durable when
   * it resolves: nothing is owed any more. A log that is lost is never recovered.
   */
  recovered(): Promise<Result<void, LogError>>;
  close(): Promise<void>;
}
