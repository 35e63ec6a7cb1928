/** The store in a real etcd that fails in real ways. What etcd and the network may do to it, and what must hold then. */
import { afterEach, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bytes } from "../../src/cluster/etcd/gateway-json.ts";
import { type EtcdStoreOptions, openEtcdStore } from "../../src/cluster/open-etcd-store.ts";
import { type Clock, systemClock } from "../../src/lib/clock.ts";
import { silentLog } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { fail, ok } from "../../src/lib/result.ts";
import { changesOf, defineTable, put, type Store } from "../../src/model/store.ts";
import { freePort, startEtcd, startEtcdCluster, type TestEtcd } from "../support/etcd.ts";
import { PROJECT } from "../support/hive.ts";
import { until } from "../support/netns.ts";
import { WarpClock } from "../support/warp-clock.ts";
import { startFaultyWay } from "./etcd-faults.ts";

type Counter = { readonly id: string; readonly value: number; readonly text?: string };
const counters = defineTable({
  name: "counters",
  version: 1,
  key: (counter: Counter) => counter.id,
  indexes: { byText: (counter) => counter.text },
});

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function etcdWith(...flags: string[]): Promise<TestEtcd> {
  const etcd = await startEtcd(flags);
  cleanups.push(() => etcd.stop());
  return etcd;
}
function freshDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "hive-etcd-test-"));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
const open = (url: string, clock: Clock = systemClock, more: Partial<EtcdStoreOptions> = {}) =>
  openEtcdStore({ url, tables: [counters], clock, random: systemRandom, log: silentLog, ...more });
async function opened(...how: Parameters<typeof open>): Promise<Store> {
  const store = await open(...how);
  if (!store.ok) throw new Error(store.error.message);
  cleanups.push(() => store.value.close());
  return store.value;
}

/** Lets the clock run fast until it is done. */
async function hurried<T>(clock: WarpClock, doing: Promise<T>): Promise<T> {
  let isDone = false;
  const settled = doing.finally(() => {
    isDone = true;
  });
  for (; !isDone; await Bun.sleep(10)) await clock.advance(100);
  return settled;
}

const raise = (store: Store, id: string) =>
  store.transact((state) => {
    const value = (state.get(counters, id)?.value ?? 0) + 1;
    return ok({ writes: [put(counters, { id, value })], value });
  });
const write = (store: Store, id: string, text?: string) =>
  store.transact(() =>
    ok({ writes: [put(counters, text === undefined ? { id, value: 0 } : { id, value: 0, text })], value: undefined }),
  );
const values = (store: Store) =>
  new Map(
    store
      .read()
      .all(counters)
      .map(({ id, value }) => [id, value]),
  );

/** A copy of the table that is kept by a watch alone, as a reconciler does it. */
function replicaOf(store: Store) {
  const controller = new AbortController();
  const replica = { rows: new Map<string, number>(), resyncs: 0, stop: () => controller.abort() };
  cleanups.push(replica.stop);
  void (async () => {
    while (!controller.signal.aborted && store.status().health !== "closed") {
      const state = store.read();
      replica.rows = new Map(state.all(counters).map(({ id, value }) => [id, value]));
      const watch = store.watch([counters], { fromRevision: state.revision, signal: controller.signal });
      for await (const event of watch) {
        if (event.kind === "compacted") break;
        for (const { key, before, after } of changesOf(event.changes, counters)) {
          if (replica.rows.get(key) !== before?.value) throw new Error(`${key} changed from what it was not`);
          if (after) replica.rows.set(key, after.value);
          else replica.rows.delete(key);
        }
      }
      replica.resyncs++;
    }
  })();
  return replica;
}

