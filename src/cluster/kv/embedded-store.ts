import { assert } from "../../lib/assert.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { type Random, randomHex } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import {
  type LeaseId,
  type Revision,
  type StoreError,
  type StoreStatus,
  TRANSACTION_BYTES_MAX,
} from "../../model/store.ts";
import { encodeGrant, encodeRevoke, encodeWrites, type SealedOperation } from "./command.ts";
import type { Lock } from "./disk.ts";
import type { History, KeyEvent } from "./history.ts";
import type { KeyDecision, KeyValueStore } from "./key-value-store.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import type { LogStorage } from "./log/log-storage.ts";
import type { Schema } from "./schema.ts";
import { closedError, Sequencer } from "./sequencer.ts";
import type { Snapshotter } from "./snapshotter.ts";
import type { State } from "./state.ts";
import { type Compare, holds, View } from "./view.ts";

const LEASE_MS_MAX = 365 * 24 * 3600 * 1000;

/** The store of a single voter: what is in its log is committed. */
export class EmbeddedKeyValueStore implements KeyValueStore {
  readonly #storage: LogStorage;
  readonly #snapshotter: Snapshotter;
  readonly #sequencer: Sequencer;
  readonly #history: History;
  readonly #leases: LeaseKeeper;
  readonly #random: Random;
  readonly #lock: Lock;
  #bytesSinceFlush = 0;
  #closing: Promise<void> | undefined;

  constructor(parts: {
    readonly schema: Schema;
    readonly storage: LogStorage;
    readonly snapshotter: Snapshotter;
    readonly history: History;
    readonly state: State;
    readonly lock: Lock;
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Log;
  }) {
    this.#storage = parts.storage;
    this.#snapshotter = parts.snapshotter;
    this.#history = parts.history;
    this.#random = parts.random;
    this.#lock = parts.lock;
    this.#sequencer = new Sequencer({
      schema: parts.schema,
      log: parts.storage,
      term: Math.max(1, parts.storage.hardState.term),
      state: parts.state,
      committed: ({ state, changes }) => {
        if (changes.length > 0) this.#history.record(state.revision, changes);
      },
      flushed: () => {
        this.#snapshotter.grew(this.#bytesSinceFlush, this.#sequencer.applied);
        this.#bytesSinceFlush = 0;
      },
    });
    this.#leases = new LeaseKeeper(parts.clock, async (lease) => {
      const ended = await this.revokeLease(lease);
      if (ended.ok) parts.log.info("store.lease_expired", { lease });
      return ended.ok || ended.error.reason === "no-lease" || ended.error.reason === "closed";
    });
    for (const [lease, ttlMs] of parts.state.leases) this.#leases.renew(lease, ttlMs);
  }

  state(): State {
    return this.#sequencer.applied;
  }

  async txn(
    compares: readonly Compare[],
    operations: readonly SealedOperation[],
  ): Promise<Result<{ readonly committed: boolean }, StoreError>> {
    const refusal = this.#sequencer.refusal();
    if (refusal) return fail(refusal);
    const committed = holds(this.#sequencer.tentative, compares);
    const done = await this.#submit(committed ? operations : []);
    return done.ok ? ok({ committed }) : done;
  }

  async propose<T, E>(decide: (view: View) => Result<KeyDecision<T>, E>): Promise<Result<T, E | StoreError>> {
    const refusal = this.#sequencer.refusal();
    if (refusal) return fail(refusal);
    const decided = decide(new View(this.#sequencer.tentative));
    const done = await this.#submit(decided.ok ? decided.value.operations : []);
    if (!done.ok) return done;
    return decided.ok ? ok(decided.value.value) : decided;
  }

  watch(fromRevision: Revision, signal?: AbortSignal): AsyncIterable<KeyEvent> {
    return this.#history.watch(fromRevision, signal);
  }

  /** There is no other node, and what anyone was told is applied here. */
  async barrier(): Promise<Result<void, StoreError>> {
    return this.#closing ? fail(closedError) : ok(undefined);
  }

  async grantLease(ttlMs: number): Promise<Result<LeaseId, StoreError>> {
    assert(Number.isInteger(ttlMs) && ttlMs > 0 && ttlMs <= LEASE_MS_MAX, "a lease lasts from 1 ms to a year");
    const refusal = this.#sequencer.refusal();
    if (refusal) return fail(refusal);
    const lease = randomHex(this.#random, 16) as LeaseId;
    const bytes = this.#counted(encodeGrant(lease, ttlMs));
    const done = await this.#sequencer.submit({ kind: "grant-lease", lease, ttlMs }, bytes);
    if (!done.ok) return done;
    this.#leases.renew(lease, ttlMs);
    return ok(lease);
  }

  async keepAlive(lease: LeaseId): Promise<Result<void, StoreError>> {
    if (this.#closing) return fail(closedError);
    // One that is about to end in the log has ended.
    const ttlMs = this.#sequencer.tentative.leases.get(lease);
    if (ttlMs === undefined || !this.state().leases.has(lease)) return fail(noLease(lease));
    this.#leases.renew(lease, ttlMs);
    return ok(undefined);
  }

  async revokeLease(lease: LeaseId): Promise<Result<void, StoreError>> {
    const refusal = this.#sequencer.refusal();
    if (refusal) return fail(refusal);
    if (!this.#sequencer.tentative.leases.has(lease)) return fail(noLease(lease));
    const done = await this.#sequencer.submit({ kind: "revoke-lease", lease }, this.#counted(encodeRevoke(lease)));
    if (done.ok) this.#leases.forget(lease);
    return done;
  }

  status(): StoreStatus {
    const { applied, pending, failure } = this.#sequencer;
    const problem = this.#closing ? closedError : failure;
    return {
      revision: applied.revision,
      health: problem ? (problem.reason as StoreStatus["health"]) : "ok",
      ...(problem && { message: problem.message }),
      role: "single",
      records: applied.keys.count,
      leases: applied.leases.size,
      watchers: this.#history.watchers,
      pending,
      logBytes: this.#storage.bytes,
      snapshotRevision: this.#snapshotter.revision,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#leases.close();
    await this.#sequencer.close();
    this.#history.close();
    await this.#snapshotter.close();
    await this.#storage.close();
    await this.#lock.release();
  }

  async #submit(operations: readonly SealedOperation[]): Promise<Result<void, StoreError>> {
    if (operations.length === 0) return this.#sequencer.submit(undefined, undefined);
    for (const { operation } of operations) {
      if (operation.kind === "remove" || operation.lease === undefined) continue;
      if (!this.#sequencer.tentative.leases.has(operation.lease)) return fail(noLease(operation.lease));
    }
    const bytes = encodeWrites(operations);
    if (bytes.length > TRANSACTION_BYTES_MAX) return fail(transactionTooLarge(bytes.length));
    const command = { kind: "write", operations: operations.map(({ operation }) => operation) } as const;
    return this.#sequencer.submit(command, this.#counted(bytes));
  }

  #counted(bytes: Uint8Array): Uint8Array {
    this.#bytesSinceFlush += bytes.length;
    return bytes;
  }
}

const noLease = (lease: LeaseId): StoreError => ({
  kind: "store",
  reason: "no-lease",
  message: `There is no lease ${lease}: it has ended, or never was.`,
});
const transactionTooLarge = (bytes: number): StoreError => ({
  kind: "store",
  reason: "too-large",
  message: `A transaction of ${bytes} bytes is larger than ${TRANSACTION_BYTES_MAX}.`,
});
