/**
 * The store in an etcd. Each node holds the whole state in memory and follows etcd's watch (follower.ts). What it writes,
 * it decides on that state and commits (committer.ts) on one condition: that nobody has committed since. One compare, of
 * one key (`head`), covers all that a decision can have looked at (keys, ranges, indexes, leases, what was not there) and
 * needs no knowledge of how another version of Hive indexes its tables. The rest follows from it:
 *
 * - Commits are totally ordered, and serialisable: each was decided on the state that it was applied to.
 * - A commit whose answer was lost can be sent again: it can succeed only once. Whether it did, the next head says.
 * - Decisions of one node that wait are made one after another and share a commit, so they never conflict, and many
 *   callers cost no more round trips than one. Decisions of several nodes at the same moment do: one commit wins, the
 *   others are decided anew on what it wrote, when the watch has brought it; and from the second time on they take turns
 *   (turns.ts). Finer compares (by table, by key) would let more of them pass at once, and each would have to be proven
 *   against every kind of phantom; the cloud's writes are few beside etcd's thousands of commits a second.
 *
 * A commit that is larger than one of etcd's transactions is staged: its rows are written in chunks under keys that
 * mean nothing yet, and one small transaction writes a head that names them. That is the commit. Then they are settled:
 * copied to their own keys, each copy on the condition that the head is still the same, so that it can be done by
 * anyone, twice, or half; and a head without them says that it is done. Whoever wants to commit next does it if need be.
 *
 * Leases are records of Hive's: etcd's own last whole seconds, two at least, and end outside of the order of commits. A
 * keep-alive is a commit. Every node counts their time on its own clock from when it saw the last one, and ends those
 * that are due; on the condition of every commit, so that a keep-alive on its way is not overruled.
 */
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
import type { SealedOperation } from "../kv/command.ts";
import type { KeyEvent, WatchKeys } from "../kv/history.ts";
import type { KeyDecision, KeyValueStore } from "../kv/key-value-store.ts";
import { LeaseKeeper } from "../kv/lease-keeper.ts";
import type { Schema } from "../kv/schema.ts";
import type { State } from "../kv/state.ts";
import { type Compare, holds, View } from "../kv/view.ts";
import { Committer, PATIENCE_MS } from "./committer.ts";
import { bytesOf } from "./draft.ts";
import type { EtcdClient } from "./etcd-client.ts";
import { BACKOFF_MS_MAX, BACKOFF_MS_MIN, Follower } from "./follower.ts";
import { Health, storeError, watchLags } from "./health.ts";
import type { Replica } from "./replica.ts";
import { Turns } from "./turns.ts";

const HEALTHS = ["full", "unavailable", "closed"] as const;
const LEASE_MS_MAX = 365 * 24 * 3600 * 1000;

export type EtcdStoreParts = {
  readonly etcd: EtcdClient;
  readonly schema: Schema;
  readonly prefix: string;
  /** What etcd held at revision `followed`. */
  readonly replica: Replica;
  readonly followed: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly historyChangesMax?: number;
};

export class EtcdKeyValueStore implements KeyValueStore {
  readonly #etcd: EtcdClient;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #random: Random;
  readonly #health: Health;
  readonly #follower: Follower;
  readonly #committer: Committer;
  readonly #leases: LeaseKeeper;
  #closing: Promise<void> | undefined;

  constructor({ random, ...parts }: EtcdStoreParts) {
    const { etcd, clock, log } = parts;
    this.#etcd = etcd;
    this.#clock = clock;
    this.#log = log;
    this.#random = random;
    const writer = randomHex(random, 16);
    const turns = new Turns(writer);
    this.#health = new Health(log, () => clock.monotonicMs());
    this.#leases = new LeaseKeeper(clock, (lease) => this.#expire(lease));
    const shared = { ...parts, writer, health: this.#health };
    this.#follower = new Follower(shared, parts, {
      lease: (lease, ttlMs) => (ttlMs === undefined ? this.#leases.forget(lease) : this.#leases.renew(lease, ttlMs)),
      ticket: (ticket, isThere) => turns.hear(ticket, isThere),
      reloaded: () => turns.reset(),
    });
    this.#committer = new Committer(shared, this.#follower, turns);
  }

  state(): State {
    return this.#follower.replica.state;
  }

  async txn(
    compares: readonly Compare[],
    operations: readonly SealedOperation[],
  ): Promise<Result<{ readonly committed: boolean }, StoreError>> {
    return this.propose<{ readonly committed: boolean }, never>(({ state }) => {
      const committed = holds(state, compares);
      return ok({ operations: committed ? operations : [], value: { committed } });
    });
  }

