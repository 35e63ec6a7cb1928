/** The network between cores: messages that are lost, doubled, late, out of order; links that are cut, one way or both. */
import type { Message, PeerId } from "../../../src/cluster/raft/types.ts";
import { Violation } from "../base/simulation.ts";
import type { Cluster, Node } from "./cluster.ts";

export class Network {
  readonly #cluster: Cluster;
  readonly #deliver: (node: Node, message: Message) => void;
  /** `from to` pairs that don't get through. */
  readonly #blocked = new Set<string>();
  readonly #arrivals = new Map<string, number>();

  constructor(cluster: Cluster, deliver: (node: Node, message: Message) => void) {
    this.#cluster = cluster;
    this.#deliver = deliver;
  }

  get isCut(): boolean {
    return this.#blocked.size > 0;
  }
  cut(from: PeerId, to: PeerId): void {
    this.#blocked.add(`${from} ${to}`);
  }
  cutBoth(a: PeerId, b: PeerId): void {
    this.cut(a, b);
    this.cut(b, a);
  }
  heal(): void {
    this.#blocked.clear();
  }

  /** Whether what is sent now does not arrive. */
  loses(from: PeerId, to: PeerId): boolean {
    const { isHealing, prng, plan } = this.#cluster;
    if (isHealing) return false;
    return this.#blocked.has(`${from} ${to}`) || prng.network.chance(plan.network.dropped);
  }

  send(node: Node, message: Message): void {
    const cluster = this.#cluster;
    cluster.ledger.sent(node, node.state!, message);
    const receiver = cluster.nodes.get(message.to);
    if (!receiver) throw new Violation("messages go to nodes", message.to);
    const { network, options } = cluster.plan;
    const prng = cluster.prng.network;
    const copies = !cluster.isHealing && prng.chance(network.doubled) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      if (this.loses(message.from, message.to)) {
        cluster.faults++;
        continue;
      }
      const isLate = !cluster.isHealing && prng.chance(network.late);
      let at = cluster.queue.now + prng.wait(isLate ? options.electionMs : network.delayMs);
      if (network.inOrder) {
        const link = `${message.from} ${message.to}`;
        at = Math.max(at, this.#arrivals.get(link) ?? 0);
        this.#arrivals.set(link, at);
      }
      cluster.queue.at(at, () => cluster.whenAwake(receiver, receiver.life, () => this.#deliver(receiver, message)));
    }
    cluster.faults += copies - 1;
  }
}
