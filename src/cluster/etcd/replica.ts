/**
 * What a node knows of a cloud in etcd, and how it follows it: pure functions of etcd's answers.
 *
 * The commits form a chain: each writes `head`, on the condition that nobody has since the head that it was decided on. So
 * they have one order, the same for all nodes, and what etcd shows at any revision is the state after some commit. A
 * follower applies, for each new head, the rows that were written with it, and checks the chain as it goes: the head
 * names its predecessor and counts its rows. Keys that change without a head say nothing new (a staged commit is
 * copied to its own keys, see etcd-store.ts) and leave the state alone.
 */
import { fail, ok, type Result } from "../../lib/result.ts";
import type { LeaseId, Revision } from "../../model/store.ts";
import { buildState } from "../kv/build-state.ts";
import type { Schema } from "../kv/schema.ts";
import { emptyMap, getFrom, withKey, withoutKey } from "../kv/sorted-map.ts";
import { emptyState, type KeyChange, type KeyValue, reindex, type State } from "../kv/state.ts";
import { Assembly } from "./assemble.ts";
import type { EtcdRevision } from "./etcd-client.ts";
import type { EtcdKeyValue } from "./gateway-json.ts";
import {
  crcOf,
  HEAD_KEY,
  type Head,
  isContent,
  meaningOf,
  type Row,
  readChunk,
  readHead,
  STAGED,
  stagedKey,
} from "./layout.ts";
import { damaged, gap, noSuchLease, type Trouble } from "./trouble.ts";

export type Replica = {
  readonly state: State;
  /** The etcd revision of the head that this is the state of; 0 while there is none. */
  readonly position: number;
  readonly head: Head | undefined;
  /** Rows of the newest commit that are not at their own keys yet. No other commit may come before they are. */
  readonly unsettled: readonly (readonly Row[])[];
  /** Chunks of commits that may come, by key. */
  readonly staged: ReadonlyMap<string, readonly Row[]>;
  /** The position of each lease's last keep-alive. */
  readonly renewals: ReadonlyMap<LeaseId, number>;
};

export const emptyReplica = (schema: Schema): Replica => ({
  state: emptyState(schema),
  position: 0,
  head: undefined,
  unsettled: [],
  staged: new Map(),
  renewals: new Map(),
});

/** What one commit does, each key and each lease once. */
export type Delta = {
  /** Records as they are from then on; undefined: gone. */
  readonly entries: ReadonlyMap<string, KeyValue | undefined>;
  /** Leases that are granted or kept alive, with their time to live. */
  readonly renewed: ReadonlyMap<LeaseId, number>;
  readonly ended: readonly LeaseId[];
};
const NOTHING: Delta = { entries: new Map(), renewed: new Map(), ended: [] };

/** What a revision did. One commit makes several where several decisions were committed together. */
export type RevisionChanges = {
  readonly revision: Revision;
  readonly changes: readonly KeyChange[];
  /** Of what was written. */
  readonly bytes: number;
};
export type Followed = {
  readonly replica: Replica;
  readonly events: readonly RevisionChanges[];
  readonly delta: Delta;
};

/** One commit makes no more revisions than this. */
const REVISIONS_MAX = 1024;

