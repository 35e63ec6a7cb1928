import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Clock } from "../../../lib/clock.ts";
import { silentLog } from "../../../lib/log.ts";
import { seededRandom } from "../../../lib/random.ts";
import { type DiskOperation, diskError, MemoryDisk } from "../memory-disk.ts";
import type { Entry, HardState } from "./log-storage.ts";
import { SegmentLog, type SegmentLogOptions } from "./segment-log.ts";

const options = (disk: MemoryDisk) => ({ disk, directory: "/log", segmentBytes: 4096 + 600, log: silentLog });

async function opened(
  disk: MemoryDisk,
  more: Partial<SegmentLogOptions> = {},
): Promise<{ log: SegmentLog; entries: readonly Entry[] }> {
  const result = await SegmentLog.open({ ...options(disk), ...more });
  if (!result.ok) throw new Error(result.error.message);
  return result.value;
}

const entry = (index: number, term: number, length = 40): Entry => ({
  index,
  term,
  data: Buffer.alloc(length, `${index}.${term};`),
});

const plain = (entries: readonly Entry[]) =>
  entries.map(({ index, term, data }) => ({ index, term, data: Buffer.from(data).toString() }));

const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("append" as const),
      count: fc.integer({ min: 1, max: 6 }),
      bytes: fc.integer({ min: 0, max: 900 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("truncate" as const), by: fc.integer({ min: 0, max: 9 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("seal" as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("vote" as const), vote: fc.string({ maxLength: 8 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("compact" as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const), by: fc.integer({ min: 1, max: 20 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("crash" as const),
      keep: fc.constantFrom("nothing" as const, "everything" as const, "some" as const),
    }),
  },
);

test("it is an array of entries with a vote, through truncation, compaction, new starts and crashes", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 40 }), fc.integer(), async (actions, seed) => {
      let disk = new MemoryDisk();
      let { log } = await opened(disk);
      let entries: Entry[] = [];
      let before = { index: 0, term: 0 };
      let term = 1;
      let hardState: HardState = { term: 0, vote: "" };
      for (const action of actions) {
        const last = entries.at(-1)?.index ?? before.index;
        switch (action.do) {
          case "append": {
            const more = Array.from({ length: action.count }, (_, i) => entry(last + 1 + i, term, action.bytes));
            expect(await log.append(more)).toEqual({ ok: true, value: undefined });
            entries.push(...more);
            break;
          }
          case "truncate": {
            const keep = Math.max(log.firstIndex - 1, before.index, last - action.by);
            expect((await log.truncateAfter(keep)).ok).toBe(true);
            entries = entries.filter(({ index }) => index <= keep);
            term++;
            break;
          }
          case "vote":
            hardState = { term, vote: action.vote };
            expect((await log.append([], hardState)).ok).toBe(true);
            break;
          case "seal":
            expect((await log.seal()).ok).toBe(true);
            break;
          case "compact":
            expect((await log.compact(Math.floor(before.index + action.share * (last - before.index)))).ok).toBe(true);
            break;
          case "restart":
            before = { index: last + action.by, term };
            expect((await log.restartAfter(before.index, term)).ok).toBe(true);
            entries = [];
            break;
          case "crash": {
            disk = disk.afterCrash(seededRandom(seed), action.keep);
            const again = await opened(disk);
            log = again.log;
            expect(plain(again.entries)).toEqual(plain(entries.filter(({ index }) => index >= log.firstIndex)));
            break;
          }
        }
        expect(log.lastIndex).toBe(entries.at(-1)?.index ?? before.index);
        expect(log.hardState).toEqual(hardState);
        const held = entries.filter(({ index }) => index >= log.firstIndex);
        for (const { index, term } of held) expect(log.termOf(index)).toBe(term);
        if (held.length === 0) continue;
        const read = await log.read(log.firstIndex, log.lastIndex, 1e9);
        expect(plain(read.ok ? read.value : [])).toEqual(plain(held));
      }
    }),
    { numRuns: 150 },
  );
});

type Held = { readonly entries: readonly Entry[]; readonly hardState: HardState; readonly after: number };

