/**
 * The gateway under load, `--accel none`: signed DescribeInstances against a bare server in a process of its own which
 * answers the same bytes, and one that answers two. Hive and its references take turns; a figure is the median of rounds,
 * a ratio the median of the rounds' ratios. RunInstances is timed while the instances are made.
 */
import { join } from "node:path";
import { type HiveProcess, importImage, memoryOf, runOne, signedCall } from "./hive-process.ts";
import { bodyOf, firstAnswer, type Load, load, median, percentile, times } from "./http-load.ts";
import type { Report } from "./report.ts";
import { atLeast, below, figure, type Row } from "./table.ts";

const BARE_SERVER = join(import.meta.dir, "bare-server.ts");
const CONNECTIONS = [1, 16];
const MEASURE_MS = 1000;
const WARM_UP_MS = 250;
/** Until the runtime has given back what the load had taken. */
const SETTLE_MS = 10_000;
/** Until the hot path is compiled. */
const FIRST_WARM_UP_MS = 2500;
/** Above this share of a processor the generator was the limit. */
const GENERATOR_BUSY_MAX = 0.9;

interface Server {
  readonly port: number;
  readonly pid: number;
}

interface BareServer extends Server {
  stop(): Promise<void>;
}

/** Fills the daemon with instances, and measures it empty, with a hundred and with a thousand. */
export async function benchGateway(
  hive: HiveProcess,
  directory: string,
  rounds: number,
  report: Report,
): Promise<void> {
  const imageId = await importImage(hive, directory);
  const request = () => signedCall(hive.port, "DescribeInstances");
  await load(request(), { server: hive, connections: 4, durationMs: MEASURE_MS, warmUpMs: FIRST_WARM_UP_MS });
  await describeCells("no instance", hive, directory, rounds, report);
  await report.measure(async () => [await runInstances(hive, imageId, 100, 1)]);
  await describeCells("100 instances", hive, directory, rounds, report);
  await report.measure(async () => [await runInstances(hive, imageId, 900, 8)]);
  await describeCells("1,000 instances", hive, directory, rounds, report);
  await report.measure(async () => {
    await Bun.sleep(SETTLE_MS);
    return [afterLoad(hive)];
  });
}

async function runInstances(hive: HiveProcess, imageId: string, count: number, connections: number): Promise<Row> {
  const requests = Array.from({ length: count }, () => runOne(hive.port, imageId));
  const took = await times(hive.port, requests, connections);
  const p50 = percentile(took, 0.5);
  return {
    measure: `RunInstances answered, durable, ${connections} at once`,
    value: `p50 ${figure(p50)} ms, p99 ${figure(percentile(took, 0.99))} ms`,
    goal: below(20, p50, "ms p50"),
  };
}

function afterLoad(hive: HiveProcess): Row {
  const { residentMib, anonymousMib } = memoryOf(hive.pid);
  return {
    measure: "memory 10 s after the load, 1,000 instances",
    value: `${figure(residentMib)} MiB resident, ${figure(anonymousMib)} MiB of it anonymous`,
    goal: below(120, residentMib, "MiB"),
  };
}

async function describeCells(
  what: string,
  hive: HiveProcess,
  directory: string,
  rounds: number,
  report: Report,
): Promise<void> {
  const request = signedCall(hive.port, "DescribeInstances");
  const same = await startBare(bodyOf(await firstAnswer(hive.port, request)), directory);
  const two = await startBare(Buffer.from("ok"), directory);
  try {
    for (const connections of CONNECTIONS) {
      await report.measure(() => cell(what, connections, rounds, request, hive, same, two));
    }
  } finally {
    await same.stop();
    await two.stop();
  }
}

async function cell(
  what: string,
  connections: number,
  rounds: number,
  request: Uint8Array,
  hive: Server,
  same: Server,
  two: Server,
): Promise<Row[]> {
  const small = what === "no instance";
  const servers = small ? [hive, same, two] : [hive, same];
  const results: Load[][] = servers.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [at, server] of servers.entries())
      results[at]!.push(await load(request, { server, connections, durationMs: MEASURE_MS, warmUpMs: WARM_UP_MS }));
  }
  const [own, bytes, twoBytes] = results as [Load[], Load[], Load[]?];
  const name = `DescribeInstances, ${what}, ${connections} conn.`;
  const ratio = (reference: readonly Load[]) =>
    median(own.map((load, round) => load.requestsPerSecond / reference[round]!.requestsPerSecond));
  const us = (loads: readonly Load[]) => median(loads.map(({ serverUs }) => serverUs));
  const toSame = ratio(bytes);
  const rows: Row[] = [
    {
      measure: name,
      value: shown(own),
      reference: `same bytes (${figure(own[0]!.bytesPerAnswer)}): ${shown(bytes)}`,
      ratio: toSame,
      ...(what === "100 instances" && { goal: atLeast(0.5, toSame) }),
    },
  ];
  if (twoBytes) {
    const toTwo = ratio(twoBytes);
    rows.push({
      measure: name,
      value: shown(own),
      reference: `two bytes: ${shown(twoBytes)}`,
      ratio: toTwo,
      goal: atLeast(0.4, toTwo),
    });
  }
  rows.push({
    measure: "  processor time of the server for a call",
    value: `${figure(us(own))} us`,
    reference: `same bytes: ${figure(us(bytes))} us`,
    ratio: us(own) / us(bytes),
  });
  return rows;
}

function shown(loads: readonly Load[]): string {
  const middle = (of: (load: Load) => number) => median(loads.map(of));
  const limited = middle((load) => load.generatorBusy) > GENERATOR_BUSY_MAX ? " (generator at its limit)" : "";
  const ms = (of: (load: Load) => number) => figure(middle(of));
  return `${figure(middle((load) => load.requestsPerSecond))}/s p50 ${ms(({ p50 }) => p50)} p99 ${ms(({ p99 }) => p99)} ms${limited}`;
}

async function startBare(bytes: Uint8Array, directory: string): Promise<BareServer> {
  const file = join(directory, `answer-${bytes.length}`);
  await Bun.write(file, bytes);
  const child = Bun.spawn([process.execPath, BARE_SERVER, file], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const printed = await child.stdout.getReader().read();
  const port = Number(new TextDecoder().decode(printed.value));
  return {
    port,
    pid: child.pid,
    async stop() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}
