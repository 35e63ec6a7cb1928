/**
 * Opens consensus on a directory, in two steps, as the store's state is made between them: `openLog` says what the log holds
 * beyond the snapshot, and `start` begins. The same whether it happens beside the store or in a Worker (`worker/`).
 */
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { type Random, randomUuid } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { MIB } from "../../lib/units.ts";
import type { StoreError } from "../../model/store.ts";
import type { Consensus, StateMachine, StoredSnapshot } from "../consensus.ts";
import { type Disk, isDiskFull } from "../kv/disk.ts";
import { createIdentity, type IdentityError } from "../kv/log/identity.ts";
import { type Entry, LOG_LOST, type LogError, type LogStorage } from "../kv/log/log-storage.ts";
import type { RecoverError } from "../kv/log/recover-log.ts";
import { SegmentLog } from "../kv/log/segment-log.ts";
import { storeError } from "../kv/store-errors.ts";
import { decodeConfiguration, kindOf, membersOf } from "../raft/configuration.ts";
import type { Configuration, Index, Options, PeerId, SnapshotPoint } from "../raft/types.ts";
import { RaftRuntime } from "./raft-runtime.ts";
import type { Transport } from "./transport.ts";

/** What the log is opened with, that a message can carry. */
export type Ground = {
  readonly directory: string;
  readonly id: PeerId;
  /** What the directory's identity is made of, which it lacks; undefined for a directory that has one. */
  readonly newIdentity: { readonly clusterId: string | undefined } | undefined;
  /** Others hold what this node does: damage of its log is cut out, and made good from them. */
  readonly hasPeers: boolean;
  /** In force at the snapshot; without one, the first of all. */
  readonly configuration: Configuration;
  /** The newest good one, and the indexes of older ones. */
  readonly snapshot: StoredSnapshot | undefined;
  readonly olderSnapshots: readonly Index[];
  readonly segmentBytes: number | undefined;
  readonly snapshotBytesMin: number | undefined;
  readonly options: Partial<Options> | undefined;
};

/** What it is opened on. */
export type Surroundings = { readonly disk: Disk; readonly clock: Clock; readonly random: Random; readonly log: Log };

/** What the log holds. */
export type FoundLog = {
  /** No one else was a member at any time since the snapshot, so that everything in the log is committed. */
  readonly isAlone: boolean;
  /** As of the log's end. */
  readonly configuration: Configuration;
  /** Those of a node that is alone are to be applied by the store, before `start`. */
  readonly entries: readonly Entry[];
};

/** How far the store applied the entries of a log that is all committed, and how many bytes of them. */
export type Replayed = SnapshotPoint & { readonly bytes: number };

/** A log that is open, wherever consensus will live. */
export interface OpenLog {
  readonly found: FoundLog;
  /** Begins. `attach` is called before the machine is. A log that failed to start is still to be closed. */
  start(
    machine: StateMachine,
    replayed: Replayed | undefined,
    attach: (consensus: Consensus) => void,
  ): Promise<Result<Consensus, StoreError>>;
  /** After consensus, if that was started. */
  close(): Promise<void>;
}

/** Small enough to be read whole at each start in a few ms, and that an idle node wastes little; larger ones save no syncs. */
const SEGMENT_BYTES = 4 * MIB;
const SNAPSHOT_BYTES_MIN = 8 * MIB;

