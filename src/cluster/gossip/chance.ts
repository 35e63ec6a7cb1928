import type { Random } from "../../lib/random.ts";

/** A whole number, 0 to `count` - 1. */
export function below(random: Random, count: number): number {
  const bytes = random.bytes(4);
  const drawn = (bytes[0]! | (bytes[1]! << 8) | (bytes[2]! << 16) | (bytes[3]! << 24)) >>> 0;
  return Math.floor((drawn / 2 ** 32) * count);
}

/** `ms`, give or take a tenth, whole: timers of many nodes must not march in step. */
export const jittered = (random: Random, ms: number): number => Math.round(ms * (0.9 + below(random, 1024) / 5120));

/** A copy in random order (Fisher and Yates). */
export function shuffled<T>(random: Random, list: readonly T[]): T[] {
  const out = [...list];
  for (let i = out.length - 1; i > 0; i--) {
    const j = below(random, i + 1);
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}
