/** A node with peers and a damaged log: what it keeps, what it owes, and that no crash makes it forget either. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { silentLog } from "../../../lib/log.ts";
import { seededRandom } from "../../../lib/random.ts";
import { diskError, MemoryDisk } from "../memory-disk.ts";
import { createIdentity, IDENTITY_NAME } from "./identity.ts";
import { type Entry, type HardState, LOG_LOST, UNKNOWN_VOTE } from "./log-storage.ts";
import { SegmentLog } from "./segment-log.ts";

const BLOCK_BYTES = 4096;
const SEGMENT_BYTES = 4 * BLOCK_BYTES;

const open = (disk: MemoryDisk, snapshot = { index: 0, term: 0 }, repairable = true) =>
  SegmentLog.open({ disk, directory: "/log", segmentBytes: SEGMENT_BYTES, log: silentLog, repairable, snapshot });

async function opened(disk: MemoryDisk, snapshot = { index: 0, term: 0 }) {
  const result = await open(disk, snapshot);
  if (!result.ok) throw new Error(result.error.message);
  return result.value;
}

const entry = (index: number, term: number, length: number): Entry => ({
  index,
  term,
  data: Buffer.alloc(length, `${index}.${term};`),
});
const plain = (entries: readonly Entry[]) =>
  entries.map(({ index, term, data }) => `${index}.${term} ${Bun.hash.crc32(data)}`);

/** What a node promised to hold, and what its snapshot holds. */
type Truth = {
  readonly disk: MemoryDisk;
  readonly entries: readonly Entry[];
  readonly hardState: HardState;
  readonly snapshot: { readonly index: number; readonly term: number };
};

/** The life of a follower: appends, terms, leaders that disagree, snapshots; and an orderly end, which seals the log. */
async function live(seed: number, { cuts = true, snapshots = true, steps = 30 } = {}): Promise<Truth> {
  const random = seededRandom(seed);
  const chance = (below: number) => random.bytes(2).reduce((sum, byte) => sum * 256 + byte, 0) % below;
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  let entries: Entry[] = [];
  let hardState: HardState = { term: 1, vote: "" };
  let snapshot = { index: 0, term: 0 };
  const must = (result: { readonly ok: boolean }) => expect(result.ok).toBe(true);
  for (let i = 0; i < steps; i++) {
    const last = entries.at(-1)?.index ?? snapshot.index;
    const kind = chance(10);
    if (kind === 0) {
      hardState = { term: hardState.term + 1, vote: `n${chance(3)}` };
      must(await log.append([], hardState));
    } else if (kind === 1 && cuts && last > snapshot.index) {
      const keep = Math.max(snapshot.index, last - 1 - chance(12));
      must(await log.truncateAfter(keep));
      entries = entries.filter(({ index }) => index <= keep);
      hardState = { term: hardState.term + 1, vote: "" };
      const other = entry(keep + 1, hardState.term, chance(500));
      must(await log.append([other], hardState));
      entries.push(other);
    } else if (kind === 2 && snapshots && last > snapshot.index + 4) {
      const index = last - 1 - chance(3);
      snapshot = { index, term: log.termOf(index)! };
      // The log goes back to the snapshot before, or further.
      must(await log.compact(Math.max(0, index - chance(30))));
    } else if (kind === 3) {
      must(await log.seal());
    } else {
      const more = Array.from({ length: 1 + chance(4) }, (_, k) =>
        entry(last + 1 + k, hardState.term, chance(5) === 0 ? chance(5000) : chance(400)),
      );
      must(await log.append(more, i === 0 ? hardState : undefined));
      entries.push(...more);
    }
  }
  if (hardState.term === 1) must(await log.append([], hardState));
  await log.close();
  return { disk, entries, hardState, snapshot };
}

const segmentsOf = async (disk: MemoryDisk) =>
  (await disk.list("/log"))
    .filter((name) => name.endsWith(".segment"))
    .toSorted()
    .map((name) => `/log/${name}`);

type Wound = "flip" | "lose" | "misdirect" | "unreadable" | "remove";

