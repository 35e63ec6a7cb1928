import type { Check } from "../host/doctor.ts";
import { green, type OutputFormat, print, red, yellow } from "./output.ts";

const MARK = { ok: green("✓"), warn: yellow("!"), fail: red("✗") } as const;

/** Prints what the host lacks and how to mend it. @returns the exit code: 1 when something fails */
export function reportChecks(checks: readonly Check[], format: OutputFormat): number {
  if (format === "json") print(JSON.stringify({ checks }, null, 2));
  else {
    const width = Math.max(...checks.map((check) => check.name.length));
    for (const check of checks) {
      print(`${MARK[check.status]} ${check.name.padEnd(width)}  ${check.message}`);
      if (check.fix && check.status !== "ok") print(`  ${" ".repeat(width)}  → ${check.fix}`);
    }
    const failed = checks.filter((check) => check.status === "fail").length;
    if (failed > 0) print(`\n${failed} ${failed === 1 ? "thing is" : "things are"} missing.`);
  }
  return checks.some((check) => check.status === "fail") ? 1 : 0;
}
