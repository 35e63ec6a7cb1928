import { expect, test } from "bun:test";
import fc from "fast-check";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { silentLog } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { ok } from "../../lib/result.ts";
import { defineTable, put, remove, type Store, type Write } from "../../model/store.ts";
import { type EmbeddedStoreOptions, openEmbeddedStore } from "../open-embedded-store.ts";
import { diskError, MemoryDisk } from "./memory-disk.ts";

type Item = { readonly id: string; readonly step: number; readonly text: string };
const items = defineTable({
  name: "items",
  version: 1,
  key: (item: Item) => item.id,
  indexes: { byStep: (item) => String(item.step) },
});

/** Idle is never reached, or as soon as a write ends, so that the log is sealed wherever it can be. */
const neverIdle: Clock = { now: () => 0, monotonicMs: () => 0, sleep: () => new Promise(() => {}) };
const idleAtOnce: Clock = { ...neverIdle, sleep: () => new Promise(setImmediate) };

type Settings = Partial<Pick<EmbeddedStoreOptions, "snapshotBytesMin" | "segmentBytes" | "clock" | "options">>;

const open = (disk: MemoryDisk, settings: Settings = {}) =>
  openEmbeddedStore({
    directory: "/store",
    tables: [items],
    disk,
    clock: neverIdle,
    random: seededRandom(7),
    log: silentLog,
    segmentBytes: 8192,
    snapshotBytesMin: 3000,
    ...settings,
  });

async function opened(disk: MemoryDisk, settings?: Settings): Promise<Store> {
  const store = await open(disk, settings);
  if (!store.ok) throw new Error(store.error.message);
  return store.value;
}

/** What step `n` writes: several records at once, so that half a transaction would show. Pure. */
function writesOf(n: number): Write[] {
  const text = "x".repeat((n * 37) % 400);
  const puts = [0, 1, 2].map((k) => put(items, { id: `k${(n * 5 + k * 3) % 17}`, step: n, text }));
  return n % 4 === 0 ? [...puts, remove(items, `k${(n * 7 + 1) % 17}`)] : puts;
}

type Model = readonly Map<string, Item>[];

/** The model's next state: what the writes make of the last one. */
function step(state: Map<string, Item>, writes: readonly Write[]): Map<string, Item> {
  const next = new Map(state);
  for (const write of writes) {
    if (write.kind === "put") next.set(write.key, write.record as Item);
    else next.delete(write.key);
  }
  return next;
}

const contents = (store: Store) =>
  new Map(
    store
      .read()
      .all(items)
      .map((item) => [item.id, item]),
  );
const sorted = (state: Map<string, Item>) => [...state].sort(([a], [b]) => (a < b ? -1 : 1));

/**
 * Runs transactions from `from` on, several at once, until all are done or the disk fails. `states[r]` is what the
 * store must hold at revision r if it ever gets there.
 */
async function run(store: Store, states: Map<string, Item>[], count: number, width: number) {
  let acknowledged = store.read().revision;
  for (let done = 0; done < count; done += width) {
    const first = states.length;
    for (let i = 0; i < width; i++) states.push(step(states.at(-1)!, writesOf(states.length)));
    const results = await Promise.all(
      Array.from({ length: width }, (_, i) =>
        store.transact(() => ok({ writes: writesOf(first + i), value: first + i })),
      ),
    );
    for (const result of results) {
      if (!result.ok) return { acknowledged, failure: result.error };
      expect(store.read().revision).toBeGreaterThanOrEqual(result.value);
      acknowledged = result.value;
    }
  }
  return { acknowledged, failure: undefined };
}

function expectState(store: Store, states: Model, acknowledged: number): void {
  const { revision } = store.read();
  expect(revision).toBeGreaterThanOrEqual(acknowledged);
  expect(revision).toBeLessThan(states.length);
  expect(sorted(contents(store))).toEqual(sorted(states[revision]!));
  for (const item of store.read().all(items)) {
    expect(store.read().lookup(items, "byStep", String(item.step))).toContain(item);
  }
}

const crashAt = (disk: MemoryDisk, number: number) => {
  disk.before = (operation) => {
    if (operation.number >= number) throw diskError("CRASH");
  };
};

/** Opens, works, crashes at the given operation, and checks what the next opening finds; again on what it left. */
async function crashes(
  points: readonly number[],
  keep: "nothing" | "everything" | "some",
  seed: number,
  width: number,
  clock = neverIdle,
) {
  const random = seededRandom(seed);
  let disk = new MemoryDisk();
  let states: Map<string, Item>[] = [new Map()];
  let acknowledged = 0;
  for (const point of points) {
    crashAt(disk, point);
    const store = await open(disk, { clock });
    if (store.ok) {
      expectState(store.value, states, acknowledged);
      states = states.slice(0, store.value.read().revision + 1);
      const ran = await run(store.value, states, 60, width);
      acknowledged = ran.acknowledged;
      // What readers were shown is durable, acknowledged or not.
      acknowledged = Math.max(acknowledged, store.value.read().revision);
    }
    disk = disk.afterCrash(random, keep);
  }
  const store = await opened(disk);
  expectState(store, states, acknowledged);
  await store.close();
}

