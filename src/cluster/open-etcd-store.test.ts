import { afterAll, beforeAll, expect, test } from "bun:test";
import { startEtcd, type TestEtcd } from "../../test/support/etcd.ts";
import { WarpClock } from "../../test/support/warp-clock.ts";
import { present } from "../lib/assert.ts";
import { silentLog } from "../lib/log.ts";
import { systemRandom } from "../lib/random.ts";
import { ok } from "../lib/result.ts";
import {
  type AnyTable,
  changesOf,
  defineTable,
  type LeaseId,
  put,
  remove,
  type Store,
  type Write,
} from "../model/store.ts";
import { COMMIT_BYTES_MAX } from "./etcd/committer.ts";
import { afterPrefix, bytes } from "./etcd/gateway-json.ts";
import { MemoryDisk } from "./kv/memory-disk.ts";
import { type EtcdStoreOptions, openEtcdStore } from "./open-etcd-store.ts";
import { CONTRACT_TABLES, storeContract } from "./store-contract.ts";

let etcd: TestEtcd;
beforeAll(async () => {
  etcd = await startEtcd();
});
afterAll(() => etcd?.stop());

let clouds = 0;
const freshCloud = () => `/cloud/${++clouds}`;
const optionsFor = (cloud: string, tables: readonly AnyTable[], more: Partial<EtcdStoreOptions> = {}) => ({
  url: `etcd://${etcd.address}${cloud}`,
  tables,
  clock: new WarpClock(),
  random: systemRandom,
  log: silentLog,
  ...more,
});
async function opened(...options: Parameters<typeof optionsFor>): Promise<Store> {
  const result = await openEtcdStore(optionsFor(...options));
  if (!result.ok) throw new Error(result.error.message);
  return result.value;
}

storeContract("etcd", async () => {
  const clock = new WarpClock();
  const store = await opened(freshCloud(), CONTRACT_TABLES, { clock });
  return { store, passTime: (ms) => clock.advance(ms), dispose: () => store.close() };
});

type Note = { readonly id: string; readonly text: string };
const notes = defineTable({
  name: "notes",
  version: 1,
  key: (note: Note) => note.id,
  indexes: { byText: (note) => note.text },
});
const note = (id: string, text = "") => put(notes, { id, text });
const write = async (store: Store, ...writes: Write[]) => {
  const done = await store.transact(() => ok({ writes, value: undefined }));
  if (!done.ok) throw new Error(JSON.stringify(done.error));
};

test("what another node wrote is here after a barrier, the same to the last revision and stamp", async () => {
  const cloud = freshCloud();
  const [first, second] = [await opened(cloud, [notes]), await opened(cloud, [notes])];
  const odd = ["a/b", "ä𐍈", "\ud800", '"\\', "\u0001", "0"];
  await write(first, ...odd.map((id) => note(id, "odd")));
  await Promise.all(odd.map((id) => write(first, note(id, "again"))));
  await write(first, remove(notes, "0"));
  expect((await second.barrier()).ok).toBe(true);
  const third = await opened(cloud, [notes]);
  for (const store of [second, third]) {
    const [here, there] = [store.read(), first.read()];
    expect(here.revision).toBe(8);
    expect(here.all(notes)).toStrictEqual([...there.all(notes)]);
    expect(here.lookup(notes, "byText", "again").map(({ id }) => id)).toEqual(odd.slice(0, -1).sort());
    for (const id of odd) {
      const stamps = [here.stamp(notes, id), there.stamp(notes, id)].map(
        (stamp) => stamp && [stamp.createRevision, stamp.modRevision],
      );
      expect(stamps[0]).toEqual(stamps[1]);
    }
  }
  for (const store of [first, second, third]) await store.close();
});

test("clouds that share an etcd see nothing of each other", async () => {
  const [one, other] = ["/shared", "/shared2"];
  const [first, second] = [await opened(one, [notes]), await opened(other, [notes])];
  await write(first, note("a"));
  await second.barrier();
  expect(second.read().count(notes)).toBe(0);
  expect(second.read().revision).toBe(0);
  await first.close();
  await second.close();
});

