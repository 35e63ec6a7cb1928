/**
 * Which snapshot files a node keeps, and how far its log may be forgotten.
 *
 * A snapshot of its own is written in the background while entries go on being applied: the state machine's state is
 * immutable, so the one at hand when the writing began is the one that gets written. Two are kept, and the log after the
 * older one: should the newest fail its checksum one day, the older one and the log still lead to the same state. A snapshot
 * that came from the leader replaces everything: the log starts over after it, and no older file has a log to go with.
 *
 * What an opener can find on the disk, N being the newest good snapshot, and what it means:
 *   the log holds N's last entry, with N's term  any snapshot of this node's own, which is only begun once everything in it
 *                                                is durable in the log; or a received one whose entry had come as well
 *   the log ends before N                        N was received and named, and the crash came before the log was started
 *                                                over: to be done now (`restartAfter`). All that N holds is committed, so
 *                                                that what the log has before its end adds nothing
 *   the log holds N's last index, another term   the same. Entries that contradict a committed one, and all after them, were
 *                                                never committed
 *   the log begins at N + 1                      N was received, or the log was compacted up to N. Files of older snapshots
 *                                                beside it were about to be removed
 *   the log begins after N + 1                   a file is missing, or newer snapshots are damaged: nothing to be had here
 *   `*.snapshot.tmp`                             half-written by this node: to be removed
 *   `*.snapshot.incoming`                        half-received, perhaps with holes. It may stay: the receiver goes on from it
 *                                                when the same snapshot is offered, checks it whole, and removes any other
 */
import type { Log } from "../../lib/log.ts";
import { fail, type Result } from "../../lib/result.ts";
import type { StateMachine, StoredSnapshot } from "../consensus.ts";
import { type Disk, errorCode } from "../kv/disk.ts";
import type { LogStorage } from "../kv/log/log-storage.ts";
import { snapshotName } from "../kv/snapshot-format.ts";
import type { Index, SnapshotPoint } from "../raft/types.ts";

export type SnapshotsOptions = {
  readonly disk: Disk;
  readonly directory: string;
  readonly storage: LogStorage;
  readonly machine: StateMachine;
  readonly log: Log;
  /** One is due once the log grew by this, or by the last snapshot's bytes if that is more. */
  readonly bytesMin: number;
  /** The log's files hold nothing before and at `point` any more. */
  readonly compacted: (point: SnapshotPoint) => void;
};

export class Snapshots {
  readonly #options: SnapshotsOptions;
  #newest: StoredSnapshot | undefined;
  /** Files besides the newest. */
  #older: Index[];
  #grownBytes = 0;
  #writing: Promise<Result<StoredSnapshot, string>> | undefined;
  /** Snapshots on their way to peers, which will need the log after them. */
  readonly #held = new Set<SnapshotPoint>();

  constructor(options: SnapshotsOptions, newest: StoredSnapshot | undefined, older: readonly Index[]) {
    this.#options = options;
    this.#newest = newest;
    this.#older = [...older];
  }

  get newest(): StoredSnapshot | undefined {
    return this.#newest;
  }

  /** Whether a file of that name is one of those that are kept. */
  has(index: Index): boolean {
    return this.#newest?.point.index === index || this.#older.includes(index);
  }

  /** Entries of so many bytes were applied. */
  grew(bytes: number): void {
    this.#grownBytes += bytes;
  }

  get isDue(): boolean {
    return !this.#writing && this.#grownBytes >= Math.max(this.#options.bytesMin, this.#newest?.bytes ?? 0);
  }

  /** While the peer is being sent this snapshot: keeps the log after it. @returns what ends that */
  hold(point: SnapshotPoint): () => void {
    const held = { ...point };
    this.#held.add(held);
    return () => this.#held.delete(held);
  }

  /**
   * Writes the state as of now, which is the one at `point`; in the background, never two at once. A failure loses nothing:
   * the log keeps what the snapshot would have held. The next one is due after as much growth again.
   */
  take(point: SnapshotPoint): Promise<Result<StoredSnapshot, string>> {
    this.#grownBytes = 0;
    this.#writing ??= this.#write(point).finally(() => {
      this.#writing = undefined;
    });
    return this.#writing;
  }

  async #write(point: SnapshotPoint): Promise<Result<StoredSnapshot, string>> {
    const { machine, log } = this.#options;
    const { index } = point;
    let written: Result<StoredSnapshot, string>;
    try {
      written = await machine.snapshot(point);
    } catch (error) {
      written = fail(String(error));
    }
    if (!written.ok) {
      log.error("raft.snapshot_failed", { index, message: written.error });
      return written;
    }
    log.info("raft.snapshot_written", { index, term: point.term, bytes: written.value.bytes });
    if (this.#newest && this.#newest.point.index >= index) {
      // One from the leader came meanwhile, and with it the log started over.
      if (this.#newest.point.index > index) await this.#remove(index);
      return written;
    }
    const before = this.#newest;
    this.#newest = written.value;
    await this.#removeOlder(before?.point.index);
    if (before) await this.#compact(before.point);
    return written;
  }

  /** The log started over after this snapshot, and the state machine holds it. */
  async installed(snapshot: StoredSnapshot): Promise<void> {
    this.#grownBytes = 0;
    if (this.#newest && this.#newest.point.index !== snapshot.point.index) this.#older.push(this.#newest.point.index);
    this.#newest = snapshot;
    await this.#removeOlder(undefined);
  }

  /** Waits for what is being written. */
  async close(): Promise<void> {
    await this.#writing;
  }

  async #removeOlder(keep: Index | undefined): Promise<void> {
    const files = this.#older;
    this.#older = keep === undefined ? [] : [keep];
    for (const index of files) {
      if (index !== keep && index !== this.#newest?.point.index) await this.#remove(index);
    }
  }

  async #remove(index: Index): Promise<void> {
    const { disk, directory, log } = this.#options;
    try {
      await disk.remove(`${directory}/${snapshotName(index)}`);
    } catch (error) {
      if (errorCode(error) === "ENOENT") return;
      // It takes space until the next one is written, or the store is opened again.
      this.#older.push(index);
      log.warn("raft.snapshot_not_removed", { index, error });
    }
  }

  async #compact(point: SnapshotPoint): Promise<void> {
    const { storage, log, compacted } = this.#options;
    for (const held of this.#held) if (held.index < point.index) point = held;
    const done = await storage.compact(point.index);
    if (done.ok) return compacted(point);
    // It is done with the next snapshot.
    log.warn("raft.log_not_compacted", { index: point.index, message: done.error.message });
  }
}
