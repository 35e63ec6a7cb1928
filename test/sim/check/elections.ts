/** Who was seen to lead, and to vote for whom: election safety (figure 3 of the Raft paper), and the vote that it rests on. */
import type { PeerId, Term } from "../../../src/cluster/raft/types.ts";
import { Violation } from "../base/simulation.ts";

export class Elections {
  readonly #leaders = new Map<Term, PeerId>();
  /** By voter and term. */
  readonly #votes = new Map<string, PeerId>();

  leaderOf(term: Term): PeerId | undefined {
    return this.#leaders.get(term);
  }

  /** It leads that term, and so has voted for itself. */
  led(id: PeerId, term: Term): void {
    const known = this.#leaders.get(term);
    if (known !== undefined && known !== id) {
      throw new Violation("election safety", `${known} and ${id} both lead term ${term}`);
    }
    this.#leaders.set(term, id);
    this.voted(id, term, id);
  }

  voted(voter: PeerId, term: Term, candidate: PeerId): void {
    const key = `${voter} ${term}`;
    const known = this.#votes.get(key);
    if (known !== undefined && known !== candidate) {
      throw new Violation("one vote a term", `${voter} voted for ${known} and ${candidate} in ${term}`);
    }
    this.#votes.set(key, candidate);
  }
}
