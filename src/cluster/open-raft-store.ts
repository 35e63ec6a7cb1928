import { assert } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { type Random, randomHex, randomUuid } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { MIB } from "../lib/units.ts";
import type { AnyTable, Store, StoreError } from "../model/store.ts";
import type { Consensus } from "./consensus.ts";
import { buildState } from "./kv/build-state.ts";
import { decodeCommand } from "./kv/command.ts";
import { type Disk, errorCode, isDiskFull, type Lock } from "./kv/disk.ts";
import { History } from "./kv/history.ts";
import { Ledger } from "./kv/ledger.ts";
import { checkIdentity, createIdentity, type Identity, type IdentityError, loadIdentity } from "./kv/log/identity.ts";
import { type Entry, LOG_LOST, type LogError } from "./kv/log/log-storage.ts";
import type { RecoverError } from "./kv/log/recover-log.ts";
import { isSegmentName } from "./kv/log/segment-files.ts";
import { SegmentLog } from "./kv/log/segment-log.ts";
import { advance, emptyReplicated } from "./kv/replicated.ts";
import { ReplicatedStore } from "./kv/replicated-store.ts";
import { type Restored, restore } from "./kv/restore.ts";
import { NewerFormat, type Schema, schemaOf } from "./kv/schema.ts";
import { scan } from "./kv/sorted-map.ts";
import { storeError } from "./kv/store-errors.ts";
import { typedStore } from "./kv/typed-store.ts";
import { RaftRuntime } from "./node/raft-runtime.ts";
import type { Transport } from "./node/transport.ts";
import { configurationOf, decodeConfiguration, kindOf, membersOf } from "./raft/configuration.ts";
import { type Configuration, DEFAULT_OPTIONS, type Options, type PeerId } from "./raft/types.ts";

export type RaftStoreOptions = {
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
  /** Without it, the node is a cluster of its own, under the id that its directory has or is given now. */
  readonly cluster?: {
    /** This node's. A directory that belongs to another is refused. */
    readonly id: PeerId;
    /** The same for the cluster as a whole; unchecked when absent. */
    readonly clusterId?: string;
    /** What a new directory begins with: the first voters, or nobody for a node that waits to be added. */
    readonly configuration: Configuration;
    /** To the other nodes. It stays the caller's to close, after the store. */
    readonly transport: Transport;
    /**
     * Whether others hold what this node does, so that damage of its log is cut out and made good from them. By default,
     * when its configuration as of the newest snapshot has others in it.
     */
    readonly hasPeers?: boolean;
  };
  readonly options?: Partial<Options>;
};

/** Small enough to be read whole at each start in a few ms, and that an idle node wastes little; larger ones save no syncs. */
const SEGMENT_BYTES = 4 * MIB;
const SNAPSHOT_BYTES_MIN = 8 * MIB;
/** How often it is looked whether a node that is alone has trouble with its disk, before it leads. */
const LOOK_MS = 20;
const LOOKS_AT_ONCE = 64;

/**
 * Opens the store of a directory: takes its lock, restores the newest good snapshot, reads the log, cuts a torn tail, joins
 * its cluster. Refuses (`locked`, `corrupt`, `newer`, `full`, `failed`) with a sentence that says where and what to do; a
 * refused directory is left as it was.
 *
 * A node that is alone shows everything that its log holds, and leads, once this resolves. One that has peers shows its
 * snapshot at first: what its log holds beyond that may not be committed, and is applied as a leader says so. `barrier`
 * waits for that.
 */
export async function openRaftStore(
  options: RaftStoreOptions,
): Promise<Result<{ readonly store: Store; readonly consensus: Consensus }, StoreError>> {
  const schema = schemaOf(options.tables);
  const opened = await openReplicatedStore(options, schema);
  if (!opened.ok) return opened;
  const { kv, consensus } = opened.value;
  return ok({ store: typedStore(kv, schema), consensus });
}

type Opened = { readonly kv: ReplicatedStore; readonly consensus: Consensus };

