/**
 * How many guests boot at once. Booting takes all of a processor for seconds (many more under TCG), and forty guests that
 * boot at once on two processors all run into their own time limits. A guest has its slot until it rests, as seen by the
 * processor time of its process, or for a fixed time; after that it is an ordinary machine, however busy.
 */
import { cpuMsOf, type GuestProcess, isAlive } from "./process.ts";

const SAMPLE_MS = 500;
/** A guest that uses less of a processor than this has booted, or waits for something that no processor speeds up. */
const RESTING_SHARE = 0.3;
const SLOT_MS_MAX = 20_000;

export class BootSlots {
  readonly #slots: number;
  readonly #freed: () => void;
  readonly #booting = new Map<string, { process: GuestProcess; since: number; cpuMs: number; sampledAt: number }>();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** @param freed hears that a slot has become free */
  constructor(slots: number, freed: () => void) {
    this.#slots = slots;
    this.#freed = freed;
  }

  free(): number {
    return Math.max(0, this.#slots - this.#booting.size);
  }

  take(id: string, process: GuestProcess): void {
    const now = performance.now();
    this.#booting.set(id, { process, since: now, cpuMs: cpuMsOf(process), sampledAt: now });
    // Runs only while something boots; an idle node has no timer.
    this.#timer ??= setInterval(() => this.#sample(), SAMPLE_MS);
  }

  release(id: string): void {
    if (!this.#booting.delete(id)) return;
    if (this.#booting.size === 0) this.stop();
    this.#freed();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #sample(): void {
    const now = performance.now();
    for (const [id, guest] of this.#booting) {
      const cpuMs = cpuMsOf(guest.process);
      const share = (cpuMs - guest.cpuMs) / Math.max(1, now - guest.sampledAt);
      const resting = share < RESTING_SHARE && now - guest.since > 2 * SAMPLE_MS;
      guest.cpuMs = cpuMs;
      guest.sampledAt = now;
      if (resting || now - guest.since > SLOT_MS_MAX || !isAlive(guest.process)) this.release(id);
    }
  }
}
