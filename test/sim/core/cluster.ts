/** The nodes of a run, and what they have in common: virtual time, chance, the ledger of what was seen. */
import { configurationOf } from "../../../src/cluster/raft/configuration.ts";
import type { RaftState } from "../../../src/cluster/raft/state.ts";
import type { Configuration, Index, PeerId } from "../../../src/cluster/raft/types.ts";
import { type Event, EventQueue } from "../base/event-queue.ts";
import { Prng } from "../base/prng.ts";
import type { Trace } from "../base/trace.ts";
import { Ledger } from "./checks.ts";
import { ModelDisk, type ModelSnapshot } from "./model-disk.ts";
import type { CoreFault, CorePlan } from "./plan.ts";

export type Node = {
  readonly id: PeerId;
  disk: ModelDisk;
  /** Undefined while it is down. */
  state: RaftState | undefined;
  /** Counts its lives: what was begun in an earlier one does not come back. */
  life: number;
  /** Local monotonic time is `offset + rate * virtual time`. */
  readonly rate: number;
  readonly offset: number;
  /** Its disk lost what it had acknowledged, up to here at most; the driver remembers that across restarts. */
  recoverThrough: Index | undefined;
  readonly wasDamaged: boolean;
  timer: Event | undefined;
  syncing: Event | undefined;
  refusing: boolean;
  stalledUntil: number;
  /** Its disk is full until then. */
  fullUntil: number;
  pausedUntil: number;
  paused: (() => void)[];
  applied: Index;
  chain: number;
  /** In force at the last applied entry. */
  configuration: Configuration;
  applying: boolean;
  snapshotting: boolean;
  received: ModelSnapshot | undefined;
  spins: number;
  /** When a message of each peer was last handled, in virtual time; and since when it leads this configuration. */
  readonly heard: Map<PeerId, number>;
  ledSince: number;
};

export class Cluster {
  readonly plan: CorePlan;
  readonly trace: Trace;
  readonly queue = new EventQueue();
  readonly ledger = new Ledger();
  readonly nodes = new Map<PeerId, Node>();
  readonly list: readonly Node[];
  /** One for each concern, so that none's draws move another's. */
  readonly prng: { readonly [part in "core" | "network" | "disk" | "clients" | "faults" | "crash"]: Prng };
  faults = 0;
  /** Since when there are no more faults. */
  healedAt: number | undefined;
  #ids = 0;

  constructor(seed: number, plan: CorePlan, trace: Trace) {
    this.plan = plan;
    this.trace = trace;
    const root = new Prng(seed, 2);
    this.prng = root.forks("core", "network", "disk", "clients", "faults", "crash");
    const founders = Array.from({ length: plan.voters + plan.learners }, (_, i) => `n${i + 1}`);
    const configuration: Configuration = {
      ...configurationOf(founders.slice(0, plan.voters)),
      learners: founders.slice(plan.voters),
    };
    const drift = plan.faults.drift / 1000;
    const add = (id: PeerId, genesis: Configuration) =>
      this.nodes.set(id, newNode(id, genesis, 1 + drift * (2 * root.share() - 1), root.below(100_000)));
    for (const id of founders) add(id, configuration);
    for (let i = 1; i <= plan.spares; i++) add(`n${founders.length + i}`, configurationOf([]));
    this.list = [...this.nodes.values()];
  }

  get isHealing(): boolean {
    return this.healedAt !== undefined;
  }

  /** Another number that nothing else has: of a command, a read, a change. */
  nextId(): number {
    return ++this.#ids;
  }

  /** A node's own monotonic time. */
  local(node: Node): number {
    return node.offset + node.rate * this.queue.now;
  }

  /** Does `run` in this life of the node, when it is not paused. */
  later(node: Node, delay: number, run: () => void): Event {
    const { life } = node;
    return this.queue.after(delay, () => this.whenAwake(node, life, run));
  }

  whenAwake(node: Node, life: number, run: () => void): void {
    if (node.life !== life) return;
    if (node.pausedUntil > this.queue.now) node.paused.push(() => this.whenAwake(node, life, run));
    else run();
  }

  /** Of those that think they lead, the one of the latest term. */
  leader(): Node | undefined {
    return this.leaders().sort((a, b) => b.state!.term - a.state!.term)[0];
  }

  leaders(): Node[] {
    return this.list.filter(({ state, pausedUntil }) => state?.role === "leader" && pausedUntil === 0);
  }

  note(fault: CoreFault | "restart" | "heal" | "resume", node?: Node): void {
    this.faults++;
    this.trace.mixText(fault);
    this.line(() => `${node?.id ?? "--"} ${fault}`);
  }

  line(text: () => string): void {
    this.trace.line(this.queue.now, text);
  }
}

function newNode(id: PeerId, genesis: Configuration, rate: number, offset: number): Node {
  return {
    id,
    disk: new ModelDisk({ index: 0, term: 0, configuration: genesis }),
    state: undefined,
    life: 0,
    rate,
    offset,
    recoverThrough: undefined,
    get wasDamaged() {
      return this.recoverThrough !== undefined;
    },
    timer: undefined,
    syncing: undefined,
    refusing: false,
    stalledUntil: 0,
    fullUntil: 0,
    pausedUntil: 0,
    paused: [],
    applied: 0,
    chain: 0,
    configuration: genesis,
    applying: false,
    snapshotting: false,
    received: undefined,
    spins: 0,
    heard: new Map(),
    ledSince: 0,
  };
}