/** The replica after one etcd revision. Keys are without the cloud's prefix. */
export function follow(
  schema: Schema,
  replica: Replica,
  { revision, changes }: EtcdRevision,
): Result<Followed, Trouble> {
  const rows = changes.map(({ key, value }): Row => ({ key, text: value }));
  const headRow = rows.find(({ key }) => key === HEAD_KEY);
  if (!headRow) return stage(replica, rows);
  const head = headRow.text === undefined ? undefined : readHead(headRow.text);
  if (!head) return fail(damaged(HEAD_KEY));
  if (head.previous !== replica.position) {
    return gap(`the commit after etcd revision ${replica.position} was made on ${head.previous}`);
  }
  if (head.previousCrc !== undefined && replica.head && head.previousCrc !== crcOf(replica.head)) {
    return fail({
      kind: "restored",
      message: `the commit after etcd revision ${replica.position} was made on another one of that revision`,
    });
  }
  const chunks = head.staged ? stagedChunks(replica, head.staged) : [rows.filter(({ key }) => isContent(key))];
  const content = chunks?.flat();
  if (content?.length !== head.rows) return gap(`the commit at etcd revision ${revision} came incomplete`);
  const read = readDelta(schema, replica.state, content);
  if (!read.ok) return read;
  const made = head.revision - replica.state.revision;
  if (made < 0 || made > REVISIONS_MAX) {
    return gap(
      `the commit at etcd revision ${revision} leads from store revision ${replica.state.revision} to ${head.revision}`,
    );
  }
  const { state, changes: done } = advance(schema, replica.state, head.revision, read.value);
  return ok({
    replica: after(replica, read.value, { state, head, position: revision, unsettled: head.staged ? chunks! : [] }),
    events: eventsOf(replica.state.revision, head.revision, done, textLength(content)),
    delta: read.value,
  });
}

/** Seen from outside, all that a commit did happened at its last revision. */
function eventsOf(
  from: Revision,
  to: Revision,
  changes: readonly KeyChange[],
  bytes: number,
): readonly RevisionChanges[] {
  const events: RevisionChanges[] = [];
  for (let revision = from + 1; revision < to; revision++) events.push({ revision, changes: [], bytes: 0 });
  if (from < to) events.push({ revision: to, changes, bytes });
  return events;
}

const textLength = (rows: readonly Row[]): number => rows.reduce((sum, { text }) => sum + (text?.length ?? 0), 0);

/** The replica with a commit that was made on it. */
export function after(
  replica: Replica,
  delta: Delta,
  made: Pick<Replica, "state" | "head" | "position" | "unsettled">,
): Replica {
  let renewals = replica.renewals;
  if (delta.renewed.size > 0 || delta.ended.length > 0) {
    const next = new Map(renewals);
    for (const lease of delta.renewed.keys()) next.set(lease, made.position);
    for (const lease of delta.ended) next.delete(lease);
    renewals = next;
  }
  // What was staged on the head before can't be committed any more.
  return { ...made, renewals, staged: new Map() };
}

/** The state with a delta, at a revision, and what it did to the keys. */
function advance(
  schema: Schema,
  state: State,
  revision: Revision,
  delta: Delta,
): { readonly state: State; readonly changes: readonly KeyChange[] } {
  let leases = state.leases;
  if (delta.renewed.size > 0 || delta.ended.length > 0) {
    const next = new Map([...leases, ...delta.renewed]);
    for (const lease of delta.ended) next.delete(lease);
    leases = next;
  }
  const changes: KeyChange[] = [];
  const indexes = [...state.indexes];
  let keys = state.keys;
  for (const [key, after] of delta.entries) {
    const before = getFrom(keys, key);
    if (!before && !after) continue;
    keys = after ? withKey(keys, key, after) : withoutKey(keys, key);
    reindex(schema, indexes, key, before, after);
    changes.push({ key, ...(before && { before }), ...(after && { after }) });
  }
  return { state: { revision, keys, indexes, leases }, changes };
}

function readDelta(schema: Schema, state: State, rows: readonly Row[]): Result<Delta, Trouble> {
  const records = new Assembly(schema, state.keys, state.keys);
  const renewed = new Map<LeaseId, number>();
  const ended: LeaseId[] = [];
  for (const row of rows) {
    const meaning = meaningOf(row);
    if (meaning.kind === "other" || meaning.kind === "damaged") return fail(damaged(row.key));
    if (meaning.kind === "lease") {
      if (meaning.ttlMs === undefined) ended.push(meaning.lease);
      else renewed.set(meaning.lease, meaning.ttlMs);
      continue;
    }
    const trouble = records.take(meaning);
    if (trouble) return fail(trouble);
  }
  const entries = records.entries();
  if (!entries.ok) return entries;
  for (const entry of entries.value.values()) {
    if (entry?.lease === undefined) continue;
    if (!state.leases.has(entry.lease) && !renewed.has(entry.lease)) return fail(noSuchLease(entry));
  }
  return ok({ entries: entries.value, renewed, ended });
}

