import { fail, ok, type Result } from "../../lib/result.ts";
import type { ConsensusError } from "../consensus.ts";
import type { Index, Ms } from "../raft/types.ts";

/** Callers that wait at once; more are turned away. */
const WAITING_MAX = 65_536;
/** How long a read waits for a leader, over all its attempts. */
export const READ_MS_MAX = 5000;
/** Between attempts, unless a leader turns up before. */
const PAUSE_MS = 100;

type Settle = (index: Result<Index, ConsensusError>) => void;
type Batch = { readonly callers: Settle[]; readonly until: Ms; askedAt: Ms };

export type ReadsOptions = {
  readonly now: () => Ms;
  /** Asks the core. The answer comes as `answered`, or never: a message was lost. */
  readonly ask: (id: number) => void;
  /** When the answer to one attempt is given up. */
  readonly attemptMs: Ms;
  /** See `firstIdOf`. */
  readonly firstId: number;
};

/**
 * Read indexes for many callers: those who ask in one turn of the loop share one question. A question that fails, because
 * there is no leader or another one, is asked again until there is an answer or READ_MS_MAX is over.
 */
export class Reads {
  readonly #options: ReadsOptions;
  readonly #asked = new Map<number, Batch>();
  /** Those whose last attempt failed. */
  #failed: Batch[] = [];
  #next: Batch | undefined;
  #nextId: number;
  #waiting = 0;

  constructor(options: ReadsOptions) {
    this.#options = options;
    this.#nextId = options.firstId;
  }

  get waiting(): number {
    return this.#waiting;
  }

  readIndex(): Promise<Result<Index, ConsensusError>> {
    if (this.#waiting >= WAITING_MAX) return Promise.resolve(fail(unavailable("Too many reads wait for an answer.")));
    this.#waiting++;
    return new Promise((settle) => {
      if (!this.#next) {
        this.#next = { callers: [], until: this.#options.now() + READ_MS_MAX, askedAt: 0 };
        queueMicrotask(() => this.#askNext());
      }
      this.#next.callers.push(settle);
    });
  }

  answered(id: number, index: Index | undefined): void {
    const batch = this.#asked.get(id);
    if (!batch) return;
    this.#asked.delete(id);
    if (index === undefined) this.#failed.push(batch);
    else this.#settle(batch, ok(index));
  }

  /** A leader is known, another one than before: what failed is worth another try. */
  leaderAppeared(): void {
    const { now } = this.#options;
    this.#retry(now(), () => true);
  }

  /** Gives up what waits too long, and asks again what was not answered. */
  timeOut(now: Ms): void {
    for (const [id, batch] of this.#asked) {
      if (now - batch.askedAt < this.#options.attemptMs) continue;
      this.#asked.delete(id);
      this.#failed.push(batch);
    }
    this.#retry(now, (batch) => now - batch.askedAt >= PAUSE_MS);
  }

  close(error: ConsensusError): void {
    const all = [...this.#asked.values(), ...this.#failed, ...(this.#next ? [this.#next] : [])];
    this.#asked.clear();
    this.#failed = [];
    this.#next = undefined;
    for (const batch of all) this.#settle(batch, fail(error));
  }

  #askNext(): void {
    const batch = this.#next;
    this.#next = undefined;
    if (batch) this.#ask(batch, this.#options.now());
  }

  #retry(now: Ms, isTime: (batch: Batch) => boolean): void {
    const failed = this.#failed;
    this.#failed = [];
    for (const batch of failed) {
      if (now >= batch.until) this.#settle(batch, fail(unavailable("No leader confirmed in time what is committed.")));
      else if (isTime(batch)) this.#ask(batch, now);
      else this.#failed.push(batch);
    }
  }

  #ask(batch: Batch, now: Ms): void {
    batch.askedAt = now;
    const id = this.#nextId++;
    this.#asked.set(id, batch);
    this.#options.ask(id);
  }

  #settle(batch: Batch, result: Result<Index, ConsensusError>): void {
    this.#waiting -= batch.callers.length;
    for (const settle of batch.callers) settle(result);
  }
}

const unavailable = (message: string): ConsensusError => ({ reason: "unavailable", message });
