import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, present } from "../lib/assert.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLog } from "../lib/log.ts";
import { systemRandom } from "../lib/random.ts";
import { ok } from "../lib/result.ts";
import { defineTable, put, type Store, type StoreError } from "../model/store.ts";
import type { Consensus } from "./consensus.ts";
import type { Disk } from "./kv/disk.ts";
import { MemoryDisk } from "./kv/memory-disk.ts";
import { realDisk } from "./kv/real-disk.ts";
import type { ReplicatedStore } from "./kv/replicated-store.ts";
import { schemaOf } from "./kv/schema.ts";
import { indexOfSnapshot, isSnapshotName } from "./kv/snapshot-format.ts";
import { typedStore } from "./kv/typed-store.ts";
import { memoryNetwork } from "./node/memory-transport.ts";
import type { Frame, Transport } from "./node/transport.ts";
import { openRaftStore, openReplicatedStore, type RaftStoreOptions } from "./open-raft-store.ts";
import { configurationOf } from "./raft/configuration.ts";
import type { Options, PeerId } from "./raft/types.ts";
import { CONTRACT_TABLES, storeContract } from "./store-contract.ts";

/** Short, and long enough for a busy machine. */
const QUICK: Partial<Options> = { electionMs: 120, heartbeatMs: 20, catchUpEntries: 10 };

type Counter = { readonly id: string; readonly count: number; readonly pad?: string };
const counters = defineTable({
  name: "counters",
  version: 1,
  key: (counter: Counter) => counter.id,
  indexes: { byCount: (counter) => String(counter.count) },
});

type Node = { readonly id: PeerId; readonly kv: ReplicatedStore; readonly store: Store; readonly consensus: Consensus };

async function eventually(claim: string, condition: () => boolean, ms = 15_000): Promise<void> {
  const until = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > until) throw new Error(`not within ${ms} ms: ${claim}`);
    await Bun.sleep(2);
  }
}

/** Nodes in one process, each on a disk in memory, with a network between them that can be cut. */
class Cluster {
  readonly net = memoryNetwork();
  readonly disks = new Map<PeerId, Disk>();
  readonly nodes = new Map<PeerId, Node>();
  readonly #tables: RaftStoreOptions["tables"];
  readonly #more: Partial<RaftStoreOptions>;
  readonly #wrap: (id: PeerId, transport: Transport) => Transport;

  constructor(
    tables: RaftStoreOptions["tables"] = [counters],
    more: Partial<RaftStoreOptions> = {},
    wrap: (id: PeerId, transport: Transport) => Transport = (_, transport) => transport,
  ) {
    this.#tables = tables;
    this.#more = more;
    this.#wrap = wrap;
  }

  static async of(ids: readonly PeerId[], ...rest: ConstructorParameters<typeof Cluster>): Promise<Cluster> {
    const cluster = new Cluster(...rest);
    await Promise.all(ids.map((id) => cluster.open(id, ids)));
    return cluster;
  }