  propose<T, E>(decide: (view: View) => Result<KeyDecision<T>, E>): Promise<Result<T, E | StoreError>> {
    return this.#committer.propose<T, E>(({ state }) => {
      const decided = decide(new View(state));
      if (!decided.ok) return { answer: decided };
      const { operations, value } = decided.value;
      if (operations.length === 0) return { answer: ok(value) };
      const refusal = refusalOf(state, operations);
      return refusal ? { answer: fail(refusal) } : { effect: { kind: "write", operations }, answer: ok(value) };
    });
  }

  watch(fromRevision: Revision, options?: WatchKeys): AsyncIterable<KeyEvent> {
    return this.#follower.history.watch(fromRevision, options);
  }

  async barrier(): Promise<Result<void, StoreError>> {
    const deadlineMs = this.#clock.monotonicMs() + PATIENCE_MS;
    for (let wait = BACKOFF_MS_MIN; ; wait = Math.min(2 * wait, BACKOFF_MS_MAX)) {
      const refusal = this.#health.refusal;
      if (refusal) return fail(refusal);
      const newest = await this.#follower.newestHead();
      if (newest.ok) {
        const caughtUp = await this.#follower.past(newest.value - 1, deadlineMs);
        return caughtUp ? ok(undefined) : fail(this.#health.refusal ?? watchLags);
      }
      if (newest.error.reason !== "unavailable" || this.#clock.monotonicMs() >= deadlineMs) return newest;
      await this.#clock.sleep(wait, this.#follower.ended);
    }
  }

  grantLease(ttlMs: number): Promise<Result<LeaseId, StoreError>> {
    assert(Number.isInteger(ttlMs) && ttlMs > 0 && ttlMs <= LEASE_MS_MAX, "a lease lasts from 1 ms to a year");
    const lease = randomHex(this.#random, 16) as LeaseId;
    return this.#committer.propose(() => ({ effect: { kind: "grant-lease", lease, ttlMs }, answer: ok(lease) }));
  }

  keepAlive(lease: LeaseId): Promise<Result<void, StoreError>> {
    return this.#committer.propose(({ state }) =>
      state.leases.has(lease)
        ? { effect: { kind: "renew-lease", lease }, answer: ok(undefined) }
        : { answer: fail(noLease(lease)) },
    );
  }

  revokeLease(lease: LeaseId): Promise<Result<void, StoreError>> {
    return this.#committer.propose(({ state }) =>
      state.leases.has(lease)
        ? { effect: { kind: "revoke-lease", lease }, answer: ok(undefined) }
        : { answer: fail(noLease(lease)) },
    );
  }

  status(): StoreStatus {
    const { state } = this.#follower.replica;
    const { problem } = this.#health;
    return {
      revision: state.revision,
      health: problem ? (HEALTHS.find((health) => health === problem.reason) ?? "failed") : "ok",
      ...(problem && { message: problem.message }),
      // The log is etcd's affair; all of Hive's nodes are alike.
      role: "follower",
      records: state.keys.count,
      leases: state.leases.size,
      watchers: this.#follower.history.watchers,
      pending: this.#committer.pending,
      logBytes: 0,
      snapshotRevision: this.#follower.loadedRevision,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#health.close();
    // What is on its way is waited for, and it needs the watch.
    await this.#committer.close();
    await this.#follower.close();
    this.#leases.close();
    this.#etcd.close();
  }

  /** Ends a lease whose time is up; unless it was kept alive, as a newer state will show. */
  async #expire(lease: LeaseId): Promise<boolean> {
    const due = this.#follower.replica.renewals.get(lease);
    const ended = await this.#committer.propose<boolean, never>((draft) => {
      if (!draft.state.leases.has(lease)) return { answer: ok(true) };
      const isKept = draft.touches(lease) || draft.base.renewals.get(lease) !== due;
      if (isKept) return { answer: ok(false) };
      return { effect: { kind: "revoke-lease", lease }, answer: ok(true) };
    });
    if (ended.ok && ended.value) this.#log.info("store.lease_expired", { lease });
    return ended.ok ? ended.value : ended.error.reason === "closed";
  }
}

/** Why operations can't be committed on a state, if so. */
function refusalOf(state: State, operations: readonly SealedOperation[]): StoreError | undefined {
  for (const { operation } of operations) {
    if (operation.kind === "put" && operation.lease !== undefined && !state.leases.has(operation.lease)) {
      return noLease(operation.lease);
    }
  }
  const size = bytesOf(operations);
  if (size <= TRANSACTION_BYTES_MAX) return undefined;
  return storeError("too-large", `A transaction of ${size} bytes is larger than ${TRANSACTION_BYTES_MAX}.`);
}

const noLease = (lease: LeaseId): StoreError =>
  storeError("no-lease", `There is no lease ${lease}: it has ended, or never was.`);
