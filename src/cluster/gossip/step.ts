/**
 * One step of a node's gossip, as a pure function: the same state, input, time and random bytes give the same next state and
 * effects. It has no clock, no socket and no chance of its own; `cluster/node` drives it, and so does a simulator.
 *
 * `types.ts` tells what the protocol is. The parts: `detect.ts` finds who is not there, `merge.ts` decides what to believe,
 * `rumors.ts` is what waits to be told, `sync.ts` repairs what was not heard.
 */
import type { Random } from "../../lib/random.ts";
import { onAck, onNack, onPing, onPingRequest, probeDue, relayDue, startProbe, suspicionDue } from "./detect.ts";
import { type Draft, draftOf, emit, finish, removeMember, send, setMember, somePeers, spread } from "./draft.ts";
import { isGone, type Member, makeMember } from "./members.ts";
import { ailing, hear, meet, restartSuspicions, setOwnFacts } from "./merge.ts";
import { CARE_MS, type GossipState, hasPeers } from "./state.ts";
import { askTheSilent, onDigest, onSync, onWant, rejoin, startSync } from "./sync.ts";
import { type Effects, type Input, type Message, type Ms, SEEDS_MAX, STALL_FACT, STALL_MS_MAX } from "./types.ts";

export { deadline, initialState } from "./state.ts";

/** Good-byes take this long at most. */
const LEAVE_MS: Ms = 3000;
/** Stalls up to this aren't worth announcing: every suspicion leaves so much time. */
const STALL_MS_MIN: Ms = 500;

const NOTHING: Effects = { send: [], events: [] };

/** `clockMs`: on a monotonic clock, not less than in any step before. Fractions of a millisecond don't count. */
export function step(
  state: GossipState,
  input: Input,
  clockMs: Ms,
  random: Random,
): { readonly state: GossipState; readonly effects: Effects } {
  if (state.phase === "left") return { state, effects: NOTHING };
  // Whole numbers can be subtracted and added without rounding: what is due at a time is due at that time.
  const now = Math.floor(clockMs);
  const lateMs = now - state.wakeAt;
  const awayMs = lateMs > state.options.lateMs ? lateMs : 0;
  const d = draftOf(state, now, state.lostMs + awayMs, random);
  if (awayMs > 0) comeBack(d, awayMs);
  switch (input.type) {
    case "tick":
      break;
    case "message":
      receive(d, input.message);
      break;
    case "join":
      d.seeds = input.seeds.filter((seed) => seed !== d.self.address).slice(0, SEEDS_MAX);
      d.joinAttempts = 0;
      d.rejoinAt = d.now;
      break;
    case "facts":
      d.factsWaiting = { ...d.factsWaiting, ...input.values };
      break;
    case "leave":
      leave(d);
      break;
  }
  doWhatIsDue(d);
  return finish(d);
}

/** This process did not run for `awayMs`. What it waited for may lie unread in its socket. */
function comeBack(d: Draft, awayMs: Ms): void {
  d.probes = [];
  d.relays = [];
  restartSuspicions(d);
  ailing(d, 1);
  if (awayMs > d.stallMs / 2) d.stallAt = d.now;
  d.stallMs = Math.max(d.stallMs, awayMs);
  announceStall(d);
  emit(d, { type: "stalled", ms: awayMs });
}

/** Tells the others how patient they have to be: the power of two, in ms, above what was measured. */
function announceStall(d: Draft): void {
  if (d.phase !== "running") return;
  let ms = 2 * STALL_MS_MIN;
  while (ms < d.stallMs && ms < STALL_MS_MAX) ms *= 2;
  const value = d.stallMs > STALL_MS_MIN ? String(ms) : "";
  const told = d.self.facts.find((fact) => fact.name === STALL_FACT)?.value ?? "";
  if (value !== told) setOwnFacts(d, { [STALL_FACT]: value }, true);
}

