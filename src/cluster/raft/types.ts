/**
 * The words of consensus: what goes into `step`, what comes out, and what nodes say to each other.
 *
 * Raft after Ongaro and Ousterhout (USENIX ATC '14) and Ongaro's thesis (2014), with pre-vote (thesis 9.6), check-quorum
 * (6.2), leadership transfer (3.10), read index (6.4), learners and joint consensus (4.2, 4.3). All of it is a pure
 * function of state, input and chance; whoever drives it owns the disk, the sockets and the clock.
 */
/** Names one life of one node's log: a node that lost its disk comes back under another. 1 to 64 characters. */
export type PeerId = string;
export type Term = number;
/** A position in the log; the first entry has 1. */
export type Index = number;
/** Milliseconds on this node's own monotonic clock. Never compared between nodes. */
export type Ms = number;

/** One entry of the replicated log, in Raft's terms. Indexes count from 1 and have no gaps; terms never fall. */
export type Entry = { readonly index: Index; readonly term: Term; readonly data: Uint8Array };
/** What a Raft node must not forget: its term, and whom it voted for in it ("" for nobody). */
export type HardState = { readonly term: Term; readonly vote: PeerId };

/**
 * Who takes part. While `outgoing` is not empty, the configuration is joint: every decision needs a majority of `voters`
 * and one of `outgoing` (the voters before). Learners receive the log and don't vote; those in `joining` are learners that
 * the leader makes voters once they have caught up. All lists are sorted, and a peer is in one of voters, learners and
 * joining (it may be in `outgoing` besides).
 */
export type Configuration = {
  readonly voters: readonly PeerId[];
  readonly outgoing: readonly PeerId[];
  readonly learners: readonly PeerId[];
  readonly joining: readonly PeerId[];
};

/** What is wanted of the membership: the roles of the peers it names; the others keep theirs. */
export type ConfigurationChange = {
  /** `voter` joins as a learner first, and is promoted when it has caught up; `removed` takes it out. */
  readonly [peer: PeerId]: "voter" | "learner" | "removed";
};

/** What a snapshot stands for: everything up to `index`, and the configuration in force there. */
export type SnapshotPoint = { readonly index: Index; readonly term: Term; readonly configuration: Configuration };

export type MessageBody =
  /** `term` is the one that the sender would stand for; it has not entered it. Nobody changes state for it. */
  | { readonly type: "pre-vote"; readonly lastIndex: Index; readonly lastTerm: Term }
  | { readonly type: "pre-vote-reply"; readonly granted: boolean }
  /** `transfer`: the leader itself asked for this election, so its followers don't defend it. */
  | { readonly type: "vote"; readonly lastIndex: Index; readonly lastTerm: Term; readonly transfer: boolean }
  | { readonly type: "vote-reply"; readonly granted: boolean }
  /** Entries that follow `prevIndex`; without any, it is the heartbeat and the probe. `round`: see "read". */
  | {
      readonly type: "append";
      readonly prevIndex: Index;
      readonly prevTerm: Term;
      readonly entries: readonly Entry[];
      readonly commit: Index;
      readonly round: number;
    }
  /** Durable up to `match`, as far as this leader's log goes. */
  | { readonly type: "append-reply"; readonly match: Index; readonly round: number }
  /**
   * The entry at `prevIndex` is missing or another. `hintIndex` and `hintTerm`: the last entry of the follower at or before
   * `prevIndex` whose term is at most the leader's there, so that a whole term is skipped at once (thesis 3.5, end).
   */
  | {
      readonly type: "append-refused";
      readonly prevIndex: Index;
      readonly hintIndex: Index;
      readonly hintTerm: Term;
      readonly round: number;
    }
  /** The transfer's last word: stand for election now, without waiting or asking first. */
  | { readonly type: "timeout-now" }
  /** Asks the leader for a read index, with the asker's own number for it. */
  | { readonly type: "read"; readonly id: number }
  | { readonly type: "read-reply"; readonly id: number; readonly index: Index | undefined };

export type Message = { readonly from: PeerId; readonly to: PeerId; readonly term: Term } & MessageBody;

/** The message of one type. */
export type MessageOf<Type extends Message["type"]> = Extract<Message, { readonly type: Type }>;

