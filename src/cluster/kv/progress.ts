import type { Clock } from "../../lib/clock.ts";
import type { Index } from "../raft/types.ts";

type Waiter = { readonly index: Index; readonly resolve: () => void };

/** How far the log is applied here, for those who wait for an entry. */
export class Progress {
  readonly #clock: Clock;
  #index: Index;
  /** Ascending by index; they mostly come so. */
  readonly #waiters: Waiter[] = [];

  constructor(clock: Clock, index: Index) {
    this.#clock = clock;
    this.#index = index;
  }

  reached(index: Index): void {
    this.#index = index;
    let done = 0;
    while (done < this.#waiters.length && this.#waiters[done]!.index <= index) this.#waiters[done++]!.resolve();
    if (done > 0) this.#waiters.splice(0, done);
  }

  /** Resolves once the entry is applied (true), or `ms` have gone by (false). */
  async until(index: Index, ms: number): Promise<boolean> {
    if (index <= this.#index) return true;
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiter = { index, resolve };
    this.#waiters.splice(this.#waiters.findLastIndex((other) => other.index <= index) + 1, 0, waiter);
    const timer = new AbortController();
    await Promise.race([promise, this.#clock.sleep(ms, timer.signal)]);
    timer.abort();
    if (index <= this.#index) return true;
    const at = this.#waiters.indexOf(waiter);
    if (at >= 0) this.#waiters.splice(at, 1);
    return false;
  }
}