/** The same, one layer down. */
export async function openReplicatedStore(
  options: RaftStoreOptions,
  schema: Schema,
): Promise<Result<Opened, StoreError>> {
  const { disk, directory } = options;
  let lock: Lock | undefined;
  try {
    await disk.makeDirectory(directory);
    const taken = await disk.lock(`${directory}/lock`);
    if ("heldBy" in taken) return fail(locked(directory, taken.heldBy));
    lock = taken;
    const opened = await open(options, schema, lock);
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

async function open(options: RaftStoreOptions, schema: Schema, lock: Lock): Promise<Result<Opened, StoreError>> {
  const { disk, directory, cluster, clock, log } = options;
  const started = clock.monotonicMs();
  const identity = await identityOf(options);
  if (!identity.ok) return identity;
  const found = await restore(disk, directory, schema, log);
  if (!found.ok) return found;
  const { restored, older, damaged } = found.value;
  const id = cluster?.id ?? identity.value?.nodeId ?? `node-${randomHex(options.random, 16)}`;
  const configuration = restored?.configuration ?? cluster?.configuration ?? configurationOf([id]);
  const hasPeers = cluster !== undefined && (cluster.hasPeers ?? !isOnly(id, configuration));
  if (!hasPeers && (restored || damaged.length > 0) && !(await disk.list(directory)).some(isSegmentName)) {
    return fail(gap(directory, "there is a snapshot, and no log"));
  }
  const segmentBytes = options.segmentBytes ?? SEGMENT_BYTES;
  const snapshot = { index: restored?.index ?? 0, term: restored?.term ?? 0 };
  const logOptions = { disk, directory, segmentBytes, log, clock, repairable: hasPeers, snapshot };
  const opened = await SegmentLog.open(logOptions);
  if (!opened.ok) return fail(asStoreError(opened.error));
  const { log: storage, entries } = opened.value;
  const close = async <T>(result: T): Promise<T> => {
    await storage.close();
    return result;
  };
  const begun = await begin(options, { id, configuration, hasPeers, restored, storage, entries });
  if (!begun.ok) return close(begun);
  if (!cluster && !isOnly(id, begun.value.configuration)) return close(fail(ofACluster(directory)));
  const replayed = replay(directory, schema, begun.value.isAlone, restored, begun.value.entries, options);
  if (!replayed.ok) return close(replayed);
  const noted = await noteTermAndIdentity(options, storage, identity.value ? undefined : id);
  if (!noted.ok) return close(fail(asStoreError(noted.error)));
  // Kept for whoever wants to look, and not met again.
  for (const path of damaged) await disk.rename(path, `${path}.damaged`);
  const { ledger, history, bytes } = replayed.value;
  const kv = new ReplicatedStore({
    schema,
    ledger,
    history,
    snapshotRevision: restored?.state.revision ?? 0,
    electionMs: options.options?.electionMs ?? DEFAULT_OPTIONS.electionMs,
    ...options,
  });
  const consensus = RaftRuntime.start({
    id,
    storage,
    disk,
    directory,
    transport: cluster?.transport ?? NOBODY,
    clock,
    random: options.random,
    log,
    machine: kv,
    ...(options.options && { options: options.options }),
    snapshotBytesMin: options.snapshotBytesMin ?? SNAPSHOT_BYTES_MIN,
    start: {
      snapshot: restored && {
        point: { ...snapshot, configuration },
        path: restored.path,
        bytes: restored.bytes,
      },
      olderSnapshots: older,
      configuration,
      entries: begun.value.entries,
      recoverThrough: recoverThroughOf(storage),
      ...(begun.value.isAlone && {
        applied: { index: ledger.index, term: ledger.term, configuration: begun.value.configuration, bytes },
      }),
    },
  });
  kv.attach(consensus, async () => {
    await storage.close();
    await lock.release();
  });
  if (begun.value.isAlone) {
    const led = await untilItLeads(kv, consensus, clock);
    if (!led.ok) {
      await consensus.close();
      return close(led);
    }
  }
  const { state } = ledger.now;
  log.info("store.opened", {
    directory,
    id,
    revision: state.revision,
    records: state.keys.count,
    snapshotRevision: restored?.state.revision ?? 0,
    lastIndex: storage.lastIndex,
    wallMs: Math.round(clock.monotonicMs() - started),
  });
  return ok({ kv, consensus });
}

// --- Whose store it is

/** The identity of the directory, which must be the expected one; undefined for a directory that has none yet. */
async function identityOf({
  disk,
  directory,
  cluster,
}: RaftStoreOptions): Promise<Result<Identity | undefined, StoreError>> {
  const loaded = await loadIdentity(disk, directory);
  if (!loaded.ok) return fail(asStoreError(loaded.error));
  const identity = loaded.value;
  if (!identity || !cluster) return ok(identity);
  const expected = { clusterId: cluster.clusterId ?? identity.clusterId, nodeId: cluster.id };
  const checked = checkIdentity(directory, identity, expected);
  return checked.ok ? ok(identity) : fail(asStoreError(checked.error));
}

/** What a directory lacks that is new, or older than this version. */
async function noteTermAndIdentity(
  options: RaftStoreOptions,
  storage: SegmentLog,
  newId: PeerId | undefined,
): Promise<Result<void, LogError>> {
  const lastTerm = storage.termOf(storage.lastIndex) ?? 0;
  if (storage.hardState.term < lastTerm) {
    // The first version of the store held no elections, and kept no term but its entries'.
    const noted = await storage.append([], { term: lastTerm, vote: "" });
    if (!noted.ok) return noted;
  }
  if (newId === undefined) return ok(undefined);
  return createIdentity(options.disk, options.directory, newIdentity(options, newId));
}

const newIdentity = ({ cluster, random, clock }: RaftStoreOptions, nodeId: PeerId): Identity => ({
  clusterId: cluster?.clusterId ?? randomUuid(random),
  nodeId,
  createdAt: new Date(clock.now()).toISOString(),
});

const isOnly = (id: PeerId, configuration: Configuration): boolean => {
  const members = membersOf(configuration);
  return members.size === 1 && members.has(id);
};

// --- What the log is to the snapshot

type Found = {
  readonly id: PeerId;
  readonly configuration: Configuration;
  readonly hasPeers: boolean;
  readonly restored: Restored | undefined;
  readonly storage: SegmentLog;
  readonly entries: readonly Entry[];
};

/**
 * Makes the log one that leads on from the snapshot, if it isn't: the cases are told at the head of `node/snapshots.ts`.
 * `isAlone`: no one else was a member at any time since, so that everything in the log is committed.
 */
async function begin(
  { directory, log }: RaftStoreOptions,
  { id, configuration, hasPeers, restored, storage, entries }: Found,
): Promise<
  Result<
    {
      readonly entries: readonly Entry[];
      readonly isAlone: boolean;
      readonly configuration: Configuration;
    },
    StoreError
  >
> {
  const { index, term } = restored ?? { index: 0, term: 0 };
  const isGap = storage.firstIndex > index + 1;
  if (isGap || (!hasPeers && storage.lastIndex < index)) {
    const snapshot = restored ? `the newest good snapshot ends at entry ${index}` : "there is no good snapshot";
    return fail(gap(directory, `${snapshot}, and the log has entries ${storage.firstIndex} to ${storage.lastIndex}`));
  }
  if (restored && storage.termOf(index) !== term) {
    if (!hasPeers) return fail(gap(directory, `entry ${index} of the log and of the newest snapshot are not the same`));
    // The snapshot came from a leader, and the crash before the log was begun anew.
    log.info("store.log_restarted", { directory, index, term, lastIndex: storage.lastIndex });
    const restarted = await storage.restartAfter(index, term);
    return restarted.ok ? ok({ entries: [], isAlone: false, configuration }) : fail(asStoreError(restarted.error));
  }
  const later = entries
    .filter((entry) => entry.index > index && kindOf(entry) === "configuration")
    .map(({ data }) => decodeConfiguration(data));
  const isAlone = storage.damage === undefined && [configuration, ...later].every((each) => isOnly(id, each));
  return ok({ entries, isAlone, configuration: later.at(-1) ?? configuration });
}

function recoverThroughOf({ damage }: SegmentLog): number | "lost" | undefined {
  return damage?.recoverThrough === LOG_LOST ? "lost" : damage?.recoverThrough;
}

/** The state as of the snapshot; of a node that is alone, as of the log's end. */
function replay(
  directory: string,
  schema: Schema,
  isAlone: boolean,
  restored: Restored | undefined,
  entries: readonly Entry[],
  { historyChangesMax }: RaftStoreOptions,
): Result<{ ledger: Ledger; history: History; bytes: number }, StoreError> {
  const ledger = restored ? new Ledger(restored) : Ledger.empty(emptyReplicated(schema));
  const history = new History(ledger.now.state.revision, historyChangesMax);
  if (!isAlone) return ok({ ledger, history, bytes: 0 });
  let bytes = 0;
  // Kept up entry by entry, the indexes are half the time of a long replay: they are made at its end instead, all at once.
  const logBytes = entries.reduce((sum, { data }) => sum + data.length, 0);
  const isLong = logBytes * LONG_REPLAY_FACTOR > (restored?.bytes ?? 0);
  const replaySchema = isLong ? unindexed(schema) : schema;
  for (const entry of entries) {
    if (entry.index <= ledger.index) continue;
    bytes += entry.data.length;
    if (kindOf(entry) !== "command") {
      ledger.add(entry);
      continue;
    }
    try {
      const next = advance(replaySchema, ledger.now, decodeCommand(schema, entry.data));
      assert(next.state.revision >= ledger.now.state.revision, "revisions never go back");
      ledger.add(entry, next);
      if (next.changes.length > 0) history.record(next.state.revision, next.changes);
    } catch (error) {
      if (error instanceof NewerFormat) return fail(newerRecords(directory, error.message));
      throw error;
    }
  }
  if (isLong) {
    const { state, sessions } = ledger.now;
    const indexed = buildState(schema, state.revision, state.leases, scan(state.keys));
    ledger.now = { state: indexed, sessions, changes: [] };
  }
  return ok({ ledger, history, bytes });
}

/** A replay is long when its log has more than this part of the snapshot's bytes: making all indexes costs by their number. */
const LONG_REPLAY_FACTOR = 4;

/** The same tables, none of them indexed; what hangs on leases is. */
const unindexed = (schema: Schema): Schema => ({
  ...schema,
  spaces: new Map([...schema.spaces].map(([name, space]) => [name, { ...space, indexes: [] }])),
});

/** A node that is alone needs only its disk to lead. If that is full, it can't, and serves reads until there is space. */
async function untilItLeads(
  kv: ReplicatedStore,
  consensus: Consensus,
  clock: Clock,
): Promise<Result<void, StoreError>> {
  const over = new AbortController();
  const trouble = async () => {
    // A good disk takes a few turns of the loop. A bad one may take its time, and is looked at now and then.
    for (let turn = 0; !over.signal.aborted && consensus.status().health === "ok"; turn++) {
      await (turn < LOOKS_AT_ONCE ? new Promise(setImmediate) : clock.sleep(LOOK_MS, over.signal));
    }
  };
  await Promise.race([kv.gained, trouble()]);
  over.abort();
  const { health, message = "The disk failed." } = consensus.status();
  return health === "failed" ? fail(storeError("failed", message)) : ok(undefined);
}

/** The way to nobody, for a node that is alone. */
const NOBODY: Transport = { send() {}, listen() {}, async close() {} };

// --- What can be wrong

function asStoreError(error: LogError | RecoverError | IdentityError): StoreError {
  const { reason, message } = error;
  if (reason !== "foreign") return { kind: "store", ...error, reason };
  return storeError("failed", message);
}

const locked = (directory: string, pid: number | undefined): StoreError =>
  storeError(
    "locked",
    `Another hive server${pid === undefined ? "" : ` (process ${pid})`} is using the store in ${directory}. Stop it, or give this one another data directory.`,
  );
const gap = (directory: string, what: string): StoreError =>
  storeError(
    "corrupt",
    `The store in ${directory} has lost files: ${what}. Nothing was changed. If this node has peers, move the directory away and let it join again; if it is alone, restore the directory from a backup.`,
  );
const ofACluster = (directory: string): StoreError =>
  storeError(
    "failed",
    `The store in ${directory} belongs to a node of a larger cluster. Nothing was changed. Start it with that cluster's settings.`,
  );
const newerRecords = (directory: string, what: string): StoreError =>
  storeError("newer", `The store in ${directory} was written by a later version of Hive: ${what}. Start that version.`);
