/**
 * Whole nodes of the real code in one thread and in virtual time: log files, snapshots, runtime, replicated store, typed
 * tables, watches, leases, and clients on top. Only clock, disk, network and chance are the simulator's. The code lives on
 * promises; after each event all of them run to their end (`drainMicrotasks`), so that an event is all that follows from it.
 */
import { drainMicrotasks } from "bun:jsc";
import { type Immediates, withoutRealTime } from "../base/real-time.ts";
import { asViolation, type Outcome, Violation } from "../base/simulation.ts";
import { Trace } from "../base/trace.ts";
import { checkLinearizability } from "../check/linearizability.ts";
import { Calls } from "./calls.ts";
import { Client, Keys, type World } from "./clients.ts";
import { Cluster, type Node } from "./cluster.ts";
import { Convergence } from "./convergence.ts";
import { Faults } from "./faults.ts";
import { Recorder } from "./history.ts";
import { Invariants } from "./invariants.ts";
import { LeaseBook, LeaseClient } from "./leases.ts";
import { Operator } from "./operator.ts";
import type { FullPlan } from "./plan.ts";
import { Processes } from "./processes.ts";
import { Watchers } from "./watchers.ts";

export function runFull(seed: number, plan: FullPlan, print?: (line: string) => void): Outcome {
  const world = new FullWorld(seed, plan, new Trace(print));
  let violation: Violation | undefined;
  try {
    withoutRealTime(world.immediates, () => world.run());
  } catch (error) {
    violation = asViolation(error);
  }
  world.end();
  const { faults, trace } = world.cluster;
  const { histories, unknown } = world;
  return { violation, events: trace.events, faults, histories, unknown, hash: trace.hash };
}

class FullWorld {
  readonly cluster: Cluster;
  histories = 0;
  unknown = 0;
  readonly #recorder = new Recorder();
  readonly #invariants = new Invariants();
  readonly #leases: LeaseBook;
  readonly #keys: Keys;
  readonly #calls: Calls;
  readonly #watchers: Watchers;
  readonly #processes: Processes;
  readonly #operator: Operator;
  readonly #faults: Faults;
  readonly #convergence: Convergence;
  #values = 0;

  constructor(seed: number, plan: FullPlan, trace: Trace) {
    const cluster = new Cluster(seed, plan, trace);
    this.cluster = cluster;
    this.#recorder.onLine = (text) => cluster.line(text);
    cluster.network.onSend = (from, to, frame) => this.#invariants.sent(from, to, frame);
    this.#leases = new LeaseBook(plan.driftThousandths / 1000);
    this.#keys = new Keys(cluster.prng.clients.fork());
    this.#calls = new Calls({
      sleep: (ms) => cluster.sleep(ms),
      calledAt: ({ id }) => cluster.touched.add(cluster.nodes.get(id)!),
      fails: (violation) => cluster.fails(violation),
    });
    this.#watchers = new Watchers(cluster, this.#invariants, this.#leases);
    this.#processes = new Processes(cluster, {
      opened: (node, life, store) => {
        this.#watchers.start(node, life, store);
        this.#look(node);
      },
      lostLog: (node) => this.#operator.replace(node),
    });
    this.#operator = new Operator(cluster, (node) => this.#processes.start(node));
    this.#faults = new Faults(cluster, this.#processes, this.#operator);
    this.#convergence = new Convergence({
      cluster,
      operator: this.#operator,
      watchers: this.#watchers,
      calls: this.#calls,
      leases: this.#leases,
      keys: this.#keys,
      next: (until) => this.#next(until),
    });
  }

  /** For `setImmediate`, which knows of no node. */
  readonly immediates: Immediates = {
    set: (run) => this.cluster.queue.after(0, run),
    clear: (event) => {
      if (event) this.cluster.queue.cancel(event as ReturnType<Cluster["queue"]["after"]>);
    },
  };

  run(): void {
    const { cluster } = this;
    for (const node of cluster.nodes.values()) this.#processes.start(node);
    this.#startClients();
    this.#faults.schedule();
    while (cluster.trace.events < cluster.plan.events && this.#next(Number.POSITIVE_INFINITY));
    cluster.note("calm");
    cluster.calmSince = cluster.queue.now;
    this.#faults.end();
    this.#convergence.answerCalls();
    this.#convergence.settle(new Client("final", this.#clientWorld(), cluster.prng.clients, this.#keys));
    this.#judge();
  }

  /** Nothing of this world does anything any more. */
  end(): void {
    this.cluster.isEnded = true;
    for (const { life } of this.cluster.nodes.values()) if (life) life.isOver = true;
  }

  #next(until: number): boolean {
    const { cluster } = this;
    cluster.touched.clear();
    if (!cluster.queue.step(until)) return false;
    cluster.trace.events++;
    drainMicrotasks();
    cluster.trace.mix(cluster.queue.now);
    for (const node of cluster.touched) this.#look(node);
    if (cluster.violation) throw cluster.violation;
    return true;
  }

  /** The node's own view after an event. */
  #look(node: Node): void {
    const { life } = node;
    if (!life?.consensus || !life.server || life.isOver) return;
    const status = life.consensus.status();
    const { revision } = life.server.store.read();
    this.cluster.trace.mix(status.term * 4096 + status.appliedIndex);
    this.#invariants.stands(node, status, revision);
    if (status.health === "failed" && !life.isClosing) this.#processes.gaveUp(node, life, status);
    if (status.health === "lost") this.#processes.lostLog(node);
    if (node.isSuspect && status.health === "ok" && node.pausedUntil === 0) this.#operator.trustAgain(node, status);
  }

  #clientWorld(): World {
    const { cluster } = this;
    return {
      now: () => cluster.queue.now,
      sleep: (ms) => cluster.sleep(ms),
      isOver: () => cluster.isEnded || cluster.calmSince !== undefined,
      servers: cluster.servers,
      recorder: this.#recorder,
      calls: this.#calls,
      plan: cluster.plan,
      acknowledged: ({ id }, value, revision) => this.#invariants.acknowledged(id, value, revision),
      nextValue: () => ++this.#values,
    };
  }

  #startClients(): void {
    const { prng, plan } = this.cluster;
    const run = (client: { run(): Promise<void> }) => {
      client.run().catch((error) => this.cluster.fails(asViolation(error)));
    };
    for (let i = 0; i < plan.clients; i++) {
      run(new Client(`c${i + 1}`, this.#clientWorld(), prng.clients.fork(), this.#keys));
    }
    if (plan.leases) run(new LeaseClient("l1", this.#clientWorld(), prng.clients.fork(), this.#leases));
  }

  #judge(): void {
    this.#recorder.end();
    this.#invariants.checkOwnWrites();
    this.histories++;
    const verdict = checkLinearizability(this.#recorder.operations);
    if (verdict.kind === "unknown") this.unknown++;
    if (verdict.kind === "violation") throw new Violation("histories are linearizable", verdict.keys.join());
  }
}
