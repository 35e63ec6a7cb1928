/** Durable transactions of the store, against how often the same disk syncs one small write. In this process, from source. */
import { closeSync, fdatasyncSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { realDisk } from "../../src/cluster/kv/real-disk.ts";
import { openEmbeddedStore } from "../../src/cluster/open-embedded-store.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLog } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { ok } from "../../src/lib/result.ts";
import { defineTable, put, type Store } from "../../src/model/store.ts";
import { withDirectory } from "./hive-process.ts";
import { median } from "./http-load.ts";
import type { Report } from "./report.ts";
import { figure, type Row } from "./table.ts";

const MEASURE_MS = 1000;
const CALLERS = [1, 64];
const SYNC_BYTES = 512;

const records = defineTable({ name: "bench", version: 1, key: (record: BenchRecord) => record.id });
interface BenchRecord {
  readonly id: string;
  readonly text: string;
  readonly count: number;
}

export async function benchStore(rounds: number, report: Report): Promise<void> {
  await withDirectory(async (directory) => {
    const opened = await openEmbeddedStore({
      directory: join(directory, "store"),
      tables: [records],
      disk: realDisk,
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
    });
    if (!opened.ok) throw new Error(opened.error.message);
    const store = opened.value;
    try {
      for (const callers of CALLERS) {
        await report.measure(async () => [await transactions(store, directory, callers, rounds)]);
      }
    } finally {
      await store.close();
    }
  });
}

async function transactions(store: Store, directory: string, callers: number, rounds: number): Promise<Row> {
  const own: number[] = [];
  const disk: number[] = [];
  for (let round = 0; round < rounds; round++) {
    own.push(await transactionsPerSecond(store, callers));
    disk.push(syncsPerSecond(join(directory, "syncs")));
  }
  return {
    measure: `store: durable transactions, ${callers} ${callers === 1 ? "caller" : "callers"}`,
    value: `${figure(median(own))}/s`,
    reference: `fdatasync of ${SYNC_BYTES} bytes: ${figure(median(disk))}/s`,
    ratio: median(own.map((rate, round) => rate / disk[round]!)),
  };
}

async function transactionsPerSecond(store: Store, callers: number): Promise<number> {
  const started = performance.now();
  let done = 0;
  const caller = async (name: number) => {
    for (let count = 0; performance.now() - started < MEASURE_MS; count++) {
      const record = { id: `r-${name}-${count % 100}`, text: "x".repeat(300), count };
      const result = await store.transact(() => ok({ writes: [put(records, record)], value: undefined }));
      if (!result.ok) throw new Error(result.error.message);
      done++;
    }
  };
  await Promise.all(Array.from({ length: callers }, (_, name) => caller(name)));
  return (done * 1000) / (performance.now() - started);
}

/** Writes one after another into a file that is there in full, as the store's log is. */
function syncsPerSecond(file: string): number {
  const fd = openSync(file, "w");
  try {
    const bytes = Buffer.alloc(SYNC_BYTES, 1);
    const length = 4 * 1024 * 1024;
    writeSync(fd, Buffer.alloc(length), 0, length, 0);
    fdatasyncSync(fd);
    const started = performance.now();
    let done = 0;
    for (; performance.now() - started < MEASURE_MS; done++) {
      writeSync(fd, bytes, 0, SYNC_BYTES, (done * SYNC_BYTES) % length);
      fdatasyncSync(fd);
    }
    return (done * 1000) / (performance.now() - started);
  } finally {
    closeSync(fd);
  }
}
