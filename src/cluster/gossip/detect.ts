/** SWIM's failure detector: probes, probes by proxy, and suspicions that end in a verdict. */
import { present } from "../../lib/assert.ts";
import { jittered, shuffled } from "./chance.ts";
import { type Draft, nextSeq, send, setMember, somePeers, spread } from "./draft.ts";
import { findMember, isPresent, type Member, makeMember, positionOf } from "./members.ts";
import { ailing, suspect } from "./merge.ts";
import { isPeer, type Probe, type Relay, type Suspicion } from "./state.ts";
import type { Message, Ms, NodeId } from "./types.ts";

/** Probes of this node under way; more than these wait for the next period. */
const PROBES_MAX = 16;
/** Pings for others under way; asked for more, a node stays silent. */
const RELAYS_MAX = 64;

/** Begins the probe of this period. */
export function startProbe(d: Draft): void {
  d.probeAt = d.now + jittered(d.turn.random, d.options.probeMs * stretch(d));
  if (d.probes.length >= PROBES_MAX) return;
  d.probeCount++;
  const target = d.probeCount % 2 === 0 ? nextNeighbour(d) : nextInRotation(d);
  if (!target) return;
  const seq = nextSeq(d);
  const dueAt = d.now + d.options.probeTimeoutMs * stretch(d);
  d.probes = [...d.probes, { seq, target: target.id, dueAt, isIndirect: false, asked: 0, nacks: [] }];
  send(d, target.address, target.id, { type: "ping", seq, to: target.id });
}

/** Lifeguard: whoever has reason to doubt itself is slower to judge others. */
const stretch = (d: Draft): number => d.localHealth + 1;

const isProbed = (d: Draft, id: NodeId): boolean => d.probes.some((probe) => probe.target === id);

/**
 * The next in the ring of those that nobody suspects: every member is some member's neighbour, so none waits for long. Who has
 * announced stalls is no good watcher: whoever watches it watches its neighbour too.
 */
function nextNeighbour(d: Draft): Member | undefined {
  const { members } = d;
  const own = positionOf(members, d.id);
  const watched: Member[] = [];
  for (let i = 1; i < members.length && watched.length < WATCHED_MAX; i++) {
    const member = members[(own + i) % members.length]!;
    if (member.status !== "alive") continue;
    watched.push(member);
    if (member.stallMs === 0) break;
  }
  const turn = d.probeCount >> 1;
  const inTurn = watched.map((_, i) => watched[(turn + i) % watched.length]!);
  return inTurn.find((member) => !isProbed(d, member.id));
}
const WATCHED_MAX = 3;

/** Everybody once a round, in an order that is shuffled anew each round (SWIM, section 4.3). */
function nextInRotation(d: Draft): Member | undefined {
  for (let round = 0; round < 2; round++) {
    while (d.rotationAt < d.rotation.length) {
      const member = findMember(d.members, d.rotation[d.rotationAt++]!);
      if (member && isPeer(d, member) && !isProbed(d, member.id)) return member;
    }
    d.rotation = shuffled(
      d.turn.random,
      d.members.filter((member) => isPeer(d, member)).map((member) => member.id),
    );
    d.rotationAt = 0;
  }
  return undefined;
}

/** No ack so far: ask proxies, or give up. */
export function probeDue(d: Draft, probe: Probe): void {
  d.probes = d.probes.filter((other) => other !== probe);
  const target = findMember(d.members, probe.target);
  if (!target || !isPresent(target)) return;
  if (probe.isIndirect) {
    // Proxies that said nothing at all are a sign that it is this node that hears badly.
    ailing(d, probe.asked > 0 ? probe.asked - probe.nacks.length : 1);
    suspect(d, target.id, [d.id, ...probe.nacks]);
    return;
  }
  const proxies = somePeers(d, d.options.proxies, (member) => member.status === "alive" && member.id !== target.id);
  const dueAt = d.now + d.options.indirectTimeoutMs * stretch(d) + target.stallMs;
  d.probes = [...d.probes, { ...probe, dueAt, isIndirect: true, asked: proxies.length }];
  const { seq } = probe;
  send(d, target.address, target.id, { type: "ping", seq, to: target.id });
  for (const proxy of proxies) {
    const request = { type: "ping-request", seq, target: target.id, targetAddress: target.address } as const;
    send(d, proxy.address, proxy.id, request);
  }
}

export function onPing(d: Draft, message: Message & { readonly type: "ping" }): void {
  if (message.to === d.id) send(d, message.address, message.from, { type: "ack", seq: message.seq });
}

export function onPingRequest(d: Draft, message: Message & { readonly type: "ping-request" }): void {
  if (d.relays.length >= RELAYS_MAX) return;
  const seq = nextSeq(d);
  const dueAt = d.now + d.options.probeTimeoutMs;
  d.relays = [...d.relays, { seq, origin: message.address, originSeq: message.seq, dueAt, isNacked: false }];
  send(d, message.targetAddress, message.target, { type: "ping", seq, to: message.target });
}

/** The answer to a probe, directly or by proxy; or to a proxy's ping, which passes it on. */
export function onAck(d: Draft, seq: number): void {
  const probe = d.probes.find((other) => other.seq === seq);
  if (probe) {
    d.probes = d.probes.filter((other) => other !== probe);
    ailing(d, -1);
    return;
  }
  const relay = d.relays.find((other) => other.seq === seq);
  if (!relay) return;
  d.relays = d.relays.filter((other) => other !== relay);
  send(d, relay.origin, undefined, { type: "ack", seq: relay.originSeq });
}

export function onNack(d: Draft, seq: number, from: NodeId): void {
  d.probes = d.probes.map((probe) =>
    probe.seq === seq && probe.nacks.length < probe.asked && !probe.nacks.includes(from)
      ? { ...probe, nacks: [...probe.nacks, from] }
      : probe,
  );
}

/** How long a late ack is still passed on. */
const RELAY_MS: Ms = 5000;

export function relayDue(d: Draft, relay: Relay): void {
  d.relays = d.relays.filter((other) => other !== relay);
  if (relay.isNacked) return;
  d.relays = [...d.relays, { ...relay, isNacked: true, dueAt: d.now + RELAY_MS }];
  send(d, relay.origin, undefined, { type: "nack", seq: relay.originSeq });
}

/** A witness asks its suspect again, the accusation in the ping; at the end of its time the suspect is dead. */
export function suspicionDue(d: Draft, suspicion: Suspicion): void {
  const member = present(findMember(d.members, suspicion.id), "a suspicion is about a member");
  if (suspicion.deadAt <= d.now) {
    const dead = makeMember({ ...member, status: "dead", since: d.now });
    setMember(d, dead, member);
    spread(d, dead, [], true);
    return;
  }
  const pingAt = d.now + d.options.probeMs;
  d.suspicions = d.suspicions.map((other) => (other === suspicion ? { ...suspicion, pingAt } : other));
  send(d, member.address, member.id, { type: "ping", seq: nextSeq(d), to: member.id });
}
