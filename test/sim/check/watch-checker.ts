/**
 * What watchers may see: every revision once, in order, none left out, none before the node itself shows it, and on every
 * node the same. `Truth` is what all watchers together have seen; a `WatchChecker` follows one stream of events.
 */
import { Violation } from "../base/simulation.ts";

export type SeenChange = {
  readonly key: string;
  readonly before: string | undefined;
  readonly after: string | undefined;
};

/** What each revision did, and what the whole state was after it: whoever saw it first says so, the others have to agree. */
export class Truth {
  readonly #changes = new Map<number, string>();
  readonly #states = new Map<number, number>();
  /** The revision that put each text, to tell how new a state is that shows it. */
  readonly #putAt = new Map<string, number>();
  last = 0;

  changed(where: string, revision: number, changes: readonly SeenChange[]): void {
    const text = JSON.stringify(changes);
    const known = this.#changes.get(revision);
    if (known === undefined) {
      this.#changes.set(revision, text);
      for (const { after } of changes) if (after !== undefined) this.#putAt.set(after, revision);
    } else if (known !== text) {
      throw new Violation("all nodes see the same", `${where} saw ${text} at revision ${revision}, others ${known}`);
    }
    this.last = Math.max(this.last, revision);
  }

  stood(where: string, revision: number, hash: number): void {
    const known = this.#states.get(revision);
    if (known === undefined) this.#states.set(revision, hash);
    else if (known !== hash) throw new Violation("all nodes hold the same", `${where} differs at revision ${revision}`);
  }

  putAt(text: string): number | undefined {
    return this.#putAt.get(text);
  }
}

export class WatchChecker {
  readonly #truth: Truth;
  readonly #where: string;
  readonly #contents = new Map<string, string>();
  #hash = 0;
  #position = 0;
  #isEnded = true;

  constructor(truth: Truth, where: string) {
    this.#truth = truth;
    this.#where = where;
  }

  /** Everything was read at `revision`; the watch goes on from there. */
  began(revision: number, contents: ReadonlyMap<string, string>): void {
    this.#position = revision;
    this.#isEnded = false;
    this.#contents.clear();
    this.#hash = 0;
    for (const [key, text] of contents) {
      this.#contents.set(key, text);
      this.#hash ^= hashOf(key, text);
    }
    this.#truth.stood(this.#where, revision, this.#hash);
  }

  /** An event came, while the node's own state was of `shown`. */
  changed(revision: number, changes: readonly SeenChange[], shown: number): void {
    this.#expectOpen();
    if (revision !== this.#position + 1) {
      const kind = revision <= this.#position ? "watches never go back" : "watches leave no gap";
      throw new Violation(kind, `${this.#where} went from revision ${this.#position} to ${revision}`);
    }
    if (revision > shown) {
      throw new Violation("watches never show the future", `${this.#where} saw ${revision}, the state is of ${shown}`);
    }
    this.#position = revision;
    for (const { key, before, after } of changes) {
      if (this.#contents.get(key) !== before) {
        throw new Violation("a change follows from what was there", `${this.#where} ${key} at revision ${revision}`);
      }
      if (before !== undefined) this.#hash ^= hashOf(key, before);
      if (after !== undefined) this.#hash ^= hashOf(key, after);
      if (after === undefined) this.#contents.delete(key);
      else this.#contents.set(key, after);
    }
    this.#truth.changed(this.#where, revision, changes);
    this.#truth.stood(this.#where, revision, this.#hash);
  }

  /** The watcher was told that changes up to `revision` are not held any more; it has to begin anew. */
  compacted(revision: number, shown: number): void {
    this.#expectOpen();
    if (revision <= this.#position) {
      throw new Violation(
        "only who lags is told to begin anew",
        `${this.#where} at ${this.#position}, told ${revision}`,
      );
    }
    if (revision > shown) {
      throw new Violation("watches never show the future", `${this.#where} told ${revision}, the state is of ${shown}`);
    }
    this.#isEnded = true;
  }

  /** Where the watcher stands. */
  get position(): number {
    return this.#position;
  }

  #expectOpen(): void {
    if (this.#isEnded) throw new Violation("nothing follows the end of a watch", this.#where);
  }
}

const hashOf = (key: string, text: string): number => Number(Bun.hash.crc32(`${key}\0${text}`)) | 0;
