import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { foreignTls, nodeTls } from "../../../test/support/node-certificates.ts";
import { FAULTS, type Fault } from "../../../test/support/store-node-worker.ts";
import { present } from "../../lib/assert.ts";
import { systemClock } from "../../lib/clock.ts";
import { silentLog } from "../../lib/log.ts";
import { systemRandom } from "../../lib/random.ts";
import { ok } from "../../lib/result.ts";
import { defineTable, put, type Store } from "../../model/store.ts";
import type { Consensus } from "../consensus.ts";
import { realDisk } from "../kv/real-disk.ts";
import type { ReplicatedStore } from "../kv/replicated-store.ts";
import { schemaOf } from "../kv/schema.ts";
import { typedStore } from "../kv/typed-store.ts";
import { openReplicatedStore, type RaftStoreOptions } from "../open-raft-store.ts";
import { configurationOf } from "../raft/configuration.ts";
import type { PeerId } from "../raft/types.ts";
import { CONTRACT_TABLES, storeContract } from "../store-contract.ts";
import type { ListenAt } from "./messages.ts";
import type { Listener } from "./remote-consensus.ts";

const FAULTY = new URL("../../../test/support/store-node-worker.ts", import.meta.url);

type Counter = { readonly id: string; readonly count: number; readonly pad?: string };
const counters = defineTable({ name: "counters", version: 1, key: (counter: Counter) => counter.id });

type Node = {
  readonly id: PeerId;
  readonly kv: ReplicatedStore;
  readonly store: Store;
  readonly consensus: Consensus;
  readonly listener: Listener;
};

async function eventually(claim: string, condition: () => boolean, ms = 15_000): Promise<void> {
  const until = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > until) throw new Error(`not within ${ms} ms: ${claim}`);
    await Bun.sleep(2);
  }
}

type Settings = {
  readonly tables?: RaftStoreOptions["tables"];
  readonly more?: Partial<RaftStoreOptions>;
  readonly listen?: Partial<ListenAt>;
};

/** Nodes on real disks, with their consensus in a Worker each, over TCP. */
class Cluster {
  readonly nodes = new Map<PeerId, Node>();
  readonly #directory = mkdtempSync(join(tmpdir(), "hive-worker-store-"));
  readonly #settings: Settings;

  constructor(settings: Settings = {}) {
    this.#settings = settings;
  }

  static async of(ids: readonly PeerId[], settings: Settings = {}): Promise<Cluster> {
    const cluster = new Cluster(settings);
    await Promise.all(ids.map((id) => cluster.open(id, ids)));
    return cluster;
  }

  async open(
    id: PeerId,
    voters: readonly PeerId[] = [],
    listen: Partial<ListenAt> = {},
    tables = this.#settings.tables ?? [counters],
  ): Promise<Node> {
    const schema = schemaOf(tables);
    const opened = await openReplicatedStore(
      {
        directory: join(this.#directory, id),
        tables,
        disk: realDisk,
        clock: systemClock,
        random: systemRandom,
        log: silentLog,
        segmentBytes: 65_536,
        options: { electionMs: 200, heartbeatMs: 40, catchUpEntries: 10 },
        ...this.#settings.more,
        cluster: {
          id,
          configuration: configurationOf(voters),
          transport: {
            hostname: "127.0.0.1",
            port: 0,
            clusterId: "worker-test",
            secret: Buffer.from("a secret that the nodes of one test share"),
            ...this.#settings.listen,
            ...listen,
          },
        },
      },
      schema,
    );
    if (!opened.ok) throw new Error(opened.error.message);
    const { kv, consensus } = opened.value;
    const listener = present(opened.value.listener, "a node with a Worker listens");
    const node = { id, kv, store: typedStore(kv, schema), consensus, listener };
    this.nodes.set(id, node);
    this.introduce();
    return node;
  }

  /** Tells everyone where everyone is. */
  introduce(): void {
    const peers = new Map(
      [...this.nodes].map(([id, { listener }]) => [id, { host: "127.0.0.1", port: listener.port }]),
    );
    for (const { listener } of this.nodes.values()) listener.setPeers(peers);
  }

  /** A leader that the others follow, but for `besides`. */
  async leader(besides?: PeerId): Promise<Node> {
    let found: Node | undefined;
    await eventually("there is a leader", () => {
      const nodes = [...this.nodes.values()].filter(({ id }) => id !== besides);
      const named = new Set(nodes.map(({ consensus }) => consensus.status().leader));
      found = nodes.find(({ id, kv }) => named.size === 1 && named.has(id) && kv.isLeading);
      return found !== undefined;
    });
    return present(found, "a leader was found");
  }

  async follower(): Promise<Node> {
    const leader = await this.leader();
    return present(
      [...this.nodes.values()].find((node) => node !== leader),
      "a leader has followers",
    );
  }

  async close(id: PeerId): Promise<void> {
    await this.nodes.get(id)?.store.close();
    this.nodes.delete(id);
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.nodes.keys()].map((id) => this.close(id)));
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

const IDS = ["a", "b", "c"];
const passTime = (ms: number) => Bun.sleep(ms);

storeContract("raft in a Worker, three voters over TCP, through the leader", async () => {
  const cluster = await Cluster.of(IDS, { tables: CONTRACT_TABLES });
  const { store } = await cluster.leader();
  return { store, passTime, dispose: () => cluster.closeAll() };
});

storeContract("raft in a Worker, three voters over TCP, through a follower", async () => {
  const cluster = await Cluster.of(IDS, { tables: CONTRACT_TABLES });
  const { store } = await cluster.follower();
  return { store, passTime, dispose: () => cluster.closeAll() };
});

const raise = (store: Store, id = "a", pad = "") =>
  store.transact((state) => {
    const count = (state.get(counters, id)?.count ?? 0) + 1;
    return ok({ writes: [put(counters, { id, count, pad })], value: count });
  });
const countOf = ({ store }: Node, id = "a"): number => store.read().get(counters, id)?.count ?? 0;

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
  const index = leader.consensus.status().appliedIndex;
  await eventually("all nodes have applied the same", () =>
    nodes.every(({ consensus }) => consensus.status().appliedIndex === index),
  );
  for (const { kv } of nodes) expect(await kv.digest()).toBe(await leader.kv.digest());
}

