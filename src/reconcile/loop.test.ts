import { expect, test } from "bun:test";
import type { Clock } from "../lib/clock.ts";
import { silentLog } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { backOffMs, ItemBackOff } from "./back-off.ts";
import { type PassReport, startLoop } from "./loop.ts";

const quiet: PassReport = { converged: 0, changed: 0, failed: 0 };

/** A clock that moves only when told; sleepers wake in order. */
class HandClock implements Clock {
  #now = 1_000_000;
  readonly #sleepers = new Set<{ until: number; wake: () => void }>();
  now = () => this.#now;
  monotonicMs = () => this.#now;
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const wake = () => {
        this.#sleepers.delete(sleeper);
        resolve();
      };
      const sleeper = { until: this.#now + ms, wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", sleeper.wake, { once: true });
    });
  }
  get sleeping(): readonly number[] {
    return [...this.#sleepers].map((sleeper) => sleeper.until - this.#now);
  }
  advance(ms: number): void {
    this.#now += ms;
    for (const sleeper of [...this.#sleepers]) if (sleeper.until <= this.#now) sleeper.wake();
  }
}
/** Lets everything that is ready run. */
const settle = async () => {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
};
const loopOf = (clock: Clock, pass: () => Promise<PassReport>, resyncMs = 300_000) =>
  startLoop({ name: "test", pass, clock, random: seededRandom(1), log: silentLog, resyncMs });

test("wakes during a pass are one more pass, however many they are", async () => {
  const clock = new HandClock();
  let passes = 0;
  const gate: { open?: () => void } = {};
  const loop = loopOf(clock, async () => {
    passes++;
    if (passes === 1) await new Promise<void>((resolve) => (gate.open = resolve));
    return quiet;
  });
  await settle();
  for (let i = 0; i < 100; i++) loop.wake();
  gate.open?.();
  await settle();
  expect(passes).toBe(2);
  await loop.stop();
});

test("an idle loop sleeps until the resync and no sooner", async () => {
  const clock = new HandClock();
  const resyncs: boolean[] = [];
  const loop = startLoop({
    name: "test",
    pass: async ({ resync }) => {
      resyncs.push(resync);
      return quiet;
    },
    clock,
    random: seededRandom(1),
    log: silentLog,
    resyncMs: 300_000,
  });
  await settle();
  expect(clock.sleeping).toEqual([300_000]);
  loop.wake();
  await settle();
  clock.advance(299_999);
  await settle();
  expect(resyncs).toEqual([true, false]);
  clock.advance(1);
  await settle();
  expect(resyncs).toEqual([true, false, true]);
  await loop.stop();
});

test("a pass is due at the deadline that the pass before it named", async () => {
  const clock = new HandClock();
  let passes = 0;
  const loop = loopOf(clock, async () => ({ ...quiet, ...(++passes === 1 ? { wakeAt: clock.now() + 5000 } : {}) }));
  await settle();
  clock.advance(4999);
  await settle();
  expect(passes).toBe(1);
  clock.advance(1);
  await settle();
  expect(passes).toBe(2);
  await loop.stop();
});

test("failures in a row wait longer and longer, up to the limit, and success ends that", async () => {
  const clock = new HandClock();
  let fails = 6;
  const loop = loopOf(clock, async () => ({ ...quiet, failed: fails-- > 0 ? 1 : 0 }));
  const waits: number[] = [];
  for (let round = 0; round < 6; round++) {
    await settle();
    const wait = clock.sleeping[0]!;
    waits.push(wait);
    clock.advance(wait);
  }
  waits.forEach((wait, i) => {
    expect(wait).toBeGreaterThanOrEqual(125 * 2 ** i);
    expect(wait).toBeLessThanOrEqual(250 * 2 ** i);
  });
  await settle();
  expect(loop.status().failuresInARow).toBe(0);
  await loop.stop();
});

test("a pass that throws is retried after its back-off, which a wake does not shorten", async () => {
  const clock = new HandClock();
  let passes = 0;
  const loop = loopOf(clock, async () => {
    passes++;
    throw new Error("the store is down");
  });
  await settle();
  for (let i = 0; i < 50; i++) {
    loop.wake();
    await settle();
  }
  expect(passes).toBe(1);
  expect(loop.status().lastError).toBe("the store is down");
  clock.advance(250);
  await settle();
  expect(passes).toBe(2);
  await loop.stop();
});

test("stop waits for the pass that runs, and tells it", async () => {
  let ended = false;
  const loop = startLoop({
    name: "test",
    pass: async ({ signal }) => {
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      ended = true;
      return quiet;
    },
    clock: new HandClock(),
    random: seededRandom(1),
    log: silentLog,
  });
  await settle();
  await loop.stop();
  expect(ended).toBe(true);
});

test("back-off never exceeds its limit and is never below half of it once there", () => {
  const random = seededRandom(7);
  for (let attempt = 1; attempt < 200; attempt++) {
    const wait = backOffMs(attempt, random, { firstMs: 100, maxMs: 5000 });
    expect(wait).toBeLessThanOrEqual(5000);
    expect(wait).toBeGreaterThanOrEqual(50);
  }
});

test("one item's failures do not hold up another", () => {
  const backOff = new ItemBackOff(seededRandom(3));
  const { until, attempts } = backOff.failed("a", 0);
  expect(attempts).toBe(1);
  expect(backOff.waitsUntil("a", until - 1)).toBe(until);
  expect(backOff.waitsUntil("a", until)).toBeUndefined();
  expect(backOff.waitsUntil("b", 0)).toBeUndefined();
  backOff.succeeded("a");
  expect(backOff.failed("a", 0).attempts).toBe(1);
});
