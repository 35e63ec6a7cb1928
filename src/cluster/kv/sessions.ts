/**
 * Client sessions (Ongaro's thesis, 6.3): what makes a transaction that a node sends again, because it heard no answer,
 * happen once. A node that forwards transactions registers a session through the log and numbers them within it; the
 * replicated state remembers which numbers were carried out, as long as the client may still ask.
 *
 * A session's id is its place in the order of registrations, so it is never given twice: one that expired can't come back
 * without its memory. Sessions expire by order of use in the log, the one that was used longest ago first, so that every
 * node forgets the same one at the same entry. No clock has a say.
 *
 * Commands that a leader decides itself need none of this: the log tells what became of them (`Sequencer`).
 */
import { assert } from "../../lib/assert.ts";
import { emptyMap, fromSorted, getFrom, type SortedMap, scan, withKey, withoutKey } from "./sorted-map.ts";

export type SessionId = number;

/** Which transaction of which session a command carries out. */
export type SessionTag = {
  readonly session: SessionId;
  /** Counts the session's transactions from 1. */
  readonly number: number;
  /** The client has its answer, or no longer waits for it, to everything below. At most `number`. */
  readonly low: number;
};

export type Session = {
  readonly id: SessionId;
  readonly low: number;
  /** Numbers from `low` on that were carried out, as ranges in ascending order: first, last, first, last … */
  readonly done: readonly number[];
  /** `Sessions.uses` when it was last used. (The name is the sorted map's.) */
  readonly modRevision: number;
};

export type Sessions = {
  readonly nextId: SessionId;
  /** Counts registrations and uses. */
  readonly uses: number;
  readonly byId: SortedMap<Session>;
};

/** Each life of a node that forwards takes one; more than this many nodes at once would keep each other from forwarding. */
export const SESSIONS_MAX = 1024;
/** A client has at most this many transactions under way, from its lowest to its highest number. */
export const SESSION_WINDOW = 16_384;

export const NO_SESSIONS: Sessions = { nextId: 1, uses: 0, byId: emptyMap() };

/** The session with the next id. */
export function register(sessions: Sessions): Sessions {
  const id = sessions.nextId;
  const uses = sessions.uses + 1;
  let { byId } = sessions;
  if (byId.count >= SESSIONS_MAX) {
    const oldest = scan(byId).reduce((a, b) => (a.modRevision < b.modRevision ? a : b));
    byId = withoutKey(byId, keyOf(oldest.id));
  }
  const session: Session = { id, low: 1, done: [], modRevision: uses };
  return { nextId: id + 1, uses, byId: withKey(byId, keyOf(id), session) };
}

/**
 * What is known of a transaction.
 *   new      it was not carried out
 *   done     it was
 *   stale    the client no longer asks: this comes late, and must do nothing
 *   expired  its session is forgotten, and with it whether the transaction was carried out
 *   beyond   the client has too many under way
 */
export function lookUp(sessions: Sessions, tag: SessionTag): "new" | "done" | "stale" | "expired" | "beyond" {
  const session = getFrom(sessions.byId, keyOf(tag.session));
  if (!session) return "expired";
  if (tag.number < session.low) return "stale";
  if (tag.number >= Math.max(session.low, tag.low) + SESSION_WINDOW) return "beyond";
  for (let i = session.done.length - 2; i >= 0; i -= 2) {
    if (tag.number >= session.done[i]!) return tag.number <= session.done[i + 1]! ? "done" : "new";
  }
  return "new";
}

/** The sessions once the transaction was carried out. */
export function record(sessions: Sessions, tag: SessionTag): Sessions {
  assert(lookUp(sessions, tag) === "new", "a session's transaction is carried out once");
  assert(tag.low <= tag.number, "what is under way is not answered yet");
  const session = getFrom(sessions.byId, keyOf(tag.session))!;
  const uses = sessions.uses + 1;
  const low = Math.max(session.low, tag.low);
  const next: Session = { id: session.id, low, done: withNumber(session.done, tag.number, low), modRevision: uses };
  return { nextId: sessions.nextId, uses, byId: withKey(sessions.byId, keyOf(tag.session), next) };
}

/** Ranges with one number more, and without what is below `low`. */
function withNumber(ranges: readonly number[], number: number, low: number): readonly number[] {
  const out: number[] = [];
  let first = number;
  let last = number;
  let isIn = false;
  const putIn = () => {
    out.push(first, last);
    isIn = true;
  };
  for (let i = 0; i < ranges.length; i += 2) {
    const from = Math.max(ranges[i]!, low);
    const to = ranges[i + 1]!;
    if (to < from) continue;
    if (to + 1 < first) out.push(from, to);
    else if (from > last + 1) {
      if (!isIn) putIn();
      out.push(from, to);
    } else {
      first = Math.min(first, from);
      last = Math.max(last, to);
    }
  }
  if (!isIn) putIn();
  return out;
}

/** A session as a row of a snapshot. */
export type SessionRow = readonly [id: SessionId, low: number, lastUse: number, done: readonly number[]];

export const sessionRows = (sessions: Sessions): SessionRow[] =>
  scan(sessions.byId).map(({ id, low, modRevision, done }) => [id, low, modRevision, done]);

export function sessionsOf(nextId: SessionId, uses: number, rows: readonly SessionRow[]): Sessions {
  const all = rows.map(([id, low, modRevision, done]): Session => ({ id, low, done, modRevision }));
  return {
    nextId,
    uses,
    byId: fromSorted(
      all.map(({ id }) => keyOf(id)),
      all,
    ),
  };
}

/** Keys of the map ascend as the ids do. */
const keyOf = (id: SessionId): string => id.toString(36).padStart(11, "0");
