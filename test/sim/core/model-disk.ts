/**
 * What one node's disk holds, as the core's driver would keep it: the log, the hard state and the snapshots, and the persist
 * orders that are not durable yet. A crash keeps any number of the pieces that were under way, from the first on: that is what
 * the log's files promise, whose records are chained (`src/cluster/kv/log/record.ts`).
 */
import { configurationOf } from "../../../src/cluster/raft/configuration.ts";
import type { Entry, HardState, Index, Persist, SnapshotPoint, Term } from "../../../src/cluster/raft/types.ts";
import type { Prng } from "../base/prng.ts";

/** A snapshot: where it stands, and the hash of the state machine there. */
export type ModelSnapshot = { readonly point: SnapshotPoint; readonly chain: number };

type Piece =
  | { readonly kind: "restart"; readonly point: SnapshotPoint }
  | { readonly kind: "cut"; readonly index: Index }
  | { readonly kind: "vote"; readonly hardState: HardState }
  | { readonly kind: "entry"; readonly entry: Entry };

export class ModelDisk {
  hardState: HardState = { term: 0, vote: "" };
  /** The entry before the first that is held. */
  base = { index: 0, term: 0 };
  entries: Entry[] = [];
  /** Ascending; at most two. Without any, the node began with `genesis`. */
  snapshots: ModelSnapshot[] = [];
  readonly genesis: ModelSnapshot;
  orders: Persist[] = [];
  /** Waits until what was ordered before it is done, as everything that changes a log does. */
  #compaction: { readonly after: Persist; readonly through: Index } | undefined;

  constructor(genesis: SnapshotPoint = { index: 0, term: 0, configuration: configurationOf([]) }) {
    this.genesis = { point: genesis, chain: 0 };
  }

  get last(): Index {
    return this.base.index + this.entries.length;
  }
  get lastTerm(): Term {
    return this.entries.at(-1)?.term ?? this.base.term;
  }
  get snapshot(): ModelSnapshot {
    return this.snapshots.at(-1) ?? this.genesis;
  }

  termAt(index: Index): Term | undefined {
    if (index === this.base.index) return this.base.term;
    return this.entries[index - this.base.index - 1]?.term;
  }

  /** Whether this entry is durable here, in the log or within a snapshot. */
  holds(index: Index, term: Term): boolean {
    return index <= this.base.index || this.snapshot.point.index >= index || this.termAt(index) === term;
  }

  /** Entries of the files, as far as they go. */
  read(from: Index, through: Index, bytesMax: number): Entry[] {
    if (from <= this.base.index) return [];
    const found: Entry[] = [];
    let bytes = 0;
    for (const entry of this.entries.slice(from - this.base.index - 1, through - this.base.index)) {
      bytes += entry.data.length;
      if (bytes > bytesMax && found.length > 0) break;
      found.push(entry);
    }
    return found;
  }

  /** The order that has waited longest is durable. */
  complete(order: Persist): void {
    if (this.orders[0] !== order) throw new Error("orders are carried out in their order");
    this.orders.shift();
    for (const piece of piecesOf(order)) this.#put(piece);
    if (this.#compaction?.after === order) this.#drop(this.#compaction.through);
    // A snapshot's term may be ahead after a crash, its order being lost: whoever could mislead this node then lacks its entry.
    if ((this.entries.at(-1)?.term ?? 0) > this.hardState.term)
      throw new Error("an entry is durable, and its term is not");
  }

  /** The disk is full: nothing of these orders is in the log, but a cut may have been made. */
  refuse(prng: Prng): void {
    const first = this.orders[0];
    this.orders = [];
    if (!first || prng.chance(0.5)) return;
    for (const piece of piecesOf(first)) if (piece.kind === "restart" || piece.kind === "cut") this.#put(piece);
  }

  /** What was under way is there from its beginning to anywhere, or none, or all of it. */
  crash(prng: Prng): number {
    const pieces = this.orders.flatMap(piecesOf);
    this.orders = [];
    const kept = prng.pick([0, pieces.length, prng.below(pieces.length + 1)]);
    for (const piece of pieces.slice(0, kept)) this.#put(piece);
    return pieces.length - kept;
  }

  keepSnapshot(snapshot: ModelSnapshot): void {
    if (snapshot.point.index <= this.snapshot.point.index) return;
    this.snapshots = [...this.snapshots, snapshot].slice(-2);
  }

  /** Frees entries up to `index`, or less: files go as a whole. */
  compact(index: Index, prng: Prng): void {
    const through = index - prng.below(8);
    const after = this.orders.at(-1);
    if (after) this.#compaction = { after, through };
    else this.#drop(through);
  }

  #drop(through: Index): void {
    this.#compaction = undefined;
    const last = this.entries[Math.min(this.entries.length, through - this.base.index) - 1];
    if (!last) return;
    this.entries.splice(0, last.index - this.base.index);
    this.base = { index: last.index, term: last.term };
  }

  /**
   * What a driver does when it opens the files: a snapshot that came from a leader, and whose order to start over was lost in
   * a crash, wins over a log that ends before it or tells another story.
   */
  recover(): { snapshot: ModelSnapshot; entries: readonly Entry[]; previousTerm: Term } {
    const { snapshot } = this;
    const { index, term } = snapshot.point;
    if (this.last < index || (index >= this.base.index && this.termAt(index) !== term)) {
      this.#put({ kind: "restart", point: snapshot.point });
    }
    return { snapshot, entries: [...this.entries], previousTerm: this.base.term };
  }

  /** Bit rot: the log ends after `index`, though more was once durable. */
  damage(index: Index): void {
    this.#put({ kind: "cut", index });
  }

  #put(piece: Piece): void {
    switch (piece.kind) {
      case "restart":
        this.base = { index: piece.point.index, term: piece.point.term };
        this.entries = [];
        return;
      case "cut":
        if (piece.index < this.base.index) throw new Error("what a snapshot replaced is never cut off");
        this.entries.length = Math.min(this.entries.length, piece.index - this.base.index);
        return;
      case "vote":
        this.hardState = piece.hardState;
        return;
      case "entry":
        if (piece.entry.index !== this.last + 1) {
          throw new Error(`entry ${piece.entry.index} does not follow ${this.last} in the log's files`);
        }
        if (piece.entry.term < this.lastTerm) throw new Error("terms never fall along the log");
        this.entries.push(piece.entry);
    }
  }
}

function piecesOf({ restart, truncateAfter, hardState, entries }: Persist): Piece[] {
  const pieces: Piece[] = [];
  if (restart) pieces.push({ kind: "restart", point: restart });
  if (truncateAfter !== undefined) pieces.push({ kind: "cut", index: truncateAfter });
  if (hardState) pieces.push({ kind: "vote", hardState });
  for (const entry of entries) pieces.push({ kind: "entry", entry });
  return pieces;
}