test("a watcher hears of another node's writes, each commit once and in order", async () => {
  const cloud = freshCloud();
  const [writer, watcher] = [await opened(cloud, [notes]), await opened(cloud, [notes])];
  const heard: string[] = [];
  let revision = 0;
  const hearing = (async () => {
    for await (const event of watcher.watch([notes], { fromRevision: 0 })) {
      if (event.kind !== "changes") throw new Error("compacted");
      expect(event.revision).toBeGreaterThan(revision);
      revision = event.revision;
      for (const { key, before, after } of changesOf(event.changes, notes)) {
        expect(before?.text).toBe(heard.findLast((at) => at.startsWith(`${key}:`))?.slice(key.length + 1));
        heard.push(`${key}:${after?.text}`);
      }
      if (revision === 60) return;
    }
  })();
  for (let i = 0; i < 20; i++) {
    await Promise.all([
      write(writer, note("x", `${i}`)),
      write(writer, note("y", `${i}`)),
      write(writer, note("x", `${i}!`)),
    ]);
  }
  await hearing;
  // Two writes of a key that were committed together are one change to other nodes, and never an old value.
  expect(heard.filter((at) => at.endsWith("!"))).toEqual(Array.from({ length: 20 }, (_, i) => `x:${i}!`));
  expect(heard.filter((at) => at.startsWith("y"))).toHaveLength(20);
  await writer.close();
  await watcher.close();
});

test("a transaction of 8 MiB and of thousands of writes fits into an etcd with its default limits", async () => {
  const cloud = freshCloud();
  const [writer, other] = [await opened(cloud, [notes]), await opened(cloud, [notes])];
  const events = other.watch([notes])[Symbol.asyncIterator]();
  const first = events.next();
  const large = Array.from({ length: 7 }, (_, i) => note(`large-${i}`, "x".repeat(1_000_000)));
  await write(writer, ...large, ...Array.from({ length: 1000 }, (_, i) => note(`n${i}`)));
  const event = (await first).value;
  expect(event.kind === "changes" && event.changes.length).toBe(1007);
  // The other one commits next, whoever has to settle the large one.
  await write(other, note("n0", "newer"));
  await write(writer, ...Array.from({ length: 200 }, (_, i) => remove(notes, `n${i + 1}`)));
  await other.barrier();
  const third = await opened(cloud, [notes]);
  for (const store of [other, third]) {
    expect(store.read().revision).toBe(3);
    expect(store.read().count(notes)).toBe(807);
    expect(store.read().get(notes, "n0")?.text).toBe("newer");
  }
  for (const store of [writer, other, third]) await store.close();
  // Nothing is left of how it came there.
  const prefix = `${cloud}/staged/`;
  const left = await etcd.call("kv/range", { key: bytes(prefix), range_end: bytes(`${cloud}/staged0`) });
  expect(left).not.toHaveProperty("kvs");
}, 60_000);

test("a staged commit whose writer is gone is seen, and settled by whoever writes next", async () => {
  const cloud = freshCloud();
  const writer = await opened(cloud, [notes]);
  await write(writer, ...Array.from({ length: 300 }, (_, i) => note(`n${i}`, "new")));
  await writer.close();
  // Put back to the moment after the commit: records not there yet, chunks still there.
  const { kvs } = (await etcd.call("kv/range", {
    key: bytes(`${cloud}/records/`),
    range_end: bytes(`${cloud}/records0`),
  })) as { kvs: { key: string; value: string }[] };
  const text = (base64: string) => Buffer.from(base64, "base64").toString();
  const rows = kvs.map(({ key, value }) => [text(key).slice(cloud.length + 1), JSON.parse(text(value))]);
  const head = {
    revision: 1,
    previous: 0,
    writer: "gone",
    sequence: 1,
    rows: 300,
    staged: { commit: "gone-1", chunks: 3 },
  };
  await etcd.call("kv/deleterange", { key: bytes(`${cloud}/records/`), range_end: bytes(`${cloud}/records0`) });
  for (let i = 0; i < 3; i++) {
    const chunk = JSON.stringify(rows.slice(i * 100, i * 100 + 100));
    await etcd.call("kv/put", { key: bytes(`${cloud}/staged/gone-1/${i}`), value: bytes(chunk) });
  }
  await etcd.call("kv/put", { key: bytes(`${cloud}/head`), value: bytes(JSON.stringify(head)) });
  const next = await opened(cloud, [notes]);
  expect(next.read().count(notes)).toBe(300);
  await write(next, note("n0", "newer"));
  const after = await opened(cloud, [notes]);
  expect(after.read().get(notes, "n0")?.text).toBe("newer");
  expect(after.read().count(notes)).toBe(300);
  await next.close();
  await after.close();
  const counted = await etcd.call("kv/range", {
    key: bytes(`${cloud}/records/`),
    range_end: bytes(`${cloud}/records0`),
    count_only: true,
  });
  expect(counted).toMatchObject({ count: "300" });
});

