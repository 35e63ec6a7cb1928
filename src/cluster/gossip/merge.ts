/** What a node makes of what it hears: of others, and of itself. */
import { type Draft, emit, held, removeMember, send, setMember, spread, suspicionOf } from "./draft.ts";
import { findMember, isGone, isPresent, type Member, makeMember, mergeFacts, supersedes } from "./members.ts";
import { hasPeers, type Suspicion } from "./state.ts";
import { compareSoon, hope } from "./sync.ts";
import {
  DEAD_MAX,
  FACTS_MAX,
  type Fact,
  INCARNATION_MAX,
  MEMBERS_MAX,
  type Message,
  type Ms,
  type NodeId,
  type Rumor,
  STALL_FACT,
  WITNESSES_MAX,
} from "./types.ts";

/**
 * Takes in one rumour. `isHearsay`: it is what another node happens to hold, answered in anti-entropy, and may be about a time
 * when the two did not hear each other.
 */
export function hear(d: Draft, rumor: Rumor, isHearsay: boolean): void {
  const before = findMember(d.members, rumor.id);
  if (!before) hearOfStranger(d, rumor, isHearsay);
  else if (rumor.id === d.id) hearOfSelf(d, rumor);
  else hearOfMember(d, rumor, before, isHearsay);
}

function hearOfMember(d: Draft, rumor: Rumor, before: Member, isHearsay: boolean): void {
  const facts = mergeFacts(before.facts, rumor.facts, FACTS_MAX);
  const changed = facts === before.facts ? [] : facts.filter((fact) => !before.facts.includes(fact)).map(nameOf);
  // Who is there for this node and dead for another is asked to refute it, and the others are not alarmed. A verdict counts
  // at once where its suspicion was heard before, which leaves time for an answer.
  const wasOnTrial = before.status === "suspect" && suspicionOf(d, before.id)?.isDoubt === false && !isHearsay;
  const isDoubted = rumor.status === "dead" && isPresent(before) && !wasOnTrial;
  const news = isDoubted ? ({ ...rumor, status: "suspect", witnesses: [d.id] } as const) : rumor;
  if (supersedes(news, before)) {
    const { incarnation, status } = news;
    const address = incarnation > before.incarnation ? rumor.address : before.address;
    const since = status === before.status ? before.since : d.now - rumor.ageSeconds * 1000;
    const member = makeMember({ id: rumor.id, address, incarnation, status, since, facts });
    setMember(d, member, before);
    if (status === "suspect") beginSuspicion(d, member, news.witnesses, isDoubted);
    if (before.status === "dead" && status === "alive") hope(d);
    if (!isDoubted) spread(d, member, [], true);
    if (changed.length > 0 && isPresent(member)) spread(d, member, changed, false);
  } else {
    if (changed.length > 0) {
      const member = makeMember({ ...before, facts });
      setMember(d, member, before);
      // What is held against the gone is for them alone, unless it is news.
      if (isPresent(member)) spread(d, member, changed, changed.includes(STALL_FACT));
    }
    if (news.status === "suspect" && before.status === "suspect" && news.incarnation === before.incarnation) {
      addWitnesses(d, before, rumor.witnesses);
    }
  }
  if (changed.length > 0) emit(d, { type: "facts", id: rumor.id, names: changed });
}

const nameOf = (fact: Fact): string => fact.name;

