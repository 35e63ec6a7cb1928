import { assert } from "../../lib/assert.ts";
import { MIB } from "../../lib/units.ts";
import type { Revision } from "../../model/store.ts";
import type { KeyChange } from "./state.ts";

export type KeyEvent =
  | { readonly kind: "changes"; readonly revision: Revision; readonly changes: readonly KeyChange[] }
  | { readonly kind: "compacted"; readonly revision: Revision };

export type WatchKeys = {
  readonly signal?: AbortSignal | undefined;
  /** Whether the watcher wants to hear of a revision; of every one by default. Asked when it would be told. */
  readonly concerns?: (changes: readonly KeyChange[]) => boolean;
};

/** How many key changes are kept for watchers that lag; some 10 to 60 MB of small ones at worst, as most values are in use. */
export const HISTORY_CHANGES_MAX = 50_000;
/** Of the commands that made them: values may be large, and be written over and over. They take up to twice as much memory. */
export const HISTORY_BYTES_MAX = 32 * MIB;

type Recorded = { readonly revision: Revision; readonly changes: readonly KeyChange[]; readonly bytes: number };
const DROPPED: Recorded = { revision: 0, changes: [], bytes: 0 };

/**
 * The latest changes, for watchers. A watcher holds nothing but its position here: one that stalls costs no memory, and
 * is told `compacted` when what it would read next has been dropped.
 */
export class History {
  readonly #changesMax: number;
  readonly #bytesMax: number;
  /** One event a revision, without gaps: `#events[#head]` is revision `#compacted + 1`. */
  #events: Recorded[] = [];
  #head = 0;
  #changes = 0;
  #bytes = 0;
  #compacted: Revision;
  #closed = false;
  /** Of those who wait for more, if anyone does. */
  #wake: PromiseWithResolvers<void> | undefined;
  watchers = 0;

  constructor(startsAfter: Revision, changesMax = HISTORY_CHANGES_MAX, bytesMax = HISTORY_BYTES_MAX) {
    this.#compacted = startsAfter;
    this.#changesMax = changesMax;
    this.#bytesMax = bytesMax;
  }

  /** The changes of the next revision, and how many bytes the command has that made them. */
  record(revision: Revision, changes: readonly KeyChange[], bytes: number): void {
    assert(revision === this.#last() + 1, "history has no gaps");
    this.#events.push({ revision, changes, bytes });
    this.#changes += weight(changes);
    this.#bytes += bytes;
    // The latest revision stays, however large it is.
    while ((this.#changes > this.#changesMax || this.#bytes > this.#bytesMax) && this.#last() > this.#compacted + 1) {
      const { changes, bytes } = this.#events[this.#head]!;
      this.#changes -= weight(changes);
      this.#bytes -= bytes;
      // Its memory is free now; the list is cut only now and then.
      this.#events[this.#head] = DROPPED;
      this.#head++;
      this.#compacted++;
    }
    if (this.#head > 1024 && this.#head * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    this.#awaken();
  }

  /** Forgets everything up to `revision`, as a state that is replaced whole (an installed snapshot) has to. */
  restartAfter(revision: Revision): void {
    this.#events = [];
    this.#head = 0;
    this.#changes = 0;
    this.#bytes = 0;
    this.#compacted = revision;
    this.#awaken();
  }

  close(): void {
    this.#closed = true;
    this.#awaken();
  }

  /** Every event after `fromRevision` that concerns the watcher. Ends after `compacted`, at abort and at close. */
  async *watch(fromRevision: Revision, { signal, concerns }: WatchKeys = {}): AsyncGenerator<KeyEvent> {
    let position = fromRevision;
    const onAbort = () => this.#awaken();
    signal?.addEventListener("abort", onAbort, { once: true });
    this.watchers++;
    try {
      while (!signal?.aborted && !this.#closed) {
        if (position < this.#compacted) {
          yield { kind: "compacted", revision: this.#compacted };
          return;
        }
        if (position < this.#last()) {
          position++;
          const { revision, changes } = this.#events[this.#head + (position - this.#compacted - 1)]!;
          // Most writes are of no concern to most watchers, and a yield costs more than the look.
          if (!concerns || concerns(changes)) yield { kind: "changes", revision, changes };
        } else {
          this.#wake ??= Promise.withResolvers<void>();
          await this.#wake.promise;
        }
      }
    } finally {
      this.watchers--;
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #last(): Revision {
    return this.#compacted + (this.#events.length - this.#head);
  }

  #awaken(): void {
    this.#wake?.resolve();
    this.#wake = undefined;
  }
}

/** A revision without changes takes its place, too. */
const weight = (changes: readonly KeyChange[]): number => Math.max(1, changes.length);