/** Opens the log, and makes it one that leads on from the snapshot. A refusal says where and what to do, and changes nothing. */
export async function openLog(
  ground: Ground,
  around: Surroundings,
  transport: Transport,
): Promise<Result<OpenLog & { readonly storage: LogStorage }, StoreError>> {
  const { id, directory, configuration, hasPeers, snapshot, olderSnapshots, segmentBytes = SEGMENT_BYTES } = ground;
  const opened = await SegmentLog.open({
    ...{ disk: around.disk, clock: around.clock, log: around.log },
    ...{ directory, segmentBytes, repairable: hasPeers },
    snapshot: { index: snapshot?.point.index ?? 0, term: snapshot?.point.term ?? 0 },
  });
  if (!opened.ok) return fail(asStoreError(opened.error));
  const { log: storage, entries } = opened.value;
  const found = await leadOn(ground, around.log, storage, entries);
  if (!found.ok) {
    await storage.close();
    return found;
  }
  return ok({
    storage,
    found: found.value,
    async start(machine, replayed, attach) {
      const noted = await noteTermAndIdentity(ground, around, storage);
      if (!noted.ok) return fail(asStoreError(noted.error));
      return ok(
        RaftRuntime.start({
          ...{ id, directory, storage, transport, machine, attach, ...around },
          ...(ground.options && { options: ground.options }),
          snapshotBytesMin: ground.snapshotBytesMin ?? SNAPSHOT_BYTES_MIN,
          start: {
            ...{ snapshot, olderSnapshots, configuration, entries: found.value.entries },
            recoverThrough: recoverThroughOf(storage),
            ...(replayed && { applied: replayed }),
          },
        }),
      );
    },
    close: () => storage.close(),
  });
}

/**
 * Makes the log one that leads on from the snapshot, if it isn't: the cases are told at the head of `snapshots.ts`.
 */
async function leadOn(
  { directory, id, configuration, hasPeers, snapshot }: Ground,
  log: Log,
  storage: SegmentLog,
  entries: readonly Entry[],
): Promise<Result<FoundLog, StoreError>> {
  const { index, term } = snapshot?.point ?? { index: 0, term: 0 };
  const isGap = storage.firstIndex > index + 1;
  if (isGap || (!hasPeers && storage.lastIndex < index)) {
    const has = snapshot ? `the newest good snapshot ends at entry ${index}` : "there is no good snapshot";
    return fail(gap(directory, `${has}, and the log has entries ${storage.firstIndex} to ${storage.lastIndex}`));
  }
  if (snapshot && storage.termOf(index) !== term) {
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

function recoverThroughOf({ damage }: LogStorage): Index | "lost" | undefined {
  return damage?.recoverThrough === LOG_LOST ? "lost" : damage?.recoverThrough;
}

/** What a directory lacks that is new, or older than this version. */
async function noteTermAndIdentity(
  { directory, id, newIdentity }: Ground,
  { disk, random, clock }: Surroundings,
  storage: LogStorage,
): Promise<Result<void, LogError>> {
  const lastTerm = storage.termOf(storage.lastIndex) ?? 0;
  if (storage.hardState.term < lastTerm) {
    // The first version of the store held no elections, and kept no term but its entries'.
    const noted = await storage.append([], { term: lastTerm, vote: "" });
    if (!noted.ok) return noted;
  }
  if (!newIdentity) return ok(undefined);
  return createIdentity(disk, directory, {
    clusterId: newIdentity.clusterId ?? randomUuid(random),
    nodeId: id,
    createdAt: new Date(clock.now()).toISOString(),
  });
}

/** Whether a configuration has this member and no other. */
export function isOnly(id: PeerId, configuration: Configuration): boolean {
  const members = membersOf(configuration);
  return members.size === 1 && members.has(id);
}

// --- What can be wrong

export function asStoreError(error: LogError | RecoverError | IdentityError): StoreError {
  const { reason, message } = error;
  if (reason !== "foreign") return { kind: "store", ...error, reason };
  return storeError("failed", message);
}

/** What a rejection of the disk means for whoever opens the directory. Without a system's code it is a defect. */
export function refusalOf(directory: string, cause: unknown): StoreError {
  const message = `The store in ${directory} cannot be opened: ${cause instanceof Error ? cause.message : cause}.`;
  return { ...storeError(isDiskFull(cause) ? "full" : "failed", message), cause };
}

/** The snapshot and the log of a directory do not fit together. */
export const gap = (directory: string, what: string): StoreError =>
  storeError(
    "corrupt",
    `The store in ${directory} has lost files: ${what}. Nothing was changed. If this node has peers, move the directory away and let it join again; if it is alone, restore the directory from a backup.`,
  );
