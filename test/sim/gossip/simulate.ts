/**
 * A cluster's gossip under one seed: the real core, a network that loses, delays, doubles, reorders and splits, processes that
 * crash, restart and starve, and virtual time. The same options give the same run, to the last message.
 *
 * A starved process gets the processor for a moment, then not for seconds: what arrives meanwhile waits in its socket, and when
 * it runs again its timers come first and the messages after them, as in every event loop.
 */
import { messageBytes } from "../../../src/cluster/gossip/codec.ts";
import { findMember } from "../../../src/cluster/gossip/members.ts";
import { deadline, type GossipState, initialState } from "../../../src/cluster/gossip/state.ts";
import { step } from "../../../src/cluster/gossip/step.ts";
import {
  DEFAULT_OPTIONS,
  type GossipEvent,
  type Input,
  type Message,
  type Options,
  type Status,
} from "../../../src/cluster/gossip/types.ts";
import { ENVELOPE_BYTES, SEAL_BYTES } from "../../../src/cluster/node/gossip-frames.ts";
import { EventQueue } from "../base/event-queue.ts";
import { Prng } from "../base/prng.ts";
import { Trace } from "../base/trace.ts";

/** From a span, evenly. */
export type Span = readonly [from: number, to: number];

export type Starvation = {
  /** ms without the processor, and then with it. */
  readonly awayMs: Span;
  readonly runMs: Span;
};

export type SimulationOptions = {
  readonly seed: number;
  readonly nodes: number;
  readonly durationMs: number;
  /** Shares of frames, 0 to 1. */
  readonly loss?: number;
  readonly duplicates?: number;
  readonly delayMs?: Span;
  /** Each node's `load` changes this often; never when absent. */
  readonly loadEveryMs?: number;
  readonly gossip?: Partial<Options>;
  /** Called before the first event: starts nodes, and plans what happens to them. By default all start within a second. */
  readonly script?: (world: World) => void;
  readonly print?: (line: string) => void;
};

const SOCKET_FRAMES_MAX = 1000;
const TYPES = ["ping", "ack", "ping-request", "nack", "gossip", "sync", "digest", "want", "records"];

export type SimNode = {
  readonly index: number;
  readonly id: string;
  readonly address: string;
  state: GossipState | undefined;
  /** When the timer that is set fires. */
  timerAt: number;
  lives: number;
  /** Of this life. */
  firstIncarnation: number;
  starvation: Starvation | undefined;
  isAway: boolean;
  inbox: Message[];
  /** Nodes of different groups do not hear each other. */
  group: number;
  sentBytes: number;
  sentFrames: number;
};

type Crash = {
  readonly node: number;
  readonly at: number;
  first: number;
  everywhere: number;
  readonly deaf: Set<number>;
};

export class World {
  readonly queue = new EventQueue();
  readonly nodes: SimNode[] = [];
  readonly trace: Trace;
  readonly crashes: Crash[] = [];
  readonly falseDeaths: string[] = [];
  suspicions = 0;
  steps = 0;
  framesMax = 0;
  /** Loads change. */
  isBusy = true;
  /** Who else wants to know. */
  onEvent: ((node: SimNode, event: GossipEvent) => void) | undefined;
  readonly options: SimulationOptions;
  readonly gossip: Options;
  readonly network: Prng;
  readonly chance: Prng;
  readonly faults: Prng;
  readonly #byAddress = new Map<string, SimNode>();
  readonly #open = new Map<string, Crash>();

  constructor(options: SimulationOptions) {
    this.options = options;
    this.gossip = { ...DEFAULT_OPTIONS, ...options.gossip };
    this.trace = new Trace(options.print);
    const prng = new Prng(options.seed);
    this.network = prng.fork();
    this.chance = prng.fork();
    this.faults = prng.fork();
    for (let index = 0; index < options.nodes; index++) this.addNode();
  }

  get now(): number {
    return this.queue.now;
  }