test("a lone node in a Worker leads once it is open, and again after it was closed, with everything in it", async () => {
  const cluster = await Cluster.of(["a"]);
  await withCluster(cluster, async () => {
    const node = await cluster.leader();
    for (let i = 1; i <= 100; i++) expect(await raise(node.store)).toEqual(ok(i));
    expect(await node.store.barrier()).toEqual(ok(undefined));
    expect(node.store.status()).toMatchObject({ role: "single", health: "ok", revision: 100 });
    expect(node.consensus.status()).toMatchObject({ decidesAlone: true, appliedIndex: 101 });
    await cluster.close("a");
    const again = await cluster.open("a", ["a"]);
    expect([again.kv.isLeading, countOf(again)]).toEqual([true, 100]);
    expect(await raise(again.store)).toEqual(ok(101));
  });
}, 30_000);

test("snapshots are taken and sent between Workers while stores read and write them", async () => {
  const cluster = await Cluster.of(IDS, { more: { segmentBytes: 8192, snapshotBytesMin: 10_000 } });
  await withCluster(cluster, async () => {
    const away = await cluster.follower();
    expect(await raise(away.store)).toEqual(ok(1));
    await cluster.close(away.id);
    cluster.introduce();
    const leader = await cluster.leader();
    for (let i = 2; i <= 150; i++) expect(await raise(leader.store, "a", "x".repeat(400))).toEqual(ok(i));
    await eventually("the log was compacted", () => leader.consensus.status().snapshotIndex > 50);
    const again = await cluster.open(away.id, IDS);
    await converged(cluster);
    expect(countOf(again)).toBe(150);
    await eventually("it knows its snapshot", () => again.consensus.status().snapshotIndex > 50);
    expect(await raise(again.store)).toEqual(ok(151));
  });
}, 60_000);

test("nodes reach each other over TLS, with what they were given as texts", async () => {
  const cluster = await Cluster.of(IDS, { listen: { tls: nodeTls } });
  await withCluster(cluster, async () => {
    const follower = await cluster.follower();
    expect(await raise(follower.store)).toEqual(ok(1));
    expect(await follower.listener.stats()).toMatchObject({ ok: true, value: { peersConnected: 2, inbound: 2 } });
    // One with another authority's is no peer of theirs.
    await cluster.close(follower.id);
    const foreign = await cluster.open(follower.id, IDS, { tls: foreignTls });
    expect(await raise((await cluster.leader(follower.id)).store)).toEqual(ok(2));
    await Bun.sleep(500);
    expect(foreign.consensus.status().leader).toBeUndefined();
    expect(countOf(foreign)).toBe(0);
  });
}, 30_000);

test("a lone node becomes one of three, and says that it decides alone only while that is so", async () => {
  const cluster = await Cluster.of(["a"]);
  await withCluster(cluster, async () => {
    const first = await cluster.leader();
    for (let i = 0; i < 20; i++) await raise(first.store);
    expect(first.consensus.status().decidesAlone).toBe(true);
    for (const id of ["b", "c"]) {
      await cluster.open(id);
      const changed = first.consensus.changeConfiguration({ [id]: "voter" });
      // What is on its way to the Worker may be in force there by the time it is looked at.
      expect(first.consensus.status().decidesAlone).toBe(false);
      expect(await changed).toMatchObject({ ok: true });
      await eventually("it votes", () => first.consensus.status().configuration.voters.includes(id));
      expect(first.consensus.status().decidesAlone).toBe(false);
    }
    expect(await raise(present(cluster.nodes.get("c"), "it is open").store)).toEqual(ok(21));
    await converged(cluster);
    expect(await first.consensus.transferLeadership("b")).toEqual(ok(undefined));
    await eventually("the store knows", () => !first.kv.isLeading);
    expect((await cluster.leader()).id).toBe("b");
    expect(await first.store.barrier()).toEqual(ok(undefined));
  });
}, 30_000);

