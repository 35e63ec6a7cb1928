import type { Simulation } from "../base/simulation.ts";
import { type FullPlan, planOf, simplerPlans } from "./plan.ts";
import { runFull } from "./world.ts";

/** Whole nodes of the real code, with clients. */
export const fullSimulation: Simulation<FullPlan> = { name: "full", planOf, run: runFull, simpler: simplerPlans };
