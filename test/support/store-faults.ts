/**
 * Clients against a cluster of real processes while everything goes wrong: kill -9, SIGSTOP, partitions, full disks. What
 * they saw has to be linearizable, and when the faults stop the cluster has to serve and agree.
 */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Prng } from "../sim/base/prng.ts";
import { checkLinearizability, type Operation } from "../sim/check/linearizability.ts";
import type { RedisClient } from "./redis-client.ts";
import { StoreCluster } from "./store-cluster.ts";
import { login } from "./store-node-login.ts";

const KEYS = 8;
const CLIENTS = 6;
const CONVERGE_MS = 30_000;
/** More than the small file systems have. */
const FILLER_BYTES = 256 * 1024 * 1024;

export type FaultReport = {
  readonly operations: number;
  readonly acknowledged: number;
  readonly unknown: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly verdict: ReturnType<typeof checkLinearizability>;
};

export async function runFaults(options: {
  readonly seed: number;
  readonly seconds: number;
  readonly size: number;
}): Promise<FaultReport> {
  const cluster = await StoreCluster.start(options.size, { proxied: true, losesUnsynced: true, diskMib: 96 });
  try {
    await cluster.leader();
    const history = new History();
    const stop = new AbortController();
    const clients = Array.from({ length: CLIENTS }, (_, i) =>
      runClient(cluster, history, new Prng(options.seed, i + 1), stop.signal),
    );
    const faults = await injectFaults(cluster, new Prng(options.seed), options.seconds);
    stop.abort();
    await Promise.all(clients);
    await converge(cluster, history);
    return { ...history.counts(), faults, verdict: checkLinearizability(history.operations) };
  } finally {
    await cluster.stop();
  }
}

class History {
  readonly operations: Operation[] = [];
  #position = 0;
  #value = 0;

  newValue(): number {
    return ++this.#value;
  }
  now(): number {
    return ++this.#position;
  }
  counts() {
    const unknown = this.operations.filter((operation) => operation.return === undefined).length;
    return { operations: this.operations.length, acknowledged: this.operations.length - unknown, unknown };
  }
}

const keyOf = (n: number): string => `k${n}`;
const numberOf = (reply: unknown): number => (reply === null ? 0 : Number(reply));

async function runClient(cluster: StoreCluster, history: History, chance: Prng, stop: AbortSignal): Promise<void> {
  let client: RedisClient | undefined;
  while (!stop.aborted) {
    const id = cluster.ids[chance.below(cluster.ids.length)]!;
    try {
      client = await login(cluster.nodes.get(id)!.redis);
      for (let i = 0; i < 20 && !stop.aborted; i++) {
        await operate(client, history, chance);
        await Bun.sleep(chance.below(20));
      }
    } catch {
      // Unknown outcomes are in the history already; another node may know more.
      await Bun.sleep(20);
    } finally {
      client?.close();
    }
  }
}

/** One operation. Throws when its outcome is unknown, having noted that. */
async function operate(client: RedisClient, history: History, chance: Prng): Promise<void> {
  const key = keyOf(chance.below(KEYS));
  const kind = chance.below(10);
  const call = history.now();
  if (kind < 4) {
    const value = numberOf(taken(await client.ask(["GET", key])));
    history.operations.push({ call, return: history.now(), requires: [[key, value]], effects: [] });
    return;
  }
  const value = history.newValue();
  if (kind < 8) {
    const note = (end: number | undefined) =>
      history.operations.push({ call, return: end, requires: [], effects: [[key, value]] });
    await noted(() => client.ask(["SET", key, String(value)]), note, history);
    return;
  }
  // Compare and set, over two keys at once.
  const other = keyOf((Number(key.slice(1)) + 1) % KEYS);
  taken(await client.ask(["WATCH", key]));
  const before = numberOf(taken(await client.ask(["GET", key])));
  for (const words of [["MULTI"], ["SET", key, String(value)], ["SET", other, String(value)]]) {
    taken(await client.ask(words));
  }
  const note = (end: number | undefined) =>
    history.operations.push({
      call,
      return: end,
      requires: [[key, before]],
      effects: [
        [key, value],
        [other, value],
      ],
    });
  await noted(() => client.ask(["EXEC"]), note, history);
}