test("three nodes race for counters and gaps: no increment is lost, no gap filled twice", async () => {
  const etcd = await etcdWith();
  const stores = await Promise.all([1, 2, 3].map(() => opened(`etcd://${etcd.address}`)));
  const replica = replicaOf(stores[2]!);
  const raised = await Promise.all(
    stores.flatMap((store, n) =>
      Array.from({ length: 40 }, (_, i) => Promise.all([raise(store, "shared"), raise(store, `own-${n}-${i % 4}`)])),
    ),
  );
  expect(raised.flat().every((result) => result.ok)).toBe(true);
  expect(new Set(raised.map(([shared]) => shared.ok && shared.value)).size).toBe(120);
  // Each may add one while there are fewer than five; by index, by range, by count.
  const ways = [
    (state: ReturnType<Store["read"]>) => state.lookup(counters, "byText", "seat").length,
    (state: ReturnType<Store["read"]>) => state.range(counters, { prefix: "seat-" }).length,
    (state: ReturnType<Store["read"]>) => state.countOf(counters, "byText", "seat"),
  ];
  const seats = await Promise.all(
    stores.flatMap((store, n) =>
      Array.from({ length: 12 }, (_, i) =>
        store.transact((state) =>
          ways[i % ways.length]!(state) < 5
            ? ok({ writes: [put(counters, { id: `seat-${n}-${i}`, value: i, text: "seat" })], value: undefined })
            : fail("full" as const),
        ),
      ),
    ),
  );
  expect(seats.filter((seat) => seat.ok)).toHaveLength(5);
  for (const store of stores) {
    expect((await store.barrier()).ok).toBe(true);
    expect(store.read().get(counters, "shared")?.value).toBe(120);
    expect(store.read().countOf(counters, "byText", "seat")).toBe(5);
    expect(store.read().revision).toBe(245);
  }
  await until(() => Bun.deepEquals(replica.rows, values(stores[2]!)), "the watch has told everything");
  expect(replica.resyncs).toBe(0);
}, 60_000);

test("a node that is far from etcd gets its turn among near and busy ones", async () => {
  const etcd = await etcdWith();
  const way = startFaultyWay(etcd.address, 1);
  cleanups.push(() => way.stop());
  const [far, ...near] = await Promise.all([way, etcd, etcd].map(({ address }) => opened(`etcd://${address}`)));
  way.delayMs = 15;
  let isOver = false;
  const busy = near.map(async (store, n) => {
    while (!isOver) await raise(store, `near-${n}`);
  });
  try {
    for (let i = 0; i < 10; i++) expect((await raise(far!, "far")).ok).toBe(true);
    const started = performance.now();
    for (let i = 0; i < 10; i++) expect((await raise(far!, "far")).ok).toBe(true);
    // Some four round trips of 30 ms each: a ticket, its turn, the commit. Racing for it takes many more.
    expect((performance.now() - started) / 10).toBeLessThan(600);
  } finally {
    isOver = true;
    await Promise.all(busy);
  }
  // Nobody has left a ticket behind.
  const left = await etcd.call("kv/range", { key: bytes("/hive/waiting/"), range_end: bytes("/hive/waiting0") });
  expect(left).not.toHaveProperty("kvs");
}, 60_000);

