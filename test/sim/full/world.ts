/**
 * Whole nodes of the real code in one thread and in virtual time: log files, snapshots, runtime, replicated store, typed
 * tables, watches, leases, and clients on top. Only clock, disk, network and chance are the simulator's. The code lives on
 * promises; after each event all of them run to their end (`drainMicrotasks`), so that an event is all that follows from it.
 */
import { drainMicrotasks } from "bun:jsc";
import type { Consensus, ConsensusStatus } from "../../../src/cluster/consensus.ts";
import { type DiskOperation, diskError, MemoryDisk } from "../../../src/cluster/kv/memory-disk.ts";
import type { Frame } from "../../../src/cluster/node/transport.ts";
import { openRaftStore } from "../../../src/cluster/open-raft-store.ts";
import { configurationOf, membersOf } from "../../../src/cluster/raft/configuration.ts";
import type { Configuration, ConfigurationChange, PeerId, Term } from "../../../src/cluster/raft/types.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import type { Fields, Log } from "../../../src/lib/log.ts";
import type { Result } from "../../../src/lib/result.ts";
import type { Change, Reader, Store, StoreError } from "../../../src/model/store.ts";
import { EventQueue } from "../base/event-queue.ts";
import { Prng } from "../base/prng.ts";
import { withoutRealTime } from "../base/real-time.ts";
import { asViolation, type Outcome, Violation } from "../base/simulation.ts";
import { Trace } from "../base/trace.ts";
import { checkLinearizability } from "../check/linearizability.ts";
import { type SeenChange, Truth, WatchChecker } from "../check/watch-checker.ts";
import {
  Client,
  Keys,
  LeaseBook,
  LeaseClient,
  type Leased,
  leased,
  type Register,
  registers,
  type Server,
  TABLES,
} from "./clients.ts";
import { ProcessDisk } from "./disk.ts";
import { Recorder } from "./history.ts";
import { Network } from "./network.ts";
import type { FullFault, FullPlan } from "./plan.ts";

const DIRECTORY = "/store";
const EPOCH_MS = 1_700_000_000_000;
const SETTLE_MS = 180_000;
/** After the last fault, a lease that nobody keeps alive ends within its time and this. */
const LEASE_SLACK_MS = 15_000;
/** Waits for what is being written, which may take as long as anyone waits for an outcome. */
const CLOSE_MS = 30_000;
const REPLACED_MAX = 4;

/** One process, from its start to its end. */
type Life = {
  isOver: boolean;
  readonly ended: PromiseWithResolvers<void>;
  readonly watches: AbortController;
  server: Server | undefined;
  consensus: Consensus | undefined;
  isClosing: boolean;
  disk: ProcessDisk | undefined;
};