/** A follower's day, as calls: what each is, and what the log may hold while it runs and must hold when it has resolved. */
function* day(seed: number): Generator<{ call: (log: SegmentLog) => ReturnType<SegmentLog["seal"]>; legal: Held[] }> {
  const random = seededRandom(seed);
  const chance = (below: number) => random.bytes(2).reduce((sum, byte) => sum * 256 + byte, 0) % below;
  let held: Held = { entries: [], hardState: { term: 0, vote: "" }, after: 0 };
  for (let i = 0; i < 45; i++) {
    const last = held.entries.at(-1)?.index ?? held.after;
    const term = held.hardState.term + 1;
    const kind = chance(12);
    if (kind === 0) {
      const index = last + chance(4);
      const next = { entries: [], hardState: held.hardState, after: index };
      yield { call: (log) => log.restartAfter(index, term), legal: [held, next] };
      held = next;
    } else if (kind < 4) {
      const keep = Math.max(held.after, last - chance(kind === 1 ? 20 : 4));
      const next = { ...held, entries: held.entries.filter(({ index }) => index <= keep) };
      yield { call: (log) => log.truncateAfter(keep), legal: [held, next] };
      held = next;
    } else if (kind === 4) {
      yield { call: (log) => log.seal(), legal: [held] };
    } else {
      const hardState = kind === 5 ? { term, vote: `n${chance(3)}` } : undefined;
      const more = Array.from({ length: chance(4) }, (_, k) => entry(last + 1 + k, held.hardState.term, chance(700)));
      // What of a write was there in full counts, from its beginning.
      const legal = [held];
      const voted = { ...held, hardState: hardState ?? held.hardState };
      for (let n = 0; n <= more.length; n++) legal.push({ ...voted, entries: [...held.entries, ...more.slice(0, n)] });
      yield { call: (log) => log.append(more, hardState), legal };
      held = legal.at(-1)!;
    }
  }
}

test("a crash at any operation of the disk, in appends, cuts, seals and new starts, leaves what was promised", async () => {
  const shown = ({ entries, hardState, after }: Held) =>
    JSON.stringify([plain(entries), hardState, entries.at(-1)?.index ?? after]);
  for (let seed = 1; seed <= 6; seed++) {
    for (let point = 2, isOver = false; !isOver; point++) {
      const disk = new MemoryDisk();
      disk.before = ({ number }) => {
        if (number >= point) throw diskError("CRASH");
      };
      const begun = await SegmentLog.open({ ...options(disk), segmentBytes: 8192 });
      let legal: Held[] = [{ entries: [], hardState: { term: 0, vote: "" }, after: 0 }];
      isOver = begun.ok;
      if (begun.ok) {
        for (const step of day(seed)) {
          legal = step.legal;
          const done = await step.call(begun.value.log);
          isOver = done.ok;
          if (!done.ok) break;
          legal = [legal.at(-1)!];
        }
      }
      for (const keep of ["nothing", "some", "everything", "kill"] as const) {
        const after = keep === "kill" ? disk.afterKill() : disk.afterCrash(seededRandom(seed + point), keep);
        // No crash is taken for damage. (A node starts over after a snapshot that it has.)
        const snapshot = { index: Math.max(...legal.map((held) => held.after)), term: 1 };
        const copy = after.afterCrash(seededRandom(1), "everything");
        const { log: withPeers } = await opened(copy, { segmentBytes: 8192, repairable: true, snapshot });
        expect(withPeers.damage).toBeUndefined();

        const { log, entries } = await opened(after, { segmentBytes: 8192 });
        expect(withPeers.lastIndex).toBe(log.lastIndex);
        const found = { entries, hardState: log.hardState, after: log.lastIndex };
        expect(legal.map(shown)).toContain(shown(found));
        // What was shown is durable: a second crash changes nothing.
        const again = await opened(after.afterCrash(seededRandom(1), "nothing"), { segmentBytes: 8192 });
        expect(shown({ ...found, entries: again.entries, hardState: again.log.hardState })).toBe(shown(found));
        expect(await again.log.append([entry(again.log.lastIndex + 1, 99)])).toMatchObject({ ok: true });
      }
    }
  }
}, 60_000);

