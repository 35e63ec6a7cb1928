import { expect, test } from "bun:test";
import { silentLog } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { StateMachine, StoredSnapshot } from "../consensus.ts";
import type { LogStorage } from "../kv/log/log-storage.ts";
import { diskError, MemoryDisk } from "../kv/memory-disk.ts";
import { snapshotName } from "../kv/snapshot-format.ts";
import { configurationOf } from "../raft/configuration.ts";
import { Snapshots } from "./snapshots.ts";

const point = (index: number) => ({ index, term: 1, configuration: configurationOf(["n1"]) });
const path = (index: number) => `/s/${snapshotName(index)}`;

/** Snapshots of 100 bytes each, written when told to; `cuts`: up to where the log was forgotten. */
function made() {
  const disk = new MemoryDisk();
  const cuts: number[] = [];
  const writes: ((result?: Result<never, string>) => Promise<void>)[] = [];
  const create = async (index: number) => void (await disk.open(path(index), "create"));
  const machine = {
    snapshot: (at) =>
      new Promise((resolve) => {
        writes.push(async (result) => {
          if (!result) await create(at.index);
          resolve(result ?? ok({ point: at, path: path(at.index), bytes: 100 }));
        });
      }),
  } satisfies Partial<StateMachine> as unknown as StateMachine;
  const storage = {
    compact: async (index) => {
      cuts.push(index);
      return ok(undefined);
    },
  } satisfies Partial<LogStorage> as unknown as LogStorage;
  const compacted: number[] = [];
  const kept = new Snapshots(
    {
      disk,
      directory: "/s",
      storage,
      machine,
      log: silentLog,
      bytesMin: 50,
      compacted: ({ index }) => compacted.push(index),
    },
    undefined,
    [],
  );
  const take = async (index: number) => {
    const taken = kept.take(point(index));
    await writes.shift()!();
    return taken;
  };
  const stored = async (index: number): Promise<StoredSnapshot> => {
    await create(index);
    return { point: point(index), path: path(index), bytes: 100 };
  };
  return { snapshots: kept, disk, cuts, compacted, writes, take, stored };
}
const indexes = async (disk: MemoryDisk) => (await disk.list("/s")).map((name) => Number.parseInt(name, 16)).sort();

test("one is due after so many bytes, then after as many as the last one has, and not while one is written", async () => {
  const { snapshots, writes } = made();
  snapshots.grew(49);
  expect(snapshots.isDue).toBe(false);
  snapshots.grew(1);
  expect(snapshots.isDue).toBe(true);
  const taken = snapshots.take(point(1));
  snapshots.grew(1000);
  expect(snapshots.isDue).toBe(false);
  await writes.shift()!();
  await taken;
  expect(snapshots.isDue).toBe(true);
  const failed = snapshots.take(point(2));
  await writes.shift()!(fail("no"));
  expect(await failed).toMatchObject({ ok: false });
  snapshots.grew(99);
  expect(snapshots.isDue).toBe(false);
  snapshots.grew(1);
  expect(snapshots.isDue).toBe(true);
});

test("the two newest are kept, and the log from the older one on", async () => {
  const { disk, cuts, compacted, take, snapshots } = made();
  for (const index of [1, 2, 3, 4]) await take(index);
  expect(await indexes(disk)).toEqual([3, 4]);
  expect(cuts).toEqual([1, 2, 3]);
  expect(compacted).toEqual([1, 2, 3]);
  expect(snapshots.newest?.point.index).toBe(4);
});

test("the log after a snapshot that is being sent is kept", async () => {
  const { cuts, take, snapshots } = made();
  await take(1);
  const letGo = snapshots.hold(snapshots.newest!.point);
  for (const index of [2, 3]) await take(index);
  letGo();
  await take(4);
  expect(cuts).toEqual([1, 1, 3]);
});

test("one from the leader replaces all, also one that is still being written", async () => {
  const { disk, cuts, writes, take, stored, snapshots } = made();
  await take(1);
  await take(2);
  const late = snapshots.take(point(3));
  await snapshots.installed(await stored(9));
  await writes.shift()!();
  await late;
  expect(await indexes(disk)).toEqual([9]);
  expect(snapshots.newest?.point.index).toBe(9);
  expect(cuts).toEqual([1]);
});

test("a file that can't be removed is removed later", async () => {
  const { disk, take } = made();
  disk.before = ({ kind }) => {
    if (kind === "remove") throw diskError("EIO");
  };
  for (const index of [1, 2, 3]) await take(index);
  expect(await indexes(disk)).toEqual([1, 2, 3]);
  disk.before = () => {};
  await take(4);
  expect(await indexes(disk)).toEqual([3, 4]);
});
