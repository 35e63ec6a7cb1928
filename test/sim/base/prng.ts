/**
 * Chance for simulations: sfc32 (Chris Doty-Humphrey's Small Fast Counter, 32-bit), because a run draws millions of numbers.
 * One generator per concern (network, disk, clients …), made by `fork`: switching one fault off leaves the others' draws as
 * they were, so that a failing seed stays failing while it is shrunk.
 */
import type { Random } from "../../../src/lib/random.ts";

export class Prng implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number, stream = 0) {
    this.#a = seed | 0;
    this.#b = Math.floor(seed / 2 ** 32) | 0;
    this.#c = stream | 0;
    for (let i = 0; i < 12; i++) this.next();
  }

  /** A whole number, 0 to 2^32 - 1. */
  next(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    this.#c |= 0;
    return sum >>> 0;
  }

  /** 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor((this.next() / 2 ** 32) * count);
  }

  /** `from` to `to`, both included, whole. */
  between(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }

  /** A share, 0 up to 1. */
  share(): number {
    return this.next() / 2 ** 32;
  }

  chance(probability: number): boolean {
    return probability > 0 && this.share() < probability;
  }

  /** How long until something that happens every `mean` on average happens (exponential), never nothing. */
  wait(mean: number): number {
    return Math.max(mean * -Math.log(1 - this.share()), 1e-3);
  }

  pick<T>(list: readonly T[]): T {
    const picked = list[this.below(list.length)];
    if (picked === undefined) throw new Error("picked from an empty list");
    return picked;
  }

  shuffled<T>(list: readonly T[]): T[] {
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [out[i], out[j]] = [out[j]!, out[i]!];
    }
    return out;
  }

  bytes(count: number): Uint8Array {
    const out = new Uint8Array(count);
    for (let i = 0; i < count; i++) out[i] = this.next() >>> 24;
    return out;
  }

  /** Another generator, independent of what is drawn here afterwards. */
  fork(): Prng {
    return new Prng(this.next() + this.next() * 2 ** 20, this.next());
  }

  /** A generator for each concern. */
  forks<Concern extends string>(...concerns: readonly Concern[]): { readonly [concern in Concern]: Prng } {
    return Object.fromEntries(concerns.map((concern) => [concern, this.fork()])) as Record<Concern, Prng>;
  }

  /** A whole number between two bounds, every order of magnitude alike; or 0, for what is off. */
  magnitude(probability: number, from: number, to: number): number {
    const value = Math.round(from * (to / from) ** this.share());
    return this.chance(probability) ? value : 0;
  }
}