test("a watcher is told the revision that wrote each record, also where several decisions were committed together", async () => {
  const cloud = freshCloud();
  const [writer, other] = [await opened(cloud, [notes]), await opened(cloud, [notes])];
  const watching = other.watch([notes], { fromRevision: 0 })[Symbol.asyncIterator]();
  await Promise.all(["x", "y", "z"].map((id) => write(writer, note(id))));
  const { value: event } = await watching.next();
  if (event?.kind !== "changes") throw new Error("no changes");
  const told = changesOf(event.changes, notes).map(({ key, modRevision }) => [key, modRevision]);
  expect(told).toEqual([
    ["x", 1],
    ["y", 2],
    ["z", 3],
  ]);
  const { modRevision } = present(other.read().stamp(notes, "x"), "the record is there");
  expect(modRevision).toBe(1);
  await writer.close();
  await other.close();
});

const drafts = defineTable({ name: "drafts", version: 1, key: (draft: Note) => draft.id, pastMax: 3 });
const draft = (id: string, text: string, lease?: LeaseId, successor?: string) =>
  put(
    drafts,
    { id, text },
    lease === undefined ? {} : { lease, ...(successor !== undefined && { successor: { id, text: successor } }) },
  );
/** All that a reader shows of the records and their past. */
const shown = (store: Store) => {
  const state = store.read();
  return state.all(drafts).map((record) => {
    const { createRevision, modRevision } = present(state.stamp(drafts, record.id), "the record is there");
    const past = state.past(drafts, record.id).map((one) => [one.modRevision, one.record]);
    return { record, createRevision, modRevision, past };
  });
};
const keysUnder = async (prefix: string): Promise<string[]> => {
  const range = { key: bytes(prefix), range_end: bytes(afterPrefix(prefix)), keys_only: true };
  const { kvs = [] } = (await etcd.call("kv/range", range)) as { kvs?: { key: string }[] };
  return kvs.map(({ key }) => Buffer.from(key, "base64").toString().slice(prefix.length));
};

test("what records were, and what takes their place, is the same for all nodes, and for those that come later", async () => {
  const cloud = freshCloud();
  const [clockA, clockB] = [new WarpClock(), new WarpClock()];
  const tables = [notes, drafts];
  const [a, b] = [await opened(cloud, tables, { clock: clockA }), await opened(cloud, tables, { clock: clockB })];
  const ids = ["a", "a/1", "a/1/2", "ä𐍈", "\ud800/1", '"\\'];
  const lease = await a.grantLease(60_000);
  if (!lease.ok) throw new Error(lease.error.message);
  for (let n = 0; n < 6; n++) {
    const writer = n % 2 === 0 ? a : b;
    await Promise.all(ids.map((id) => write(writer, draft(id, `${n}`))));
    // Twice in one commit, in which each has a revision of its own.
    await Promise.all([write(writer, draft("a", `${n}!`)), write(writer, draft("a", `${n}!!`))]);
  }
  await write(b, remove(drafts, "a/1"));
  await write(a, draft("a", "passing", lease.value, "next"), draft("b", "passing", lease.value));
  await write(b, draft("a/1/2", "passing", lease.value, "gone"));
  await write(b, draft("a/1/2", "stays"));
  const onAll = async (check: (store: Store) => void) => {
    const late = await opened(cloud, tables);
    for (const store of [a, b, late]) {
      expect((await store.barrier()).ok).toBe(true);
      expect(shown(store)).toStrictEqual(shown(a));
      check(store);
    }
    return late;
  };
  const texts = (store: Store, id: string) =>
    store
      .read()
      .past(drafts, id)
      .map(({ record }) => record.text);
  const late = await onAll((store) => {
    expect(store.read().get(drafts, "a")?.text).toBe("passing");
    expect(texts(store, "a")).toEqual(["5!!", "5!", "5"]);
    expect(texts(store, "a/1/2")).toEqual(["5", "4", "3"]);
    expect(texts(store, "ä𐍈")).toEqual(["4", "3", "2"]);
  });
  expect(await keysUnder(`${cloud}/successors/`)).toEqual(["drafts/a"]);
  // One node's clock ends the lease, also of what a node holds that was not there when it was written.
  await clockB.advance(60_001);
  while (a.status().leases + late.status().leases > 0) await Bun.sleep(1);
  const later = await onAll((store) => {
    expect(
      store
        .read()
        .all(drafts)
        .map(({ text }) => text)
        .sort(),
    ).toEqual(["5", "5", "5", "next", "stays"]);
    expect(texts(store, "a")).toEqual(["5!!", "5!", "5"]);
  });
  expect(shown(late)).toStrictEqual(shown(a));
  await write(later, ...ids.map((id) => remove(drafts, id)));
  expect(await keysUnder(`${cloud}/past/`)).toEqual([]);
  expect(await keysUnder(`${cloud}/successors/`)).toEqual([]);
  for (const store of [a, b, late, later]) await store.close();
});

