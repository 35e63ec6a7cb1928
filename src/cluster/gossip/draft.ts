/** One step in the making: a copy of the state that the step may change, and the effects that it gathers. */
import { assert } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import { below } from "./chance.ts";
import { bodyBytes, rumorBytes } from "./codec.ts";
import { findMember, isPresent, type Member, rumorOf, withMember, withoutMember } from "./members.ts";
import { enqueued, taken, waitingFacts } from "./rumors.ts";
import { type GossipState, hasPeers, isPeer, nextWake, type Suspicion } from "./state.ts";
import {
  type Address,
  type Effects,
  type GossipEvent,
  MESSAGE_BYTES_MAX,
  type Message,
  type MessageBody,
  type Ms,
  type NodeId,
  type Rumor,
} from "./types.ts";

type Mutable<T> = { -readonly [key in keyof T]: T[key] };

export type Draft = Mutable<GossipState> & { readonly turn: Turn };

/** What belongs to this step alone. */
type Turn = {
  readonly random: Random;
  readonly send: { to: Address; message: Message }[];
  readonly events: GossipEvent[];
};

export function draftOf(state: GossipState, now: Ms, lostMs: Ms, random: Random): Draft {
  return Object.assign({ ...state }, { now: now - lostMs, lostMs, turn: { random, send: [], events: [] } });
}

export function finish(draft: Draft): { state: GossipState; effects: Effects } {
  const { send, events } = draft.turn;
  draft.wakeAt = nextWake(draft);
  // The draft becomes the state. A second copy, without this member, would take a fifth of a step's time.
  (draft as { turn: Turn | undefined }).turn = undefined;
  return { state: draft, effects: { send, events } };
}

export function emit(d: Draft, event: GossipEvent): void {
  d.turn.events.push(event);
}

/** Puts a member's record into the place of the one before, and tells of it when that changes how it stands. */
export function setMember(d: Draft, member: Member, before: Member | undefined): void {
  d.members = withMember(d.members, member);
  if (member.id === d.id) d.self = member;
  d.hash = (d.hash ^ (before?.hash ?? 0) ^ member.hash) >>> 0;
  d.presentCount += Number(isPresent(member)) - Number(before !== undefined && isPresent(before));
  if (member.status !== "suspect" || member.incarnation !== before?.incarnation) dropSuspicion(d, member.id);
  if (!before && d.rotation.length > 0) {
    // Somewhere in what is left of the round, so that a new member isn't probed by all at the same time.
    const at = d.rotationAt + below(d.turn.random, d.rotation.length - d.rotationAt + 1);
    d.rotation = d.rotation.toSpliced(at, 0, member.id);
  }
  if (member.status !== before?.status) {
    emit(d, { type: "status", id: member.id, before: before?.status, status: member.status });
  }
}

export function removeMember(d: Draft, member: Member): void {
  d.members = withoutMember(d.members, member.id);
  d.hash = (d.hash ^ member.hash) >>> 0;
  d.presentCount -= Number(isPresent(member));
  d.queue = d.queue.filter((telling) => telling.rumor.id !== member.id);
  emit(d, { type: "forgotten", id: member.id });
}

export const suspicionOf = (d: Draft, id: NodeId): Suspicion | undefined =>
  d.suspicions.find((suspicion) => suspicion.id === id);

function dropSuspicion(d: Draft, id: NodeId): void {
  if (suspicionOf(d, id)) d.suspicions = d.suspicions.filter((suspicion) => suspicion.id !== id);
}

/** What this node holds of the member, with the facts named. */
export const held = (d: Draft, member: Member, facts: readonly string[] | "all"): Rumor =>
  rumorOf(member, d.now, suspicionOf(d, member.id)?.witnesses ?? [], facts);

/** Tells it to others: how it stands, and the facts named with those that were waiting to be told. */
export function spread(d: Draft, member: Member, facts: readonly string[], isUrgent: boolean): void {
  if (!hasPeers(d)) return;
  d.queue = enqueued(d.queue, held(d, member, [...waitingFacts(d.queue, member.id, isUrgent), ...facts]), isUrgent);
}

/**
 * Sends a message. `rumors` come first, then what is held against the receiver (Lifeguard's buddy system), then whatever is
 * waiting to be told and fits.
 */
export function send(
  d: Draft,
  to: Address,
  id: NodeId | undefined,
  body: MessageBody,
  rumors: readonly Rumor[] = [],
): void {
  const { address, incarnation } = d.self;
  const message = { from: d.id, address, incarnation, ...body };
  let room = MESSAGE_BYTES_MAX - bodyBytes(message);
  for (const rumor of rumors) room -= rumorBytes(rumor);
  let first = rumors;
  const receiver = id === undefined ? undefined : findMember(d.members, id);
  if (receiver && receiver.status !== "alive" && !rumors.some((rumor) => rumor.id === id)) {
    const accusation = held(d, receiver, []);
    const bytes = rumorBytes(accusation);
    if (bytes <= room) {
      room -= bytes;
      first = [...rumors, accusation];
    }
  }
  assert(room >= 0, "a message fits into a frame");
  const { rumors: more, queue } = taken(d.queue, room, first.length, receiver && id, d.options, d.presentCount);
  d.queue = queue;
  const all = first.length === 0 ? more : more.length === 0 ? first : [...first, ...more];
  d.turn.send.push({ to, message: { ...message, rumors: all } });
}

export function nextSeq(d: Draft): number {
  d.seq = (d.seq + 1) >>> 0;
  return d.seq;
}

/** Up to `count` different members that `isWanted`, by chance. */
export function somePeers(d: Draft, count: number, isWanted: (member: Member) => boolean): Member[] {
  const found: Member[] = [];
  const { length } = d.members;
  // Mostly the first draws hit. Where few are wanted, a walk from a random place finds who there is.
  for (let tries = 0; tries < 3 * count && found.length < count; tries++) {
    const member = d.members[below(d.turn.random, length)]!;
    if (isPeer(d, member) && isWanted(member) && !found.includes(member)) found.push(member);
  }
  const start = found.length < count ? below(d.turn.random, length) : 0;
  for (let i = 0; i < length && found.length < count; i++) {
    const member = d.members[(start + i) % length]!;
    if (isPeer(d, member) && isWanted(member) && !found.includes(member)) found.push(member);
  }
  return found;
}
