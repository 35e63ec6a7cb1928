/** What a node's gossip knows and intends, and how to look at it. Plain data: `step` makes the next one. */
import { assert } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import { below } from "./chance.ts";
import { checkFacts } from "./check.ts";
import { isPresent, type Member, type Members, makeMember } from "./members.ts";
import type { Queue } from "./rumors.ts";
import {
  type Address,
  type Fact,
  type Incarnation,
  type Ms,
  type NodeId,
  type Options,
  SEEDS_MAX,
  type Status,
} from "./types.ts";

/** A probe under way. */
export type Probe = {
  readonly seq: number;
  readonly target: NodeId;
  /** When to ask proxies, or when to give up, which is the next thing to do. */
  readonly dueAt: Ms;
  readonly isIndirect: boolean;
  /** Proxies that were asked, and those of them that had no answer either. */
  readonly asked: number;
  readonly nacks: readonly NodeId[];
};

/** A ping on behalf of another node. */
export type Relay = {
  readonly seq: number;
  readonly origin: Address;
  readonly originSeq: number;
  /** When to send the nack, or, once that is sent, when to forget. */
  readonly dueAt: Ms;
  readonly isNacked: boolean;
};

export type Suspicion = {
  readonly id: NodeId;
  readonly startedAt: Ms;
  readonly witnesses: readonly NodeId[];
  /** Another node holds it for dead, and this one had not heard of a suspicion. */
  readonly isDoubt: boolean;
  readonly deadAt: Ms;
  /** When this node asks the suspect itself. */
  readonly pingAt: Ms;
};

/** All times but `wakeAt` are as `now` is. */
export type GossipState = {
  readonly options: Options;
  readonly id: NodeId;
  readonly phase: "running" | "leaving" | "left";
  /** This node's own record, which is among the members too. */
  readonly self: Member;
  readonly members: Members;
  /** Exclusive or of the members' hashes. */
  readonly hash: number;
  /** Alive or suspect, this node among them. */
  readonly presentCount: number;
  readonly suspicions: readonly Suspicion[];
  readonly probes: readonly Probe[];
  readonly relays: readonly Relay[];
  readonly queue: Queue;
  /** The order in which members are probed by turns, shuffled anew each time round, and how far that is. */
  readonly rotation: readonly NodeId[];
  readonly rotationAt: number;
  /** Probes started: every other goes to the neighbour. */
  readonly probeCount: number;
  readonly seq: number;
  /** Lifeguard's local health multiplier: 0 is well. */
  readonly localHealth: number;
  /** How long this node has lately stood still, and when that was last measured or halved. */
  readonly stallMs: Ms;
  readonly stallAt: Ms;
  /** The newest version among this node's facts. */
  readonly factVersion: number;
  /** Own facts that aren't told yet. */
  readonly factsWaiting: { readonly [name: string]: string } | undefined;
  readonly factsAt: Ms;
  readonly seeds: readonly Address[];
  /** Times that nobody answered while this node was alone. */
  readonly joinAttempts: number;
  readonly probeAt: Ms;
  readonly gossipAt: Ms;
  readonly syncAt: Ms;
  readonly rejoinAt: Ms;
  /** Until then, absentees are asked without regard to how few they are. */
  readonly hopeUntil: Ms;
  readonly careAt: Ms;
  readonly leaveAt: Ms;
  /** Comparisons that are to follow soon. */
  readonly eagerSyncs: number;
  /** Anti-entropy that was answered in the second that began at `answersAt`. */
  readonly answers: number;
  readonly answersAt: Ms;
  /** Time that this process did not run; `now` is the clock less that, as of the last step. */
  readonly lostMs: Ms;
  readonly now: Ms;
  readonly wakeAt: Ms;
};

export type Start = {
  readonly options: Options;
  readonly id: NodeId;
  readonly address: Address;
  /** Wall clock milliseconds. Anything less than before works too, after one refutation. */
  readonly incarnation: Incarnation;
  /** `checkFacts` holds. */
  readonly facts: { readonly [name: string]: string };
  readonly seeds: readonly Address[];
  readonly now: Ms;
};