function taken(reply: unknown): unknown {
  if (reply instanceof Error) throw reply;
  return reply;
}

/** Notes a write as done, as unknown (then throws), or not at all when it was told not to have happened. */
async function noted(
  ask: () => Promise<unknown>,
  note: (end: number | undefined) => void,
  history: History,
): Promise<void> {
  try {
    const reply = taken(await ask());
    if (reply !== null) note(history.now());
  } catch (error) {
    note(undefined);
    throw error;
  }
}

async function injectFaults(cluster: StoreCluster, chance: Prng, seconds: number): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  const one = () => cluster.ids[chance.below(cluster.ids.length)]!;
  const faults: Record<string, () => Promise<void>> = {
    async kill() {
      const id = one();
      cluster.nodes.get(id)!.signal("SIGKILL");
      await cluster.nodes.get(id)!.exited;
      await Bun.sleep(chance.below(1500));
      await cluster.startNode(id);
    },
    async "kill all"() {
      for (const node of cluster.nodes.values()) node.signal("SIGKILL");
      for (const node of cluster.nodes.values()) await node.exited;
      await Promise.all(cluster.ids.map((id) => cluster.startNode(id)));
    },
    async pause() {
      const node = cluster.nodes.get(one())!;
      node.signal("SIGSTOP");
      await Bun.sleep(100 + chance.below(2000));
      node.signal("SIGCONT");
    },
    async isolate() {
      cluster.proxy.isolate(one());
      await Bun.sleep(200 + chance.below(2000));
      cluster.proxy.heal();
    },
    async "one way"() {
      const [from, to] = [one(), one()];
      if (from !== to) cluster.proxy.cut(from, to, "one-way");
      await Bun.sleep(200 + chance.below(2000));
      cluster.proxy.heal();
    },
    async reset() {
      for (const id of cluster.ids) for (const other of cluster.ids) if (id < other) cluster.proxy.reset(id, other);
      await Bun.sleep(chance.below(300));
    },
    async "full disk"() {
      const filler = join(cluster.directoryOf(one()), "filler");
      try {
        writeFileSync(filler, Buffer.alloc(FILLER_BYTES));
      } catch {
        // It is full now; what fitted stays.
      }
      await Bun.sleep(500 + chance.below(2000));
      rmSync(filler, { force: true });
    },
    async hang() {
      const node = cluster.nodes.get(one())!;
      await node.ask({ do: "hang" });
      await Bun.sleep(500 + chance.below(2000));
      node.signal("SIGKILL");
      await node.exited;
      await cluster.startNode(node.id);
    },
  };
  const names = Object.keys(faults);
  const until = Date.now() + seconds * 1000;
  while (Date.now() < until) {
    const name = names[chance.below(names.length)]!;
    counts[name] = (counts[name] ?? 0) + 1;
    await faults[name]!();
    await Bun.sleep(chance.below(1000));
  }
  return counts;
}

/** After the faults: writes succeed on every node, and all agree on every key. */
async function converge(cluster: StoreCluster, history: History): Promise<void> {
  const deadline = Date.now() + CONVERGE_MS;
  for (const id of cluster.ids) {
    for (;;) {
      try {
        const client = await login(cluster.nodes.get(id)!.redis);
        const call = history.now();
        const value = history.newValue();
        const note = (end: number | undefined) =>
          history.operations.push({ call, return: end, requires: [], effects: [[keyOf(0), value]] });
        await noted(() => client.ask(["SET", keyOf(0), String(value)]), note, history);
        for (let n = 0; n < KEYS; n++) {
          const asked = history.now();
          const found = numberOf(taken(await client.ask(["GET", keyOf(n)])));
          history.operations.push({ call: asked, return: history.now(), requires: [[keyOf(n), found]], effects: [] });
        }
        client.close();
        break;
      } catch (error) {
        if (Date.now() > deadline) throw new Error(`${id} serves no more after the faults: ${error}`);
        await Bun.sleep(100);
      }
    }
  }
}