test.each([1, 2, 3])(
  "calls and answers that are lost, doubled and late, watches that break: each transaction happens once (seed %d)",
  async (seed) => {
    const etcd = await etcdWith();
    const ways = [startFaultyWay(etcd.address, seed), startFaultyWay(etcd.address, seed + 100)];
    cleanups.push(...ways.map((way) => () => way.stop()));
    const stores = await Promise.all(ways.map(({ address }) => opened(`etcd://${address}`)));
    const replicas = stores.map(replicaOf);
    for (const way of ways) way.percent = 30;
    const counts = new Map<string, { done: number; unknown: number }>();
    await Promise.all(
      stores.flatMap((store, n) =>
        Array.from({ length: 8 }, async (_, i) => {
          for (let round = 0; round < 80; round++) {
            const id = i < 4 ? "shared" : `own-${n}-${i}`;
            const done = await raise(store, id);
            const count = counts.get(id) ?? { done: 0, unknown: 0 };
            counts.set(id, count);
            if (done.ok) count.done++;
            else if (done.error.reason === "unavailable") count.unknown++;
          }
        }),
      ),
    );
    for (const way of ways) way.percent = 0;
    expect(ways.every(({ faults }) => faults > 10)).toBe(true);
    const direct = await opened(`etcd://${etcd.address}`);
    for (const [id, { done, unknown }] of counts) {
      const value = direct.read().get(counters, id)?.value ?? 0;
      expect(value).toBeGreaterThanOrEqual(done);
      expect(value).toBeLessThanOrEqual(done + unknown);
      // 30 % of faults do not wear out the patience of ten seconds.
      expect(unknown).toBe(0);
    }
    for (const [n, store] of stores.entries()) {
      await until(async () => (await store.barrier()).ok, "it is whole again");
      expect(values(store)).toEqual(values(direct));
      expect(store.read().revision).toBe(direct.read().revision);
      await until(() => Bun.deepEquals(replicas[n]!.rows, values(direct)), "the watch has told everything");
      expect(replicas[n]!.resyncs).toBe(0);
    }
  },
  120_000,
);

test("large transactions over a bad way are whole or not there, and small ones come between", async () => {
  const etcd = await etcdWith();
  const ways = [startFaultyWay(etcd.address, 5), startFaultyWay(etcd.address, 6)];
  cleanups.push(...ways.map((way) => () => way.stop()));
  const stores = await Promise.all(ways.map(({ address }) => opened(`etcd://${address}`)));
  for (const way of ways) way.percent = 20;
  const results = await Promise.all(
    stores.map(async (store, n) => {
      const done: boolean[] = [];
      for (let round = 1; round <= 4; round++) {
        const rows = Array.from({ length: 300 }, (_, i) => put(counters, { id: `${n}-${i}`, value: round }));
        done.push((await store.transact(() => ok({ writes: rows, value: undefined }))).ok);
        done.push((await raise(store, "shared")).ok);
      }
      return done;
    }),
  );
  expect(results.flat().every((done) => done)).toBe(true);
  for (const way of ways) way.percent = 0;
  for (const store of [...stores, await opened(`etcd://${etcd.address}`)]) {
    await until(async () => (await store.barrier()).ok, "it is whole again");
    expect(store.read().get(counters, "shared")?.value).toBe(8);
    expect(store.read().count(counters)).toBe(601);
    expect(
      store
        .read()
        .range(counters, { to: "2" })
        .every(({ value }) => value === 4),
    ).toBe(true);
    expect(store.read().revision).toBe(16);
  }
}, 120_000);

test("kill -9 of etcd, again and again: nothing acknowledged is lost, reads go on, and it heals by itself", async () => {
  const etcd = await etcdWith();
  const stores = await Promise.all([1, 2].map(() => opened(`etcd://${etcd.address}`)));
  const acknowledged = new Set<string>();
  let isOver = false;
  const writing = stores.flatMap((store, n) =>
    Array.from({ length: 4 }, async (_, i) => {
      for (let round = 0; !isOver; round++) {
        const id = `${n}-${i}-${round}`;
        if ((await write(store, id)).ok) acknowledged.add(id);
        else await Bun.sleep(10);
      }
    }),
  );
  for (let kill = 0; kill < 4; kill++) {
    const before = acknowledged.size;
    await until(() => acknowledged.size > before + 50, "writes are acknowledged", 30_000);
    await etcd.kill();
    // What was acknowledged shows, with no etcd there.
    const known = [...acknowledged];
    await Bun.sleep(200);
    expect(known.every((id) => stores[Number(id[0])]!.read().get(counters, id))).toBe(true);
    await until(() => stores.some((store) => store.status().health === "unavailable"), "the trouble shows");
    await etcd.start();
  }
  const before = acknowledged.size;
  await until(() => acknowledged.size > before + 50, "writes are acknowledged again", 30_000);
  isOver = true;
  await Promise.all(writing);
  const fresh = await opened(`etcd://${etcd.address}`);
  for (const store of [...stores, fresh]) {
    expect((await store.barrier()).ok).toBe(true);
    expect(store.status().health).toBe("ok");
    expect([...acknowledged].filter((id) => !store.read().get(counters, id))).toEqual([]);
    expect(values(store)).toEqual(values(fresh));
  }
}, 120_000);

