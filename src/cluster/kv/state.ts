/**
 * The replicated state machine: keys with revisions, indexes derived from them, leases. `apply` is pure and
 * deterministic, with no clock, disk or chance in it: the same commands in the same order give the same state on every
 * node. States are persistent: each one stays whole, and shares what did not change with the next.
 *
 * A command holds effects, not conditions: compares are checked by the sequencer (the leader) against the state after
 * everything before it in the log, which is exactly the state that it will be applied to. So nodes whose versions index
 * differently can't come to different verdicts.
 */
import { assert, unreachable } from "../../lib/assert.ts";
import type { IndexValues, LeaseId, Revision } from "../../model/store.ts";
import { LEASE_SLOT, type Schema } from "./schema.ts";
import { emptyMap, getFrom, type SortedMap, scan, withKey, withoutKey } from "./sorted-map.ts";

/** One key, in etcd's terms. `version` counts the writes since it was created, from 1. */
export type KeyValue = {
  readonly key: string;
  /** Frozen JSON data. */
  readonly value: object;
  /** The version of the value's shape. */
  readonly format: number;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
  readonly version: number;
  readonly lease?: LeaseId;
  /** What takes its place when the lease ends, in the same format; nothing does, if absent. */
  readonly successor?: object;
  /** What it was before, newest first; absent when nothing is kept. */
  readonly past?: readonly PastValue[];
  /** The value as JSON, where whoever wrote it had it at hand: its past will be that. */
  readonly text?: string;
};

/**
 * An earlier value of a key as JSON, and the revision that wrote it. Few are ever read: as text they take little memory, cost
 * the garbage collector nothing, and go into snapshots as they are.
 */
export type PastValue = { readonly text: string; readonly format: number; readonly modRevision: Revision };

export type Operation =
  | {
      readonly kind: "put";
      readonly key: string;
      readonly value: object;
      readonly format: number;
      readonly lease?: LeaseId;
      readonly successor?: object;
      /** How many earlier values are kept. It stands here, and not in the schema, so that all nodes keep as many. */
      readonly pastMax?: number;
      /**
       * It is the newest value again that hung on no lease: what stands there, or what its past begins with. So it is not kept
       * beside itself.
       */
      readonly restores?: true;
      /** See `KeyValue`. Not part of the command. */
      readonly text?: string;
    }
  | { readonly kind: "remove"; readonly key: string };

export type Command =
  | { readonly kind: "write"; readonly operations: readonly Operation[] }
  | { readonly kind: "grant-lease"; readonly lease: LeaseId; readonly ttlMs: number }
  | { readonly kind: "revoke-lease"; readonly lease: LeaseId };

export type KeyChange = { readonly key: string; readonly before?: KeyValue; readonly after?: KeyValue };

export type State = {
  readonly revision: Revision;
  readonly keys: SortedMap<KeyValue>;
  /** By slot: entries under `value NUL key`. */
  readonly indexes: readonly SortedMap<KeyValue>[];
  /** The time to live of each lease, in ms. When it ends is the leader's affair, not the state's. */
  readonly leases: ReadonlyMap<LeaseId, number>;
};

export function emptyState(schema: Schema): State {
  const indexes = Array.from({ length: schema.slots }, () => emptyMap<KeyValue>());
  return { revision: 0, keys: emptyMap(), indexes, leases: new Map() };
}

/** The state after `command`, and what it did to the keys. The revision rises by one if it did anything to them. */
export function apply(schema: Schema, state: State, command: Command): { state: State; changes: readonly KeyChange[] } {
  switch (command.kind) {
    case "write":
      return write(schema, state, command.operations);
    case "grant-lease": {
      assert(!state.leases.has(command.lease), "a lease is granted once");
      return { state: { ...state, leases: new Map(state.leases).set(command.lease, command.ttlMs) }, changes: [] };
    }
    case "revoke-lease": {
      const attached = scan(state.indexes[LEASE_SLOT]!, ...indexBounds(command.lease));
      const leases = new Map(state.leases);
      leases.delete(command.lease);
      return write(schema, { ...state, leases }, attached.map(afterLease));
    }
    default:
      return unreachable(command);
  }
}

/** What the end of its lease does to an entry. */
function afterLease({ key, format, successor, past }: KeyValue): Operation {
  return successor === undefined
    ? { kind: "remove", key }
    : { kind: "put", key, format, value: successor, ...(past && { pastMax: past.length }) };
}

