import { assert } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import { type ConfigurationAt, decodeConfiguration, kindOf } from "./configuration.ts";
import { appended, emptyLog, type RaftLog, termAt } from "./log.ts";
import type {
  Configuration,
  Entry,
  HardState,
  Index,
  Ms,
  Options,
  PeerId,
  Role,
  SnapshotPoint,
  Term,
} from "./types.ts";

/** What a leader knows of one peer. */
export type Progress = {
  /** Durable there, and the same as here, up to this entry. */
  readonly match: Index;
  /** The entry to send next. */
  readonly next: Index;
  /**
   * probe      it is not known where the logs agree: one message, then its answer or the next heartbeat
   * replicate  messages follow each other without waiting, up to the bounds on what is in flight
   * snapshot   it lacks what the log no longer holds: a snapshot is on its way
   */
  readonly mode: "probe" | "replicate" | "snapshot";
  /** In `probe`: a message is out. */
  readonly probing: boolean;
  /** Entries that it needs are being read from the files. */
  readonly fetching: boolean;
  /** Append messages on their way: the last entry of each, and its bytes. Ascending. */
  readonly inflight: readonly { readonly last: Index; readonly bytes: number }[];
  readonly inflightBytes: number;
  /** The highest commit index that it was told. */
  readonly commitSent: Index;
  /** When it was last heard of. */
  readonly heardAt: Ms;
  /** The last round that it answered. */
  readonly round: number;
  /** Its refusals of messages from before this round were acted on. */
  readonly refusedBefore: number;
};

/** A read that waits: asked here (`from` undefined) or by a peer. */
export type WaitingRead = { readonly id: number; readonly from: PeerId | undefined };

/** A persist order that is not durable yet: it then makes the log durable up to `last`. */
export type OpenOrder = { readonly order: number; readonly last: Index; readonly at: Ms };

export type RaftState = {
  readonly id: PeerId;
  readonly options: Options;
  readonly term: Term;
  /** Whom this node voted for in `term`; "" for nobody. */
  readonly vote: PeerId;
  readonly role: Role;
  readonly leader: PeerId | undefined;
  readonly commit: Index;
  readonly log: RaftLog;
  /** The configuration as of `commit`, then those in the log after it. The last one is in force (thesis 4.1). */
  readonly configurations: readonly ConfigurationAt[];

  /** Entries up to here are durable on this node. */
  readonly persisted: Index;
  readonly nextOrder: number;
  readonly openOrders: readonly OpenOrder[];
  /** The disk refused orders: everything after `persisted`, and the hard state, goes into the next one. */
  readonly mustRepeat: boolean;
  readonly isHalted: boolean;
  /** Until the log is durable up to here again, this node does not vote: it may have acknowledged what it lost. */
  readonly recoverThrough: Index | undefined;

  readonly electionAt: Ms;
  readonly heardLeaderAt: Ms;
  /** Answers to this candidate's question. */
  readonly votes: ReadonlyMap<PeerId, boolean>;
  /** As candidate: the order that makes its own vote durable. It counts only then. */
  readonly ownVoteOrder: number;

  readonly peers: ReadonlyMap<PeerId, Progress>;
  /** As leader: the first entry of its own term. Nothing is known to be committed before it is (thesis 6.4). */
  readonly ownFirst: Index;
  readonly heartbeatAt: Ms;
  readonly quorumCheckAt: Ms;
  readonly transfer: { readonly to: PeerId; readonly until: Ms; readonly isSent: boolean } | undefined;
  /** A `timeout-now` of this term is out. However late it arrives, its election asks nobody to wait: no lease holds then. */
  readonly hasNamedHeir: boolean;
  /** Commands that wait for a transfer to fail. */
  readonly held: readonly Uint8Array[];
  /** The last read round that was begun, when, and the reads that it confirms; and those that came since. */
  readonly round: number;
  readonly roundStarts: readonly { readonly round: number; readonly at: Ms }[];
  readonly roundReads:
    | { readonly round: number; readonly index: Index; readonly reads: readonly WaitingRead[] }
    | undefined;
  readonly waitingReads: readonly WaitingRead[];
};

export type Start = {
  readonly id: PeerId;
  readonly options: Options;
  readonly hardState: HardState;
  /** The newest good snapshot; without one, index and term 0 and the configuration that the cluster begins with. */
  readonly snapshot: SnapshotPoint;
  /** Everything that the log's files hold; it may begin before the snapshot's end, and leaves no gap after it. */
  readonly entries: readonly Entry[];
  /** The term of the entry before the first of `entries`, when there are some. */
  readonly previousTerm: Term;
  /** See RaftState; Infinity when the log is lost. */
  readonly recoverThrough: Index | undefined;
  readonly now: Ms;
  readonly random: Random;
};

/** A node as it comes up: a follower that knows what is on its disk. */
export function initialState(start: Start): RaftState {
  const { id, options, hardState, snapshot, entries, now } = start;
  const firstIndex = entries[0]?.index ?? snapshot.index + 1;
  assert(firstIndex <= snapshot.index + 1, "the log leaves no gap after the snapshot");
  const base =
    entries.length > 0
      ? { index: firstIndex - 1, term: start.previousTerm }
      : { index: snapshot.index, term: snapshot.term };
  let log = appended(emptyLog(base), entries);
  // A log that ends before the snapshot has nothing that counts.
  if (log.last < snapshot.index) log = emptyLog(snapshot);
  const configurations: ConfigurationAt[] = [{ index: snapshot.index, configuration: snapshot.configuration }];
  for (const entry of entries) {
    if (entry.index <= snapshot.index || kindOf(entry) !== "configuration") continue;
    configurations.push({ index: entry.index, configuration: decodeConfiguration(entry.data) });
  }
  assert(termAt(log, snapshot.index) === snapshot.term, "log and snapshot agree on the snapshot's last entry");
  const { recoverThrough } = start;
  return {
    id,
    options,
    term: hardState.term,
    vote: hardState.vote,
    role: "follower",
    leader: undefined,
    commit: snapshot.index,
    log,
    configurations,
    persisted: log.last,
    nextOrder: 1,
    openOrders: [],
    mustRepeat: false,
    isHalted: false,
    // It was made good in an earlier life, which did not come to note it.
    recoverThrough: recoverThrough !== undefined && log.last >= recoverThrough ? undefined : recoverThrough,
    electionAt: now + electionTimeout(options, start.random),
    // With leases, a node that was restarted may have promised a leader its time just before.
    heardLeaderAt: options.leaseDrift === undefined ? Number.NEGATIVE_INFINITY : now,
    votes: new Map(),
    ownVoteOrder: 0,
    peers: new Map(),
    ownFirst: 0,
    heartbeatAt: Number.POSITIVE_INFINITY,
    quorumCheckAt: Number.POSITIVE_INFINITY,
    transfer: undefined,
    hasNamedHeir: false,
    held: [],
    round: 0,
    roundStarts: [],
    roundReads: undefined,
    waitingReads: [],
  };
}

/** From electionMs to twice that, by chance, so that candidates rarely meet (paper 5.2). */
export function electionTimeout({ electionMs }: Options, random: Random): Ms {
  const [a, b] = random.bytes(2);
  return electionMs * (1 + (a! * 256 + b!) / 65536);
}

export const configurationOfState = (state: RaftState): Configuration => state.configurations.at(-1)!.configuration;
