/** Processes of the real code, from their start to whatever ends them: a crash, a kill, an orderly close, a pause in between. */
import { drainMicrotasks } from "bun:jsc";
import type { Consensus, ConsensusStatus } from "../../../src/cluster/consensus.ts";
import { openRaftStore } from "../../../src/cluster/open-raft-store.ts";
import type { Result } from "../../../src/lib/result.ts";
import type { Store, StoreError } from "../../../src/model/store.ts";
import { asViolation, Violation } from "../base/simulation.ts";
import type { Cluster, Life, Node } from "./cluster.ts";
import { Environment } from "./environment.ts";
import { TABLES } from "./tables.ts";

export const DIRECTORY = "/store";
/** Waits for what is being written, which may take as long as anyone waits for an outcome. */
const CLOSE_MS = 30_000;
/** What an operator takes on average to start a process anew that gave up, or could not open its files. */
const RESTART_MS = { failed: 300, unopened: 200 };

export type ProcessPorts = {
  /** The store is open. */
  opened(node: Node, life: Life, store: Store): void;
  /** It has found out that its disk has lost what can't be made good here. */
  lostLog(node: Node): void;
};

type Opened = Result<{ readonly store: Store; readonly consensus: Consensus }, StoreError>;

export class Processes {
  readonly #cluster: Cluster;
  readonly #ports: ProcessPorts;
  readonly #environment: Environment;

  constructor(cluster: Cluster, ports: ProcessPorts) {
    this.#cluster = cluster;
    this.#ports = ports;
    this.#environment = new Environment(cluster);
  }

  start(node: Node): void {
    const cluster = this.#cluster;
    if (node.life || node.isReplaced || cluster.isEnded) return;
    const life: Life = {
      isOver: false,
      ended: Promise.withResolvers<void>(),
      watches: new AbortController(),
      server: undefined,
      consensus: undefined,
      isClosing: false,
      disk: undefined,
    };
    node.life = life;
    // What a term was told in is durable only where something was promised in it.
    node.term = node.revision = 0;
    node.mayFail = false;
    life.disk = this.#environment.diskOf(node, life);
    cluster.note("start", node);
    const { plan } = cluster;
    const opened = openRaftStore({
      directory: DIRECTORY,
      tables: TABLES,
      disk: life.disk,
      clock: this.#environment.clockOf(node, life),
      random: cluster.prng.code.fork(),
      log: this.#environment.logOf(node, life),
      segmentBytes: plan.segmentBytes,
      snapshotBytesMin: plan.snapshotBytesMin,
      historyChangesMax: plan.historyChangesMax,
      options: plan.options,
      cluster: {
        id: node.id,
        clusterId: "simulated",
        configuration: node.configuration,
        transport: cluster.network.transport(node.id, (run) => cluster.asNode(node, life, run)),
      },
    });
    opened.then(
      (result) => {
        if (!life.isOver) this.#opened(node, life, result);
      },
      (error) => {
        if (!life.isOver) cluster.fails(asViolation(error));
      },
    );
  }

  #opened(node: Node, life: Life, result: Opened): void {
    const cluster = this.#cluster;
    if (result.ok) {
      const { store, consensus } = result.value;
      life.consensus = consensus;
      life.server = {
        id: node.id,
        store,
        ended: life.ended.promise,
        runMs: () => (node.pausedUntil > 0 ? node.pausedAt : cluster.queue.now) - node.pausedMs,
        isClosing: () => life.isClosing,
      };
      cluster.line(() => `${node.id} is up at revision ${store.read().revision}`);
      this.#ports.opened(node, life, store);
      return;
    }
    const { reason, message } = result.error;
    cluster.line(() => `${node.id} does not open: ${reason}: ${message}`);
    this.#lose(node);
    if (reason === "corrupt" && node.isSuspect) this.#ports.lostLog(node);
    else if (reason === "full" || (reason === "failed" && (node.mayFail || node.isSuspect)))
      this.#restartLater(node, RESTART_MS.unopened);
    else cluster.fails(new Violation("a disk that is whole opens", `${node.id} ${reason}: ${message}`));
  }

  /** It gave up, as it may once its disk has failed; an operator starts it anew. */
  gaveUp(node: Node, life: Life, { message }: ConsensusStatus): void {
    if (!node.mayFail && !node.isSuspect) {
      throw new Violation("a node fails only with its disk", `${node.id}: ${message}`);
    }
    life.isClosing = true;
    this.#cluster.queue.after(this.#cluster.prng.faults.wait(RESTART_MS.failed), () => {
      if (node.life === life) this.crash(node);
    });
  }

  /** The log is gone, as may be after damage only. */
  lostLog(node: Node): void {
    if (!node.isSuspect) throw new Violation("a log is lost only to damage", node.id);
    this.#lose(node);
    this.#ports.lostLog(node);
  }

  /** The machine loses power, and comes back. */
  crash(node: Node): void {
    if (!node.life) return;
    this.#cluster.note("crash", node);
    this.#lose(node);
    const { crash } = this.#cluster.prng;
    node.disk = node.disk.afterCrash(crash, crash.pick(["nothing", "some", "some", "everything"]));
    this.#restartLater(node, this.#cluster.plan.downMs);
  }

  kill(node: Node): void {
    if (!node.life) return;
    this.#cluster.note("kill", node);
    this.#end(node);
  }

  /** The process ends in its own way, and is started again. */
  close(node: Node): void {
    const { life } = node;
    const { queue } = this.#cluster;
    if (!life?.server || life.isClosing || node.pausedUntil > 0) return;
    this.#cluster.note("close", node);
    life.isClosing = true;
    const { store } = life.server;
    let isClosed = false;
    void store.close().then(() => {
      isClosed = true;
      if (life.isOver) return;
      this.#end(node);
    });
    queue.after(CLOSE_MS, () => {
      if (isClosed || life.isOver || node.stalledUntil > queue.now - CLOSE_MS || node.pausedUntil > 0) return;
      this.#cluster.fails(new Violation("closing ends", node.id));
    });
  }

  pause(node: Node, ms: number): void {
    const { life } = node;
    const { queue } = this.#cluster;
    if (!life || node.pausedUntil > 0) return;
    this.#cluster.note("pause", node);
    node.pausedAt = queue.now;
    node.pausedUntil = queue.now + ms;
    queue.at(node.pausedUntil, () => {
      if (node.life === life) this.resume(node);
    });
  }

  resume(node: Node): void {
    this.#cluster.note("resume", node);
    node.pausedMs += this.#cluster.queue.now - node.pausedAt;
    node.pausedUntil = 0;
    const waiting = node.held;
    node.held = [];
    for (const run of waiting) {
      run();
      drainMicrotasks();
    }
  }

  /** The process is gone, and the machine goes on. */
  #end(node: Node): void {
    const { life } = node;
    this.#lose(node);
    life?.disk?.kill(() => this.#cluster.prng.crash.chance(0.5));
    drainMicrotasks();
    node.disk = node.disk.afterKill();
    this.#restartLater(node, this.#cluster.plan.downMs);
  }

  /** The process is gone, whatever it was doing. */
  #lose(node: Node): void {
    const { life } = node;
    if (!life) return;
    node.life = undefined;
    life.isOver = true;
    node.held = [];
    node.pausedUntil = 0;
    this.#cluster.network.leave(node.id);
    life.watches.abort();
    life.ended.resolve();
  }

  #restartLater(node: Node, meanMs: number): void {
    this.#cluster.queue.after(this.#cluster.prng.faults.wait(meanMs), () => {
      if (!node.life) this.start(node);
    });
  }
}