test("compaction frees whole segments, and the term before the first entry is still known", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  for (let index = 1; index <= 40; index++) await log.append([entry(index, 1 + (index >> 3))]);
  const before = log.bytes;
  await log.compact(20);
  expect(log.firstIndex).toBeGreaterThan(10);
  expect(log.firstIndex).toBeLessThanOrEqual(21);
  expect(log.bytes).toBeLessThan(before);
  expect(log.termOf(log.firstIndex - 1)).toBe(1 + ((log.firstIndex - 1) >> 3));
  expect(log.termOf(log.firstIndex - 2)).toBeUndefined();
});

test("after a write that did not become durable nothing is written or read until the log is opened anew", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.append([entry(1, 1)]);
  disk.before = ({ kind }) => {
    if (kind === "writeDurable") throw diskError("EIO");
  };
  expect(await log.append([entry(2, 1)])).toMatchObject({ ok: false, error: { reason: "failed" } });
  disk.before = () => {};
  expect(await log.append([entry(2, 1)])).toMatchObject({ ok: false, error: { reason: "failed" } });
  expect(log.lastIndex).toBe(1);
});

test("a read stops at its limit of bytes, but gives at least one entry", async () => {
  const { log } = await opened(new MemoryDisk());
  await log.append([entry(1, 1, 100), entry(2, 1, 100), entry(3, 1, 100)]);
  const lengths = async (bytesMax: number) => {
    const read = await log.read(1, 3, bytesMax);
    return read.ok && read.value.length;
  };
  expect(await lengths(1)).toBe(1);
  expect(await lengths(300)).toBe(2);
  expect(await lengths(1000)).toBe(3);
});

test("a read that meets rot, or a disk that can't read, fails alone: the log goes on", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.append([entry(1, 1), entry(2, 1)]);
  const path = "/log/0000000000000001.segment";
  const good = disk.peek(path).subarray(4096 + 60, 4096 + 61);
  disk.damage(path, 4096 + 60, Uint8Array.of(good[0]! ^ 0xff));
  expect(await log.read(1, 2, 1e6)).toMatchObject({ ok: false, error: { reason: "corrupt" } });
  expect(await log.read(2, 2, 1e6)).toMatchObject({ ok: true });
  expect(await log.append([entry(3, 1)])).toMatchObject({ ok: true });
  disk.before = ({ kind }) => {
    if (kind === "read") throw diskError("EIO");
  };
  expect(await log.read(2, 2, 1e6)).toMatchObject({ ok: false, error: { reason: "failed" } });
  disk.before = () => {};
  disk.damage(path, 4096 + 60, good);
  const read = await log.read(1, 3, 1e6);
  expect(plain(read.ok ? read.value : [])).toEqual(plain([entry(1, 1), entry(2, 1), entry(3, 1)]));
});

test("a suffix that is cut within its segment costs one small write and no file, however often", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk, { segmentBytes: 1 << 20 });
  await log.append(Array.from({ length: 50 }, (_, i) => entry(i + 1, 1)));
  const operations: DiskOperation[] = [];
  disk.before = (operation) => operations.push(operation);
  for (let round = 1; round <= 40; round++) {
    await log.truncateAfter(40);
    await log.append(Array.from({ length: 10 }, (_, i) => entry(41 + i, 1 + round)));
  }
  expect(operations).toHaveLength(80);
  for (const { kind, length } of operations.filter((_, i) => i % 2 === 0)) {
    expect({ kind, length }).toEqual({ kind: "writeDurable", length: 40 });
  }
  const again = await opened(disk.afterCrash(seededRandom(1), "nothing"));
  expect(again.entries.map(({ term }) => term)).toEqual([...Array(40).fill(1), ...Array(10).fill(41)]);
});

test("a suffix that is cut across segments leaves their files behind for good, and no more than one in their place", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  let last = 0;
  for (let round = 1; round <= 20; round++) {
    for (let i = 0; i < 30; i++) await log.append([entry(++last, round)]);
    last -= 25;
    await log.truncateAfter(last);
    const found = await disk.afterCrash(seededRandom(1), "nothing").list("/log");
    expect(found.filter((name) => name.endsWith(".segment")).length).toBeLessThanOrEqual(2 + last / 5);
  }
  const again = await opened(disk.afterCrash(seededRandom(1), "nothing"));
  expect(again.log.lastIndex).toBe(last);
});

