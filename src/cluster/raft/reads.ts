/**
 * Linearizable reads without writing to the log (thesis 6.4). A read may be served at the leader's commit index once a
 * majority confirmed, after the read was asked, that it still follows this leader. One round of messages confirms every read
 * that waited when it began; those that come meanwhile share the next one.
 */
import { isQuorum, reachedByQuorum } from "./configuration.ts";
import { beginRound, configuration, type Draft, send } from "./draft.ts";
import { broadcast } from "./replicate.ts";
import type { WaitingRead } from "./state.ts";
import type { Index } from "./types.ts";

/** More than this are refused: whoever asks for a read should gather its own first. */
const WAITING_READS_MAX = 1024;

export function askRead(d: Draft, read: WaitingRead): void {
  if (d.waitingReads.length >= WAITING_READS_MAX) {
    answerRead(d, read, undefined);
    return;
  }
  d.waitingReads = [...d.waitingReads, read];
  serveReads(d);
}

/** Begins the next round, or serves at once what needs none. To be called whenever one of the conditions may be met. */
export function serveReads(d: Draft): void {
  // Before an entry of its own term is committed, a leader may not know what is (thesis 6.4, step 1).
  if (d.waitingReads.length === 0 || d.commit < d.ownFirst) return;
  if (isQuorum(configuration(d), (peer) => peer === d.id) || hasLease(d)) {
    for (const read of d.waitingReads) answerRead(d, read, d.commit);
    d.waitingReads = [];
    return;
  }
  if (d.roundReads) return;
  beginRound(d);
  d.roundReads = { round: d.round, index: d.commit, reads: d.waitingReads };
  d.waitingReads = [];
  broadcast(d, true);
}

/** An answer came: serves the reads of a round that a quorum has answered. */
export function confirmReads(d: Draft): void {
  const { roundReads } = d;
  if (!roundReads) return;
  const hasAnswered = (peer: string) => peer === d.id || (d.peers.get(peer)?.round ?? 0) >= roundReads.round;
  if (!isQuorum(configuration(d), hasAnswered)) return;
  d.roundReads = undefined;
  for (const read of roundReads.reads) answerRead(d, read, roundReads.index);
  serveReads(d);
}

/** This node leads no more, or never did: nothing that waits can be confirmed. */
export function failReads(d: Draft): void {
  for (const read of [...(d.roundReads?.reads ?? []), ...d.waitingReads]) answerRead(d, read, undefined);
  d.roundReads = undefined;
  d.waitingReads = [];
}

function answerRead(d: Draft, { id, from }: WaitingRead, index: Index | undefined): void {
  if (from === undefined) d.out.reads.push({ id, index });
  else send(d, from, { type: "read-reply", id, index });
}

/**
 * Whether no other leader can have been elected yet: a majority answered a round that began less than electionMs ago, and
 * none of them votes for another within electionMs of hearing from this one (unless this one asks for it: no lease then).
 */
function hasLease(d: Draft): boolean {
  const { leaseDrift, electionMs } = d.options;
  if (leaseDrift === undefined || d.transfer || d.hasNamedHeir) return false;
  // A round whose beginning is forgotten, or that never was, proves nothing.
  const startOf = (round: number) =>
    d.roundStarts.find((start) => start.round === round)?.at ?? Number.NEGATIVE_INFINITY;
  const since = reachedByQuorum(configuration(d), (peer) =>
    peer === d.id ? d.now : startOf(d.peers.get(peer)?.round ?? 0),
  );
  return d.now - since < electionMs / (1 + leaseDrift);
}