test("while etcd is away, writes fail in time with a sentence, and barriers too; reads show what is known", async () => {
  const etcd = await etcdWith();
  const clock = new WarpClock();
  const store = await opened(`etcd://${etcd.address}`, clock);
  await write(store, "a");
  await etcd.kill();
  const refusals = Promise.all([write(store, "b"), write(store, "c"), store.barrier(), store.grantLease(1000)]);
  for (const refused of await hurried(clock, refusals)) {
    expect(refused).toMatchObject({ ok: false, error: { reason: "unavailable" } });
    expect(!refused.ok && refused.error.message).toContain(etcd.address);
  }
  expect(store.status()).toMatchObject({ health: "unavailable", message: expect.stringContaining(etcd.address) });
  expect(store.read().count(counters)).toBe(1);
  await etcd.start();
  expect((await write(store, "d")).ok).toBe(true);
  expect(store.status().health).toBe("ok");
}, 60_000);

test("an idle node notices by itself that etcd is gone, and that it is back", async () => {
  const etcd = await etcdWith();
  const clock = new WarpClock();
  const store = await opened(`etcd://${etcd.address}`, clock);
  await etcd.kill();
  await clock.advance(6000);
  await until(() => store.status().health === "unavailable", "it is noticed");
  await etcd.start();
  await clock.advance(6000);
  await until(() => store.status().health === "ok", "it is noticed, too");
}, 60_000);

test("an etcd that takes calls and never answers is noticed, too; calls then fail in time", async () => {
  const etcd = await etcdWith();
  const way = startFaultyWay(etcd.address, 1);
  cleanups.push(() => way.stop());
  const clock = new WarpClock();
  const store = await opened(`etcd://${way.address}`, clock);
  way.isMute = true;
  way.deafen();
  await hurried(
    clock,
    until(() => store.status().health === "unavailable", "it is noticed"),
  );
  expect(store.status().message).toContain("no answer within 5 s");
  expect(await hurried(clock, raise(store, "a"))).toMatchObject({ error: { reason: "unavailable" } });
  way.isMute = false;
  expect(await raise(store, "a")).toMatchObject({ ok: true });
  expect(store.status().health).toBe("ok");
}, 60_000);

test("a watch that has gone silent is begun anew: by whoever waits for it, and by an idle node", async () => {
  const etcd = await etcdWith();
  const way = startFaultyWay(etcd.address, 1);
  cleanups.push(() => way.stop());
  const clock = new WarpClock();
  const [store, other] = [await opened(`etcd://${way.address}`, clock), await opened(`etcd://${etcd.address}`)];
  await raise(other, "a");
  await store.barrier();
  way.deafen();
  await raise(other, "a");
  expect((await store.barrier()).ok).toBe(true);
  expect(store.read().get(counters, "a")?.value).toBe(2);
  way.deafen();
  await raise(other, "a");
  await hurried(
    clock,
    until(() => store.read().get(counters, "a")?.value === 3, "the idle node has heard"),
  );
}, 60_000);

test("a barrier and a decision wait for what others have committed, however late the watch tells it", async () => {
  const etcd = await etcdWith();
  const way = startFaultyWay(etcd.address, 1);
  cleanups.push(() => way.stop());
  const [far, near] = [await opened(`etcd://${way.address}`), await opened(`etcd://${etcd.address}`)];
  way.delayMs = 100;
  await raise(near, "a");
  expect(far.read().get(counters, "a")).toBeUndefined();
  expect((await far.barrier()).ok).toBe(true);
  expect(far.read().get(counters, "a")?.value).toBe(1);
  await raise(near, "a");
  // It writes nothing, and yet does not answer from what is out of date.
  const seen = await far.transact((state) => ok({ writes: [], value: state.get(counters, "a")?.value }));
  expect(seen).toEqual({ ok: true, value: 2 });
  await raise(near, "a");
  const refused = await far.transact((state) => fail(state.get(counters, "a")?.value));
  expect(refused).toMatchObject({ ok: false, error: 3 });
}, 60_000);

