/**
 * What must hold after every event, whatever happened: the properties of figure 3 of the Raft paper, and the promises that
 * they rest on. Each is checked on what the event changed only, against a ledger of everything that was ever seen.
 */
import { isQuorum } from "../../../src/cluster/raft/configuration.ts";
import { termAt } from "../../../src/cluster/raft/log.ts";
import { configurationOfState, type RaftState } from "../../../src/cluster/raft/state.ts";
import type { Effects, Entry, Index, Message, PeerId, Term } from "../../../src/cluster/raft/types.ts";
import { Violation } from "../base/simulation.ts";
import { Elections } from "../check/elections.ts";
import type { ModelDisk } from "./model-disk.ts";

/** What the checks see of a node. */
export type Watched = {
  readonly id: PeerId;
  readonly disk: ModelDisk;
  /** Its disk lost what was durable: what it holds proves nothing any more. */
  readonly wasDamaged: boolean;
};

/** `by`: the term whose leader committed it first. */
type Committed = { readonly term: Term; readonly by: Term; readonly hash: number; readonly chain: number };

/** Terms stay below this, so that an index and a term are one number. */
const TERM_MAX = 2 ** 20;

export class Ledger {
  readonly #elections = new Elections();
  /** By index and term: the entry's hash, and the term of the one before. */
  readonly #entries = new Map<number, { readonly hash: number; readonly previousTerm: Term }>();
  /** `committed[i]`: the entry at index i + 1. */
  readonly committed: Committed[] = [];

  get commit(): Index {
    return this.committed.length;
  }

  chainAt(index: Index): number {
    return index === 0 ? 0 : (this.committed[index - 1]?.chain ?? Number.NaN);
  }

  /** A node went from `before` to `after`. */
  stepped(
    node: Watched,
    before: RaftState,
    after: RaftState,
    effects: Effects,
    all: ReadonlyMap<PeerId, Watched>,
  ): void {
    if (after.term < before.term)
      throw new Violation("terms never go back", `${node.id} ${before.term} to ${after.term}`);
    if (after.term === before.term && after.vote !== before.vote && before.vote !== "") {
      throw new Violation("one vote a term", `${node.id} changed its vote of term ${after.term}`);
    }
    if (after.commit < before.commit) {
      throw new Violation("commit never goes back", `${node.id} ${before.commit} to ${after.commit}`);
    }
    if (after.commit > after.log.last) {
      throw new Violation("what is committed is in the log", `${node.id} ${after.commit} beyond ${after.log.last}`);
    }
    if (before.isHalted && (effects.persist.length > 0 || effects.send.length > 0)) {
      throw new Violation("a halted node says nothing", node.id);
    }
    if (after.role === "leader" && (before.role !== "leader" || before.term !== after.term)) this.#elected(node, after);
    let expected: Index | undefined;
    for (const order of effects.persist) {
      if (order.restart) expected = order.restart.index + 1;
      else if (order.truncateAfter !== undefined) expected = order.truncateAfter + 1;
      for (const entry of order.entries) {
        if (expected !== undefined && entry.index !== expected) {
          throw new Violation("orders leave no gap", `${node.id} entry ${entry.index} where ${expected} is next`);
        }
        expected = entry.index + 1;
        const previous = order.entries[entry.index - order.entries[0]!.index - 1];
        this.#appended(node, entry, previous?.term ?? termAt(after.log, entry.index - 1));
      }
    }
    if (after.commit > before.commit) this.#committed(node, before, after, all);
  }

  /** A message leaves: what it promises has to be durable. */
  sent(node: Watched, state: RaftState, message: Message): void {
    const { disk } = node;
    switch (message.type) {
      case "vote-reply":
        if (!message.granted) return;
        if (
          disk.hardState.term < message.term ||
          (disk.hardState.term === message.term && disk.hardState.vote !== message.to)
        ) {
          throw new Violation("a vote is durable before it is given", `${node.id} to ${message.to} in ${message.term}`);
        }
        this.#elections.voted(node.id, message.term, message.to);
        return;
      case "append-reply": {
        const { match } = message;
        // One of a term that is over may speak of what a new leader had cut off in the same sync. Nobody is misled: whoever
        // was elected since had to have it, if this node's vote was needed, and if not, that leader leads no more.
        if (message.term !== state.term) return;
        if (match === 0 || match <= disk.snapshot.point.index || match > state.log.last) return;
        const term = termAt(state.log, match);
        if (term !== undefined && disk.termAt(match) !== term && match > disk.base.index) {
          throw new Violation("entries are durable before they are acknowledged", `${node.id} entry ${match}`);
        }
        return;
      }
      case "append":
        if (this.#elections.leaderOf(message.term) !== node.id) {
          throw new Violation("only the leader appends", `${node.id} in ${message.term}`);
        }
        return;
      default:
    }
  }

