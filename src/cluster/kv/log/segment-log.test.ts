import { expect, test } from "bun:test";
import fc from "fast-check";
import { silentLog } from "../../../lib/log.ts";
import { seededRandom } from "../../../lib/random.ts";
import { diskError, MemoryDisk } from "../memory-disk.ts";
import type { Entry, HardState } from "./log-storage.ts";
import { SegmentLog } from "./segment-log.ts";

const options = (disk: MemoryDisk) => ({ disk, directory: "/log", segmentBytes: 4096 + 600, log: silentLog });

async function opened(disk: MemoryDisk): Promise<{ log: SegmentLog; entries: readonly Entry[] }> {
  const result = await SegmentLog.open(options(disk));
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

test("after a failed sync nothing is written or read until the log is opened anew", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.append([entry(1, 1)]);
  disk.before = ({ kind }) => {
    if (kind === "datasync") throw diskError("EIO");
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

test("a read of a rotten record says so and gives nothing", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.append([entry(1, 1), entry(2, 1)]);
  disk.damage("/log/0000000000000001.segment", 4096 + 60, Uint8Array.of(0xff));
  expect(await log.read(1, 2, 1e6)).toMatchObject({ ok: false, error: { reason: "corrupt" } });
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
