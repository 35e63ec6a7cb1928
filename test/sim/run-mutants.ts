/**
 * Proves the provers: plants one bug at a time in a copy of the source, and runs simulations on the copy until one of them
 * says so. A bug that survives its budget is a hole in the checks; a patch that does not apply any more has to be renewed.
 */
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Mutant } from "./mutants.ts";
import type { Tally } from "./run-seeds.ts";

const ROOT = join(import.meta.dir, "../..");

export type MutantReport = {
  readonly mutant: string;
  /** STALE: the patch does not apply. BROKEN: the simulation did not even run, which proves nothing. */
  readonly verdict: "caught" | "SURVIVED" | "STALE" | "BROKEN";
  readonly detail: string;
};

export async function runMutants(
  mutants: readonly Mutant[],
  options: { readonly jobs: number; readonly seconds: number; readonly done?: (report: MutantReport) => void },
): Promise<MutantReport[]> {
  const waiting = [...mutants];
  const reports: MutantReport[] = [];
  const work = async () => {
    for (let mutant = waiting.shift(); mutant; mutant = waiting.shift()) {
      const report = await runMutant(mutant, options.seconds);
      reports.push(report);
      options.done?.(report);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, options.jobs) }, work));
  return reports;
}

async function runMutant(mutant: Mutant, seconds: number): Promise<MutantReport> {
  const { name, edits } = mutant;
  const directory = await mkdtemp(join(tmpdir(), "hive-mutant-"));
  try {
    for (const part of ["src/lib", "src/model", "src/cluster", "test/sim"]) {
      await cp(join(ROOT, part), join(directory, part), { recursive: true });
    }
    await symlink(join(ROOT, "node_modules"), join(directory, "node_modules"));
    for (const { file, find, replace } of edits) {
      const path = join(directory, "src/cluster", file);
      const text = await readFile(path, "utf8");
      const places = text.split(find).length - 1;
      if (places !== 1) return { mutant: name, verdict: "STALE", detail: `"${find}" is ${places} times in ${file}` };
      await writeFile(
        path,
        text.replace(find, () => replace),
      );
    }
    const tally = await simulate(directory, mutant, seconds);
    if (typeof tally === "string") {
      const isHang = tally === HANGS;
      return { mutant: name, verdict: isHang ? "caught" : "BROKEN", detail: tally };
    }
    const failure = tally.failures[0];
    const effort = `${tally.seeds} seeds, ${tally.events} events`;
    if (!failure) return { mutant: name, verdict: "SURVIVED", detail: effort };
    const how = failure.invariant === "the code's own assertions" ? failure.message.slice(0, 110) : failure.invariant;
    return { mutant: name, verdict: "caught", detail: `${effort}: ${how}` };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const HANGS = "it hangs in the middle of a seed";

/** Runs in a process of its own, as the copy's modules would otherwise be this process's for ever. */
async function simulate(directory: string, { name, simulation }: Mutant, seconds: number): Promise<Tally | string> {
  const child = Bun.spawn(
    [
      process.execPath,
      join(directory, "test/sim/main.ts"),
      "--json",
      "--stop",
      `--undo=${name}`,
      `--simulation=${simulation}`,
      "--seeds=100000",
      `--seconds=${seconds}`,
    ],
    { stdio: ["ignore", "pipe", "pipe"], timeout: (seconds + 30) * 1000 },
  );
  const [text, errors] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  await child.exited;
  if (text !== "") return JSON.parse(text) as Tally;
  return child.signalCode === null ? errors.slice(0, 200) : HANGS;
}
