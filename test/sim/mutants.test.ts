import { expect, test } from "bun:test";
import { MUTANTS } from "./mutants.ts";
import { REGRESSIONS } from "./regressions.ts";
import { runMutants } from "./run-mutants.ts";

/** Quickly caught, one of each kind; `npm run simulate -- --mutants` runs them all. */
const QUICK = [
  "vote twice in a term",
  "give a vote before it is durable",
  "acknowledge entries before they are durable",
  "commit an earlier term's entry by count",
  "lead on after a full disk",
  "install a snapshot that is older than the state",
  "read before an own entry is committed",
];

test("planted bugs are caught", async () => {
  const chosen = MUTANTS.filter(({ name }) => QUICK.includes(name));
  expect(chosen).toHaveLength(QUICK.length);
  const reports = await runMutants(chosen, { jobs: 1, seconds: 20 });
  expect(reports.filter(({ verdict }) => verdict !== "caught")).toEqual([]);
}, 120_000);

test("a run of the core that is kept for a bug finds it, once it is planted again", async () => {
  const kept = REGRESSIONS.filter(({ simulation }) => simulation === "core").map(({ undoneBy }) => undoneBy);
  const chosen = MUTANTS.filter(({ name }) => kept.includes(name));
  expect(chosen).toHaveLength(kept.length);
  // No time for anything but what is kept.
  const reports = await runMutants(chosen, { jobs: 1, seconds: 0 });
  expect(reports.filter(({ verdict }) => verdict !== "caught")).toEqual([]);
}, 120_000);

test("a source without a planted bug passes, so that what is caught is the bug", async () => {
  const control = { name: "nothing", simulation: "core", edits: [] } as const;
  const [report] = await runMutants([control], { jobs: 1, seconds: 2 });
  expect(report?.verdict).toBe("SURVIVED");
}, 60_000);

test("every mutant's patch still applies", async () => {
  const stale: string[] = [];
  for (const { name, edits } of MUTANTS) {
    for (const { file, find } of edits) {
      const text = await Bun.file(`${import.meta.dir}/../../src/cluster/${file}`).text();
      if (text.split(find).length !== 2) stale.push(`${name}: ${file}`);
    }
  }
  expect(stale).toEqual([]);
});
