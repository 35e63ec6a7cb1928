/** Who changes the cluster's membership, at a whim and because a node's log is lost: another takes its place, under another name. */
import type { ConsensusStatus } from "../../../src/cluster/consensus.ts";
import { configurationOf } from "../../../src/cluster/raft/configuration.ts";
import type { ConfigurationChange, PeerId } from "../../../src/cluster/raft/types.ts";
import type { Prng } from "../base/prng.ts";
import type { Cluster, Node } from "./cluster.ts";

const REPLACED_MAX = 4;

export class Operator {
  readonly #cluster: Cluster;
  readonly #start: (node: Node) => void;
  #replaced = 0;
  #replacing = 0;

  constructor(cluster: Cluster, start: (node: Node) => void) {
    this.#cluster = cluster;
    this.#start = start;
  }

  /** Nodes whose place is not taken yet. */
  get replacing(): number {
    return this.#replacing;
  }

  replace(node: Node): void {
    if (node.isReplaced) return;
    const cluster = this.#cluster;
    node.isReplaced = true;
    this.#replaced++;
    this.#replacing++;
    cluster.note("replaced", node);
    const fresh = cluster.add(configurationOf([]), cluster.prng.faults);
    this.#start(fresh);
    void this.#changeUntilDone({ [node.id]: "removed", [fresh.id]: "voter" }).then(() => {
      this.#replacing--;
    });
  }

  async #changeUntilDone(change: ConfigurationChange): Promise<void> {
    while (!this.#cluster.isEnded) {
      await this.#cluster.sleep(200);
      const leader = this.#cluster.leader();
      const consensus = leader?.life?.consensus;
      if (!leader || !consensus) continue;
      this.#cluster.touched.add(leader);
      if ((await consensus.changeConfiguration(change)).ok) return;
    }
  }

  /** Asks for any change, while none is needed. */
  change(prng: Prng): void {
    const leader = this.#cluster.leader();
    const nodes = this.#cluster.members();
    if (!leader?.life?.consensus || this.#replacing > 0 || nodes.some(({ isSuspect }) => isSuspect)) return;
    this.#cluster.note("change", leader);
    const change: { [peer: PeerId]: ConfigurationChange[PeerId] } = {};
    for (let i = prng.pick([1, 1, 2, 3]); i > 0; i--) {
      change[prng.pick(nodes).id] = prng.pick(["voter", "voter", "voter", "learner", "removed"]);
    }
    this.#cluster.line(() => `${leader.id} is asked for ${JSON.stringify(change)}`);
    this.#cluster.touched.add(leader);
    void leader.life.consensus.changeConfiguration(change);
  }

  /** The nodes that no one doubts are enough to make up for one whose disk rots, and the next in line is to be had. */
  canSpareOne(): boolean {
    if (this.#replacing > 0 || this.#replaced >= REPLACED_MAX) return false;
    for (const { life, isSuspect } of this.#cluster.members()) {
      const status = life?.consensus?.status();
      if (isSuspect || !status) return false;
      const { voters, outgoing } = status.configuration;
      if (outgoing.length > 0 || (voters.length > 0 && voters.length < 3)) return false;
    }
    return this.#cluster.leader() !== undefined;
  }

  /** After a restart, a node whose disk had rotted holds again what its leader has committed: nobody doubts it any more. */
  trustAgain(node: Node, status: ConsensusStatus): void {
    if (node.rottedIn === node.life) return;
    const leader = this.#cluster.leader()?.life?.consensus?.status();
    if (!leader || leader.term !== status.term || status.leader !== leader.id) return;
    if (status.appliedIndex < leader.commitIndex || status.lastIndex < leader.commitIndex) return;
    node.isSuspect = false;
    this.#cluster.note("recovered", node);
  }
}
