/**
 * Puts decisions in order on the leader. A decision runs on the tentative state: the applied one with every command that was
 * proposed since, committed or not. What it writes is proposed as one entry, and the state that it makes becomes the next
 * decision's ground. When the entry comes back committed, that state is adopted as it is: a leader applies nothing twice.
 *
 * What this rests on: all commands of one term are its one leader's, and they come back in the order in which they were
 * proposed, up to some point (Log Matching). So a leader that lost its office can tell what became of its proposals without
 * asking: those that still come back are committed; once an entry of a later term is applied, the rest never will be. And a
 * snapshot that takes the place of those entries says how many commands of each term are in it.
 */
import { assert } from "../../lib/assert.ts";
import { MIB } from "../../lib/units.ts";
import type { StoreError } from "../../model/store.ts";
import type { Entry, Index, Term } from "../raft/types.ts";
import { type Advanced, advance, type Logged, type Replicated } from "./replicated.ts";
import type { Schema } from "./schema.ts";

/**
 * What became of a decision. Nothing: it and all that it was made on is committed, and applied here up to `index`.
 * `dropped`: it is in no log and never will be, so that it may be made anew.
 */
export type Settle = (problem: "dropped" | StoreError | undefined, index: Index) => void;

export type Pending = {
  /** Undefined for a decision that wrote nothing, and waits for those before it. */
  readonly bytes: Uint8Array | undefined;
  readonly logged: Logged;
  /** The state that it was decided on, and the one that its command makes. */
  readonly base: Replicated;
  readonly after: Advanced | undefined;
  /** Another node asked for it, and will ask the next leader if this one can't say. */
  readonly isForwarded: boolean;
  /** Undefined once its outcome was told. */
  settle: Settle | undefined;
};

/** More transactions than this, or bytes, don't wait for their commit: they are refused as `busy`. */
export const PENDING_MAX = 16_384;
export const PENDING_BYTES_MAX = 64 * MIB;
/** What one proposal carries at most, beyond its first command. */
const GROUP_BYTES_MAX = 4 * MIB;

export class Sequencer {
  readonly #schema: Schema;
  readonly #propose: (term: Term, commands: readonly Uint8Array[]) => void;
  #isLeading = false;
  #term: Term = 0;
  #tentative: Replicated | undefined;
  /** In the order of the log: what was proposed in `#term` and is not settled begins at `#head`. */
  #items: Pending[] = [];
  #head = 0;
  #bytes = 0;
  /** Commands that wait for this turn's proposal; they are the last of the items. */
  #outbox: Uint8Array[] = [];
  /** How many items are no longer there; and how many are there that somebody waits for. */
  #settled = 0;
  #waiting = 0;
  /** How many commands of `#term` have come back. */
  #returned = 0;

  constructor(schema: Schema, propose: (term: Term, commands: readonly Uint8Array[]) => void) {
    this.#schema = schema;
    this.#propose = propose;
  }