  /** A node comes up with what its disk holds. */
  started(node: Watched, state: RaftState): void {
    if (state.commit > this.commit) throw new Violation("a snapshot holds committed entries only", node.id);
    if (node.wasDamaged) return;
    // An index that was acknowledged cannot be checked here without knowing to whom; leader completeness does it.
    if (state.term < node.disk.hardState.term)
      throw new Violation("terms never go back", `${node.id} across a restart`);
  }

  /** A state machine applied entries up to `index`, and its hash is `chain`. */
  applied(id: PeerId, index: Index, chain: number): void {
    if (this.chainAt(index) !== chain) throw new Violation("state machine safety", `${id} at entry ${index}`);
  }

  #elected(node: Watched, state: RaftState): void {
    this.#elections.led(node.id, state.term);
    // Everything committed by leaders of earlier terms is in its log; by log matching, the last such entry stands for all.
    let index = this.commit;
    while (index > 0 && this.committed[index - 1]!.by >= state.term) index--;
    if (index > state.log.base.index && termAt(state.log, index) !== this.committed[index - 1]!.term) {
      throw new Violation("leader completeness", `${node.id} leads term ${state.term} without entry ${index}`);
    }
  }

  #appended(node: Watched, entry: Entry, previousTerm: Term | undefined): void {
    const key = entry.index * TERM_MAX + entry.term;
    const known = this.#entries.get(key);
    const hash = hashOf(entry);
    if (!known) {
      this.#entries.set(key, { hash, previousTerm: previousTerm ?? -1 });
      return;
    }
    const follows = previousTerm === undefined || known.previousTerm === -1 || known.previousTerm === previousTerm;
    if (known.hash !== hash || !follows) {
      throw new Violation(
        "log matching",
        `${node.id} entry ${entry.index} of term ${entry.term} differs from another's`,
      );
    }
  }

  #committed(node: Watched, before: RaftState, after: RaftState, all: ReadonlyMap<PeerId, Watched>): void {
    const until = Math.min(after.commit, this.commit);
    // By log matching, the last one stands for those before it.
    if (until > before.commit && until >= after.log.base.index) {
      const term = termAt(after.log, until);
      if (term !== this.committed[until - 1]!.term) {
        throw new Violation("committed entries never change", `${node.id} entry ${until} is of term ${term}`);
      }
    }
    if (after.commit <= this.commit) return;
    if (after.role !== "leader" && before.role !== "leader") {
      throw new Violation("only a leader commits first", `${node.id} entry ${after.commit}`);
    }
    if (termAt(after.log, after.commit) !== after.term) {
      throw new Violation("a leader counts entries of its own term only", `${node.id} entry ${after.commit}`);
    }
    const configuration = configurationOfState(before);
    const holds = (peer: PeerId) => {
      const other = all.get(peer);
      return other !== undefined && (other.wasDamaged || other.disk.holds(after.commit, after.term));
    };
    if (!isQuorum(configuration, holds) && !isQuorum(configurationOfState(after), holds)) {
      throw new Violation("what is committed is durable on a quorum", `${node.id} entry ${after.commit}`);
    }
    for (let index = this.commit + 1; index <= after.commit; index++) {
      const term = termAt(after.log, index)!;
      const hash = this.#entries.get(index * TERM_MAX + term)?.hash;
      if (hash === undefined) throw new Violation("log matching", `${node.id} committed an entry that nobody appended`);
      this.committed.push({ term, by: after.term, hash, chain: chained(this.chainAt(index - 1), hash) });
    }
  }
}

/** FNV-1a over term and data. */
export function hashOf({ term, data }: Entry): number {
  let hash = (0x811c9dc5 ^ term) | 0;
  hash = Math.imul(hash, 0x01000193);
  for (const byte of data) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

export const chained = (chain: number, hash: number): number =>
  (Math.imul(chain ^ hash, 0x01000193) + 0x9e3779b9) >>> 0;
