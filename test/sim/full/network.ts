/** The network between whole nodes: frames that are lost, doubled, late, out of order; links that are cut, one way or both. */
import { FrameReader } from "../../../src/cluster/node/frame-reader.ts";
import { encodeFrame } from "../../../src/cluster/node/frame-writer.ts";
import type { Frame, Transport } from "../../../src/cluster/node/transport.ts";
import type { PeerId } from "../../../src/cluster/raft/types.ts";
import type { EventQueue } from "../base/event-queue.ts";
import type { Prng } from "../base/prng.ts";
import { Violation } from "../base/simulation.ts";
import type { FullPlan } from "./plan.ts";

type Handlers = Parameters<Transport["listen"]>[0];
/** Runs something as a node's own event: when it is awake, and not after its life ended. */
export type AsNode = (run: () => void) => void;
type End = { readonly handlers: Handlers; readonly asNode: AsNode };

/** What a connection that broke takes to be noticed. */
const NOTICE_MS = 20;

export class Network {
  isCalm = false;
  faults = 0;
  /** Called with every frame that is sent. */
  onSend: (from: PeerId, to: PeerId, frame: Frame) => void = () => {};
  readonly #queue: EventQueue;
  readonly #prng: Prng;
  readonly #plan: FullPlan;
  readonly #ends = new Map<PeerId, End>();
  readonly #blocked = new Set<string>();
  readonly #arrivals = new Map<string, number>();

  constructor(queue: EventQueue, prng: Prng, plan: FullPlan) {
    this.#queue = queue;
    this.#prng = prng;
    this.#plan = plan;
  }

  /** One life's way onto the network. */
  transport(id: PeerId, asNode: AsNode): Transport {
    let end: End | undefined;
    return {
      send: (to, frame) => {
        if (end && this.#ends.get(id) === end) this.#send(id, to, frame);
      },
      listen: (handlers) => {
        end = { handlers, asNode };
        this.#ends.set(id, end);
      },
      close: async () => this.leave(id),
    };
  }

  /** The node is gone: those who talk to it notice. */
  leave(id: PeerId): void {
    if (!this.#ends.delete(id)) return;
    for (const peer of this.#ends.keys()) this.notice(peer, id);
  }

  /** `at` is told that the connection to `peer` broke. */
  notice(at: PeerId, peer: PeerId): void {
    const end = this.#ends.get(at);
    if (!end) return;
    this.#queue.after(this.#prng.wait(NOTICE_MS), () => end.asNode(() => end.handlers.unreachable(peer)));
  }

  get isCut(): boolean {
    return this.#blocked.size > 0;
  }
  cut(from: PeerId, to: PeerId): void {
    this.#blocked.add(`${from} ${to}`);
  }
  heal(): void {
    this.#blocked.clear();
  }

  #send(from: PeerId, to: PeerId, frame: Frame): void {
    this.onSend(from, to, frame);
    const { network, options } = this.#plan;
    const prng = this.#prng;
    const bytes = network.asBytes ? encodeFrame(frame, { from, to }) : undefined;
    const copies = !this.isCalm && prng.chance(network.doubled) ? 2 : 1;
    this.faults += copies - 1;
    for (let i = 0; i < copies; i++) {
      if (!this.isCalm && prng.chance(network.dropped)) {
        this.faults++;
        continue;
      }
      const isLate = !this.isCalm && prng.chance(network.late);
      let at = this.#queue.now + prng.wait(isLate ? options.electionMs : network.delayMs);
      const link = `${from} ${to}`;
      if (network.inOrder) {
        at = Math.max(at, this.#arrivals.get(link) ?? 0);
        this.#arrivals.set(link, at);
      }
      this.#queue.at(at, () => {
        const end = this.#ends.get(to);
        if (!end || this.#blocked.has(link)) {
          if (this.#prng.chance(0.1)) this.notice(from, to);
          return;
        }
        const arrived = bytes ? decoded(bytes, from, to) : frame;
        end.asNode(() => end.handlers.frame(from, arrived));
      });
    }
  }
}

function decoded(bytes: Uint8Array, from: PeerId, to: PeerId): Frame {
  const { frames, refusal } = new FrameReader({ from, to }).read(bytes);
  const [frame] = frames;
  if (refusal !== undefined || frames.length !== 1 || !frame || frame.type === "ping" || frame.type === "pong") {
    throw new Violation("a frame survives the wire", `${from} to ${to}: ${refusal}`);
  }
  return frame;
}
