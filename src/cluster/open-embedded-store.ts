import { assert } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { MIB } from "../lib/units.ts";
import type { AnyTable, Store, StoreError } from "../model/store.ts";
import { buildState } from "./kv/build-state.ts";
import { decodeCommand } from "./kv/command.ts";
import { type Disk, errorCode, isDiskFull, type Lock } from "./kv/disk.ts";
import { EmbeddedKeyValueStore } from "./kv/embedded-store.ts";
import { History } from "./kv/history.ts";
import type { KeyValueStore } from "./kv/key-value-store.ts";
import type { Entry } from "./kv/log/log-storage.ts";
import { isSegmentName } from "./kv/log/segment-files.ts";
import { SegmentLog } from "./kv/log/segment-log.ts";
import { NewerFormat, type Schema, schemaOf } from "./kv/schema.ts";
import { type Restored, restore, Snapshotter } from "./kv/snapshotter.ts";
import { scan } from "./kv/sorted-map.ts";
import { apply, emptyState, type State } from "./kv/state.ts";
import { typedStore } from "./kv/typed-store.ts";

export type EmbeddedStoreOptions = {
  /** The store's own directory; created if missing. */
  readonly directory: string;
  /** Every table of this version of Hive. Records of others, left by another version, are kept and not shown. */
  readonly tables: readonly AnyTable[];
  readonly disk: Disk;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly segmentBytes?: number;
  /** A snapshot is due once the log grew by this, or by the size of the last snapshot if that is more. */
  readonly snapshotBytesMin?: number;
  readonly historyChangesMax?: number;
};

/** Small enough to be read whole at each start in a few ms, and that an idle node wastes little; larger ones save no syncs. */
const SEGMENT_BYTES = 4 * MIB;
const SNAPSHOT_BYTES_MIN = 8 * MIB;

/**
 * Opens the store of a directory: takes its lock, restores the newest good snapshot, replays the log, cuts a torn tail.
 * Refuses (`locked`, `corrupt`, `newer`, `full`, `failed`) with a sentence that says where and what to do; a refused
 * directory is left as it was.
 */
export async function openEmbeddedStore(options: EmbeddedStoreOptions): Promise<Result<Store, StoreError>> {
  const schema = schemaOf(options.tables);
  const opened = await openKeyValueStore(options, schema);
  return opened.ok ? ok(typedStore(opened.value, schema)) : opened;
}

/** The same, one layer down. */
export async function openKeyValueStore(
  options: EmbeddedStoreOptions,
  schema: Schema,
): Promise<Result<KeyValueStore, StoreError>> {
  const { disk, directory } = options;
  let lock: Lock | undefined;
  try {
    await disk.makeDirectory(directory);
    const taken = await disk.lock(`${directory}/lock`);
    if ("heldBy" in taken) return fail(locked(directory, taken.heldBy));
    lock = taken;
    const opened = await recover(options, schema, lock);
    if (!opened.ok) await lock.release();
    return opened;
  } catch (cause) {
    await lock?.release();
    // Rejections of the disk have a code; anything else is a defect.
    if (errorCode(cause) === undefined) throw cause;
    const reason = isDiskFull(cause) ? "full" : "failed";
    const message = `The store in ${directory} cannot be opened: ${(cause as Error).message}.`;
    return fail({ kind: "store", reason, message, cause });
  }
}