  addNode(): SimNode {
    const index = this.nodes.length;
    // Ids say nothing about the order of starting.
    const id = `node-${((index * 7919 + 13) % 10007).toString().padStart(5, "0")}-${index.toString(36).padStart(4, "0")}`;
    const address = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}:7946`;
    const node: SimNode = {
      index,
      id,
      address,
      state: undefined,
      timerAt: Number.POSITIVE_INFINITY,
      lives: 0,
      firstIncarnation: 0,
      starvation: undefined,
      isAway: false,
      inbox: [],
      group: 0,
      sentBytes: 0,
      sentFrames: 0,
    };
    this.nodes.push(node);
    this.#byAddress.set(address, node);
    return node;
  }

  /** Starts the process of a node, which asks `seeds`. A later life has a higher incarnation, unless one is given. */
  start(node: SimNode, seeds: readonly SimNode[], incarnation?: number): void {
    node.lives++;
    this.#open.delete(node.id);
    node.inbox = [];
    node.isAway = false;
    node.firstIncarnation = incarnation ?? 1_700_000_000_000 + Math.floor(this.now);
    const state = initialState(
      {
        options: this.gossip,
        id: node.id,
        address: node.address,
        incarnation: node.firstIncarnation,
        facts: {
          address: `10.0.0.${node.index & 255}:7947`,
          roles: "gateway,compute,vpc",
          zone: `us-east-1${"abc"[node.index % 3]}`,
          version: "0.1.0",
          capacity: '{"vcpus":32,"memoryMib":131072,"diskGib":2000}',
          load: '{"vcpus":0,"memoryMib":0}',
          health: "ok",
        },
        seeds: seeds.map((seed) => seed.address),
        now: this.now,
      },
      this.chance,
    );
    node.state = state;
    this.trace.line(this.now, () => `${node.id} starts`);
    node.timerAt = Number.POSITIVE_INFINITY;
    this.#setTimer(node);
    if (this.options.loadEveryMs !== undefined) this.#changeLoad(node, node.lives);
    if (node.starvation) this.#runAWhile(node, node.lives);
  }

  /** All nodes run and know each other: what they come to by themselves, without the way there. */
  startAcquainted(seeds: readonly SimNode[]): void {
    for (const node of this.nodes) this.start(node, seeds);
    const members = this.nodes.map((node) => node.state!.self).sort((a, b) => (a.id < b.id ? -1 : 1));
    const hash = members.reduce((sum, member) => sum ^ member.hash, 0) >>> 0;
    for (const node of this.nodes) {
      node.state = { ...node.state!, members, hash, presentCount: members.length };
      this.input(node, { type: "tick" });
    }
  }

  /** The process is gone, with all it had in memory. */
  crash(node: SimNode): void {
    this.trace.line(this.now, () => `${node.id} crashes`);
    node.state = undefined;
    node.inbox = [];
    const deaf = new Set<number>();
    for (const other of this.nodes) if (other.state && !other.starvation) deaf.add(other.index);
    const crash = { node: node.index, at: this.now, first: Number.NaN, everywhere: Number.NaN, deaf };
    this.crashes.push(crash);
    this.#open.set(node.id, crash);
  }

  /** Stops it without counting how soon that is noticed. */
  stop(node: SimNode): void {
    node.state = undefined;
    node.inbox = [];
  }

  starve(node: SimNode, starvation: Starvation | undefined): void {
    node.starvation = starvation;
    if (starvation && node.state) this.#runAWhile(node, node.lives);
  }

  /** Only nodes of equal group hear each other from now on. */
  split(groupOf: (node: SimNode) => number): void {
    for (const node of this.nodes) node.group = groupOf(node);
    this.trace.line(this.now, () => "split");
  }

  heal(): void {
    for (const node of this.nodes) node.group = 0;
    this.trace.line(this.now, () => "healed");
  }

  /** How `observer` sees `subject`. */
  view(observer: SimNode, subject: SimNode): Status | undefined {
    return observer.state && findMember(observer.state.members, subject.id)?.status;
  }

  /** Every running node holds exactly the running ones for alive, and knows them equally. */
  isConverged(): boolean {
    const running = this.nodes.filter((node) => node.state);
    const hash = running[0]?.state?.hash;
    return running.every(
      (node) =>
        node.state!.presentCount === running.length &&
        node.state!.hash === hash &&
        running.every((other) => this.view(node, other) === "alive"),
    );
  }

  /** Looks every `everyMs` until that holds, then calls `then` with the time it took. */
  when(holds: () => boolean, everyMs: number, then: (afterMs: number) => void): void {
    const since = this.now;
    const look = () => {
      if (holds()) then(this.now - since);
      else this.queue.after(everyMs, look);
    };
    this.queue.after(0, look);
  }

  input(node: SimNode, input: Input): void {
    if (!node.state) return;
    this.steps++;
    const { state, effects } = step(node.state, input, this.now, this.chance);
    node.state = state;
    for (const { to, message } of effects.send) this.#transmit(node, to, message);
    for (const event of effects.events) this.#note(node, event);
    this.#setTimer(node);
  }

  run(): void {
    const { durationMs } = this.options;
    while (this.queue.step(durationMs));
  }

  #note(node: SimNode, event: GossipEvent): void {
    this.trace.line(this.now, () => `${node.id}: ${JSON.stringify(event)}`);
    this.onEvent?.(node, event);
    if (event.type === "left") {
      node.state = undefined;
      return;
    }
    if (event.type !== "status") return;
    if (event.status === "suspect") this.suspicions++;
    if (event.status !== "dead") return;
    const crash = this.#open.get(event.id);
    if (crash) {
      if (Number.isNaN(crash.first)) crash.first = this.now - crash.at;
      crash.deaf.delete(node.index);
      for (const index of crash.deaf) if (!this.nodes[index]!.state) crash.deaf.delete(index);
      if (crash.deaf.size === 0 && Number.isNaN(crash.everywhere)) crash.everywhere = this.now - crash.at;
      return;
    }
    const subject = this.nodes.find((other) => other.id === event.id);
    if (!subject?.state || subject.group !== node.group) return;
    // A verdict on a life that has ended since is late, not false.
    const verdict = findMember(node.state!.members, event.id);
    if (verdict && verdict.incarnation >= subject.firstIncarnation) {
      this.falseDeaths.push(`${(this.now / 1000).toFixed(3)} s: ${node.id} holds ${event.id} for dead`);
    }
  }

  #transmit(from: SimNode, address: string, message: Message): void {
    const bytes = messageBytes(message) + ENVELOPE_BYTES + SEAL_BYTES;
    from.sentBytes += bytes;
    from.sentFrames++;
    if (bytes > this.framesMax) this.framesMax = bytes;
    const to = this.#byAddress.get(address);
    const { loss = 0, duplicates = 0, delayMs = [0.1, 2] } = this.options;
    if (!to || this.network.chance(loss)) return;
    const copies = this.network.chance(duplicates) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      // One frame in a hundred takes much longer, and is overtaken.
      const tail = this.network.chance(0.01) ? 25 : 1;
      const delay = delayMs[0] + this.network.share() * (delayMs[1] - delayMs[0]) * tail;
      this.queue.after(delay, () => this.#arrive(from, to, message));
    }
  }

  #arrive(from: SimNode, to: SimNode, message: Message): void {
    if (!to.state || from.group !== to.group) return;
    if (!to.isAway) this.#receive(to, message);
    else if (to.inbox.length < SOCKET_FRAMES_MAX) to.inbox.push(message);
  }

  #receive(node: SimNode, message: Message): void {
    this.trace.mix(this.now);
    this.trace.mix(node.index * 16 + TYPES.indexOf(message.type));
    this.input(node, { type: "message", message });
  }

  /** Timers are not taken back: one that fires too early looks when it should have, and is set again. */
  #setTimer(node: SimNode): void {
    if (!node.state) return;
    const at = deadline(node.state);
    if (at >= node.timerAt || at === Number.POSITIVE_INFINITY) return;
    node.timerAt = at;
    const { lives } = node;
    const run = () => {
      if (node.timerAt !== at || node.lives !== lives) return;
      node.timerAt = Number.POSITIVE_INFINITY;
      if (!node.state || node.isAway) return;
      if (deadline(node.state) <= this.now) this.input(node, { type: "tick" });
      else this.#setTimer(node);
    };
    this.queue.at(at, run);
  }

  /** A starved process has the processor, for once. */
  #runAWhile(node: SimNode, lives: number): void {
    const { starvation } = node;
    if (!node.state || node.lives !== lives) return;
    if (node.isAway) {
      node.isAway = false;
      if (deadline(node.state) <= this.now) this.input(node, { type: "tick" });
      const waiting = node.inbox;
      node.inbox = [];
      for (const message of waiting) if (node.state) this.#receive(node, message);
      this.#setTimer(node);
    }
    if (!starvation) return;
    this.queue.after(this.#draw(starvation.runMs), () => {
      if (!node.state || node.lives !== lives || node.starvation !== starvation) return;
      node.isAway = true;
      node.timerAt = Number.POSITIVE_INFINITY;
      this.queue.after(this.#draw(starvation.awayMs), () => this.#runAWhile(node, lives));
    });
  }

  #draw([from, to]: Span): number {
    return from + this.faults.share() * (to - from);
  }

  #changeLoad(node: SimNode, lives: number): void {
    const every = this.options.loadEveryMs!;
    this.queue.after(every * (0.5 + this.faults.share()), () => {
      if (!node.state || node.lives !== lives) return;
      const load = `{"vcpus":${this.faults.below(32)},"memoryMib":${this.faults.below(131072)}}`;
      if (!node.isAway && this.isBusy) this.input(node, { type: "facts", values: { load } });
      this.#changeLoad(node, lives);
    });
  }
}

export type Report = {
  readonly seed: number;
  readonly traceHash: string;
  readonly steps: number;
  /** Nodes that run and could be reached, and were held for dead: when, and by whom. */
  readonly falseDeaths: readonly string[];
  /** Times that a node began to suspect another. */
  readonly suspicions: number;
  /** ms from each crash until the first node, and the last that is not starved, held it for dead; NaN: not at all. */
  readonly detection: { readonly first: readonly number[]; readonly everywhere: readonly number[] };
  /** Frames and bytes of sealed frames that a node sent in a second, on average. */
  readonly framesPerNode: number;
  readonly bytesPerNode: number;
  /** The largest frame. */
  readonly frameBytesMax: number;
  readonly cpuMs: number;
  readonly world: World;
};

export function simulateGossip(options: SimulationOptions): Report {
  const world = new World(options);
  const startedAt = process.cpuUsage();
  if (options.script) options.script(world);
  else startAll(world);
  world.run();
  const used = process.cpuUsage(startedAt);
  const seconds = (options.durationMs / 1000) * world.nodes.length;
  return {
    seed: options.seed,
    traceHash: world.trace.hash,
    steps: world.steps,
    falseDeaths: world.falseDeaths,
    suspicions: world.suspicions,
    detection: {
      first: world.crashes.map((crash) => crash.first),
      everywhere: world.crashes.map((crash) => crash.everywhere),
    },
    framesPerNode: world.nodes.reduce((sum, node) => sum + node.sentFrames, 0) / seconds,
    bytesPerNode: world.nodes.reduce((sum, node) => sum + node.sentBytes, 0) / seconds,
    frameBytesMax: world.framesMax,
    cpuMs: (used.user + used.system) / 1000,
    world,
  };
}

/** All nodes start within a second; the first three are everybody's seeds. */
export function startAll(world: World): void {
  const seeds = world.nodes.slice(0, 3);
  for (const node of world.nodes) world.queue.after(world.faults.share() * 1000, () => world.start(node, seeds));
}

/** The value below which `share` of them are; those that never came are the largest. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.map((value) => (Number.isNaN(value) ? Number.POSITIVE_INFINITY : value)).sort((a, b) => a - b);
  return sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)] ?? Number.NaN;
}
