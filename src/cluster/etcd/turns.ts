/**
 * Whose turn it is to commit, when several nodes want to at the same time. Commits that meet are safe, but all but one are
 * in vain, and each costs etcd a sync; a node that is far from etcd would lose to nearer ones again and again. So a node
 * that has lost puts a ticket into etcd, and everybody lets the tickets pass in the order that etcd gave them. A commit
 * takes its ticket away in the same transaction, and puts the next one where more waits behind it: under load one node
 * commits after another, and none in vain.
 *
 * This is courtesy, not a lock. A node that ignores it, or dies with a ticket in hand, costs the others a moment.
 */
export class Turns {
  readonly #writer: string;
  /** In etcd's order, as far as it was heard here. */
  readonly #tickets = new Set<string>();
  #ours: string | undefined;
  /** Named for us, and perhaps in etcd already. */
  #coming: string | undefined;
  #count = 0;
  /** Tickets that came to nothing, to be cleared away by our next commit. */
  readonly #stale = new Set<string>();

  constructor(writer: string) {
    this.#writer = writer;
  }

  /** Etcd has told of a ticket. */
  hear(ticket: string, isThere: boolean): void {
    if (!isThere) {
      this.#tickets.delete(ticket);
      this.#stale.delete(ticket);
      return;
    }
    if (this.#tickets.size >= TICKETS_MAX || this.#stale.has(ticket)) return;
    this.#tickets.add(ticket);
    // An earlier one of ours, whose answer was lost.
    const isOld = ticket.startsWith(`${this.#writer}-`) && ticket !== this.#ours && ticket !== this.#coming;
    if (isOld) this.giveUp(ticket);
  }

  /** The ticket that we hold. */
  get ours(): string | undefined {
    return this.#ours;
  }

  /** Whether another node waits for its turn. */
  get othersWait(): boolean {
    return this.#tickets.size > (this.#ours !== undefined && this.#tickets.has(this.#ours) ? 1 : 0);
  }

  /** The ticket that we have to wait for: one before ours, or ours, until it was heard of. */
  get ahead(): string | undefined {
    if (this.#ours !== undefined && !this.#tickets.has(this.#ours)) return this.#ours;
    const [first] = this.#tickets;
    return first === this.#ours ? undefined : first;
  }

  /** Names a ticket, to be put into etcd; it is `hold` that makes it ours. */
  name(): string {
    this.#coming = `${this.#writer}-${++this.#count}`;
    return this.#coming;
  }

  hold(ticket: string | undefined): void {
    this.#ours = ticket;
    this.#coming = undefined;
  }

  /** Nobody waits for this ticket here any longer. */
  giveUp(ticket: string): void {
    this.#tickets.delete(ticket);
    if (ticket === this.#ours) this.#ours = undefined;
    if (this.#stale.size < STALE_MAX) this.#stale.add(ticket);
  }

  /** The tickets that a commit of ours takes away. */
  get spent(): readonly string[] {
    return [...(this.#ours === undefined ? [] : [this.#ours]), ...this.#stale];
  }

  /** A commit took these tickets away, and put the next one of ours. */
  passed(spent: readonly string[], next?: string): void {
    for (const ticket of spent) {
      this.#tickets.delete(ticket);
      this.#stale.delete(ticket);
    }
    this.hold(next);
  }

  /** What was heard may be out of date. */
  reset(): void {
    this.#tickets.clear();
    this.#stale.clear();
    this.#ours = undefined;
  }
}

const TICKETS_MAX = 1024;
/** They go into a commit beside its rows. */
const STALE_MAX = 3;