test("a staged commit with pasts and successors is whole for who hears it, and for who finds it half done", async () => {
  const cloud = freshCloud();
  const tables = [notes, drafts];
  const [writer, other] = [await opened(cloud, tables), await opened(cloud, tables)];
  const lease = await writer.grantLease(60_000);
  if (!lease.ok) throw new Error(lease.error.message);
  const large = (n: number) => `${n}`.repeat(900 * 1024);
  for (let n = 0; n < 5; n++) await write(writer, draft("large", large(n)), draft("small", `${n}`));
  await write(writer, draft("large", large(5), lease.value, large(6)), draft("small", "5"));
  await other.barrier();
  expect(shown(other)).toStrictEqual(shown(writer));
  // The caller has his answer before all is at its own keys.
  while ((await keysUnder(`${cloud}/staged/`)).length > 0) await Bun.sleep(5);
  await writer.close();
  await other.close();
  // Put back to the moment after the last commit: what it wrote is in its chunks only, and what it removed is still there.
  const read = async (key: string) => {
    const { kvs } = (await etcd.call("kv/range", { key: bytes(`${cloud}/${key}`) })) as { kvs: { value: string }[] };
    return JSON.parse(Buffer.from(present(kvs[0], key).value, "base64").toString());
  };
  const store = (key: string, value: unknown) =>
    etcd.call("kv/put", { key: bytes(`${cloud}/${key}`), value: bytes(JSON.stringify(value)) });
  const pasts = (await keysUnder(`${cloud}/past/`)).filter((key) => key.startsWith("drafts/large"));
  expect(pasts).toEqual(["drafts/large/3", "drafts/large/4", "drafts/large/5"]);
  const chunks = [
    [
      ["records/drafts/large", await read("records/drafts/large")],
      ["past/drafts/large/2", null],
    ],
    [["successors/drafts/large", await read("successors/drafts/large")]],
    [["past/drafts/large/5", await read("past/drafts/large/5")]],
  ];
  const before = await read("past/drafts/large/5");
  await store("records/drafts/large", [5, 1, 5, 1, null, before[1]]);
  await store("past/drafts/large/2", [1, { id: "large", text: large(1) }]);
  for (const key of ["successors/drafts/large", "past/drafts/large/5"]) {
    await etcd.call("kv/deleterange", { key: bytes(`${cloud}/${key}`) });
  }
  for (const [i, chunk] of chunks.entries()) await store(`staged/gone-1/${i}`, chunk);
  const staged = { commit: "gone-1", chunks: chunks.length };
  await store("head", { revision: 6, previous: 0, writer: "gone", sequence: 1, rows: 4, staged });
  const next = await opened(cloud, tables);
  const firsts = (of: Store, id: string) =>
    of
      .read()
      .past(drafts, id)
      .map(({ record }) => record.text[0]);
  expect(next.read().get(drafts, "large")?.text).toBe(large(5));
  expect(firsts(next, "large")).toEqual(["4", "3", "2"]);
  expect(await next.revokeLease(lease.value)).toMatchObject({ ok: true });
  const after = await opened(cloud, tables);
  for (const one of [next, after]) {
    expect(one.read().get(drafts, "large")?.text).toBe(large(6));
    expect(firsts(one, "large")).toEqual(["4", "3", "2"]);
    await one.close();
  }
  expect(await keysUnder(`${cloud}/staged/`)).toEqual([]);
  expect(await keysUnder(`${cloud}/successors/`)).toEqual([]);
  expect(await keysUnder(`${cloud}/past/drafts/large/`)).toEqual(["3", "4", "5"]);
}, 60_000);