async function recover(
  options: EmbeddedStoreOptions,
  schema: Schema,
  lock: Lock,
): Promise<Result<KeyValueStore, StoreError>> {
  const { disk, directory, clock, random, log } = options;
  const started = clock.monotonicMs();
  const snapshots = await restore(disk, directory, schema, log);
  if (!snapshots.ok) return snapshots;
  const { restored, indexes, damaged } = snapshots.value;
  if ((restored || damaged.length > 0) && !(await disk.list(directory)).some(isSegmentName)) {
    return fail(gap(directory, "there is a snapshot, and no log"));
  }
  const segmentBytes = options.segmentBytes ?? SEGMENT_BYTES;
  const opened = await SegmentLog.open({ disk, directory, segmentBytes, log });
  if (!opened.ok) return fail({ kind: "store", ...opened.error });
  const { log: storage, entries } = opened.value;
  const replayed = replay(directory, schema, restored, storage, entries, options.historyChangesMax);
  if (!replayed.ok) {
    await storage.close();
    return replayed;
  }
  const { state, history, bytes: replayedBytes } = replayed.value;
  // Kept for whoever wants to look, and not met again.
  for (const path of damaged) await disk.rename(path, `${path}.damaged`);
  const bytesMin = options.snapshotBytesMin ?? SNAPSHOT_BYTES_MIN;
  const snapshotter = new Snapshotter(
    { disk, directory, storage, log, bytesMin },
    { indexes, restored, replayedBytes },
  );
  log.info("store.opened", {
    directory,
    revision: state.revision,
    records: state.keys.count,
    snapshotRevision: restored?.meta.revision ?? 0,
    lastIndex: storage.lastIndex,
    wallMs: Math.round(clock.monotonicMs() - started),
  });
  return ok(new EmbeddedKeyValueStore({ schema, storage, snapshotter, history, state, lock, clock, random, log }));
}

/** Applies the log's entries after the snapshot. */
function replay(
  directory: string,
  schema: Schema,
  restored: Restored | undefined,
  storage: SegmentLog,
  entries: readonly Entry[],
  historyChangesMax: number | undefined,
): Result<{ state: State; history: History; bytes: number }, StoreError> {
  const from = restored?.meta.index ?? 0;
  if (storage.firstIndex > from + 1 || storage.lastIndex < from) {
    const snapshot = restored ? `the newest good snapshot ends at entry ${from}` : "there is no good snapshot";
    return fail(gap(directory, `${snapshot}, and the log has entries ${storage.firstIndex} to ${storage.lastIndex}`));
  }
  let state = restored?.state ?? emptyState(schema);
  let bytes = 0;
  const history = new History(state.revision, historyChangesMax);
  // Kept up entry by entry, the indexes are half the time of a long replay: they are made at its end instead, all at once.
  const logBytes = entries.reduce((sum, { data }) => sum + data.length, 0);
  const isLong = logBytes * LONG_REPLAY_FACTOR > (restored?.bytes ?? 0);
  const replaySchema = isLong ? unindexed(schema) : schema;
  for (const entry of entries) {
    if (entry.index <= from) continue;
    bytes += entry.data.length;
    try {
      const command = decodeCommand(schema, entry.data);
      if (!command) continue;
      const applied = apply(replaySchema, state, command);
      assert(applied.state.revision >= state.revision, "revisions never go back");
      state = applied.state;
      if (applied.changes.length > 0) history.record(state.revision, applied.changes);
    } catch (error) {
      if (error instanceof NewerFormat) return fail(newerRecords(directory, error.message));
      throw error;
    }
  }
  if (isLong) state = buildState(schema, state.revision, state.leases, scan(state.keys));
  return ok({ state, history, bytes });
}

/** A replay is long when its log has more than this part of the snapshot's bytes: making all indexes costs by their number. */
const LONG_REPLAY_FACTOR = 4;

/** The same tables, none of them indexed; what hangs on leases is. */
const unindexed = (schema: Schema): Schema => ({
  ...schema,
  spaces: new Map([...schema.spaces].map(([name, space]) => [name, { ...space, indexes: [] }])),
});

const locked = (directory: string, pid: number | undefined): StoreError => ({
  kind: "store",
  reason: "locked",
  message: `Another hive server${pid === undefined ? "" : ` (process ${pid})`} is using the store in ${directory}. Stop it, or give this one another data directory.`,
});
const gap = (directory: string, what: string): StoreError => ({
  kind: "store",
  reason: "corrupt",
  message: `The store in ${directory} has lost files: ${what}. Nothing was changed. If this node has peers, move the directory away and let it join again; if it is alone, restore the directory from a backup.`,
});
const newerRecords = (directory: string, what: string): StoreError => ({
  kind: "store",
  reason: "newer",
  message: `The store in ${directory} was written by a later version of Hive: ${what}. Start that version.`,
});