/** Does one thing to one place of a log. What a block takes of a file is at most all of its records, or its header. */
async function wound(disk: MemoryDisk, kind: Wound, where: number): Promise<string> {
  const paths = await segmentsOf(disk);
  const path = paths[where % paths.length]!;
  const bytes = disk.peek(path);
  const dataEnd = bytes.findLastIndex((byte) => byte !== 0) + 1;
  const offset = Math.floor(where / paths.length) % dataEnd;
  const block = offset - (offset % BLOCK_BYTES);
  if (kind === "flip") disk.damage(path, offset, Uint8Array.of(bytes[offset]! ^ (1 + (where % 255))));
  if (kind === "lose") disk.damage(path, block, new Uint8Array(BLOCK_BYTES));
  if (kind === "misdirect") {
    // The block of another file, header onto header or records onto records.
    const other = disk.peek(paths[(where + 1) % paths.length]!);
    const from = block === 0 || where % 3 === 0 ? block : BLOCK_BYTES;
    disk.damage(path, block, other.subarray(from, from + BLOCK_BYTES));
  }
  if (kind === "unreadable") {
    disk.before = ({ kind: operation, path: of, offset: from, length }) => {
      const isHit = operation === "read" && of.startsWith(path) && from < block + BLOCK_BYTES && block < from + length;
      if (isHit) throw diskError("EIO");
    };
  }
  // That the last file is gone is the one thing that nothing shows.
  if (kind === "remove" && path !== paths.at(-1)) await disk.remove(path);
  return `${kind} ${path} ${offset}`;
}

const copyOf = (disk: MemoryDisk) => disk.afterCrash(seededRandom(0), "everything");

/** Nothing that was promised is forgotten: it is in the log, or owed. */
function expectKept(truth: Truth, { log, entries }: { log: SegmentLog; entries: readonly Entry[] }): void {
  const last = truth.entries.at(-1)?.index ?? truth.snapshot.index;
  expect(log.firstIndex).toBeLessThanOrEqual(truth.snapshot.index + 1);
  expect(log.lastIndex).toBeGreaterThanOrEqual(truth.snapshot.index);
  const { damage } = log;
  if (!damage) {
    expect(plain(entries)).toEqual(plain(truth.entries.filter(({ index }) => index >= log.firstIndex)));
    expect(log.lastIndex).toBe(last);
    expect(log.hardState).toEqual(truth.hardState);
    return;
  }
  expect(damage.lastGoodIndex).toBe(log.lastIndex);
  expect(damage.recoverThrough).toBeGreaterThanOrEqual(last);
  expect(damage.recoverThrough).toBeGreaterThan(log.lastIndex);
  expect(damage.recoverThrough).toBeLessThan(LOG_LOST);
  expect(damage.termAtLeast).toBeGreaterThanOrEqual(truth.hardState.term);
  expect(log.hardState).toEqual({ term: damage.termAtLeast, vote: UNKNOWN_VOTE });
  expect(damage.voteUnknown).toBe(true);
}

/** What a leader that has everything does for the node; then the debt is paid. */
async function recover(truth: Truth, log: SegmentLog): Promise<void> {
  const { damage } = log;
  if (!damage) return;
  const term = damage.termAtLeast + 1;
  const held = log.lastIndex < log.firstIndex ? undefined : await log.read(log.firstIndex, log.lastIndex, 1e9);
  const own = new Map((held?.ok ? held.value : []).map((entry) => [entry.index, plain([entry])[0]]));
  const lacking = truth.entries.filter(
    (entry) => entry.index >= log.firstIndex && own.get(entry.index) !== plain([entry])[0],
  );
  const from = lacking[0]?.index ?? (truth.entries.at(-1)?.index ?? truth.snapshot.index) + 1;
  expect((await log.truncateAfter(Math.max(from - 1, log.firstIndex - 1))).ok).toBe(true);
  const more = truth.entries.filter(({ index }) => index > log.lastIndex);
  expect((await log.append(more, { term, vote: "" })).ok).toBe(true);
  while (log.lastIndex < damage.recoverThrough)
    expect((await log.append([entry(log.lastIndex + 1, term, 10)])).ok).toBe(true);
  expect((await log.recovered()).ok).toBe(true);
  expect(log.damage).toBeUndefined();
}

const wounds = fc.constantFrom<Wound>("flip", "flip", "lose", "misdirect", "unreadable", "remove");

test("one wound anywhere: what a node had acknowledged is in its log or owed, and so is its vote", async () => {
  let owed = 0;
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 1e6 }), wounds, fc.nat(), async (seed, kind, where) => {
      const truth = await live(seed);
      const disk = copyOf(truth.disk);
      await wound(disk, kind, where);
      const first = await opened(disk, truth.snapshot);
      expectKept(truth, first);
      // The same again after a crash that loses all it may.
      disk.before = () => {};
      const second = await opened(disk.afterCrash(seededRandom(seed), "nothing"), truth.snapshot);
      expect(second.log.damage).toEqual(first.log.damage);
      expect(plain(second.entries)).toEqual(plain(first.entries));
      if (!first.log.damage) return;
      owed++;
      await recover(truth, second.log);
      await second.log.close();
    }),
    { numRuns: 400 },
  );
  expect(owed).toBeGreaterThan(100);
}, 60_000);