test("a crash at any operation of the disk keeps every acknowledged transaction whole", async () => {
  // One transaction at a time has the most operations; three share them. Together the sweeps meet every kind of boundary.
  for (let point = 1; point < 210; point += 1) await crashes([point], "some", point, 3);
  for (let point = 1; point < 260; point += 3) await crashes([point], "nothing", point, 1);
  for (let point = 2; point < 260; point += 3) await crashes([point], "everything", point, 1);
  for (let point = 1; point < 400; point += 2) await crashes([point], "some", point, 2, idleAtOnce);
}, 120_000);

test("crash after crash, at random points, loses nothing that was acknowledged", async () => {
  const keep = fc.constantFrom("nothing" as const, "everything" as const, "some" as const, "some" as const);
  const clocks = fc.constantFrom(neverIdle, idleAtOnce);
  const points = fc.array(fc.integer({ min: 1, max: 250 }), { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(points, keep, fc.integer({ min: 0, max: 1e6 }), fc.integer({ min: 1, max: 8 }), clocks, crashes),
    { numRuns: 150 },
  );
}, 120_000);

test("a process that is killed leaves what its successor makes durable before it shows it", async () => {
  for (let point = 5; point < 200; point += 3) {
    let disk = new MemoryDisk();
    const states: Map<string, Item>[] = [new Map()];
    crashAt(disk, point);
    const first = await open(disk);
    if (first.ok) await run(first.value, states, 30, 3);
    disk = disk.afterKill();
    const second = await opened(disk);
    const shown = second.read().revision;
    expectState(second, states, 0);
    // The power fails now, before the successor wrote anything of its own; or after it did.
    const third = await opened(disk.afterCrash(seededRandom(point), "nothing"));
    expect(third.read().revision).toBe(shown);
    await third.close();
    states.length = shown + 1;
    const { acknowledged } = await run(second, states, 2, 1);
    const fourth = await opened(disk.afterCrash(seededRandom(point), "nothing"));
    expectState(fourth, states, acknowledged);
    await fourth.close();
  }
});

test("a failed sync stops writes for good, shows nothing that was not durable, and reads go on", async () => {
  const disk = new MemoryDisk();
  const store = await opened(disk);
  const states: Map<string, Item>[] = [new Map()];
  await run(store, states, 6, 3);
  disk.before = ({ kind }) => {
    if (kind === "writeDurable") throw diskError("EIO");
  };
  const failed = await store.transact(() => ok({ writes: writesOf(7), value: 0 }));
  expect(failed).toMatchObject({ ok: false, error: { kind: "store", reason: "failed" } });
  disk.before = () => {};
  const after = await store.transact(() => ok({ writes: writesOf(7), value: 0 }));
  expect(after).toMatchObject({ ok: false, error: { reason: "failed" } });
  expect(store.status().health).toBe("failed");
  expectState(store, states, 6);
  await store.close();
});

test("a full disk refuses writes, keeps reads, and is over once there is space", async () => {
  const full = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 3, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(full, fc.integer({ min: 0, max: 1e6 }), async (pattern, seed) => {
      const disk = new MemoryDisk();
      // It tries again, every now and then, to take up its office: that needs a clock.
      const store = await opened(disk, { clock: systemClock, options: { electionMs: 10 } });
      const states: Map<string, Item>[] = [new Map()];
      for (const kind of pattern) {
        // 0: there is space. Otherwise writes, new files or both are refused; but not the eight bytes that wipe what a
        // refused write left, which need no new space.
        disk.before = ({ kind: operation, length }) => {
          if (operation.startsWith("write") && (kind & 1) !== 0 && length !== 8) throw diskError("ENOSPC");
          if (operation === "create" && (kind & 2) !== 0) throw diskError("ENOSPC");
        };
        const before = states.length;
        const ran = await run(store, states, 9, 3);
        if (ran.failure) {
          expect(ran.failure).toMatchObject({ kind: "store", reason: "full" });
          expect(store.status().health).toBe("full");
          states.length = Math.max(before, store.read().revision + 1);
          // What was refused is not there after a crash either, though half of it had got to the disk.
          const crashed = await opened(disk.afterCrash(seededRandom(seed), "everything"));
          expect(crashed.read().revision).toBe(store.read().revision);
          await crashed.close();
        }
        expectState(store, states, ran.acknowledged);
        states.length = store.read().revision + 1;
      }
      disk.before = () => {};
      // It finds out by itself, within a few election timeouts.
      for (let i = 0; store.status().health !== "ok" && i < 5000; i++) await Bun.sleep(1);
      const last = await run(store, states, 3, 1);
      expect(last.failure).toBeUndefined();
      expect(store.status().health).toBe("ok");
      const again = await opened(disk.afterCrash(seededRandom(seed), "some"));
      expect(again.read().revision).toBe(last.acknowledged);
      expectState(again, states, last.acknowledged);
      await again.close();
    }),
    { numRuns: 30 },
  );
}, 60_000);

