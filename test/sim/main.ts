/**
 * `npm run simulate -- --seeds N`: whole clusters under one seed each, with faults, and everything checked.
 *   --seeds N          how many (100), from --from S (1)
 *   --simulation NAME  core, full, or both (default)
 *   --seconds T        begin no new seed after T seconds
 *   --jobs J           processes (1)
 *   --seed S --trace   one seed, and everything that happened in it
 *   --mutants [NAME …] plants bugs in a copy of the source and runs until each is caught
 * The last line counts seeds, events, histories, faults and failures; the exit code is 1 if there was a failure.
 */
import { parseArgs } from "node:util";
import type { Simulation } from "./base/simulation.ts";
import { MUTANTS } from "./mutants.ts";
import { runMutants } from "./run-mutants.ts";
import { added, emptyTally, type Failure, runSeeds, SIMULATIONS, summary, type Tally } from "./run-seeds.ts";
import { shrink } from "./shrink.ts";

const { values, positionals } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    simulation: { type: "string" },
    seconds: { type: "string" },
    jobs: { type: "string", default: "1" },
    trace: { type: "boolean", default: false },
    mutants: { type: "boolean", default: false },
    stop: { type: "boolean", default: false },
    undo: { type: "string" },
    json: { type: "boolean", default: false },
    "no-shrink": { type: "boolean", default: false },
  },
  allowPositionals: true,
});

const simulations = SIMULATIONS.filter(({ name }) => values.simulation === undefined || values.simulation === name);
if (simulations.length === 0) {
  console.error(`There is no simulation "${values.simulation}": ${SIMULATIONS.map(({ name }) => name).join(", ")}.`);
  process.exit(2);
}

async function mutants(): Promise<number> {
  const chosen = MUTANTS.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  const reports = await runMutants(chosen, {
    jobs: Number(values.jobs),
    seconds: Number(values.seconds ?? 120),
    done: ({ mutant, verdict, detail }) => console.log(`${verdict.padEnd(10)} ${mutant.padEnd(44)} ${detail}`),
  });
  const caught = reports.filter(({ verdict }) => verdict === "caught").length;
  console.log(`${reports.length} mutants, ${caught} caught, ${reports.length - caught} not`);
  return caught === reports.length ? 0 : 1;
}

function oneSeed(seed: number): number {
  let isFailed = false;
  for (const simulation of simulations) {
    const print = values.trace ? (line: string) => console.log(line) : undefined;
    const outcome = simulation.run(seed, simulation.planOf(seed), print);
    console.log(`${simulation.name} seed ${seed}: ${outcome.events} events, trace ${outcome.hash}`);
    if (!outcome.violation) continue;
    isFailed = true;
    report(simulation, { simulation: simulation.name, seed, ...described(outcome.violation) });
  }
  return isFailed ? 1 : 0;
}

async function manySeeds(): Promise<number> {
  const jobs = Math.max(1, Number(values.jobs));
  const tally = await (jobs === 1 ? inThisProcess() : inProcesses(jobs));
  if (values.json) {
    console.log(JSON.stringify(tally));
  } else {
    for (const failure of tally.failures) report(present(failure.simulation), failure);
    console.log(summary(tally));
  }
  return tally.failures.length > 0 ? 1 : 0;
}

const inThisProcess = (): Promise<Tally> =>
  runSeeds({
    simulations,
    from: Number(values.from),
    count: Number(values.seeds),
    stops: values.stop,
    ...(values.undo !== undefined && { undoneBy: values.undo }),
    ...(values.seconds !== undefined && { seconds: Number(values.seconds) }),
  });

/** Slices of the seeds, each in a process of its own. */
async function inProcesses(jobs: number): Promise<Tally> {
  const each = Math.ceil(Number(values.seeds) / jobs);
  const tallies = await Promise.all(
    Array.from({ length: jobs }, async (_, job): Promise<Tally> => {
      const count = Math.min(each, Number(values.seeds) - job * each);
      if (count <= 0) return emptyTally();
      const child = Bun.spawn(
        [
          process.execPath,
          import.meta.path,
          "--json",
          `--seeds=${count}`,
          `--from=${Number(values.from) + job * each}`,
          ...(values.simulation === undefined ? [] : [`--simulation=${values.simulation}`]),
          ...(values.seconds === undefined ? [] : [`--seconds=${values.seconds}`]),
        ],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      return JSON.parse(await new Response(child.stdout).text()) as Tally;
    }),
  );
  return tallies.reduce(added);
}

/** Says what failed, and the smallest run that was found to fail in the same way. */
function report(simulation: Simulation<unknown>, { seed, message }: Failure): void {
  console.log(`FAILED ${simulation.name} seed ${seed}: ${message}`);
  if (values["no-shrink"]) return;
  const plan = simulation.planOf(seed);
  const outcome = simulation.run(seed, plan);
  if (!outcome.violation) {
    console.log("  not shrunk: it does not fail again");
    return;
  }
  const small = shrink(simulation, seed, plan, outcome);
  console.log(`  shrunk in ${small.runs} runs to ${small.outcome.events} events: ${small.outcome.violation?.message}`);
  console.log(`  ${JSON.stringify({ simulation: simulation.name, seed: small.seed, plan: small.plan })}`);
}

function present(name: string): Simulation<unknown> {
  const found = SIMULATIONS.find((simulation) => simulation.name === name);
  if (!found) throw new Error(`no simulation ${name}`);
  return found;
}

function described({ invariant, message }: { invariant: string; message: string }) {
  return { invariant, message };
}

if (values.mutants) process.exit(await mutants());
if (values.seed !== undefined) process.exit(oneSeed(Number(values.seed)));
process.exit(await manySeeds());
