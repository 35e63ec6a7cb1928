/**
 * The replicated store against etcd, on the same disk and in turns: durable puts and linearizable gets, by clients that each
 * have a connection and one call on it; then what happens to writers when a leader dies, hands over, or its disk hangs.
 * Hive is asked over its Redis protocol, etcd over gRPC; either load generator is one process of the same runtime.
 */
import { join } from "node:path";
import { startEtcd, startEtcdCluster, type TestEtcd } from "../support/etcd.ts";
import { StoreCluster, type StoreNode } from "../support/store-cluster.ts";
import { login, NODE_SECRET, NODE_USER } from "../support/store-node-login.ts";
import { median } from "./http-load.ts";
import type { Load } from "./load-report.ts";
import type { Report } from "./report.ts";
import { respLoad } from "./resp-load.ts";
import { atLeast, atMost, below, figure, type Goal, type Row } from "./table.ts";

const CLIENTS = [1, 16, 64, 256];
const KEYS = 10_000;
const VALUE_BYTES = 256;
const SECONDS = 1.5;
const WARM_UP_MS = 300;
const LOAD = join(import.meta.dir, "etcd-load.ts");
/** The rates that the store is held to, by its nodes, at 64 clients. */
const PUT_GOALS: Readonly<Record<number, number>> = { 1: 2, 3: 3 };
const P99_GOAL = 0.6;
const GET_GOAL = 4;

export async function benchConsensus(rounds: number, failovers: number, report: Report): Promise<void> {
  for (const size of [1, 3]) await benchAgainstEtcd(size, Math.max(5, rounds), report);
  await benchLeaders(failovers, report);
}

type Measured = { readonly hive: Load[]; readonly etcd: Load[] };

async function benchAgainstEtcd(size: number, rounds: number, report: Report): Promise<void> {
  // As the daemon has it: a node without peers, which no election can disturb, needs no thread for consensus.
  const cluster = await StoreCluster.start(size, { inProcess: size === 1 });
  let etcds: TestEtcd[] = [];
  try {
    etcds = size === 1 ? [await startEtcd()] : await startEtcdCluster(size);
    const leader = await cluster.leader();
    const etcd = await leadingEtcd(etcds);
    const measure = async (command: "put" | "get", clients: number): Promise<Measured> => {
      const measured: Measured = { hive: [], etcd: [] };
      for (let round = 0; round < rounds; round++) {
        measured.hive.push(await loadHive(leader, command, clients));
        measured.etcd.push(await loadEtcd(etcd, command, clients));
      }
      return measured;
    };
    for (const clients of CLIENTS) {
      await report.measure(async () => putRows(size, clients, await measure("put", clients)));
    }
    await report.measure(async () => getRows(size, 64, await measure("get", 64)));
  } finally {
    await cluster.stop();
    for (const member of etcds) await member.stop();
  }
}

function putRows(size: number, clients: number, measured: Measured): readonly Row[] {
  const rate = ratios(measured, ({ rate: value }) => value);
  const p99 = ratios(measured, ({ p99: value }) => value);
  const wanted = clients === 1 ? 1 : clients === 64 ? PUT_GOALS[size] : undefined;
  return [
    rateRow(
      `${nodes(size)}: puts, ${clients} at once`,
      measured,
      rate,
      wanted === undefined ? undefined : atLeast(wanted, rate),
    ),
    {
      measure: `${nodes(size)}: puts, ${clients} at once, p50 / p99`,
      value: `${ms(medianOf(measured.hive, "p50"))} / ${ms(medianOf(measured.hive, "p99"))}`,
      reference: `etcd: ${ms(medianOf(measured.etcd, "p50"))} / ${ms(medianOf(measured.etcd, "p99"))}`,
      ratio: p99,
      ...(clients > 1 && { goal: atMost(P99_GOAL, p99) }),
    },
  ];
}

function getRows(size: number, clients: number, measured: Measured): readonly Row[] {
  const rate = ratios(measured, ({ rate: value }) => value);
  return [rateRow(`${nodes(size)}: linearizable gets, ${clients} at once`, measured, rate, atLeast(GET_GOAL, rate))];
}

const rateRow = (measure: string, measured: Measured, ratio: number, goal: Goal | undefined): Row => ({
  measure,
  value: `${figure(medianOf(measured.hive, "rate"))}/s`,
  reference: `etcd: ${figure(medianOf(measured.etcd, "rate"))}/s`,
  ratio,
  ...(goal && { goal }),
});

const nodes = (size: number): string => (size === 1 ? "1 node" : `${size} nodes`);
const ms = (value: number): string => `${figure(value)} ms`;
const medianOf = (loads: readonly Load[], what: "rate" | "p50" | "p99"): number =>
  median(loads.map((load) => load[what]));
/** The median of the rounds' ratios: what both had of a round's luck falls out. */
const ratios = ({ hive, etcd }: Measured, of: (load: Load) => number): number =>
  median(hive.map((load, round) => of(load) / of(etcd[round]!)));

