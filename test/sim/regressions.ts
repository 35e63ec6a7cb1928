/**
 * Runs that failed once, shrunk, each with the bug that it found. They are run again with every test: their plans are written
 * down whole, so that no change of how plans are drawn takes them away. (A change of the simulation itself may: then the
 * mutants that undo the fixes, in `mutants.ts`, still prove that the bug would be found.)
 */
import type { CorePlan } from "./core/plan.ts";
import { planOf as corePlanOf } from "./core/plan.ts";
import type { FullPlan } from "./full/plan.ts";
import { planOf as fullPlanOf } from "./full/plan.ts";

export type Regression =
  | { readonly simulation: "core"; readonly what: string; readonly seed: number; readonly plan: CorePlan }
  | { readonly simulation: "full"; readonly what: string; readonly seed: number; readonly plan: FullPlan };

const core = (what: string, seed: number, plan: Partial<CorePlan> = {}): Regression => ({
  simulation: "core",
  what,
  seed,
  plan: { ...corePlanOf(seed), ...plan },
});
const full = (what: string, seed: number, plan: Partial<FullPlan> = {}): Regression => ({
  simulation: "full",
  what,
  seed,
  plan: { ...fullPlanOf(seed), ...plan },
});

export const REGRESSIONS: readonly Regression[] = [
  core("a peer whose window was full of lost messages lagged for ever once the log was compacted", 8),
  core("a follower that was refused a write never tried again while its leader's heartbeats came", 107),
  core("a removed leader with the only log that is long enough did not stand for election", 354),
  core("a lease was kept while a late timeout-now was on its way", 314, {
    voters: 3,
    learners: 0,
    spares: 0,
  }),
  core("two leaders of a network that reorders: refusals multiplied whole windows", 153),
  full("a write was refused for want of space, and a node that was about to become a voter committed it", 1317),
];
