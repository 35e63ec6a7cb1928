import { expect, test } from "bun:test";
import { runFaults } from "../support/store-faults.ts";

/** Ten minutes by `npm run test:slow`; here, long enough for every kind of fault. */
const SECONDS = Number(process.env.HIVE_FAULT_SECONDS ?? 40);

test("what clients saw of a cluster of real processes is linearizable, whatever was done to it", async () => {
  const seed = Number(process.env.HIVE_FAULT_SEED ?? Date.now() % 1_000_000);
  const report = await runFaults({ seed, seconds: SECONDS, size: 3 });
  const { verdict, ...counts } = report;
  console.log(`seed ${seed}: ${JSON.stringify(counts)}`);
  expect(verdict).toEqual({ kind: "linearizable" });
  expect(report.acknowledged).toBeGreaterThan(SECONDS * 5);
}, 900_000);
