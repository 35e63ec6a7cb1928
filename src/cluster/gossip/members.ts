/** The members that a node knows: a sorted list of frozen records, copied when one changes. */
import {
  type Address,
  type Fact,
  type Incarnation,
  type Ms,
  type NodeId,
  type Rumor,
  STALL_FACT,
  STALL_MS_MAX,
  STATUSES,
  type Status,
} from "./types.ts";

export type Member = {
  readonly id: NodeId;
  readonly address: Address;
  readonly incarnation: Incarnation;
  readonly status: Status;
  /** When it took this status, as far as this node knows. */
  readonly since: Ms;
  /** Sorted by name. */
  readonly facts: readonly Fact[];
  /** How long it says that it has lately stood still; from its facts. */
  readonly stallMs: Ms;
  readonly factsHash: number;
  /** 32 bits over all that anti-entropy compares; 0 for the long dead, of whom nobody is told any more. */
  readonly hash: number;
};

/** By id; the sole order there is, so that two runs of one seed agree. */
export type Members = readonly Member[];

/** Whether (incarnation, status) `a` is later news than `b`. */
export const supersedes = (
  a: { readonly incarnation: Incarnation; readonly status: Status },
  b: { readonly incarnation: Incarnation; readonly status: Status },
): boolean => a.incarnation > b.incarnation || (a.incarnation === b.incarnation && rank(a.status) > rank(b.status));

const rank = (status: Status): number => STATUSES.indexOf(status);

/** It is, or may be, there: probed, told things, counted. */
export const isPresent = (member: Member): boolean => member.status === "alive" || member.status === "suspect";
export const isGone = (member: Member): boolean => !isPresent(member);

/** Where `id` is, or where it belongs. */
export function positionOf(members: Members, id: NodeId): number {
  let low = 0;
  let high = members.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (members[middle]!.id < id) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function findMember(members: Members, id: NodeId): Member | undefined {
  const member = members[positionOf(members, id)];
  return member?.id === id ? member : undefined;
}

/** `members` with `member` in the place of who had its id before, if anyone. */
export function withMember(members: Members, member: Member): Members {
  const at = positionOf(members, member.id);
  return members[at]?.id === member.id ? members.with(at, member) : members.toSpliced(at, 0, member);
}

export function withoutMember(members: Members, id: NodeId): Members {
  const at = positionOf(members, id);
  return members[at]?.id === id ? members.toSpliced(at, 1) : members;
}

/** Makes the record with what is derived from it. */
export function makeMember(plain: Omit<Member, "stallMs" | "factsHash" | "hash">): Member {
  const { id, address, incarnation, status, since, facts } = plain;
  let factsHash = HASH_START;
  for (const fact of facts) factsHash = mixNumber(mixText(factsHash, fact.name), fact.version);
  let hash = mixNumber(mixText(HASH_START, id), incarnation);
  hash = finish(mixNumber(mixNumber(hash, rank(status)), factsHash));
  factsHash >>>= 0;
  const stall = Number.parseInt(facts.find((fact) => fact.name === STALL_FACT)?.value ?? "", 10);
  const stallMs = Math.min(Math.max(stall || 0, 0), STALL_MS_MAX);
  return { id, address, incarnation, status, since, facts, stallMs, factsHash, hash: hash || 1 };
}

/** `known` with those of `heard` that are newer; the very same list when none is. At most `max` names. */
export function mergeFacts(known: readonly Fact[], heard: readonly Fact[], max: number): readonly Fact[] {
  let merged = known;
  for (const fact of heard) {
    let at = 0;
    while (at < merged.length && merged[at]!.name < fact.name) at++;
    const old = merged[at]?.name === fact.name ? merged[at] : undefined;
    if (old && fact.version > old.version) merged = merged.with(at, fact);
    if (!old && merged.length < max) merged = merged.toSpliced(at, 0, fact);
  }
  return merged;
}

/** As much as a message holds. */
const AGE_SECONDS_MAX = 2 ** 32 - 1;

/** What to tell of a member, with those of its facts that `names` lists, or all of them. */
export function rumorOf(
  member: Member,
  now: Ms,
  witnesses: readonly NodeId[],
  names: readonly string[] | "all",
): Rumor {
  return {
    id: member.id,
    address: member.address,
    incarnation: member.incarnation,
    status: member.status,
    witnesses: member.status === "suspect" ? witnesses : [],
    ageSeconds: isGone(member) ? Math.min(Math.ceil(Math.max(now - member.since, 0) / 1000), AGE_SECONDS_MAX) : 0,
    facts: names === "all" ? member.facts : member.facts.filter((fact) => names.includes(fact.name)),
  };
}

// FNV-1a's steps, then Murmur3's finish, since the hashes of members are combined by exclusive or.
const HASH_START = 0x811c9dc5;

function mixText(hash: number, text: string): number {
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return Math.imul(hash ^ 0xff, 0x01000193);
}

function mixNumber(hash: number, value: number): number {
  hash = Math.imul(hash ^ (value >>> 0), 0x01000193);
  return Math.imul(hash ^ Math.floor(value / 2 ** 32), 0x01000193) ^ (hash >>> 15);
}

function finish(hash: number): number {
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
