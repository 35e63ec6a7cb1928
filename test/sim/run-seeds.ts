/** Runs seeds, one after another, and adds up. */

import { listenForRejections, unhandledRejections } from "./base/real-time.ts";
import type { Outcome, Simulation } from "./base/simulation.ts";
import { Violation } from "./base/simulation.ts";
import { coreSimulation } from "./core/simulation.ts";
import { fullSimulation } from "./full/simulation.ts";
import { REGRESSIONS } from "./regressions.ts";

/** Erases the plan's type: a simulation is only ever given its own plans. */
export const SIMULATIONS: readonly Simulation<unknown>[] = [
  coreSimulation as Simulation<unknown>,
  fullSimulation as Simulation<unknown>,
];

export type Failure = {
  readonly simulation: string;
  readonly seed: number;
  readonly invariant: string;
  readonly message: string;
};

export type Tally = {
  seeds: number;
  events: number;
  histories: number;
  unknown: number;
  faults: number;
  failures: Failure[];
};

export const emptyTally = (): Tally => ({ seeds: 0, events: 0, histories: 0, unknown: 0, faults: 0, failures: [] });

/** One seed in so many is run twice, to see that it does the same again. */
const TWICE_EVERY = 40;

export type SeedsOptions = {
  readonly simulations: readonly Simulation<unknown>[];
  readonly from: number;
  readonly count: number;
  /** No new seed is begun after so many. */
  readonly seconds?: number;
  /** Ends with the first failure. */
  readonly stops?: boolean;
  /** Runs first what is kept of this mutant's bug. */
  readonly undoneBy?: string;
};

export async function runSeeds(options: SeedsOptions): Promise<Tally> {
  const { simulations, from, count, seconds, stops } = options;
  listenForRejections();
  const tally = emptyTally();
  if (options.undoneBy !== undefined) runKept(options.undoneBy, tally);
  if (stops && tally.failures.length > 0) return tally;
  const end = seconds === undefined ? Number.POSITIVE_INFINITY : performance.now() + seconds * 1000;
  for (let seed = from; seed < from + count && performance.now() < end; seed++) {
    tally.seeds++;
    for (const simulation of simulations) {
      const plan = simulation.planOf(seed);
      const outcome = simulation.run(seed, plan);
      const violation =
        outcome.violation ??
        (await leftAlone()) ??
        (seed % TWICE_EVERY === 0 ? differs(simulation, seed, plan, outcome) : undefined);
      tally.events += outcome.events;
      tally.histories += outcome.histories;
      tally.unknown += outcome.unknown;
      tally.faults += outcome.faults;
      if (!violation) continue;
      const { invariant, message } = violation;
      tally.failures.push({ simulation: simulation.name, seed, invariant, message });
      if (stops) return tally;
    }
  }
  return tally;
}

/** The runs that are kept of one bug. */
function runKept(undoneBy: string, tally: Tally): void {
  for (const kept of REGRESSIONS.filter((regression) => regression.undoneBy === undoneBy)) {
    const simulation = SIMULATIONS.find(({ name }) => name === kept.simulation)!;
    const { violation, events } = simulation.run(kept.seed, kept.plan);
    tally.events += events;
    if (!violation) continue;
    const { message } = violation;
    tally.failures.push({
      simulation: simulation.name,
      seed: kept.seed,
      invariant: `${violation.invariant} (kept run)`,
      message,
    });
  }
}

async function leftAlone(): Promise<Violation | undefined> {
  const [error] = await unhandledRejections();
  if (error === undefined) return undefined;
  return new Violation("no rejection is left alone", error instanceof Error ? `${error.stack}` : String(error));
}

function differs(simulation: Simulation<unknown>, seed: number, plan: unknown, first: Outcome): Violation | undefined {
  const second = simulation.run(seed, plan);
  if (second.hash === first.hash && second.events === first.events) return undefined;
  return new Violation(
    "the same seed gives the same trace",
    `${first.hash} after ${first.events}, then ${second.hash} after ${second.events}`,
  );
}

export function added(a: Tally, b: Tally): Tally {
  return {
    seeds: a.seeds + b.seeds,
    events: a.events + b.events,
    histories: a.histories + b.histories,
    unknown: a.unknown + b.unknown,
    faults: a.faults + b.faults,
    failures: [...a.failures, ...b.failures],
  };
}

export function summary({ seeds, events, histories, unknown, faults, failures }: Tally): string {
  const judged =
    unknown > 0 ? `${histories} histories checked (${unknown} undecided)` : `${histories} histories checked`;
  return `${seeds} seeds, ${events} events, ${judged}, ${faults} faults injected, ${failures.length} failures`;
}
