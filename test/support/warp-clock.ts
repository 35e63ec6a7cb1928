import type { Clock } from "../../src/lib/clock.ts";

/** The system's time, and what a test adds to it: long waits end at once, and time-outs still work. */
export class WarpClock implements Clock {
  #ahead = 0;
  readonly #sleepers = new Set<{ readonly until: number; readonly wake: () => void }>();
  now = () => Date.now() + this.#ahead;
  monotonicMs = () => performance.now() + this.#ahead;

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const wake = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", wake);
        this.#sleepers.delete(sleeper);
        resolve();
      };
      const sleeper = { until: this.monotonicMs() + ms, wake };
      const timer = setTimeout(wake, ms);
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", wake, { once: true });
    });
  }

  async advance(ms: number): Promise<void> {
    this.#ahead += ms;
    for (const sleeper of [...this.#sleepers]) if (sleeper.until <= this.monotonicMs()) sleeper.wake();
    await Bun.sleep(0);
  }
}
