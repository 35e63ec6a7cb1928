/**
 * The cluster store as services and agents see it: typed tables of immutable records, read from memory at one
 * revision, changed by transactions that are decided purely and committed whole or not at all.
 *
 *   const instances = defineTable({
 *     name: "instances", version: 1,
 *     key: (record: InstanceRecord) => record.instanceId,
 *     indexes: { bySubnet: (record) => record.subnetId },
 *   });
 *   const done = await store.transact((state) => {
 *     const found = state.get(instances, id);
 *     return found ? ok({ writes: [put(instances, { ...found, power: "off" })], value: found }) : fail(notFound(id));
 *   });
 *
 * What implements it is `cluster/`: a Raft cluster, of one node or several, or etcd behind the same contract.
 */
import { assert } from "../lib/assert.ts";
import type { Result } from "../lib/result.ts";

/** Counts committed transactions that wrote something; 0 is the empty store. Never goes back. */
export type Revision = number;

declare const leaseKind: unique symbol;
/** Names a lease: 16 hexadecimal digits. */
export type LeaseId = string & { readonly [leaseKind]: true };

/** What a record is found under in one index: one value, several (once under each), or none. */
export type IndexValues = string | readonly string[] | undefined;
// Declared as a method so that Table<Instance> may stand where a Table<object> is asked for.
type IndexFunction<R> = { of(record: R): IndexValues }["of"];

/**
 * One kind of record. A record is plain JSON data (objects, arrays, strings, finite numbers, booleans, null; an
 * `undefined` member is left out when stored): no Date, Map, bigint or bytes.
 */
export interface Table<R extends object, X extends string = string> {
  /** Lower-case words with hyphens; part of the stored key, so it never changes. */
  readonly name: string;
  /** Raise it when the shape of R changes, and give `migrate`. A table newer than this is refused at opening. */
  readonly version: number;
  /** The primary key: unique in the table, not empty, no NUL, at most KEY_LENGTH_MAX characters. Pure. */
  key(record: R): string;
  /** Pure functions of the record. They can be added or changed freely: indexes are derived, never stored. */
  readonly indexes: { readonly [name in X]: IndexFunction<R> };
  /** How many earlier records are kept with each (`Reader.past`), for as long as it is not removed. None by default. */
  readonly pastMax?: number;
  /** Brings a record that was stored by an earlier version of the table to this one. Pure. */
  migrate?(stored: unknown, fromVersion: number): R;
}
export type AnyTable = Table<object>;

export const KEY_LENGTH_MAX = 2048;
/** One record as JSON, in bytes. etcd refuses requests above 1.5 MiB by default; this stays below. */
export const RECORD_BYTES_MAX = 1024 * 1024;
/** All writes of one transaction as JSON, in bytes. */
export const TRANSACTION_BYTES_MAX = 8 * 1024 * 1024;

/** Defines a table. Leave the type arguments out (annotate `key`'s parameter): the index names are then checked too. */
export function defineTable<R extends object, X extends string = string>(definition: {
  readonly name: string;
  readonly version: number;
  readonly key: (record: R) => string;
  readonly indexes?: { readonly [name in X]: (record: R) => IndexValues };
  readonly pastMax?: number;
  readonly migrate?: (stored: unknown, fromVersion: number) => R;
}): Table<R, X> {
  assert(/^[a-z][a-z0-9-]*$/.test(definition.name), `"${definition.name}" is a table name`);
  assert(Number.isSafeInteger(definition.version) && definition.version >= 1, "a table's version counts from 1");
  const { pastMax = 1 } = definition;
  assert(Number.isSafeInteger(pastMax) && pastMax >= 1, "a table that keeps a past keeps a record of it");
  return { ...definition, indexes: definition.indexes ?? ({} as { readonly [name in X]: IndexFunction<R> }) };
}

/** One change that a transaction asks for. Made by `put` and `remove`. */
export type Write =
  | {
      readonly kind: "put";
      readonly table: AnyTable;
      readonly key: string;
      readonly record: object;
      readonly lease?: LeaseId;
      readonly successor?: object;
      readonly restores?: true;
    }
  | { readonly kind: "remove"; readonly table: AnyTable; readonly key: string };

/** What hangs on a lease restores nothing. */
type PutHow<R> =
  | { readonly lease?: LeaseId; readonly successor?: R; readonly restores?: never }
  | { readonly lease?: never; readonly successor?: never; readonly restores: true };

/**
 * Creates or replaces a record. With `lease`, it vanishes when the lease ends, or its `successor` (of the same key, on no
 * lease) takes its place; without, it is attached to none (also when the record that it replaces was). A record on a lease is
 * meant to pass: it is never kept as another's past. One that `restores` is the newest again that hung on none (what it
 * replaces, or what that one's past begins with), and is not kept beside itself. A later write of the same key in one
 * transaction wins.
 */