function write(schema: Schema, state: State, operations: readonly Operation[]) {
  const revision = state.revision + 1;
  const changes: KeyChange[] = [];
  const indexes = [...state.indexes];
  let keys = state.keys;
  for (const operation of operations) {
    const { key } = operation;
    const before = getFrom(keys, key);
    assert(before?.modRevision !== revision, "a command writes each key once");
    const after = operation.kind === "put" ? written(operation, before, revision) : undefined;
    assert(after?.lease === undefined || state.leases.has(after.lease), "a record hangs on a lease that exists");
    if (!before && !after) continue;
    keys = after ? withKey(keys, key, after) : withoutKey(keys, key);
    reindex(schema, indexes, key, before, after);
    changes.push(changeOf(key, before, after));
  }
  return changes.length === 0
    ? { state, changes }
    : { state: { revision, keys, indexes, leases: state.leases }, changes };
}

/** A member that is absent is left out. */
function changeOf(key: string, before: KeyValue | undefined, after: KeyValue | undefined): KeyChange {
  if (before && after) return { key, before, after };
  return after ? { key, after } : { key, before: before! };
}

function written(put: Operation & { kind: "put" }, before: KeyValue | undefined, revision: Revision): KeyValue {
  const { key, value, format, lease, successor, pastMax, restores, text } = put;
  const createRevision = before?.createRevision ?? revision;
  const version = (before?.version ?? 0) + 1;
  const entry: Writable<KeyValue> = { key, value, format, createRevision, modRevision: revision, version };
  if (pastMax && before) {
    const past = pastAfter(before, pastMax, restores);
    if (past) entry.past = past;
  }
  if (text !== undefined) entry.text = text;
  if (lease !== undefined) entry.lease = lease;
  if (successor !== undefined) entry.successor = successor;
  return entry;
}

/** For whoever makes one, until it is handed over. */
export type Writable<T> = { -readonly [Name in keyof T]: T[Name] };

/** The past of what takes an entry's place. What hangs on a lease was meant to pass, and leaves nothing. */
function pastAfter(before: KeyValue, max: number, restores: true | undefined): readonly PastValue[] | undefined {
  const { value, format, modRevision, lease, past } = before;
  if (restores && lease !== undefined) return past && past.length > 1 ? past.slice(1, 1 + max) : undefined;
  if (restores || lease !== undefined) return past && past.length > max ? past.slice(0, max) : past;
  const { text = JSON.stringify(value) } = before;
  const kept: PastValue[] = [{ text, format, modRevision }];
  for (let i = 0; past && i < past.length && kept.length < max; i++) kept.push(past[i]!);
  return kept;
}

/** Brings the indexes after one entry's change; `indexes` is a list of the caller's own. */
export function reindex(
  schema: Schema,
  indexes: SortedMap<KeyValue>[],
  key: string,
  before: KeyValue | undefined,
  after: KeyValue | undefined,
): void {
  if (before?.lease !== undefined || after?.lease !== undefined) {
    move(indexes, LEASE_SLOT, key, before?.lease, after?.lease, after);
  }
  for (const index of schema.spaceOfKey(key)?.indexes ?? []) {
    const from = before && index.of(before.value);
    const to = after && index.of(after.value);
    if (from !== undefined || to !== undefined) move(indexes, index.slot, key, from, to, after);
  }
}

/** Moves an entry from where it was in an index to where it is now. Most values stay as they are: those are only replaced. */
function move(
  indexes: SortedMap<KeyValue>[],
  slot: number,
  key: string,
  from: IndexValues,
  to: IndexValues,
  after: KeyValue | undefined,
): void {
  let map = indexes[slot]!;
  for (const value of listOf(from)) {
    if (value !== to && !listOf(to).includes(value)) map = withoutKey(map, indexKey(value, key));
  }
  for (const value of listOf(to)) map = withKey(map, indexKey(value, key), after!);
  indexes[slot] = map;
}

function listOf(values: IndexValues): readonly string[] {
  if (values === undefined) return NONE;
  return typeof values === "string" ? [values] : values;
}

const NONE: readonly string[] = [];

/** Where an entry stands in the indexes: for each slot, the values it is found under. */
export function placements(schema: Schema, key: string, entry: KeyValue | undefined): [number, readonly string[]][] {
  if (!entry) return [];
  const found: [number, readonly string[]][] = [];
  if (entry.lease !== undefined) found.push([LEASE_SLOT, [entry.lease]]);
  for (const index of schema.spaceOfKey(key)?.indexes ?? []) {
    const values = index.of(entry.value);
    if (values === undefined) continue;
    found.push([index.slot, typeof values === "string" ? [values] : values]);
  }
  return found;
}

export const indexKey = (value: string, key: string): string => `${escaped(value)}\0${key}`;

/** The bounds of everything under one value of an index. */
export function indexBounds(value: string): [from: string, to: string] {
  const prefix = escaped(value);
  return [`${prefix}\0`, `${prefix}\u0001`];
}

/** NUL ends the value in an index key, so one within the value (a user's tag, say) has to look different. */
function escaped(value: string): string {
  if (!value.includes("\0") && !value.includes("\u0001")) return value;
  return value.replaceAll("\u0001", "\u0001b").replaceAll("\0", "\u0001a");
}