function stage(replica: Replica, rows: readonly Row[]): Result<Followed, Trouble> {
  const chunks = rows.filter(({ key }) => key.startsWith(STAGED));
  if (chunks.length === 0) return ok({ replica, events: [], delta: NOTHING });
  const staged = new Map(replica.staged);
  for (const { key, text } of chunks) {
    const read = text === undefined ? undefined : readChunk(text);
    // One that can't be read is no commit's; a commit that names it will be found to be incomplete.
    if (read) staged.set(key, read);
    else staged.delete(key);
  }
  return ok({ replica: { ...replica, staged }, events: [], delta: NOTHING });
}

function stagedChunks(
  replica: Pick<Replica, "staged">,
  { commit, chunks }: NonNullable<Head["staged"]>,
): (readonly Row[])[] | undefined {
  const found: (readonly Row[])[] = [];
  for (let i = 0; i < chunks; i++) {
    const rows = replica.staged.get(stagedKey(commit, i));
    if (!rows) return undefined;
    found.push(rows);
  }
  return found;
}

/**
 * The replica from everything that etcd holds at one revision. Records that are the same as in `before` are the same
 * objects.
 */
export function load(
  schema: Schema,
  entries: readonly EtcdKeyValue[],
  before: Replica = emptyReplica(schema),
): Result<Replica, Trouble> {
  const staged = new Map<string, readonly Row[]>();
  const rows = new Map<string, string | undefined>();
  let head: Head | undefined;
  let position = 0;
  for (const { key, value, mod_revision } of entries) {
    if (key === HEAD_KEY) {
      head = readHead(value);
      if (!head) return fail(damaged(HEAD_KEY));
      position = mod_revision;
    } else if (key.startsWith(STAGED)) {
      const chunk = readChunk(value);
      if (chunk) staged.set(key, chunk);
    } else {
      rows.set(key, value);
    }
  }
  const unsettled = head?.staged ? stagedChunks({ staged }, head.staged) : [];
  if (!unsettled) return fail(damaged(`${STAGED}${head?.staged?.commit}`));
  for (const { key, text } of unsettled.flat()) rows.set(key, text);

  const assembly = new Assembly(schema, emptyMap(), before.state.keys);
  const leases = new Map<LeaseId, number>();
  const renewals = new Map<LeaseId, number>();
  for (const [key, text] of rows) {
    if (text === undefined) continue;
    const meaning = meaningOf({ key, text });
    if (meaning.kind === "other") continue;
    if (meaning.kind === "damaged") return fail(damaged(key));
    if (meaning.kind === "lease") {
      if (meaning.ttlMs === undefined) continue;
      leases.set(meaning.lease, meaning.ttlMs);
      renewals.set(meaning.lease, position);
      continue;
    }
    const trouble = assembly.take(meaning);
    if (trouble) return fail(trouble);
  }
  const assembled = assembly.entries();
  if (!assembled.ok) return assembled;
  const records = [...assembled.value.values()].filter((entry) => entry !== undefined);
  for (const entry of records) {
    if (entry.lease !== undefined && !leases.has(entry.lease)) return fail(noSuchLease(entry));
  }
  if (!head && records.length + leases.size > 0) return fail(damaged(HEAD_KEY));
  // By UTF-16 code unit, as the state orders keys; etcd orders by UTF-8 byte.
  records.sort((a, b) => (a.key < b.key ? -1 : 1));
  const state = buildState(schema, head?.revision ?? 0, leases, records);
  return ok({ state, position, head, unsettled, staged, renewals });
}