export function put<R extends object>(
  table: Table<R>,
  record: NoInfer<R>,
  { lease, successor, restores }: PutHow<NoInfer<R>> = {},
): Write {
  const write = { kind: "put", table, key: table.key(record), record } as const;
  if (lease === undefined) return restores ? { ...write, restores } : write;
  if (successor === undefined) return { ...write, lease };
  assert(table.key(successor) === write.key, "a successor has its record's key");
  return { ...write, lease, successor };
}

/** Removes the record with this key; nothing happens when there is none. */
export function remove(table: AnyTable, key: string): Write {
  return { kind: "remove", table, key };
}

/** The revisions that made a record and that wrote it last. They never repeat, so they tell whether it is still the same. */
export type Stamp = { readonly createRevision: Revision; readonly modRevision: Revision };

/** A record as it was before it was replaced, and the revision that wrote it. */
export type Past<R> = { readonly record: R; readonly modRevision: Revision };

export type Range = {
  /** First key, itself included. */
  readonly from?: string;
  /** First key, itself left out: where the page before ended. */
  readonly after?: string;
  /** Last key, itself left out. */
  readonly to?: string;
  readonly prefix?: string;
  readonly limit?: number;
};

/**
 * All tables at one revision: it shows the same however long it is kept and whatever is committed meanwhile. Records
 * are shared and frozen: the same object for as long as the record is not written, so a cache may hang on identity.
 * Keys order by UTF-16 code unit.
 * @throws BrokenInvariant for a table or an index that the store was not opened with
 */
export interface Reader {
  readonly revision: Revision;
  get<R extends object>(table: Table<R>, key: string): R | undefined;
  /** When the record with this key was made and last written; undefined when there is none. */
  stamp(table: AnyTable, key: string): Stamp | undefined;
  /** What the record with this key was before, newest first: at most the table's `pastMax`. */
  past<R extends object>(table: Table<R>, key: string): readonly Past<R>[];
  /** The records under `value` in the index, in key order. Logarithmic in the table, linear in the answer. */
  lookup<R extends object, X extends string>(table: Table<R, X>, index: NoInfer<X>, value: string): readonly R[];
  /** Every record of the table, in key order. */
  all<R extends object>(table: Table<R>): readonly R[];
  range<R extends object>(table: Table<R>, range: Range): readonly R[];
  /** How many records the table has; logarithmic. */
  count(table: AnyTable): number;
  /** How many records are under `value` in the index; logarithmic. */
  countOf<R extends object, X extends string>(table: Table<R, X>, index: NoInfer<X>, value: string): number;
}

export type Change = {
  readonly table: AnyTable;
  readonly key: string;
  /** The revision that wrote `after`: over etcd, one event may tell of several. */
  readonly modRevision?: Revision;
  /** The record until this revision; absent when it was created. */
  readonly before?: object;
  /** The record from this revision on; absent when it was removed. */
  readonly after?: object;
};

/**
 * `changes`: what one committed revision did to the watched tables. `compacted`: the changes after the reader's position
 * are no longer held; nothing more follows. Read everything anew with `read()`, and watch from that reader's revision.
 */
export type WatchEvent =
  | { readonly kind: "changes"; readonly revision: Revision; readonly changes: readonly Change[] }
  | { readonly kind: "compacted"; readonly revision: Revision };

export type WatchOptions = {
  readonly fromRevision?: Revision;
  readonly signal?: AbortSignal;
  /**
   * Narrows what is told to revisions with a change that concerns the watcher, by a record's key and what it is from then on.
   * Asked at the moment of telling: what it says may change meanwhile. What is not told costs next to nothing.
   */
  readonly concerns?: (key: string, after: object | undefined) => boolean;
};

export type TypedChange<R> = {
  readonly key: string;
  readonly modRevision?: Revision;
  readonly before?: R;
  readonly after?: R;
};

/** The changes of one table, typed. */
export function changesOf<R extends object>(changes: readonly Change[], table: Table<R>): readonly TypedChange<R>[] {
  const own = changes.filter((change) => change.table.name === table.name);
  return own as readonly object[] as readonly TypedChange<R>[];
}

/**
 * Why the store could not do it (never why a decision was refused):
 *   full         no space left on the disk that holds the log; reads go on, writes succeed again once there is space
 *   failed       the disk failed a write or a sync; reads go on, writes need a restart of the daemon on a good disk. The
 *                transactions that were waiting have an unknown outcome: a restart may find them in the log
 *   too-large    a key, a record or a transaction above its limit
 *   busy         too many transactions wait, or this one met conflicts more often than it may retry
 *   no-lease     the lease does not exist, or no longer
 *   unavailable  no leader or no quorum can be reached. The message says whether the transaction was not made, or whether its
 *                outcome is unknown: it may have been made, or may be yet
 *   closed       the store was closed
 * and at opening:
 *   locked       another process holds the directory (its pid is in the message)
 *   corrupt      data fails its checksums where no crash explains it; the message names file, offset and what to do
 *   newer        the data was written by a later version of Hive
 */
