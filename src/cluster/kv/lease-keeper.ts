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
    this.#deadlines.set(lease, this.#clock.monotonicMs() + ttlMs);
    this.#arm();
  }

  forget(lease: LeaseId): void {
    this.#deadlines.delete(lease);
  }

  close(): void {
    this.#deadlines.clear();
    this.#timer?.abort();
  }

  #arm(): void {
    const next = Math.min(...this.#deadlines.values());
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
    for (const [lease, deadline] of this.#deadlines) {
      if (deadline > now) continue;
      this.#deadlines.set(lease, now + RETRY_MS);
      void this.#expire(lease).then((ended) => {
        if (ended) this.#deadlines.delete(lease);
      });
    }
    this.#arm();
  }
}

const RETRY_MS = 1000;
/** The longest that a timer of the platform can count; it then finds nothing, and is set anew. */
const SLEEP_MS_MAX = 2 ** 31 - 1;
