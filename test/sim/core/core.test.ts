import { describe, expect, test } from "bun:test";
import { REGRESSIONS } from "../regressions.ts";
import { planOf } from "./plan.ts";
import { runCore } from "./world.ts";

test("the core keeps its promises under every fault, and converges once they stop", () => {
  let events = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const outcome = runCore(seed, planOf(seed));
    events += outcome.events;
    expect({ seed, violation: outcome.violation?.message }).toEqual({ seed, violation: undefined });
  }
  expect(events).toBeGreaterThan(500_000);
}, 60_000);

test("the same seed gives the same trace, another one another", () => {
  const hashes = [7, 7, 8].map((seed) => runCore(seed, planOf(seed)).hash);
  expect(hashes[0]).toBe(hashes[1]!);
  expect(hashes[0]).not.toBe(hashes[2]!);
});

test("a trace can be read, and reading it changes nothing", () => {
  const lines: string[] = [];
  const seen = runCore(3, planOf(3), (line) => lines.push(line));
  expect(seen.hash).toBe(runCore(3, planOf(3)).hash);
  expect(lines.length).toBeGreaterThan(1000);
  expect(lines.some((line) => line.includes("=> leader"))).toBe(true);
});

describe("what was found once stays found:", () => {
  test.each(REGRESSIONS.filter(({ simulation }) => simulation === "core").map((each) => [each.what, each] as const))(
    "%s",
    (_, regression) => {
      if (regression.simulation !== "core") return;
      expect(runCore(regression.seed, regression.plan).violation).toBeUndefined();
    },
  );
});
