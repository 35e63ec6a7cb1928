/**
 * Whole clusters of `src/cluster/raft/step.ts` alone, on model disks and a model network, in virtual time. No promises and no
 * bytes, so that it is fast: the place to try many schedules on the protocol itself. What drives the core in earnest
 * (runtime, log files, store) is simulated in `../full`.
 */
import {
  configurationOf,
  decodeConfiguration,
  isQuorum,
  kindOf,
  membersOf,
} from "../../../src/cluster/raft/configuration.ts";
import { slice } from "../../../src/cluster/raft/log.ts";
import { configurationOfState, initialState, type RaftState } from "../../../src/cluster/raft/state.ts";
import { deadline, step } from "../../../src/cluster/raft/step.ts";
import type {
  Configuration,
  ConfigurationChange,
  Effects,
  Index,
  Input,
  Message,
  PeerId,
  Persist,
} from "../../../src/cluster/raft/types.ts";
import { type Event, EventQueue } from "../base/event-queue.ts";
import { Prng } from "../base/prng.ts";
import { asViolation, type Outcome, Violation } from "../base/simulation.ts";
import { Trace } from "../base/trace.ts";
import { chained, hashOf, Ledger } from "./checks.ts";
import { ModelDisk, type ModelSnapshot } from "./model-disk.ts";
import type { CoreFault, CorePlan } from "./plan.ts";

