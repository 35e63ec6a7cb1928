import { unreachable } from "../../lib/assert.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { ConsensusError } from "../consensus.ts";
import { termAt } from "../raft/log.ts";
import type { RaftState } from "../raft/state.ts";
import type { Index, Ms, PeerId, ProposalRefusal, Term } from "../raft/types.ts";

/** Callers of either kind that wait at once; more are turned away. */
export const WAITERS_MAX = 64;
const CHANGE_MS_MAX = 10_000;
const TRANSFER_MS_MAX = 5000;

export type Settle = (result: Result<void, ConsensusError>) => void;

/** Those who asked for another configuration, or another leader, and wait to see it. */
export class Waiters {
  #nextId = 1;
  /** Not yet taken up by the core. */
  readonly #asked = new Map<number, Settle>();
  #changes: { readonly index: Index; readonly term: Term; readonly until: Ms; readonly settle: Settle }[] = [];
  #transfers: { readonly until: Ms; readonly settle: Settle }[] = [];

  get waiting(): number {
    return this.#asked.size + this.#changes.length + this.#transfers.length;
  }

  /** @returns the number to ask the core with */
  askChange(settle: Settle): number {
    const id = this.#nextId++;
    this.#asked.set(id, settle);
    return id;
  }

  /** The core made an entry of it, or refused. */
  changeTaken(id: number, index: Index | ProposalRefusal, state: RaftState, now: Ms): void {
    const settle = this.#asked.get(id);
    this.#asked.delete(id);
    if (!settle) return;
    if (typeof index === "string") settle(fail(refused(reasonOf(index, state.leader))));
    else if (index <= state.commit) settle(ok(undefined));
    else this.#changes.push({ index, term: state.term, until: now + CHANGE_MS_MAX, settle });
  }

  awaitTransfer(now: Ms, settle: Settle): void {
    this.#transfers.push({ until: now + TRANSFER_MS_MAX, settle });
  }

  /** Answers those who can be answered. */
  look({ id, role, leader, log, transfer }: RaftState, applied: Index, now: Ms): void {
    this.#changes = this.#changes.filter(({ index, term, until, settle }) => {
      if (termAt(log, index) !== term) settle(fail(unavailable("Another leader took over; the change may be lost.")));
      else if (applied >= index) settle(ok(undefined));
      else if (now >= until) settle(fail(unavailable("No quorum confirmed the change in time; it may still be made.")));
      else return true;
      return false;
    });
    this.#transfers = this.#transfers.filter(({ until, settle }) => {
      const leadsOn = role === "leader" && !transfer;
      if (leader !== undefined && leader !== id) settle(ok(undefined));
      else if (leadsOn || now >= until) settle(fail(unavailable("The other node did not take over in time.")));
      else return true;
      return false;
    });
  }

  close(error: ConsensusError): void {
    const all = [...this.#asked.values(), ...[...this.#changes, ...this.#transfers].map(({ settle }) => settle)];
    this.#asked.clear();
    this.#changes = [];
    this.#transfers = [];
    for (const settle of all) settle(fail(error));
  }
}

export const unavailable = (message: string): ConsensusError => ({ reason: "unavailable", message });
export const refused = (message: string): ConsensusError => ({ reason: "refused", message });

export const notLeader = (leader: PeerId | undefined): string =>
  leader === undefined ? "There is no leader now." : `Node ${leader} leads, and has to be asked.`;

function reasonOf(refusal: ProposalRefusal, leader: PeerId | undefined): string {
  switch (refusal) {
    case "not-leader":
      return notLeader(leader);
    case "change-pending":
      return "Another change of the membership is under way.";
    case "not-ready":
      return "This node leads only just now; try again.";
    case "invalid":
      return "It would leave no voter, or too many.";
    default:
      return unreachable(refusal);
  }
}
