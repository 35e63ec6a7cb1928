/** Forty of the smallest machines at once: until all run, until all are up, what they take, and a daemon killed above them. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { findGuests } from "../../src/host/hypervisor/process.ts";
import { type Hive, IMAGE_CACHE, until, withHive } from "../support/hive.ts";
import { memoryOf, ROOT_KEY_ENVIRONMENT } from "./hive-process.ts";
import { consoleOf, elements, NodeClient } from "./node-client.ts";
import { countAsOurs } from "./processor-time.ts";
import type { Report } from "./report.ts";
import { figure, type Row } from "./table.ts";

const COUNT = 40;
const LIMIT_MS = 900_000;
const READY = "HIVE:ready";

export async function benchForty(report: Report): Promise<void> {
  await withHive(
    async (hive) => {
      const imageId = await hive.hive("image", "build", "tiny", "--cache-dir", IMAGE_CACHE);
      const client = await NodeClient.start(hive);
      await report.measure(() => launch(hive, client, imageId));
      await report.measure(() => killDaemon(hive, client));
    },
    { env: ROOT_KEY_ENVIRONMENT },
  );
}

const pidsOf = (hive: Hive): number[] =>
  [...findGuests(hive.dataDir).values()].flatMap((found) => found.map(({ pid }) => pid)).sort((a, b) => a - b);

async function runningCount(client: NodeClient): Promise<number> {
  const { body } = await client.call("DescribeInstances", {
    "Filter.1.Name": "instance-state-name",
    "Filter.1.Value.1": "running",
  });
  return elements(body, "instanceId").length;
}

async function launch(hive: Hive, client: NodeClient, imageId: string): Promise<Row[]> {
  const count = String(COUNT);
  const started = performance.now();
  const run = await client.call("RunInstances", {
    ImageId: imageId,
    InstanceType: "h1.nano",
    MinCount: count,
    MaxCount: count,
  });
  const ids = [...new Set(elements(run.body, "instanceId"))];
  const patiently = async (condition: () => Promise<boolean> | boolean, what: string) => {
    await until(
      async () => {
        for (const pid of pidsOf(hive)) countAsOurs(pid);
        if (await condition()) return true;
        await Bun.sleep(500);
        return false;
      },
      what,
      LIMIT_MS,
    );
    return (performance.now() - started) / 1000;
  };
  const allRunning = await patiently(async () => (await runningCount(client)) === COUNT, "all machines run");
  const isReady = (id: string) => consoleOf(hive.dataDir, id).includes(READY);
  const allReady = await patiently(() => ids.every(isReady), "all machines are up");
  const memory = pidsOf(hive).map(proportionalMib);
  const sum = memory.reduce((total, mib) => total + mib, 0);
  return [
    {
      measure: `${COUNT} h1.nano on ${availableParallelism()} processors, all running`,
      value: `${figure(allRunning)} s`,
      goal: { text: "up", met: ids.length === COUNT },
    },
    {
      measure: `${COUNT} h1.nano, all at ${READY}`,
      value: `${figure(allReady)} s`,
      goal: { text: "up", met: memory.length === COUNT },
    },
    { measure: `${COUNT} h1.nano, memory`, value: `${figure(sum)} MiB, ${figure(sum / memory.length)} each` },
    {
      measure: `${COUNT} h1.nano, memory of the daemon`,
      value: `${figure(memoryOf(hive.pid).residentMib)} MiB resident`,
    },
  ];
}

/** kill -9, and a start: the same processes, and all of them running as before. */
async function killDaemon(hive: Hive, client: NodeClient): Promise<Row[]> {
  const before = pidsOf(hive);
  await hive.kill("SIGKILL");
  const started = performance.now();
  await hive.start();
  await until(async () => (await runningCount(client)) === COUNT, "all machines run again", LIMIT_MS);
  const took = performance.now() - started;
  await Bun.sleep(3000); // what a daemon that doubts them would end or start by then
  const after = pidsOf(hive);
  const same = before.length === COUNT && before.join() === after.join() && (await runningCount(client)) === COUNT;
  return [
    {
      measure: `${COUNT} h1.nano after kill -9 of the daemon and a start`,
      value: `${figure(took)} ms to ${COUNT} running; ${same ? "the same processes" : "NOT the same processes"}`,
      goal: { text: "all survive", met: same },
    },
  ];
}

/** The process's share of the memory that it has with others: the host's price for one more. */
function proportionalMib(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? Number.NaN) / 1024;
}