type Node = {
  readonly id: PeerId;
  disk: MemoryDisk;
  life: Life | undefined;
  /** What a directory of its begins with. */
  readonly configuration: Configuration;
  readonly rate: number;
  readonly offset: number;
  wallSkewMs: number;
  pausedUntil: number;
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

export function runFull(seed: number, plan: FullPlan, print?: (line: string) => void): Outcome {
  const world = new FullWorld(seed, plan, new Trace(print));
  let violation: Violation | undefined;
  try {
    withoutRealTime(world.immediates, () => world.run());
  } catch (error) {
    violation = asViolation(error);
  }
  world.end();
  const { events, hash } = world.trace;
  return { violation, events, faults: world.faults, histories: world.histories, unknown: world.unknown, hash };
}

class FullWorld {
  readonly plan: FullPlan;
  readonly trace: Trace;
  readonly queue = new EventQueue();
  histories = 0;
  unknown = 0;
  readonly #network: Network;
  readonly #prng: { readonly [part in "code" | "disk" | "clients" | "faults" | "crash"]: Prng };
  readonly #nodes = new Map<PeerId, Node>();
  readonly #recorder = new Recorder();
  readonly #truth = new Truth();
  readonly #leases: LeaseBook;
  readonly #keys: Keys;
  readonly #leaders = new Map<Term, PeerId>();
  /** By voter and term. */
  readonly #voted = new Map<string, PeerId>();
  /** By index and term: the CRC of an entry's data. */
  readonly #entries = new Map<number, number>();
  /** The revision that wrote each value; and what nodes were at when they said that it was written. */
  readonly #revisionOf = new Map<number, number>();
  readonly #acknowledged: { readonly server: string; readonly value: number; readonly revision: number }[] = [];
  #touched: Node | undefined;
  #violation: Violation | undefined;
  #values = 0;
  #faults = 0;
  #nodeNames = 0;
  #replacing = 0;
  #replaced = 0;
  #calmSince: number | undefined;
  #isEnded = false;

  constructor(seed: number, plan: FullPlan, trace: Trace) {
    this.plan = plan;
    this.trace = trace;
    const root = new Prng(seed, 4);
    const [code, network, disk, clients, faults, crash] = Array.from({ length: 6 }, () => root.fork());
    this.#prng = { code: code!, disk: disk!, clients: clients!, faults: faults!, crash: crash! };
    this.#network = new Network(this.queue, network!, plan);
    this.#network.onSend = (from, to, frame) => this.#sent(from, to, frame);
    this.#leases = new LeaseBook(plan.driftThousandths / 1000);
    this.#keys = new Keys(clients!.fork());
    this.#recorder.onLine = (text) => this.trace.line(this.queue.now, text);
    const voters = Array.from({ length: plan.voters }, (_, i) => `n${i + 1}`);
    for (const id of voters) this.#add(id, configurationOf(voters), root);
    this.#nodeNames = plan.voters;
    for (let i = 0; i < plan.spares; i++) this.#add(`n${++this.#nodeNames}`, configurationOf([]), root);
  }

  get faults(): number {
    return this.#faults + this.#network.faults;
  }

  /** For `setImmediate`, which knows of no node. */
  readonly immediates = {
    set: (run: () => void) => this.queue.after(0, run),
    clear: (event: unknown) => {
      if (event) this.queue.cancel(event as ReturnType<EventQueue["after"]>);
    },
  };

  run(): void {
    for (const node of this.#nodes.values()) this.#start(node);
    this.#startClients();
    this.#scheduleFaults();
    while (this.trace.events < this.plan.events && this.#next(Number.POSITIVE_INFINITY));
    this.#calm();
    this.#settle();
    this.#finalReads();
    this.#judge();
  }

  /** Nothing of this world does anything any more. */
  end(): void {
    this.#isEnded = true;
    for (const { life } of this.#nodes.values()) if (life) life.isOver = true;
  }

  #add(id: PeerId, configuration: Configuration, prng: Prng): Node {
    const drift = this.plan.driftThousandths / 1000;
    const node: Node = {
      id,
      disk: new MemoryDisk(),
      life: undefined,
      configuration,
      rate: 1 + drift * (2 * prng.share() - 1),
      offset: prng.below(100_000),
      wallSkewMs: 0,
      pausedUntil: 0,
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
    this.#nodes.set(id, node);
    return node;
  }

  // --- Events

  #next(until: number): boolean {
    this.#touched = undefined;
    if (!this.queue.step(until)) return false;
    this.trace.events++;
    drainMicrotasks();
    this.trace.mix(this.queue.now);
    if (this.#touched) this.#look(this.#touched);
    if (this.#violation) throw this.#violation;
    return true;
  }

  /** Does `run` in this life of the node, once it is awake. */
  #asNode(node: Node, life: Life, run: () => void): void {
    if (life.isOver) return;
    if (node.pausedUntil > this.queue.now) {
      node.held.push(() => this.#asNode(node, life, run));
      return;
    }
    this.#touched = node;
    run();
  }

  #fails(violation: Violation): void {
    this.#violation ??= violation;
  }

  /** The node's own view after an event: what must hold of it at any time. */
  #look(node: Node): void {
    const { life } = node;
    if (!life?.consensus || !life.server || life.isOver) return;
    const status = life.consensus.status();
    const { revision } = life.server.store.read();
    this.trace.mix(status.term * 4096 + status.appliedIndex);
    if (status.term < node.term)
      throw new Violation("terms never go back", `${node.id} ${node.term} to ${status.term}`);
    node.term = status.term;
    if (revision < node.revision) {
      throw new Violation("revisions never go back", `${node.id} ${node.revision} to ${revision}`);
    }
    node.revision = revision;
    if (status.role === "leader" && status.health !== "failed") this.#leads(node.id, status.term);
    if (status.health === "failed" && !life.isClosing) this.#hasFailed(node, life, status);
    if (status.health === "lost") this.#isLost(node);
    if (node.isSuspect && status.health === "ok" && node.pausedUntil === 0) this.#maybeRecovered(node, status);
  }

  #leads(id: PeerId, term: Term): void {
    const known = this.#leaders.get(term);
    if (known !== undefined && known !== id)
      throw new Violation("election safety", `${known} and ${id} in term ${term}`);
    this.#leaders.set(term, id);
    this.#votes(id, term, id);
  }

  #votes(voter: PeerId, term: Term, candidate: PeerId): void {
    const key = `${voter} ${term}`;
    const known = this.#voted.get(key);
    if (known !== undefined && known !== candidate) {
      throw new Violation("one vote a term", `${voter} voted for ${known} and ${candidate} in ${term}`);
    }
    this.#voted.set(key, candidate);
  }

  #sent(from: PeerId, to: PeerId, frame: Frame): void {
    if (frame.type !== "raft") return;
    const { message } = frame;
    if (message.type === "vote-reply" && message.granted) this.#votes(from, message.term, to);
    if (message.type !== "append") return;
    const { term, entries } = message;
    this.#leads(from, term);
    for (const entry of entries) {
      const key = entry.index * 2 ** 20 + entry.term;
      const crc = Number(Bun.hash.crc32(entry.data));
      const known = this.#entries.get(key);
      if (known === undefined) this.#entries.set(key, crc);
      else if (known !== crc) {
        throw new Violation("log matching", `${from} sends ${to} another entry ${entry.index} of term ${entry.term}`);
      }
    }
  }

  // --- Processes

  #start(node: Node): void {
    if (node.life || node.isReplaced || this.#isEnded) return;
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
    life.disk = this.#diskOf(node, life);
    this.#note("start", node);
    const { plan } = this;
    const opened = openRaftStore({
      directory: DIRECTORY,
      tables: TABLES,
      disk: life.disk,
      clock: this.#clockOf(node, life),
      random: this.#prng.code.fork(),
      log: this.#logOf(node, life),
      segmentBytes: plan.segmentBytes,
      snapshotBytesMin: plan.snapshotBytesMin,
      historyChangesMax: plan.historyChangesMax,
      options: plan.options,
      cluster: {
        id: node.id,
        clusterId: "simulated",
        configuration: node.configuration,
        transport: this.#network.transport(node.id, (run) => this.#asNode(node, life, run)),
      },
    });
    opened.then(
      (result) => {
        if (!life.isOver) this.#opened(node, life, result);
      },
      (error) => {
        if (!life.isOver) this.#fails(asViolation(error));
      },
    );
  }

  #opened(
    node: Node,
    life: Life,
    result: Result<{ readonly store: Store; readonly consensus: Consensus }, StoreError>,
  ): void {
    if (result.ok) {
      const { store, consensus } = result.value;
      life.consensus = consensus;
      life.server = { id: node.id, store, ended: life.ended.promise };
      this.trace.line(this.queue.now, () => `${node.id} is up at revision ${store.read().revision}`);
      void this.#watch(node, life, store, 0);
      void this.#watch(node, life, store, this.plan.thinkMs * 20);
      this.#look(node);
      return;
    }
    const { reason, message } = result.error;
    this.trace.line(this.queue.now, () => `${node.id} does not open: ${reason}: ${message}`);
    this.#lose(node);
    if (reason === "corrupt" && node.isSuspect) this.#replace(node);
    else if (reason === "full" || (reason === "failed" && (node.mayFail || node.isSuspect)))
      this.#restartLater(node, 200);
    else this.#fails(new Violation("a disk that is whole opens", `${node.id} ${reason}: ${message}`));
  }

  /** The process is gone, whatever it was doing. */
  #lose(node: Node): void {
    const { life } = node;
    if (!life) return;
    node.life = undefined;
    life.isOver = true;
    node.held = [];
    node.pausedUntil = 0;
    this.#network.leave(node.id);
    life.watches.abort();
    life.ended.resolve();
  }

  #restartLater(node: Node, meanMs: number): void {
    this.queue.after(this.#prng.faults.wait(meanMs), () => {
      if (!node.life) this.#start(node);
    });
  }

  #crash(node: Node): void {
    if (!node.life) return;
    this.#note("crash", node);
    this.#lose(node);
    const { crash } = this.#prng;
    node.disk = node.disk.afterCrash(crash, crash.pick(["nothing", "some", "some", "everything"]));
    this.#restartLater(node, this.plan.downMs);
  }

  #kill(node: Node): void {
    if (!node.life) return;
    this.#note("kill", node);
    this.#end(node);
  }

  /** The process is gone, and the machine goes on. */
  #end(node: Node): void {
    const { life } = node;
    this.#lose(node);
    life?.disk?.kill(() => this.#prng.crash.chance(0.5));
    drainMicrotasks();
    node.disk = node.disk.afterKill();
    this.#restartLater(node, this.plan.downMs);
  }

  #close(node: Node): void {
    const { life } = node;
    if (!life?.server || life.isClosing || node.pausedUntil > 0) return;
    this.#note("close", node);
    life.isClosing = true;
    const { store } = life.server;
    let isClosed = false;
    void store.close().then(() => {
      isClosed = true;
      if (life.isOver) return;
      this.#end(node);
    });
    this.queue.after(CLOSE_MS, () => {
      if (isClosed || life.isOver || node.stalledUntil > this.queue.now - CLOSE_MS || node.pausedUntil > 0) return;
      this.#fails(new Violation("closing ends", node.id));
    });
  }

  /** It gave up, as it may once its disk has failed; an operator starts it anew. */
  #hasFailed(node: Node, life: Life, { message }: ConsensusStatus): void {
    if (!node.mayFail && !node.isSuspect) {
      throw new Violation("a node fails only with its disk", `${node.id}: ${message}`);
    }
    life.isClosing = true;
    this.queue.after(this.#prng.faults.wait(300), () => {
      if (node.life === life) this.#crash(node);
    });
  }

  // --- What a process is given

  #clockOf(node: Node, life: Life): Clock {
    const monotonicMs = () => node.offset + node.rate * this.queue.now;
    return {
      monotonicMs,
      now: () => EPOCH_MS + this.queue.now + node.wallSkewMs,
      sleep: (ms, signal) =>
        new Promise<void>((resolve) => {
          if (signal?.aborted) {
            resolve();
            return;
          }
          const onAbort = () => {
            this.queue.cancel(event);
            resolve();
          };
          // A hair late, so that what was slept for has really gone by on the node's own clock.
          const event = this.queue.after(ms / node.rate + 1e-6, () => {
            this.#asNode(node, life, () => {
              signal?.removeEventListener("abort", onAbort);
              resolve();
            });
          });
          signal?.addEventListener("abort", onAbort, { once: true });
        }),
    };
  }

  #logOf(node: Node, life: Life): Log {
    const say = (level: string) => (event: string, fields?: Fields) => {
      if (life.isOver) return;
      this.trace.line(
        this.queue.now,
        () => `${node.id} ${level} ${event} ${JSON.stringify(fields ?? {}, errorsAsText)}`,
      );
      if (level === "error") this.#unexpected(node, event, fields);
    };
    const log: Log = {
      debug: say("debug"),
      info: say("info"),
      warn: say("warn"),
      error: say("error"),
      with: () => log,
    };
    return log;
  }

  /** Errors that no fault explains. */
  #unexpected(node: Node, event: string, fields: Fields | undefined): void {
    const message = String(fields?.message ?? "");
    const text = `${node.id} ${event} ${JSON.stringify(fields ?? {}, errorsAsText)}`;
    if (event === "raft.failed" && message.includes("cannot be")) {
      this.#fails(new Violation("the code's own assertions", text.slice(0, 600)));
    } else if (event === "raft.failed" && message.includes("differs")) {
      this.#fails(new Violation("all nodes hold the same", text));
    } else if (["store.forwarded_failed", "store.forward_refused", "raft.answer_failed"].includes(event)) {
      this.#fails(new Violation("nodes understand each other", text.slice(0, 600)));
    }
  }

  #diskOf(node: Node, life: Life): ProcessDisk {
    const { syncMs, readMs } = this.plan.disk;
    const prng = this.#prng.disk;
    node.disk.before = (operation) => this.#disturb(node, operation);
    return new ProcessDisk(life, node.disk, ({ kind }, done) => {
      const mean = MAKES_DURABLE.includes(kind) ? syncMs : kind === "write" ? syncMs / 20 : readMs;
      const stall = Math.max(0, node.stalledUntil - this.queue.now);
      if (mean === 0 && stall === 0) return false;
      this.queue.after((mean === 0 ? 0 : prng.wait(mean)) + stall, () => this.#asNode(node, life, done));
      return true;
    });
  }

  #disturb(node: Node, { kind, path, offset, length }: DiskOperation): void {
    if (kind === "write" || kind === "writeDurable") node.lastWrites.set(path, { from: offset, to: offset + length });
    const { disk } = node;
    if (disk.usedBytes >= disk.capacityBytes) node.mayFail = true;
    // Where files are written anew and not in place, a full disk refuses what was allocated long ago, too.
    if (node.fullUntil > this.queue.now && kind === "writeDurable" && this.#prng.disk.chance(0.3)) {
      node.mayFail = true;
      throw diskError("ENOSPC");
    }
    if (node.syncErrorsUntil <= this.queue.now || !MAKES_DURABLE.includes(kind)) return;
    if (!this.#prng.disk.chance(0.5)) return;
    node.mayFail = true;
    this.#note("sync error", node);
    throw diskError("EIO");
  }

  // --- Watches

  async #watch(node: Node, life: Life, store: Store, pauseMs: number): Promise<void> {
    const checker = new WatchChecker(this.#truth, `a watcher of ${node.id}`);
    const { signal } = life.watches;
    try {
      while (!life.isOver && !life.isClosing) {
        const reader = store.read();
        checker.began(reader.revision, contentsOf(reader));
        for await (const event of store.watch(TABLES, { fromRevision: reader.revision, signal })) {
          if (life.isOver) return;
          const shown = store.read().revision;
          if (event.kind === "compacted") {
            checker.compacted(event.revision, shown);
            break;
          }
          checker.changed(event.revision, event.changes.map(seen).sort(byKey), shown);
          for (const change of event.changes) this.#noteChange(event.revision, change);
          if (pauseMs > 0) await this.#sleep(this.#prng.clients.wait(pauseMs));
        }
        if (store.status().health === "closed") return;
      }
    } catch (error) {
      if (!life.isOver) this.#fails(asViolation(error));
    }
  }

  #noteChange(revision: number, { table, before, after }: Change): void {
    if (table.name === registers.name && after) this.#revisionOf.set((after as Register).value, revision);
    if (table.name === leased.name && before && !after) this.#leases.vanished((before as Leased).lease, this.queue.now);
  }

  // --- Clients

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.queue.after(ms, resolve));
  }

  #servers = (): readonly Server[] => {
    const found: Server[] = [];
    for (const { life, pausedUntil } of this.#nodes.values()) {
      if (life?.server && !life.isClosing && pausedUntil === 0) found.push(life.server);
    }
    return found;
  };

  #clientWorld() {
    return {
      now: () => this.queue.now,
      sleep: (ms: number) => this.#sleep(ms),
      isOver: () => this.#isEnded || this.#calmSince !== undefined,
      servers: this.#servers,
      recorder: this.#recorder,
      plan: this.plan,
      acknowledged: ({ id }: Server, value: number, revision: number) => {
        this.#acknowledged.push({ server: id, value, revision });
      },
      fails: (violation: Violation) => this.#fails(violation),
      leases: this.#leases,
    };
  }

  #startClients(): void {
    const { clients } = this.#prng;
    const run = (client: { run(): Promise<void> }) => {
      client.run().catch((error) => this.#fails(asViolation(error)));
    };
    for (let i = 0; i < this.plan.clients; i++) {
      run(new Client(`c${i + 1}`, this.#clientWorld(), clients.fork(), this.#keys, () => ++this.#values));
    }
    if (this.plan.leases) run(new LeaseClient("l1", this.#clientWorld(), clients.fork()));
  }

  // --- Faults

  #note(what: FullFault | "start" | "resume" | "calm" | "sync error" | "recovered" | "replaced", node?: Node): void {
    if (what !== "start" && what !== "resume" && what !== "calm" && what !== "recovered") this.#faults++;
    this.trace.mixText(what);
    this.trace.line(this.queue.now, () => `${node?.id ?? "--"} ${what}`);
  }

  #scheduleFaults(): void {
    const all = () => [...this.#nodes.values()].filter(({ isReplaced }) => !isReplaced);
    const acts: { readonly [fault in FullFault]: (prng: Prng) => void } = {
      crash: (prng) => {
        for (const node of prng.chance(0.1) ? all() : [prng.pick(all())]) this.#crash(node);
      },
      kill: (prng) => this.#kill(prng.pick(all())),
      close: (prng) => this.#close(prng.pick(all())),
      partition: (prng) => this.#partition(prng),
      unreachable: (prng) => this.#network.notice(prng.pick(all()).id, prng.pick(all()).id),
      pause: (prng) => this.#pause(prng.pick(all()), prng.wait(this.plan.options.electionMs * 4)),
      stall: (prng) => {
        const node = prng.pick(all());
        this.#note("stall", node);
        node.stalledUntil = this.queue.now + prng.wait(this.plan.options.diskStallMs * 2);
      },
      syncError: (prng) => {
        const node = prng.pick(all());
        this.#note("syncError", node);
        node.syncErrorsUntil = this.queue.now + prng.wait(50);
      },
      full: (prng) => {
        const node = prng.pick(all());
        this.#note("full", node);
        node.disk.capacityBytes = node.disk.usedBytes + prng.below(16_384);
        node.fullUntil = this.queue.now + prng.wait(500);
        this.queue.at(node.fullUntil, () => this.#freeSpace(node));
      },
      rot: (prng) => this.#rot(prng),
      wallJump: (prng) => {
        const node = prng.pick(all());
        this.#note("wallJump", node);
        node.wallSkewMs += (prng.share() - 0.5) * 86_400_000;
      },
      change: (prng) => this.#change(prng),
      transfer: (prng) => {
        const leader = this.#leader();
        if (!leader?.life?.consensus) return;
        this.#note("transfer", leader);
        void leader.life.consensus.transferLeadership(prng.chance(0.5) ? undefined : prng.pick(all()).id);
      },
    };
    for (const [fault, act] of Object.entries(acts) as [FullFault, (prng: Prng) => void][]) {
      const prng = this.#prng.faults.fork();
      const mean = this.plan.faults[fault];
      if (mean === 0) continue;
      const loop = () => {
        if (this.#calmSince !== undefined) return;
        act(prng);
        this.queue.after(prng.wait(mean), loop);
      };
      this.queue.after(prng.wait(mean), loop);
    }
  }

  #freeSpace(node: Node): void {
    if (node.fullUntil > this.queue.now) return;
    node.disk.capacityBytes = Number.POSITIVE_INFINITY;
  }

  #pause(node: Node, ms: number): void {
    const { life } = node;
    if (!life || node.pausedUntil > 0) return;
    this.#note("pause", node);
    node.pausedUntil = this.queue.now + ms;
    this.queue.at(node.pausedUntil, () => {
      if (node.life === life) this.#resume(node);
    });
  }

  #resume(node: Node): void {
    this.#note("resume", node);
    node.pausedUntil = 0;
    const waiting = node.held;
    node.held = [];
    for (const run of waiting) {
      run();
      drainMicrotasks();
    }
  }

  #partition(prng: Prng): void {
    const names = prng.shuffled([...this.#nodes.keys()]);
    if (this.#network.isCut || names.length < 2) return;
    this.#note("partition");
    const cutBoth = (a: PeerId, b: PeerId) => {
      this.#network.cut(a, b);
      this.#network.cut(b, a);
    };
    const middle = prng.between(1, names.length - 1);
    switch (prng.below(5)) {
      case 0:
        for (const a of names.slice(0, middle)) for (const b of names.slice(middle)) cutBoth(a, b);
        break;
      case 1:
        for (const a of names.slice(0, middle)) for (const b of names.slice(middle)) this.#network.cut(b, a);
        break;
      case 2: {
        const alone = this.#leader()?.id ?? names[0]!;
        for (const other of names) if (other !== alone) cutBoth(alone, other);
        break;
      }
      case 3: {
        // The leader is heard, and hears nobody.
        const deaf = this.#leader()?.id ?? names[0]!;
        for (const other of names) if (other !== deaf) this.#network.cut(other, deaf);
        break;
      }
      default:
        for (let i = 0; i < names.length; i++) this.#network.cut(prng.pick(names), prng.pick(names));
    }
    this.queue.after(prng.wait(this.plan.options.electionMs * this.plan.cutElections), () => this.#network.heal());
  }

  /** The nodes that no one doubts are enough to make up for one whose disk rots. */
  #canSpareOne(): boolean {
    if (this.#replacing > 0) return false;
    for (const { life, isSuspect, isReplaced } of this.#nodes.values()) {
      if (isReplaced) continue;
      const status = life?.consensus?.status();
      if (isSuspect || !status) return false;
      const { voters, outgoing } = status.configuration;
      if (outgoing.length > 0 || (voters.length > 0 && voters.length < 3)) return false;
    }
    return this.#leader() !== undefined;
  }

  /** Bytes of one node's files change, of writes that were known to be durable; it notices when it reads them, at a restart. */
  #rot(prng: Prng): void {
    const nodes = [...this.#nodes.values()].filter(({ isReplaced, life }) => !isReplaced && life);
    if (nodes.length === 0 || this.#replaced >= REPLACED_MAX || !this.#canSpareOne()) return;
    const node = prng.pick(nodes);
    const life = node.life!;
    const found = node.disk.list(DIRECTORY).catch(() => []);
    void found.then((names) => {
      if (node.life !== life || !this.#canSpareOne()) return;
      const files = names.filter((name) => /\.(segment|snapshot)$/.test(name)).sort();
      if (files.length === 0) return;
      const path = `${DIRECTORY}/${prng.pick(files)}`;
      const bytes = node.disk.peek(path);
      const safe = node.lastWrites.get(path);
      if (bytes.length === 0 || !safe) return;
      // Mostly where something is written: the rest is zeros.
      const length = prng.pick([1, 1, 16, 512]);
      const end = Math.max(1, Math.min(bytes.length, prng.chance(0.8) ? safe.from : bytes.length) - length);
      const at = prng.chance(0.5) ? Math.max(0, end - prng.below(2_000)) : prng.below(end);
      // A damaged last write can't be told from a torn one, which nobody relied on.
      if (at < safe.to && at + length > safe.from) return;
      const damaged = bytes.subarray(at, at + length).map((byte) => byte ^ (1 + prng.below(255)));
      node.disk.damage(path, at, new Uint8Array(damaged));
      node.isSuspect = true;
      node.rottedIn = life;
      this.#note("rot", node);
      this.trace.line(this.queue.now, () => `${node.id} ${path} rots at ${at}, ${length} bytes`);
      this.queue.after(prng.wait(100), () => {
        // The moment at which what it lost would be missed most.
        const leader = this.#leader();
        if (leader && leader !== node && prng.chance(0.4)) this.#crash(leader);
        if (node.life === life) this.#crash(node);
      });
    });
  }

  /** After a restart, it holds again what its leader has committed. */
  #maybeRecovered(node: Node, status: ConsensusStatus): void {
    if (node.rottedIn === node.life) return;
    const leader = this.#leader()?.life?.consensus?.status();
    if (!leader || leader.term !== status.term || status.leader !== leader.id) return;
    if (status.appliedIndex < leader.commitIndex || status.lastIndex < leader.commitIndex) return;
    node.isSuspect = false;
    this.#note("recovered", node);
  }

  #isLost(node: Node): void {
    if (!node.isSuspect) throw new Violation("a log is lost only to damage", node.id);
    this.#lose(node);
    this.#replace(node);
  }

  /** What an operator does with a node whose log is lost: another takes its place, under another name. */
  #replace(node: Node): void {
    if (node.isReplaced) return;
    node.isReplaced = true;
    this.#replaced++;
    this.#replacing++;
    this.#note("replaced", node);
    const fresh = this.#add(`n${++this.#nodeNames}`, configurationOf([]), this.#prng.faults);
    this.#start(fresh);
    void this.#changeUntilDone({ [node.id]: "removed", [fresh.id]: "voter" }).then(() => {
      this.#replacing--;
    });
  }

  async #changeUntilDone(change: ConfigurationChange): Promise<void> {
    while (!this.#isEnded) {
      await this.#sleep(200);
      const consensus = this.#leader()?.life?.consensus;
      if (consensus && (await consensus.changeConfiguration(change)).ok) return;
    }
  }

  #change(prng: Prng): void {
    const leader = this.#leader();
    const nodes = [...this.#nodes.values()].filter(({ isReplaced }) => !isReplaced);
    if (!leader?.life?.consensus || this.#replacing > 0 || nodes.some(({ isSuspect }) => isSuspect)) return;
    this.#note("change", leader);
    const change: { [peer: PeerId]: ConfigurationChange[PeerId] } = {};
    for (let i = prng.pick([1, 1, 2, 3]); i > 0; i--) {
      change[prng.pick(nodes).id] = prng.pick(["voter", "voter", "voter", "learner", "removed"]);
    }
    this.trace.line(this.queue.now, () => `${leader.id} is asked for ${JSON.stringify(change)}`);
    void leader.life.consensus.changeConfiguration(change);
  }

  /** Of those that think they lead, the one of the latest term. */
  #leader(): Node | undefined {
    let found: { readonly node: Node; readonly term: Term } | undefined;
    for (const node of this.#nodes.values()) {
      const { life } = node;
      if (!life?.consensus || !life.server || life.isClosing || node.pausedUntil > 0) continue;
      const { role, term, health } = life.consensus.status();
      if (role === "leader" && health === "ok" && (!found || term > found.term)) found = { node, term };
    }
    return found?.node;
  }

  // --- The end

  #calm(): void {
    this.#note("calm");
    this.#calmSince = this.queue.now;
    this.#network.isCalm = true;
    this.#network.heal();
    for (const node of this.#nodes.values()) {
      node.stalledUntil = node.syncErrorsUntil = node.fullUntil = 0;
      node.disk.capacityBytes = Number.POSITIVE_INFINITY;
      if (node.pausedUntil > 0) this.#resume(node);
      if (!node.life) this.#start(node);
    }
  }

  #runUntil(isDone: () => boolean, until: number): boolean {
    while (!isDone()) {
      if (this.queue.now >= until) return false;
      const stop = Math.min(until, this.queue.now + 20);
      while (this.#next(stop));
      this.queue.now = Math.max(this.queue.now, stop);
    }
    return true;
  }

  #settle(): void {
    const until = this.queue.now + SETTLE_MS;
    if (this.#runUntil(() => this.#isSettled(), until)) return;
    throw new Violation("the cluster converges once faults stop", this.#describe());
  }

  #isSettled(): boolean {
    const leader = this.#leader()?.life;
    if (!leader?.consensus || !leader.server || this.#replacing > 0) return false;
    const status = leader.consensus.status();
    const { configuration } = status;
    if (configuration.outgoing.length > 0 || configuration.joining.length > 0) return false;
    for (const id of membersOf(configuration)) {
      const life = this.#nodes.get(id)?.life;
      if (!life?.server || life.isClosing) return false;
      const own = life.consensus!.status();
      if (own.health !== "ok" || own.leader !== status.id || own.appliedIndex !== status.commitIndex) return false;
    }
    if (this.queue.now < this.#calmSince! + 500) return false;
    return this.#haveLeasesEnded(leader.server.store.read());
  }

  /** Records that nobody keeps alive vanish; for those that had all their time since the last fault, it is too late. */
  #haveLeasesEnded(reader: Reader): boolean {
    const held = reader.all(leased).map(({ lease }) => lease);
    const late = held.filter((lease) =>
      this.#leases.isOverdue(lease, this.queue.now, this.#calmSince! + LEASE_SLACK_MS),
    );
    if (late.length > 0) throw new Violation("a lease that nobody keeps ends", late.join());
    return held.every((lease) => !this.#leases.isLeft(lease));
  }

  /** Everything that was ever written is read once more, at every member. */
  #finalReads(): void {
    const { configuration } = this.#leader()!.life!.consensus!.status();
    const reader = new Client("final", this.#clientWorld(), this.#prng.clients, this.#keys, () => ++this.#values);
    let left = 0;
    for (const id of membersOf(configuration)) {
      const server = this.#nodes.get(id)!.life!.server!;
      for (const key of this.#keys.all) {
        left++;
        void reader.read(server, [key]).then(() => left--);
      }
    }
    if (!this.#runUntil(() => left === 0, this.queue.now + 30_000)) {
      throw new Violation("the cluster serves once faults stop", this.#describe());
    }
    for (const id of membersOf(configuration)) {
      const reader = this.#nodes.get(id)!.life!.server!.store.read();
      let hash = 0;
      for (const [key, text] of contentsOf(reader)) hash ^= Number(Bun.hash.crc32(`${key}\0${text}`)) | 0;
      this.#truth.stood(id, reader.revision, hash);
    }
  }

  #judge(): void {
    this.#recorder.end();
    for (const { server, value, revision } of this.#acknowledged) {
      const at = this.#revisionOf.get(value);
      if (at !== undefined && at > revision) {
        throw new Violation("a node shows its own writes", `${server} at ${revision} acknowledged ${value} of ${at}`);
      }
    }
    this.histories++;
    const verdict = checkLinearizability(this.#recorder.operations);
    if (verdict.kind === "unknown") this.unknown++;
    if (verdict.kind === "violation") throw new Violation("histories are linearizable", verdict.keys.join());
  }

  #describe(): string {
    return [...this.#nodes.values()]
      .map(({ id, life, isReplaced, isSuspect }) => {
        if (isReplaced) return `${id} replaced`;
        if (!life?.consensus) return `${id} ${life ? "opening" : "down"}`;
        const { role, term, leader, commitIndex, appliedIndex, lastIndex, configuration, health, message } =
          life.consensus.status();
        const { voters, outgoing, learners, joining } = configuration;
        const lists = `[${voters}|${outgoing}|${learners}|${joining}]`;
        return `${id} ${role} ${health}${isSuspect ? " suspect" : ""} term ${term} leader ${leader ?? "-"} commit ${commitIndex} applied ${appliedIndex} last ${lastIndex} ${lists} ${message ?? ""}`;
      })
      .concat(this.#replacing > 0 ? [`${this.#replacing} being replaced`] : [])
      .join("; ");
  }
}

const MAKES_DURABLE: readonly DiskOperation["kind"][] = ["datasync", "writeDurable", "syncDirectory"];

function contentsOf(reader: Reader): Map<string, string> {
  const contents = new Map<string, string>();
  for (const record of reader.all(registers)) contents.set(`registers/${record.id}`, JSON.stringify(record));
  for (const record of reader.all(leased)) contents.set(`leased/${record.id}`, JSON.stringify(record));
  return contents;
}

const seen = ({ table, key, before, after }: Change): SeenChange => ({
  key: `${table.name}/${key}`,
  before: before && JSON.stringify(before),
  after: after && JSON.stringify(after),
});
const byKey = (a: SeenChange, b: SeenChange): number => (a.key < b.key ? -1 : 1);

const errorsAsText = (_: string, value: unknown): unknown =>
  value instanceof Error ? `${value.message} ${value.stack}` : value;
