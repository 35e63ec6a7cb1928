/** Who proposes commands and asks for reads, of whatever node thinks it can answer; and what has to be true of the answers. */
import type { ConfigurationChange, Index, Input, PeerId } from "../../../src/cluster/raft/types.ts";
import { Violation } from "../base/simulation.ts";
import type { Cluster, Node } from "./cluster.ts";

const UNCOMMITTED_MAX = 60;
/** How long a read may take once nothing is wrong any more. */
const READ_MS_MAX = 1000;

type Read = { readonly node: PeerId; readonly floor: Index; readonly askedAt: number };

export class Clients {
  readonly #cluster: Cluster;
  readonly #input: (node: Node, input: Input) => void;
  readonly #reads = new Map<number, Read>();
  readonly #changes = new Map<number, PeerId>();

  constructor(cluster: Cluster, input: (node: Node, input: Input) => void) {
    this.#cluster = cluster;
    this.#input = input;
  }

  start(): void {
    const { plan, queue, prng } = this.#cluster;
    const again = (mean: number, act: () => void) => {
      if (mean === 0) return;
      const loop = () => {
        act();
        // In the end clients are few, so that who lags can catch up.
        queue.after(prng.clients.wait(this.#cluster.isHealing ? Math.max(mean, 100) : mean), loop);
      };
      queue.after(prng.clients.wait(mean), loop);
    };
    again(plan.proposals, () => this.#propose());
    again(plan.reads, () => this.#read());
  }

  #propose(): void {
    const { clients } = this.#cluster.prng;
    // Whoever thinks it leads is asked, the deposed too.
    const leaders = this.#cluster.leaders();
    if (leaders.length === 0) return;
    const node = clients.pick(leaders);
    const { term, log, commit } = node.state!;
    // As the driver does: who has so much to commit takes no more.
    if (log.last - commit > UNCOMMITTED_MAX) return;
    const commands = Array.from({ length: clients.pick([1, 1, 1, 2, 5]) }, () => this.#command());
    this.#input(node, { type: "propose", term, commands });
  }

  #command(): Uint8Array {
    const { prng, plan } = this.#cluster;
    const bytes = new Uint8Array(5 + prng.clients.below(plan.commandBytesMax));
    bytes[0] = 1;
    new DataView(bytes.buffer).setUint32(1, this.#cluster.nextId());
    return bytes;
  }

  #read(): void {
    const { prng, list, ledger, queue } = this.#cluster;
    const node = prng.clients.pick(list);
    if (!node.state || node.pausedUntil > 0) return;
    const id = this.#cluster.nextId();
    this.#reads.set(id, { node: node.id, floor: ledger.commit, askedAt: queue.now });
    this.#input(node, { type: "read", id });
  }

  readDone(node: Node, id: number, index: Index | undefined): void {
    const { ledger } = this.#cluster;
    const read = this.#reads.get(id);
    // The answer of a leader may come twice, as any message; the first counts.
    if (!read) return;
    this.#reads.delete(id);
    if (index === undefined) return;
    if (index < read.floor) {
      throw new Violation("reads are linearizable", `${node.id} reads at ${index}, ${read.floor} was committed before`);
    }
    if (index > ledger.commit) throw new Violation("reads show what is committed", `${node.id} reads at ${index}`);
  }

  change(node: Node, change: ConfigurationChange): void {
    const id = this.#cluster.nextId();
    this.#changes.set(id, node.id);
    this.#input(node, { type: "change-configuration", id, change });
  }

  changeDone(node: Node, id: number): void {
    if (!this.#changes.delete(id)) throw new Violation("a change is answered once", `${node.id} ${id}`);
  }

  /** Whoever asked this node is not answered. */
  lost(node: Node): void {
    for (const [id, read] of this.#reads) if (read.node === node.id) this.#reads.delete(id);
    for (const [id, asked] of this.#changes) if (asked === node.id) this.#changes.delete(id);
  }

  /** What was asked before faults stopped is lost, maybe; what was asked since is answered. */
  areServed(): boolean {
    const { healedAt = 0, queue } = this.#cluster;
    const asked = [...this.#reads.values()].filter(({ askedAt }) => askedAt > healedAt);
    return asked.every(({ askedAt }) => askedAt > queue.now - READ_MS_MAX);
  }
}
