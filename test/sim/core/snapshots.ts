/** A node's snapshots: made when they are due, and sent whole to peers that lag. */
import type { Input, PeerId } from "../../../src/cluster/raft/types.ts";
import type { Cluster, Node } from "./cluster.ts";
import type { ModelSnapshot } from "./model-disk.ts";
import type { Network } from "./network.ts";

export class Snapshots {
  readonly #cluster: Cluster;
  readonly #network: Network;
  readonly #input: (node: Node, input: Input) => void;

  constructor(cluster: Cluster, network: Network, input: (node: Node, input: Input) => void) {
    this.#cluster = cluster;
    this.#network = network;
    this.#input = input;
  }

  makeIfDue(node: Node): void {
    const { plan, prng } = this.#cluster;
    const { snapshotEntries } = plan;
    if (snapshotEntries === 0 || node.snapshotting) return;
    if (node.applied < node.disk.snapshot.point.index + snapshotEntries) return;
    node.snapshotting = true;
    this.#make(node, () => {
      node.snapshotting = false;
      const { snapshots } = node.disk;
      const kept = plan.keepsOlder ? snapshots.at(-2) : snapshots.at(-1);
      if (!kept) return;
      node.disk.compact(kept.point.index, prng.disk);
      this.#input(node, { type: "compacted", point: kept.point });
    });
  }

  /** Writes the state as it is now; durable a little later. */
  #make(node: Node, done: () => void): void {
    const { plan, prng, ledger } = this.#cluster;
    const { applied: index, chain, configuration } = node;
    const term = ledger.committed[index - 1]?.term ?? 0;
    this.#cluster.later(node, prng.disk.wait(plan.disk.syncMs * 5), () => {
      node.disk.keepSnapshot({ point: { index, term, configuration }, chain });
      done();
    });
  }

  send(node: Node, to: PeerId): void {
    const { plan, queue, nodes } = this.#cluster;
    if (node.disk.snapshots.length === 0) {
      if (node.applied === 0) this.#failed(node, to);
      else this.#make(node, () => this.send(node, to));
      return;
    }
    const { snapshot } = node.disk;
    const { term } = node.state!;
    const receiver = nodes.get(to)!;
    const { life } = receiver;
    const prng = this.#cluster.prng.network;
    const delay = () => prng.wait(plan.network.delayMs * 4);
    if (this.#network.loses(node.id, to)) {
      this.#failed(node, to);
      return;
    }
    queue.after(delay(), () => {
      if (receiver.life !== life || this.#network.loses(node.id, to)) {
        this.#failed(node, to);
        return;
      }
      queue.after(prng.wait(plan.disk.syncMs), () => {
        if (receiver.life !== life) {
          this.#failed(node, to);
          return;
        }
        this.#cluster.whenAwake(receiver, life, () => this.#receive(receiver, node.id, term, snapshot));
        const { index } = snapshot.point;
        this.#cluster.later(node, delay(), () => this.#input(node, { type: "snapshot-sent", to, index }));
      });
    });
  }

  /** The file is whole and durable here, and becomes this node's snapshot only if the core wants it. */
  #receive(node: Node, from: PeerId, term: number, snapshot: ModelSnapshot): void {
    node.received = snapshot;
    this.#input(node, { type: "snapshot-received", from, term, point: snapshot.point });
    node.received = undefined;
  }

  #failed(node: Node, to: PeerId): void {
    this.#cluster.later(node, this.#cluster.prng.network.wait(50), () =>
      this.#input(node, { type: "snapshot-sent", to, index: undefined }),
    );
  }
}