  async open(id: PeerId, voters: readonly PeerId[] = []): Promise<Node> {
    const disk = this.disks.get(id) ?? new MemoryDisk();
    this.disks.set(id, disk);
    const schema = schemaOf(this.#tables);
    const opened = await openReplicatedStore(
      {
        directory: "/store",
        tables: this.#tables,
        disk,
        clock: systemClock,
        random: systemRandom,
        log: silentLog,
        segmentBytes: 65_536,
        options: QUICK,
        cluster: { id, configuration: configurationOf(voters), transport: this.#wrap(id, this.net.transport(id)) },
        ...this.#more,
      },
      schema,
    );
    if (!opened.ok) throw new Error(opened.error.message);
    const { kv, consensus } = opened.value;
    const node = { id, kv, store: typedStore(kv, schema), consensus };
    this.nodes.set(id, node);
    return node;
  }

  node(id: PeerId): Node {
    return present(this.nodes.get(id), `node ${id} is open`);
  }

  /** A leader that the others follow. */
  async leader(among: readonly PeerId[] = [...this.nodes.keys()]): Promise<Node> {
    let found: Node | undefined;
    await eventually("there is a leader", () => {
      const nodes = among.map((id) => this.node(id));
      const named = new Set(nodes.map(({ consensus }) => consensus.status().leader));
      found = nodes.find(({ id, kv }) => named.size === 1 && named.has(id) && kv.isLeading);
      return found !== undefined;
    });
    return found!;
  }

  async followers(): Promise<Node[]> {
    const leader = await this.leader();
    return [...this.nodes.values()].filter((node) => node !== leader);
  }

  async close(id: PeerId): Promise<void> {
    await this.node(id).store.close();
    this.nodes.delete(id);
  }

  async closeAll(): Promise<void> {
    this.net.heal();
    await Promise.all([...this.nodes.values()].map(({ store }) => store.close()));
  }
}

const IDS = ["a", "b", "c"];
const passTime = (ms: number) => Bun.sleep(ms);

storeContract("raft, one voter on a disk in memory", async () => {
  const disk = new MemoryDisk();
  const opened = await openRaftStore({
    directory: "/store",
    tables: CONTRACT_TABLES,
    disk,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    segmentBytes: 65_536,
    snapshotBytesMin: 20_000,
  });
  assert(opened.ok, "the store opens");
  const { store } = opened.value;
  return { store, passTime, dispose: () => store.close() };
});

storeContract("raft, one voter on a real disk", async () => {
  const directory = mkdtempSync(join(tmpdir(), "hive-raft-store-"));
  const opened = await openRaftStore({
    directory: join(directory, "store"),
    tables: CONTRACT_TABLES,
    disk: realDisk,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    segmentBytes: 65_536,
  });
  assert(opened.ok, "the store opens");
  const { store } = opened.value;
  const dispose = async () => {
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  };
  return { store, passTime, dispose };
});

storeContract("raft, three voters, through the leader", async () => {
  const cluster = await Cluster.of(IDS, CONTRACT_TABLES);
  const { store } = await cluster.leader();
  return { store, passTime, dispose: () => cluster.closeAll() };
});

storeContract("raft, three voters, through a follower", async () => {
  const cluster = await Cluster.of(IDS, CONTRACT_TABLES);
  const [follower] = await cluster.followers();
  return { store: follower!.store, passTime, dispose: () => cluster.closeAll() };
});

const raise = (store: Store, id = "a", pad = "") =>
  store.transact((state) => {
    const count = (state.get(counters, id)?.count ?? 0) + 1;
    return ok({ writes: [put(counters, { id, count, pad })], value: count });
  });
const countOf = ({ store }: Node, id = "a"): number => store.read().get(counters, id)?.count ?? 0;
const isUnknown = (error: StoreError): boolean => error.message.startsWith("Outcome unknown");

async function withCluster(cluster: Cluster, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } finally {
    await cluster.closeAll();
  }
}

/** Every node shows the same, to the last index and digest. */
async function converged(cluster: Cluster): Promise<void> {
  const leader = await cluster.leader();
  expect(await leader.store.barrier()).toMatchObject({ ok: true });
  const nodes = [...cluster.nodes.values()];
  await eventually("all nodes have applied the same", () => {
    const { lastIndex } = leader.consensus.status();
    return nodes.every(({ consensus }) => consensus.status().appliedIndex === lastIndex);
  });
  for (const { kv, store } of nodes) {
    expect(await kv.digest()).toBe(await leader.kv.digest());
    expect(store.read().all(counters)).toEqual(leader.store.read().all(counters));
  }
}

test("requests that come twice and answers that get lost change nothing: each transaction is made once", async () => {
  // Of what is said about transactions: every request comes twice, the second time late; some of the answers are lost.
  let answers = 0;
  const wrap = (_: PeerId, inner: Transport): Transport => ({
    ...inner,
    send(to, frame: Frame) {
      if (frame.type === "response" && answers++ % 8 === 0) return;
      inner.send(to, frame);
      if (frame.type === "request") setTimeout(() => inner.send(to, frame), 20 + (answers % 5) * 10);
    },
  });
  const cluster = await Cluster.of(IDS, [counters], {}, wrap);
  await withCluster(cluster, async () => {
    const [one, two] = await cluster.followers();
    const raised = await Promise.all(
      Array.from({ length: 24 }, (_, i) => raise((i % 2 === 0 ? one! : two!).store, `c${i % 3}`)),
    );
    expect(raised.every((result) => result.ok)).toBe(true);
    await Bun.sleep(100);
    await converged(cluster);
    expect([0, 1, 2].map((i) => countOf(one!, `c${i}`))).toEqual([8, 8, 8]);
  });
}, 30_000);

test("what a cut-off leader could not commit is made once by the next, and its caller hears how it went", async () => {
  const cluster = await Cluster.of(IDS);
  await withCluster(cluster, async () => {
    const old = await cluster.leader();
    expect(await raise(old.store)).toEqual(ok(1));
    cluster.net.isolate(old.id);
    const raised = Promise.all([raise(old.store), raise(old.store), raise(old.store, "b")]);
    const next = await cluster.leader(IDS.filter((id) => id !== old.id));
    expect(await raise(next.store)).toEqual(ok(2));
    expect(countOf(old)).toBe(1);
    cluster.net.heal();
    const results = await raised;
    expect(results.map((result) => result.ok && result.value).sort()).toEqual([1, 3, 4]);
    await converged(cluster);
    expect([countOf(old), countOf(old, "b")]).toEqual([4, 1]);
  });
}, 30_000);

test("reads after a barrier show what was committed anywhere before it, on a follower too", async () => {
  const cluster = await Cluster.of(IDS);
  await withCluster(cluster, async () => {
    const leader = await cluster.leader();
    const [follower] = await cluster.followers();
    for (let i = 1; i <= 50; i++) {
      expect(await raise(leader.store)).toEqual(ok(i));
      expect(await follower!.store.barrier()).toEqual(ok(undefined));
      expect(countOf(follower!)).toBeGreaterThanOrEqual(i);
    }
  });
}, 30_000);

test("a follower's own writes are shown there at once, and its watch tells every revision", async () => {
  const cluster = await Cluster.of(IDS);
  await withCluster(cluster, async () => {
    const [follower] = await cluster.followers();
    const leader = await cluster.leader();
    const seen: number[] = [];
    const controller = new AbortController();
    const watching = (async () => {
      for await (const event of follower!.store.watch([counters], { fromRevision: 0, signal: controller.signal })) {
        seen.push(event.revision);
      }
    })();
    for (let i = 0; i < 20; i++) {
      const done = await raise(follower!.store, "mine");
      expect(done).toEqual(ok(i + 1));
      expect(countOf(follower!, "mine")).toBe(i + 1);
      await raise(leader.store, "theirs");
    }
    await converged(cluster);
    await eventually("the watch has told all", () => seen.length === 40);
    controller.abort();
    await watching;
    expect(seen).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  });
}, 30_000);

test("a lease outlives its leader, and ends by the next one's clock", async () => {
  const cluster = await Cluster.of(IDS);
  await withCluster(cluster, async () => {
    const old = await cluster.leader();
    const granted = await old.store.grantLease(700);
    assert(granted.ok, "a lease is granted");
    const lease = granted.value;
    const written = await old.store.transact(() =>
      ok({ writes: [put(counters, { id: "leased", count: 1 }, { lease })], value: 1 }),
    );
    expect(written.ok).toBe(true);
    await cluster.close(old.id);
    const next = await cluster.leader();
    const [follower] = await cluster.followers();
    const started = performance.now();
    while (performance.now() - started < 1200) {
      expect(await follower!.store.keepAlive(lease)).toEqual(ok(undefined));
      await Bun.sleep(150);
    }
    expect(countOf(next, "leased")).toBe(1);
    await eventually("the lease has ended", () => countOf(follower!, "leased") === 0 && countOf(next, "leased") === 0);
  });
}, 30_000);

test("a node that was away for long is sent a snapshot; its watchers are told, and it goes on as any other", async () => {
  const cluster = await Cluster.of(IDS, [counters], { segmentBytes: 8192, snapshotBytesMin: 10_000 });
  await withCluster(cluster, async () => {
    const [away] = await cluster.followers();
    expect(await raise(away!.store)).toEqual(ok(1));
    const events = away!.store.watch([counters], { fromRevision: 0 })[Symbol.asyncIterator]();
    expect((await events.next()).value).toMatchObject({ revision: 1 });
    const waiting = events.next();
    cluster.net.isolate(away!.id);
    const leader = await cluster.leader(IDS.filter((id) => id !== away!.id));
    for (let i = 2; i <= 150; i++) expect(await raise(leader.store, "a", "x".repeat(400))).toEqual(ok(i));
    const { snapshotIndex } = leader.consensus.status();
    expect(snapshotIndex).toBeGreaterThan(50);
    cluster.net.heal();
    expect((await waiting).value).toMatchObject({ kind: "compacted" });
    await converged(cluster);
    expect(countOf(away!)).toBe(150);
    expect(away!.store.read().lookup(counters, "byCount", "150")).toHaveLength(1);
    expect(await raise(away!.store)).toEqual(ok(151));
    // What it was sent is what it starts from, next time.
    await cluster.close(away!.id);
    const again = await cluster.open(away!.id, IDS);
    expect(again.store.read().revision).toBeGreaterThan(1);
    await converged(cluster);
    expect(countOf(again)).toBe(151);
  });
}, 60_000);

test("a node that crashed between a received snapshot and its log's new start goes on from the snapshot", async () => {
  const cluster = await Cluster.of(IDS, [counters], { segmentBytes: 8192, snapshotBytesMin: 10_000 });
  await withCluster(cluster, async () => {
    const [follower] = await cluster.followers();
    for (let i = 0; i < 5; i++) await raise(follower!.store);
    await cluster.close(follower!.id);
    const leader = await cluster.leader();
    for (let i = 0; i < 150; i++) await raise(leader.store, "a", "x".repeat(400));
    await cluster.close(leader.id);
    // The file has its name, and the log is as it was.
    const [from, to] = [leader.id, follower!.id].map((id) => cluster.disks.get(id) as MemoryDisk);
    const name = present((await from!.list("/store")).filter(isSnapshotName).sort().at(-1), "there is a snapshot");
    const file = await to!.open(`/store/${name}`, "create");
    await file.write(0, from!.peek(`/store/${name}`));
    const again = await cluster.open(follower!.id, IDS);
    const { revision } = again.store.read();
    expect(revision).toBeGreaterThan(100);
    expect(again.consensus.status()).toMatchObject({
      lastIndex: indexOfSnapshot(name),
      appliedIndex: indexOfSnapshot(name),
    });
    await cluster.open(leader.id, IDS);
    await converged(cluster);
    expect(countOf(again)).toBe(155);
    await cluster.close(again.id);
    const third = await cluster.open(again.id, IDS);
    expect(third.store.read().revision).toBeGreaterThanOrEqual(revision);
  });
}, 30_000);

test("a damaged log of a node with peers is made good from them; one that is gone makes a node that says so", async () => {
  const cluster = await Cluster.of(IDS);
  await withCluster(cluster, async () => {
    const [follower] = await cluster.followers();
    for (let i = 0; i < 20; i++) await raise(follower!.store);
    await converged(cluster);
    const { id } = follower!;
    const disk = cluster.disks.get(id) as MemoryDisk;
    const segments = async () => (await disk.list("/store")).filter((name) => name.endsWith(".segment"));
    await cluster.close(id);
    const path = `/store/${(await segments())[0]}`;
    const bytes = disk.peek(path);
    const middle = bytes.findLastIndex((byte) => byte !== 0) >> 1;
    disk.damage(path, middle, Uint8Array.of(bytes[middle]! ^ 0x40));
    const repaired = await cluster.open(id, IDS);
    expect(repaired.store.read().revision).toBe(0);
    await eventually(
      "it has everything again",
      () => repaired.consensus.status().health === "ok" && countOf(repaired) === 20,
    );
    await converged(cluster);

    await cluster.close(id);
    for (const name of await segments()) await disk.remove(`/store/${name}`);
    const lost = await cluster.open(id, IDS);
    expect(lost.store.status()).toMatchObject({ health: "failed", message: expect.stringContaining("lost") });
    // It learns what there is, and is no voter.
    await converged(cluster);
    expect(countOf(lost)).toBe(20);
  });
}, 30_000);

test("after a restart a node shows nothing that it doesn't know to be committed", async () => {
  const cluster = await Cluster.of(IDS);
  await withCluster(cluster, async () => {
    const old = await cluster.leader();
    expect(await raise(old.store)).toEqual(ok(1));
    await converged(cluster);
    // In its log, and nowhere else.
    cluster.net.isolate(old.id);
    const lost = raise(old.store, "lost");
    const { lastIndex } = old.consensus.status();
    await eventually("it is in the log", () => old.consensus.status().lastIndex > lastIndex);
    const next = await cluster.leader(IDS.filter((id) => id !== old.id));
    await Promise.all([cluster.close(old.id), lost]);
    const again = await cluster.open(old.id, IDS);
    expect(again.store.read().revision).toBe(0);
    expect(await raise(next.store)).toEqual(ok(2));
    expect([countOf(again), countOf(again, "lost")]).toEqual([0, 0]);
    cluster.net.heal();
    await converged(cluster);
    expect([countOf(again), countOf(again, "lost")]).toEqual([2, 0]);
  });
}, 30_000);

test("a store of one voter becomes a cluster of three, and back to one, with everything in it", async () => {
  const cluster = await Cluster.of(["a"]);
  await withCluster(cluster, async () => {
    const first = cluster.node("a");
    for (let i = 0; i < 30; i++) await raise(first.store);
    expect(first.store.status().role).toBe("single");
    for (const id of ["b", "c"]) {
      await cluster.open(id);
      expect(await first.consensus.changeConfiguration({ [id]: "voter" })).toMatchObject({ ok: true });
      await eventually("it votes", () => first.consensus.status().configuration.voters.includes(id));
    }
    expect(await raise(cluster.node("c").store)).toEqual(ok(31));
    await converged(cluster);
    expect(first.store.status()).toMatchObject({ role: "leader", leader: "a", health: "ok" });
    expect(cluster.node("b").store.status()).toMatchObject({ role: "follower", leader: "a", health: "ok" });
    expect(first.store.status().peers).toHaveLength(2);
    expect(await first.consensus.changeConfiguration({ b: "removed", c: "removed" })).toMatchObject({ ok: true });
    await eventually("it is alone", () => first.store.status().role === "single");
    expect(await raise(first.store)).toEqual(ok(32));
  });
}, 30_000);

test("a directory that belongs to another node, or whose log is from before there were nodes, is known", async () => {
  const disk = new MemoryDisk();
  const options = {
    directory: "/store",
    tables: [counters],
    disk,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  };
  const first = await openRaftStore(options);
  assert(first.ok, "the store opens");
  await raise(first.value.store);
  const { id } = first.value.consensus;
  await first.value.store.close();
  const transport = memoryNetwork().transport("other");
  const other = await openRaftStore({
    ...options,
    cluster: { id: "other", configuration: configurationOf(["other"]), transport },
  });
  expect(other).toMatchObject({ ok: false, error: { reason: "failed" } });
  expect(other.ok || other.error.message).toContain(id);
  const again = await openRaftStore({ ...options, cluster: { id, configuration: configurationOf([id]), transport } });
  assert(again.ok, "the store opens");
  expect(again.value.store.read().get(counters, "a")?.count).toBe(1);
  await again.value.store.close();
});

test("through elections, cuts and restarts no caller is told what is not so", async () => {
  const cluster = await Cluster.of(IDS, [counters], { segmentBytes: 16_384, snapshotBytesMin: 30_000 });
  await withCluster(cluster, async () => {
    const end = performance.now() + 4500;
    const outcomes = new Map<string, { made: number; unknown: number; seen: Set<number> }>();
    const caller = async (node: PeerId, name: string) => {
      const outcome = outcomes.get(name) ?? { made: 0, unknown: 0, seen: new Set<number>() };
      outcomes.set(name, outcome);
      while (performance.now() < end) {
        const { store } = cluster.nodes.get(node) ?? {};
        const result = store && (await raise(store, name, "x".repeat(200)));
        if (!result) await Bun.sleep(5);
        else if (result.ok) {
          expect(outcome.seen.has(result.value)).toBe(false);
          outcome.seen.add(result.value);
          outcome.made++;
        } else if (isUnknown(result.error)) outcome.unknown++;
        else expect(["unavailable", "closed", "busy"]).toContain(result.error.reason);
      }
    };
    const callers = IDS.flatMap((id) => [caller(id, `own-${id}`), caller(id, `own-${id}-2`), caller(id, "shared")]);
    for (let round = 0; performance.now() < end - 1500; round++) {
      await Bun.sleep(250);
      const victim = IDS[(round * 7 + 1) % 3]!;
      if (round % 3 === 0) {
        cluster.net.isolate(victim);
        await Bun.sleep(400);
        cluster.net.heal();
      } else if (round % 3 === 1) {
        await cluster.leader().then(({ consensus }) => consensus.transferLeadership());
      } else {
        await cluster.close(victim);
        await Bun.sleep(100);
        await cluster.open(victim, IDS);
      }
    }
    await Promise.all(callers);
    await converged(cluster);
    const leader = await cluster.leader();
    let made = 0;
    for (const [name, outcome] of outcomes) {
      made += outcome.made;
      const count = countOf(leader, name);
      expect(count).toBeGreaterThanOrEqual(outcome.made);
      expect(count).toBeLessThanOrEqual(outcome.made + outcome.unknown);
    }
    expect(made).toBeGreaterThan(100);
  });
}, 60_000);
