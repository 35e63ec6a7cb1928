/** Everything bad that happens, each kind on its own schedule, until the world is calm. */
import type { PeerId } from "../../../src/cluster/raft/types.ts";
import type { Prng } from "../base/prng.ts";
import type { Cluster, Node } from "./cluster.ts";
import type { Operator } from "./operator.ts";
import type { FullFault } from "./plan.ts";
import { DIRECTORY, type Processes } from "./processes.ts";

export class Faults {
  readonly #cluster: Cluster;
  readonly #processes: Processes;
  readonly #operator: Operator;

  constructor(cluster: Cluster, processes: Processes, operator: Operator) {
    this.#cluster = cluster;
    this.#processes = processes;
    this.#operator = operator;
  }

  schedule(): void {
    const { plan, queue } = this.#cluster;
    for (const [fault, act] of Object.entries(this.#acts) as [FullFault, (prng: Prng) => void][]) {
      const prng = this.#cluster.prng.faults.fork();
      const mean = plan.faults[fault];
      if (mean === 0) continue;
      const loop = () => {
        if (this.#cluster.calmSince !== undefined) return;
        act(prng);
        queue.after(prng.wait(mean), loop);
      };
      queue.after(prng.wait(mean), loop);
    }
  }

  /** Nothing is wrong any more, nor goes wrong. */
  end(): void {
    const { network, nodes } = this.#cluster;
    network.isCalm = true;
    network.heal();
    for (const node of nodes.values()) {
      node.stalledUntil = node.syncErrorsUntil = node.fullUntil = 0;
      node.disk.capacityBytes = Number.POSITIVE_INFINITY;
      if (node.pausedUntil > 0) this.#processes.resume(node);
      if (!node.life) this.#processes.start(node);
    }
  }

  /** In this order each gets its chance from the seed. */
  readonly #acts: { readonly [fault in FullFault]: (prng: Prng) => void } = {
    crash: (prng) => {
      const all = this.#cluster.members();
      for (const node of prng.chance(0.1) ? all : [prng.pick(all)]) this.#processes.crash(node);
    },
    kill: (prng) => this.#processes.kill(this.#any(prng)),
    close: (prng) => this.#processes.close(this.#any(prng)),
    partition: (prng) => this.#partition(prng),
    unreachable: (prng) => this.#cluster.network.notice(this.#any(prng).id, this.#any(prng).id),
    pause: (prng) => this.#processes.pause(this.#any(prng), prng.wait(this.#cluster.plan.options.electionMs * 4)),
    stall: (prng) => {
      const node = this.#any(prng);
      this.#cluster.note("stall", node);
      node.stalledUntil = this.#cluster.queue.now + prng.wait(this.#cluster.plan.options.diskStallMs * 2);
    },
    syncError: (prng) => {
      const node = this.#any(prng);
      this.#cluster.note("syncError", node);
      node.syncErrorsUntil = this.#cluster.queue.now + prng.wait(50);
    },
    full: (prng) => {
      const node = this.#any(prng);
      this.#cluster.note("full", node);
      node.disk.capacityBytes = node.disk.usedBytes + prng.below(16_384);
      node.fullUntil = this.#cluster.queue.now + prng.wait(500);
      this.#cluster.queue.at(node.fullUntil, () => this.#freeSpace(node));
    },
    rot: (prng) => this.#rot(prng),
    wallJump: (prng) => {
      const node = this.#any(prng);
      this.#cluster.note("wallJump", node);
      node.wallSkewMs += (prng.share() - 0.5) * 86_400_000;
    },
    change: (prng) => this.#operator.change(prng),
    transfer: (prng) => {
      const leader = this.#cluster.leader();
      if (!leader?.life?.consensus) return;
      this.#cluster.note("transfer", leader);
      this.#cluster.touched.add(leader);
      void leader.life.consensus.transferLeadership(prng.chance(0.5) ? undefined : this.#any(prng).id);
    },
  };

  #any(prng: Prng): Node {
    return prng.pick(this.#cluster.members());
  }

  #freeSpace(node: Node): void {
    if (node.fullUntil > this.#cluster.queue.now) return;
    node.disk.capacityBytes = Number.POSITIVE_INFINITY;
  }

  #partition(prng: Prng): void {
    const { network, nodes, plan, queue } = this.#cluster;
    const names = prng.shuffled([...nodes.keys()]);
    if (network.isCut || names.length < 2) return;
    this.#cluster.note("partition");
    const cutBoth = (a: PeerId, b: PeerId) => {
      network.cut(a, b);
      network.cut(b, a);
    };
    const middle = prng.between(1, names.length - 1);
    switch (prng.below(5)) {
      case 0:
        for (const a of names.slice(0, middle)) for (const b of names.slice(middle)) cutBoth(a, b);
        break;
      case 1:
        for (const a of names.slice(0, middle)) for (const b of names.slice(middle)) network.cut(b, a);
        break;
      case 2: {
        const alone = this.#cluster.leader()?.id ?? names[0]!;
        for (const other of names) if (other !== alone) cutBoth(alone, other);
        break;
      }
      case 3: {
        // The leader is heard, and hears nobody.
        const deaf = this.#cluster.leader()?.id ?? names[0]!;
        for (const other of names) if (other !== deaf) network.cut(other, deaf);
        break;
      }
      default:
        for (let i = 0; i < names.length; i++) network.cut(prng.pick(names), prng.pick(names));
    }
    queue.after(prng.wait(plan.options.electionMs * plan.cutElections), () => network.heal());
  }

  /** Bytes of one node's files change, of writes that were known to be durable; it notices when it reads them, at a restart. */
  #rot(prng: Prng): void {
    const nodes = this.#cluster.members().filter(({ life }) => life);
    if (nodes.length === 0 || !this.#operator.canSpareOne()) return;
    const node = prng.pick(nodes);
    const { life } = node;
    const found = node.disk.list(DIRECTORY).catch(() => []);
    void found.then((names) => {
      if (node.life !== life || !this.#operator.canSpareOne()) return;
      const files = names.filter((name) => /\.(segment|snapshot)$/.test(name)).sort();
      if (files.length === 0) return;
      if (!this.#damage(node, `${DIRECTORY}/${prng.pick(files)}`, prng)) return;
      this.#cluster.queue.after(prng.wait(100), () => {
        // The moment at which what it lost would be missed most.
        const leader = this.#cluster.leader();
        if (leader && leader !== node && prng.chance(0.4)) this.#processes.crash(leader);
        if (node.life === life) this.#processes.crash(node);
      });
    });
  }

  /** @returns whether there was anything to damage that somebody relied on */
  #damage(node: Node, path: string, prng: Prng): boolean {
    const bytes = node.disk.peek(path);
    const safe = node.lastWrites.get(path);
    if (bytes.length === 0 || !safe) return false;
    // Mostly where something is written: the rest is zeros.
    const length = prng.pick([1, 1, 16, 512]);
    const end = Math.max(1, Math.min(bytes.length, prng.chance(0.8) ? safe.from : bytes.length) - length);
    const at = prng.chance(0.5) ? Math.max(0, end - prng.below(2_000)) : prng.below(end);
    // A damaged last write can't be told from a torn one, which nobody relied on.
    if (at < safe.to && at + length > safe.from) return false;
    const damaged = bytes.subarray(at, at + length).map((byte) => byte ^ (1 + prng.below(255)));
    node.disk.damage(path, at, new Uint8Array(damaged));
    node.isSuspect = true;
    node.rottedIn = node.life;
    this.#cluster.note("rot", node);
    this.#cluster.line(() => `${node.id} ${path} rots at ${at}, ${length} bytes`);
    return true;
  }
}
