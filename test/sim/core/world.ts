/**
 * Whole clusters of `src/cluster/raft/step.ts` alone, on model disks and a model network, in virtual time. No promises and no
 * bytes, so that it is fast: the place to try many schedules on the protocol itself. What drives the core in earnest
 * (runtime, log files, store) is simulated in `../full`.
 */
import { membersOf } from "../../../src/cluster/raft/configuration.ts";
import { configurationOfState } from "../../../src/cluster/raft/state.ts";
import type { Index } from "../../../src/cluster/raft/types.ts";
import { asViolation, type Outcome, Violation } from "../base/simulation.ts";
import { Trace } from "../base/trace.ts";
import { Clients } from "./clients.ts";
import { Cluster, type Node } from "./cluster.ts";
import { Driver } from "./driver.ts";
import { Faults } from "./faults.ts";
import { Network } from "./network.ts";
import type { CorePlan } from "./plan.ts";
import { Snapshots } from "./snapshots.ts";

const SETTLE_MS = 300_000;

/** Runs one seed to its end. Never throws for what the core did: that is the outcome's violation. */
export function runCore(seed: number, plan: CorePlan, print?: (line: string) => void): Outcome {
  const world = new World(new Cluster(seed, plan, new Trace(print)));
  let violation: Violation | undefined;
  try {
    world.run();
  } catch (error) {
    violation = asViolation(error);
  }
  const { trace, faults } = world.cluster;
  return { violation, events: trace.events, faults, histories: 0, unknown: 0, hash: trace.hash };
}

class World {
  readonly cluster: Cluster;
  readonly #driver: Driver;
  readonly #network: Network;
  readonly #snapshots: Snapshots;
  readonly #clients: Clients;
  readonly #faults: Faults;

  constructor(cluster: Cluster) {
    this.cluster = cluster;
    this.#driver = new Driver(cluster, {
      send: (node, message) => this.#network.send(node, message),
      sendSnapshot: (node, to) => this.#snapshots.send(node, to),
      applied: (node) => this.#snapshots.makeIfDue(node),
      readDone: (node, id, index) => this.#clients.readDone(node, id, index),
      changeDone: (node, id) => this.#clients.changeDone(node, id),
      elected: (node) => this.#faults.elected(node),
      lost: (node) => this.#clients.lost(node),
    });
    const driver = this.#driver;
    this.#network = new Network(cluster, (node, message) => driver.deliver(node, message));
    this.#snapshots = new Snapshots(cluster, this.#network, (node, input) => driver.input(node, input));
    this.#clients = new Clients(cluster, (node, input) => driver.input(node, input));
    this.#faults = new Faults({ cluster, driver, network: this.#network, clients: this.#clients });
  }

  run(): void {
    const { cluster } = this;
    for (const node of cluster.list) this.#driver.start(node);
    this.#clients.start();
    this.#faults.schedule();
    while (cluster.trace.events < cluster.plan.events && this.#next(Number.POSITIVE_INFINITY));
    cluster.note("heal");
    cluster.healedAt = cluster.queue.now;
    this.#faults.end();
    this.#settle();
  }

  #next(until: number): boolean {
    if (!this.cluster.queue.step(until)) return false;
    this.cluster.trace.events++;
    return true;
  }

  /** No more faults, and everything has to come right. */
  #settle(): void {
    const { queue, ledger, list } = this.cluster;
    const until = queue.now + SETTLE_MS;
    const target = ledger.commit;
    while (queue.now < until) {
      if (this.#isSettled(target)) return;
      const stop = queue.now + 20;
      while (this.#next(stop));
      queue.now = Math.max(queue.now, stop);
    }
    throw new Violation("the cluster converges once faults stop", list.map(described).join("; "));
  }

  /** One leader; everyone in its configuration has what is committed, and something new was. */
  #isSettled(target: Index): boolean {
    const { ledger, nodes } = this.cluster;
    const leader = this.cluster.leader();
    if (!leader || ledger.commit <= target) return false;
    const { state } = leader;
    const configuration = configurationOfState(state!);
    if (configuration.outgoing.length > 0 || state!.commit < target + 1) return false;
    for (const id of membersOf(configuration)) {
      const node = nodes.get(id)!;
      if (!node.state || node.state.term !== state!.term || node.applied <= target || node.wasDamaged) return false;
      if (node.state.leader !== leader.id) return false;
    }
    return this.#clients.areServed();
  }
}

function described({ id, state, applied }: Node): string {
  if (!state) return `${id} down`;
  const { voters, outgoing, learners, joining } = configurationOfState(state);
  const lists = `[${voters}|${outgoing}|${learners}|${joining}]`;
  return `${id} ${state.role} term ${state.term} leader ${state.leader ?? "-"} commit ${state.commit} applied ${applied} log ${state.log.base.index}..${state.log.last} ${lists}`;
}
