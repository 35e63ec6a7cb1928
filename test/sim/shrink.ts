/**
 * Makes a failing run small: takes one thing after another out of its plan, and keeps what still fails in the same way. As
 * other chances are drawn once a fault is off, each step also tries a few neighbouring seeds.
 */
import type { Outcome, Simulation } from "./base/simulation.ts";

export type Shrunk<Plan> = {
  readonly seed: number;
  readonly plan: Plan;
  readonly outcome: Outcome;
  readonly runs: number;
};

export function shrink<Plan>(
  simulation: Simulation<Plan>,
  seed: number,
  plan: Plan,
  outcome: Outcome,
  runsMax = 300,
): Shrunk<Plan> {
  const invariant = outcome.violation?.invariant;
  let best = { seed, plan, outcome };
  let runs = 0;
  for (let isSmaller = true; isSmaller; ) {
    isSmaller = false;
    for (const candidate of simulation.simpler(best.plan)) {
      for (let other = 0; other < 3 && runs < runsMax; other++) {
        const tried = best.seed + other * 1_000_003;
        const next = simulation.run(tried, candidate);
        runs++;
        if (next.violation?.invariant !== invariant || next.events > best.outcome.events) continue;
        best = { seed: tried, plan: candidate, outcome: next };
        isSmaller = true;
        break;
      }
      if (isSmaller) break;
    }
  }
  return { ...best, runs };
}
