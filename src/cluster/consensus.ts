/**
 * The two ports between the replicated store (`kv/`) and consensus (`node/`). Neither knows the other's inside: the store
 * hands over commands as bytes and is told what is committed; consensus hands over committed bytes and never looks into them.
 * Messages only, no shared objects, so that consensus may live in a Worker of its own (`worker/`).
 */
import type { Result } from "../lib/result.ts";
import type {
  Configuration,
  ConfigurationChange,
  Entry,
  Index,
  PeerId,
  Role,
  SnapshotPoint,
  Term,
} from "./raft/types.ts";

export type ConsensusError = {
  /**
   * unavailable  no leader, no quorum, or no answer in time: the outcome may be unknown
   * refused      not possible now or ever; `message` says why
   * closed       this node is stopping
   */
  readonly reason: "unavailable" | "refused" | "closed";
  readonly message: string;
};

export type ConsensusStatus = {
  readonly id: PeerId;
  readonly role: Role;
  readonly term: Term;
  readonly leader: PeerId | undefined;
  readonly commitIndex: Index;
  readonly appliedIndex: Index;
  readonly lastIndex: Index;
  readonly configuration: Configuration;
  /** It leads, and nobody else can, nor will before this says otherwise: what is applied here is all that is committed. */
  readonly decidesAlone: boolean;
  readonly logBytes: number;
  /** Index and revision-independent position of the newest snapshot; 0 when there is none. */
  readonly snapshotIndex: Index;
  /** `ok`, or why this node can't write: its disk is full or failed, or its log lacks what it once acknowledged. */
  readonly health: "ok" | "full" | "failed" | "recovering" | "lost" | "closed";
  readonly message?: string;
  /** On the leader: what it knows of each peer. */
  readonly peers: readonly { readonly id: PeerId; readonly match: Index; readonly isActive: boolean }[];
};

/** What the store asks of consensus. */
export interface Consensus {
  readonly id: PeerId;
  /** As of now, or of a moment ago; what the machine was told last is in it. */
  status(): ConsensusStatus;
  /**
   * Appends commands, in order, if this node leads `term`; otherwise they are dropped (and `lostLeadership` came or comes).
   * They come back through `apply`, in the same order, with the same term, or they never do.
   */
  propose(term: Term, commands: readonly Uint8Array[]): void;
  /** An index that everything anyone was told of before this call is at or below. Any node may ask. */
  readIndex(): Promise<Result<Index, ConsensusError>>;
  /** Resolves once the change's entry is committed here. */
  changeConfiguration(change: ConfigurationChange): Promise<Result<void, ConsensusError>>;
  /** Resolves once another node leads; writes pause meanwhile. */
  transferLeadership(to?: PeerId): Promise<Result<void, ConsensusError>>;
  /** Asks another node's store (`StateMachine.answer`). At most once: no retry is made here. */
  request(to: PeerId, body: Uint8Array, timeoutMs: number): Promise<Result<Uint8Array, ConsensusError>>;
  close(): Promise<void>;
}

/** A snapshot of the state machine as it is moved between nodes: bytes that only the store can read. */
export type StoredSnapshot = { readonly point: SnapshotPoint; readonly path: string; readonly bytes: number };

/**
 * What consensus asks of the store. All calls come one after another, none from within another's, and what one asks about
 * (`snapshot`, `digest`) is the state as of the calls before it: a way between the two has to keep their order.
 */
export interface StateMachine {
  /**
   * Committed entries, in order, without gaps. Commands, and those of the core's own (`kindOf`), which change no state.
   * @returns undefined when they are applied; otherwise they are handed over, and the promise resolves when they are
   * applied, or rejects as this would throw: so little is to be handed over that a machine which lags holds a bounded amount
   */
  apply(entries: readonly Entry[]): Promise<void> | undefined;
  /** This node leads `term`, and everything in the log before its own entries of that term was applied. */
  gainedLeadership(term: Term): void;
  /** It leads no more: what was proposed and not yet applied may still come through `apply`, or never. */
  lostLeadership(term: Term): void;
  /** Who leads, as far as this node knows (itself, too), or undefined while nobody does. */
  leaderChanged(leader: PeerId | undefined): void;
  /** There may be something new in `status`. Also called from within what else is called. */
  changed?(): void;
  /** A snapshot file from the leader, whole and on this disk: becomes the state. Rejects or fails when it can't be read. */
  install(snapshot: StoredSnapshot): Promise<Result<void, string>>;
  /** Checks a file that came from a peer, before anything rests on it. */
  verify(path: string): Promise<Result<SnapshotPoint, string>>;
  /** Writes the state as of the last entry into a new file (complete, synced, named); `point` says where that is. */
  snapshot(point: SnapshotPoint): Promise<Result<StoredSnapshot, string>>;
  /**
   * A number of 32 bits that stands for the whole state as of the last entry, the same on every node that applied
   * the same entries, from whatever snapshot it began. Asked every 1024 entries: to be kept up as entries are applied.
   */
  digest(): Promise<number>;
  /** Answers another node's `request`. Never rejects. */
  answer(from: PeerId, body: Uint8Array): Promise<Uint8Array>;
}
