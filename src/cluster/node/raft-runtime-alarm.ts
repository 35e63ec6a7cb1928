import type { Clock } from "../../lib/clock.ts";
import type { Ms } from "../raft/types.ts";

/** A wake-up that comes so late says that the process stood still: what arrived meanwhile is heard first. */
const LATE_MS = 50;

/**
 * One wake-up at a time, for a deadline that mostly moves away, with every message from the leader: a timer isn't set anew
 * for each of these, as one that is due sooner serves as well. Whoever is woken looks at the deadline again.
 */
export class Alarm {
  readonly #clock: Clock;
  readonly #ring: () => void;
  #timer: AbortController | undefined;
  #at: Ms = Number.POSITIVE_INFINITY;
  #isClosed = false;

  constructor(clock: Clock, ring: () => void) {
    this.#clock = clock;
    this.#ring = ring;
  }

  /** Rings at `at` at the latest; Infinity: there is nothing to wait for. */
  set(at: Ms): void {
    if (at >= this.#at || this.#isClosed) return;
    this.#timer?.abort();
    void this.#sleepUntil(at);
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.abort();
  }

  async #sleepUntil(at: Ms): Promise<void> {
    const timer = new AbortController();
    this.#timer = timer;
    this.#at = at;
    await this.#clock.sleep(Math.max(1, Math.ceil(at - this.#clock.monotonicMs())), timer.signal);
    if (!timer.signal.aborted && this.#clock.monotonicMs() - at > LATE_MS) await this.#clock.sleep(0, timer.signal);
    if (timer.signal.aborted) return;
    this.#timer = undefined;
    this.#at = Number.POSITIVE_INFINITY;
    this.#ring();
  }
}
