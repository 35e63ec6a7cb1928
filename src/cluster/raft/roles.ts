/** How a node changes its role, and what it drops when it does. */

import { assert } from "../../lib/assert.ts";
import { isVoter } from "./configuration.ts";
import { append, type Draft, send, setHardState } from "./draft.ts";
import { failReads } from "./reads.ts";
import { broadcast, followMembership, mostCaughtUp } from "./replicate.ts";
import { electionTimeout, type RaftState } from "./state.ts";
import type { PeerId, Term } from "./types.ts";

export function becomeFollower(d: Draft, term: Term, leader: PeerId | undefined): void {
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

export function becomeLeader(d: Draft): void {
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

/** Leads no more, and asks the best of the others to begin at once. */
export function giveUp(d: Draft): void {
  const heir = mostCaughtUp(d, d.now - d.options.electionMs);
  if (heir !== undefined) send(d, heir, { type: "timeout-now" });
  becomeFollower(d, d.term, undefined);
}

export function waitForElection(d: Draft): void {
  d.electionAt = d.now + electionTimeout(d.options, d.random);
}

export const isStalled = (d: Draft): boolean =>
  d.openOrders.length > 0 && d.now - d.openOrders[0]!.at >= d.options.diskStallMs;

/**
 * Whether this node may stand for election at all. One that the last configuration leaves out still may until that is known
 * to be committed: it can be the only one whose log is long enough to lead the others there (4.2.2).
 */
export function canCampaign(state: RaftState): boolean {
  return (
    state.recoverThrough === undefined && state.configurations.some(({ configuration: at }) => isVoter(at, state.id))
  );
}
