/**
 * Gives the pure Raft core (`raft/step.ts`) a disk, sockets and a clock.
 *
 * Everything that happens becomes an input, and inputs are taken one at a time: a frame, a wake-up, a finished write, a
 * proposal. A step's effects are obeyed at once and in this order, which is what the core's promises rest on:
 *   1. `send` goes out: a leader's entries travel while it writes them itself (thesis 10.2.1)
 *   2. `persist` joins the orders that wait for the disk; what hangs on them goes out when they are durable
 *   3. what is committed is applied, in bounded batches, and the state machine is told who leads
 * The way of one command on a cluster of one: `propose` – a microtask, so that callers of the same turn share an append –
 * step – one write, one sync – step – `apply`. Nothing else is awaited in between.
 *
 * Whoever opened the storage and the transport closes them, after this.
 */
import { unreachable } from "../../lib/assert.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { Consensus, ConsensusError, ConsensusStatus, StateMachine, StoredSnapshot } from "../consensus.ts";
import type { Disk } from "../kv/disk.ts";
import type { LogError, LogStorage } from "../kv/log/log-storage.ts";
import { isQuorum, membersOf } from "../raft/configuration.ts";
import { configurationOfState, initialState, type RaftState } from "../raft/state.ts";
import { deadline, step } from "../raft/step.ts";
import {
  type Configuration,
  type ConfigurationChange,
  DEFAULT_OPTIONS,
  type Effects,
  type Entry,
  type Index,
  type Input,
  type Message,
  type Options,
  type PeerId,
  type Persist,
  type SnapshotPoint,
  type Term,
} from "../raft/types.ts";
import { Alarm } from "./raft-runtime-alarm.ts";
import { Calls, firstIdOf } from "./raft-runtime-calls.ts";
import { DIGEST_EVERY, Digests, decodeDigest, encodeDigest } from "./raft-runtime-digests.ts";
import { MachineDriver } from "./raft-runtime-driver.ts";
import { Persister } from "./raft-runtime-persister.ts";
import { Reads } from "./raft-runtime-reads.ts";
import { notLeader, refused, unavailable, WAITERS_MAX, Waiters } from "./raft-runtime-waiters.ts";
import { SnapshotDispatch } from "./snapshot-dispatch.ts";
import { SnapshotReceiver, type TransferLimits } from "./snapshot-transfer.ts";
import { Snapshots } from "./snapshots.ts";
import type { Frame, Transport } from "./transport.ts";

export type RaftRuntimeOptions = {
  readonly id: PeerId;
  /** Opened. */
  readonly storage: LogStorage;
  readonly disk: Disk;
  /** Where the snapshots are. */
  readonly directory: string;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly machine: StateMachine;
  readonly options?: Partial<Options>;
  /** A snapshot is due once the log grew by this, or by the last snapshot's bytes if that is more. */
  readonly snapshotBytesMin: number;
  readonly transferLimits?: TransferLimits;
  /** Called with the runtime before the machine is. */
  readonly attach?: (runtime: RaftRuntime) => void;
  readonly start: {
    /** The newest good one, which is the machine's state already. */
    readonly snapshot: StoredSnapshot | undefined;
    /** The indexes of further snapshot files. */
    readonly olderSnapshots: readonly Index[];
    /** In force at the snapshot; without one, the first of all. Empty for a node that waits to be added to a cluster. */
    readonly configuration: Configuration;
    /** All that the log's files hold. */
    readonly entries: readonly Entry[];
    /**
     * The machine's state is as of this entry of the log, beyond the snapshot: for a node that was always alone, whose whole
     * log is committed. `bytes`: what the log grew by since the snapshot.
     */
    readonly applied?: SnapshotPoint & { readonly bytes: number };
    /** See `Damage` in log-storage.ts. */
    readonly recoverThrough: Index | "lost" | undefined;
  };
};

/** How often it is looked whether something waits too long, while something waits. */
const SWEEP_MS = 50;

/** The first byte of a request: for the state machine, or a digest, which has no answer. */
const FOR_MACHINE = 0;
const FOR_DIGEST = 1;

export class RaftRuntime implements Consensus {
  readonly id: PeerId;
  readonly #options: RaftRuntimeOptions;
  readonly #core: Options;
  #state: RaftState;

  readonly #inputs: Input[] = [];
  #isStepping = false;
  #proposals: { readonly term: Term; readonly commands: Uint8Array[] } | undefined;

