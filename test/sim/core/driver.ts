/**
 * What drives a core: starts it from what its disk holds, gives it its inputs and its clock, carries out what a step asks for.
 * A model of `src/cluster/node/raft-runtime.ts`, in the same order of things.
 */
import { decodeConfiguration, isQuorum, kindOf } from "../../../src/cluster/raft/configuration.ts";
import { slice } from "../../../src/cluster/raft/log.ts";
import { configurationOfState, initialState, type RaftState } from "../../../src/cluster/raft/state.ts";
import { deadline, step } from "../../../src/cluster/raft/step.ts";
import type { Effects, Index, Input, Message, PeerId, Persist } from "../../../src/cluster/raft/types.ts";
import { Violation } from "../base/simulation.ts";
import { chained, hashOf } from "./checks.ts";
import type { Cluster, Node } from "./cluster.ts";
import { describeInput, describeStep } from "./transcript.ts";

const SPINS_MAX = 200;

export type DriverPorts = {
  send(node: Node, message: Message): void;
  sendSnapshot(node: Node, to: PeerId): void;
  /** It has applied more: a snapshot may be due. */
  applied(node: Node): void;
  readDone(node: Node, id: number, index: Index | undefined): void;
  changeDone(node: Node, id: number): void;
  /** It has just begun to lead. */
  elected(node: Node): void;
  /** Its process is gone: nobody who asked there is answered. */
  lost(node: Node): void;
};

export class Driver {
  readonly #cluster: Cluster;
  readonly #ports: DriverPorts;

  constructor(cluster: Cluster, ports: DriverPorts) {
    this.#cluster = cluster;
    this.#ports = ports;
  }

  // --- A node's lives

  start(node: Node): void {
    const cluster = this.#cluster;
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
    cluster.ledger.applied(node.id, node.applied, node.chain);
    const state = initialState({
      id: node.id,
      options: cluster.plan.options,
      hardState,
      snapshot: snapshot.point,
      entries,
      previousTerm,
      recoverThrough: node.recoverThrough,
      now: cluster.local(node),
      random: cluster.prng.core,
    });
    node.state = state;
    // What was made good already is noted.
    node.recoverThrough = state.recoverThrough;
    cluster.ledger.started(node, state);
    cluster.line(() => {
      const { log, term, vote } = state;
      return `${node.id} starts: term ${term}, vote ${vote || "-"}, log ${log.base.index}..${log.last}`;
    });
    this.#arm(node);
  }

  restart(node: Node): void {
    if (node.state) return;
    this.#cluster.note("restart", node);
    this.start(node);
  }

  crash(node: Node): void {
    if (!node.state) return;
    this.lose(node);
    node.disk.crash(this.#cluster.prng.crash);
    this.#cluster.note("crash", node);
  }

  /** The process is gone; what its disk keeps is decided elsewhere. */
  lose(node: Node): void {
    const { queue } = this.#cluster;
    node.life++;
    node.state = undefined;
    queue.cancel(node.timer);
    queue.cancel(node.syncing);
    node.timer = node.syncing = undefined;
    node.paused = [];
    node.pausedUntil = 0;
    this.#ports.lost(node);
  }

  resume(node: Node): void {
    this.#cluster.note("resume", node);
    node.pausedUntil = 0;
    const waiting = node.paused;
    node.paused = [];
    for (const run of waiting) run();
  }

  // --- Its steps

  input(node: Node, input: Input): void {
    const before = node.state;
    if (!before) return;
    const cluster = this.#cluster;
    const { state, effects } = this.#step(node, before, input);
    node.state = state;
    this.#mix(node, input, state);
    if (cluster.trace.isPrinting) cluster.line(() => describeStep(node.id, input, before, state, effects));
    cluster.ledger.stepped(node, before, state, effects, cluster.nodes);
    const isNewlyLed = before.role !== "leader" || configurationOfState(state) !== configurationOfState(before);
    if (state.role === "leader" && isNewlyLed) node.ledSince = cluster.queue.now;
    if (state.role === "leader" && before.role !== "leader") this.#ports.elected(node);
    this.#carryOut(node, effects);
    if (node.state === state) this.#arm(node);
  }

  deliver(node: Node, message: Message): void {
    if (!node.state) return;
    if (message.term === node.state.term) node.heard.set(message.from, this.#cluster.queue.now);
    this.input(node, { type: "message", message });
  }

  #step(node: Node, state: RaftState, input: Input): { state: RaftState; effects: Effects } {
    const cluster = this.#cluster;
    try {
      return step(state, input, cluster.local(node), cluster.prng.core);
    } catch (error) {
      cluster.line(() => `${node.id} ${describeInput(input)} => throws`);
      throw error;
    }
  }

  #mix(node: Node, input: Input, state: RaftState): void {
    const { trace, queue } = this.#cluster;
    trace.mix(queue.now);
    trace.mix(node.id.charCodeAt(1) * 64 + input.type.length);
    trace.mix(state.term);
    trace.mix(state.log.last * 1024 + state.commit);
  }

