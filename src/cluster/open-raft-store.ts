import { assert } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { type Random, randomHex } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { AnyTable, Store, StoreError } from "../model/store.ts";
import type { Consensus } from "./consensus.ts";
import { buildState } from "./kv/build-state.ts";
import { decodeCommand } from "./kv/command.ts";
import { type Disk, errorCode, type Lock } from "./kv/disk.ts";
import { History } from "./kv/history.ts";
import { Ledger } from "./kv/ledger.ts";
import { checkIdentity, type Identity, loadIdentity } from "./kv/log/identity.ts";
import type { Entry } from "./kv/log/log-storage.ts";
import { isSegmentName } from "./kv/log/segment-files.ts";
import { advance, emptyReplicated } from "./kv/replicated.ts";
import { ReplicatedStore } from "./kv/replicated-store.ts";
import { type Restored, restore } from "./kv/restore.ts";
import { NewerFormat, type Schema, schemaOf, unindexed } from "./kv/schema.ts";
import { scan } from "./kv/sorted-map.ts";
import { storeError } from "./kv/store-errors.ts";
import { typedStore } from "./kv/typed-store.ts";
import { asStoreError, type Ground, gap, isOnly, type OpenLog, openLog, refusalOf } from "./node/open-consensus.ts";
import type { Transport } from "./node/transport.ts";
import { configurationOf, kindOf } from "./raft/configuration.ts";
import { type Configuration, DEFAULT_OPTIONS, type Options, type PeerId } from "./raft/types.ts";
import type { ListenAt } from "./worker/messages.ts";
import { type Listener, openRemoteLog } from "./worker/remote-consensus.ts";

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
    /**
     * To the other nodes. What is there already stays the caller's to close, after the store; consensus then lives beside
     * the store. Told where to listen, it lives in a Worker, on the machine's own disk and clock, and listens there.
     */
    readonly transport: Transport | ListenAt;
    /**
     * Whether others hold what this node does, so that damage of its log is cut out and made good from them. By default,
     * when its configuration as of the newest snapshot has others in it.
     */
    readonly hasPeers?: boolean;
  };
  readonly options?: Partial<Options>;
};

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
): Promise<Result<OpenedParts & { readonly store: Store }, StoreError>> {
  const schema = schemaOf(options.tables);
  const opened = await openReplicatedStore(options, schema);
  if (!opened.ok) return opened;
  const { kv, ...parts } = opened.value;
  return ok({ store: typedStore(kv, schema), ...parts });
}

/** `listener`: of a node whose consensus listens for others itself. */
type OpenedParts = { readonly consensus: Consensus; readonly listener?: Listener };
type Opened = OpenedParts & { readonly kv: ReplicatedStore };

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
    return fail(refusalOf(directory, cause));
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
  const { index = 0, term = 0 } = restored ?? {};
  const ground: Ground = {
    directory,
    id,
    newIdentity: identity.value ? undefined : { clusterId: cluster?.clusterId },
    hasPeers,
    configuration,
    snapshot: restored && { point: { index, term, configuration }, path: restored.path, bytes: restored.bytes },
    olderSnapshots: older,
    segmentBytes: options.segmentBytes,
    snapshotBytesMin: options.snapshotBytesMin,
    options: options.options,
  };
  const opened = await openConsensus(ground, options);
  if (!opened.ok) return opened;
  const opening = opened.value;
  const close = async <T>(result: T): Promise<T> => {
    await opening.close();
    return result;
  };
  const { entries, isAlone, configuration: latest } = opening.found;
  if (!cluster && !isOnly(id, latest)) return close(fail(ofACluster(directory)));
  const replayed = replay(directory, schema, isAlone, restored, entries, options);
  if (!replayed.ok) return close(replayed);
  const { ledger, history, bytes } = replayed.value;
  const kv = new ReplicatedStore({
    schema,
    ledger,
    history,
    snapshotRevision: restored?.state.revision ?? 0,
    electionMs: options.options?.electionMs ?? DEFAULT_OPTIONS.electionMs,
    ...options,
  });
  const applied = isAlone ? { index: ledger.index, term: ledger.term, configuration: latest, bytes } : undefined;
  const begun = await opening.start(kv, applied, (consensus) =>
    kv.attach(consensus, async () => {
      await opening.close();
      await lock.release();
    }),
  );
  if (!begun.ok) return close(begun);
  const consensus = begun.value;
  // Kept for whoever wants to look, and not met again.
  for (const path of damaged) {
    await disk
      .rename(path, `${path}.damaged`)
      .catch((error) => log.warn("store.snapshot_not_renamed", { path, error }));
  }
  if (isAlone) {
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
    lastIndex: consensus.status().lastIndex,
    wallMs: Math.round(clock.monotonicMs() - started),
  });
  return ok({ kv, consensus, ...(opening.listener && { listener: opening.listener }) });
}

/** Beside the store, with what connects it to others; or in a Worker, which makes its connections itself. */
function openConsensus(
  ground: Ground,
  options: RaftStoreOptions,
): Promise<Result<OpenLog & { readonly listener?: Listener }, StoreError>> {
  const transport = options.cluster?.transport ?? NOBODY;
  return "send" in transport ? openLog(ground, options, transport) : openRemoteLog(ground, transport, options.log);
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
      if (next.changes.length > 0) history.record(next.state.revision, next.changes, entry.data.length);
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

const locked = (directory: string, pid: number | undefined): StoreError =>
  storeError(
    "locked",
    `Another hive server${pid === undefined ? "" : ` (process ${pid})`} is using the store in ${directory}. Stop it, or give this one another data directory.`,
  );
const ofACluster = (directory: string): StoreError =>
  storeError(
    "failed",
    `The store in ${directory} belongs to a node of a larger cluster. Nothing was changed. Start it with that cluster's settings.`,
  );
const newerRecords = (directory: string, what: string): StoreError =>
  storeError("newer", `The store in ${directory} was written by a later version of Hive: ${what}. Start that version.`);
