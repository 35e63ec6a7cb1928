/** The follower's side of replication: what it takes of its leader's log, and what it promises for it. */

import { assert } from "../../lib/assert.ts";
import { append, commitUpTo, type Draft, send, sendWhenDurable, truncate } from "./draft.ts";
import { emptyLog, lastWithin, termAt } from "./log.ts";
import { becomeFollower, waitForElection } from "./roles.ts";
import type { Entry, MessageOf, PeerId, SnapshotPoint, Term } from "./types.ts";

export function onAppend(d: Draft, message: MessageOf<"append">): void {
  const { from, prevIndex, prevTerm, entries, round } = message;
  if (message.term < d.term) {
    // Tells a leader of the past that it is one; without this, a node whose term ran ahead would never be led again.
    send(d, from, { type: "append-refused", prevIndex, hintIndex: 0, hintTerm: 0, round: 0 });
    return;
  }
  assert(d.role !== "leader", "a term has one leader");
  becomeFollower(d, d.term, from);
  d.heardLeaderAt = d.now;
  waitForElection(d);
  // What a snapshot replaced here is committed, so that it is the same there.
  const isKnown = prevIndex < d.log.base.index || termAt(d.log, prevIndex) === prevTerm;
  if (!isKnown) {
    const hint = lastWithin(d.log, prevIndex, prevTerm) ?? { index: 0, term: 0 };
    send(d, from, { type: "append-refused", prevIndex, hintIndex: hint.index, hintTerm: hint.term, round });
    return;
  }
  const last = prevIndex + entries.length;
  accept(d, entries);
  const reached = Math.min(message.commit, last);
  if (reached > d.commit) commitUpTo(d, reached);
  // A refused write is tried again at the heartbeats' pace: the leader waits for what it sent, and sends nothing new.
  if (d.mustRepeat) d.order.hardState = true;
  if (entries.length === 0) {
    // A heartbeat's answer promises no more than what is durable by now, and so needn't wait for the disk.
    send(d, from, { type: "append-reply", match: Math.min(last, d.persisted), round });
    return;
  }
  sendWhenDurable(d, from, {
    type: "append-reply",
    match: Math.max(last, Math.min(d.log.base.index, d.commit)),
    round,
  });
}

/** Takes what is new of the leader's entries; what contradicts them goes (paper 5.3). */
function accept(d: Draft, entries: readonly Entry[]): void {
  const firstNew = entries.findIndex(({ index, term }) => index > d.log.base.index && termAt(d.log, index) !== term);
  if (firstNew === -1) return;
  const fresh = entries.slice(firstNew);
  if (fresh[0]!.index <= d.log.last) truncate(d, fresh[0]!.index - 1);
  append(d, fresh);
}

export function onSnapshotReceived(d: Draft, from: PeerId, term: Term, point: SnapshotPoint): void {
  if (term < d.term || d.role === "leader") return;
  becomeFollower(d, term, from);
  if (point.index > d.commit) {
    if (termAt(d.log, point.index) === point.term) {
      commitUpTo(d, point.index);
    } else {
      d.log = emptyLog(point);
      d.commit = point.index;
      d.configurations = [{ index: point.index, configuration: point.configuration }];
      d.persisted = 0;
      d.openOrders = d.openOrders.map((open) => ({ ...open, last: 0 }));
      d.order.restart = point;
    }
  }
  sendWhenDurable(d, from, { type: "append-reply", match: Math.min(point.index, d.log.last), round: 0 });
}
