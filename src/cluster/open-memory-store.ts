import { present } from "../lib/assert.ts";
import { type Clock, systemClock } from "../lib/clock.ts";
import { silentLog } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { KIB } from "../lib/units.ts";
import type { AnyTable, Store } from "../model/store.ts";
import { MemoryDisk } from "./kv/memory-disk.ts";
import { openEmbeddedStore } from "./open-embedded-store.ts";

/** The real store on a disk in memory, for tests of what stands on it. Opens in about a millisecond. */
export async function openMemoryStore(tables: readonly AnyTable[], clock: Clock = systemClock): Promise<Store> {
  const opened = await openEmbeddedStore({
    directory: "/store",
    tables,
    disk: new MemoryDisk(),
    clock,
    random: seededRandom(1),
    log: silentLog,
    segmentBytes: 64 * KIB,
  });
  return present(opened.ok ? opened.value : undefined, "a disk in memory opens");
}
