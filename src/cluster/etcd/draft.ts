/**
 * A commit in the making: decisions that wait, one after another, each on the state with the effects of those before it,
 * each with a revision of its own. They go to etcd as one transaction: what one of them writes and another writes over,
 * other nodes never see.
 */
import { assert } from "../../lib/assert.ts";
import type { LeaseId } from "../../model/store.ts";
import { type SealedOperation, withoutText } from "../kv/command.ts";
import type { Schema } from "../kv/schema.ts";
import { getFrom } from "../kv/sorted-map.ts";
import { apply, type KeyChange, type KeyValue, type State } from "../kv/state.ts";
import { type Head, leaseKey, makeHead, type Row, recordRow, rowsBeside } from "./layout.ts";
import { after, type Delta, type Replica, type RevisionChanges } from "./replica.ts";

/** What one decision does. */
export type Effect =
  | { readonly kind: "write"; readonly operations: readonly SealedOperation[] }
  | { readonly kind: "grant-lease"; readonly lease: LeaseId; readonly ttlMs: number }
  | { readonly kind: "renew-lease"; readonly lease: LeaseId }
  | { readonly kind: "revoke-lease"; readonly lease: LeaseId };

/**
 * What one of etcd's transactions carries: it takes 128 operations and 1.5 MiB unless it was started otherwise, and the
 * head and a margin are among them. The largest record fits.
 */
export const ROWS_MAX = 120;
export const ROW_BYTES_MAX = 1_310_720;

/** What an effect comes to on a draft's state, and what it adds to the commit at most. */
type Step = {
  readonly effect: Effect;
  readonly state: State;
  readonly changes: readonly KeyChange[];
  readonly rows: number;
  readonly bytes: number;
};

export class Draft {
  readonly #schema: Schema;
  readonly base: Replica;
  #state: State;
  /** What was touched, in order. */
  readonly #keys = new Set<string>();
  readonly #leases = new Set<LeaseId>();
  readonly #events: RevisionChanges[] = [];
  #rows = 0;
  #bytes = 0;
  /** The effect that was asked about last, so that it is not worked out twice. */
  #tried: Step | undefined;

  constructor(schema: Schema, base: Replica) {
    this.#schema = schema;
    this.base = base;
    this.#state = base.state;
  }

  /** The state with every effect so far. */
  get state(): State {
    return this.#state;
  }

  /** Whether an effect so far grants the lease, keeps it alive or ends it. */
  touches(lease: LeaseId): boolean {
    return this.#leases.has(lease);
  }

  /**
   * Whether a commit with this effect too still goes into one of etcd's transactions.
   * @throws what an index function throws
   */
  fits(effect: Effect): boolean {
    const { rows, bytes } = this.#try(effect);
    return this.#rows + rows <= ROWS_MAX && this.#bytes + bytes <= ROW_BYTES_MAX;
  }

  /**
   * How much a commit of this effect alone writes at most, in bytes: also what is beside the records, such as their past.
   * @throws what an index function throws
   */
  bytesOf(effect: Effect): number {
    return this.#try(effect).bytes;
  }

  /** @throws what an index function throws; the draft is then as it was */
  add(effect: Effect): void {
    const { state, changes, rows, bytes } = this.#try(effect);
    this.#tried = undefined;
    this.#state = state;
    if (changes.length > 0) this.#events.push({ revision: state.revision, changes, bytes });
    for (const { key } of changes) this.#keys.add(key);
    if (effect.kind !== "write") this.#leases.add(effect.lease);
    this.#rows += rows;
    this.#bytes += bytes;
  }

