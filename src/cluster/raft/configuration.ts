/** Who decides: majorities, joint ones too, and how one configuration becomes the next (thesis, chapter 4). */
import { assert } from "../../lib/assert.ts";
import type { Configuration, ConfigurationChange, Entry, Index, PeerId } from "./types.ts";

export const VOTERS_MAX = 9;

/** An entry's kind is told by its data: none is a no-op, a leading zero byte a configuration, anything else a command. */
export function kindOf(entry: Entry): "noop" | "configuration" | "command" {
  if (entry.data.length === 0) return "noop";
  return entry.data[0] === 0 ? "configuration" : "command";
}

export function encodeConfiguration(configuration: Configuration): Uint8Array {
  return Buffer.concat([Buffer.of(0), Buffer.from(JSON.stringify(configuration))]);
}

/** @throws SyntaxError for what no version writes */
export function decodeConfiguration(data: Uint8Array): Configuration {
  assert(data[0] === 0, "a configuration entry begins with a zero byte");
  const { voters, outgoing, learners, joining } = JSON.parse(Buffer.from(data.subarray(1)).toString()) as Configuration;
  return { voters, outgoing, learners, joining };
}

/** A configuration of these voters, and nothing else. */
export const configurationOf = (voters: readonly PeerId[]): Configuration => ({
  voters: [...voters].sort(),
  outgoing: [],
  learners: [],
  joining: [],
});

export const isVoter = ({ voters, outgoing }: Configuration, peer: PeerId): boolean =>
  voters.includes(peer) || outgoing.includes(peer);

export const isJoint = ({ outgoing }: Configuration): boolean => outgoing.length > 0;

/** Everyone who receives the log. */
export function membersOf({ voters, outgoing, learners, joining }: Configuration): ReadonlySet<PeerId> {
  return new Set([...voters, ...outgoing, ...learners, ...joining]);
}

/** Whether those of whom `agrees` is true can decide. Nobody can decide in a configuration without voters. */
export function isQuorum({ voters, outgoing }: Configuration, agrees: (peer: PeerId) => boolean): boolean {
  return isMajority(voters, agrees) && (outgoing.length === 0 || isMajority(outgoing, agrees));
}

function isMajority(peers: readonly PeerId[], agrees: (peer: PeerId) => boolean): boolean {
  let count = 0;
  for (const peer of peers) if (agrees(peer)) count++;
  return count * 2 > peers.length;
}

/** The greatest value that a quorum has reached, where `reached` tells how far a peer is: an index, a round, a time. */
export function reachedByQuorum({ voters, outgoing }: Configuration, reached: (peer: PeerId) => number): number {
  const first = reachedByMajority(voters, reached);
  return outgoing.length === 0 ? first : Math.min(first, reachedByMajority(outgoing, reached));
}

function reachedByMajority(peers: readonly PeerId[], reached: (peer: PeerId) => number): number {
  if (peers.length === 0) return 0;
  const descending = peers.map(reached).sort((a, b) => b - a);
  return descending[peers.length >> 1]!;
}

/**
 * The configuration after a change: joint when more than one voter comes or goes. Undefined when the change makes no sense
 * (no voter would be left, or more than VOTERS_MAX). New voters begin as `joining` learners.
 */
export function changed(from: Configuration, change: ConfigurationChange): Configuration | undefined {
  const voters = new Set(from.voters);
  const learners = new Set(from.learners);
  const joining = new Set(from.joining);
  for (const [peer, role] of Object.entries(change)) {
    if (role === "voter" && voters.has(peer)) continue;
    voters.delete(peer);
    learners.delete(peer);
    joining.delete(peer);
    if (role === "voter") joining.add(peer);
    if (role === "learner") learners.add(peer);
  }
  if (voters.size === 0 || voters.size + joining.size > VOTERS_MAX) return undefined;
  return next(from, voters, learners, joining);
}

/** The configuration after joining learners became voters. */
export function promoted(from: Configuration, peers: readonly PeerId[]): Configuration {
  const joining = from.joining.filter((peer) => !peers.includes(peer));
  return next(from, [...from.voters, ...peers], from.learners, joining);
}

/** The configuration after a joint one: the outgoing voters have nothing to say any more. */
export const left = (from: Configuration): Configuration => ({ ...from, outgoing: [] });

function next(
  from: Configuration,
  voters: Iterable<PeerId>,
  learners: Iterable<PeerId>,
  joining: Iterable<PeerId>,
): Configuration {
  assert(!isJoint(from), "a joint configuration is left before the next change");
  const after = { voters: [...voters].sort(), learners: [...learners].sort(), joining: [...joining].sort() };
  // Majorities of two sets that differ in one member always meet; those of others need not (thesis 4.1).
  const come = after.voters.filter((peer) => !from.voters.includes(peer)).length;
  const gone = from.voters.filter((peer) => !after.voters.includes(peer)).length;
  return { ...after, outgoing: come + gone > 1 ? from.voters : [] };
}

export function sameConfiguration(a: Configuration, b: Configuration): boolean {
  return (["voters", "outgoing", "learners", "joining"] as const).every(
    (list) => a[list].length === b[list].length && a[list].every((peer, i) => peer === b[list][i]),
  );
}

/** A configuration in force from an entry on. */
export type ConfigurationAt = { readonly index: Index; readonly configuration: Configuration };
