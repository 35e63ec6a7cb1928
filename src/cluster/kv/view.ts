import type { Revision } from "../../model/store.ts";
import { getFrom, type Measure, measure, scan } from "./sorted-map.ts";
import { indexBounds, type KeyValue, type State } from "./state.ts";

/**
 * What must still hold for a decision to stand, in the manner of etcd's compares. A key is compared by its modification
 * revision (0: absent). A range, or one value of an index, by its count and greatest modification revision: whatever is
 * put into it raises the revision, and what is only taken away lowers the count, so phantoms are seen too.
 */
export type Compare =
  | { readonly kind: "key"; readonly key: string; readonly modRevision: Revision }
  | ({ readonly kind: "range"; readonly from: string; readonly to: string } & Measure)
  | ({ readonly kind: "index"; readonly slot: number; readonly value: string } & Measure);

/** Whether every compare holds in this state. */
export function holds(state: State, compares: readonly Compare[]): boolean {
  return compares.every((compare) => {
    if (compare.kind === "key") return (getFrom(state.keys, compare.key)?.modRevision ?? 0) === compare.modRevision;
    const now =
      compare.kind === "range"
        ? measure(state.keys, compare.from, compare.to)
        : measure(state.indexes[compare.slot]!, ...indexBounds(compare.value));
    return now.count === compare.count && now.maxRevision === compare.maxRevision;
  });
}

/** Reads of one state; with `reads`, remembers what was looked at, as compares. */
export class View {
  readonly state: State;
  readonly #reads: Map<string, Compare> | undefined;

  constructor(state: State, reads?: Map<string, Compare>) {
    this.state = state;
    this.#reads = reads;
  }

  get(key: string): KeyValue | undefined {
    const entry = getFrom(this.state.keys, key);
    this.#reads?.set(`k${key}`, { kind: "key", key, modRevision: entry?.modRevision ?? 0 });
    return entry;
  }

  /** Entries with `from` <= key < `to`, at most `limit`. */
  range(from: string, to: string, limit?: number): readonly KeyValue[] {
    const entries = scan(this.state.keys, from, to, limit);
    // A reader that stopped at its limit saw nothing beyond the last key it was given.
    const seen = entries.length === limit ? (limit === 0 ? from : `${entries.at(-1)!.key}\0`) : to;
    this.#sawRange(from, seen);
    return entries;
  }

  count(from: string, to: string): number {
    this.#sawRange(from, to);
    return measure(this.state.keys, from, to).count;
  }

  lookup(slot: number, value: string): readonly KeyValue[] {
    this.#sawIndex(slot, value);
    return scan(this.state.indexes[slot]!, ...indexBounds(value));
  }

  countOf(slot: number, value: string): number {
    this.#sawIndex(slot, value);
    return measure(this.state.indexes[slot]!, ...indexBounds(value)).count;
  }

  #sawRange(from: string, to: string): void {
    if (!this.#reads) return;
    const { count, maxRevision } = measure(this.state.keys, from, to);
    this.#reads.set(`r${from}\0${to}`, { kind: "range", from, to, count, maxRevision });
  }

  #sawIndex(slot: number, value: string): void {
    if (!this.#reads) return;
    const { count, maxRevision } = measure(this.state.indexes[slot]!, ...indexBounds(value));
    this.#reads.set(`i${slot}\0${value}`, { kind: "index", slot, value, count, maxRevision });
  }
}