  get isLeading(): boolean {
    return this.#isLeading;
  }
  get term(): Term {
    return this.#term;
  }
  /** What a decision is made on. Only while leading. */
  get tentative(): Replicated {
    assert(this.#tentative, "only a leader decides");
    return this.#tentative;
  }
  get pending(): number {
    return this.#items.length - this.#head;
  }
  /** How many wait to hear what became of their decision. */
  get waiting(): number {
    return this.#waiting;
  }
  /** Counts what was ever submitted, or waited with it. */
  get submitted(): number {
    return this.#settled + this.pending;
  }
  get isFull(): boolean {
    return this.pending >= PENDING_MAX || this.#bytes >= PENDING_BYTES_MAX;
  }

  /** This node leads `term`, and `now` is what everything before its own entries makes. */
  begin(term: Term, now: Replicated): void {
    this.#dropRest();
    this.#isLeading = true;
    this.#term = term;
    this.#returned = 0;
    this.#tentative = now;
  }

  /** It leads no more. What it proposed may come back or not; what it had not yet proposed, and what wrote nothing, won't. */
  lose(): void {
    if (!this.#isLeading) return;
    this.#isLeading = false;
    this.#tentative = undefined;
    const items = this.#items.slice(this.#head);
    let proposed = items.reduce((count, { bytes }) => (bytes ? count + 1 : count), 0) - this.#outbox.length;
    this.#clear();
    this.#outbox = [];
    for (const item of items) {
      if (item.bytes && proposed > 0) {
        proposed--;
        this.#items.push(item);
        this.#bytes += item.bytes.length;
        if (item.isForwarded) this.#tell(item, "dropped", 0);
      } else {
        this.#settled++;
        this.#tell(item, "dropped", 0);
      }
    }
  }

  /** Puts a command that was decided on `tentative` into the log. */
  submit(logged: Logged, bytes: Uint8Array, settle: Settle, isForwarded = false): void {
    const base = this.tentative;
    const after = advance(this.#schema, base, logged);
    this.#tentative = after;
    this.#items.push({ bytes, logged, base, after, isForwarded, settle });
    this.#waiting++;
    this.#bytes += bytes.length;
    // Whoever else decides in this turn of the loop joins: a microtask would end between two sockets that are ready together.
    if (this.#outbox.push(bytes) === 1) setImmediate(() => this.#flush());
  }

  /** A decision on `tentative` that wrote nothing: settled once everything that it saw is applied. */
  waitForAll(settle: Settle, appliedIndex: Index): void {
    const base = this.#tentative;
    assert(base, "only a leader decides");
    if (this.pending === 0) {
      settle(undefined, appliedIndex);
      return;
    }
    this.#items.push({ bytes: undefined, logged: NOTHING, base, after: undefined, isForwarded: false, settle });
    this.#waiting++;
  }

  /** The proposal that this committed command is, if it is one of this node's that were not settled yet. */
  find(entry: Entry): Pending | undefined {
    if (entry.term !== this.#term || this.pending === 0) return undefined;
    const item = this.#items[this.#head]!;
    assert(item.bytes?.length === entry.data.length, "commands come back in their order");
    return item;
  }

  /** It is applied now; so is what the decisions right after it saw that wrote nothing. */
  settle(item: Pending, index: Index): void {
    assert(item === this.#items[this.#head], "commands are settled in their order");
    this.#returned++;
    this.#bytes -= item.bytes!.length;
    this.#head++;
    this.#settled++;
    this.#tell(item, undefined, index);
    while (this.#head < this.#items.length && !this.#items[this.#head]!.bytes) {
      this.#settled++;
      this.#tell(this.#items[this.#head++]!, undefined, index);
    }
    if (this.#head === this.#items.length) this.#clear();
    else if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
  }

  /** An entry of `term` is applied: what an earlier leader proposed and has not come back never will. */
  reached(term: Term): void {
    if (term > this.#term) this.#dropRest();
  }

  /**
   * A snapshot took the place of entries up to `index`, the last one of `term`. `count` says how many commands of a term are
   * in it, or nothing if it was too long ago to tell.
   */
  installed(index: Index, term: Term, count: (term: Term) => number | undefined, unknown: StoreError): void {
    assert(!this.#isLeading, "a leader installs nothing");
    const held = count(this.#term);
    if (held === undefined) this.#dropRest(unknown);
    while (this.pending > 0 && this.#returned < (held ?? 0)) this.settle(this.#items[this.#head]!, index);
    this.reached(term);
  }

  /** Nothing that is pending can come back any more. */
  fail(error: StoreError): void {
    this.#dropRest(error);
  }

  /** Nobody has to wait any longer for what was pending when `submitted` was this number. */
  failThrough(submitted: number, error: StoreError): void {
    const end = Math.min(this.#items.length, this.#head + submitted - this.#settled);
    for (let i = this.#head; i < end; i++) this.#tell(this.#items[i]!, error, 0);
  }

  #flush(): void {
    const commands = this.#outbox;
    this.#outbox = [];
    for (let from = 0; from < commands.length; ) {
      let bytes = commands[from]!.length;
      let to = from + 1;
      while (to < commands.length && bytes + commands[to]!.length <= GROUP_BYTES_MAX) bytes += commands[to++]!.length;
      this.#propose(this.#term, to - from === commands.length ? commands : commands.slice(from, to));
      from = to;
    }
  }

  #dropRest(problem: "dropped" | StoreError = "dropped"): void {
    if (this.pending === 0) return;
    const dropped = this.#items.slice(this.#head);
    this.#settled += dropped.length;
    this.#clear();
    this.#outbox = [];
    for (const item of dropped) this.#tell(item, problem, 0);
  }

  #tell(item: Pending, problem: "dropped" | StoreError | undefined, index: Index): void {
    const { settle } = item;
    if (!settle) return;
    item.settle = undefined;
    this.#waiting--;
    settle(problem, index);
  }

  #clear(): void {
    this.#items.length = 0;
    this.#head = 0;
    this.#bytes = 0;
  }
}

const NOTHING: Logged = { kind: "nothing" };
