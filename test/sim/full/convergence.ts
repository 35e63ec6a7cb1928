/** The end of a run: no more faults, and everything has to come right within bounds, whatever state they left. */
import { membersOf } from "../../../src/cluster/raft/configuration.ts";
import type { Reader } from "../../../src/model/store.ts";
import { Violation } from "../base/simulation.ts";
import type { Calls, Server } from "./calls.ts";
import type { Client, Keys } from "./clients.ts";
import type { Cluster } from "./cluster.ts";
import type { LeaseBook } from "./leases.ts";
import type { Operator } from "./operator.ts";
import { leased } from "./tables.ts";
import type { Watchers } from "./watchers.ts";

const SETTLE_MS = 180_000;
const FINAL_READS_MS = 30_000;
/** Once faults stop, it is waited for at least so long: for what they still cause. */
const CALM_MS = 500;
/** After the last fault, a lease that nobody keeps alive ends within its time and this. */
const LEASE_SLACK_MS = 15_000;

export type ConvergenceParts = {
  readonly cluster: Cluster;
  readonly operator: Operator;
  readonly watchers: Watchers;
  readonly calls: Calls;
  readonly leases: LeaseBook;
  readonly keys: Keys;
  /** Carries out the next event, if it is due until then. */
  readonly next: (until: number) => boolean;
};

export class Convergence {
  readonly #parts: ConvergenceParts;
  readonly #cluster: Cluster;

  constructor(parts: ConvergenceParts) {
    this.#parts = parts;
    this.#cluster = parts.cluster;
  }

  /** What was asked is answered before the end; `Calls` says which is not. */
  answerCalls(): void {
    this.#runUntil(() => this.#parts.calls.open === 0, Number.POSITIVE_INFINITY);
  }

  /**
   * One leader, whom all members follow, with all that is committed applied; no lease outlives its keepers; and everything
   * that was ever written can be read once more, at every member. A node may still die of what was done to it before, a write
   * that hung and fails now: then all has to come right again.
   */
  settle(reader: Client): void {
    do {
      if (!this.#runUntil(() => this.#isSettled(), this.#cluster.queue.now + SETTLE_MS)) {
        throw new Violation("the cluster converges once faults stop", this.#describe());
      }
    } while (!this.#readAll(reader));
  }

  /** @returns whether all members lived through it */
  #readAll(reader: Client): boolean {
    const servers = this.#members();
    let left = 0;
    for (const server of servers) {
      for (const key of this.#parts.keys.all) {
        left++;
        void reader.read(server, [key]).then(() => left--);
      }
    }
    if (!this.#runUntil(() => left === 0, this.#cluster.queue.now + FINAL_READS_MS)) {
      throw new Violation("the cluster serves once faults stop", this.#describe());
    }
    if (servers.some((server) => this.#cluster.nodes.get(server.id)!.life?.server !== server)) return false;
    for (const { id, store } of servers) this.#parts.watchers.stood(id, store.read());
    return true;
  }

  /** Those of the settled configuration. */
  #members(): Server[] {
    const { configuration } = this.#cluster.leader()!.life!.consensus!.status();
    return [...membersOf(configuration)].map((id) => this.#cluster.nodes.get(id)!.life!.server!);
  }

  #runUntil(isDone: () => boolean, until: number): boolean {
    const { queue } = this.#cluster;
    while (!isDone()) {
      if (queue.now >= until) return false;
      const stop = Math.min(until, queue.now + 20);
      while (this.#parts.next(stop));
      queue.now = Math.max(queue.now, stop);
    }
    return true;
  }

  #isSettled(): boolean {
    const leader = this.#cluster.leader()?.life;
    if (!leader?.consensus || !leader.server || this.#parts.operator.replacing > 0) return false;
    const status = leader.consensus.status();
    const { configuration } = status;
    if (configuration.outgoing.length > 0 || configuration.joining.length > 0) return false;
    for (const id of membersOf(configuration)) {
      const life = this.#cluster.nodes.get(id)?.life;
      if (!life?.server || life.isClosing) return false;
      const own = life.consensus!.status();
      if (own.health !== "ok" || own.leader !== status.id || own.appliedIndex !== status.commitIndex) return false;
    }
    if (this.#cluster.queue.now < this.#cluster.calmSince! + CALM_MS) return false;
    return this.#haveLeasesEnded(leader.server.store.read());
  }

  /** Records that nobody keeps alive vanish; for those that had all their time since the last fault, it is too late. */
  #haveLeasesEnded(reader: Reader): boolean {
    const { leases } = this.#parts;
    const { queue, calmSince } = this.#cluster;
    const held = reader.all(leased).map(({ lease }) => lease);
    const late = held.filter((lease) => leases.isOverdue(lease, queue.now, calmSince! + LEASE_SLACK_MS));
    if (late.length > 0) throw new Violation("a lease that nobody keeps ends", late.join());
    return held.every((lease) => !leases.isLeft(lease));
  }

  #describe(): string {
    const { replacing } = this.#parts.operator;
    return this.#cluster.describe() + (replacing > 0 ? `; ${replacing} being replaced` : "");
  }
}
