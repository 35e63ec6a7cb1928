/** A daemon that holds 100,000 records: what they take of memory, whether its snapshots stop it, and how soon it is back. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { MIB } from "../../src/lib/units.ts";
import { RedisClient } from "../support/redis-client.ts";
import { freePort, hiveCommand, memoryOf, ROOT_KEY_ENVIRONMENT, startHive, withDirectory } from "./hive-process.ts";
import { median, percentile } from "./http-load.ts";
import type { Report } from "./report.ts";
import { below, figure } from "./table.ts";

const RECORDS = 100_000;
const VALUE_BYTES = 256;
const AT_ONCE = 100;
const STARTS = 5;
const STARTED_MS_MAX = 3000;
const STALL_MS_MAX = 50;
const SNAPSHOTS = 3;
/** Until the runtime's collector has given back what the writing left. */
const REST_MS = 40_000;
const LOAD = join(import.meta.dir, "resp-load.ts");

export async function benchRecords(report: Report): Promise<void> {
  await withDirectory(async (directory) => {
    const redis = freePort();
    const options = ["--config-listen", `127.0.0.1:${redis}`];
    const hive = await startHive(directory, options);
    const store = join(hive.dataDir, "store");
    try {
      await report.measure(async () => {
        await Bun.sleep(REST_MS);
        const before = memoryOf(hive.pid).residentMib;
        await write(redis);
        await Bun.sleep(REST_MS);
        const after = memoryOf(hive.pid).residentMib;
        return [
          {
            measure: `records: memory of one of ${RECORDS.toLocaleString("en-US")}, with ${VALUE_BYTES} bytes`,
            value: `${figure(((after - before) * MIB) / RECORDS)} bytes (${figure(before)} → ${figure(after)} MiB resident)`,
          },
        ];
      });
      await report.measure(async () => {
        const { pings, snapshots, bytes } = await pingWhileSnapshots(redis, store);
        return [
          {
            measure: `records: longest a PING took while ${snapshots} snapshots were written`,
            value: `${figure(pings.at(-1)!)} ms (p99 ${figure(percentile(pings, 0.99))} ms; ${figure(bytes / MIB)} MiB each)`,
            goal: below(STALL_MS_MAX, pings.at(-1)!, "ms"),
          },
        ];
      });
    } finally {
      await hive.kill();
    }
    await report.measure(async () => {
      const took: number[] = [];
      for (let i = 0; i < STARTS; i++) took.push(await firstGetMs(directory, options, redis));
      return [
        {
          measure: "records: killed with them, exec to the first linearizable get",
          value: `${figure(median(took))} ms (${took.map((ms) => Math.round(ms)).join(", ")})`,
          goal: below(STARTED_MS_MAX, median(took), "ms"),
        },
      ];
    });
  });
}

const keyOf = (n: number): string => `bench:${String(n).padStart(8, "0")}`;

async function connect(port: number): Promise<RedisClient> {
  const client = await RedisClient.connect(port);
  const { HIVE_ROOT_ACCESS_KEY_ID: user, HIVE_ROOT_SECRET_ACCESS_KEY: secret } = ROOT_KEY_ENVIRONMENT;
  const reply = await client.ask(["AUTH", user, secret]);
  if (reply !== "OK") throw new Error(`AUTH was answered ${reply}`);
  return client;
}

async function write(port: number): Promise<void> {
  const client = await connect(port);
  const value = "v".repeat(VALUE_BYTES);
  for (let n = 0; n < RECORDS; n += AT_ONCE) {
    const pairs = Array.from({ length: AT_ONCE }, (_, i) => [keyOf(n + i), value]).flat();
    const reply = await client.ask(["MSET", ...pairs]);
    if (reply !== "OK") throw new Error(`MSET was answered ${reply}`);
  }
  client.close();
}

/** Asks as fast as it is answered, while others write enough for snapshots. @returns times in ms, ascending */
async function pingWhileSnapshots(port: number, store: string) {
  const child = Bun.spawn(
    [process.execPath, LOAD, "set", `127.0.0.1:${port}`, ..."8 600".split(" "), String(RECORDS), String(VALUE_BYTES)],
    { env: { ...process.env, ...ROOT_KEY_ENVIRONMENT }, stdout: "ignore", stderr: "inherit" },
  );
  try {
    const client = await connect(port);
    const seen = new Set(snapshotsOf(store));
    const before = seen.size;
    const pings: number[] = [];
    const until = performance.now() + 120_000;
    for (let looked = 0; seen.size < before + SNAPSHOTS; ) {
      const asked = performance.now();
      if (asked > until) throw new Error(`${SNAPSHOTS} snapshots were not written in two minutes`);
      await client.ask(["PING"]);
      pings.push(performance.now() - asked);
      await Bun.sleep(1);
      if (performance.now() - looked < 100) continue;
      looked = performance.now();
      for (const name of snapshotsOf(store)) seen.add(name);
    }
    client.close();
    const bytes = statSync(join(store, snapshotsOf(store).at(-1)!)).size;
    return { pings: pings.sort((a, b) => a - b), snapshots: SNAPSHOTS, bytes };
  } finally {
    child.kill();
    await child.exited;
  }
}

const snapshotsOf = (store: string): string[] =>
  existsSync(store)
    ? readdirSync(store)
        .filter((name) => name.endsWith(".snapshot"))
        .sort()
    : [];

/** Starts a daemon, asks it as soon as it listens, and kills it. */
async function firstGetMs(directory: string, options: readonly string[], redis: number): Promise<number> {
  const { argv, env } = hiveCommand(directory, 0, options);
  const started = performance.now();
  const child = Bun.spawn(argv, { env, stdin: "ignore", stdout: "ignore", stderr: "ignore" });
  try {
    for (;;) {
      if (child.exitCode !== null || performance.now() - started > 30_000) throw new Error("hive server did not start");
      const client = await connect(redis).catch(() => undefined);
      if (!client) {
        await Bun.sleep(1);
        continue;
      }
      const value = await client.ask(["GET", keyOf(RECORDS - 1)]);
      const took = performance.now() - started;
      client.close();
      if (value !== "v".repeat(VALUE_BYTES)) throw new Error(`the first get was answered ${value}`);
      return took;
    }
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}
