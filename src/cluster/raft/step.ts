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
import {
  changed,
  encodeConfiguration,
  isJoint,
  isQuorum,
  isVoter,
  kindOf,
  left,
  promoted,
  sameConfiguration,
} from "./configuration.ts";
import {
  append,
  beginRound,
  configuration,
  cut,
  type Draft,
  draftOf,
  finish,
  orderInMaking,
  send,
  sendWhenDurable,
  setHardState,
  truncate,
} from "./draft.ts";
import { compacted, emptyLog, lastTerm, lastWithin, termAt, trimmed } from "./log.ts";
import { askRead, confirmReads, failReads, serveReads } from "./reads.ts";
import {
  advanceCommit,
  broadcast,
  followMembership,
  heardByQuorum,
  mostCaughtUp,
  onAppendRefused,
  onAppendReply,
  onFetched,
  onSnapshotSent,
  onUnreachable,
  sendAppends,
} from "./replicate.ts";
import { electionTimeout, type RaftState } from "./state.ts";
import type {
  Configuration,
  ConfigurationChange,
  Effects,
  Entry,
  Index,
  Input,
  Message,
  Ms,
  PeerId,
  ProposalRefusal,
  SnapshotPoint,
  Term,
} from "./types.ts";

type Of<Type extends Message["type"]> = Extract<Message, { readonly type: Type }>;

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

// --- Time

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

/**
 * Whether this node may stand for election at all. One that the last configuration leaves out still may until that is known
 * to be committed: it can be the only one whose log is long enough to lead the others there (4.2.2).
 */
function canCampaign(state: RaftState): boolean {
  return (
    state.recoverThrough === undefined && state.configurations.some(({ configuration: at }) => isVoter(at, state.id))
  );
}

const isStalled = (d: Draft): boolean =>
  d.openOrders.length > 0 && d.now - d.openOrders[0]!.at >= d.options.diskStallMs;

function waitForElection(d: Draft): void {
  d.electionAt = d.now + electionTimeout(d.options, d.random);
}

function leaderTick(d: Draft): void {
  const { electionMs, heartbeatMs } = d.options;
  if (d.now >= d.quorumCheckAt) {
    // Check-quorum (6.2): a leader that is cut off stops answering instead of keeping clients waiting.
    if (!heardByQuorum(d, d.now - electionMs)) {
      becomeFollower(d, d.term, undefined);
      return;
    }
    d.quorumCheckAt = d.now + electionMs;
  }
  if (isStalled(d) && d.peers.size > 0) {
    // It can still talk and looks alive, but can't make anything durable: somebody else has to lead.
    giveUp(d);
    return;
  }
  if (d.transfer && d.now >= d.transfer.until) {
    d.transfer = undefined;
    const { held } = d;
    d.held = [];
    if (held.length > 0) propose(d, d.term, held);
  }
  if (d.now >= d.heartbeatAt) {
    d.heartbeatAt = d.now + heartbeatMs;
    if (d.options.leaseDrift !== undefined) beginRound(d);
    broadcast(d, true);
  }
}

/** Leads no more, and asks the best of the others to begin at once. */
function giveUp(d: Draft): void {
  const heir = mostCaughtUp(d, d.now - d.options.electionMs);
  if (heir !== undefined) send(d, heir, { type: "timeout-now" });
  becomeFollower(d, d.term, undefined);
}

// --- Elections

function preCampaign(d: Draft): void {
  // Asking first costs a round trip and disturbs nobody: only who could win raises the term (9.6).
  d.role = "pre-candidate";
  d.leader = undefined;
  waitForElection(d);
  d.votes = new Map([[d.id, true]]);
  const body = { type: "pre-vote", lastIndex: d.log.last, lastTerm: lastTerm(d.log) } as const;
  for (const peer of otherVoters(d)) send(d, peer, body, d.term + 1);
  if (hasWon(d)) campaign(d, false);
}

