/** Writes to the store of a directory as fast as it can, says on stdout what was acknowledged, and waits to be killed. */
import { writeSync } from "node:fs";
import { realDisk } from "../../src/cluster/kv/real-disk.ts";
import { openEmbeddedStore } from "../../src/cluster/open-embedded-store.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLog } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { ok } from "../../src/lib/result.ts";
import { put } from "../../src/model/store.ts";
import { ledger } from "./store-ledger.ts";

const [directory = ""] = process.argv.slice(2);
const opened = await openEmbeddedStore({
  directory,
  tables: [ledger],
  disk: realDisk,
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
  segmentBytes: 256 * 1024,
  snapshotBytesMin: 128 * 1024,
});
if (!opened.ok) {
  writeSync(2, `${opened.error.reason}: ${opened.error.message}\n`);
  process.exit(1);
}
const store = opened.value;
writeSync(1, `open ${store.read().revision}\n`);

/** Each transaction moves one unit between two of ten accounts: their sum never changes, and a half one would show. */
async function move(worker: number): Promise<void> {
  for (let round = 0; ; round++) {
    const done = await store.transact((state) => {
      const from = state.get(ledger, `account-${(worker + round) % 10}`);
      const to = state.get(ledger, `account-${(worker * 3 + round + 1) % 10}`);
      const count = state.get(ledger, "count")?.units ?? 0;
      const writes = [put(ledger, { id: "count", units: count + 1, pad: "p".repeat(round % 300) })];
      if (from && to && from.id !== to.id) {
        writes.push(put(ledger, { ...from, units: from.units - 1 }), put(ledger, { ...to, units: to.units + 1 }));
      }
      return ok({ writes, value: count + 1 });
    });
    if (!done.ok) {
      writeSync(2, `${done.error.message}\n`);
      process.exit(1);
    }
    writeSync(1, `${done.value}\n`);
  }
}

await store.transact((state) => {
  const missing = Array.from({ length: 10 }, (_, i) => `account-${i}`).filter((id) => !state.get(ledger, id));
  return ok({ writes: missing.map((id) => put(ledger, { id, units: 100, pad: "" })), value: undefined });
});
await Promise.all(Array.from({ length: 16 }, (_, worker) => move(worker)));
