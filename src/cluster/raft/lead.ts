/** What a leader does beyond replication: proposals, its own end, changes of the configuration, transfers. */

import { assert } from "../../lib/assert.ts";
import { changed, encodeConfiguration, isJoint, kindOf, left, promoted, sameConfiguration } from "./configuration.ts";
import { append, beginRound, commitUpTo, configuration, type Draft, send } from "./draft.ts";
import { confirmReads, serveReads } from "./reads.ts";
import {
  advanceCommit,
  broadcast,
  followMembership,
  heardByQuorum,
  mostCaughtUp,
  onAppendRefused,
  onAppendReply,
  sendAppends,
} from "./replicate.ts";
import { becomeFollower, giveUp, isStalled } from "./roles.ts";
import type {
  Configuration,
  ConfigurationChange,
  Entry,
  Index,
  MessageOf,
  PeerId,
  ProposalRefusal,
  Term,
} from "./types.ts";

export function leaderTick(d: Draft): void {
  const { electionMs, heartbeatMs } = d.options;
  if (d.now >= d.quorumCheckAt) {
    // Check-quorum (6.2): a leader that is cut off stops answering instead of keeping clients waiting.
    if (!heardByQuorum(d, d.now - electionMs)) {
      becomeFollower(d, d.term, undefined);
      return;
    }
    d.quorumCheckAt = d.now + electionMs;
  }
  if (isStalled(d) && d.peers.size > 0) {
    // It can still talk and looks alive, but can't make anything durable: somebody else has to lead.
    giveUp(d);
    return;
  }
  if (d.transfer && d.now >= d.transfer.until) {
    d.transfer = undefined;
    const { held } = d;
    d.held = [];
    if (held.length > 0) propose(d, d.term, held);
  }
  if (d.now >= d.heartbeatAt) {
    d.heartbeatAt = d.now + heartbeatMs;
    if (d.options.leaseDrift !== undefined) beginRound(d);
    broadcast(d, true);
  }
}

export function propose(d: Draft, term: Term, commands: readonly Uint8Array[]): void {
  if (d.role !== "leader" || d.term !== term) return;
  if (d.transfer) {
    // The heir has to catch up with a log that stands still.
    d.held = [...d.held, ...commands];
    return;
  }
  let index = d.log.last;
  const entries = commands.map((data): Entry => ({ index: ++index, term, data }));
  for (const entry of entries) assert(kindOf(entry) === "command", "a command looks like one");
  append(d, entries);
  broadcast(d, false);
}

export function onAnswer(d: Draft, message: MessageOf<"append-reply"> | MessageOf<"append-refused">): void {
  if (message.type === "append-reply") onAppendReply(d, message);
  else onAppendRefused(d, message);
  confirmReads(d);
}

export function sendToPeer(d: Draft, peer: PeerId, always: boolean): void {
  if (d.role === "leader" && d.peers.has(peer)) sendAppends(d, peer, always);
}

/** What may follow from anything that a leader learnt: commits, what hangs on them, promotions, a transfer's last word. */
export function leaderChores(d: Draft, heardFrom: PeerId | undefined): void {
  if (!advanceCommit(d)) {
    // Its answer may have opened its window.
    if (heardFrom !== undefined) sendToPeer(d, heardFrom, false);
  } else {
    commitUpTo(d, d.commit);
    broadcast(d, false);
    // With fewer members, what answered already may be a quorum, and nobody else be there to answer.
    confirmReads(d);
    serveReads(d);
    if (d.configurations.length === 1 && afterConfiguration(d)) return;
  }
  promoteJoining(d);
  finishTransfer(d);
}

/** The configuration in force is committed: a joint one is left, and a leader that it leaves out goes (4.2.2). */
function afterConfiguration(d: Draft): boolean {
  const current = configuration(d);
  if (isJoint(current)) {
    appendConfiguration(d, left(current));
    return false;
  }
  if (current.voters.includes(d.id)) return false;
  giveUp(d);
  return true;
}

function appendConfiguration(d: Draft, next: Configuration): Index {
  const index = d.log.last + 1;
  append(d, [{ index, term: d.term, data: encodeConfiguration(next) }]);
  followMembership(d);
  broadcast(d, false);
  return index;
}

/** One change at a time, and none before an entry of the own term is committed (the erratum to 4.1). */
const canChange = (d: Draft): boolean =>
  d.configurations.length === 1 && !isJoint(configuration(d)) && d.commit >= d.ownFirst && !d.transfer;

export function changeConfiguration(d: Draft, change: ConfigurationChange): Index | ProposalRefusal {
  if (d.role !== "leader") return "not-leader";
  if (d.commit < d.ownFirst) return "not-ready";
  if (!canChange(d)) return "change-pending";
  const current = configuration(d);
  const next = changed(current, change);
  if (!next) return "invalid";
  return sameConfiguration(current, next) ? d.configurations[0]!.index : appendConfiguration(d, next);
}

/** A learner becomes a voter once it would not hold up commits (4.2.1). */
function promoteJoining(d: Draft): void {
  const { joining } = configuration(d);
  if (joining.length === 0 || !canChange(d)) return;
  const alive = d.now - d.options.electionMs;
  const ready = joining.filter((peer) => {
    const progress = d.peers.get(peer);
    return (
      progress?.mode === "replicate" &&
      progress.heardAt >= alive &&
      progress.match + d.options.catchUpEntries >= d.log.last
    );
  });
  if (ready.length > 0) appendConfiguration(d, promoted(configuration(d), ready));
}

export function transfer(d: Draft, wanted: PeerId | undefined): void {
  if (d.role !== "leader" || d.transfer) return;
  const to = wanted ?? mostCaughtUp(d, d.now - d.options.electionMs);
  if (to === undefined || to === d.id || !configuration(d).voters.includes(to)) return;
  d.transfer = { to, until: d.now + d.options.electionMs, isSent: false };
  sendToPeer(d, to, false);
}

function finishTransfer(d: Draft): void {
  if (!d.transfer || d.transfer.isSent || d.peers.get(d.transfer.to)?.match !== d.log.last) return;
  send(d, d.transfer.to, { type: "timeout-now" });
  d.transfer = { ...d.transfer, isSent: true };
  d.hasNamedHeir = true;
}