function campaign(d: Draft, isTransfer: boolean): void {
  d.role = "candidate";
  d.leader = undefined;
  setHardState(d, d.term + 1, d.id);
  waitForElection(d);
  d.votes = new Map();
  d.ownVoteOrder = orderInMaking(d);
  const body = { type: "vote", lastIndex: d.log.last, lastTerm: lastTerm(d.log), transfer: isTransfer } as const;
  for (const peer of otherVoters(d)) sendWhenDurable(d, peer, body);
}

function otherVoters(d: Draft): PeerId[] {
  const { voters, outgoing } = configuration(d);
  return [...new Set([...voters, ...outgoing])].filter((peer) => peer !== d.id);
}

const hasWon = (d: Draft): boolean => isQuorum(configuration(d), (peer) => d.votes.get(peer) === true);
const hasLost = (d: Draft): boolean => !isQuorum(configuration(d), (peer) => d.votes.get(peer) !== false);

function becomeFollower(d: Draft, term: Term, leader: PeerId | undefined): void {
  if (term > d.term) setHardState(d, term, "");
  if (d.role === "leader") {
    failReads(d);
    d.transfer = undefined;
    d.held = [];
    d.peers = new Map();
    d.roundStarts = [];
  }
  d.leader = leader;
  if (d.role === "follower") return;
  waitForElection(d);
  d.role = "follower";
  d.votes = new Map();
}

function becomeLeader(d: Draft): void {
  assert(d.role === "candidate", "only a candidate becomes leader");
  d.role = "leader";
  d.leader = d.id;
  d.hasNamedHeir = false;
  d.votes = new Map();
  d.peers = new Map();
  followMembership(d);
  d.heartbeatAt = d.now + d.options.heartbeatMs;
  d.quorumCheckAt = d.now + d.options.electionMs;
  // Committing this commits everything before it (paper, 8).
  d.ownFirst = d.log.last + 1;
  append(d, [{ index: d.ownFirst, term: d.term, data: NOTHING }]);
  broadcast(d, true);
}

const NOTHING = new Uint8Array(0);

// --- Messages

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

/** A follower that hears its leader does not help to replace it (6.2); neither does a leader that is not cut off. */
const defendsLeader = (d: Draft): boolean => d.role === "leader" || d.now - d.heardLeaderAt < d.options.electionMs;

/** Whether a log that ends so lacks nothing that may be committed, as far as this node can know (paper 5.4.1). */
function isUpToDate(d: Draft, { lastIndex, lastTerm: term }: { lastIndex: Index; lastTerm: Term }): boolean {
  const own = lastTerm(d.log);
  return term > own || (term === own && lastIndex >= d.log.last);
}

/** What this node once acknowledged and lost is missing from its log: it can't judge another's. */
const canJudge = (d: Draft): boolean => d.recoverThrough === undefined;

function onPreVote(d: Draft, message: Of<"pre-vote">): void {
  const granted = canJudge(d) && message.term > d.term && isUpToDate(d, message) && !defendsLeader(d);
  // A refusal tells the own term, so that a candidate that lags catches up.
  send(d, message.from, { type: "pre-vote-reply", granted }, granted ? message.term : d.term);
}

function onPreVoteReply(d: Draft, { from, term, granted }: Of<"pre-vote-reply">): void {
  if (!granted && term > d.term) {
    becomeFollower(d, term, undefined);
    return;
  }
  if (d.role !== "pre-candidate" || (granted && term !== d.term + 1)) return;
  d.votes = new Map(d.votes).set(from, granted);
  if (hasWon(d)) campaign(d, false);
  else if (hasLost(d)) becomeFollower(d, d.term, undefined);
}

function onVote(d: Draft, message: Of<"vote">): void {
  const { from, term } = message;
  if (term > d.term) {
    // Not even the term is taken over: a node that was cut off, or removed, must not disturb a working leader (4.2.3).
    if (!message.transfer && defendsLeader(d)) return;
    becomeFollower(d, term, undefined);
  }
  const mayVote = term === d.term && d.role !== "leader" && (d.vote === "" || d.vote === from);
  const granted = canJudge(d) && mayVote && isUpToDate(d, message);
  if (!granted) {
    send(d, from, { type: "vote-reply", granted });
    return;
  }
  if (d.vote !== from) setHardState(d, term, from);
  waitForElection(d);
  sendWhenDurable(d, from, { type: "vote-reply", granted });
}

