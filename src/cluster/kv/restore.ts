import type { Log } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { StoreError } from "../../model/store.ts";
import type { Index } from "../raft/types.ts";
import { buildState } from "./build-state.ts";
import type { Disk } from "./disk.ts";
import type { Schema } from "./schema.ts";
import { indexOfSnapshot, isSnapshotName, type Snapshot, snapshotName } from "./snapshot-format.ts";
import { readSnapshot } from "./snapshot-reader.ts";

export type Restored = Snapshot & { readonly path: string; readonly bytes: number };

/**
 * Finds the newest snapshot that is good. An older one is taken when the newest is damaged: the log reaches back to it.
 * @returns what was restored (undefined when there is none), the indexes of the older ones, and the damaged files
 */
export async function restore(
  disk: Disk,
  directory: string,
  schema: Schema,
  log: Log,
): Promise<Result<{ restored: Restored | undefined; older: Index[]; damaged: string[] }, StoreError>> {
  const names = await disk.list(directory);
  for (const name of names) if (name.endsWith(".snapshot.tmp")) await disk.remove(`${directory}/${name}`);
  const older = names
    .filter(isSnapshotName)
    .map(indexOfSnapshot)
    .sort((a, b) => a - b);
  const damaged: string[] = [];
  while (older.length > 0) {
    const path = `${directory}/${snapshotName(older.pop()!)}`;
    const read = await readSnapshot(disk, path, schema, buildState);
    if (read.ok) return ok({ restored: { ...read.value, path }, older, damaged });
    if (read.error.reason === "newer")
      return fail({ kind: "store", reason: "newer", message: `${read.error.message} Start that one.` });
    log.error("store.snapshot_damaged", { message: read.error.message });
    damaged.push(path);
  }
  return ok({ restored: undefined, older: [], damaged });
}
