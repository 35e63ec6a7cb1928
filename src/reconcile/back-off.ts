import type { Random } from "../lib/random.ts";

export interface BackOffLimits {
  readonly firstMs: number;
  readonly maxMs: number;
}
export const BACK_OFF: BackOffLimits = { firstMs: 250, maxMs: 30_000 };

/**
 * How long to wait after the `attempt`-th failure in a row (from 1): doubled each time up to the limit, and then half of it
 * to all of it by chance, so that many that failed together do not come back together.
 */
export function backOffMs(attempt: number, random: Random, limits: BackOffLimits = BACK_OFF): number {
  const most = Math.min(limits.maxMs, limits.firstMs * 2 ** Math.min(attempt - 1, 30));
  const chance = Buffer.from(random.bytes(4)).readUInt32LE() / 2 ** 32;
  return Math.round(most / 2 + (most / 2) * chance);
}

/** Failures in a row of each of many items, and when each may be tried again: one that fails does not hold up the others. */
export class ItemBackOff {
  readonly #items = new Map<string, { attempts: number; until: number }>();
  readonly #random: Random;
  readonly #limits: BackOffLimits;
  constructor(random: Random, limits: BackOffLimits = BACK_OFF) {
    this.#random = random;
    this.#limits = limits;
  }

  /** @returns how often it has failed in a row now, and the moment (of the caller's clock) to try again */
  failed(key: string, now: number): { readonly attempts: number; readonly until: number } {
    const attempts = (this.#items.get(key)?.attempts ?? 0) + 1;
    const item = { attempts, until: now + backOffMs(attempts, this.#random, this.#limits) };
    this.#items.set(key, item);
    return item;
  }

  succeeded(key: string): void {
    this.#items.delete(key);
  }

  /** The moment until which the item is left alone; undefined when it may be tried now. */
  waitsUntil(key: string, now: number): number | undefined {
    const until = this.#items.get(key)?.until;
    return until !== undefined && until > now ? until : undefined;
  }
}