test("a debt is paid once, for good, and the log is then what the leader made it", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const truth = await live(seed);
    const disk = copyOf(truth.disk);
    await wound(disk, "lose", seed * 7919);
    const { log } = await opened(disk, truth.snapshot);
    if (!log.damage) continue;
    const { recoverThrough } = log.damage;
    await recover(truth, log);
    const again = await opened(disk.afterCrash(seededRandom(seed), "nothing"), truth.snapshot);
    expect(again.log.damage).toBeUndefined();
    expect(again.log.lastIndex).toBeGreaterThanOrEqual(recoverThrough);
    const same = truth.entries.filter(({ index }) => index >= again.log.firstIndex);
    expect(plain(again.entries.slice(0, same.length))).toEqual(plain(same));
  }
});

test("a crash at any operation of a repair: the debt stands, and no more of the log is lost than without it", async () => {
  for (let seed = 1; seed <= 24; seed++) {
    const truth = await live(seed, { cuts: seed % 2 === 0 });
    const wounded = copyOf(truth.disk);
    await wound(wounded, (["flip", "lose", "misdirect", "remove"] as const)[seed % 4]!, seed * 104_729);
    const whole = copyOf(wounded);
    const expected = await opened(whole, truth.snapshot);
    expectKept(truth, expected);
    for (let point = 1; point <= whole.operations; point++) {
      for (const keep of ["nothing", "some", "everything", "kill"] as const) {
        const disk = copyOf(wounded);
        let left = point;
        disk.before = () => {
          if (--left <= 0) throw diskError("CRASH");
        };
        expect((await open(disk, truth.snapshot)).ok).toBe(false);
        const after = keep === "kill" ? disk.afterKill() : disk.afterCrash(seededRandom(seed + point), keep);
        const again = await opened(after, truth.snapshot);
        expect(again.log.damage).toEqual(expected.log.damage);
        expect(plain(again.entries)).toEqual(plain(expected.entries));
        expect(again.log.hardState).toEqual(expected.log.hardState);
      }
    }
  }
}, 60_000);

test("a crash at any operation while it recovers: the debt stands until it was paid", async () => {
  let paid = 0;
  for (let seed = 1; seed <= 8; seed++) {
    const truth = await live(seed);
    const wounded = copyOf(truth.disk);
    await wound(wounded, "lose", seed * 15_485_863);
    const { log } = await opened(wounded, truth.snapshot);
    if (!log.damage) continue;
    const { recoverThrough, termAtLeast } = log.damage;
    for (let point = 1; ; point++) {
      const disk = copyOf(wounded);
      const { log } = await opened(disk, truth.snapshot);
      let left = point;
      disk.before = () => {
        if (--left <= 0) throw diskError("CRASH");
      };
      const isPaid = await recover(truth, log).then(
        () => true,
        () => false,
      );
      const { log: again } = await opened(disk.afterCrash(seededRandom(point), "some"), truth.snapshot);
      if (isPaid) {
        expect(again.damage).toBeUndefined();
        paid++;
        break;
      }
      // The last step may have got through without anyone having been told.
      if (!again.damage) expect(again.lastIndex).toBeGreaterThanOrEqual(recoverThrough);
      else expect(again.damage).toMatchObject({ recoverThrough, termAtLeast });
      expect(again.hardState.term).toBeGreaterThanOrEqual(termAtLeast);
    }
  }
  expect(paid).toBeGreaterThan(4);
});

test("a second wound before the first has healed takes nothing off the debt", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 1e6 }),
      fc.nat(),
      fc.constantFrom<Wound>("flip", "lose", "misdirect"),
      fc.nat(),
      async (seed, where, kind, then) => {
        const truth = await live(seed);
        const disk = copyOf(truth.disk);
        await wound(disk, "lose", where);
        const { log } = await opened(disk, truth.snapshot);
        const owed = log.damage?.recoverThrough ?? 0;
        await log.close();
        await wound(disk, kind, then);
        const again = await opened(disk, truth.snapshot);
        expectKept(truth, again);
        if (owed > 0) expect(again.log.damage?.recoverThrough).toBeGreaterThanOrEqual(owed);
      },
    ),
    { numRuns: 300 },
  );
}, 60_000);

