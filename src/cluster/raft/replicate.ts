/** The leader's side of replication: what to send to whom, what an answer says, and when an entry is committed. */
import { isQuorum, membersOf, reachedByQuorum } from "./configuration.ts";
import { beginRound, configuration, type Draft, send, updatePeer } from "./draft.ts";
import { lastWithin, slice, termAt } from "./log.ts";
import type { Progress } from "./state.ts";
import type { Entry, Index, MessageOf, PeerId } from "./types.ts";

export const freshProgress = (d: Draft): Progress => ({
  match: 0,
  next: d.log.last + 1,
  mode: "probe",
  probing: false,
  fetching: false,
  inflight: [],
  inflightBytes: 0,
  commitSent: 0,
  heardAt: d.now,
  round: 0,
  refusedBefore: 0,
});

/** Keeps what is known of members that stay, forgets those that left, begins with those that came. */
export function followMembership(d: Draft): void {
  const peers = new Map<PeerId, Progress>();
  for (const peer of membersOf(configuration(d))) {
    if (peer !== d.id) peers.set(peer, d.peers.get(peer) ?? freshProgress(d));
  }
  d.peers = peers;
}

/** To every peer, what it lacks; with `always`, at least an empty message. */
export function broadcast(d: Draft, always: boolean): void {
  for (const peer of d.peers.keys()) sendAppends(d, peer, always);
}

/** Sends entries that the peer lacks, as far as its window is open; nothing to say is left unsaid unless `always`. */
export function sendAppends(d: Draft, peer: PeerId, always: boolean): void {
  const { options } = d;
  for (let isFirst = true; ; isFirst = false) {
    const progress = d.peers.get(peer)!;
    const prevIndex = progress.next - 1;
    const prevTerm = termAt(d.log, prevIndex);
    const open =
      progress.mode === "replicate"
        ? progress.inflight.length < options.inflightMax && progress.inflightBytes < options.inflightBytesMax
        : progress.mode === "probe" && !progress.probing;
    // A window that is full of what was lost never opens; once the log has forgotten where it ends, no probe can tell.
    const isHopeless = prevTerm === undefined && progress.mode === "replicate" && always;
    if (progress.mode === "snapshot" || (prevTerm === undefined && !open && !isHopeless)) {
      // Nothing of the log can be said to it yet, but it shall know that there is a leader.
      if (always && isFirst) sendAppend(d, peer, 0, 0, []);
      return;
    }
    if (prevTerm === undefined) {
      startSnapshot(d, peer, always);
      return;
    }
    let entries: readonly Entry[] = [];
    if (open && !progress.fetching && progress.next <= d.log.last) {
      const found = slice(d.log, progress.next, d.log.last, options.messageBytesMax);
      if (found) entries = found;
      else {
        d.out.fetch.push({ to: peer, from: progress.next, through: d.log.last });
        updatePeer(d, peer, { fetching: true });
      }
    }
    const canTell = Math.min(d.commit, prevIndex);
    const hasNews = entries.length > 0 || (progress.mode === "replicate" && progress.commitSent < canTell);
    if (!hasNews && !(always && isFirst) && !(progress.mode === "probe" && open)) return;
    sendAppend(d, peer, prevIndex, prevTerm, entries);
    noteSent(d, peer, entries);
    if (entries.length === 0 || d.peers.get(peer)!.mode === "probe") return;
  }
}

function sendAppend(d: Draft, to: PeerId, prevIndex: Index, prevTerm: number, entries: readonly Entry[]): void {
  send(d, to, { type: "append", prevIndex, prevTerm, entries, commit: d.commit, round: d.round });
}

function noteSent(d: Draft, peer: PeerId, entries: readonly Entry[]): void {
  const progress = d.peers.get(peer)!;
  const told = Math.max(progress.commitSent, Math.min(d.commit, progress.next - 1 + entries.length));
  if (progress.mode === "probe") {
    updatePeer(d, peer, { probing: true });
    return;
  }
  if (entries.length === 0) {
    updatePeer(d, peer, { commitSent: told });
    return;
  }
  const bytes = entries.reduce((sum, { data }) => sum + data.length, 0);
  const last = progress.next + entries.length - 1;
  updatePeer(d, peer, {
    commitSent: told,
    next: last + 1,
    inflight: [...progress.inflight, { last, bytes }],
    inflightBytes: progress.inflightBytes + bytes,
  });
}

function startSnapshot(d: Draft, peer: PeerId, always: boolean): void {
  updatePeer(d, peer, { mode: "snapshot", probing: false, fetching: false, inflight: [], inflightBytes: 0 });
  d.out.snapshots.push(peer);
  if (always) sendAppend(d, peer, 0, 0, []);
}

