import type { Simulation } from "../base/simulation.ts";
import { type CorePlan, planOf, simplerPlans } from "./plan.ts";
import { runCore } from "./world.ts";

/** The consensus core alone: fast, and merciless to the protocol. */
export const coreSimulation: Simulation<CorePlan> = { name: "core", planOf, run: runCore, simpler: simplerPlans };