function onVoteReply(d: Draft, { from, granted }: Of<"vote-reply">): void {
  if (d.role !== "candidate") return;
  d.votes = new Map(d.votes).set(from, granted);
  decideElection(d);
}

function decideElection(d: Draft): void {
  if (hasWon(d)) becomeLeader(d);
  else if (hasLost(d)) becomeFollower(d, d.term, undefined);
}

// --- Following

function onAppend(d: Draft, message: Of<"append">): void {
  const { from, prevIndex, prevTerm, entries, round } = message;
  if (message.term < d.term) {
    // Tells a leader of the past that it is one; without this, a node whose term ran ahead would never be led again.
    send(d, from, { type: "append-refused", prevIndex, hintIndex: 0, hintTerm: 0, round: 0 });
    return;
  }
  assert(d.role !== "leader", "a term has one leader");
  becomeFollower(d, d.term, from);
  d.heardLeaderAt = d.now;
  waitForElection(d);
  // What a snapshot replaced here is committed, so that it is the same there.
  const isKnown = prevIndex < d.log.base.index || termAt(d.log, prevIndex) === prevTerm;
  if (!isKnown) {
    const hint = lastWithin(d.log, prevIndex, prevTerm) ?? { index: 0, term: 0 };
    send(d, from, { type: "append-refused", prevIndex, hintIndex: hint.index, hintTerm: hint.term, round });
    return;
  }
  const last = prevIndex + entries.length;
  accept(d, entries);
  const reached = Math.min(message.commit, last);
  if (reached > d.commit) commitUpTo(d, reached);
  // A refused write is tried again at the heartbeats' pace: the leader waits for what it sent, and sends nothing new.
  if (d.mustRepeat) d.order.hardState = true;
  if (entries.length === 0) {
    // A heartbeat's answer promises no more than what is durable by now, and so needn't wait for the disk.
    send(d, from, { type: "append-reply", match: Math.min(last, d.persisted), round });
    return;
  }
  sendWhenDurable(d, from, {
    type: "append-reply",
    match: Math.max(last, Math.min(d.log.base.index, d.commit)),
    round,
  });
}

/** Takes what is new of the leader's entries; what contradicts them goes (paper 5.3). */
function accept(d: Draft, entries: readonly Entry[]): void {
  const firstNew = entries.findIndex(({ index, term }) => index > d.log.base.index && termAt(d.log, index) !== term);
  if (firstNew === -1) return;
  const fresh = entries.slice(firstNew);
  if (fresh[0]!.index <= d.log.last) truncate(d, fresh[0]!.index - 1);
  append(d, fresh);
}

function commitUpTo(d: Draft, index: Index): void {
  assert(index <= d.log.last, "what is committed is in the log");
  d.commit = index;
  const inForce = d.configurations.findLastIndex((at) => at.index <= index);
  if (inForce > 0) d.configurations = d.configurations.slice(inForce);
}

function onSnapshotReceived(d: Draft, from: PeerId, term: Term, point: SnapshotPoint): void {
  if (term < d.term || d.role === "leader") return;
  becomeFollower(d, term, from);
  if (point.index > d.commit) {
    if (termAt(d.log, point.index) === point.term) {
      commitUpTo(d, point.index);
    } else {
      d.log = emptyLog(point);
      d.commit = point.index;
      d.configurations = [{ index: point.index, configuration: point.configuration }];
      d.persisted = 0;
      d.openOrders = d.openOrders.map((open) => ({ ...open, last: 0 }));
      d.order.restart = point;
    }
  }
  sendWhenDurable(d, from, { type: "append-reply", match: Math.min(point.index, d.log.last), round: 0 });
}

// --- Leading

function propose(d: Draft, term: Term, commands: readonly Uint8Array[]): void {
  if (d.role !== "leader" || d.term !== term) return;
  if (d.transfer) {
    // The heir has to catch up with a log that stands still.
    d.held = [...d.held, ...commands];
    return;
  }
  let index = d.log.last;
  const entries = commands.map((data): Entry => ({ index: ++index, term, data }));
  for (const entry of entries) assert(kindOf(entry) === "command", "a command looks like one");
  append(d, entries);
  broadcast(d, false);
}

