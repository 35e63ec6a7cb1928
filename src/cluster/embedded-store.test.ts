import { expect, test } from "bun:test";
import { present } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import { silentLog } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { ok } from "../lib/result.ts";
import { defineTable, put, type Store } from "../model/store.ts";
import { HISTORY_BYTES_MAX } from "./kv/history.ts";
import type { KeyValueStore } from "./kv/key-value-store.ts";
import { SegmentLog } from "./kv/log/segment-log.ts";
import { MemoryDisk } from "./kv/memory-disk.ts";
import { proposeOptimistically } from "./kv/optimistic.ts";
import { schemaOf } from "./kv/schema.ts";
import { typedStore } from "./kv/typed-store.ts";
import { type EmbeddedStoreOptions, openEmbeddedStore } from "./open-embedded-store.ts";
import { openRaftStore, openReplicatedStore } from "./open-raft-store.ts";
import { CONTRACT_TABLES, storeContract } from "./store-contract.ts";

/** A clock that stands still until it is told. */
class TestClock implements Clock {
  #now = 0;
  #sleepers = new Set<{ until: number; wake: () => void }>();
  now = () => this.#now;
  monotonicMs = () => this.#now;
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const sleeper = { until: this.#now + ms, wake: resolve };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", () => {
        this.#sleepers.delete(sleeper);
        resolve();
      });
    });
  }
  get sleepers(): number {
    return this.#sleepers.size;
  }
  async advance(ms: number): Promise<void> {
    this.#now += ms;
    for (const sleeper of [...this.#sleepers]) {
      if (sleeper.until > this.#now) continue;
      this.#sleepers.delete(sleeper);
      sleeper.wake();
    }
    await Bun.sleep(0);
  }
}

const optionsWith = (
  disk: MemoryDisk,
  clock: Clock,
  more: Partial<EmbeddedStoreOptions> = {},
): EmbeddedStoreOptions => ({
  directory: "/store",
  tables: CONTRACT_TABLES,
  disk,
  clock,
  random: seededRandom(3),
  log: silentLog,
  segmentBytes: 65536,
  snapshotBytesMin: 20_000,
  ...more,
});

async function opened(options: EmbeddedStoreOptions): Promise<Store> {
  const result = await openEmbeddedStore(options);
  return present(result.ok ? result.value : undefined, "the store opens");
}

storeContract("embedded", async () => {
  const clock = new TestClock();
  const store = await opened(optionsWith(new MemoryDisk(), clock));
  return { store, passTime: (ms) => clock.advance(ms), dispose: () => store.close() };
});

// As a node that doesn't write the log itself sees it: decisions on its own state, sent with what they read.
storeContract("embedded, by optimistic proposals", async () => {
  const clock = new TestClock();
  const schema = schemaOf(CONTRACT_TABLES);
  const result = await openReplicatedStore(optionsWith(new MemoryDisk(), clock), schema);
  const { kv } = present(result.ok ? result.value : undefined, "the store opens");
  const remote: KeyValueStore = {
    state: () => kv.state(),
    txn: (compares, operations) => kv.txn(compares, operations),
    propose: (decide) => proposeOptimistically(remote, decide),
    watch: (from, options) => kv.watch(from, options),
    barrier: () => kv.barrier(),
    grantLease: (ttlMs) => kv.grantLease(ttlMs),
    keepAlive: (lease) => kv.keepAlive(lease),
    revokeLease: (lease) => kv.revokeLease(lease),
    status: () => kv.status(),
    close: () => kv.close(),
  };
  return { store: typedStore(remote, schema), passTime: (ms) => clock.advance(ms), dispose: () => kv.close() };
});

type Note = { readonly id: string; readonly text: string };
const notes = defineTable({ name: "notes", version: 1, key: (note: Note) => note.id });
const note = (id: string, text = ""): ReturnType<typeof put> => put(notes, { id, text });
const write = async (store: Store, ...writes: ReturnType<typeof put>[]) => {
  const done = await store.transact(() => ok({ writes, value: undefined }));
  expect(done.ok).toBe(true);
};

test("a lease that was granted before a restart has its whole time again, and ends by one timer", async () => {
  const disk = new MemoryDisk();
  const clock = new TestClock();
  const options = optionsWith(disk, clock, { tables: [notes] });
  const first = await opened(options);
  const lease = await first.grantLease(1000);
  if (!lease.ok) throw new Error("no lease");
  const timers = clock.sleepers;
  for (let i = 0; i < 20; i++) await first.grantLease(5000 + i);
  expect(clock.sleepers).toBe(timers);
  await write(first, put(notes, { id: "a", text: "" }, { lease: lease.value }));
  await clock.advance(900);
  await first.close();
  expect(clock.sleepers).toBe(0);
  const second = await opened(options);
  await clock.advance(900);
  expect(second.read().count(notes)).toBe(1);
  await clock.advance(200);
  while (second.read().count(notes) > 0) await Bun.sleep(0);
  expect(second.status().leases).toBe(20);
  await second.close();
});

test("a watcher that falls behind is told so, and one that keeps up is not", async () => {
  const store = await opened(
    optionsWith(new MemoryDisk(), new TestClock(), { tables: [notes], historyChangesMax: 10 }),
  );
  const seen: number[] = [];
  const controller = new AbortController();
  const following = (async () => {
    for await (const event of store.watch([notes], { fromRevision: 0, signal: controller.signal })) {
      expect(event.kind).toBe("changes");
      seen.push(event.revision);
      if (event.revision === 30) break;
    }
  })();
  const slow = store.watch([notes], { fromRevision: 0 })[Symbol.asyncIterator]();
  for (let i = 1; i <= 30; i++) await write(store, note(`n${i}`));
  await following;
  expect(seen).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
  expect(await slow.next()).toEqual({ done: false, value: { kind: "compacted", revision: 20 } });
  expect((await slow.next()).done).toBe(true);
  const justLate = store.watch([notes], { fromRevision: 19 })[Symbol.asyncIterator]();
  expect((await justLate.next()).value).toEqual({ kind: "compacted", revision: 20 });
  expect((await justLate.next()).done).toBe(true);
  const inTime = store.watch([notes], { fromRevision: 20 })[Symbol.asyncIterator]();
  expect((await inTime.next()).value).toMatchObject({ kind: "changes", revision: 21 });
  await inTime.return?.();
  expect(store.status().watchers).toBe(0);
  await store.close();
});

test("a watcher that falls behind large values is told so, however few they are", async () => {
  const store = await opened({ ...optionsWith(new MemoryDisk(), new TestClock(), { tables: [notes] }) });
  const text = "x".repeat(1_000_000);
  const held = Math.floor(HISTORY_BYTES_MAX / text.length);
  for (let n = 0; n < held + 3; n++) await write(store, note("a", text));
  const late = store.watch([notes], { fromRevision: 0 })[Symbol.asyncIterator]();
  const { value } = await late.next();
  // Beside the text, a command has a few bytes.
  expect(value).toMatchObject({ kind: "compacted", revision: 3 });
  await store.close();
});

test("snapshots written under load bound the log, and nothing is lost between them", async () => {
  const disk = new MemoryDisk();
  const options = optionsWith(disk, new TestClock(), { tables: [notes], segmentBytes: 16384 });
  const store = await opened(options);
  const expected = new Map<string, string>();
  for (let round = 0; round < 120; round++) {
    const writes = Array.from({ length: 8 }, (_, i) => `n${(round * 3 + i * 11) % 90}`);
    for (const id of writes) expected.set(id, `${round}${"x".repeat(100)}`);
    await Promise.all(writes.map((id) => write(store, note(id, expected.get(id)))));
  }
  const { snapshotRevision, logBytes } = store.status();
  expect(snapshotRevision).toBeGreaterThan(500);
  expect(logBytes).toBeLessThan(120 * 8 * 150);
  await store.close();
  const names = await disk.list("/store");
  expect(names.filter((name) => name.endsWith(".snapshot"))).toHaveLength(2);
  expect(names.filter((name) => name.endsWith(".tmp"))).toEqual([]);
  const again = await opened(options);
  expect(again.read().revision).toBe(960);
  expect(
    new Map(
      again
        .read()
        .all(notes)
        .map(({ id, text }) => [id, text]),
    ),
  ).toEqual(expected);
  await again.close();
});

test("a table's new version migrates what is stored; an older Hive refuses it; unknown tables are kept", async () => {
  const disk = new MemoryDisk();
  const clock = new TestClock();
  const other = defineTable({ name: "other", version: 1, key: (record: Note) => record.id });
  const first = await opened(optionsWith(disk, clock, { tables: [notes, other] }));
  await write(first, note("a", "old"), put(other, { id: "o", text: "kept" }));
  await first.close();
  type Longer = { readonly id: string; readonly lines: readonly string[] };
  const longer = defineTable({
    name: "notes",
    version: 2,
    key: (record: Longer) => record.id,
    indexes: { byLine: (record) => record.lines },
    migrate: (stored) => ({ id: (stored as Note).id, lines: [(stored as Note).text] }),
  });
  const second = await opened(optionsWith(disk, clock, { tables: [longer] }));
  expect(second.read().lookup(longer, "byLine", "old")).toEqual([{ id: "a", lines: ["old"] }]);
  await write(second, put(longer, { id: "b", lines: ["new"] }));
  await second.close();
  const older = await openEmbeddedStore(optionsWith(disk, clock, { tables: [notes] }));
  expect(older).toMatchObject({ ok: false, error: { reason: "newer" } });
  const third = await opened(optionsWith(disk, clock, { tables: [longer, other] }));
  expect(third.read().get(other, "o")?.text).toBe("kept");
  await third.close();
});

test("a long log is replayed without its indexes, which are made once at the end", async () => {
  let made = 0;
  const byText = (note: Note) => {
    made++;
    return note.text;
  };
  const indexed = defineTable({ ...notes, indexes: { byText } });
  const options = optionsWith(new MemoryDisk(), new TestClock(), { tables: [indexed] });
  const first = await opened(options);
  for (let n = 0; n < 100; n++) await write(first, put(indexed, { id: `n${n % 10}`, text: `${n}` }));
  await first.close();
  made = 0;
  const second = await opened(options);
  expect(made).toBe(10);
  expect(second.read().lookup(indexed, "byText", "95")).toEqual([{ id: "n5", text: "95" }]);
  await second.close();
});

test("recovered records are those that were live: same data, same order, same revisions", async () => {
  const disk = new MemoryDisk();
  const options = optionsWith(disk, new TestClock(), { tables: [notes] });
  const store = await opened(options);
  await write(store, put(notes, { id: "a", text: "t", gone: undefined, nested: { z: 1, a: [null, true] } } as Note));
  const live = store.read().get(notes, "a");
  await store.close();
  const again = await opened(options);
  expect(again.read().get(notes, "a")).toStrictEqual(live!);
  expect(Object.keys(live!)).toEqual(["id", "text", "nested"]);
  await again.close();
});

test("a log of the first version, without elections, sessions or an identity, is taken over and goes on", async () => {
  const disk = new MemoryDisk();
  const old = await SegmentLog.open({ disk, directory: "/store", segmentBytes: 65_536, log: silentLog });
  const { log } = present(old.ok ? old.value : undefined, "the log opens");
  const texts = [
    '["g","00000000000000aa",1000]',
    '["w",[["p","notes/a",1,"00000000000000aa",{"id":"a","text":"x"}]]]',
    '["n"]',
  ];
  // Its entries had term 1, and nobody ever voted.
  await log.append(texts.map((text, i) => ({ index: i + 1, term: 1, data: Buffer.from(text) })));
  await log.close();
  const options = optionsWith(disk, new TestClock(), { tables: [notes] });
  const opened = await openRaftStore(options);
  const { store, consensus } = present(opened.ok ? opened.value : undefined, "the store opens");
  expect(store.read().all(notes)).toEqual([{ id: "a", text: "x" }]);
  expect(store.status()).toMatchObject({ role: "single", health: "ok", leases: 1, revision: 1, term: 2 });
  await write(store, note("b"));
  await store.close();
  const again = await openRaftStore(options);
  const second = present(again.ok ? again.value : undefined, "the store opens");
  expect(second.consensus.id).toBe(consensus.id);
  expect(second.store.read().count(notes)).toBe(2);
  await second.store.close();
});
