import type { LeaseId, StoreError, StoreErrorReason } from "../../model/store.ts";
import { TRANSACTION_BYTES_MAX } from "../../model/store.ts";

export const storeError = (reason: StoreErrorReason, message: string): StoreError => ({
  kind: "store",
  reason,
  message,
});

export const busy = storeError("busy", "Too many transactions wait to be committed.");
export const closed = storeError("closed", "The store was closed.");
export const outcomeUnknown = storeError(
  "unavailable",
  "Outcome unknown: the transaction was proposed, and no quorum confirmed or replaced it in time. It may still be made.",
);

export const noLease = (lease: LeaseId): StoreError =>
  storeError("no-lease", `There is no lease ${lease}: it has ended, or never was.`);
export const transactionTooLarge = (bytes: number): StoreError =>
  storeError("too-large", `A transaction of ${bytes} bytes is larger than ${TRANSACTION_BYTES_MAX}.`);