test("a lease is not ended by a node that has not heard of its keep-alive", async () => {
  const etcd = await etcdWith();
  const way = startFaultyWay(etcd.address, 1);
  cleanups.push(() => way.stop());
  const clock = new WarpClock();
  const [away, here] = [await opened(`etcd://${way.address}`, clock), await opened(`etcd://${etcd.address}`)];
  const lease = await away.grantLease(60_000);
  if (!lease.ok) throw new Error(lease.error.message);
  way.isCut = true;
  expect(await here.keepAlive(lease.value)).toMatchObject({ ok: true });
  // Its time is up, for all that the one that is cut off can know.
  await clock.advance(60_001);
  await until(() => away.status().pending > 0, "it wants to end the lease");
  way.isCut = false;
  await until(() => away.status().pending === 0, "it has heard");
  expect(away.status().leases).toBe(1);
  expect(await here.keepAlive(lease.value)).toMatchObject({ ok: true });
}, 60_000);

test("a commit whose answer never came is told to be uncertain, and is not made twice", async () => {
  const etcd = await etcdWith();
  const way = startFaultyWay(etcd.address, 1);
  cleanups.push(() => way.stop());
  const clock = new WarpClock();
  const [store, other] = [await opened(`etcd://${way.address}`, clock), await opened(`etcd://${etcd.address}`)];
  await raise(store, "a");
  way.deafen();
  way.losesAnswers = true;
  const raising = raise(store, "a");
  await until(async () => (await other.barrier()).ok && other.read().get(counters, "a")?.value === 2, "it has arrived");
  const refused = await hurried(clock, raising);
  expect(refused).toMatchObject({ ok: false, error: { reason: "unavailable" } });
  expect(!refused.ok && refused.error.message).toContain("may have been committed or not");
  way.losesAnswers = false;
  expect(await raise(store, "a")).toEqual({ ok: true, value: 3 });
}, 60_000);

test("what etcd compacted while a node was cut off is read anew, and its watchers are told to begin anew", async () => {
  const etcd = await etcdWith();
  const way = startFaultyWay(etcd.address, 1);
  cleanups.push(() => way.stop());
  const [away, here] = [await opened(`etcd://${way.address}`), await opened(`etcd://${etcd.address}`)];
  for (const id of ["kept", "changed", "removed"]) await write(away, id, "before");
  await away.barrier();
  const replica = replicaOf(away);
  const kept = away.read().get(counters, "kept");
  const revision = away.read().revision;
  await Bun.sleep(20);
  way.isCut = true;
  for (let i = 0; i < 20; i++) await raise(here, "changed");
  await here.transact(() => ok({ writes: [{ kind: "remove", table: counters, key: "removed" }], value: 0 }));
  const { header } = (await etcd.call("kv/range", { key: bytes("x") })) as { header: { revision: string } };
  await etcd.call("kv/compaction", { revision: header.revision, physical: true });
  await write(here, "after");
  expect(away.read().revision).toBe(revision);
  way.isCut = false;
  expect((await away.barrier()).ok).toBe(true);
  expect(values(away)).toEqual(values(here));
  expect(away.read().revision).toBe(here.read().revision);
  expect(away.read().get(counters, "kept")).toBe(kept!);
  await until(() => Bun.deepEquals(replica.rows, values(here)), "the reconciler has begun anew");
  expect(replica.resyncs).toBe(1);
  expect((await raise(away, "changed")).ok).toBe(true);
}, 60_000);

