import type { Result } from "../../lib/result.ts";
import type { LeaseId, Revision, StoreError, StoreStatus } from "../../model/store.ts";
import type { SealedOperation } from "./command.ts";
import type { KeyEvent, WatchKeys } from "./history.ts";
import type { State } from "./state.ts";
import type { Compare, View } from "./view.ts";

/** What a decision at this layer writes. An operation a key; none is allowed. */
export type KeyDecision<T> = { readonly operations: readonly SealedOperation[]; readonly value: T };

/**
 * A key/value store in the manner of etcd v3, under the typed tables: revisions, transactions with compares, watches,
 * leases. Implemented by Raft and by etcd. The state is held in memory on every node.
 */
export interface KeyValueStore {
  /** Everything that is committed and applied here. `View` reads it. */
  state(): State;
  /**
   * Writes the operations if every compare holds: at the moment of the write, not of the reading. Resolves once that is
   * durable and applied here. `committed: false` wrote nothing; by then the state here is new enough to decide anew.
   */
  txn(
    compares: readonly Compare[],
    operations: readonly SealedOperation[],
  ): Promise<Result<{ readonly committed: boolean }, StoreError>>;
  /**
   * Decides on the newest state and commits. Where the log is written (a leader), decisions run one after another, each
   * on the state with the writes of those before it; elsewhere this is `proposeOptimistically`.
   */
  propose<T, E>(decide: (view: View) => Result<KeyDecision<T>, E>): Promise<Result<T, E | StoreError>>;
  /** Changes after a revision; see Store.watch. */
  watch(fromRevision: Revision, options?: WatchKeys): AsyncIterable<KeyEvent>;
  barrier(): Promise<Result<void, StoreError>>;
  grantLease(ttlMs: number): Promise<Result<LeaseId, StoreError>>;
  keepAlive(lease: LeaseId): Promise<Result<void, StoreError>>;
  revokeLease(lease: LeaseId): Promise<Result<void, StoreError>>;
  status(): StoreStatus;
  close(): Promise<void>;
}
