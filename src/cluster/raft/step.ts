/**
 * Consensus as a pure function: one input makes of one state the next, and says what is to be done. No clock, disk, socket
 * or chance in it but those that are handed in: the same inputs give the same outputs, and a simulator can try a million
 * schedules in a minute.
 *
 * Follows "In Search of an Understandable Consensus Algorithm (Extended Version)" and Ongaro's thesis; section numbers below
 * are the thesis's unless the paper is named. Where it goes beyond them:
 * - Writing to disk is asynchronous, for the leader too: it sends entries while it writes them itself, and counts itself as
 *   holding them once they are durable (10.2.1). Promises (votes, acknowledgements) leave only when durable.
 * - A node whose disk hangs gives up leading; one whose disk is full cuts its log back to what is durable and goes on.
 * - A node that lost part of its log to damage does not vote until it holds again whatever it may have acknowledged.
 */

import { assert, unreachable } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import { cut, type Draft, draftOf, finish, send } from "./draft.ts";
import { campaign, decideElection, onPreVote, onPreVoteReply, onVote, onVoteReply, preCampaign } from "./elect.ts";
import { onAppend, onSnapshotReceived } from "./follow.ts";
import { changeConfiguration, leaderChores, leaderTick, onAnswer, propose, sendToPeer, transfer } from "./lead.ts";
import { compacted, trimmed } from "./log.ts";
import { askRead } from "./reads.ts";
import { onFetched, onSnapshotSent, onUnreachable } from "./replicate.ts";
import { becomeFollower, canCampaign, giveUp, isStalled, waitForElection } from "./roles.ts";
import type { RaftState } from "./state.ts";
import type { Effects, Input, Message, Ms, SnapshotPoint } from "./types.ts";

const NO_EFFECTS: Effects = {
  persist: [],
  send: [],
  reads: [],
  changes: [],
  fetch: [],
  snapshots: [],
  recovered: false,
};

/**
 * One step. `now` is this node's monotonic time; it never goes back from one step to the next.
 * @throws BrokenInvariant for what cannot happen among nodes that keep to this protocol
 */
export function step(state: RaftState, input: Input, now: Ms, random: Random): { state: RaftState; effects: Effects } {
  if (state.isHalted) return { state, effects: refusalsOf(input) };
  const draft = draftOf(state, now, random);
  take(draft, input);
  if (draft.role === "leader") leaderChores(draft, input.type === "message" ? input.message.from : undefined);
  return finish(draft);
}

/** When a tick is due: Infinity for a node that has nothing to wait for, such as a cluster of one. */
export function deadline(state: RaftState): Ms {
  if (state.isHalted) return Number.POSITIVE_INFINITY;
  if (state.role !== "leader") {
    const waits = state.leader !== undefined || canCampaign(state) || state.mustRepeat;
    return waits ? state.electionAt : Number.POSITIVE_INFINITY;
  }
  if (state.peers.size === 0) return Number.POSITIVE_INFINITY;
  const stall = state.openOrders.length > 0 ? state.openOrders[0]!.at + state.options.diskStallMs : Infinity;
  return Math.min(state.heartbeatAt, state.quorumCheckAt, state.transfer?.until ?? Infinity, stall);
}

function take(d: Draft, input: Input): void {
  switch (input.type) {
    case "tick":
      tick(d);
      break;
    case "message":
      onMessage(d, input.message);
      break;
    case "propose":
      propose(d, input.term, input.commands);
      break;
    case "change-configuration":
      d.out.changes.push({ id: input.id, index: changeConfiguration(d, input.change) });
      break;
    case "read":
      read(d, input.id);
      break;
    case "transfer":
      transfer(d, input.to);
      break;
    case "persisted":
      onPersisted(d, input.order);
      break;
    case "persist-refused":
      onPersistRefused(d, input.order);
      break;
    case "halt":
      halt(d);
      break;
    case "applied":
      d.log = trimmed(d.log, Math.min(input.index, d.persisted), d.options.windowBytesMax);
      break;
    case "compacted":
      onCompacted(d, input.point);
      break;
    case "fetched":
      if (d.role === "leader") onFetched(d, input.to, input.entries);
      break;
    case "snapshot-received":
      onSnapshotReceived(d, input.from, input.term, input.point);
      break;
    case "snapshot-sent":
      if (d.role !== "leader") return;
      onSnapshotSent(d, input.to, input.index);
      sendToPeer(d, input.to, false);
      break;
    case "unreachable":
      if (d.role === "leader") onUnreachable(d, input.peer);
      break;
    default:
      unreachable(input);
  }
}

