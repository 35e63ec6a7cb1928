/** From exec to the first signed request that is answered, and what an idle daemon costs. */
import { freePort, hiveCommand, memoryOf, signedCall, startHive, withDirectory } from "./hive-process.ts";
import { median, openExchange } from "./http-load.ts";
import { processTime } from "./processor-time.ts";
import type { Report } from "./report.ts";
import { below, figure, type Row } from "./table.ts";

const STARTS = 5;
const STARTED_MS_MAX = 300;
/** Until the collector's timer of the runtime, which sees that nothing changes, has become rare. */
const REST_MS = 40_000;
const IDLE_MS = 20_000;
/** One clock tick of /proc. */
const IDLE_CPU_MS = 10;

/** Fresh directories, and then the one of a daemon that was killed with a thousand instances in its store. */
export async function benchStart(usedDirectory: string, report: Report): Promise<void> {
  await report.measure(async () => {
    const fresh: number[] = [];
    for (let i = 0; i < STARTS; i++) fresh.push(await withDirectory(firstAnswerMs));
    return [row("fresh", fresh)];
  });
  await report.measure(async () => {
    const used: number[] = [];
    for (let i = 0; i < STARTS; i++) used.push(await firstAnswerMs(usedDirectory));
    return [row("1,000 instances in the store", used)];
  });
}

const row = (what: string, took: readonly number[]): Row => ({
  measure: `start: exec to the first answer, ${what}`,
  value: `${figure(median(took))} ms (${took.map((ms) => Math.round(ms)).join(", ")})`,
  goal: below(STARTED_MS_MAX, median(took), "ms"),
});

/** Starts a daemon, asks it as soon as it listens, and kills it. */
async function firstAnswerMs(directory: string): Promise<number> {
  const port = freePort();
  const { argv, env } = hiveCommand(directory, port);
  const request = signedCall(port, "DescribeInstances", { MaxResults: "5" });
  const started = performance.now();
  const child = Bun.spawn(argv, { env, stdin: "ignore", stdout: "ignore", stderr: "ignore" });
  try {
    for (;;) {
      if (child.exitCode !== null || performance.now() - started > 10_000) throw new Error("hive server did not start");
      const exchange = await openExchange(port).catch(() => undefined);
      if (!exchange) {
        await Bun.sleep(1);
        continue;
      }
      const answer = await exchange.send(request);
      const took = performance.now() - started;
      exchange.close();
      if (!answer.toString("latin1", 0, 12).endsWith("200")) throw new Error(`the first answer was ${answer}`);
      return took;
    }
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

/** A daemon without instances and one with a thousand, left alone side by side. */
export async function benchIdle(usedDirectory: string, report: Report): Promise<void> {
  await report.measure(() =>
    withDirectory(async (directory) => {
      const both = await Promise.all([idle("no instance", directory), idle("1,000 instances", usedDirectory)]);
      return both.flat();
    }),
  );
}

async function idle(what: string, directory: string): Promise<Row[]> {
  const hive = await startHive(directory);
  try {
    await Bun.sleep(REST_MS);
    const before = processTime(hive.pid);
    await Bun.sleep(IDLE_MS);
    const usedMs = processTime(hive.pid) - before;
    const { residentMib, anonymousMib } = memoryOf(hive.pid);
    return [
      {
        measure: `idle: memory, ${what}`,
        value: `${figure(residentMib)} MiB resident, ${figure(anonymousMib)} MiB of it anonymous`,
        goal: below(120, residentMib, "MiB"),
      },
      {
        measure: `idle: processor time in ${IDLE_MS / 1000} s, ${what}`,
        value: `${usedMs} ms`,
        goal: { text: `≤ ${IDLE_CPU_MS} ms`, met: usedMs <= IDLE_CPU_MS },
      },
    ];
  } finally {
    await hive.kill();
  }
}
