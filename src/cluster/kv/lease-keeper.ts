import type { Clock } from "../../lib/clock.ts";
import type { LeaseId } from "../../model/store.ts";

/**
 * Knows when leases end, on the leader's clock alone: no two clocks are ever compared. One timer, for the next deadline:
 * idle costs nothing. A keep-alive is not written to the log; a restart gives every lease its whole time again, which
 * errs on the side of keeping.
 */
export class LeaseKeeper {
  readonly #clock: Clock;
  readonly #expire: (lease: LeaseId) => Promise<boolean>;
  readonly #deadlines = new Map<LeaseId, number>();
  #timer: AbortController | undefined;
  #timerAt = Number.POSITIVE_INFINITY;

  /** `expire` ends the lease in the log; false when that failed, and it is tried again after RETRY_MS. */
  constructor(clock: Clock, expire: (lease: LeaseId) => Promise<boolean>) {
    this.#clock = clock;
    this.#expire = expire;
  }

  /** The lease ends `ttlMs` from now. */
  renew(lease: LeaseId, ttlMs: number): void {
    const deadline = this.#clock.monotonicMs() + ttlMs;
    this.#deadlines.set(lease, deadline);
    this.#arm(deadline);
  }

  forget(lease: LeaseId): void {
    this.#deadlines.delete(lease);
  }

  /** Another node sees to the leases now, or none. */
  close(): void {
    this.#deadlines.clear();
    this.#timer?.abort();
    this.#timerAt = Number.POSITIVE_INFINITY;
  }

  #arm(next: number): void {
    // A timer that rings early finds nothing, and is set anew.
    if (next >= this.#timerAt) return;
    this.#timer?.abort();
    const timer = new AbortController();
    this.#timer = timer;
    this.#timerAt = next;
    void this.#clock
      .sleep(Math.min(Math.max(0, next - this.#clock.monotonicMs()), SLEEP_MS_MAX), timer.signal)
      .then(() => {
        if (!timer.signal.aborted) this.#ring();
      });
  }

  #ring(): void {
    this.#timerAt = Number.POSITIVE_INFINITY;
    const now = this.#clock.monotonicMs();
    let next = Number.POSITIVE_INFINITY;
    for (const [lease, deadline] of this.#deadlines) {
      if (deadline <= now) this.#end(lease, now);
      next = Math.min(next, this.#deadlines.get(lease) ?? next);
    }
    this.#arm(next);
  }

  #end(lease: LeaseId, now: number): void {
    const retryAt = now + RETRY_MS;
    this.#deadlines.set(lease, retryAt);
    void this.#expire(lease).then((ended) => {
      // Unless it was renewed meanwhile, by a new term of office for one.
      if (ended && this.#deadlines.get(lease) === retryAt) this.#deadlines.delete(lease);
    });
  }
}

const RETRY_MS = 1000;
/** The longest that a timer of the platform can count; it then finds nothing, and is set anew. */
const SLEEP_MS_MAX = 2 ** 31 - 1;