type Node = {
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

type Read = { readonly node: PeerId; readonly floor: Index; readonly askedAt: number };

const SETTLE_MS = 300_000;
const SPINS_MAX = 200;
const UNCOMMITTED_MAX = 60;

/** Runs one seed to its end. Never throws for what the core did: that is the outcome's violation. */
export function runCore(seed: number, plan: CorePlan, print?: (line: string) => void): Outcome {
  const world = new World(seed, plan, new Trace(print));
  let violation: Violation | undefined;
  try {
    world.run();
  } catch (error) {
    violation = asViolation(error);
  }
  const { events, hash } = world.trace;
  return { violation, events, faults: world.faults, histories: 0, unknown: 0, hash };
}

class World {
  readonly plan: CorePlan;
  readonly trace: Trace;
  readonly queue = new EventQueue();
  readonly ledger = new Ledger();
  faults = 0;
  readonly #nodes = new Map<PeerId, Node>();
  readonly #list: Node[] = [];
  readonly #prng: { readonly [part in "core" | "network" | "disk" | "clients" | "faults" | "crash"]: Prng };
  /** `from to` pairs that don't get through. */
  readonly #blocked = new Set<string>();
  readonly #arrivals = new Map<string, number>();
  readonly #reads = new Map<number, Read>();
  readonly #changes = new Map<number, PeerId>();
  #ids = 0;
  #healing = false;
  #healedAt = 0;

  constructor(seed: number, plan: CorePlan, trace: Trace) {
    this.plan = plan;
    this.trace = trace;
    const root = new Prng(seed, 2);
    const [core, network, disk, clients, faults, crash] = Array.from({ length: 6 }, () => root.fork());
    this.#prng = { core: core!, network: network!, disk: disk!, clients: clients!, faults: faults!, crash: crash! };
    const names = Array.from({ length: plan.voters + plan.learners + plan.spares }, (_, i) => `n${i + 1}`);
    const configuration: Configuration = {
      ...configurationOf(names.slice(0, plan.voters)),
      learners: names.slice(plan.voters, plan.voters + plan.learners),
    };
    for (const [i, id] of names.entries()) {
      const isFounder = i < plan.voters + plan.learners;
      const genesis = isFounder ? configuration : configurationOf([]);
      const drift = plan.faults.drift / 1000;
      const node: Node = {
        id,
        disk: new ModelDisk({ index: 0, term: 0, configuration: genesis }),
        state: undefined,
        life: 0,
        rate: 1 + drift * (2 * root.share() - 1),
        offset: root.below(100_000),
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
      this.#nodes.set(id, node);
      this.#list.push(node);
    }
  }

  run(): void {
    for (const node of this.#list) this.#start(node);
    this.#clients();
    this.#faultSchedules();
    while (this.trace.events < this.plan.events && this.#next(Number.POSITIVE_INFINITY));
    this.#heal();
    this.#settle();
  }

  #next(until: number): boolean {
    if (!this.queue.step(until)) return false;
    this.trace.events++;
    return true;
  }

  // --- Nodes

  #local = (node: Node): number => node.offset + node.rate * this.queue.now;

  #start(node: Node): void {
    node.life++;
    const { snapshot, entries, previousTerm } = node.disk.recover();
    const { hardState } = node.disk;
    node.applied = snapshot.point.index;
    node.chain = snapshot.chain;
    node.configuration = snapshot.point.configuration;
    node.applying = node.snapshotting = node.refusing = false;
    node.spins = 0;
    node.syncing = undefined;
    node.heard.clear();
    this.ledger.applied(node.id, node.applied, node.chain);
    node.state = initialState({
      id: node.id,
      options: this.plan.options,
      hardState,
      snapshot: snapshot.point,
      entries,
      previousTerm,
      recoverThrough: node.recoverThrough,
      now: this.#local(node),
      random: this.#prng.core,
    });
    this.ledger.started(node, node.state);
    this.trace.line(this.queue.now, () => {
      const { log, term, vote } = node.state!;
      return `${node.id} starts: term ${term}, vote ${vote || "-"}, log ${log.base.index}..${log.last}`;
    });
    this.#arm(node);
  }

  #crash(node: Node): void {
    if (!node.state) return;
    this.#lose(node);
    node.disk.crash(this.#prng.crash);
    this.#note("crash", node);
  }

  /** The process is gone; what its disk keeps is decided elsewhere. */
  #lose(node: Node): void {
    node.life++;
    node.state = undefined;
    this.queue.cancel(node.timer);
    this.queue.cancel(node.syncing);
    node.timer = node.syncing = undefined;
    node.paused = [];
    node.pausedUntil = 0;
    for (const [id, read] of this.#reads) if (read.node === node.id) this.#reads.delete(id);
    for (const [id, asked] of this.#changes) if (asked === node.id) this.#changes.delete(id);
  }

  /** Does `run` in this life of the node, when it is not paused. */
  #later(node: Node, delay: number, run: () => void): Event {
    const { life } = node;
    return this.queue.after(delay, () => this.#whenAwake(node, life, run));
  }

  #whenAwake(node: Node, life: number, run: () => void): void {
    if (node.life !== life) return;
    if (node.pausedUntil > this.queue.now) node.paused.push(() => this.#whenAwake(node, life, run));
    else run();
  }

  #input(node: Node, input: Input): void {
    const before = node.state;
    if (!before) return;
    const now = this.#local(node);
    const { state, effects } = this.#step(node, before, input, now);
    node.state = state;
    this.#mix(node, input, state);
    if (this.trace.isPrinting) this.#printStep(node, input, before, state, effects);
    this.ledger.stepped(node, before, state, effects, this.#nodes);
    const isNewlyLed = before.role !== "leader" || configurationOfState(state) !== configurationOfState(before);
    if (state.role === "leader" && isNewlyLed) node.ledSince = this.queue.now;
    if (state.role === "leader" && before.role !== "leader") this.#ledNewly(node);
    this.#carryOut(node, effects);
    if (node.state === state) this.#arm(node);
  }

  #step(node: Node, state: RaftState, input: Input, now: number): { state: RaftState; effects: Effects } {
    try {
      return step(state, input, now, this.#prng.core);
    } catch (error) {
      this.trace.line(this.queue.now, () => `${node.id} ${textOf(input)} => throws`);
      throw error;
    }
  }

  #arm(node: Node): void {
    if (!node.state) return;
    const local = deadline(node.state);
    if (local === Number.POSITIVE_INFINITY) {
      this.queue.cancel(node.timer);
      node.timer = undefined;
      return;
    }
    // A hair late, so that rounding never makes it early for ever.
    const at = Math.max(this.queue.now, (local - node.offset) / node.rate + 1e-6);
    // A timer that rings too early finds that out and is set again: cheaper than moving it with each heartbeat.
    if (node.timer?.run && node.timer.at <= at) return;
    this.queue.cancel(node.timer);
    this.#setTimer(node, at);
  }

  #setTimer(node: Node, at: number): void {
    const { life } = node;
    node.timer = this.queue.at(at, () => this.#whenAwake(node, life, () => this.#ring(node)));
  }

  #ring(node: Node): void {
    node.timer = undefined;
    const local = deadline(node.state!);
    if (local > this.#local(node)) {
      this.#arm(node);
      return;
    }
    this.#input(node, { type: "tick" });
    if (node.state) this.#checkLeader(node, node.state);
    const stillDue = node.state !== undefined && deadline(node.state) <= this.#local(node);
    node.spins = stillDue ? node.spins + 1 : 0;
    if (node.spins > SPINS_MAX) throw new Violation("a tick moves the deadline on", node.id);
  }

  /** A leader that is cut off, or whose disk hangs, leads no longer than its bounds say. */
  #checkLeader(node: Node, state: RaftState): void {
    const { electionMs, diskStallMs } = this.plan.options;
    if (state.role !== "leader" || node.pausedUntil > 0) return;
    const since = this.queue.now - 4 * electionMs;
    const isHeard = (peer: PeerId) => peer === node.id || (node.heard.get(peer) ?? 0) >= since;
    if (node.ledSince < since && !isQuorum(configurationOfState(state), isHeard)) {
      throw new Violation("a leader that is cut off steps down", node.id);
    }
    const waits = state.openOrders[0];
    if (waits && state.peers.size > 0 && this.#local(node) - waits.at > diskStallMs + 2 * electionMs) {
      throw new Violation("a leader whose disk hangs steps down", node.id);
    }
  }

  // --- What a step asks for

  #carryOut(node: Node, effects: Effects): void {
    for (const order of effects.persist) this.#persist(node, order);
    for (const message of effects.send) this.#send(node, message);
    for (const { id, index } of effects.reads) this.#readDone(node, id, index);
    for (const { id, index } of effects.changes) {
      if (!this.#changes.delete(id)) throw new Violation("a change is answered once", `${node.id} ${id} ${index}`);
    }
    for (const { to, from, through } of effects.fetch) {
      this.#later(node, this.#prng.disk.wait(this.plan.disk.syncMs), () => {
        const fails = !this.#healing && this.#prng.disk.chance(0.05);
        const entries = fails ? [] : node.disk.read(from, through, this.plan.options.messageBytesMax);
        this.#input(node, { type: "fetched", to, entries });
      });
    }
    for (const peer of effects.snapshots) this.#sendSnapshot(node, peer);
    if (effects.recovered) {
      if (!node.wasDamaged) throw new Violation("only what was damaged recovers", node.id);
      node.recoverThrough = undefined;
    }
    this.#apply(node);
  }

  #persist(node: Node, order: Persist): void {
    const { restart } = order;
    if (restart) {
      if (node.received?.point.index === restart.index) node.disk.keepSnapshot(node.received);
      const snapshot = node.disk.snapshots.findLast(({ point }) => point.index === restart.index);
      if (!snapshot) throw new Violation("a log starts over after a snapshot that is here", node.id);
      if (restart.index > node.applied) {
        node.applied = restart.index;
        node.chain = snapshot.chain;
        node.configuration = restart.configuration;
      }
    }
    if (node.refusing) return;
    node.disk.orders.push(order);
    this.#sync(node);
  }

  /** One sync at a time takes all orders that wait when it begins. */
  #sync(node: Node): void {
    if (node.syncing || node.disk.orders.length === 0) return;
    const group = [...node.disk.orders];
    const stall = Math.max(0, node.stalledUntil - this.queue.now);
    const wait = this.#prng.disk.wait(this.plan.disk.syncMs) + stall;
    const { life } = node;
    node.syncing = this.queue.after(wait, () => {
      if (node.life !== life) return;
      node.syncing = undefined;
      if (node.fullUntil > this.queue.now) {
        const refused = group[0]!;
        node.disk.refuse(this.#prng.crash);
        // Nothing of what comes until the core knows is carried out either.
        node.refusing = true;
        this.#whenAwake(node, life, () => {
          node.refusing = false;
          this.#input(node, { type: "persist-refused", order: refused.order });
        });
        return;
      }
      for (const order of group) node.disk.complete(order);
      this.#whenAwake(node, life, () => {
        for (const order of group) {
          for (const message of order.send) this.#send(node, message);
          this.#input(node, { type: "persisted", order: order.order });
          if (node.life !== life) return;
        }
      });
      this.#sync(node);
    });
  }

  #apply(node: Node): void {
    const state = node.state!;
    if (node.applying || node.applied >= state.commit) return;
    node.applying = true;
    this.#later(node, this.plan.applyMs === 0 ? 0 : this.#prng.disk.wait(this.plan.applyMs), () => {
      node.applying = false;
      const { log, commit } = node.state!;
      if (node.applied >= commit) return;
      const entries = slice(log, node.applied + 1, commit, Number.POSITIVE_INFINITY);
      if (!entries) throw new Violation("what is not applied is in memory", `${node.id} entry ${node.applied + 1}`);
      for (const entry of entries) {
        node.chain = chained(node.chain, hashOf(entry));
        if (kindOf(entry) === "configuration") node.configuration = decodeConfiguration(entry.data);
      }
      node.applied += entries.length;
      this.ledger.applied(node.id, node.applied, node.chain);
      this.#input(node, { type: "applied", index: node.applied });
      this.#snapshotIfDue(node);
    });
  }

  // --- Snapshots

  #snapshotIfDue(node: Node): void {
    const { snapshotEntries } = this.plan;
    if (snapshotEntries === 0 || node.snapshotting) return;
    if (node.applied < node.disk.snapshot.point.index + snapshotEntries) return;
    node.snapshotting = true;
    this.#makeSnapshot(node, () => {
      node.snapshotting = false;
      const { snapshots } = node.disk;
      const kept = this.plan.keepsOlder ? snapshots.at(-2) : snapshots.at(-1);
      if (!kept) return;
      node.disk.compact(kept.point.index, this.#prng.disk);
      this.#input(node, { type: "compacted", point: kept.point });
    });
  }

  /** Writes the state as it is now; durable a little later. */
  #makeSnapshot(node: Node, done: () => void): void {
    const { applied: index, chain, configuration } = node;
    const term = this.ledger.committed[index - 1]?.term ?? 0;
    this.#later(node, this.#prng.disk.wait(this.plan.disk.syncMs * 5), () => {
      node.disk.keepSnapshot({ point: { index, term, configuration }, chain });
      done();
    });
  }

  #sendSnapshot(node: Node, to: PeerId): void {
    if (node.disk.snapshots.length === 0) {
      if (node.applied === 0) this.#snapshotFailed(node, to);
      else this.#makeSnapshot(node, () => this.#sendSnapshot(node, to));
      return;
    }
    const { snapshot } = node.disk;
    const { term } = node.state!;
    const receiver = this.#nodes.get(to)!;
    const { life } = receiver;
    const prng = this.#prng.network;
    const delay = () => prng.wait(this.plan.network.delayMs * 4);
    if (this.#isLost(node.id, to)) {
      this.#snapshotFailed(node, to);
      return;
    }
    this.queue.after(delay(), () => {
      if (receiver.life !== life || this.#isLost(node.id, to)) {
        this.#snapshotFailed(node, to);
        return;
      }
      this.queue.after(prng.wait(this.plan.disk.syncMs), () => {
        if (receiver.life !== life) {
          this.#snapshotFailed(node, to);
          return;
        }
        this.#whenAwake(receiver, life, () => this.#receiveSnapshot(receiver, node, term, snapshot));
        this.#later(node, delay(), () => this.#input(node, { type: "snapshot-sent", to, index: snapshot.point.index }));
      });
    });
  }

  /** The file is whole and durable here, and becomes this node's snapshot only if the core wants it. */
  #receiveSnapshot(node: Node, from: Node, term: number, snapshot: ModelSnapshot): void {
    node.received = snapshot;
    this.#input(node, { type: "snapshot-received", from: from.id, term, point: snapshot.point });
    node.received = undefined;
  }

  #snapshotFailed(node: Node, to: PeerId): void {
    this.#later(node, this.#prng.network.wait(50), () =>
      this.#input(node, { type: "snapshot-sent", to, index: undefined }),
    );
  }

  // --- The network

  #isLost(from: PeerId, to: PeerId): boolean {
    if (this.#healing) return false;
    return this.#blocked.has(`${from} ${to}`) || this.#prng.network.chance(this.plan.network.dropped);
  }

  #send(node: Node, message: Message): void {
    this.ledger.sent(node, node.state!, message);
    const receiver = this.#nodes.get(message.to);
    if (!receiver) throw new Violation("messages go to nodes", message.to);
    const { network } = this.plan;
    const prng = this.#prng.network;
    const copies = !this.#healing && prng.chance(network.doubled) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      if (this.#isLost(message.from, message.to)) {
        this.faults++;
        continue;
      }
      const isLate = !this.#healing && prng.chance(network.late);
      let at = this.queue.now + prng.wait(isLate ? this.plan.options.electionMs : network.delayMs);
      if (network.inOrder) {
        const link = `${message.from} ${message.to}`;
        at = Math.max(at, this.#arrivals.get(link) ?? 0);
        this.#arrivals.set(link, at);
      }
      this.queue.at(at, () => this.#whenAwake(receiver, receiver.life, () => this.#deliver(receiver, message)));
    }
    this.faults += copies - 1;
  }

  #deliver(node: Node, message: Message): void {
    if (!node.state) return;
    if (message.term === node.state.term) node.heard.set(message.from, this.queue.now);
    this.#input(node, { type: "message", message });
  }

  // --- Clients

  #clients(): void {
    const { clients } = this.#prng;
    const { proposals, reads } = this.plan;
    const again = (mean: number, act: () => void) => {
      if (mean === 0) return;
      const loop = () => {
        act();
        // In the end clients are few, so that who lags can catch up.
        this.queue.after(clients.wait(this.#healing ? Math.max(mean, 100) : mean), loop);
      };
      this.queue.after(clients.wait(mean), loop);
    };
    again(proposals, () => this.#propose());
    again(reads, () => this.#read());
  }

  #propose(): void {
    const { clients } = this.#prng;
    // Whoever thinks it leads is asked, the deposed too.
    const leaders = this.#list.filter(({ state, pausedUntil }) => state?.role === "leader" && pausedUntil === 0);
    if (leaders.length === 0) return;
    const node = clients.pick(leaders);
    // As the driver does: who has so much to commit takes no more.
    if (node.state!.log.last - node.state!.commit > UNCOMMITTED_MAX) return;
    const commands = Array.from({ length: clients.pick([1, 1, 1, 2, 5]) }, () => this.#command());
    this.#input(node, { type: "propose", term: node.state!.term, commands });
  }

  #command(): Uint8Array {
    const { clients } = this.#prng;
    const bytes = new Uint8Array(5 + clients.below(this.plan.commandBytesMax));
    bytes[0] = 1;
    new DataView(bytes.buffer).setUint32(1, ++this.#ids);
    return bytes;
  }

  #read(): void {
    const node = this.#prng.clients.pick(this.#list);
    if (!node.state || node.pausedUntil > 0) return;
    const id = ++this.#ids;
    this.#reads.set(id, { node: node.id, floor: this.ledger.commit, askedAt: this.queue.now });
    this.#input(node, { type: "read", id });
  }

  #readDone(node: Node, id: number, index: Index | undefined): void {
    const read = this.#reads.get(id);
    // The answer of a leader may come twice, as any message; the first counts.
    if (!read) return;
    this.#reads.delete(id);
    if (index === undefined) return;
    if (index < read.floor) {
      throw new Violation("reads are linearizable", `${node.id} reads at ${index}, ${read.floor} was committed before`);
    }
    if (index > this.ledger.commit) throw new Violation("reads show what is committed", `${node.id} reads at ${index}`);
  }

  // --- Faults

  #note(fault: CoreFault | "restart" | "heal" | "resume", node?: Node): void {
    this.faults++;
    this.trace.mixText(fault);
    this.trace.line(this.queue.now, () => `${node?.id ?? "--"} ${fault}`);
  }

  #faultSchedules(): void {
    const { faults } = this.#prng;
    const acts: { readonly [fault in Exclude<CoreFault, "drift">]: (prng: Prng) => void } = {
      crash: (prng) => {
        const victims = prng.chance(0.1) ? this.#list : [prng.pick(this.#list)];
        this.#fell(victims, prng);
      },
      partition: (prng) => this.#partition(prng),
      pause: (prng) => {
        const node = prng.pick(this.#list);
        if (!node.state || node.pausedUntil > 0) return;
        this.#note("pause", node);
        const { life } = node;
        node.pausedUntil = this.queue.now + prng.wait(this.plan.options.electionMs * 3);
        this.queue.at(node.pausedUntil, () => {
          if (node.life === life) this.#resume(node);
        });
      },
      stall: (prng) => {
        const node = prng.pick(this.#list);
        this.#note("stall", node);
        node.stalledUntil = this.queue.now + prng.wait(this.plan.options.diskStallMs * 2);
      },
      full: (prng) => {
        const node = prng.pick(this.#list);
        this.#note("full", node);
        node.fullUntil = this.queue.now + prng.wait(300);
      },
      halt: (prng) => {
        const node = prng.pick(this.#list);
        if (!node.state || node.state.isHalted || node.pausedUntil > 0) return;
        this.#note("halt", node);
        this.queue.cancel(node.syncing);
        node.syncing = undefined;
        node.disk.crash(prng);
        this.#input(node, { type: "halt" });
        const { life } = node;
        this.queue.after(prng.wait(1000), () => {
          if (node.life !== life) return;
          this.#lose(node);
          this.#restart(node);
        });
      },
      damage: (prng) => this.#damage(prng),
      change: (prng) => this.#change(prng),
      transfer: (prng) => {
        const leader = this.#anyLeader();
        if (!leader) return;
        this.#note("transfer", leader);
        this.#input(leader, { type: "transfer", to: prng.chance(0.5) ? undefined : prng.pick(this.#list).id });
      },
      unreachable: (prng) => {
        const node = prng.pick(this.#list);
        const peer = prng.pick(this.#list);
        if (node === peer || !node.state || node.pausedUntil > 0) return;
        this.#note("unreachable", node);
        this.#input(node, { type: "unreachable", peer: peer.id });
      },
      earlyTick: (prng) => {
        const node = prng.pick(this.#list);
        if (!node.state || node.pausedUntil > 0) return;
        this.#input(node, { type: "tick" });
      },
    };
    for (const [fault, act] of Object.entries(acts) as [CoreFault, (prng: Prng) => void][]) {
      const prng = faults.fork();
      const mean = this.plan.faults[fault];
      if (mean === 0) continue;
      const loop = () => {
        if (this.#healing) return;
        act(prng);
        this.queue.after(prng.wait(mean), loop);
      };
      this.queue.after(prng.wait(mean), loop);
    }
  }

  #restart(node: Node): void {
    if (node.state) return;
    this.#note("restart", node);
    this.#start(node);
  }

  #resume(node: Node): void {
    this.#note("resume", node);
    node.pausedUntil = 0;
    const waiting = node.paused;
    node.paused = [];
    for (const run of waiting) run();
  }

  /** They crash, and come back. */
  #fell(victims: readonly Node[], prng: Prng): void {
    if (this.#healing) return;
    for (const node of victims) {
      this.#crash(node);
      this.queue.after(prng.wait(this.plan.downMs), () => this.#restart(node));
    }
  }

  #partition(prng: Prng): void {
    if (this.#healing || this.#blocked.size > 0 || this.#list.length < 2) return;
    this.#note("partition");
    const names = prng.shuffled(this.#list.map(({ id }) => id));
    const block = (from: PeerId, to: PeerId) => this.#blocked.add(`${from} ${to}`);
    const both = (a: PeerId, b: PeerId) => {
      block(a, b);
      block(b, a);
    };
    switch (prng.below(5)) {
      case 0: {
        // Two sides.
        const cut = prng.between(1, names.length - 1);
        for (const a of names.slice(0, cut)) for (const b of names.slice(cut)) both(a, b);
        break;
      }
      case 1: {
        // One side is heard by the other and does not hear it.
        const cut = prng.between(1, names.length - 1);
        for (const a of names.slice(0, cut)) for (const b of names.slice(cut)) block(b, a);
        break;
      }
      case 2: {
        // The leader is alone.
        const alone = this.#anyLeader()?.id ?? names[0]!;
        for (const other of names) if (other !== alone) both(alone, other);
        break;
      }
      case 3: {
        // A ring: everybody sees two others, no two the same.
        for (const [i, a] of names.entries()) {
          for (const [j, b] of names.entries()) {
            const distance = Math.abs(i - j);
            if (distance > 1 && distance < names.length - 1) block(a, b);
          }
        }
        break;
      }
      default: {
        // Single links, one way.
        for (let i = 0; i < names.length; i++) block(prng.pick(names), prng.pick(names));
      }
    }
    const { options, cutElections } = this.plan;
    this.queue.after(prng.wait(options.electionMs * cutElections), () => this.#blocked.clear());
  }

  /** One node at a time loses the end of its log to rot, and comes back knowing it, or not how much. */
  #damage(prng: Prng): void {
    const node = prng.pick(this.#list);
    if (this.#list.some(({ state, wasDamaged }) => !state || wasDamaged)) return;
    // With two voters or fewer, nobody else may hold what is lost here.
    const configurations = this.#list.flatMap(({ state }) => state?.configurations.map((at) => at.configuration) ?? []);
    if (this.plan.voters < 3 || configurations.some(({ voters }) => voters.length > 0 && voters.length < 3)) return;
    this.#crash(node);
    this.#note("damage", node);
    node.recoverThrough = Math.max(node.disk.last, node.disk.snapshot.point.index);
    const floor = Math.max(node.disk.base.index, node.disk.snapshot.point.index);
    if (node.disk.last > floor) node.disk.damage(prng.between(floor, node.disk.last));
    this.queue.after(prng.wait(200), () => this.#restart(node));
  }

  /** The first moments of a leadership are delicate: a change that comes then meets what the last leader left behind. */
  #ledNewly(node: Node): void {
    const prng = this.#prng.faults;
    if (this.plan.faults.change === 0 || this.#healing || !prng.chance(0.5)) return;
    this.#later(node, prng.wait(this.plan.network.delayMs * 2), () => this.#change(prng, node));
  }

  #change(prng: Prng, leader = this.#anyLeader()): void {
    // Taking voters away while one can't vote may leave too few.
    if (!leader || this.#healing || this.#list.some(({ wasDamaged }) => wasDamaged)) return;
    this.#note("change", leader);
    const change: { [peer: PeerId]: ConfigurationChange[PeerId] } = {};
    for (let i = prng.pick([1, 1, 2, 3, 5]); i > 0; i--) {
      change[prng.pick(this.#list).id] = prng.pick(["voter", "voter", "voter", "learner", "removed"]);
    }
    const id = ++this.#ids;
    this.#changes.set(id, leader.id);
    this.#input(leader, { type: "change-configuration", id, change });
    // Trouble on the way of a change is what its rules are for.
    const soon = prng.wait(this.plan.network.delayMs);
    if (this.plan.faults.partition > 0 && prng.chance(0.3)) this.queue.after(soon, () => this.#partition(prng));
    if (this.plan.faults.crash > 0 && prng.chance(0.2)) this.queue.after(soon, () => this.#fell([leader], prng));
  }

  #anyLeader(): Node | undefined {
    const leaders = this.#list.filter(({ state, pausedUntil }) => state?.role === "leader" && pausedUntil === 0);
    return leaders.sort((a, b) => b.state!.term - a.state!.term)[0];
  }

  // --- The end: no more faults, and everything has to come right

  #heal(): void {
    this.#note("heal");
    this.#healing = true;
    this.#healedAt = this.queue.now;
    this.#blocked.clear();
    for (const node of this.#list) {
      node.stalledUntil = node.fullUntil = 0;
      if (node.pausedUntil > 0) this.#resume(node);
      if (node.state?.isHalted) this.#lose(node);
      this.#restart(node);
    }
  }

  #settle(): void {
    const until = this.queue.now + SETTLE_MS;
    const target = this.ledger.commit;
    let check = 0;
    while (this.queue.now < until) {
      if (this.#isSettled(target)) return;
      check = this.queue.now + 20;
      while (this.#next(check));
      this.queue.now = Math.max(this.queue.now, check);
    }
    throw new Violation("the cluster converges once faults stop", this.#describeAll());
  }

  /** One leader; everyone in its configuration has what is committed, and something new was. */
  #isSettled(target: Index): boolean {
    const leader = this.#anyLeader();
    if (!leader || this.ledger.commit <= target) return false;
    const { state } = leader;
    const configuration = configurationOfState(state!);
    if (configuration.outgoing.length > 0 || state!.commit < target + 1) return false;
    for (const id of membersOf(configuration)) {
      const node = this.#nodes.get(id)!;
      if (!node.state || node.state.term !== state!.term || node.applied <= target || node.wasDamaged) return false;
      if (node.state.leader !== leader.id) return false;
    }
    // What was asked before is lost, maybe; what is asked now is answered.
    const asked = [...this.#reads.values()].filter(({ askedAt }) => askedAt > this.#healedAt);
    return asked.every(({ askedAt }) => askedAt > this.queue.now - 1000);
  }

  #describeAll(): string {
    return this.#list
      .map(({ id, state, applied }) => {
        if (!state) return `${id} down`;
        const { voters, outgoing, learners, joining } = configurationOfState(state);
        const lists = `[${voters}|${outgoing}|${learners}|${joining}]`;
        return `${id} ${state.role} term ${state.term} leader ${state.leader ?? "-"} commit ${state.commit} applied ${applied} log ${state.log.base.index}..${state.log.last} ${lists}`;
      })
      .join("; ");
  }

  // --- The trace

  #mix(node: Node, input: Input, state: RaftState): void {
    this.trace.mix(this.queue.now);
    this.trace.mix(node.id.charCodeAt(1) * 64 + input.type.length);
    this.trace.mix(state.term);
    this.trace.mix(state.log.last * 1024 + state.commit);
  }

  #printStep(node: Node, input: Input, before: RaftState, after: RaftState, effects: Effects): void {
    const changes: string[] = [];
    if (after.role !== before.role) changes.push(after.role);
    if (after.term !== before.term) changes.push(`term ${after.term}`);
    if (after.vote !== before.vote) changes.push(`vote ${after.vote || "-"}`);
    if (after.log.last !== before.log.last) changes.push(`last ${after.log.last}`);
    if (after.commit !== before.commit) changes.push(`commit ${after.commit}`);
    if (after.log.base !== before.log.base) changes.push(`base ${after.log.base.index}`);
    for (const { order, restart, truncateAfter, entries, hardState } of effects.persist) {
      const parts = [
        restart && `restart ${restart.index}`,
        truncateAfter !== undefined && `cut ${truncateAfter}`,
        hardState && `hard ${hardState.term} ${hardState.vote || "-"}`,
        entries.length > 0 && `entries ${entries[0]!.index}..${entries.at(-1)!.index}`,
      ];
      changes.push(`order ${order} (${parts.filter(Boolean).join(", ")})`);
    }
    if (effects.reads.length > 0) changes.push(`reads ${effects.reads.map(({ id, index }) => `${id}@${index}`)}`);
    if (effects.snapshots.length > 0) changes.push(`snapshot to ${effects.snapshots}`);
    this.trace.line(
      this.queue.now,
      () => `${node.id} ${textOf(input)}${changes.length > 0 ? ` => ${changes.join(", ")}` : ""}`,
    );
  }
}

function textOf(input: Input): string {
  if (input.type !== "message") {
    const { type, ...rest } = input;
    return `${type} ${JSON.stringify(rest, (key, value) => (key === "commands" || key === "entries" ? value.length : value))}`;
  }
  const { type, from, to: _, term, ...rest } = input.message;
  const body = JSON.stringify(rest, (key, value) =>
    key === "entries"
      ? value
          .map(
            (entry: { index: number; term: number; data: Uint8Array }) =>
              `${entry.index}/${entry.term}${kindOf(entry) === "configuration" ? "c" : ""}`,
          )
          .join(" ")
      : value,
  );
  return `<- ${from} ${type} term ${term} ${body}`;
}