  #arm(node: Node): void {
    if (!node.state) return;
    const { queue } = this.#cluster;
    const local = deadline(node.state);
    if (local === Number.POSITIVE_INFINITY) {
      queue.cancel(node.timer);
      node.timer = undefined;
      return;
    }
    // A hair late, so that rounding never makes it early for ever.
    const at = Math.max(queue.now, (local - node.offset) / node.rate + 1e-6);
    // A timer that rings too early finds that out and is set again: cheaper than moving it with each heartbeat.
    if (node.timer?.run && node.timer.at <= at) return;
    queue.cancel(node.timer);
    const { life } = node;
    node.timer = queue.at(at, () => this.#cluster.whenAwake(node, life, () => this.#ring(node)));
  }

  #ring(node: Node): void {
    const isDue = () => node.state !== undefined && deadline(node.state) <= this.#cluster.local(node);
    node.timer = undefined;
    if (!isDue()) {
      this.#arm(node);
      return;
    }
    this.input(node, { type: "tick" });
    if (node.state) this.#checkLeader(node, node.state);
    node.spins = isDue() ? node.spins + 1 : 0;
    if (node.spins > SPINS_MAX) throw new Violation("a tick moves the deadline on", node.id);
  }

  /** A leader that is cut off, or whose disk hangs, leads no longer than its bounds say. */
  #checkLeader(node: Node, state: RaftState): void {
    const { electionMs, diskStallMs } = this.#cluster.plan.options;
    if (state.role !== "leader" || node.pausedUntil > 0) return;
    const since = this.#cluster.queue.now - 4 * electionMs;
    const isHeard = (peer: PeerId) => peer === node.id || (node.heard.get(peer) ?? 0) >= since;
    if (node.ledSince < since && !isQuorum(configurationOfState(state), isHeard)) {
      throw new Violation("a leader that is cut off steps down", node.id);
    }
    const waits = state.openOrders[0];
    if (waits && state.peers.size > 0 && this.#cluster.local(node) - waits.at > diskStallMs + 2 * electionMs) {
      throw new Violation("a leader whose disk hangs steps down", node.id);
    }
  }

  // --- What a step asks for

  #carryOut(node: Node, effects: Effects): void {
    const { prng, plan } = this.#cluster;
    for (const order of effects.persist) this.#persist(node, order);
    for (const message of effects.send) this.#ports.send(node, message);
    for (const { id, index } of effects.reads) this.#ports.readDone(node, id, index);
    for (const { id } of effects.changes) this.#ports.changeDone(node, id);
    for (const { to, from, through } of effects.fetch) {
      this.#cluster.later(node, prng.disk.wait(plan.disk.syncMs), () => {
        const fails = !this.#cluster.isHealing && prng.disk.chance(0.05);
        const entries = fails ? [] : node.disk.read(from, through, plan.options.messageBytesMax);
        this.input(node, { type: "fetched", to, entries });
      });
    }
    for (const peer of effects.snapshots) this.#ports.sendSnapshot(node, peer);
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
    const { queue, prng, plan } = this.#cluster;
    const group = [...node.disk.orders];
    const stall = Math.max(0, node.stalledUntil - queue.now);
    const wait = prng.disk.wait(plan.disk.syncMs) + stall;
    const { life } = node;
    node.syncing = queue.after(wait, () => {
      if (node.life !== life) return;
      node.syncing = undefined;
      if (node.fullUntil > queue.now) {
        this.#refuse(node, life, group[0]!);
        return;
      }
      for (const order of group) node.disk.complete(order);
      this.#cluster.whenAwake(node, life, () => {
        for (const order of group) {
          for (const message of order.send) this.#ports.send(node, message);
          this.input(node, { type: "persisted", order: order.order });
          if (node.life !== life) return;
        }
      });
      this.#sync(node);
    });
  }

  #refuse(node: Node, life: number, { order }: Persist): void {
    node.disk.refuse(this.#cluster.prng.crash);
    // Nothing of what comes until the core knows is carried out either.
    node.refusing = true;
    this.#cluster.whenAwake(node, life, () => {
      node.refusing = false;
      this.input(node, { type: "persist-refused", order });
    });
  }

  #apply(node: Node): void {
    const state = node.state!;
    if (node.applying || node.applied >= state.commit) return;
    const { prng, plan, ledger } = this.#cluster;
    node.applying = true;
    this.#cluster.later(node, plan.applyMs === 0 ? 0 : prng.disk.wait(plan.applyMs), () => {
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
      ledger.applied(node.id, node.applied, node.chain);
      this.input(node, { type: "applied", index: node.applied });
      this.#ports.applied(node);
    });
  }
}
