import { describe, expect, test } from "bun:test";
import { unhandledRejections } from "../base/real-time.ts";
import { REGRESSIONS } from "../regressions.ts";
import { planOf } from "./plan.ts";
import { runFull } from "./world.ts";

test("whole nodes keep the store's promises under every fault, and serve once they stop", async () => {
  let events = 0;
  let histories = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const outcome = runFull(seed, planOf(seed));
    events += outcome.events;
    histories += outcome.histories - outcome.unknown;
    expect({ seed, violation: outcome.violation?.message }).toEqual({ seed, violation: undefined });
  }
  expect(await unhandledRejections()).toEqual([]);
  expect(events).toBeGreaterThan(100_000);
  expect(histories).toBe(40);
}, 60_000);

test("the same seed gives the same trace, also of code that lives on promises", () => {
  const hashes = [7, 7, 8].map((seed) => runFull(seed, planOf(seed)).hash);
  expect(hashes[0]).toBe(hashes[1]!);
  expect(hashes[0]).not.toBe(hashes[2]!);
});

describe("what was found once stays found:", () => {
  test.each(REGRESSIONS.filter(({ simulation }) => simulation === "full").map((each) => [each.what, each] as const))(
    "%s",
    (_, regression) => {
      if (regression.simulation !== "full") return;
      expect(runFull(regression.seed, regression.plan).violation).toBeUndefined();
    },
  );
});
