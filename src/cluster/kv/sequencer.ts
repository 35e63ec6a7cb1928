/**
 * Puts decisions in order on the node that writes the log. A decision runs on the state with everything before it in the
 * log, durable or not; what it writes goes into the log as one entry; entries that wait share one write and one sync
 * (group commit), and only then become the applied state that readers see. When the log fails, the states that were
 * never durable are dropped and everything that was decided on them fails: no answer rests on what might not be there.
 */
import { assert } from "../../lib/assert.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { MIB } from "../../lib/units.ts";
import type { StoreError } from "../../model/store.ts";
import type { Entry, LogError, LogStorage } from "./log/log-storage.ts";
import type { Schema } from "./schema.ts";
import { apply, type Command, type KeyChange, type State } from "./state.ts";

/** One entry of the log and what it makes of the state; or a decision that wrote nothing but waits for those before. */
type Pending = {
  readonly bytes: Uint8Array | undefined;
  readonly state: State;
  readonly changes: readonly KeyChange[];
  readonly settle: (failure: StoreError | undefined) => void;
};

/** More transactions than this, or bytes, don't wait for the disk: they are refused as `busy`. */
const PENDING_MAX = 16_384;
const PENDING_BYTES_MAX = 64 * MIB;
/** What one write to the log carries at most, beyond its first entry. */
const GROUP_BYTES_MAX = 4 * MIB;

export type Committed = { readonly state: State; readonly changes: readonly KeyChange[] };

export class Sequencer {
  readonly #schema: Schema;
  readonly #log: LogStorage;
  readonly #term: number;
  readonly #committed: (done: Committed) => void;
  /** After each group: the place for snapshots. */
  readonly #flushed: () => void;
  #applied: State;
  /** The applied state and everything that waits. Decisions run on it. */
  #tentative: State;
  #waiting: Pending[] = [];
  #waitingBytes = 0;
  #inFlight = 0;
  #flushing: Promise<void> | undefined;
  #failure: StoreError | undefined;
  #closed = false;

  constructor(options: {
    readonly schema: Schema;
    readonly log: LogStorage;
    readonly term: number;
    readonly state: State;
    readonly committed: (done: Committed) => void;
    readonly flushed: () => void;
  }) {
    this.#schema = options.schema;
    this.#log = options.log;
    this.#term = options.term;
    this.#applied = options.state;
    this.#tentative = options.state;
    this.#committed = options.committed;
    this.#flushed = options.flushed;
  }

  get applied(): State {
    return this.#applied;
  }
  get tentative(): State {
    return this.#tentative;
  }
  get pending(): number {
    return this.#waiting.length + this.#inFlight;
  }
  /** The last failure of the log; cleared by the next write that succeeds. */
  get failure(): StoreError | undefined {
    return this.#failure;
  }

  /** Why nothing can be decided now, if so. To be asked before a decision runs. */
  refusal(): StoreError | undefined {
    if (this.#closed) return closedError;
    if (this.#failure?.reason === "failed") return this.#failure;
    if (this.pending >= PENDING_MAX || this.#waitingBytes >= PENDING_BYTES_MAX) return busyError;
    return undefined;
  }

  /**
   * Puts a command, decided on `tentative`, into the log; `undefined` waits for what the decision was made on, and
   * writes nothing. Resolves when durable and applied.
   */
  submit(command: Command | undefined, bytes: Uint8Array | undefined): Promise<Result<void, StoreError>> {
    assert((command === undefined) === (bytes === undefined), "a command has bytes");
    const { state, changes } = command
      ? apply(this.#schema, this.#tentative, command)
      : { state: this.#tentative, changes: [] };
    if (!command && this.pending === 0) return Promise.resolve(ok(undefined));
    this.#tentative = state;
    this.#waitingBytes += bytes?.length ?? 0;
    return new Promise((resolve) => {
      const settle = (failure: StoreError | undefined) => resolve(failure ? fail(failure) : ok(undefined));
      this.#waiting.push({ bytes, state, changes, settle });
      this.#flushing ??= this.#flush();
    });
  }

  /** Refuses what comes, and waits for what is there. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#flushing;
  }

  async #flush(): Promise<void> {
    // Whoever else is about to submit in this turn of the loop joins the first group.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#takeGroup();
      this.#inFlight = group.length;
      const appended = await this.#append(group);
      this.#inFlight = 0;
      if (!appended.ok) {
        this.#fail(group, storeErrorOf(appended.error));
        continue;
      }
      if (group.some(({ bytes }) => bytes)) this.#failure = undefined;
      for (const { state, changes, settle } of group) {
        this.#applied = state;
        this.#committed({ state, changes });
        settle(undefined);
      }
      this.#flushed();
    }
    this.#flushing = undefined;
  }

  #takeGroup(): Pending[] {
    let bytes = 0;
    let count = 0;
    for (const pending of this.#waiting) {
      const more = pending.bytes?.length ?? 0;
      if (count > 0 && bytes + more > GROUP_BYTES_MAX) break;
      bytes += more;
      count++;
    }
    this.#waitingBytes -= bytes;
    return this.#waiting.splice(0, count);
  }

  #append(group: readonly Pending[]): Promise<Result<void, LogError>> {
    const entries: Entry[] = [];
    let index = this.#log.lastIndex;
    for (const { bytes } of group) if (bytes) entries.push({ index: ++index, term: this.#term, data: bytes });
    return entries.length === 0 ? Promise.resolve(ok(undefined)) : this.#log.append(entries);
  }

  #fail(group: readonly Pending[], failure: StoreError): void {
    const dropped = [...group, ...this.#waiting];
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#tentative = this.#applied;
    this.#failure = failure;
    for (const { settle } of dropped) settle(failure);
  }
}

const busyError: StoreError = {
  kind: "store",
  reason: "busy",
  message: "Too many transactions wait for the disk.",
};
export const closedError: StoreError = { kind: "store", reason: "closed", message: "The store was closed." };

export function storeErrorOf(error: LogError): StoreError {
  const after = error.reason === "full" ? "Free some; writes are then accepted again." : "Restart Hive on a good disk.";
  return {
    kind: "store",
    reason: error.reason === "full" ? "full" : "failed",
    message: `${error.message} ${after}`,
    cause: error.cause,
  };
}