test("the debt goes along through new segments, cuts, snapshots and new starts", async () => {
  const truth = await live(3, { cuts: false, snapshots: false });
  const disk = copyOf(truth.disk);
  const [path] = await segmentsOf(disk);
  disk.damage(path!, 5000, new Uint8Array(100));
  const { log } = await opened(disk);
  const { recoverThrough, termAtLeast } = log.damage!;
  const reopened = async () => (await opened(disk.afterCrash(seededRandom(1), "nothing"))).log;
  for (let i = 0; i < 12; i++) await log.append([entry(log.lastIndex + 1, termAtLeast, 3000)]);
  expect((await reopened()).damage).toMatchObject({ recoverThrough, termAtLeast });
  for (let i = 0; i < 12; i++) {
    await log.append([entry(log.lastIndex + 1, termAtLeast, 3000)]);
    await log.seal();
    expect((await reopened()).damage).toMatchObject({ recoverThrough, termAtLeast });
  }
  await log.truncateAfter(log.lastIndex - 8);
  await log.compact(log.lastIndex - 3);
  expect(
    (await opened(disk.afterCrash(seededRandom(1), "nothing"), { index: log.lastIndex - 3, term: 1 })).log.damage,
  ).toMatchObject({ recoverThrough });
  await log.restartAfter(recoverThrough + 5, termAtLeast);
  const again = await opened(disk.afterCrash(seededRandom(1), "nothing"), { index: recoverThrough + 5, term: 1 });
  expect(again.log.damage).toMatchObject({ recoverThrough, termAtLeast, lastGoodIndex: recoverThrough + 5 });
  expect((await again.log.recovered()).ok).toBe(true);
  expect(again.log.damage).toBeUndefined();
});

test("a log that was cut is no log for a node that is alone", async () => {
  const truth = await live(3, { cuts: false, snapshots: false });
  const disk = copyOf(truth.disk);
  const [path] = await segmentsOf(disk);
  disk.damage(path!, 5000, new Uint8Array(100));
  const refused = await open(copyOf(disk), undefined, false);
  expect(refused).toMatchObject({ ok: false, error: { reason: "corrupt" } });
  await opened(disk);
  expect(await open(disk, undefined, false)).toMatchObject({ ok: false, error: { reason: "corrupt" } });
});

test("all of the log before the damage stays", async () => {
  const truth = await live(5, { cuts: false, snapshots: false, steps: 20 });
  const count = truth.entries.length;
  expect(count).toBeGreaterThan(25);
  const marks = truth.entries.map(({ index, term, data }) => ({ index, head: plain([{ index, term, data }]) }));
  for (const path of await segmentsOf(truth.disk)) {
    const bytes = truth.disk.peek(path);
    // Where each entry's record begins: its index is in its header.
    for (let offset = BLOCK_BYTES; offset < bytes.length; offset += 8) {
      if (bytes.readUInt32LE(offset) !== 0x524c5648 || bytes[offset + 36] !== 1) continue;
      const index = bytes.readUInt32LE(offset + 16);
      const disk = copyOf(truth.disk);
      disk.damage(path, offset + 20, Uint8Array.of(1));
      const { log, entries } = await opened(disk);
      expect(entries).toHaveLength(index - 1);
      expect(entries.map((kept) => ({ index: kept.index, head: plain([kept]) }))).toEqual(marks.slice(0, index - 1));
      expect(log.damage).toMatchObject({ lastGoodIndex: index - 1, recoverThrough: count });
    }
  }
});

test("damage in what the snapshot holds costs nothing, and is set aside", async () => {
  const truth = await live(11, { cuts: false, snapshots: false, steps: 60 });
  const paths = await segmentsOf(truth.disk);
  expect(paths.length).toBeGreaterThan(3);
  for (const [i, path] of paths.entries()) {
    const disk = copyOf(truth.disk);
    disk.damage(path, 5000, Buffer.alloc(64, 0xa5));
    const { log, entries } = await opened(disk, { index: truth.entries.at(-1)!.index, term: truth.hardState.term });
    if (i === paths.length - 1) continue;
    expect(log.damage).toBeUndefined();
    expect(log.hardState).toEqual(truth.hardState);
    expect(log.firstIndex).toBeGreaterThan(1);
    expect(plain(entries)).toEqual(plain(truth.entries.filter(({ index }) => index >= log.firstIndex)));
    expect(await disk.list("/log")).toContain(`${path.slice(5)}.damaged`);
  }
});