test("one flipped byte anywhere in a sealed log is refused, or costs nothing", async () => {
  const disk = new MemoryDisk();
  const store = await opened(disk, { snapshotBytesMin: 1e6, segmentBytes: 16_384 });
  const states: Map<string, Item>[] = [new Map()];
  await run(store, states, 6, 3);
  // Closing seals it.
  await store.close();
  const { refused, cut, unharmed } = await flipEveryByte(disk, states);
  expect(cut).toBe(0);
  // The seal itself, and what fills it up.
  expect(unharmed).toBeGreaterThan(40);
  expect(refused).toBeGreaterThan(4096 + 1000);
}, 120_000);

test("one flipped byte anywhere in a log that was not sealed is refused, or costs no more than the last write", async () => {
  const disk = new MemoryDisk();
  const store = await opened(disk, { snapshotBytesMin: 1e6, segmentBytes: 16_384 });
  const states: Map<string, Item>[] = [new Map()];
  await run(store, states, 6, 3);
  const { refused, cut } = await flipEveryByte(disk, states);
  expect(cut).toBeGreaterThan(0);
  // The header block and the writes before the last one are most of the file.
  expect(refused).toBeGreaterThan(2 * cut);
}, 120_000);

/** What becomes of the store with each of its only segment's bytes flipped in turn, with six transactions in two writes. */
async function flipEveryByte(disk: MemoryDisk, states: Model) {
  expect((await disk.list("/store")).filter((name) => name.endsWith(".segment"))).toHaveLength(1);
  const path = "/store/0000000000000001.segment";
  const bytes = disk.peek(path);
  const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
  const found = { refused: 0, cut: 0, unharmed: 0 };
  for (let offset = 0; offset < end; offset++) {
    const rotten = disk.afterCrash(seededRandom(1), "everything");
    rotten.damage(path, offset, Uint8Array.of(bytes[offset]! ^ 0x5a));
    const before = rotten.peek(path);
    const again = await open(rotten);
    if (again.ok) {
      expectState(again.value, states, 3);
      if (again.value.read().revision < 6) found.cut++;
      else found.unharmed++;
      await again.value.close();
    } else {
      expect(again.error.reason).toBe("corrupt");
      expect(again.error.message).toContain(path);
      expect(again.error.message).toMatch(/offset \d+/);
      expect(rotten.peek(path).equals(before)).toBe(true);
      found.refused++;
    }
  }
  return found;
}

test("a damaged snapshot is passed over for the one before it and a longer log", async () => {
  const disk = new MemoryDisk();
  const store = await opened(disk);
  const states: Map<string, Item>[] = [new Map()];
  await run(store, states, 120, 3);
  await store.close();
  const snapshots = (await disk.list("/store")).filter((name) => name.endsWith(".snapshot")).sort();
  expect(snapshots).toHaveLength(2);
  for (const offset of [0, 9, 30, 500]) {
    const rotten = disk.afterCrash(seededRandom(1), "everything");
    const path = `/store/${snapshots[1]}`;
    rotten.damage(path, offset, Uint8Array.of(rotten.peek(path)[offset]! ^ 1));
    const again = await opened(rotten);
    expect(again.read().revision).toBe(120);
    expectState(again, states, 120);
    await again.close();
    expect(await rotten.list("/store")).toContain(`${snapshots[1]}.damaged`);
  }
});

test("a log file that is gone is noticed", async () => {
  for (const [snapshotBytesMin, pick] of [
    [1e6, (names: string[]) => names.slice(0, 1)],
    [1e6, (names: string[]) => names.slice(1, 2)],
    [3000, (names: string[]) => names],
  ] as const) {
    const disk = new MemoryDisk();
    const store = await opened(disk, { snapshotBytesMin });
    await run(store, [new Map()], 120, 3);
    await store.close();
    const segments = (await disk.list("/store")).filter((name) => name.endsWith(".segment"));
    expect(segments.length).toBeGreaterThan(2);
    for (const name of pick(segments)) await disk.remove(`/store/${name}`);
    expect(await open(disk)).toMatchObject({ ok: false, error: { reason: "corrupt" } });
  }
});

test("a directory is opened by one store at a time, and the refusal names the process", async () => {
  const disk = new MemoryDisk();
  const store = await opened(disk);
  const second = await open(disk);
  expect(second).toMatchObject({ ok: false, error: { reason: "locked" } });
  expect(second.ok || second.error.message).toContain(String(process.pid));
  await store.close();
  const third = await opened(disk);
  await third.close();
});
