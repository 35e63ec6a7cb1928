/**
 * The machines of a run, the processes on them, and what they have in common: virtual time, chance, the network between them.
 * What makes processes, disturbs, watches or judges them works on this.
 */
import type { Consensus } from "../../../src/cluster/consensus.ts";
import { MemoryDisk } from "../../../src/cluster/kv/memory-disk.ts";
import { configurationOf } from "../../../src/cluster/raft/configuration.ts";
import type { Configuration, PeerId, Term } from "../../../src/cluster/raft/types.ts";
import { EventQueue } from "../base/event-queue.ts";
import { Prng } from "../base/prng.ts";
import type { Violation } from "../base/simulation.ts";
import type { Trace } from "../base/trace.ts";
import type { Server } from "./calls.ts";
import type { ProcessDisk } from "./disk.ts";
import { Network } from "./network.ts";
import type { FullFault, FullPlan } from "./plan.ts";

/** One process, from its start to its end. */
export type Life = {
  isOver: boolean;
  readonly ended: PromiseWithResolvers<void>;
  readonly watches: AbortController;
  server: Server | undefined;
  consensus: Consensus | undefined;
  isClosing: boolean;
  disk: ProcessDisk | undefined;
};

export type Node = {
  readonly id: PeerId;
  disk: MemoryDisk;
  life: Life | undefined;
  /** What a directory of its begins with. */
  readonly configuration: Configuration;
  readonly rate: number;
  readonly offset: number;
  wallSkewMs: number;
  pausedUntil: number;
  /** Since when it is paused, if it is; and how long it was before that. */
  pausedAt: number;
  pausedMs: number;
  held: (() => void)[];
  stalledUntil: number;
  syncErrorsUntil: number;
  fullUntil: number;
  /** Its disk has rotted, and it is not yet known to have made that good; it can't before a later life reads the files. */
  isSuspect: boolean;
  rottedIn: Life | undefined;
  /** A write or sync of this life failed, so that it may give up. */
  mayFail: boolean;
  /** It has left the cluster for good. */
  isReplaced: boolean;
  term: Term;
  revision: number;
  /** The last write to each file: what a crash and rot look the same in. */
  readonly lastWrites: Map<string, { readonly from: number; readonly to: number }>;
};

type Happening = FullFault | "start" | "resume" | "calm" | "sync error" | "recovered" | "replaced";
const HARMLESS: readonly Happening[] = ["start", "resume", "calm", "recovered"];

export class Cluster {
  readonly plan: FullPlan;
  readonly trace: Trace;
  readonly queue = new EventQueue();
  readonly network: Network;
  /** One for each concern, so that none's draws move another's. */
  readonly prng: { readonly [part in "code" | "network" | "disk" | "clients" | "faults" | "crash"]: Prng };
  readonly nodes = new Map<PeerId, Node>();
  /** The nodes that something was done at in this event. */
  readonly touched = new Set<Node>();
  /** What was found where nobody could throw it. */
  violation: Violation | undefined;
  /** Since when there are no more faults. */
  calmSince: number | undefined;
  isEnded = false;
  #faults = 0;
  #names = 0;

  constructor(seed: number, plan: FullPlan, trace: Trace) {
    this.plan = plan;
    this.trace = trace;
    const root = new Prng(seed, 4);
    this.prng = root.forks("code", "network", "disk", "clients", "faults", "crash");
    this.network = new Network(this.queue, this.prng.network, plan);
    const voters = configurationOf(Array.from({ length: plan.voters }, (_, i) => `n${i + 1}`));
    for (let i = 0; i < plan.voters; i++) this.add(voters, root);
    for (let i = 0; i < plan.spares; i++) this.add(configurationOf([]), root);
  }

  get faults(): number {
    return this.#faults + this.network.faults;
  }

  /** Another machine, under a name that none had before. */
  add(configuration: Configuration, prng: Prng): Node {
    const drift = this.plan.driftThousandths / 1000;
    const node: Node = {
      id: `n${++this.#names}`,
      disk: new MemoryDisk(),
      life: undefined,
      configuration,
      rate: 1 + drift * (2 * prng.share() - 1),
      offset: prng.below(100_000),
      wallSkewMs: 0,
      pausedUntil: 0,
      pausedAt: 0,
      pausedMs: 0,
      held: [],
      stalledUntil: 0,
      syncErrorsUntil: 0,
      fullUntil: 0,
      isSuspect: false,
      rottedIn: undefined,
      mayFail: false,
      isReplaced: false,
      term: 0,
      revision: 0,
      lastWrites: new Map(),
    };
    this.nodes.set(node.id, node);
    return node;
  }

  /** Those that have not left it for good. */
  members(): Node[] {
    return [...this.nodes.values()].filter(({ isReplaced }) => !isReplaced);
  }

  /** Of those that think they lead, the one of the latest term. */
  leader(): Node | undefined {
    let found: { readonly node: Node; readonly term: Term } | undefined;
    for (const node of this.nodes.values()) {
      const { life } = node;
      if (!life?.consensus || !life.server || life.isClosing || node.pausedUntil > 0) continue;
      const { role, term, health } = life.consensus.status();
      if (role === "leader" && health === "ok" && (!found || term > found.term)) found = { node, term };
    }
    return found?.node;
  }

  /** Those that clients can ask. */
  servers = (): readonly Server[] => {
    const found: Server[] = [];
    for (const { life, pausedUntil } of this.nodes.values()) {
      if (life?.server && !life.isClosing && pausedUntil === 0) found.push(life.server);
    }
    return found;
  };

  /** Does `run` in this life of the node, once it is awake. */
  asNode(node: Node, life: Life, run: () => void): void {
    if (life.isOver) return;
    if (node.pausedUntil > this.queue.now) {
      node.held.push(() => this.asNode(node, life, run));
      return;
    }
    this.touched.add(node);
    run();
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.queue.after(ms, resolve));
  }

  fails(violation: Violation): void {
    this.violation ??= violation;
  }

  note(what: Happening, node?: Node): void {
    if (!HARMLESS.includes(what)) this.#faults++;
    this.trace.mixText(what);
    this.line(() => `${node?.id ?? "--"} ${what}`);
  }

  line(text: () => string): void {
    this.trace.line(this.queue.now, text);
  }

  /** Each node as it is now, for a message. */
  describe(): string {
    return [...this.nodes.values()].map(described).join("; ");
  }
}

function described({ id, life, isReplaced, isSuspect }: Node): string {
  if (isReplaced) return `${id} replaced`;
  if (!life?.consensus) return `${id} ${life ? "opening" : "down"}`;
  const { role, term, leader, commitIndex, appliedIndex, lastIndex, configuration, health, message } =
    life.consensus.status();
  const { voters, outgoing, learners, joining } = configuration;
  const lists = `[${voters}|${outgoing}|${learners}|${joining}]`;
  return `${id} ${role} ${health}${isSuspect ? " suspect" : ""} term ${term} leader ${leader ?? "-"} commit ${commitIndex} applied ${appliedIndex} last ${lastIndex} ${lists} ${message ?? ""}`;
}