test("a segment that has its name but not for certain stops the log, even for want of space", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.append([entry(1, 1)]);
  disk.before = ({ kind }) => {
    if (kind === "syncDirectory") throw diskError("ENOSPC");
  };
  expect(await log.restartAfter(7, 1)).toMatchObject({ ok: false, error: { reason: "failed" } });
  disk.before = () => {};
  expect(await log.append([entry(2, 1)])).toMatchObject({ ok: false, error: { reason: "failed" } });
});

test("what was refused for want of space is gone for good, though half of it had got in", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const disk = new MemoryDisk();
    const { log } = await opened(disk, { segmentBytes: 16_384 });
    await log.append([entry(1, 1)]);
    disk.before = ({ kind, length }) => {
      if (kind === "writeDurable" && length > 8) throw diskError("ENOSPC");
    };
    const refused = await log.append([entry(2, 1), entry(3, 1, 900), entry(4, 1, 900)], { term: 1, vote: "b" });
    expect(refused).toMatchObject({ ok: false, error: { reason: "full" } });
    disk.before = () => {};
    const crashed = await opened(disk.afterCrash(seededRandom(seed), "some"));
    expect(crashed.log.lastIndex).toBe(1);
    expect(crashed.log.hardState).toEqual({ term: 0, vote: "" });
    expect(await log.append([entry(2, 2)])).toMatchObject({ ok: true });
    const again = await opened(disk.afterCrash(seededRandom(seed), "some"));
    expect(plain(again.entries)).toEqual(plain([entry(1, 1), entry(2, 2)]));
  }
});

test("what was refused for want of space does not come back when its first entry is written after all", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk, { segmentBytes: 16_384 });
  for (let round = 0; round < 3; round++) {
    disk.before = ({ kind, length }) => {
      if (kind === "writeDurable" && length > 8) throw diskError("ENOSPC");
    };
    expect(await log.append([entry(1, 1), entry(2, 1), entry(3, 1, 900)])).toMatchObject({ ok: false });
  }
  disk.before = () => {};
  expect(await log.append([entry(1, 1)])).toMatchObject({ ok: true });
  const again = await opened(disk.afterCrash(seededRandom(1), "everything"));
  expect(plain(again.entries)).toEqual(plain([entry(1, 1)]));
});

test("what was behind a torn record does not come back when the same record is written again", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.append([entry(1, 1), entry(2, 1)]);
  disk.damage("/log/0000000000000001.segment", 4096 + 45, Uint8Array.of(0));
  const torn = await opened(disk);
  expect(torn.entries).toEqual([]);
  await torn.log.append([entry(1, 1)]);
  const again = await opened(disk.afterCrash(seededRandom(1), "nothing"));
  expect(plain(again.entries)).toEqual(plain([entry(1, 1)]));
});

test("a disk that is full refuses a new segment, and takes it once there is space", async () => {
  const disk = new MemoryDisk();
  disk.capacityBytes = 3 * 4696;
  const { log } = await opened(disk);
  let last = 0;
  let refusal: unknown;
  while (!refusal && last < 100) {
    const appended = await log.append([entry(last + 1, 1)]);
    if (appended.ok) last++;
    else refusal = appended.error;
  }
  expect(refusal).toMatchObject({ reason: "full" });
  expect(disk.usedBytes).toBeLessThanOrEqual(disk.capacityBytes);
  expect(await log.truncateAfter(last - 1)).toMatchObject({ ok: true });
  expect(await log.compact(last - 1)).toMatchObject({ ok: true });
  expect(await log.append([entry(last, 2), entry(last + 1, 2, 400)])).toMatchObject({ ok: true });
  const again = await opened(disk.afterCrash(seededRandom(1), "nothing"));
  expect(again.log.lastIndex).toBe(last + 1);
});

/** A clock whose sleeps end when the test says so. */
class ManualClock implements Clock {
  readonly sleepers: (() => void)[] = [];
  now = () => 0;
  monotonicMs = () => 0;
  sleep(_ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.sleepers.push(resolve);
      signal?.addEventListener("abort", () => resolve());
    });
  }
  async wake(): Promise<void> {
    for (const wake of this.sleepers.splice(0)) wake();
    await Bun.sleep(0);
  }
}