function tick(d: Draft): void {
  if (d.role === "leader") {
    leaderTick(d);
    return;
  }
  if (d.now < d.electionAt) return;
  // A refused write is tried again even when nobody asks for anything new.
  if (d.mustRepeat) d.order.hardState = true;
  if (!canCampaign(d) || isStalled(d)) {
    d.leader = undefined;
    waitForElection(d);
    return;
  }
  preCampaign(d);
}

function onMessage(d: Draft, message: Message): void {
  if (message.to !== d.id || message.from === d.id) return;
  switch (message.type) {
    case "pre-vote":
      onPreVote(d, message);
      return;
    case "pre-vote-reply":
      onPreVoteReply(d, message);
      return;
    case "vote":
      onVote(d, message);
      return;
    default:
  }
  if (message.term > d.term) becomeFollower(d, message.term, undefined);
  switch (message.type) {
    case "append":
      onAppend(d, message);
      return;
    case "read":
      if (d.role === "leader") askRead(d, { id: message.id, from: message.from });
      else send(d, message.from, { type: "read-reply", id: message.id, index: undefined });
      return;
    case "read-reply":
      d.out.reads.push({ id: message.id, index: message.index });
      return;
    default:
  }
  if (message.term < d.term) return;
  switch (message.type) {
    case "vote-reply":
      onVoteReply(d, message);
      return;
    case "timeout-now":
      if (d.role !== "leader" && canCampaign(d) && !isStalled(d)) campaign(d, true);
      return;
    case "append-reply":
    case "append-refused":
      if (d.role === "leader") onAnswer(d, message);
      return;
    default:
      unreachable(message);
  }
}

function read(d: Draft, id: number): void {
  if (d.role === "leader") askRead(d, { id, from: undefined });
  else if (d.leader === undefined) d.out.reads.push({ id, index: undefined });
  else send(d, d.leader, { type: "read", id });
}

function onPersisted(d: Draft, order: number): void {
  const done = d.openOrders.findLast((open) => open.order <= order);
  if (!done) return;
  d.openOrders = d.openOrders.filter((open) => open.order > order);
  d.persisted = Math.max(d.persisted, done.last);
  if (d.recoverThrough !== undefined && d.persisted >= d.recoverThrough) {
    d.recoverThrough = undefined;
    d.out.recovered = true;
  }
  if (d.role === "candidate" && order >= d.ownVoteOrder && !d.votes.has(d.id)) {
    d.votes = new Map(d.votes).set(d.id, true);
    decideElection(d);
  }
}

/**
 * A full disk: what it refused was promised to nobody, so the log goes back to what is durable, as after a crash. A leader
 * can't lead on: it must never give another entry to a place of its term that it once sent. What is committed stays, in
 * memory, and is written again with the next order.
 */
function onPersistRefused(d: Draft, order: number): void {
  if (!d.openOrders.some((open) => open.order >= order)) return;
  if (d.role === "leader") giveUp(d);
  else becomeFollower(d, d.term, undefined);
  cut(d, Math.max(d.persisted, d.commit));
  d.openOrders = [];
  d.mustRepeat = true;
  waitForElection(d);
}

function halt(d: Draft): void {
  if (d.role === "leader") giveUp(d);
  else becomeFollower(d, d.term, undefined);
  d.openOrders = [];
  d.isHalted = true;
}

function onCompacted(d: Draft, point: SnapshotPoint): void {
  assert(point.index <= d.commit, "only what is committed is in a snapshot");
  d.log = compacted(d.log, point);
}

function refusalsOf(input: Input): Effects {
  if (input.type === "read") return { ...NO_EFFECTS, reads: [{ id: input.id, index: undefined }] };
  if (input.type === "change-configuration") return { ...NO_EFFECTS, changes: [{ id: input.id, index: "not-leader" }] };
  return NO_EFFECTS;
}