  #try(effect: Effect): Step {
    if (this.#tried?.effect === effect) return this.#tried;
    const { state, changes } = applied(this.#schema, this.#state, effect);
    let rows = effect.kind === "write" ? 0 : 1;
    // An operation's text is about as long as its record's.
    let bytes = effect.kind === "write" ? bytesOf(effect.operations) : 0;
    for (const { key, before, after } of changes) {
      const beside = rowsBeside(key, before, after);
      rows += 1 + beside.length;
      for (const row of beside) bytes += sizeOf(row);
      if (effect.kind !== "write") bytes += sizeOf(recordRow(key, after));
    }
    this.#tried = { effect, state, changes, rows, bytes };
    return this.#tried;
  }

  /** What all of it comes to; undefined when that is nothing. */
  finish(): Commit | undefined {
    if (this.#state === this.base.state && this.#leases.size === 0) return undefined;
    const entries = new Map<string, KeyValue | undefined>();
    for (const key of this.#keys) {
      const entry = getFrom(this.#state.keys, key);
      if (entry || getFrom(this.base.state.keys, key)) entries.set(key, entry);
    }
    const renewed = new Map<LeaseId, number>();
    const ended: LeaseId[] = [];
    for (const lease of this.#leases) {
      const ttlMs = this.#state.leases.get(lease);
      if (ttlMs !== undefined) renewed.set(lease, ttlMs);
      else if (this.base.state.leases.has(lease)) ended.push(lease);
    }
    return new Commit(this.base, this.#state, this.#events, { entries, renewed, ended });
  }
}

/** What a draft came to: rows to write, and the replica that they lead to. */
export class Commit {
  readonly base: Replica;
  readonly delta: Delta;
  /** Revision by revision, as only this node sees them. */
  readonly events: readonly RevisionChanges[];
  readonly rows: readonly Row[];
  readonly #state: State;

  constructor(base: Replica, state: State, events: readonly RevisionChanges[], delta: Delta) {
    this.base = base;
    this.delta = delta;
    this.events = events;
    this.#state = state;
    this.rows = [
      ...[...delta.entries].flatMap(([key, entry]) => [
        recordRow(key, entry),
        ...rowsBeside(key, getFrom(base.state.keys, key), entry),
      ]),
      ...[...delta.renewed].map(([lease, ttlMs]): Row => ({ key: leaseKey(lease), text: String(ttlMs) })),
      ...delta.ended.map((lease): Row => ({ key: leaseKey(lease), text: undefined })),
    ];
  }

  /** The head that commits it. */
  head(writer: string, sequence: number, staged?: Head["staged"]): Head {
    return makeHead(this.base, {
      revision: this.#state.revision,
      writer,
      sequence,
      rows: this.rows.length,
      ...(staged && { staged }),
    });
  }

  /** The rows in groups that each go into one of etcd's transactions; one group is the rule. */
  chunks(): (readonly Row[])[] {
    const chunks: Row[][] = [];
    let bytes = 0;
    for (const row of this.rows) {
      const size = sizeOf(row);
      const open = chunks.at(-1);
      if (open && open.length < ROWS_MAX && bytes + size <= ROW_BYTES_MAX) {
        open.push(row);
        bytes += size;
      } else {
        chunks.push([row]);
        bytes = size;
      }
    }
    return chunks;
  }

  /** The base with this commit, whose head is at an etcd revision. */
  replica(head: Head, position: number, chunks: readonly (readonly Row[])[]): Replica {
    const unsettled = head.staged ? chunks : [];
    return after(this.base, this.delta, { state: this.#state, head, position, unsettled });
  }
}

function applied(schema: Schema, state: State, effect: Effect): Pick<Step, "state" | "changes"> {
  if (effect.kind === "renew-lease") {
    assert(state.leases.has(effect.lease), "a lease to keep alive exists");
    return { state, changes: [] };
  }
  if (effect.kind !== "write") return apply(schema, state, effect);
  return apply(schema, state, {
    kind: "write",
    operations: effect.operations.map(({ operation }) => withoutText(operation)),
  });
}

/** At most, as a row of a chunk: the key is escaped there once more. */
const sizeOf = ({ key, text }: Row): number => 2 * Buffer.byteLength(key) + Buffer.byteLength(text ?? "null") + 8;

/** Of operations as JSON. */
export const bytesOf = (operations: readonly SealedOperation[]): number =>
  operations.reduce((sum, { text }) => sum + Buffer.byteLength(text) + 1, 0);
