import type { Log } from "../../lib/log.ts";
import type { StoreError } from "../../model/store.ts";
import type { EtcdError } from "./etcd-client.ts";
import type { Trouble } from "./trouble.ts";

/** What is wrong between a store and its etcd, as far as its last calls tell. */
export class Health {
  readonly #log: Log;
  readonly #now: () => number;
  /** Why writes fail at present. Cleared by what succeeds. */
  #trouble: StoreError | undefined;
  /** Why nothing can go on; for good. */
  #broken: StoreError | undefined;
  #isClosed = false;
  /** When etcd was last heard of, in the clock's monotonic ms. */
  lastHeardMs: number;
  /** Told once, when the store breaks. */
  onBreak: () => void = () => undefined;

  constructor(log: Log, now: () => number) {
    this.#log = log;
    this.#now = now;
    this.lastHeardMs = now();
  }

  /** Why nothing new is begun, if so. */
  get refusal(): StoreError | undefined {
    return this.#isClosed ? closedError : this.#broken;
  }
  get problem(): StoreError | undefined {
    return this.refusal ?? this.#trouble;
  }
  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  close(): void {
    this.#isClosed = true;
  }

  /** Etcd has answered; with `wrote`, it has taken a write. */
  heard(wrote: boolean): void {
    this.lastHeardMs = this.#now();
    if (!this.#trouble || (this.#trouble.reason !== "unavailable" && !wrote)) return;
    this.#log.info("store.well_again", { was: this.#trouble.message });
    this.#trouble = undefined;
  }

  /** Etcd has not answered, or refused. @returns the same as the store's own error */
  failed(error: EtcdError): StoreError {
    const reason = error.kind === "full" || error.kind === "too-large" ? error.kind : "unavailable";
    const failure = storeError(reason, error.message);
    // That is the matter of one transaction.
    if (reason === "too-large") return failure;
    if (this.#trouble?.message !== failure.message) {
      this.#log.warn("store.trouble", { reason, message: failure.message });
    }
    this.#trouble = failure;
    return failure;
  }

  /** The store goes on with what it shows, and takes no more writes. */
  break(error: StoreError): void {
    if (this.#broken) return;
    this.#broken = error;
    this.#log.error("store.broken", { message: error.message });
    this.onBreak();
  }

  /** What cannot be has happened: nothing is built on it. */
  foundDefect(cause: unknown): void {
    this.#log.error("store.defect", { cause });
    this.break(storeError("failed", `The store has met a defect of Hive's: ${cause}. Restart Hive.`));
  }
}

export const storeError = (reason: StoreError["reason"], message: string): StoreError => ({
  kind: "store",
  reason,
  message,
});
export const closedError = storeError("closed", "The store was closed.");
export const watchLags = storeError("unavailable", "Etcd answers, but its watch does not tell what was committed.");
export const restored = storeError(
  "failed",
  "Etcd's data has gone back: it was restored from a backup, or made anew. Restart Hive to begin from what it holds now.",
);
export function brokenBy({ kind, message }: Trouble): StoreError {
  switch (kind) {
    case "restored":
      return restored;
    case "newer":
      return storeError(
        "newer",
        `The store in etcd was written by a later version of Hive: ${message}. Start that version.`,
      );
    default:
      return storeError("corrupt", `The store in etcd is damaged: ${message}. Restore etcd from a backup.`);
  }
}
