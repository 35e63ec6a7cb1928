/**
 * Drives the state machine: what is committed is applied, in bounded batches, and who leads is told at its place among the
 * entries. The machine may be on another thread: entries are then handed over, and come to be applied in the order of calls.
 */

import type { Log } from "../../lib/log.ts";
import { KIB, MIB } from "../../lib/units.ts";
import type { StateMachine } from "../consensus.ts";
import { recordBytes } from "../kv/log/record.ts";
import { decodeConfiguration, kindOf } from "../raft/configuration.ts";
import type { RaftState } from "../raft/state.ts";
import type { Entry, Index, PeerId, SnapshotPoint, Term } from "../raft/types.ts";
import { planApply } from "./plan-apply.ts";

/** What one turn of the event loop applies, so that timers and sockets are heard in between. */
const APPLY_ENTRIES_MAX = 1024;
const APPLY_BYTES_MAX = MIB;
/** Handed over and not applied yet; and what a follower keeps in memory beyond that, to be handed over. */
const HANDED_BYTES_MAX = 8 * MIB;
const BACKLOG_BYTES_MAX = 32 * MIB;
const BACKLOG_ENTRIES_MAX = 128 * 1024;
/** The core frees memory when it is told what was applied: not worth a step for each entry. */
const TELL_APPLIED_BYTES = 64 * KIB;

export type DriverPorts = {
  readonly machine: StateMachine;
  readonly log: Log;
  readonly state: () => RaftState;
  /** The node has failed: nothing more is applied, and it leads no more. */
  readonly isFailed: () => boolean;
  readonly isClosing: () => boolean;
  /** There is more to apply. */
  readonly again: () => void;
  /** Entries of so many bytes in the log are applied, or handed over; the last one is `point`. */
  readonly applied: (bytes: number) => void;
  /** The core is to be told that everything up to here is applied. */
  readonly told: (index: Index) => void;
  readonly leaderAppeared: () => void;
  /** The machine came upon something that cannot be. */
  readonly defect: (error: unknown) => void;
};

export class MachineDriver {
  readonly #ports: DriverPorts;
  /** The last entry that is applied, or handed over to be: calls keep their order, so that there is no difference. */
  #point: SnapshotPoint;
  #handedBytes = 0;
  #untoldBytes = 0;
  #later: ReturnType<typeof setImmediate> | undefined;
  /** What the machine was told last. */
  #ledTerm: Term | undefined;
  #toldLeader: PeerId | undefined;

  constructor(ports: DriverPorts, point: SnapshotPoint) {
    this.#ports = ports;
    this.#point = point;
  }

  get index(): Index {
    return this.#point.index;
  }
  /** The last applied entry, and the configuration in force there: what a snapshot is of. */
  get point(): SnapshotPoint {
    return this.#point;
  }
  /** The machine knows that this node leads. */
  get isLeading(): boolean {
    return this.#ledTerm !== undefined;
  }

  /**
   * The machine lags so far behind that no more of the log is taken into memory. Nothing is lost by that: to the leader this is
   * a node that gets only the beginning of each message, and it sends the rest again, the slower the longer.
   */
  get isBehind(): boolean {
    if (this.#handedBytes < HANDED_BYTES_MAX) return false;
    const { log } = this.#ports.state();
    return log.bytes > BACKLOG_BYTES_MAX || log.last - this.index > BACKLOG_ENTRIES_MAX;
  }

  applyCommitted(): void {
    let entriesLeft = APPLY_ENTRIES_MAX;
    let bytesLeft = APPLY_BYTES_MAX;
    while (!this.#ports.isFailed() && this.#handedBytes < HANDED_BYTES_MAX) {
      const limits = { entries: entriesLeft, bytes: bytesLeft };
      const batch = planApply(this.#ports.state(), this.index, this.#ledTerm, limits);
      if (!batch) return;
      if (entriesLeft <= 0 || bytesLeft <= 0) {
        this.#later ??= setImmediate(() => {
          this.#later = undefined;
          this.#ports.again();
        });
        return;
      }
      if (batch.losesTerm) this.#tellLost();
      entriesLeft -= batch.entries.length;
      bytesLeft -= this.#apply(batch.entries);
    }
  }

  /** @returns the bytes that they take in the log */
  #apply(entries: readonly Entry[]): number {
    let bytes = 0;
    let { configuration } = this.#point;
    for (const entry of entries) {
      bytes += recordBytes(entry.data.length);
      if (kindOf(entry) === "configuration") configuration = decodeConfiguration(entry.data);
    }
    const applied = this.#ports.machine.apply(entries);
    if (applied) void this.#noteHanded(applied, bytes);
    const { index, term } = entries.at(-1)!;
    this.#point = { index, term, configuration };
    this.#ports.applied(bytes);
    this.#untoldBytes += bytes;
    if (this.#untoldBytes >= TELL_APPLIED_BYTES) {
      this.#untoldBytes = 0;
      this.#ports.told(index);
    }
    return bytes;
  }

  async #noteHanded(applied: Promise<void>, bytes: number): Promise<void> {
    const isFull = () => this.#handedBytes >= HANDED_BYTES_MAX;
    this.#handedBytes += bytes;
    try {
      await applied;
    } catch (error) {
      if (!this.#ports.isClosing()) this.#ports.defect(error);
      return;
    }
    const wasFull = isFull();
    this.#handedBytes -= bytes;
    if (wasFull && !isFull()) this.#ports.again();
  }

  /** A snapshot became the state. */
  installed(point: SnapshotPoint): void {
    this.#point = point;
  }

  /** In this order: what was lost, who leads, what was won. */
  tellLeadership(): void {
    const { machine, log } = this.#ports;
    const { role, term, leader, isHalted } = this.#ports.state();
    const isAble = !isHalted && !this.#ports.isFailed();
    const leads = isAble && role === "leader";
    if (this.#ledTerm !== undefined && !(leads && term === this.#ledTerm)) this.#tellLost();
    const toTell = isAble ? leader : undefined;
    if (toTell !== this.#toldLeader) {
      this.#toldLeader = toTell;
      log.info("raft.leader_changed", { leader: toTell, term });
      machine.leaderChanged(toTell);
      if (toTell !== undefined) this.#ports.leaderAppeared();
    }
    // The first entry of its term is its no-op; whatever came before is applied with it.
    if (leads && this.#ledTerm !== term && this.#point.term === term) {
      this.#ledTerm = term;
      machine.gainedLeadership(term);
    }
  }

  #tellLost(): void {
    const term = this.#ledTerm!;
    this.#ledTerm = undefined;
    this.#ports.machine.lostLeadership(term);
  }

  close(): void {
    clearImmediate(this.#later);
  }
}
