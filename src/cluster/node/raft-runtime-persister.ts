import { fail, ok, type Result } from "../../lib/result.ts";
import { MIB } from "../../lib/units.ts";
import type { LogError, LogStorage } from "../kv/log/log-storage.ts";
import type { Entry, Persist } from "../raft/types.ts";

/** What one write to the log carries at most, beyond its first order. */
const GROUP_BYTES_MAX = 4 * MIB;

export type PersisterOptions = {
  readonly storage: LogStorage;
  /** These orders are durable, in their order. */
  readonly durable: (orders: readonly Persist[]) => void;
  /** Nothing of this order and of those after it is in the log for sure, and none of them will be tried again. */
  readonly refused: (order: Persist, error: LogError) => void;
};

/**
 * Carries out persist orders, one write and one sync at a time: all orders that wait when one begins share it (group
 * commit), up to the next that cuts the log. The next write is under way before the orders of the last one are reported, so
 * that the disk works while entries are applied.
 */
export class Persister {
  readonly #options: PersisterOptions;
  #waiting: Persist[] = [];
  #working: Promise<void> | undefined;

  constructor(options: PersisterOptions) {
    this.#options = options;
  }

  /** Whether a write is under way. */
  get isBusy(): boolean {
    return this.#working !== undefined;
  }

  add(orders: readonly Persist[]): void {
    if (orders.length === 0) return;
    this.#waiting.push(...orders);
    this.#working ??= this.#work();
  }

  /** Waits until nothing is being written; what waits is dropped. */
  async close(): Promise<void> {
    this.#waiting = [];
    await this.#working;
  }

  async #work(): Promise<void> {
    let group = this.#takeGroup();
    let writing = this.#carryOut(group);
    while (true) {
      let written: Result<void, LogError>;
      try {
        written = await writing;
      } catch (cause) {
        written = fail(defect(cause));
      }
      if (!written.ok) {
        this.#waiting = [];
        this.#working = undefined;
        return this.#options.refused(group[0]!, written.error);
      }
      const done = group;
      const isNextBegun = this.#waiting.length > 0;
      if (isNextBegun) {
        group = this.#takeGroup();
        writing = this.#carryOut(group);
      }
      this.#options.durable(done);
      if (isNextBegun) continue;
      if (this.#waiting.length === 0) break;
      group = this.#takeGroup();
      writing = this.#carryOut(group);
    }
    this.#working = undefined;
  }

  #takeGroup(): Persist[] {
    let count = 0;
    let bytes = 0;
    for (const order of this.#waiting) {
      if (count > 0 && cutsLog(order)) break;
      for (const { data } of order.entries) bytes += data.length;
      if (count > 0 && bytes > GROUP_BYTES_MAX) break;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  #carryOut(group: readonly Persist[]): Promise<Result<void, LogError>> {
    const first = group[0]!;
    const entries = group.length === 1 ? first.entries : group.flatMap((order) => order.entries);
    return cutsLog(first) ? this.#cutThenAppend(first, entries, group) : this.#append(entries, group);
  }

  async #cutThenAppend(
    { restart, truncateAfter }: Persist,
    entries: readonly Entry[],
    group: readonly Persist[],
  ): Promise<Result<void, LogError>> {
    const { storage } = this.#options;
    const cut = restart
      ? await storage.restartAfter(restart.index, restart.term)
      : await storage.truncateAfter(truncateAfter!);
    return cut.ok ? this.#append(entries, group) : cut;
  }

  #append(entries: readonly Entry[], group: readonly Persist[]): Promise<Result<void, LogError>> {
    const hardState = group.findLast((order) => order.hardState)?.hardState;
    if (entries.length === 0 && !hardState) return NOTHING_TO_WRITE;
    return this.#options.storage.append(entries, hardState);
  }
}

/** The storage answers with values; a rejection is a defect, after which nobody knows what was written. */
const defect = (cause: unknown): LogError => ({
  reason: "failed",
  message: `Writing to the log ended unexpectedly (${cause}).`,
  cause,
});

const NOTHING_TO_WRITE = Promise.resolve(ok(undefined));
const cutsLog = ({ restart, truncateAfter }: Persist): boolean => restart !== undefined || truncateAfter !== undefined;