test("a transaction is refused that writes little, and with the past of what it replaces too much", async () => {
  const store = await opened(freshCloud(), [drafts]);
  const text = "x".repeat(1_000_000);
  const ids = Array.from({ length: COMMIT_BYTES_MAX / text.length + 1 }, (_, n) => `d${n}`);
  for (const id of ids) await write(store, draft(id, text));
  const { revision } = store.read();
  const done = await store.transact(() => ok({ writes: ids.map((id) => draft(id, "")), value: 0 }));
  expect(done).toMatchObject({ ok: false, error: { reason: "too-large" } });
  expect(store.read().revision).toBe(revision);
  await write(store, ...ids.slice(0, 2).map((id) => draft(id, "")));
  expect(store.read().past(drafts, "d0")).toHaveLength(1);
  await store.close();
}, 60_000);

test("many records on one lease give way to their successors in one commit, pasts and all", async () => {
  const cloud = freshCloud();
  const [a, b] = [await opened(cloud, [drafts]), await opened(cloud, [drafts])];
  const lease = await a.grantLease(60_000);
  if (!lease.ok) throw new Error(lease.error.message);
  const ids = Array.from({ length: 300 }, (_, n) => `n${n}`);
  await write(a, ...ids.map((id) => draft(id, "first")));
  await write(a, ...ids.map((id) => draft(id, "passing", lease.value, `next ${id}`)));
  const events = b.watch([drafts], { fromRevision: 2 })[Symbol.asyncIterator]();
  expect(await a.revokeLease(lease.value)).toMatchObject({ ok: true });
  const event = (await events.next()).value;
  expect(event).toMatchObject({ kind: "changes", revision: 3 });
  expect(event.changes).toHaveLength(300);
  expect(event.changes[7]).toMatchObject({
    before: { text: "passing" },
    after: { text: expect.stringContaining("next") },
  });
  const late = await opened(cloud, [drafts]);
  for (const store of [b, late]) expect(shown(store)).toStrictEqual(shown(a));
  expect(shown(late)[0]).toMatchObject({ record: { text: "next n0" }, past: [[1, { text: "first" }]] });
  for (const store of [a, b, late]) await store.close();
});

test("a lease that another node granted is kept alive by any, ended by all, and only when it is due", async () => {
  const cloud = freshCloud();
  const [clockA, clockB] = [new WarpClock(), new WarpClock()];
  const [a, b] = [await opened(cloud, [notes], { clock: clockA }), await opened(cloud, [notes], { clock: clockB })];
  const lease = await a.grantLease(60_000);
  if (!lease.ok) throw new Error(lease.error.message);
  await write(a, put(notes, { id: "held", text: "" }, { lease: lease.value }));
  await b.barrier();
  await clockA.advance(50_000);
  expect(await b.keepAlive(lease.value)).toMatchObject({ ok: true });
  await a.barrier();
  await clockA.advance(50_000);
  await a.barrier();
  expect(a.read().count(notes)).toBe(1);
  // The other node's clock alone is enough to end it.
  await clockB.advance(60_001);
  while (a.read().count(notes) > 0) await Bun.sleep(1);
  expect(a.status().leases).toBe(0);
  expect(await a.keepAlive(lease.value)).toMatchObject({ error: { reason: "no-lease" } });
  await a.close();
  await b.close();
});

test("a table's new version migrates what is stored; an older Hive refuses it; unknown tables are kept", async () => {
  const cloud = freshCloud();
  const other = defineTable({ name: "other", version: 1, key: (record: Note) => record.id });
  const first = await opened(cloud, [notes, other]);
  await write(first, note("a", "old"), put(other, { id: "o", text: "kept" }));
  type Longer = { readonly id: string; readonly lines: readonly string[] };
  const longer = defineTable({
    name: "notes",
    version: 2,
    key: (record: Longer) => record.id,
    indexes: { byLine: (record) => record.lines },
    migrate: (stored) => ({ id: (stored as Note).id, lines: [(stored as Note).text] }),
  });
  const second = await opened(cloud, [longer]);
  expect(second.read().lookup(longer, "byLine", "old")).toEqual([{ id: "a", lines: ["old"] }]);
  // What an older node writes meanwhile comes in the new shape, too.
  await write(first, note("c", "late"));
  await second.barrier();
  expect(second.read().get(longer, "c")).toEqual({ id: "c", lines: ["late"] });
  await write(second, put(longer, { id: "b", lines: ["new"] }));
  // An older node that runs can't follow: it says so, keeps what it has, and writes nothing.
  while (first.status().health === "ok") await Bun.sleep(1);
  expect(first.status()).toMatchObject({ health: "failed", message: expect.stringContaining("later version of Hive") });
  expect(first.read().count(notes)).toBe(2);
  expect(await first.transact(() => ok({ writes: [note("d")], value: 1 }))).toMatchObject({
    error: { reason: "newer" },
  });
  expect(await openEtcdStore(optionsFor(cloud, [notes]))).toMatchObject({ ok: false, error: { reason: "newer" } });
  const third = await opened(cloud, [longer, other]);
  expect(third.read().get(other, "o")?.text).toBe("kept");
  for (const store of [first, second, third]) await store.close();
});