test("an etcd that has lost its data is not written to, and the node says so", async () => {
  const etcd = await etcdWith();
  const clock = new WarpClock();
  const store = await opened(`etcd://${etcd.address}`, clock);
  for (let i = 0; i < 5; i++) await raise(store, "a");
  await etcd.call("kv/deleterange", { key: bytes("/hive/"), range_end: bytes("/hive0") });
  await until(() => store.status().health === "failed", "it is noticed");
  expect(store.status().message).toContain("damaged");
  expect(await raise(store, "a")).toMatchObject({ ok: false, error: { reason: "corrupt" } });
  expect(store.read().get(counters, "a")?.value).toBe(5);
}, 60_000);

test("an etcd that was put back to an earlier state is not written to, until Hive is started anew", async () => {
  const etcd = await etcdWith();
  const store = await opened(`etcd://${etcd.address}`);
  await raise(store, "a");
  await etcd.kill();
  etcd.save();
  await etcd.start();
  for (let i = 0; i < 5; i++) await raise(store, "a");
  await etcd.kill();
  etcd.restore();
  await etcd.start();
  const refused = await raise(store, "a");
  expect(refused).toMatchObject({
    ok: false,
    error: { reason: "failed", message: expect.stringContaining("gone back") },
  });
  expect(store.status().health).toBe("failed");
  expect(store.read().get(counters, "a")?.value).toBe(6);
  const anew = await opened(`etcd://${etcd.address}`);
  expect(await raise(anew, "a")).toEqual({ ok: true, value: 2 });
}, 60_000);

test("members of a cluster stand in for each other: its leader is killed, and nothing acknowledged is lost", async () => {
  const members = await startEtcdCluster(3);
  cleanups.push(...members.map((member) => () => member.stop()));
  const url = `etcd://${members.map(({ address }) => address).join()}`;
  const stores = await Promise.all([1, 2].map(() => opened(url)));
  const acknowledged = new Set<string>();
  let isOver = false;
  const writing = stores.flatMap((store, n) =>
    Array.from({ length: 2 }, async (_, i) => {
      for (let round = 0; !isOver; round++) {
        const id = `${n}-${i}-${round}`;
        if ((await write(store, id)).ok) acknowledged.add(id);
      }
    }),
  );
  type Status = { readonly leader: string; readonly header: { readonly member_id: string } };
  for (let kill = 0; kill < 2; kill++) {
    const before = acknowledged.size;
    await until(() => acknowledged.size > before + 50, "writes are acknowledged", 30_000);
    const statuses = await Promise.all(
      members.map(async (member) => (await member.call("maintenance/status", {})) as object as Status),
    );
    const leader = members[statuses.findIndex(({ leader, header }) => leader === header.member_id)]!;
    await leader.kill();
    const then = acknowledged.size;
    await until(() => acknowledged.size > then + 50, "the others go on", 30_000);
    await leader.start();
  }
  isOver = true;
  await Promise.all(writing);
  for (const store of [...stores, await opened(url)]) {
    expect((await store.barrier()).ok).toBe(true);
    expect([...acknowledged].filter((id) => !store.read().get(counters, id))).toEqual([]);
  }
}, 120_000);

test("another cluster at one of the addresses is not taken for a member of this", async () => {
  const [ours, other] = [await etcdWith(), await etcdWith()];
  const clock = new WarpClock();
  const store = await opened(`etcd://${ours.address},${other.address}`, clock);
  await raise(store, "a");
  await ours.kill();
  const refused = await hurried(clock, raise(store, "a"));
  expect(refused).toMatchObject({ ok: false, error: { reason: "unavailable" } });
  expect(!refused.ok && refused.error.message).toContain("another etcd cluster");
  await ours.start();
  expect(await raise(store, "a")).toEqual({ ok: true, value: 2 });
}, 60_000);