function hearOfStranger(d: Draft, rumor: Rumor, isHearsay: boolean): void {
  const isDeparted = rumor.status === "dead" || rumor.status === "left";
  // Who died long ago is being forgotten: see `care`.
  if (isDeparted && rumor.ageSeconds * 1000 > d.options.deadMemoryMs / 2) return;
  if (!makeRoom(d, isDeparted)) {
    emit(d, { type: "full", id: rumor.id });
    return;
  }
  const { id, address, incarnation, status } = rumor;
  const facts = mergeFacts([], rumor.facts, FACTS_MAX);
  const member = makeMember({ id, address, incarnation, status, since: d.now - rumor.ageSeconds * 1000, facts });
  const wasAlone = !hasPeers(d);
  setMember(d, member, undefined);
  if (status === "suspect") beginSuspicion(d, member, rumor.witnesses);
  if (facts.length > 0) emit(d, { type: "facts", id, names: facts.map(nameOf) });
  if (isDeparted) return;
  // What comes in anti-entropy comes in numbers, and is passed on in the same way: it doubles with every exchange.
  if (isHearsay) compareSoon(d);
  else {
    spread(d, member, [], true);
    if (facts.length > 0) spread(d, member, facts.map(nameOf), false);
  }
  if (wasAlone) {
    spread(d, d.self, [], true);
    spread(d, d.self, d.self.facts.map(nameOf), false);
    d.probeAt = Math.max(d.probeAt, d.now);
  }
}

/** Forgets who died or left first, when there is no room. False: everybody known is there. */
function makeRoom(d: Draft, isDeparted: boolean): boolean {
  const goneCount = d.members.length - d.presentCount - Number(d.phase !== "running");
  if (d.members.length < MEMBERS_MAX && (!isDeparted || goneCount < DEAD_MAX)) return true;
  let oldest: Member | undefined;
  for (const member of d.members) {
    if (isGone(member) && member.id !== d.id && (!oldest || member.since < oldest.since)) oldest = member;
  }
  if (oldest) removeMember(d, oldest);
  return oldest !== undefined;
}

/** The sender of a message is there, whatever the message says. */
export function meet(d: Draft, message: Message): void {
  const { from, address, incarnation } = message;
  const alive = { id: from, address, incarnation, status: "alive", witnesses: [], ageSeconds: 0, facts: [] } as const;
  const before = findMember(d.members, from);
  if (!before || supersedes(alive, before)) {
    hear(d, alive, false);
    return;
  }
  const isOutdated = incarnation < before.incarnation || before.status !== "alive";
  // Answers to answers would go to and fro.
  if (isOutdated && message.type !== "gossip") {
    send(d, address, from, { type: "gossip" }, [held(d, before, [])]);
  }
}

/** Somebody is believed about this node what it knows better. */
function hearOfSelf(d: Draft, rumor: Rumor): void {
  if (d.phase !== "running") return;
  const before = d.self;
  const { status, address, incarnation } = rumor;
  const isSomeoneElse = status === "alive" && address !== before.address && incarnation >= before.incarnation;
  if (isSomeoneElse) emit(d, { type: "conflict", address });
  const isLater = incarnation > before.incarnation || (incarnation === before.incarnation && status !== "alive");
  if ((isLater || isSomeoneElse) && incarnation < INCARNATION_MAX) {
    const self = makeMember({ ...before, incarnation: incarnation + 1 });
    setMember(d, self, before);
    spread(d, self, [], true);
    emit(d, { type: "refuted", accusation: status, incarnation: self.incarnation });
    if (status === "suspect" || status === "dead") ailing(d, 1);
  }
  takeBackFacts(d, rumor.facts);
}

/** Facts of an earlier life whose versions are above this life's would shadow them. */
function takeBackFacts(d: Draft, heard: readonly Fact[]): void {
  const before = d.self;
  const stale = heard.filter((fact) => {
    const own = before.facts.find((other) => other.name === fact.name);
    if (!own) return fact.value !== "" && before.facts.length < FACTS_MAX;
    return fact.version > own.version || (fact.version === own.version && fact.value !== own.value);
  });
  const version = stale.reduce((max, fact) => Math.max(max, fact.version), d.factVersion);
  if (stale.length === 0 || version >= INCARNATION_MAX - FACTS_MAX) return;
  d.factVersion = version;
  const values = Object.fromEntries(stale.map((fact) => [fact.name, ""]));
  for (const fact of before.facts) values[fact.name] = fact.value;
  setOwnFacts(d, values, false);
}

