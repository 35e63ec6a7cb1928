/**
 * One step in the making: a copy of the state that the step may change, and the effects that it gathers. What has to be
 * durable is gathered too, and becomes one persist order at the step's end.
 */
import { assert } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import { decodeConfiguration, kindOf } from "./configuration.ts";
import { appended, slice, truncated } from "./log.ts";
import { configurationOfState, type Progress, type RaftState } from "./state.ts";
import type {
  Configuration,
  Effects,
  Entry,
  Index,
  Message,
  MessageBody,
  Ms,
  PeerId,
  Persist,
  SnapshotPoint,
  Term,
} from "./types.ts";

type Mutable<T> = { -readonly [key in keyof T]: T[key] };

export type Draft = Mutable<RaftState> & {
  readonly now: Ms;
  readonly random: Random;
  readonly out: { -readonly [key in keyof Effects]: Effects[key] extends readonly (infer T)[] ? T[] : Effects[key] };
  /** For the persist order. */
  readonly order: {
    restart?: SnapshotPoint;
    truncateAfter?: Index;
    entries: Entry[];
    hardState: boolean;
    send: Message[];
  };
};

export function draftOf(state: RaftState, now: Ms, random: Random): Draft {
  const out = { persist: [], send: [], reads: [], changes: [], fetch: [], snapshots: [], recovered: false };
  return { ...state, now, random, out, order: { entries: [], hardState: false, send: [] } };
}

/** Ends the step: what has to be durable becomes an order. */
export function finish(draft: Draft): { state: RaftState; effects: Effects } {
  issueOrder(draft);
  const { now: _now, random: _random, out, order: _order, ...state } = draft;
  return { state, effects: out };
}

function issueOrder(d: Draft): void {
  const { order } = d;
  const isEmpty = order.entries.length === 0 && !order.hardState && order.truncateAfter === undefined && !order.restart;
  if (isEmpty && order.send.length === 0) return;
  // A promise that rests on nothing that is still open needn't wait for the disk.
  if (isEmpty && !d.mustRepeat && d.openOrders.length === 0) {
    d.out.send.push(...order.send);
    return;
  }
  const number = d.nextOrder++;
  d.out.persist.push({ order: number, ...(d.mustRepeat ? repeated(d) : stated(d)), send: order.send });
  d.mustRepeat = false;
  d.openOrders = [...d.openOrders, { order: number, last: d.log.last, at: d.now }];
}

function stated(d: Draft): Omit<Persist, "order" | "send"> {
  const { restart, truncateAfter, entries, hardState } = d.order;
  return {
    entries,
    ...(restart && { restart }),
    ...(truncateAfter !== undefined && { truncateAfter }),
    ...(hardState && { hardState: { term: d.term, vote: d.vote } }),
  };
}

/** After a refusal nobody knows which of the refused cuts were made: all is said once more, from what is surely durable. */
function repeated(d: Draft): Omit<Persist, "order" | "send"> {
  const hardState = { term: d.term, vote: d.vote };
  const { base, last } = d.log;
  if (d.persisted < base.index) {
    const restart: SnapshotPoint = { ...base, configuration: d.configurations[0]!.configuration };
    return { restart, entries: slice(d.log, base.index + 1, last, Number.POSITIVE_INFINITY) ?? [], hardState };
  }
  const entries = d.persisted < last ? slice(d.log, d.persisted + 1, last, Number.POSITIVE_INFINITY) : [];
  assert(entries, "what is not durable is kept in memory");
  return { truncateAfter: d.persisted, entries, hardState };
}

/** The order that this step will issue, if it issues one. */
export const orderInMaking = (d: Draft): number => d.nextOrder;

export function send(d: Draft, to: PeerId, body: MessageBody, term: Term = d.term): void {
  d.out.send.push({ from: d.id, to, term, ...body });
}

/** Sends once everything that this node has said to itself so far is durable. */
export function sendWhenDurable(d: Draft, to: PeerId, body: MessageBody, term: Term = d.term): void {
  d.order.send.push({ from: d.id, to, term, ...body });
}

export function setHardState(d: Draft, term: Term, vote: PeerId): void {
  assert(term >= d.term, "terms never go back");
  assert(term > d.term || d.vote === "" || d.vote === vote, "one vote a term");
  d.term = term;
  d.vote = vote;
  d.order.hardState = true;
}

/** Adds entries to the log: in memory now, on disk by this step's order. */
export function append(d: Draft, entries: readonly Entry[]): void {
  d.log = appended(d.log, entries);
  d.order.entries.push(...entries);
  for (const entry of entries) {
    if (kindOf(entry) !== "configuration") continue;
    d.configurations = [...d.configurations, { index: entry.index, configuration: decodeConfiguration(entry.data) }];
  }
}

/** Removes the entries after `index`, which are not committed: from memory now, from disk by this step's order. */
export function truncate(d: Draft, index: Index): void {
  cut(d, index);
  d.order.truncateAfter = index;
}

/** Forgets the entries after `index`, of which the disk knows nothing. */
export function cut(d: Draft, index: Index): void {
  assert(index >= d.commit, "what is committed is never cut off");
  d.log = truncated(d.log, index);
  d.configurations = d.configurations.filter((at) => at.index <= index);
  d.persisted = Math.min(d.persisted, index);
  d.openOrders = d.openOrders.map((open) => (open.last > index ? { ...open, last: index } : open));
  assert(d.order.entries.length === 0, "a step cuts before it appends");
}

export const configuration = (d: Draft): Configuration => configurationOfState(d);

export function updatePeer(d: Draft, peer: PeerId, change: Partial<Progress>): void {
  const before = d.peers.get(peer);
  if (!before) return;
  d.peers = new Map(d.peers).set(peer, { ...before, ...change });
}

/** Rounds whose beginning is remembered, for leases. More than fit into one lease at the heartbeat's pace. */
const ROUND_STARTS_MAX = 64;

/** Numbers the leader's messages from now on: an answer tells which round it was asked in. */
export function beginRound(d: Draft): void {
  d.round++;
  if (d.options.leaseDrift !== undefined) {
    d.roundStarts = [...d.roundStarts.slice(-ROUND_STARTS_MAX), { round: d.round, at: d.now }];
  }
}

/** Everything up to `index` is committed; configurations that were replaced by then are history. */
export function commitUpTo(d: Draft, index: Index): void {
  assert(index <= d.log.last, "what is committed is in the log");
  d.commit = index;
  const inForce = d.configurations.findLastIndex((at) => at.index <= index);
  if (inForce > 0) d.configurations = d.configurations.slice(inForce);
}