test("limits of etcd's that are too small for Hive are named by their flags", async () => {
  const etcd = await etcdWith("--max-txn-ops", "4");
  const store = await opened(`etcd://${etcd.address}`);
  const rows = Array.from({ length: 9 }, (_, i) => put(counters, { id: `${i}`, value: 0 }));
  const refused = await store.transact(() => ok({ writes: rows, value: undefined }));
  expect(refused).toMatchObject({
    ok: false,
    error: { reason: "too-large", message: expect.stringContaining("--max-txn-ops") },
  });
  expect((await write(store, "small")).ok).toBe(true);
  expect(store.status().health).toBe("ok");
}, 60_000);

test("an etcd whose quota is used up refuses writes as full, reads go on, and it heals", async () => {
  const etcd = await etcdWith("--quota-backend-bytes", String(16 * 1024 * 1024));
  const store = await opened(`etcd://${etcd.address}`);
  let refused = await write(store, "a", "x".repeat(1_000_000));
  for (let i = 0; i < 40 && refused.ok; i++) refused = await write(store, "a", "x".repeat(1_000_000));
  expect(refused).toMatchObject({
    error: { reason: "full", message: expect.stringContaining("--quota-backend-bytes") },
  });
  expect(store.status().health).toBe("full");
  expect(store.read().count(counters)).toBe(1);
  const { header } = (await etcd.call("kv/range", { key: bytes("x") })) as { header: { revision: string } };
  await etcd.call("kv/compaction", { revision: header.revision, physical: true });
  await etcd.call("maintenance/defragment", {});
  const { alarms } = (await etcd.call("maintenance/alarm", { action: "GET" })) as { alarms: { memberID: string }[] };
  await etcd.call("maintenance/alarm", { action: "DEACTIVATE", alarm: "NOSPACE", memberID: alarms[0]!.memberID });
  expect(await write(store, "b")).toMatchObject({ ok: true });
  expect(store.status().health).toBe("ok");
}, 60_000);

test("users: a wrong password, a missing permission and a right login; tokens are renewed", async () => {
  const etcd = await etcdWith("--auth-token", "simple");
  for (const name of ["root", "hive", "other"]) await etcd.call("auth/user/add", { name, password: `${name}'s` });
  await etcd.call("auth/role/add", { name: "root" });
  await etcd.call("auth/role/add", { name: "hive" });
  const perm = { permType: "READWRITE", key: bytes("/hive/"), range_end: bytes("/hive0") };
  await etcd.call("auth/role/grant", { name: "hive", perm });
  await etcd.call("auth/user/grant", { user: "root", role: "root" });
  await etcd.call("auth/user/grant", { user: "hive", role: "hive" });
  await etcd.call("auth/enable", {});
  const refusal = async (login: string) => {
    const refused = await open(`etcd://${login}${etcd.address}`);
    return refused.ok ? undefined : refused.error.message;
  };
  expect(await refusal("hive:wrong@")).toContain("The login of the user hive failed");
  expect(await refusal("other:other's@")).toContain("permission denied");
  expect(await refusal("")).toContain("user name is empty");
  const store = await opened(`etcd://hive:hive's@${etcd.address}`);
  await write(store, "a");
  // A restart forgets simple tokens.
  await etcd.kill();
  await etcd.start();
  expect((await write(store, "b")).ok).toBe(true);
  const other = await opened(`etcd://hive:hive's@${etcd.address}`);
  await write(store, "c");
  await other.barrier();
  expect(other.read().count(counters)).toBe(3);
}, 60_000);

