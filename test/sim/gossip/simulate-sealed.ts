/**
 * As `simulate.ts`, with all that travels encoded and sealed: endpoints with keyrings, in a network that loses frames. For what
 * depends on keys; it costs several times as much.
 */
import { DEFAULT_OPTIONS, type GossipEvent } from "../../../src/cluster/gossip/types.ts";
import { GossipEndpoint } from "../../../src/cluster/node/gossip-endpoint.ts";
import type { Ring } from "../../../src/cluster/node/gossip-keyring.ts";
import { type Secret, silentLog } from "../../../src/lib/log.ts";
import { EventQueue } from "../base/event-queue.ts";
import { Prng } from "../base/prng.ts";
import { Trace } from "../base/trace.ts";

export type SealedNode = {
  readonly id: string;
  readonly address: string;
  endpoint: GossipEndpoint | undefined;
  /** What it kept on its disk. */
  ring: Ring | undefined;
  readonly refusals: Map<string, number>;
  readonly deaths: string[];
};

export class SealedWorld {
  readonly queue = new EventQueue();
  readonly trace = new Trace();
  readonly nodes: SealedNode[] = [];
  readonly chance: Prng;
  readonly #network: Prng;
  readonly #loss: number;
  readonly #secret: Secret;
  readonly #byAddress = new Map<string, SealedNode>();
  frames = 0;

  constructor(seed: number, loss: number, secret: Secret) {
    this.chance = new Prng(seed);
    this.#network = this.chance.fork();
    this.#loss = loss;
    this.#secret = secret;
  }

  /** A node that knows `ring`, the secret unless it has none, and the first node's address. */
  start(ring: Ring | undefined, hasSecret: boolean, former?: SealedNode): SealedNode {
    const index = this.nodes.length;
    const node: SealedNode = former ?? {
      id: `n${index}`,
      address: `10.0.${index >> 8}.${index & 255}:7946`,
      endpoint: undefined,
      ring,
      refusals: new Map(),
      deaths: [],
    };
    if (!former) {
      this.nodes.push(node);
      this.#byAddress.set(node.address, node);
    }
    const { id, address } = node;
    const endpoint: GossipEndpoint = new GossipEndpoint(
      {
        clusterId: "simulated",
        id,
        address,
        incarnation: 1_700_000_000_000 + Math.floor(this.queue.now),
        facts: { zone: "a" },
        seeds: this.nodes.slice(0, 3).flatMap((seed) => (seed.address === address ? [] : [seed.address])),
        joinSecret: hasSecret ? this.#secret : undefined,
        ring,
        options: DEFAULT_OPTIONS,
        random: this.chance,
        log: silentLog,
        now: Math.floor(this.queue.now),
      },
      {
        send: (to, frame) => this.#transmit(address, to, frame),
        event: (event: GossipEvent) => {
          if (event.type === "status" && event.status === "dead") node.deaths.push(event.id);
        },
        ringChanged: (changed) => {
          node.ring = changed;
        },
        refused: (reason) => void node.refusals.set(reason, (node.refusals.get(reason) ?? 0) + 1),
      },
    );
    node.endpoint = endpoint;
    const wake = () => {
      if (node.endpoint !== endpoint) return;
      if (endpoint.deadline() <= this.queue.now) endpoint.input({ type: "tick" }, this.queue.now);
      // Looked at often enough that no deadline is met much too late.
      this.queue.at(Math.min(endpoint.deadline(), this.queue.now + 20), wake);
    };
    wake();
    return node;
  }

  run(untilMs: number): void {
    while (this.queue.step(untilMs));
    this.queue.now = Math.max(this.queue.now, untilMs);
  }

  /** Runs until that holds; how long it took. @throws when it does not within `limitMs` */
  until(holds: () => boolean, limitMs: number): number {
    const from = this.queue.now;
    while (!holds()) {
      if (this.queue.now - from > limitMs) throw new Error(`not within ${limitMs} ms`);
      this.run(this.queue.now + 100);
    }
    return this.queue.now - from;
  }

  isOne(): boolean {
    const running = this.nodes.filter((node) => node.endpoint);
    return running.every((node) =>
      running.every((other) =>
        node.endpoint!.state.members.some((member) => member.id === other.id && member.status === "alive"),
      ),
    );
  }

  #transmit(from: string, to: string, frame: Uint8Array): void {
    this.frames++;
    const node = this.#byAddress.get(to);
    if (!node || this.#network.chance(this.#loss)) return;
    this.queue.after(0.1 + this.#network.share() * 2, () => {
      this.trace.mix(this.queue.now);
      this.trace.mix(frame.length);
      node.endpoint?.receive(frame, from, this.queue.now);
    });
  }
}