export type Input =
  /** Time went by. To be given at `deadline(state)` at the latest; earlier does no harm. */
  | { readonly type: "tick" }
  | { readonly type: "message"; readonly message: Message }
  /** Appends commands, if this node leads `term`; otherwise nothing happens. */
  | { readonly type: "propose"; readonly term: Term; readonly commands: readonly Uint8Array[] }
  | { readonly type: "change-configuration"; readonly id: number; readonly change: ConfigurationChange }
  /** Asks for the commit index as of now (a linearizable read waits until that is applied). Answered in `reads`. */
  | { readonly type: "read"; readonly id: number }
  /** Hands leadership to `to`, or to whoever is most caught up. */
  | { readonly type: "transfer"; readonly to: PeerId | undefined }
  /** The persist order with this number, and all before it, are durable. */
  | { readonly type: "persisted"; readonly order: number }
  /** The disk is full: nothing of this persist order or of later ones is in the log, and they will not be tried again. */
  | { readonly type: "persist-refused"; readonly order: number }
  /** The disk failed. This node says and decides nothing more until it is opened anew. */
  | { readonly type: "halt" }
  /** Entries up to `index` were applied: the core need not keep them in memory (they can be fetched). */
  | { readonly type: "applied"; readonly index: Index }
  /** A snapshot at `point` is durable on this node, and the log before it may go. */
  | { readonly type: "compacted"; readonly point: SnapshotPoint }
  /** What a `fetch` asked for; no entries when they are gone or can't be read (a snapshot is sent instead). */
  | { readonly type: "fetched"; readonly to: PeerId; readonly entries: readonly Entry[] }
  /** The leader's snapshot up to `point` is complete and durable here, as file; install it. From `from`, in its `term`. */
  | { readonly type: "snapshot-received"; readonly from: PeerId; readonly term: Term; readonly point: SnapshotPoint }
  /** A peer holds the snapshot (`index`) that it was sent, or the sending failed (undefined). */
  | { readonly type: "snapshot-sent"; readonly to: PeerId; readonly index: Index | undefined }
  /** The connection to a peer broke: what was in flight to it may be lost. */
  | { readonly type: "unreachable"; readonly peer: PeerId };

/**
 * What the driver has to make durable: first `restart` (the log starts over after a snapshot) or `truncateAfter`, then
 * entries and hard state; orders are carried out in their order, and may share one sync. Once an order is durable, its
 * `send` goes out, and then `persisted` comes in. The promise in a vote or an acknowledgement is thereby kept.
 */
export type Persist = {
  readonly order: number;
  readonly restart?: SnapshotPoint;
  readonly truncateAfter?: Index;
  readonly entries: readonly Entry[];
  readonly hardState?: HardState;
  readonly send: readonly Message[];
};

export type ProposalRefusal = "not-leader" | "change-pending" | "not-ready" | "invalid";

export type Effects = {
  readonly persist: readonly Persist[];
  /** May go out at once: nothing in them rests on what is not durable. */
  readonly send: readonly Message[];
  /** Reads that may be served once `index` is applied here, or that failed (`undefined`: no leader, or it changed). */
  readonly reads: readonly { readonly id: number; readonly index: Index | undefined }[];
  /** The configuration entry's index, or why there is none. */
  readonly changes: readonly { readonly id: number; readonly index: Index | ProposalRefusal }[];
  /** Entries to read from the log's files, for a peer that lags: at most `bytesMax`, at least one. */
  readonly fetch: readonly { readonly to: PeerId; readonly from: Index; readonly through: Index }[];
  /** Send the newest snapshot to this peer, then say `snapshot-sent`. */
  readonly snapshots: readonly PeerId[];
  /** What this node had acknowledged before its log was damaged is here again: it votes from now on. */
  readonly recovered: boolean;
};

export type Role = "follower" | "pre-candidate" | "candidate" | "leader";

export type Options = {
  /** A follower that heard nothing of a leader for this long, plus up to the same by chance, stands for election. */
  readonly electionMs: Ms;
  readonly heartbeatMs: Ms;
  /** A leader whose disk has not finished a persist order for this long steps down. */
  readonly diskStallMs: Ms;
  /** Append messages, and bytes in them, that may be on their way to one peer. */
  readonly inflightMax: number;
  readonly inflightBytesMax: number;
  /** Entries in one append message, in bytes, beyond its first. */
  readonly messageBytesMax: number;
  /** Applied entries that are kept in memory for peers that lag a little, in bytes. */
  readonly windowBytesMax: number;
  /** A joining learner is promoted when it lacks at most this many entries. */
  readonly catchUpEntries: number;
  /**
   * Reads by lease: no round trip while a majority has answered within electionMs / (1 + leaseDrift) ago. Undefined (the
   * default): every read asks a majority. Only safe where every node's clock runs at the same rate within leaseDrift, also
   * across pauses: a monotonic clock that stands still while its machine is paused breaks it.
   */
  readonly leaseDrift: number | undefined;
};

export const DEFAULT_OPTIONS: Options = {
  electionMs: 250,
  heartbeatMs: 50,
  diskStallMs: 700,
  inflightMax: 128,
  inflightBytesMax: 16 * 1024 * 1024,
  messageBytesMax: 512 * 1024,
  windowBytesMax: 4 * 1024 * 1024,
  catchUpEntries: 1000,
  leaseDrift: undefined,
};
