/**
 * `npm run bench`: one table of how fast Hive is, each figure beside a reference that was taken in the same run.
 *
 *   --quick          without the guests
 *   --only a,b       these parts: gateway, start, idle, store, records, consensus, boot, forty
 *
 * A verdict with a question mark was taken while others used the machine (the last column: processors that they kept
 * busy), and proves nothing. Exits with 0 also when a goal is missed; with 1 when a part could not be measured.
 */
import { availableParallelism, cpus } from "node:os";
import { benchBoot } from "./boot.ts";
import { benchConsensus } from "./consensus.ts";
import { benchForty } from "./forty.ts";
import { benchGateway } from "./gateway.ts";
import { startHive, withDirectory } from "./hive-process.ts";
import { FOREIGN_SHARE_MAX } from "./processor-time.ts";
import { benchRecords } from "./records.ts";
import { Report } from "./report.ts";
import { benchIdle, benchStart } from "./start.ts";
import { benchStore } from "./store.ts";
import { renderTable } from "./table.ts";

const ROUNDS = 3;
const GUESTS = ["boot", "forty"];
const ALL = ["gateway", "start", "idle", "store", "records", "consensus", ...GUESTS];

const words = process.argv.slice(2);
const only = words.includes("--only") ? (words[words.indexOf("--only") + 1] ?? "").split(",") : ALL;
const unknown = only.filter((part) => !ALL.includes(part));
if (unknown.length > 0) {
  console.error(`bench: there is no part ${unknown.join(", ")}: ${ALL.join(", ")}`);
  process.exit(2);
}
const parts = new Set(words.includes("--quick") ? only.filter((part) => !GUESTS.includes(part)) : only);

const report = new Report();
const failures: string[] = [];
async function part(name: string, work: () => Promise<void>): Promise<void> {
  console.error(`== ${name} ==`);
  try {
    await work();
  } catch (cause) {
    failures.push(`${name}: ${cause instanceof Error ? cause.message : cause}`);
    console.error(cause);
  }
}

/** The start and the rest of a full daemon are measured on what the gateway's part has filled. */
if (["gateway", "start", "idle"].some((name) => parts.has(name))) {
  await withDirectory(async (directory) => {
    const hive = await startHive(directory);
    try {
      await part("gateway", () => benchGateway(hive, directory, ROUNDS, report));
    } finally {
      await hive.kill();
    }
    if (parts.has("start")) await part("start", () => benchStart(directory, report));
    if (parts.has("idle")) await part("idle", () => benchIdle(directory, report));
  });
}
if (parts.has("store")) await part("store", () => benchStore(ROUNDS, report));
if (parts.has("records")) await part("records", () => benchRecords(report));
if (parts.has("consensus")) {
  await part("consensus", () => benchConsensus(ROUNDS, words.includes("--quick") ? 10 : 100, report));
}
if (parts.has("boot")) await part("boot", () => benchBoot(ROUNDS, report));
if (parts.has("forty")) await part("forty", () => benchForty(report));

console.log(`\n${cpus()[0]?.model ?? "?"}, ${availableParallelism()} processors, Bun ${Bun.version}, ${ROUNDS} rounds`);
console.log(renderTable(report.rows));
const busy = report.rows.filter(({ foreign }) => foreign.tooBusy).length;
if (busy > 0) {
  console.log(
    `${busy} of ${report.rows.length} rows have no verdict (?): others kept more than ${FOREIGN_SHARE_MAX} processors busy meanwhile`,
  );
}
for (const failure of failures) console.log(`not measured: ${failure}`);
process.exit(failures.length > 0 ? 1 : 0);