async function loadHive(node: StoreNode, command: "put" | "get", clients: number): Promise<Load> {
  const load = await respLoad({
    hostname: "127.0.0.1",
    port: node.redis,
    auth: { user: NODE_USER, password: NODE_SECRET },
    command: command === "put" ? "set" : "get",
    connections: clients,
    keys: KEYS,
    valueBytes: VALUE_BYTES,
    warmUpMs: WARM_UP_MS,
    durationMs: SECONDS * 1000,
  });
  return { rate: load.commandsPerSecond, p50: load.p50, p99: load.p99, done: 0, failed: 0 };
}

async function loadEtcd(etcd: TestEtcd, command: "put" | "get", clients: number): Promise<Load> {
  const words = [command, etcd.address, clients, SECONDS, KEYS, VALUE_BYTES, WARM_UP_MS].map(String);
  const child = Bun.spawn([process.execPath, LOAD, ...words], { stdout: "pipe", stderr: "inherit" });
  const text = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error("the load on etcd failed");
  const load = JSON.parse(text) as Load;
  if (load.failed > 0) throw new Error(`etcd refused ${load.failed} calls`);
  return load;
}

/** The member that leads: who asks another pays for the forwarding. */
async function leadingEtcd(etcds: readonly TestEtcd[]): Promise<TestEtcd> {
  for (const etcd of etcds) {
    const status = await etcd.call("maintenance/status", {});
    const header = status.header as { member_id: string };
    if (status.leader === header.member_id) return etcd;
  }
  throw new Error("no etcd leads");
}

// --- Leaders that go

async function benchLeaders(failovers: number, report: Report): Promise<void> {
  const cluster = await StoreCluster.start(3);
  try {
    await cluster.leader();
    await report.measure(async () => {
      const times: number[] = [];
      for (let i = 0; i < failovers; i++) times.push(await failOver(cluster, "SIGKILL"));
      const worst = Math.max(...times);
      return [
        { measure: `leader killed: until a write is answered, median of ${failovers}`, ...limit(median(times), 500) },
        { measure: `leader killed: worst of ${failovers}`, ...limit(worst, 1500) },
      ];
    });
    await report.measure(async () => {
      const gaps: number[] = [];
      for (let i = 0; i < 10; i++) gaps.push(await handOver(cluster));
      return [
        { measure: "planned transfer: longest gap between writes, worst of 10", ...limit(Math.max(...gaps), 50) },
      ];
    });
    await report.measure(async () => {
      const times: number[] = [];
      for (let i = 0; i < 5; i++) times.push(await failOver(cluster, "hang"));
      return [
        { measure: "leader's disk hangs: until a write is answered, worst of 5", ...limit(Math.max(...times), 2000) },
      ];
    });
  } finally {
    await cluster.stop();
  }
}

const limit = (value: number, most: number) => ({ value: ms(value), goal: below(most, value, "ms") });

/** Ends the leader; how long until a survivor answers a write that was asked right then, in ms. */
async function failOver(cluster: StoreCluster, how: "SIGKILL" | "hang"): Promise<number> {
  const leader = await cluster.leader();
  const survivors = await Promise.all(
    [...cluster.nodes.values()].filter((node) => node !== leader).map(({ redis }) => login(redis)),
  );
  if (how === "hang") await leader.ask({ do: "hang" });
  // A disk that hangs is noticed by who writes.
  const busy = how === "hang" ? await login(leader.redis) : undefined;
  const started = performance.now();
  if (how === "SIGKILL") leader.signal("SIGKILL");
  const writes = survivors.map(async (client) => {
    for (;;) {
      const said = await client.ask(["SET", "failover", String(started)], 10_000).catch((error: Error) => error);
      if (said === "OK") return performance.now() - started;
      await Bun.sleep(5);
    }
  });
  busy?.ask(["SET", "failover", "busy"]).catch(() => {});
  const time = await Promise.any(writes);
  await Promise.allSettled(writes);
  for (const client of survivors) client.close();
  leader.signal("SIGKILL");
  await leader.exited;
  await cluster.startNode(leader.id);
  await caughtUp(cluster);
  return time;
}

/** Hands leadership over under load; the longest time between two answers that any of 8 writers got, in ms. */
async function handOver(cluster: StoreCluster): Promise<number> {
  const leader = await cluster.leader();
  const clients = await Promise.all(Array.from({ length: 8 }, () => login(leader.redis)));
  let isOver = false;
  let longest = 0;
  const writers = clients.map(async (client, n) => {
    for (let last = performance.now(); !isOver; ) {
      const said = await client.ask(["SET", `transfer-${n}`, "x"]);
      if (said !== "OK") throw new Error(`a write was refused: ${said}`);
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
    }
  });
  await Bun.sleep(200);
  longest = 0;
  await leader.ask({ do: "transfer" });
  await Bun.sleep(200);
  isOver = true;
  await Promise.all(writers);
  for (const client of clients) client.close();
  return longest;
}

async function caughtUp(cluster: StoreCluster): Promise<void> {
  for (;;) {
    const statuses = [...(await cluster.statuses()).values()];
    const furthest = Math.max(...statuses.map(({ consensus }) => consensus.commitIndex));
    const isEven = statuses.every(({ consensus }) => consensus.appliedIndex === furthest);
    if (isEven && statuses.some(({ consensus }) => consensus.role === "leader")) return;
    await Bun.sleep(20);
  }
}