/** Says something new of this node. */
export function setOwnFacts(d: Draft, values: { readonly [name: string]: string }, isUrgent: boolean): void {
  const before = d.self;
  const names = Object.keys(values).sort();
  const told = names.map((name): Fact => ({ name, version: ++d.factVersion, value: values[name]! }));
  const self = makeMember({ ...before, facts: mergeFacts(before.facts, told, FACTS_MAX) });
  setMember(d, self, before);
  spread(d, self, names, isUrgent);
}

/** This node's own health is in doubt (or less so): Lifeguard's local health multiplier. */
export function ailing(d: Draft, by: number): void {
  d.localHealth = Math.min(Math.max(d.localHealth + by, 0), d.options.localHealthMax);
}

/** This node and `witnesses` could not reach the member. */
export function suspect(d: Draft, id: NodeId, witnesses: readonly NodeId[]): void {
  const before = findMember(d.members, id);
  if (before?.status === "suspect") addWitnesses(d, before, witnesses);
  if (before?.status !== "alive") return;
  const member = makeMember({ ...before, status: "suspect", since: d.now });
  setMember(d, member, before);
  beginSuspicion(d, member, witnesses.slice(0, WITNESSES_MAX));
  spread(d, member, [], true);
}

/** `isDoubt`: not for want of an answer, but for another node's verdict. */
function beginSuspicion(d: Draft, { id, stallMs }: Member, witnesses: readonly NodeId[], isDoubt = false): void {
  d.suspicions = [...d.suspicions, suspicion(d, { id, startedAt: d.now, witnesses, isDoubt }, stallMs)];
}

/**
 * A witness asks its suspect again at once, and whoever has it from others in the second half of the time: a refutation that
 * did not come through must not cost a life.
 */
function suspicion(d: Draft, plain: Omit<Suspicion, "deadAt" | "pingAt">, stallMs: Ms): Suspicion {
  const { startedAt, witnesses, isDoubt } = plain;
  const ms = suspicionMs(d, stallMs, isDoubt ? WITNESSES_MAX : witnesses.length);
  const pingAt = witnesses.includes(d.id) ? d.now : Math.max(d.now, startedAt + (ms >> 1));
  return { ...plain, deadAt: startedAt + ms, pingAt };
}

/** More nodes found it unreachable, so the time it has to refute is less. */
function addWitnesses(d: Draft, { id, stallMs }: Member, heard: readonly NodeId[]): void {
  const old = suspicionOf(d, id);
  if (!old) return;
  const more = heard.filter((witness) => !old.witnesses.includes(witness));
  const witnesses = [...old.witnesses, ...more].slice(0, WITNESSES_MAX);
  if (witnesses.length === old.witnesses.length) return;
  const next = suspicion(d, { ...old, witnesses }, stallMs);
  d.suspicions = d.suspicions.map((other) => (other === old ? next : other));
  spread(d, findMember(d.members, id)!, [], true);
}

/** After a pause nothing counts that was waited for: every suspicion starts over. */
export function restartSuspicions(d: Draft): void {
  d.suspicions = d.suspicions.map((old) =>
    suspicion(d, { ...old, startedAt: d.now }, findMember(d.members, old.id)?.stallMs ?? 0),
  );
}

/**
 * How long a suspect has to refute: Lifeguard's time, which falls from the longest to the shortest with the logarithm of the
 * confirmations, and half as much again as the member has announced to stand still at times.
 */
function suspicionMs(d: Draft, stallMs: Ms, witnessCount: number): Ms {
  const { suspicionMs: base, suspicionDecadeMs, suspicionFactor, confirmations } = d.options;
  const shortest = base + suspicionDecadeMs * Math.log10(Math.max(d.presentCount, 1));
  // In a small cluster there is hardly anybody who could confirm.
  const wanted = Math.min(confirmations, d.presentCount - 2);
  const confirmed = wanted < 1 ? 1 : Math.min(Math.log(Math.max(witnessCount, 1)) / Math.log(wanted + 1), 1);
  return Math.round(shortest * (suspicionFactor - (suspicionFactor - 1) * confirmed) + 1.5 * stallMs);
}