test("damaged segments are kept for a look, up to a number", async () => {
  const disk = new MemoryDisk();
  for (let round = 1; round <= 30; round++) {
    const { log } = await opened(disk);
    for (let i = 0; i < 3; i++) await log.append([entry(log.lastIndex + 1, round, 5000)]);
    await log.close();
    for (const path of await segmentsOf(disk)) disk.damage(path, 0, new Uint8Array(8));
  }
  const aside = (await disk.list("/log")).filter((name) => name.endsWith(".damaged"));
  expect(aside.length).toBeGreaterThan(4);
  expect(aside.length).toBeLessThanOrEqual(8);
  expect((await opened(disk)).log.damage).toMatchObject({ recoverThrough: expect.any(Number) });
});

test("a log that is gone is noticed by the identity that is left, and the loss is remembered", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await createIdentity(disk, "/log", { clusterId: "c", nodeId: "n", createdAt: "2024-01-01T00:00:00Z" });
  await log.append([entry(1, 1, 10)]);
  await log.close();
  for (const path of await segmentsOf(disk)) await disk.remove(path);
  const alone = await open(copyOf(disk), undefined, false);
  expect(alone).toMatchObject({ ok: false, error: { reason: "corrupt" } });
  expect(alone.ok || alone.error.message).toContain(IDENTITY_NAME);
  const lost = { recoverThrough: LOG_LOST, voteUnknown: true };
  const first = await opened(disk, { index: 7, term: 2 });
  expect(first.log.damage).toMatchObject({ ...lost, lastGoodIndex: 7, termAtLeast: 2 });
  expect(first.log.lastIndex).toBe(7);
  await first.log.append([entry(8, 3, 10)], { term: 3, vote: "" });
  const second = await opened(disk.afterCrash(seededRandom(1), "nothing"), { index: 7, term: 2 });
  expect(second.log.damage).toMatchObject({ ...lost, lastGoodIndex: 8, voteUnknown: false });
  expect(second.log.recovered()).rejects.toThrow("never recovered");
});

test("a log of which nothing is legible is lost", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.append([entry(1, 1, 10)]);
  const [path] = await segmentsOf(disk);
  disk.damage(path!, 0, new Uint8Array(SEGMENT_BYTES));
  expect((await opened(disk)).log.damage).toMatchObject({ recoverThrough: LOG_LOST });
});

test("a log whose start is missing starts over after the snapshot, and owes the rest", async () => {
  const truth = await live(11, { cuts: false, snapshots: false, steps: 60 });
  const disk = copyOf(truth.disk);
  await disk.remove((await segmentsOf(disk))[0]!);
  const { log, entries } = await opened(disk, { index: 2, term: 1 });
  expect(entries).toEqual([]);
  expect(log.firstIndex).toBe(3);
  expect(log.termOf(2)).toBe(1);
  expect(log.damage).toMatchObject({ lastGoodIndex: 2, recoverThrough: truth.entries.length });
});

test("what was cut off before the damage is not owed", async () => {
  for (const across of [false, true]) {
    const disk = new MemoryDisk();
    const { log } = await opened(disk);
    await log.append([entry(1, 1, 100), entry(2, 1, 100)], { term: 1, vote: "" });
    await log.append(Array.from({ length: 40 }, (_, i) => entry(3 + i, 1, 20)));
    if (across) await log.append([entry(43, 1, 12_000)]);
    await log.truncateAfter(2);
    await log.append([entry(3, 2, 100), entry(4, 2, 100)], { term: 2, vote: "" });
    await log.close();
    const [path] = await segmentsOf(disk);
    // The first entry, behind the hard state.
    disk.damage(path!, BLOCK_BYTES + 60, Buffer.alloc(50, 0xa5));
    const again = await opened(disk);
    expect(again.log.damage).toMatchObject({ lastGoodIndex: 0, recoverThrough: 4, termAtLeast: 2 });
  }
});

test("what the disk can't read is damage, also where a crash might have torn it", async () => {
  const disk = new MemoryDisk();
  const { log } = await opened(disk);
  await log.append([entry(1, 1, 100)]);
  await log.append([entry(2, 1, 6000)]);
  const block = 2 * BLOCK_BYTES;
  disk.before = ({ kind, offset, length }) => {
    if (kind === "read" && offset < block + BLOCK_BYTES && block < offset + length) throw diskError("EIO");
  };
  expect(await open(copyOf(disk), undefined, false)).toMatchObject({ ok: true });
  expect(await open(disk, undefined, false)).toMatchObject({ ok: false, error: { reason: "failed" } });
  const again = await opened(disk);
  expect(again.log.damage).toMatchObject({ lastGoodIndex: 1, recoverThrough: 2 });
  // The file stays, for its good part; what is cut off is not looked at again.
  const third = await opened(disk);
  expect(third.log.damage).toEqual(again.log.damage);
  expect(plain(third.entries)).toEqual(plain([entry(1, 1, 100)]));
});
