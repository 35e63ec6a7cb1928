/** What the two simulations (`core/`, `full/`) have in common, for whoever runs, shrinks and mutates them. */

/** Thrown where something does not hold; named for the property. */
export class Violation extends Error {
  readonly invariant: string;
  constructor(invariant: string, message: string) {
    super(`${invariant}: ${message}`);
    this.invariant = invariant;
  }
}

export type Outcome = {
  readonly violation: Violation | undefined;
  readonly events: number;
  readonly faults: number;
  /** Client histories that were judged, and those whose judging was given up. */
  readonly histories: number;
  readonly unknown: number;
  /** Of everything that happened: the same for the same seed and plan. */
  readonly hash: string;
};

/** A kind of run. `Plan` is plain JSON: it says everything that the seed does not. */
export type Simulation<Plan> = {
  readonly name: "core" | "full";
  planOf(seed: number): Plan;
  /** Never rejects for what the code under test did. */
  run(seed: number, plan: Plan, print?: (line: string) => void): Outcome;
  /** Plans with less in them, the most telling first. */
  simpler(plan: Plan): readonly Plan[];
};

/** An error of the code under test, with where it came from. */
export function asViolation(error: unknown): Violation {
  if (error instanceof Violation) return error;
  if (!(error instanceof Error)) return new Violation("the code's own assertions", String(error));
  const frames = (error.stack ?? "").split("\n").filter((line) => /\/(src|sim)\//.test(line));
  const where = frames.slice(0, 3).map((line) => line.trim().replace(/\(?\/[^ ]*\/(src|test)\//, "$1/"));
  return new Violation("the code's own assertions", `${error.message} (${where.join("; ")})`);
}
