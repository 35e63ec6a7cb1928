import type { Entry, Index, Term } from "../raft/types.ts";
import type { Advanced, Replicated } from "./replicated.ts";
import type { Snapshot, TermCount } from "./snapshot-format.ts";

/** Terms whose commands are counted. A node that was cut off for longer does not learn what became of its last proposals. */
const TERMS_MAX = 64;
const NO_CHANGES: Advanced["changes"] = [];

/** The replicated state, where in the log it stands, and what vouches for it. */
export class Ledger {
  /** Of the last command that was applied. */
  now: Advanced;
  index: Index;
  term: Term;
  digest: number;
  #terms: TermCount[];

  constructor(from: Omit<Snapshot, "configuration">) {
    this.now = { state: from.state, sessions: from.sessions, changes: NO_CHANGES };
    this.index = from.index;
    this.term = from.term;
    this.digest = from.digest;
    this.#terms = [...from.terms];
  }

  static empty(replicated: Replicated): Ledger {
    return new Ledger({ ...replicated, index: 0, term: 0, digest: 0, terms: [] });
  }

  /** The next entry is applied; it made `next`, if it was a command. */
  add({ index, term, data }: Entry, next?: Advanced): void {
    this.index = index;
    this.term = term;
    if (!next) return;
    this.now = next;
    this.digest = digestAfter(this.digest, data, next);
    const last = this.#terms.at(-1);
    if (last?.[0] === term) this.#terms[this.#terms.length - 1] = [term, last[1] + 1];
    else {
      this.#terms.push([term, 1]);
      if (this.#terms.length > TERMS_MAX) this.#terms.shift();
    }
  }

  /** How many commands of a term are in the state; undefined when that was too long ago. */
  countOf(term: Term): number | undefined {
    const found = this.#terms.findLast(([counted]) => counted === term);
    if (found) return found[1];
    return this.#terms.length < TERMS_MAX || term > this.#terms[0]![0] ? 0 : undefined;
  }

  /** As of now, for a snapshot: what follows changes nothing of it. */
  captured(): Omit<Snapshot, "configuration"> {
    const { state, sessions } = this.now;
    return { state, sessions, index: this.index, term: this.term, digest: this.digest, terms: [...this.#terms] };
  }
}

/** Chained: over the command's bytes, the revision and how many records there are after it. 32 bits. */
function digestAfter(before: number, data: Uint8Array, { state }: Replicated): number {
  const mixed = Math.imul(Bun.hash.crc32(data, before) ^ state.revision, 0x9e3779b1);
  return (mixed ^ (mixed >>> 15) ^ state.keys.count) >>> 0;
}
