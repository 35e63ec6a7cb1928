/** Everything bad that happens, each kind on its own schedule, until the world heals. */
import type { ConfigurationChange, PeerId } from "../../../src/cluster/raft/types.ts";
import type { Prng } from "../base/prng.ts";
import type { Clients } from "./clients.ts";
import type { Cluster, Node } from "./cluster.ts";
import type { Driver } from "./driver.ts";
import type { Network } from "./network.ts";
import type { CoreFault } from "./plan.ts";

export type FaultParts = {
  readonly cluster: Cluster;
  readonly driver: Driver;
  readonly network: Network;
  readonly clients: Clients;
};

export class Faults {
  readonly #cluster: Cluster;
  readonly #driver: Driver;
  readonly #network: Network;
  readonly #clients: Clients;

  constructor({ cluster, driver, network, clients }: FaultParts) {
    this.#cluster = cluster;
    this.#driver = driver;
    this.#network = network;
    this.#clients = clients;
  }

  schedule(): void {
    const { prng: all, plan, queue } = this.#cluster;
    for (const [fault, act] of Object.entries(this.#acts) as [CoreFault, (prng: Prng) => void][]) {
      const prng = all.faults.fork();
      const mean = plan.faults[fault];
      if (mean === 0) continue;
      const loop = () => {
        if (this.#cluster.isHealing) return;
        act(prng);
        queue.after(prng.wait(mean), loop);
      };
      queue.after(prng.wait(mean), loop);
    }
  }

  /** Nothing is wrong any more, nor goes wrong. */
  end(): void {
    this.#network.heal();
    for (const node of this.#cluster.list) {
      node.stalledUntil = node.fullUntil = 0;
      if (node.pausedUntil > 0) this.#driver.resume(node);
      if (node.state?.isHalted) this.#driver.lose(node);
      this.#driver.restart(node);
    }
  }

  /** The first moments of a leadership are delicate: a change that comes then meets what the last leader left behind. */
  elected(node: Node): void {
    const { plan, isHealing } = this.#cluster;
    const prng = this.#cluster.prng.faults;
    if (plan.faults.change === 0 || isHealing || !prng.chance(0.5)) return;
    this.#cluster.later(node, prng.wait(plan.network.delayMs * 2), () => this.#change(prng, node));
  }

  /** In this order each gets its chance from the seed. */
  readonly #acts: { readonly [fault in Exclude<CoreFault, "drift">]: (prng: Prng) => void } = {
    crash: (prng) => {
      const { list } = this.#cluster;
      this.#fell(prng.chance(0.1) ? list : [prng.pick(list)], prng);
    },
    partition: (prng) => this.#partition(prng),
    pause: (prng) => {
      const node = prng.pick(this.#cluster.list);
      if (!node.state || node.pausedUntil > 0) return;
      this.#cluster.note("pause", node);
      const { queue, plan } = this.#cluster;
      const { life } = node;
      node.pausedUntil = queue.now + prng.wait(plan.options.electionMs * 3);
      queue.at(node.pausedUntil, () => {
        if (node.life === life) this.#driver.resume(node);
      });
    },
    stall: (prng) => {
      const node = prng.pick(this.#cluster.list);
      this.#cluster.note("stall", node);
      node.stalledUntil = this.#cluster.queue.now + prng.wait(this.#cluster.plan.options.diskStallMs * 2);
    },
    full: (prng) => {
      const node = prng.pick(this.#cluster.list);
      this.#cluster.note("full", node);
      node.fullUntil = this.#cluster.queue.now + prng.wait(300);
    },
    halt: (prng) => this.#halt(prng),
    damage: (prng) => this.#damage(prng),
    change: (prng) => this.#change(prng),
    transfer: (prng) => {
      const leader = this.#cluster.leader();
      if (!leader) return;
      this.#cluster.note("transfer", leader);
      const to = prng.chance(0.5) ? undefined : prng.pick(this.#cluster.list).id;
      this.#driver.input(leader, { type: "transfer", to });
    },
    unreachable: (prng) => {
      const node = prng.pick(this.#cluster.list);
      const peer = prng.pick(this.#cluster.list);
      if (node === peer || !node.state || node.pausedUntil > 0) return;
      this.#cluster.note("unreachable", node);
      this.#driver.input(node, { type: "unreachable", peer: peer.id });
    },
    earlyTick: (prng) => {
      const node = prng.pick(this.#cluster.list);
      if (!node.state || node.pausedUntil > 0) return;
      this.#driver.input(node, { type: "tick" });
    },
  };

  /** They crash, and come back. */
  #fell(victims: readonly Node[], prng: Prng): void {
    if (this.#cluster.isHealing) return;
    for (const node of victims) {
      this.#driver.crash(node);
      this.#cluster.queue.after(prng.wait(this.#cluster.plan.downMs), () => this.#driver.restart(node));
    }
  }

  #partition(prng: Prng): void {
    const cluster = this.#cluster;
    const network = this.#network;
    if (cluster.isHealing || network.isCut || cluster.list.length < 2) return;
    cluster.note("partition");
    const names = prng.shuffled(cluster.list.map(({ id }) => id));
    switch (prng.below(5)) {
      case 0: {
        // Two sides.
        const middle = prng.between(1, names.length - 1);
        for (const a of names.slice(0, middle)) for (const b of names.slice(middle)) network.cutBoth(a, b);
        break;
      }
      case 1: {
        // One side is heard by the other and does not hear it.
        const middle = prng.between(1, names.length - 1);
        for (const a of names.slice(0, middle)) for (const b of names.slice(middle)) network.cut(b, a);
        break;
      }
      case 2: {
        // The leader is alone.
        const alone = cluster.leader()?.id ?? names[0]!;
        for (const other of names) if (other !== alone) network.cutBoth(alone, other);
        break;
      }
      case 3: {
        // A ring: everybody sees two others, no two the same.
        for (const [i, a] of names.entries()) {
          for (const [j, b] of names.entries()) {
            const distance = Math.abs(i - j);
            if (distance > 1 && distance < names.length - 1) network.cut(a, b);
          }
        }
        break;
      }
      default: {
        // Single links, one way.
        for (let i = 0; i < names.length; i++) network.cut(prng.pick(names), prng.pick(names));
      }
    }
    const { options, cutElections } = cluster.plan;
    cluster.queue.after(prng.wait(options.electionMs * cutElections), () => network.heal());
  }

  /** The disk fails for good; some time later somebody starts the node anew. */
  #halt(prng: Prng): void {
    const { queue } = this.#cluster;
    const node = prng.pick(this.#cluster.list);
    if (!node.state || node.state.isHalted || node.pausedUntil > 0) return;
    this.#cluster.note("halt", node);
    queue.cancel(node.syncing);
    node.syncing = undefined;
    node.disk.crash(prng);
    this.#driver.input(node, { type: "halt" });
    const { life } = node;
    queue.after(prng.wait(1000), () => {
      if (node.life !== life) return;
      this.#driver.lose(node);
      this.#driver.restart(node);
    });
  }

  /** One node at a time loses the end of its log to rot, and comes back knowing it, or not how much. */
  #damage(prng: Prng): void {
    const { list, plan, queue } = this.#cluster;
    const node = prng.pick(list);
    if (list.some(({ state, wasDamaged }) => !state || wasDamaged)) return;
    // With two voters or fewer, nobody else may hold what is lost here.
    const configurations = list.flatMap(({ state }) => state?.configurations.map((at) => at.configuration) ?? []);
    if (plan.voters < 3 || configurations.some(({ voters }) => voters.length > 0 && voters.length < 3)) return;
    this.#driver.crash(node);
    this.#cluster.note("damage", node);
    node.recoverThrough = Math.max(node.disk.last, node.disk.snapshot.point.index);
    const floor = Math.max(node.disk.base.index, node.disk.snapshot.point.index);
    if (node.disk.last > floor) node.disk.damage(prng.between(floor, node.disk.last));
    queue.after(prng.wait(200), () => this.#driver.restart(node));
  }

  #change(prng: Prng, leader = this.#cluster.leader()): void {
    const { list, plan, queue, isHealing } = this.#cluster;
    // Taking voters away while one can't vote may leave too few.
    if (!leader || isHealing || list.some(({ wasDamaged }) => wasDamaged)) return;
    this.#cluster.note("change", leader);
    const change: { [peer: PeerId]: ConfigurationChange[PeerId] } = {};
    for (let i = prng.pick([1, 1, 2, 3, 5]); i > 0; i--) {
      change[prng.pick(list).id] = prng.pick(["voter", "voter", "voter", "learner", "removed"]);
    }
    this.#clients.change(leader, change);
    // Trouble on the way of a change is what its rules are for.
    const soon = prng.wait(plan.network.delayMs);
    if (plan.faults.partition > 0 && prng.chance(0.3)) queue.after(soon, () => this.#partition(prng));
    if (plan.faults.crash > 0 && prng.chance(0.2)) queue.after(soon, () => this.#fell([leader], prng));
  }
}