export type StoreErrorReason =
  | "full"
  | "failed"
  | "too-large"
  | "busy"
  | "no-lease"
  | "unavailable"
  | "closed"
  | "locked"
  | "corrupt"
  | "newer";
export type StoreError = {
  readonly kind: "store";
  readonly reason: StoreErrorReason;
  /** A whole sentence for an operator. */
  readonly message: string;
  readonly cause?: unknown;
};

/** What a transaction decided: its writes (none is allowed), and what the caller gets once they are durable. */
export type Decision<T> = { readonly writes: readonly Write[]; readonly value: T };

export type StoreStatus = {
  readonly revision: Revision;
  /** `ok`: writes are accepted; otherwise why not. */
  readonly health: "ok" | "full" | "failed" | "unavailable" | "closed";
  readonly message?: string;
  readonly role: "leader" | "follower" | "single";
  readonly records: number;
  readonly leases: number;
  readonly watchers: number;
  /** Transactions that wait for their commit. */
  readonly pending: number;
  readonly logBytes: number;
  readonly snapshotRevision: Revision;
  /** Of a store that is replicated: Raft's term, and who leads it, if anyone is known to. */
  readonly term?: number;
  readonly leader?: string;
  /** On the leader: the other nodes, the last log entry that each is known to hold, and whether it was heard of lately. */
  readonly peers?: readonly { readonly id: string; readonly match: number; readonly isActive: boolean }[];
};

/**
 * The store. F is the type of its own failures; services see `Store<AwsError>` (`translateStoreErrors`), so that a
 * handler answers what `transact` gives without another look.
 */
export interface Store<F = StoreError> {
  /** Everything that is committed and applied here. Never shows what is not durable. Costs nothing: no copy is made. */
  read(): Reader;
  /**
   * Decides on one state and commits its writes whole. `decide` must be pure, and may run more than once; when it
   * refuses, nothing is written. Resolves once the writes are durable AND applied here: `read()` shows them. Decisions
   * on the leader run one after another, each on the writes of those before it: contention cannot starve anyone.
   */
  transact<T, E = never>(decide: (state: Reader) => Result<Decision<T>, E>): Promise<Result<T, E | F>>;
  /**
   * The changes to `tables` after `fromRevision` (default: from now on), in order, without gaps or doubles, one event a
   * revision; revisions that touched none of the tables are left out. Ends when `signal` is aborted or the store closes.
   * A slow reader costs no memory: it is told `compacted` when it falls too far behind. Typical use:
   *   for (;;) {
   *     const state = store.read();
   *     resync(state);
   *     for await (const event of store.watch(tables, { fromRevision: state.revision, signal })) {
   *       if (event.kind === "compacted") break;
   *       …
   *     }
   *     if (signal.aborted) return;
   *   }
   */
  watch(tables: readonly AnyTable[], options?: WatchOptions): AsyncIterable<WatchEvent>;
  /** After it resolves, `read()` shows every transaction that anyone saw succeed before the call. */
  barrier(): Promise<Result<void, F>>;
  /** A lease that ends `ttlMs` after its last keep-alive, with every record attached to it. A restart starts it anew. */
  grantLease(ttlMs: number): Promise<Result<LeaseId, F>>;
  keepAlive(lease: LeaseId): Promise<Result<void, F>>;
  /** Ends the lease now and removes its records. */
  revokeLease(lease: LeaseId): Promise<Result<void, F>>;
  status(): StoreStatus;
  /** Ends watches, waits for what is being written, releases the directory. Later calls fail with `closed`. */
  close(): Promise<void>;
}

/** The same store, its own failures in the caller's terms. */
export function translateStoreErrors<F, G>(store: Store<F>, translate: (error: F) => G): Store<G> {
  const own = Symbol();
  const translated = async <T>(pending: Promise<Result<T, F>>): Promise<Result<T, G>> => {
    const result = await pending;
    return result.ok ? result : { ok: false, error: translate(result.error) };
  };
  return {
    read: () => store.read(),
    async transact<T, E>(decide: (state: Reader) => Result<Decision<T>, E>): Promise<Result<T, E | G>> {
      // The decision's refusals travel in an envelope, to be told apart from the store's failures of whatever type.
      type Refused = { readonly [own]: E };
      const result = await store.transact<T, Refused>((state) => {
        const decided = decide(state);
        return decided.ok ? decided : { ok: false, error: { [own]: decided.error } };
      });
      if (result.ok) return result;
      const error = result.error;
      const refused = typeof error === "object" && error !== null && own in error;
      return { ok: false, error: refused ? (error as Refused)[own] : translate(error as F) };
    },
    watch: (tables, options) => store.watch(tables, options),
    barrier: () => translated(store.barrier()),
    grantLease: (ttlMs) => translated(store.grantLease(ttlMs)),
    keepAlive: (lease) => translated(store.keepAlive(lease)),
    revokeLease: (lease) => translated(store.revokeLease(lease)),
    status: () => store.status(),
    close: () => store.close(),
  };
}