test("a log is sealed once nothing was written for a while, by one timer, and then left alone", async () => {
  const disk = new MemoryDisk();
  const clock = new ManualClock();
  const { log } = await opened(disk, { clock, segmentBytes: 1 << 20 });
  await log.append([entry(1, 1)]);
  await log.append([entry(2, 1)]);
  expect(clock.sleepers).toHaveLength(1);
  // It was busy: another while.
  await clock.wake();
  expect(clock.sleepers).toHaveLength(1);
  const before = disk.operations;
  await clock.wake();
  expect(disk.operations).toBe(before + 1);
  expect(clock.sleepers).toHaveLength(0);
  await log.seal();
  await log.close();
  expect(disk.operations).toBe(before + 1);
  const again = await opened(disk, { clock });
  expect(plain(again.entries)).toEqual(plain([entry(1, 1), entry(2, 1)]));
  expect(clock.sleepers).toHaveLength(0);
  await again.log.append([entry(3, 1)]);
  expect(clock.sleepers).toHaveLength(1);
  await again.log.close();
});

test("any block of a log's end may be lost once it is sealed, and it is noticed", async () => {
  for (let count = 1; count < 60; count++) {
    const disk = new MemoryDisk();
    const { log } = await opened(disk, { segmentBytes: 16_384 });
    for (let index = 1; index <= count; index++) await log.append([entry(index, 1, 300)]);
    await log.seal();
    for (const name of await disk.list("/log")) {
      if (!name.endsWith(".segment")) continue;
      for (let offset = 4096; offset < 16_384; offset += 4096) {
        const rotten = disk.afterCrash(seededRandom(1), "nothing");
        rotten.damage(`/log/${name}`, offset, new Uint8Array(4096));
        const again = await SegmentLog.open({ ...options(rotten), segmentBytes: 16_384 });
        expect(again.ok ? again.value.log.lastIndex : again.error.reason).toBeOneOf([count, "corrupt"]);
      }
    }
  }
});

/** Turns a segment into one that an earlier Hive wrote. */
function asFormat1(disk: MemoryDisk, path: string): void {
  const header = disk.peek(path).subarray(0, 4096);
  header.writeUInt32LE(1, 8);
  header.writeUInt32LE(Bun.hash.crc32(header.subarray(0, 4092)), 4092);
  disk.damage(path, 0, header);
}

test("a log of format 1 is read, goes on, and gets nothing that its format has not", async () => {
  const segmentBytes = 16_384;
  for (const isSealedFirst of [true, false]) {
    const disk = new MemoryDisk();
    const first = await opened(disk, { segmentBytes });
    for (let index = 1; index <= 10; index++) await first.log.append([entry(index, 1, 1500)], { term: 1, vote: "a" });
    const paths = (await disk.list("/log")).filter((name) => name.endsWith(".segment")).map((name) => `/log/${name}`);
    expect(paths.length).toBeGreaterThan(1);
    for (const path of paths) asFormat1(disk, path);
    const { log, entries } = await opened(disk, { segmentBytes });
    expect(entries).toHaveLength(10);
    expect(log.hardState).toEqual({ term: 1, vote: "a" });
    const old = new Map(paths.map((path) => [path, disk.peek(path)]));
    if (isSealedFirst) await log.seal();
    await log.truncateAfter(9);
    await log.append([entry(10, 2)]);
    await log.seal();
    // A cut and a seal are in segments of the new format.
    for (const [path, bytes] of old) expect(disk.peek(path).equals(bytes)).toBe(true);
    const again = await opened(disk.afterCrash(seededRandom(1), "nothing"), { segmentBytes });
    expect(again.entries.map(({ term }) => term)).toEqual([...Array(9).fill(1), 2]);
  }
});

test("a file of a later format is refused as such, not as damage", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.close();
  const path = "/log/0000000000000001.segment";
  const header = disk.peek(path).subarray(0, 4096);
  header.writeUInt32LE(9, 8);
  header.writeUInt32LE(Bun.hash.crc32(header.subarray(0, 4092)), 4092);
  disk.damage(path, 0, header);
  const result = await SegmentLog.open(options(disk));
  expect(result).toMatchObject({ ok: false, error: { reason: "newer" } });
  expect(result.ok || result.error.message).toContain("format version 9");
});
