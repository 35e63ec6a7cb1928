/** The configuration store as a service: runs drafts as transactions, with the leases they need, and bounds what reads cost. */
import type { Clock } from "../lib/clock.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { DAY_MS } from "../lib/units.ts";
import { SETTINGS_MAX } from "../model/settings.ts";
import type { LeaseId, Reader, Store, StoreError } from "../model/store.ts";
import { countSettings } from "./current.ts";
import { Draft, type GrantedLease } from "./draft.ts";

/** The store grants leases of up to a year. */
export const TTL_MS_MAX = 365 * DAY_MS;
/** The shortest lease: one must outlast the commit that hangs a key on it, also on a slow disk. */
const LEASE_MS_MIN = 100;
/** Keys that expire, and other leases. Each grant looks at all of them. */
export const LEASES_MAX = 10_000;
/** A draft that lacked leases is decided again with them; what it needs may have changed meanwhile. */
const ATTEMPTS_MAX = 4;

export class Settings {
  readonly store: Store;
  readonly #clock: Clock;
  readonly #barrier: SharedBarrier;
  readonly #isFull = (): boolean => this.count() >= SETTINGS_MAX;
  /** Leases that were asked for: the store's count does not show them yet. */
  #granting = 0;

  constructor(store: Store, clock: Clock) {
    this.store = store;
    this.#clock = clock;
    this.#barrier = new SharedBarrier(() => store.barrier());
  }

  /** What is committed and applied on this node. */
  read(): Reader {
    return this.store.read();
  }

  /** Keys that are there. */
  count(): number {
    return countSettings(this.read());
  }

  /** After it resolves, `read()` shows every write that anyone saw succeed before the call. */
  barrier(): Promise<Result<void, StoreError>> {
    return this.#barrier.pass();
  }

  /**
   * Runs `work` on a draft and commits what it wrote: one transaction, durable when this resolves. `work` is pure and may run
   * more than once. A write that is to expire needs a lease: say in `ttls` which are foreseen, and it is decided once only.
   */
  async write<T>(by: string, work: (draft: Draft) => T, ttls: readonly number[] = []): Promise<Result<T, StoreError>> {
    const author = { by, now: this.#clock.now(), isFull: this.#isFull };
    let leases: readonly GrantedLease[] = [];
    let lacking = ttls;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      if (lacking.length > 0) {
        const granted = await this.#grant(lacking);
        if (!granted.ok) {
          this.#revoke(leases.map(({ lease }) => lease));
          return granted;
        }
        leases = [...leases, ...granted.value];
      }
      let last: Draft | undefined;
      const done = await this.store.transact<T, typeof LACKS_LEASES>((state) => {
        const draft = new Draft(state, author, leases);
        last = draft;
        const value = work(draft);
        return draft.lacking.length > 0 ? fail(LACKS_LEASES) : ok({ writes: draft.writes, value });
      });
      if (done.ok) {
        const idle = last?.idleLeases() ?? [];
        if (idle.length > 0) this.#revoke(idle);
        return done;
      }
      const { error } = done;
      if (error.kind === "store") {
        // What may have been written after all hangs on them, and is to last as long as it says.
        if (NOT_MADE.has(error.reason)) this.#revoke(leases.map(({ lease }) => lease));
        return fail(error);
      }
      lacking = last?.lacking ?? [];
    }
    this.#revoke(leases.map(({ lease }) => lease));
    return fail(busy("The keys changed while leases were granted for them; try again."));
  }

  async #grant(ttls: readonly number[]): Promise<Result<readonly GrantedLease[], StoreError>> {
    if (this.store.status().leases + this.#granting + ttls.length > LEASES_MAX) {
      return fail(busy(`${LEASES_MAX} keys or so expire already, and no more can; set this one without an end.`));
    }
    this.#granting += ttls.length;
    const granted = await Promise.all(
      ttls.map(async (ttlMs) => ({ ttlMs, granted: await this.store.grantLease(Math.max(ttlMs, LEASE_MS_MIN)) })),
    );
    this.#granting -= ttls.length;
    const leases = granted.flatMap(({ ttlMs, granted: lease }) => (lease.ok ? [{ ttlMs, lease: lease.value }] : []));
    const failed = granted.find((one) => !one.granted.ok)?.granted;
    if (!failed || failed.ok) return ok(leases);
    this.#revoke(leases.map(({ lease }) => lease));
    return failed;
  }

  /** Nothing hangs on them any more, so nobody waits. One that cannot be ended now ends by itself. */
  #revoke(leases: readonly LeaseId[]): void {
    for (const lease of leases) void this.store.revokeLease(lease);
  }
}

/** Nothing was written, and a lease can still be ended. */
const NOT_MADE: ReadonlySet<StoreError["reason"]> = new Set(["too-large", "busy", "no-lease"]);
const LACKS_LEASES = { kind: "lacks-leases" } as const;

const busy = (message: string): StoreError => ({ kind: "store", reason: "busy", message });

/**
 * One barrier for all that wait: whoever comes while one is under way, which may have begun before what they must see, waits
 * for the next, and that one serves all who came until it begins.
 */
export class SharedBarrier {
  readonly #barrier: () => Promise<Result<void, StoreError>>;
  #running: Promise<unknown> | undefined;
  #next: Promise<Result<void, StoreError>> | undefined;

  constructor(barrier: () => Promise<Result<void, StoreError>>) {
    this.#barrier = barrier;
  }

  pass(): Promise<Result<void, StoreError>> {
    this.#next ??= this.#begin();
    return this.#next;
  }

  async #begin(): Promise<Result<void, StoreError>> {
    // Also where none runs: what comes in this turn of the loop joins.
    await this.#running;
    const begun = this.#barrier();
    this.#running = begun;
    this.#next = undefined;
    return begun;
  }
}