function onAnswer(d: Draft, message: Of<"append-reply"> | Of<"append-refused">): void {
  if (message.type === "append-reply") onAppendReply(d, message);
  else onAppendRefused(d, message);
  confirmReads(d);
}

function sendToPeer(d: Draft, peer: PeerId, always: boolean): void {
  if (d.role === "leader" && d.peers.has(peer)) sendAppends(d, peer, always);
}

/** What may follow from anything that a leader learnt: commits, what hangs on them, promotions, a transfer's last word. */
function leaderChores(d: Draft, heardFrom: PeerId | undefined): void {
  if (!advanceCommit(d)) {
    // Its answer may have opened its window.
    if (heardFrom !== undefined) sendToPeer(d, heardFrom, false);
  } else {
    commitUpTo(d, d.commit);
    broadcast(d, false);
    serveReads(d);
    if (d.configurations.length === 1 && afterConfiguration(d)) return;
  }
  promoteJoining(d);
  finishTransfer(d);
}

/** The configuration in force is committed: a joint one is left, and a leader that it leaves out goes (4.2.2). */
function afterConfiguration(d: Draft): boolean {
  const current = configuration(d);
  if (isJoint(current)) {
    appendConfiguration(d, left(current));
    return false;
  }
  if (current.voters.includes(d.id)) return false;
  giveUp(d);
  return true;
}

function appendConfiguration(d: Draft, next: Configuration): Index {
  const index = d.log.last + 1;
  append(d, [{ index, term: d.term, data: encodeConfiguration(next) }]);
  followMembership(d);
  broadcast(d, false);
  return index;
}

/** One change at a time, and none before an entry of the own term is committed (the erratum to 4.1). */
const canChange = (d: Draft): boolean =>
  d.configurations.length === 1 && !isJoint(configuration(d)) && d.commit >= d.ownFirst && !d.transfer;

function changeConfiguration(d: Draft, change: ConfigurationChange): Index | ProposalRefusal {
  if (d.role !== "leader") return "not-leader";
  if (d.commit < d.ownFirst) return "not-ready";
  if (!canChange(d)) return "change-pending";
  const current = configuration(d);
  const next = changed(current, change);
  if (!next) return "invalid";
  return sameConfiguration(current, next) ? d.configurations[0]!.index : appendConfiguration(d, next);
}

/** A learner becomes a voter once it would not hold up commits (4.2.1). */
function promoteJoining(d: Draft): void {
  const { joining } = configuration(d);
  if (joining.length === 0 || !canChange(d)) return;
  const alive = d.now - d.options.electionMs;
  const ready = joining.filter((peer) => {
    const progress = d.peers.get(peer);
    return (
      progress?.mode === "replicate" &&
      progress.heardAt >= alive &&
      progress.match + d.options.catchUpEntries >= d.log.last
    );
  });
  if (ready.length > 0) appendConfiguration(d, promoted(configuration(d), ready));
}

function read(d: Draft, id: number): void {
  if (d.role === "leader") askRead(d, { id, from: undefined });
  else if (d.leader === undefined) d.out.reads.push({ id, index: undefined });
  else send(d, d.leader, { type: "read", id });
}

function transfer(d: Draft, wanted: PeerId | undefined): void {
  if (d.role !== "leader" || d.transfer) return;
  const to = wanted ?? mostCaughtUp(d, d.now - d.options.electionMs);
  if (to === undefined || to === d.id || !configuration(d).voters.includes(to)) return;
  d.transfer = { to, until: d.now + d.options.electionMs, isSent: false };
  sendToPeer(d, to, false);
}

function finishTransfer(d: Draft): void {
  if (!d.transfer || d.transfer.isSent || d.peers.get(d.transfer.to)?.match !== d.log.last) return;
  send(d, d.transfer.to, { type: "timeout-now" });
  d.transfer = { ...d.transfer, isSent: true };
  d.hasNamedHeir = true;
}

// --- The disk

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