test("a store that is closed while writes are under way answers each, and what it said was made is there", async () => {
  const cluster = await Cluster.of(IDS);
  await withCluster(cluster, async () => {
    for (const id of IDS) {
      const victim = present(cluster.nodes.get(id), "it is open");
      await cluster.leader();
      let made = 0;
      let isClosed = false;
      const writers = Array.from({ length: 8 }, async (_, writer) => {
        while (true) {
          const done = await raise(victim.store, `${id}-${writer}`);
          if (!done.ok) return done.error.reason;
          expect(isClosed).toBe(false);
          made++;
        }
      });
      await eventually("writes are under way", () => made > 50);
      await victim.store.close();
      isClosed = true;
      for (const reason of await Promise.all(writers)) expect(["closed", "unavailable"]).toContain(reason);
      const said = made;
      const again = await cluster.open(id, IDS);
      await converged(cluster);
      const counted = Array.from({ length: 8 }, (_, writer) => countOf(again, `${id}-${writer}`));
      expect(counted.reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(said);
    }
  });
}, 60_000);

test.each<Fault>(["throw", "exit"])(
  "a Worker that ends (%s) is a node that failed: whoever waits is told, and the others go on",
  async (fault) => {
    const cluster = new Cluster();
    await withCluster(cluster, async () => {
      for (const id of IDS) await cluster.open(id, IDS, id === "a" ? { program: FAULTY } : {});
      await cluster.leader();
      const victim = present(cluster.nodes.get("a"), "it is open");
      if (!victim.kv.isLeading) await (await cluster.leader()).consensus.transferLeadership("a");
      await eventually("it leads", () => victim.kv.isLeading);
      expect((await raise(victim.store)).ok).toBe(true);

      const writers = Array.from({ length: 8 }, async (_, writer) => {
        for (;;) {
          const done = await raise(victim.store, `w${writer}`);
          if (!done.ok) return done.error;
        }
      });
      const asked = victim.consensus.request("nobody", Buffer.from("?"), 60_000);
      new BroadcastChannel(FAULTS).postMessage(fault);
      for (const error of await Promise.all(writers)) {
        expect(error.reason).toBe("failed");
        expect(error.message).toContain("Restart Hive");
      }
      expect(await asked).toMatchObject({ ok: false });
      expect(victim.store.status()).toMatchObject({ health: "failed" });
      expect(victim.consensus.status()).toMatchObject({ health: "failed", role: "follower" });
      expect(await victim.store.barrier()).toMatchObject({ ok: false, error: { reason: "failed" } });
      expect(await raise(victim.store)).toMatchObject({ ok: false, error: { reason: "failed" } });
      // What it had applied can still be read.
      expect(countOf(victim)).toBe(1);
      await cluster.close("a");
      expect((await raise((await cluster.leader()).store)).ok).toBe(true);
      const again = await cluster.open("a", IDS);
      await converged(cluster);
      expect(countOf(again)).toBe(2);
    });
  },
  60_000,
);

test("a store that can't apply an entry stops its node, and no other", async () => {
  const later = defineTable({
    ...counters,
    version: 2,
    key: (counter: Counter) => counter.id,
    migrate: (old) => old as Counter,
  });
  const cluster = new Cluster();
  await withCluster(cluster, async () => {
    for (const id of ["a", "b"]) await cluster.open(id, IDS, {}, [later]);
    const old = await cluster.open("c", IDS);
    const first = await cluster.leader();
    if (first === old) expect(await first.consensus.transferLeadership("a")).toEqual(ok(undefined));
    const { store } = await cluster.leader();
    const made = store.transact(() => ok({ writes: [put(later, { id: "x", count: 1 })], value: 1 }));
    expect(await made).toEqual(ok(1));
    await eventually("it stops", () => old.store.status().health === "failed");
    expect(old.store.status().message).toContain("this version of Hive knows only 1");
    expect(await raise(old.store)).toMatchObject({ ok: false, error: { reason: "failed" } });
    expect(store.status().health).toBe("ok");
    expect(await store.barrier()).toEqual(ok(undefined));
  });
}, 30_000);

test("where it can't listen, or has no program, the store says so and is not locked", async () => {
  const cluster = await Cluster.of(["a"]);
  await withCluster(cluster, async () => {
    const { port } = present(cluster.nodes.get("a"), "it is open").listener;
    await expect(cluster.open("b", ["b"], { port })).rejects.toThrow(
      `can't listen for other nodes on 127.0.0.1 port ${port}`,
    );
    await expect(cluster.open("b", ["b"], { program: "/no/such/program.ts" })).rejects.toThrow(
      "thread of consensus ended",
    );
    expect((await raise((await cluster.open("b", ["b"])).store)).ok).toBe(true);
  });
}, 30_000);