/** Entries that were read from the files for a peer. What changed meanwhile makes them useless, never wrong. */
export function onFetched(d: Draft, peer: PeerId, entries: readonly Entry[]): void {
  const progress = d.peers.get(peer);
  if (!progress?.fetching) return;
  updatePeer(d, peer, { fetching: false });
  const first = entries[0];
  if (!first) {
    startSnapshot(d, peer, false);
    return;
  }
  if (progress.mode === "snapshot" || first.index !== progress.next) return;
  const fits = entries.every((entry) => termAt(d.log, entry.index) === entry.term);
  const prevTerm = termAt(d.log, first.index - 1);
  if (!fits || prevTerm === undefined) return;
  sendAppend(d, peer, first.index - 1, prevTerm, entries);
  noteSent(d, peer, entries);
  if (d.peers.get(peer)!.mode === "replicate") sendAppends(d, peer, false);
}

export function onAppendReply(d: Draft, { from, match, round }: MessageOf<"append-reply">): void {
  const progress = d.peers.get(from);
  if (!progress || match > d.log.last) return;
  const inflight = progress.inflight.filter(({ last }) => last > match);
  // The log leads on from where it is now, so that it needs no snapshot, or not any more.
  const resumes = match > progress.match && match >= d.log.base.index;
  updatePeer(d, from, {
    heardAt: d.now,
    round: Math.max(progress.round, round),
    match: Math.max(progress.match, match),
    ...(progress.mode !== "snapshot" || resumes
      ? {
          mode: "replicate",
          probing: false,
          next: Math.max(progress.mode === "snapshot" ? 0 : progress.next, match + 1),
        }
      : {}),
    inflight,
    inflightBytes: inflight.reduce((sum, { bytes }) => sum + bytes, 0),
  });
}

export function onAppendRefused(d: Draft, message: MessageOf<"append-refused">): void {
  const { from, prevIndex, hintIndex, hintTerm, round } = message;
  const progress = d.peers.get(from);
  if (!progress) return;
  updatePeer(d, from, { heardAt: d.now, round: Math.max(progress.round, round) });
  // One lost message makes the peer refuse every later one of its window. The first refusal is acted on, and begins a round;
  // the others, however late, belong to rounds before. Without this, a network that reorders multiplies whole windows.
  if (progress.mode === "snapshot" || round < progress.refusedBefore) return;
  if (progress.mode === "probe" && prevIndex !== progress.next - 1) return;
  beginRound(d);
  const agreed = lastWithin(d.log, hintIndex, hintTerm)?.index ?? 0;
  updatePeer(d, from, {
    mode: "probe",
    probing: false,
    fetching: false,
    next: Math.max(1, Math.min(agreed + 1, prevIndex)),
    // It has lost what it acknowledged: its disk was damaged. It counts for what it has.
    match: Math.min(progress.match, hintIndex),
    refusedBefore: d.round,
    inflight: [],
    inflightBytes: 0,
  });
}

export function onSnapshotSent(d: Draft, peer: PeerId, index: Index | undefined): void {
  const progress = d.peers.get(peer);
  if (progress?.mode !== "snapshot") return;
  // A failed one is tried again by the next heartbeat, not at once.
  const next = index === undefined ? progress.next : Math.min(Math.max(index, progress.match), d.log.last) + 1;
  updatePeer(d, peer, { mode: "probe", probing: index === undefined, next });
}

/** What was in flight may be lost: where the logs agree has to be asked again. */
export function onUnreachable(d: Draft, peer: PeerId): void {
  const progress = d.peers.get(peer);
  if (progress?.mode !== "replicate") return;
  updatePeer(d, peer, { mode: "probe", probing: true, next: progress.match + 1, inflight: [], inflightBytes: 0 });
}

/** How far a member's log is durable, as the leader knows. */
const matchOf = (d: Draft, peer: PeerId): Index => (peer === d.id ? d.persisted : (d.peers.get(peer)?.match ?? 0));

/**
 * Commits what a quorum holds, if it is of this term: an earlier term's entry is committed only with one of this term after
 * it, however many hold it (paper 5.4.2, figure 8). True when something was.
 */
export function advanceCommit(d: Draft): boolean {
  const reached = Math.min(
    d.log.last,
    reachedByQuorum(configuration(d), (peer) => matchOf(d, peer)),
  );
  if (reached <= d.commit || termAt(d.log, reached) !== d.term) return false;
  d.commit = reached;
  return true;
}

/** Whether a quorum has been heard of since `since`. */
export const heardByQuorum = (d: Draft, since: number): boolean =>
  isQuorum(
    configuration(d),
    (peer) => peer === d.id || (d.peers.get(peer)?.heardAt ?? Number.NEGATIVE_INFINITY) >= since,
  );

/** The voter that lacks the least, of those that are alive. */
export function mostCaughtUp(d: Draft, aliveSince: number): PeerId | undefined {
  let best: PeerId | undefined;
  for (const peer of configuration(d).voters) {
    const progress = d.peers.get(peer);
    if (!progress || progress.heardAt < aliveSince) continue;
    if (best === undefined || progress.match > d.peers.get(best)!.match) best = peer;
  }
  return best;
}
