/** Elections: asking, standing, and judging those who ask (paper 5.2, 5.4.1; pre-vote after thesis 9.6). */

import { isQuorum } from "./configuration.ts";
import { configuration, type Draft, orderInMaking, send, sendWhenDurable, setHardState } from "./draft.ts";
import { lastTerm } from "./log.ts";
import { becomeFollower, becomeLeader, waitForElection } from "./roles.ts";
import type { Index, MessageOf, PeerId, Term } from "./types.ts";

export function preCampaign(d: Draft): void {
  // Asking first costs a round trip and disturbs nobody: only who could win raises the term (9.6).
  d.role = "pre-candidate";
  d.leader = undefined;
  waitForElection(d);
  d.votes = new Map([[d.id, true]]);
  const body = { type: "pre-vote", lastIndex: d.log.last, lastTerm: lastTerm(d.log) } as const;
  for (const peer of otherVoters(d)) send(d, peer, body, d.term + 1);
  if (hasWon(d)) campaign(d, false);
}

export function campaign(d: Draft, isTransfer: boolean): void {
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

export function decideElection(d: Draft): void {
  if (hasWon(d)) becomeLeader(d);
  else if (hasLost(d)) becomeFollower(d, d.term, undefined);
}

export function onPreVote(d: Draft, message: MessageOf<"pre-vote">): void {
  const granted = canJudge(d) && message.term > d.term && isUpToDate(d, message) && !defendsLeader(d);
  // A refusal tells the own term, so that a candidate that lags catches up.
  send(d, message.from, { type: "pre-vote-reply", granted }, granted ? message.term : d.term);
}

export function onPreVoteReply(d: Draft, { from, term, granted }: MessageOf<"pre-vote-reply">): void {
  if (!granted && term > d.term) {
    becomeFollower(d, term, undefined);
    return;
  }
  if (d.role !== "pre-candidate" || (granted && term !== d.term + 1)) return;
  d.votes = new Map(d.votes).set(from, granted);
  if (hasWon(d)) campaign(d, false);
  else if (hasLost(d)) becomeFollower(d, d.term, undefined);
}

export function onVote(d: Draft, message: MessageOf<"vote">): void {
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

export function onVoteReply(d: Draft, { from, granted }: MessageOf<"vote-reply">): void {
  if (d.role !== "candidate") return;
  d.votes = new Map(d.votes).set(from, granted);
  decideElection(d);
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