  readonly #driver: MachineDriver;
  readonly #persister: Persister;
  readonly #snapshots: Snapshots;
  readonly #receiver: SnapshotReceiver;
  readonly #dispatch: SnapshotDispatch;
  readonly #received = new Map<Index, StoredSnapshot>();
  /** The log starts over after this snapshot: nothing is applied before it is installed. */
  #installIndex: Index | undefined;
  #installing: Promise<void> = Promise.resolve();

  readonly #reads: Reads;
  readonly #calls: Calls;
  readonly #digests: Digests;
  readonly #waiters = new Waiters();
  #isSweeping = false;

  readonly #alarm: Alarm;
  readonly #ended = new AbortController();
  #closing: Promise<void> | undefined;
  #full: string | undefined;
  #failure: string | undefined;

  static start(options: RaftRuntimeOptions): RaftRuntime {
    const runtime = new RaftRuntime(options);
    const isRecovered = options.start.recoverThrough !== undefined && runtime.#state.recoverThrough === undefined;
    if (isRecovered) void runtime.#noteRecovered();
    options.attach?.(runtime);
    // A node that decides alone stands for election at once, whatever the clock does.
    if (deadline(runtime.#state) <= options.clock.monotonicMs()) runtime.#take({ type: "tick" });
    else runtime.#run();
    return runtime;
  }

  private constructor(options: RaftRuntimeOptions) {
    const { id, storage, disk, directory, transport, clock, random, log, machine, start } = options;
    this.id = id;
    this.#digests = new Digests(id);
    this.#options = options;
    this.#core = { ...DEFAULT_OPTIONS, ...options.options };
    const { applied } = start;
    const point = applied ?? start.snapshot?.point ?? { index: 0, term: 0, configuration: start.configuration };
    const now = clock.monotonicMs();
    const state = initialState({
      id,
      options: this.#core,
      hardState: storage.hardState,
      snapshot: point,
      entries: start.entries,
      previousTerm: storage.termOf(storage.firstIndex - 1) ?? 0,
      recoverThrough: start.recoverThrough === "lost" ? Number.POSITIVE_INFINITY : start.recoverThrough,
      now,
      random,
    });
    // Who decides alone needn't wait for word from others before it stands for election.
    const isAlone = isQuorum(configurationOfState(state), (peer) => peer === id);
    this.#state = isAlone ? { ...state, electionAt: now } : state;
    this.#driver = new MachineDriver(
      {
        machine,
        log,
        state: () => this.#state,
        isFailed: () => this.#failure !== undefined,
        isClosing: () => this.#closing !== undefined,
        again: () => this.#run(),
        applied: (bytes) => {
          this.#snapshots.grew(bytes);
          if (this.#driver.index % DIGEST_EVERY === 0) void this.#compareDigest();
        },
        told: (index) => this.#inputs.push({ type: "applied", index }),
        leaderAppeared: () => this.#reads.leaderAppeared(),
        defect: (error) => this.#defect(error),
      },
      point,
    );
    this.#alarm = new Alarm(clock, () => {
      if (clock.monotonicMs() >= deadline(this.#state)) this.#take({ type: "tick" });
      else this.#alarm.set(deadline(this.#state));
    });
    this.#persister = new Persister({
      storage,
      durable: (orders) => this.#onDurable(orders),
      refused: (order, error) => this.#onRefused(order, error),
    });
    this.#snapshots = new Snapshots(
      {
        disk,
        directory,
        storage,
        machine,
        log,
        bytesMin: options.snapshotBytesMin,
        compacted: (to) => this.#take({ type: "compacted", point: to }),
      },
      start.snapshot,
      start.olderSnapshots,
    );
    if (applied) this.#snapshots.grew(applied.bytes);
    this.#dispatch = new SnapshotDispatch({
      disk,
      clock,
      log,
      transport,
      snapshots: this.#snapshots,
      take: async (index) => {
        if (this.#driver.index >= index && this.#canTakeSnapshot()) await this.#takeSnapshot();
      },
      sent: (to, index) => this.#take({ type: "snapshot-sent", to, index }),
      limits: options.transferLimits,
    });
    this.#receiver = new SnapshotReceiver({
      disk,
      directory,
      clock,
      log,
      send: (to, ack) => transport.send(to, ack),
      term: () => this.#state.term,
      appliedIndex: () => this.#driver.index,
      verify: (path) => machine.verify(path),
      received: (from, term, snapshot) => this.#onSnapshotReceived(from, term, snapshot),
    });
    this.#reads = new Reads({
      now: () => clock.monotonicMs(),
      ask: (readId) => this.#take({ type: "read", id: readId }),
      attemptMs: 2 * this.#core.electionMs,
      firstId: firstIdOf(random),
    });
    this.#calls = new Calls({
      transport,
      log,
      answer: (from, body) => machine.answer(from, body),
      firstId: firstIdOf(random),
    });
    transport.listen({
      frame: (from, frame) => this.#onFrame(from, frame),
      unreachable: (peer) => {
        if (this.#closing) return;
        this.#calls.unreachable(peer);
        this.#take({ type: "unreachable", peer });
      },
    });
  }

  status(): ConsensusStatus {
    const { term, leader, commit, log, peers, isHalted } = this.#state;
    const heardSince = this.#options.clock.monotonicMs() - 2 * this.#core.electionMs;
    return {
      id: this.id,
      role: this.#state.role,
      term,
      leader: isHalted ? undefined : leader,
      commitIndex: commit,
      appliedIndex: this.#driver.index,
      lastIndex: log.last,
      configuration: configurationOfState(this.#state),
      decidesAlone: this.#decidesAlone(),
      logBytes: this.#options.storage.bytes,
      snapshotIndex: this.#snapshots.newest?.point.index ?? 0,
      ...this.#health(),
      peers: [...peers].map(([id, { match, heardAt }]) => ({ id, match, isActive: heardAt >= heardSince })),
    };
  }

  /**
   * With any other member, a learner too, what is committed may be shown there before it is applied here. Nobody else was one
   * since the configuration that is applied, nor is by the last one in the log.
   */
  #decidesAlone(): boolean {
    const isOnlyMember = (at: Configuration) => membersOf(at).size === 1 && at.voters[0] === this.id;
    const isAlone = isOnlyMember(this.#driver.point.configuration) && isOnlyMember(configurationOfState(this.#state));
    return isAlone && this.#driver.isLeading;
  }

  #health(): Pick<ConsensusStatus, "health" | "message"> {
    const { recoverThrough } = this.#state;
    if (this.#closing) return { health: "closed" };
    if (this.#failure !== undefined) return { health: "failed", message: this.#failure };
    if (this.#full !== undefined) return { health: "full", message: this.#full };
    if (recoverThrough === undefined) return { health: "ok" };
    if (recoverThrough === Number.POSITIVE_INFINITY) {
      const message = "This node's log is lost. It has to leave the cluster and join it again under another id.";
      return { health: "lost", message };
    }
    const message = `This node's log was damaged. It votes again once it holds entry ${recoverThrough}.`;
    return { health: "recovering", message };
  }

  // --- What the store asks

  propose(term: Term, commands: readonly Uint8Array[]): void {
    if (this.#proposals?.term !== term) {
      this.#flushProposals();
      this.#proposals = { term, commands: [] };
      queueMicrotask(() => {
        if (!this.#persister.isBusy) this.#flushProposals();
      });
    }
    this.#proposals!.commands.push(...commands);
  }

  /**
   * What was proposed goes to the core at once when the disk is idle, and otherwise together, when the write that is under
   * way ends: it would have to wait for that anyway, and many small messages to each peer cost more than one.
   */
  #flushProposals(): void {
    const proposals = this.#proposals;
    this.#proposals = undefined;
    if (proposals) this.#take({ type: "propose", ...proposals });
  }

  readIndex(): Promise<Result<Index, ConsensusError>> {
    const refusal = this.#refusal();
    if (refusal) return Promise.resolve(fail(refusal));
    const read = this.#reads.readIndex();
    this.#sweepSoon();
    return read;
  }

  async changeConfiguration(change: ConfigurationChange): Promise<Result<void, ConsensusError>> {
    // Not within a call from here into the state machine.
    await Promise.resolve();
    const refusal = this.#refusal();
    if (refusal) return fail(refusal);
    if (this.#waiters.waiting >= WAITERS_MAX) return fail(refused("Too many wait for a change."));
    return new Promise((settle) => {
      this.#take({ type: "change-configuration", id: this.#waiters.askChange(settle), change });
      this.#sweepSoon();
    });
  }

  async transferLeadership(to?: PeerId): Promise<Result<void, ConsensusError>> {
    await Promise.resolve();
    const refusal = this.#refusal();
    if (refusal) return fail(refusal);
    if (this.#state.role !== "leader") return fail(refused(notLeader(this.#state.leader)));
    if (this.#waiters.waiting >= WAITERS_MAX) return fail(refused("Too many wait for a change."));
    this.#take({ type: "transfer", to });
    if (this.#state.role === "leader" && !this.#state.transfer) {
      return fail(refused(to === undefined ? "No other voter is alive." : `Node ${to} is no other voter.`));
    }
    return new Promise((settle) => {
      this.#waiters.awaitTransfer(this.#options.clock.monotonicMs(), settle);
      this.#lookAtWaiters();
      this.#sweepSoon();
    });
  }

  async request(to: PeerId, body: Uint8Array, timeoutMs: number): Promise<Result<Uint8Array, ConsensusError>> {
    if (this.#closing) return fail(CLOSED);
    if (to === this.id) return ok(await this.#options.machine.answer(to, body));
    const tagged = new Uint8Array(1 + body.length);
    tagged[0] = FOR_MACHINE;
    tagged.set(body, 1);
    const answer = this.#calls.request(to, tagged, this.#options.clock.monotonicMs() + timeoutMs);
    this.#sweepSoon();
    return answer;
  }

  /** Waits for what is being written, and tells everyone who waits that this node is closed. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.resolve();
    this.#inputs.length = 0;
    this.#ended.abort();
    this.#alarm.close();
    this.#driver.close();
    this.#reads.close(CLOSED);
    this.#calls.close(CLOSED);
    this.#waiters.close(CLOSED);
    await Promise.all([this.#persister.close(), this.#receiver.close(), this.#dispatch.close()]);
    await this.#installing;
    await this.#snapshots.close();
  }

  #refusal(): ConsensusError | undefined {
    if (this.#closing) return CLOSED;
    return this.#failure === undefined ? undefined : unavailable(this.#failure);
  }

  // --- The loop

  /** Takes an input; if it comes from within a step, after that. */
  #take(input: Input): void {
    if (this.#closing) return;
    this.#inputs.push(input);
    if (!this.#isStepping) this.#run();
  }

  #run(): void {
    if (this.#closing) return;
    this.#isStepping = true;
    try {
      do {
        // Bounded: each input brings at most a few others.
        for (let i = 0; i < this.#inputs.length; i++) this.#step(this.#inputs[i]!);
        this.#inputs.length = 0;
        this.#advance();
      } while (this.#inputs.length > 0);
    } catch (error) {
      this.#defect(error);
    }
    this.#isStepping = false;
    this.#alarm.set(deadline(this.#state));
    this.#options.machine.changed?.();
  }

  /** A node that decides wrongly does more harm than one that stands still. */
  #defect(error: unknown): void {
    this.#inputs.length = 0;
    this.#state = { ...this.#state, isHalted: true };
    this.#failed(`This node came upon something that cannot be, and stopped: ${error}`, error);
  }

  #step(input: Input): void {
    const { state, effects } = step(this.#state, input, this.#options.clock.monotonicMs(), this.#options.random);
    this.#state = state;
    this.#obey(effects);
  }

  #obey({ send, persist, reads, changes, fetch, snapshots, recovered }: Effects): void {
    const { transport } = this.#options;
    for (const message of send) transport.send(message.to, { type: "raft", message });
    for (const { restart } of persist) if (restart) this.#installIndex = restart.index;
    this.#persister.add(persist);
    for (const { id, index } of reads) this.#reads.answered(id, index);
    for (const { id, index } of changes) {
      this.#waiters.changeTaken(id, index, this.#state, this.#options.clock.monotonicMs());
    }
    for (const wanted of fetch) void this.#fetch(wanted);
    for (const peer of snapshots) this.#dispatch.begin(peer, this.#state.term);
    if (recovered) void this.#noteRecovered();
  }

  /** What follows from a step, beyond its effects. */
  #advance(): void {
    if (this.#installIndex === undefined) {
      this.#driver.applyCommitted();
      this.#driver.tellLeadership();
    }
    if (this.#waiters.waiting > 0) this.#lookAtWaiters();
    if (this.#dispatch.isBusy) {
      const { role, term, peers } = this.#state;
      this.#dispatch.end((peer, since) => role !== "leader" || term !== since || !peers.has(peer));
    }
    if (this.#snapshots.isDue && this.#canTakeSnapshot()) void this.#takeSnapshot();
  }

  // --- The disk

  #onDurable(orders: readonly Persist[]): void {
    if (this.#closing) return;
    const { transport } = this.#options;
    for (const { send, entries, hardState, restart } of orders) {
      if (entries.length > 0 || hardState) this.#full = undefined;
      if (restart) this.#install(restart);
      for (const message of send) transport.send(message.to, { type: "raft", message });
    }
    this.#take({ type: "persisted", order: orders.at(-1)!.order });
    this.#flushProposals();
  }

  #onRefused({ order }: Persist, error: LogError): void {
    if (this.#closing) return;
    if (error.reason !== "full") {
      this.#failed(`${error.message} Restart Hive on a good disk.`, error.cause);
      return;
    }
    if (this.#full === undefined) this.#options.log.error("raft.disk_full", { message: error.message });
    this.#full = `${error.message} Free some; writes are then accepted again.`;
    this.#take({ type: "persist-refused", order });
    this.#flushProposals();
  }

  /** This node decides nothing more: it neither writes, applies, votes nor leads until it is opened anew. */
  #failed(message: string, cause?: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = message;
    this.#options.log.error("raft.failed", { message, ...(cause !== undefined && { error: cause }) });
    this.#dispatch.end(() => true);
    this.#reads.close(unavailable(message));
    this.#waiters.close(unavailable(message));
    if (!this.#state.isHalted) {
      this.#take({ type: "halt" });
      return;
    }
    try {
      this.#driver.tellLeadership();
    } catch (error) {
      this.#options.log.error("raft.failed", { message: "The state machine could not be told.", error });
    }
    this.#options.machine.changed?.();
  }

  async #noteRecovered(): Promise<void> {
    this.#options.log.info("raft.recovered", { lastIndex: this.#state.log.last });
    const noted = await this.#options.storage.recovered();
    // It is tried again at the next start.
    if (!noted.ok) this.#options.log.warn("raft.recovery_not_noted", { message: noted.error.message });
  }

  async #fetch({ to, from, through }: Effects["fetch"][number]): Promise<void> {
    const { storage, log } = this.#options;
    let entries: readonly Entry[] = [];
    try {
      const last = Math.min(through, storage.lastIndex);
      if (from >= storage.firstIndex && from <= last) {
        const read = await storage.read(from, last, this.#core.messageBytesMax);
        if (read.ok) entries = read.value;
        else log.error("raft.entries_not_read", { from, message: read.error.message });
      }
    } catch (error) {
      // They were compacted while this waited for its turn.
      log.info("raft.entries_gone", { from, error });
    }
    if (entries.length === 0) this.#dispatch.unreadable(to, from);
    this.#take({ type: "fetched", to, entries });
  }

  // --- Snapshots

  /** The log holds what a snapshot of this node's own does: a leader may have applied what only others have written. */
  #canTakeSnapshot(): boolean {
    const isCurrent = this.#installIndex === undefined && this.#failure === undefined && !this.#closing;
    return isCurrent && this.#options.storage.lastIndex >= this.#driver.index;
  }

  async #takeSnapshot(): Promise<void> {
    await this.#snapshots.take(this.#driver.point);
  }

  /** @returns whether the core starts its log over after it; if not, the file is of no use */
  #onSnapshotReceived(from: PeerId, term: Term, snapshot: StoredSnapshot): boolean {
    const { point, path } = snapshot;
    this.#received.set(point.index, snapshot);
    this.#take({ type: "snapshot-received", from, term, point });
    if (this.#installIndex === point.index) return true;
    this.#received.delete(point.index);
    if (!this.#snapshots.has(point.index) && this.#driver.index < point.index) {
      void this.#options.disk.remove(path).catch(() => {});
    }
    return false;
  }

  /** The log has started over: the snapshot becomes the state. One after another, in the log's order. */
  #install({ index, term, configuration }: SnapshotPoint): void {
    const { machine, log } = this.#options;
    const snapshot = this.#received.get(index);
    this.#installing = this.#installing.then(async () => {
      if (this.#closing || this.#failure !== undefined) return;
      let installed: Result<void, string> = fail("its file is not known");
      try {
        if (snapshot) installed = await machine.install(snapshot);
      } catch (error) {
        installed = fail(String(error));
      }
      if (!installed.ok) {
        this.#failed(`The snapshot up to entry ${index} cannot be installed: ${installed.error}.`);
        return;
      }
      log.info("raft.snapshot_installed", { index, term, bytes: snapshot!.bytes });
      this.#received.delete(index);
      this.#driver.installed({ index, term, configuration });
      await this.#snapshots.installed(snapshot!);
      if (this.#installIndex === index) this.#installIndex = undefined;
      this.#take({ type: "applied", index });
    });
  }

  // --- Frames

  #onFrame(from: PeerId, frame: Frame): void {
    if (this.#closing) return;
    switch (frame.type) {
      case "raft":
        // Who is a member is for the core to judge: a node may not have heard yet of a leader that is.
        if (frame.message.from === from) this.#take({ type: "message", message: this.#takable(frame.message) });
        return;
      case "snapshot-chunk":
        if (this.#failure === undefined) this.#receiver.chunk(from, frame);
        return;
      case "snapshot-ack":
        this.#dispatch.ack(from, frame);
        return;
      case "request":
        if (!membersOf(configurationOfState(this.#state)).has(from)) return;
        if (frame.body[0] === FOR_DIGEST) this.#onDigest(from, frame.body);
        if (frame.body[0] === FOR_MACHINE) this.#calls.onRequest(from, frame.id, frame.body.subarray(1));
        return;
      case "response":
        this.#calls.onResponse(from, frame.id, frame.body);
        return;
      default:
        unreachable(frame);
    }
  }

  #takable(message: Message): Message {
    return message.type === "append" && this.#driver.isBehind ? { ...message, entries: [] } : message;
  }

  // --- Digests

  async #compareDigest(): Promise<void> {
    const index = this.#driver.index;
    let digest: number;
    try {
      digest = (await this.#options.machine.digest()) >>> 0;
    } catch {
      // What keeps the machine from answering is found where it applies.
      return;
    }
    if (this.#closing || this.#failure !== undefined) return;
    const body = encodeDigest(FOR_DIGEST, index, digest);
    for (const peer of membersOf(this.#driver.point.configuration)) {
      if (peer !== this.id) this.#options.transport.send(peer, { type: "request", id: 0, body });
    }
    this.#noteDigest(this.id, index, digest);
  }

  #onDigest(from: PeerId, body: Uint8Array): void {
    const said = decodeDigest(body);
    if (said && this.#failure === undefined) this.#noteDigest(from, said.index, said.digest);
  }

  #noteDigest(from: PeerId, index: Index, digest: number): void {
    const { configuration } = this.#driver.point;
    this.#digests.note(from, index, digest);
    const verdict = this.#digests.judge(index, configuration);
    const { directory } = this.#options;
    if (verdict === "outvoted") {
      this.#failed(
        `This node's state differs from the others' at entry ${index}, though all applied the same entries. It takes no part ` +
          `any more. Stop it and move its store directory ${directory} away, so that it is rebuilt from its peers.`,
      );
      return;
    }
    const { leader } = this.#state;
    if (leader === undefined || leader === this.id || from !== this.id) return;
    // Who follows gives way, but only where the others can't tell, or did not until now.
    const canBeTold = isQuorum(configuration, (peer) => peer !== this.id);
    if (!this.#digests.isInDoubt(leader, canBeTold ? index : index + 1, configuration)) return;
    this.#failed(
      `This node's state and that of its leader ${leader} came apart before entry ${index}, though both applied the same entries, ` +
        "and no majority tells which is right. It takes no part any more. Keep both store directories " +
        `(here ${directory}) until it is known which is wrong.`,
    );
  }

  // --- Who waits

  #lookAtWaiters(): void {
    this.#waiters.look(this.#state, this.#driver.index, this.#options.clock.monotonicMs());
  }

  #sweepSoon(): void {
    if (!this.#isSweeping) void this.#sweep();
  }

  /** Runs only while somebody waits. */
  async #sweep(): Promise<void> {
    const { clock } = this.#options;
    this.#isSweeping = true;
    while (this.#reads.waiting + this.#calls.waiting + this.#waiters.waiting > 0) {
      await clock.sleep(SWEEP_MS, this.#ended.signal);
      if (this.#closing) break;
      const now = clock.monotonicMs();
      this.#reads.timeOut(now);
      this.#calls.timeOut(now);
      this.#lookAtWaiters();
    }
    this.#isSweeping = false;
  }
}

const CLOSED: ConsensusError = { reason: "closed", message: "This node is stopping." };
