import type { Log } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { StoreError } from "../../model/store.ts";
import { type Disk, isDiskFull } from "./disk.ts";
import type { LogStorage } from "./log/log-storage.ts";
import type { Schema } from "./schema.ts";
import {
  indexOfSnapshot,
  isSnapshotName,
  readSnapshot,
  type SnapshotMeta,
  snapshotName,
  writeSnapshot,
} from "./snapshot-file.ts";
import type { State } from "./state.ts";

export type Restored = { readonly meta: SnapshotMeta; readonly state: State; readonly bytes: number };

/**
 * Finds the newest snapshot that is good. An older one is taken when the newest is damaged: the log reaches back to it.
 * @returns what was restored (undefined when there is none), the indexes of it and of older ones, and the damaged files
 */
export async function restore(
  disk: Disk,
  directory: string,
  schema: Schema,
  log: Log,
): Promise<Result<{ restored: Restored | undefined; indexes: number[]; damaged: string[] }, StoreError>> {
  const names = await disk.list(directory);
  for (const name of names) if (name.endsWith(".snapshot.tmp")) await disk.remove(`${directory}/${name}`);
  const indexes = names
    .filter(isSnapshotName)
    .map(indexOfSnapshot)
    .sort((a, b) => a - b);
  const damaged: string[] = [];
  while (indexes.length > 0) {
    const path = `${directory}/${snapshotName(indexes.at(-1)!)}`;
    const read = await readSnapshot(disk, path, schema);
    if (!("reason" in read)) return ok({ restored: read, indexes, damaged });
    if (read.reason === "newer")
      return fail({ kind: "store", reason: "newer", message: `${read.message} Start that one.` });
    log.error("store.snapshot_damaged", { message: read.message });
    indexes.pop();
    damaged.push(path);
  }
  return ok({ restored: undefined, indexes, damaged });
}

export type SnapshotterOptions = {
  readonly disk: Disk;
  readonly directory: string;
  readonly storage: LogStorage;
  readonly log: Log;
  /** A snapshot is due once the log grew by this much, and by the size of the last snapshot. */
  readonly bytesMin: number;
};

/** Writes snapshots in the background as the log grows, and lets the log forget what the older of two holds. */
export class Snapshotter {
  readonly #options: SnapshotterOptions;
  #indexes: number[];
  #lastBytes: number;
  #grown: number;
  #running: Promise<void> | undefined;
  revision: number;

  constructor(
    options: SnapshotterOptions,
    from: {
      readonly indexes: readonly number[];
      readonly restored: Restored | undefined;
      readonly replayedBytes: number;
    },
  ) {
    this.#options = options;
    this.#indexes = [...from.indexes];
    this.#lastBytes = from.restored?.bytes ?? 0;
    this.#grown = from.replayedBytes;
    this.revision = from.restored?.meta.revision ?? 0;
  }

  /** The log grew by `bytes` and its last entry made `state`. */
  grew(bytes: number, state: State): void {
    this.#grown += bytes;
    if (this.#running || this.#grown < Math.max(this.#options.bytesMin, this.#lastBytes)) return;
    this.#grown = 0;
    this.#running = this.#write(state).finally(() => {
      this.#running = undefined;
    });
  }

  async #write(state: State): Promise<void> {
    const { disk, directory, storage, log } = this.#options;
    const index = storage.lastIndex;
    const meta = { index, term: storage.termOf(index) ?? 0, revision: state.revision, leases: [...state.leases] };
    try {
      this.#lastBytes = await writeSnapshot(disk, directory, meta, state);
      this.revision = state.revision;
      this.#indexes.push(index);
      log.info("store.snapshot_written", { index, revision: state.revision, bytes: this.#lastBytes });
      while (this.#indexes.length > 2) await disk.remove(`${directory}/${snapshotName(this.#indexes.shift()!)}`);
      // Up to the older one: should the newer be damaged one day, the log leads on from there.
      if (this.#indexes.length === 2) await storage.compact(this.#indexes[0]!);
    } catch (error) {
      // Nothing is lost: the log keeps what the snapshot would have held. The next one is tried after as much growth.
      log.error(isDiskFull(error) ? "store.snapshot_disk_full" : "store.snapshot_failed", { index, error });
    }
  }

  async close(): Promise<void> {
    await this.#running;
  }
}