test.each([
  ["a later layout", "layout", "2", "newer", "Start that version"],
  ["a layout that is none", "layout", "many", "corrupt", "damaged"],
  ["keys of somebody else", "pods/default", "{}", "corrupt", "not Hive's"],
])("%s under the prefix is refused, and left as it is", async (_, key, value, reason, part) => {
  const cloud = freshCloud();
  await etcd.call("kv/put", { key: bytes(`${cloud}/${key}`), value: bytes(value) });
  const refused = await openEtcdStore(optionsFor(cloud, [notes]));
  expect(refused).toMatchObject({ ok: false, error: { reason } });
  expect(!refused.ok && refused.error.message).toContain(part);
  const left = await etcd.call("kv/range", { key: bytes(`${cloud}/`), range_end: bytes(`${cloud}0`) });
  expect(left).toMatchObject({ count: "1" });
});

test("a past without its record is refused at opening, and named", async () => {
  const cloud = freshCloud();
  const store = await opened(cloud, [drafts]);
  await write(store, draft("a", "1"));
  await write(store, draft("a", "2"));
  await store.close();
  await etcd.call("kv/deleterange", { key: bytes(`${cloud}/records/drafts/a`) });
  const refused = await openEtcdStore(optionsFor(cloud, [drafts]));
  expect(refused).toMatchObject({ ok: false, error: { reason: "corrupt" } });
  expect(!refused.ok && refused.error.message).toContain("past/drafts/a/1");
});

test("a damaged record is refused at opening, and named", async () => {
  const cloud = freshCloud();
  await (await opened(cloud, [notes])).close();
  await etcd.call("kv/put", { key: bytes(`${cloud}/records/notes/a`), value: bytes("{}") });
  const refused = await openEtcdStore(optionsFor(cloud, [notes]));
  expect(refused).toMatchObject({ ok: false, error: { reason: "corrupt" } });
  expect(!refused.ok && refused.error.message).toContain("records/notes/a");
});

test("one daemon at a time may use a data directory, also with its store in etcd", async () => {
  const lock = { disk: new MemoryDisk(), directory: "/data/store" };
  const first = await opened(freshCloud(), [notes], { lock });
  expect(await openEtcdStore(optionsFor(freshCloud(), [notes], { lock }))).toMatchObject({
    error: { reason: "locked" },
  });
  await first.close();
  await (await opened(freshCloud(), [notes], { lock })).close();
});

test("an index function that throws fails its own transaction, and no other", async () => {
  const picky = defineTable({
    name: "picky",
    version: 1,
    key: (record: Note) => record.id,
    indexes: {
      byText: (record) => {
        if (record.text === "bad") throw new Error("a defect");
        return record.text;
      },
    },
  });
  const store = await opened(freshCloud(), [picky]);
  const add = (id: string, text: string) =>
    store.transact(() => ok({ writes: [put(picky, { id, text })], value: undefined }));
  const [first, bad, last] = await Promise.allSettled([add("a", "good"), add("b", "bad"), add("c", "good")]);
  expect([first?.status, bad?.status, last?.status]).toEqual(["fulfilled", "rejected", "fulfilled"]);
  expect(
    store
      .read()
      .all(picky)
      .map(({ id }) => id),
  ).toEqual(["a", "c"]);
  expect(store.status()).toMatchObject({ health: "ok", pending: 0 });
  await store.close();
});

test("a file that the URL names and that is not there is named", async () => {
  const url = "etcd+https://127.0.0.1:1?ca=/nowhere/ca.pem";
  const refused = await openEtcdStore({ ...optionsFor("", [notes]), url });
  expect(!refused.ok && refused.error.message).toContain("/nowhere/ca.pem");
});