/** A node that knows itself and where to ask. `random` spreads the nodes' timers. */
export function initialState(start: Start, random: Random): GossipState {
  const { options, id, address, incarnation } = start;
  const now = Math.floor(start.now);
  const checked = checkFacts(start.facts);
  assert(checked.ok, checked.ok ? "facts are within bounds" : checked.error);
  const facts = Object.keys(start.facts)
    .sort()
    .map((name): Fact => ({ name, version: incarnation, value: start.facts[name]! }));
  const self = makeMember({ id, address, incarnation, status: "alive", since: now, facts });
  const soon = (ms: Ms) => now + below(random, Math.ceil(ms));
  return {
    options,
    id,
    phase: "running",
    self,
    members: [self],
    hash: self.hash,
    presentCount: 1,
    suspicions: [],
    probes: [],
    relays: [],
    queue: [],
    rotation: [],
    rotationAt: 0,
    probeCount: 0,
    seq: below(random, 2 ** 31),
    localHealth: 0,
    stallMs: 0,
    stallAt: now,
    factVersion: incarnation,
    factsWaiting: undefined,
    factsAt: now,
    seeds: start.seeds.slice(0, SEEDS_MAX),
    joinAttempts: 0,
    probeAt: soon(options.probeMs),
    gossipAt: now,
    syncAt: soon(options.syncMs),
    rejoinAt: now,
    hopeUntil: now,
    careAt: soon(CARE_MS),
    leaveAt: Number.POSITIVE_INFINITY,
    eagerSyncs: 0,
    answers: 0,
    answersAt: now,
    lostMs: 0,
    now,
    wakeAt: now,
  };
}

/** How often what is old is looked through. */
export const CARE_MS = 10_000;

/** When to `tick` at the latest; Infinity once this node has left. */
export const deadline = (state: GossipState): Ms => state.wakeAt;

/** A member as it may be shown: the facts by name. */
export type MemberView = {
  readonly id: NodeId;
  readonly address: Address;
  readonly status: Status;
  readonly incarnation: Incarnation;
  readonly facts: { readonly [name: string]: string };
};

/** All members, sorted by id. */
export const membersOf = (state: GossipState): readonly MemberView[] => state.members.map(viewOf);

export function viewOf(member: Member): MemberView {
  const { id, address, status, incarnation } = member;
  const facts = Object.fromEntries(
    member.facts.filter((fact) => fact.value !== "").map((fact) => [fact.name, fact.value]),
  );
  return { id, address, status, incarnation, facts };
}

/** When this node has next to do something, on its own clock. */
export function nextWake(state: Omit<GossipState, "wakeAt">): Ms {
  if (state.phase === "left") return Number.POSITIVE_INFINITY;
  let at = Math.min(state.careAt, state.leaveAt);
  if (state.phase === "running") {
    at = Math.min(at, state.rejoinAt);
    if (hasPeers(state)) at = Math.min(at, state.probeAt, state.syncAt);
    if (state.factsWaiting) at = Math.min(at, state.factsAt);
  }
  if (hasPeers(state) && state.queue[0]?.isUrgent) at = Math.min(at, state.gossipAt);
  for (const probe of state.probes) at = Math.min(at, probe.dueAt);
  for (const relay of state.relays) at = Math.min(at, relay.dueAt);
  for (const suspicion of state.suspicions) at = Math.min(at, suspicion.deadAt, suspicion.pingAt);
  return at + state.lostMs;
}

/** Those whom it makes sense to ask: others that seem to be there. */
export const isPeer = (state: { readonly id: NodeId }, member: Member): boolean =>
  member.id !== state.id && isPresent(member);

/** Whether anybody else seems to be there. */
export const hasPeers = (state: Pick<GossipState, "presentCount" | "phase">): boolean =>
  state.presentCount > (state.phase === "running" ? 1 : 0);