function receive(d: Draft, message: Message): void {
  if (message.from === d.id) {
    // An echo of this node's own, or another node with its id.
    if (message.address !== d.self.address) emit(d, { type: "conflict", address: message.address });
    return;
  }
  const isHearsay = message.type === "records";
  for (const rumor of message.rumors) hear(d, rumor, isHearsay);
  meet(d, message);
  switch (message.type) {
    case "ping":
      onPing(d, message);
      break;
    case "ack":
      onAck(d, message.seq);
      break;
    case "nack":
      onNack(d, message.seq, message.from);
      break;
    case "ping-request":
      onPingRequest(d, message);
      break;
    case "sync":
      onSync(d, message);
      break;
    case "digest":
      onDigest(d, message);
      break;
    case "want":
      onWant(d, message);
      break;
  }
}

function leave(d: Draft): void {
  if (d.phase !== "running") return;
  const self = d.self;
  const left = makeMember({ ...self, status: "left", since: d.now });
  d.phase = "leaving";
  d.probes = [];
  setMember(d, left, self);
  spread(d, left, [], true);
  d.leaveAt = d.now + LEAVE_MS;
}

function doWhatIsDue(d: Draft): void {
  const { now } = d;
  for (const probe of d.probes) if (probe.dueAt <= now) probeDue(d, probe);
  for (const relay of d.relays) if (relay.dueAt <= now) relayDue(d, relay);
  for (const suspicion of d.suspicions) {
    if (suspicion.deadAt <= now || suspicion.pingAt <= now) suspicionDue(d, suspicion);
  }
  if (d.careAt <= now) care(d);
  if (d.phase === "running") {
    if (d.factsWaiting && d.factsAt <= now) announceFacts(d);
    if (d.rejoinAt <= now) rejoin(d);
    if (hasPeers(d)) {
      if (d.probeAt <= now) startProbe(d);
      if (d.syncAt <= now) startSync(d);
    }
  }
  if (hasPeers(d) && d.queue[0]?.isUrgent && d.gossipAt <= now) gossip(d);
  if (d.phase === "leaving") {
    const isTold = !d.queue.some((telling) => telling.isUrgent && telling.rumor.id === d.id);
    if (isTold || d.leaveAt <= now) {
      d.phase = "left";
      emit(d, { type: "left" });
    }
  }
}

/** Tells some members the news. */
function gossip(d: Draft): void {
  d.gossipAt = d.now + d.options.gossipMs;
  for (const peer of somePeers(d, d.options.fanout, () => true)) {
    if (!d.queue[0]?.isUrgent) return;
    send(d, peer.address, peer.id, { type: "gossip" });
  }
}

function announceFacts(d: Draft): void {
  const told = new Map(d.self.facts.map((fact) => [fact.name, fact.value]));
  const changed = Object.entries(d.factsWaiting ?? {}).filter(([name, value]) => told.get(name) !== value);
  d.factsWaiting = undefined;
  if (changed.length === 0) return;
  setOwnFacts(d, Object.fromEntries(changed), false);
  d.factsAt = d.now + Math.round(d.options.factsMs * Math.max(1, d.presentCount / 100));
}

/** Now and then: lets old things go. */
function care(d: Draft): void {
  d.careAt = d.now + CARE_MS;
  if (d.stallMs > 0 && d.now - d.stallAt > d.options.stallMemoryMs) {
    d.stallMs = d.stallMs > STALL_MS_MIN ? d.stallMs >> 1 : 0;
    d.stallAt = d.now;
    announceStall(d);
  }
  askTheSilent(d);
  for (const member of d.members) {
    if (!isGone(member) || member.id === d.id) continue;
    const age = d.now - member.since;
    if (age > d.options.deadMemoryMs) removeMember(d, member);
    else if (age > d.options.deadMemoryMs / 2 && member.hash !== 0) fade(d, member);
  }
}

/**
 * The second half of the time nobody is told of it any more. Otherwise those who forget it a little earlier would learn of it
 * again from those who forget it a little later, for ever.
 */
function fade(d: Draft, member: Member): void {
  setMember(d, { ...member, hash: 0 }, member);
}