test("TLS: both sides are verified", async () => {
  const directory = freshDirectory();
  const at = (name: string) => join(directory, name);
  const openssl = async (...words: string[]) => {
    const child = Bun.spawn(["openssl", ...words], { cwd: directory, stdout: "ignore", stderr: "pipe" });
    if ((await child.exited) !== 0) throw new Error(await new Response(child.stderr).text());
  };
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  await openssl("req", "-x509", ...curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA");
  for (const name of ["server", "client"]) {
    await openssl("req", ...curve, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
    await Bun.write(at("ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n");
    const signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext", "-days", "2"];
    await openssl("x509", "-req", "-in", `${name}.csr`, ...signing, "-out", `${name}.pem`);
  }
  const etcd = await startEtcd([], {
    ca: at("ca.pem"),
    cert: at("server.pem"),
    key: at("server.key"),
    clientCert: at("client.pem"),
    clientKey: at("client.key"),
  });
  cleanups.push(() => etcd.stop());
  const files = `ca=${at("ca.pem")}&cert=${at("client.pem")}&key=${at("client.key")}`;
  const store = await opened(`etcd+https://${etcd.address}?${files}`);
  expect((await write(store, "a")).ok).toBe(true);
  expect((await store.barrier()).ok).toBe(true);
  for (const lacking of [`ca=${at("ca.pem")}`, files.replace(/^ca=[^&]*&/, "")]) {
    const clock = new WarpClock();
    const refused = hurried(clock, open(`etcd+https://${etcd.address}?${lacking}`, clock));
    expect(await refused).toMatchObject({ error: { reason: "unavailable" } });
  }
}, 60_000);

/** A daemon from source, without machines or network. */
function startHive(store: string, dataDir: string, listen: string) {
  const flags = ["--role=all", "--accel", "none", "--network", "none", "--data-dir", dataDir, "--listen", listen];
  const argv = [process.execPath, join(PROJECT, "src/main.ts"), "server", ...flags, "--store", store];
  const child = Bun.spawn(argv, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  cleanups.push(async () => {
    child.kill("SIGKILL");
    await child.exited;
  });
  const ready = async () => {
    let text = "";
    for await (const chunk of child.stdout) {
      text += new TextDecoder().decode(chunk);
      if (/^ready /m.test(text)) break;
    }
    if (!/^ready /m.test(text)) throw new Error(await new Response(child.stderr).text());
  };
  const stop = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    await child.exited;
  };
  return { child, ready, stop };
}

test("a whole hive server keeps its cloud in etcd: another data directory shows the same one", async () => {
  const etcd = await etcdWith();
  const listen = `127.0.0.1:${freePort()}`;
  const directories = [freshDirectory(), freshDirectory()] as const;
  const aws = async (directory: string, ...words: string[]) => {
    const child = Bun.spawn(
      ["/usr/bin/aws", "--endpoint-url", `http://${listen}`, "--output", "json", "ec2", ...words],
      {
        env: {
          ...process.env,
          AWS_PROFILE: "hive",
          AWS_CONFIG_FILE: join(directory, "aws/config"),
          AWS_SHARED_CREDENTIALS_FILE: join(directory, "aws/credentials"),
          AWS_PAGER: "",
        },
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    if ((await child.exited) !== 0) throw new Error(err);
    return JSON.parse(out || "{}");
  };
  const url = `etcd://${etcd.address}/clouds/test`;
  const first = startHive(url, directories[0], listen);
  await first.ready();
  await aws(directories[0], "create-key-pair", "--key-name", "mine");
  await first.stop("SIGKILL");
  cpSync(join(directories[0], "keys"), join(directories[1], "keys"), { recursive: true });
  const second = startHive(url, directories[1], listen);
  await second.ready();
  const { KeyPairs } = await aws(directories[1], "describe-key-pairs", "--key-names", "mine");
  expect(KeyPairs).toMatchObject([{ KeyName: "mine" }]);
  await second.stop("SIGTERM");
  expect(second.child.exitCode).toBe(0);
}, 120_000);

test("hive server says what is wrong when its etcd is not there, and ends", async () => {
  const { child } = startHive("etcd://root:hunter2@127.0.0.1:1", freshDirectory(), `127.0.0.1:${freePort()}`);
  expect(await child.exited).toBe(1);
  const said = await new Response(child.stderr).text();
  expect(said).toBe("hive server: Etcd at 127.0.0.1:1 cannot be reached: nothing listens there.\n");
}, 60_000);
