/**
 * The store's side of a Worker that holds consensus: what the store asks goes there as messages, and what comes from there
 * drives the state machine. A Worker that ends without being told to is a node that failed: whoever waits is told so.
 */
import { present, unreachable } from "../../lib/assert.ts";
import type { Log } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { KIB } from "../../lib/units.ts";
import type { StoreError } from "../../model/store.ts";
import type { Consensus, ConsensusError, ConsensusStatus, StateMachine, StoredSnapshot } from "../consensus.ts";
import { storeError } from "../kv/store-errors.ts";
import type { FoundLog, Ground, OpenLog, Replayed } from "../node/open-consensus.ts";
import type { PeerAddress, TransportStats } from "../node/tcp-transport.ts";
import type { ConfigurationChange, Index, PeerId, Term } from "../raft/types.ts";
import { alone, Channel, Questions, reply } from "./channel.ts";
import {
  type ConsensusCalls,
  type ListenAt,
  type MachineCalls,
  type PackedEntries,
  pack,
  type Question,
  type ToConsensus,
  type ToStore,
  unpackEntries,
} from "./messages.ts";

/** How this node is reached by the others, and they by it. */
export interface Listener {
  readonly port: number;
  /** Where the peers are, from now on. */
  setPeers(peers: ReadonlyMap<PeerId, PeerAddress>): void;
  stats(): Promise<Result<TransportStats, ConsensusError>>;
}

/** What is applied is told with the next message, or on its own after so much. A fraction of what may be handed over. */
const TELL_APPLIED_BYTES = 256 * KIB;

/** Where the Worker's program is. In the compiled binary its name is the one below the folder that holds `main.ts`. */
const PROGRAM = Bun.main.startsWith("/$bunfs/")
  ? "./cluster/worker/consensus-worker.ts"
  : new URL("./consensus-worker.ts", import.meta.url);

/** Starts a Worker that opens the log, and listens for other nodes. */
export async function openRemoteLog(
  ground: Ground,
  listen: ListenAt,
  log: Log,
): Promise<Result<OpenLog & { readonly listener: Listener }, StoreError>> {
  const remote = new RemoteConsensus(ground, new Worker(listen.program ?? PROGRAM), log);
  const opened = await remote.open(listen);
  if (opened.ok) return ok(remote);
  await remote.close();
  return opened;
}

class RemoteConsensus implements Consensus, OpenLog, Listener {
  readonly id: PeerId;
  readonly listener: Listener = this;
  readonly #ground: Ground;
  readonly #worker: Worker;
  readonly #log: Log;
  readonly #channel: Channel<ToConsensus>;
  readonly #questions: Questions<ConsensusCalls>;
  #found: FoundLog | undefined;
  #port = 0;

  #machine: StateMachine | undefined;
  /** By the machine, which may be behind what consensus handed over. */
  #applied: Index;
  /** Not told yet. */
  #untoldBytes = 0;
  #mustTell = false;
  /** The machine came upon something that cannot be: it is in no state to be driven on. */
  #isDefect = false;
  #ledTerm: Term | undefined;
  #status: ConsensusStatus | undefined;
  /** Changes of the configuration that were asked for and not answered. */
  #changes = 0;
  /** The question that those share who ask before it is posted: only then is the answer about what they were told before. */
  #read: { readonly answer: Promise<Result<Index, ConsensusError>>; readonly posts: number } | undefined;

  readonly #opened = Promise.withResolvers<Result<void, StoreError>>();
  readonly #started = Promise.withResolvers<Result<Consensus, StoreError>>();
  readonly #ended = Promise.withResolvers<void>();
  #attach: ((consensus: Consensus) => void) | undefined;
  #closing: Promise<void> | undefined;
  /** Why nothing comes from the Worker any more. */
  #end: ConsensusError | undefined;

  constructor(ground: Ground, worker: Worker, log: Log) {
    this.id = ground.id;
    this.#ground = ground;
    this.#applied = ground.snapshot?.point.index ?? 0;
    this.#worker = worker;
    this.#log = log;
    this.#channel = new Channel(worker);
    this.#questions = new Questions(this.#channel);
    worker.onmessage = ({ data }: MessageEvent<readonly ToStore[]>) => {
      for (const message of data) this.#hear(message);
      if (this.#mustTell || this.#untoldBytes >= TELL_APPLIED_BYTES) this.#tellApplied();
    };
    worker.onerror = ({ message }) => this.#died(message);
    worker.addEventListener("close", () => this.#died("it ended"));
  }

  // --- Opening

  open(listen: ListenAt): Promise<Result<void, StoreError>> {
    const { program: _, ...rest } = listen;
    this.#channel.send({ type: "open", ground: this.#ground, listen: rest });
    return this.#opened.promise;
  }

  get found(): FoundLog {
    return present(this.#found, "the log is open");
  }

  start(
    machine: StateMachine,
    replayed: Replayed | undefined,
    attach: (consensus: Consensus) => void,
  ): Promise<Result<Consensus, StoreError>> {
    this.#machine = machine;
    this.#attach = attach;
    if (replayed) this.#applied = replayed.index;
    this.#send({ type: "start", replayed });
    return this.#started.promise;
  }

  // --- Other nodes

  get port(): number {
    return this.#port;
  }
  setPeers(peers: ReadonlyMap<PeerId, PeerAddress>): void {
    this.#send({ type: "peers", peers });
  }
  stats(): Promise<Result<TransportStats, ConsensusError>> {
    return this.#ask(() => this.#questions.ask("stats", undefined));
  }

  // --- What the store asks

  status(): ConsensusStatus {
    const told = present(this.#status, "consensus has started");
    const status = {
      ...told,
      appliedIndex: this.#applied,
      commitIndex: Math.max(told.commitIndex, this.#applied),
      lastIndex: Math.max(told.lastIndex, this.#applied),
      // What was asked for here may be so by now.
      decidesAlone: told.decidesAlone && this.#changes === 0,
    };
    if (this.#end) {
      const health = this.#closing ? "closed" : "failed";
      return {
        ...status,
        role: "follower",
        leader: undefined,
        decidesAlone: false,
        peers: [],
        health,
        message: this.#end.message,
      };
    }
    return this.#closing ? { ...status, decidesAlone: false, health: "closed" } : status;
  }

  propose(term: Term, commands: readonly Uint8Array[]): void {
    const packed = pack(commands);
    this.#send({ type: "propose", term, commands: packed }, packed.bytes.buffer);
  }

  readIndex(): Promise<Result<Index, ConsensusError>> {
    const { posts } = this.#channel;
    if (this.#read?.posts !== posts) {
      this.#read = { answer: this.#ask(() => this.#questions.ask("readIndex", undefined)), posts };
    }
    return this.#read.answer;
  }

  async changeConfiguration(change: ConfigurationChange): Promise<Result<void, ConsensusError>> {
    this.#changes++;
    const changed = await this.#ask(() => this.#questions.ask("changeConfiguration", change));
    this.#changes--;
    return changed;
  }

  transferLeadership(to?: PeerId): Promise<Result<void, ConsensusError>> {
    return this.#ask(() => this.#questions.ask("transferLeadership", to));
  }

  request(to: PeerId, body: Uint8Array, timeoutMs: number): Promise<Result<Uint8Array, ConsensusError>> {
    const own = alone(body);
    return this.#ask(() => this.#questions.ask("request", { to, body: own, timeoutMs }, own.buffer));
  }

  /** Waits until everything there is closed, and the Worker has ended. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#send({ type: "close" });
    await this.#ended.promise;
    this.#worker.terminate();
  }

  async #ask<T>(ask: () => Promise<Result<T, ConsensusError>>): Promise<Result<T, ConsensusError>> {
    if (this.#end) return fail(this.#end);
    if (this.#closing) return fail(CLOSED);
    try {
      return await ask();
    } catch (error) {
      return fail({ reason: "unavailable", message: `Consensus met a defect: ${error}.` });
    }
  }

  #send(message: ToConsensus, ...given: ArrayBuffer[]): void {
    if (this.#untoldBytes > 0) this.#tellApplied();
    this.#channel.send(message, ...given);
  }

  #tellApplied(): void {
    this.#untoldBytes = 0;
    this.#mustTell = false;
    if (!this.#isDefect) this.#channel.send({ type: "applied", index: this.#applied });
  }

  // --- What comes from there

  #hear(message: ToStore): void {
    switch (message.type) {
      case "opened": {
        const { result } = message;
        if (result.ok) {
          const { entries, port, ...found } = result.value;
          this.#found = { ...found, entries: unpackEntries(entries) };
          this.#port = port;
        }
        this.#opened.resolve(result.ok ? ok(undefined) : result);
        return;
      }
      case "started":
        if (message.result.ok) {
          this.#status = message.result.value;
          this.#attach?.(this);
        }
        this.#started.resolve(message.result.ok ? ok(this) : message.result);
        return;
      case "status":
        this.#status = message.status;
        this.#mustTell = true;
        return;
      case "apply":
        this.#drive((machine) => this.#apply(machine, message.entries));
        return;
      case "gained":
        this.#drive((machine) => {
          this.#ledTerm = message.term;
          // A store that is closing has ended what a leader begins here.
          if (!this.#closing) machine.gainedLeadership(message.term);
        });
        return;
      case "lost":
        this.#lost();
        return;
      case "leader":
        this.#machine?.leaderChanged(message.leader);
        return;
      case "question":
        this.#answer(message);
        return;
      case "answer":
        this.#questions.answered(message);
        return;
      case "log":
        this.#log[message.level](message.event, message.fields);
        return;
      case "closed":
        this.#over(CLOSED);
        return;
      default:
        unreachable(message);
    }
  }

  #apply(machine: StateMachine, packed: PackedEntries): void {
    const entries = unpackEntries(packed);
    machine.apply(entries);
    this.#applied = packed.first + entries.length - 1;
    this.#untoldBytes += packed.data.bytes.length + entries.length;
  }

  /** A machine that threw is driven no further, and consensus is told: this node then takes no part any more. */
  #drive(act: (machine: StateMachine) => void): void {
    if (this.#isDefect || !this.#machine) return;
    try {
      act(this.#machine);
    } catch (error) {
      this.#isDefect = true;
      this.#channel.send({ type: "defect", message: error instanceof Error ? error.message : String(error) });
    }
  }

  #lost(): void {
    const term = this.#ledTerm;
    this.#ledTerm = undefined;
    if (term === undefined || !this.#machine) return;
    try {
      this.#machine.lostLeadership(term);
    } catch (error) {
      this.#log.error("raft.failed", { message: "The state machine could not be told.", error });
    }
  }

  #answer(question: Question<MachineCalls>): void {
    const { id } = question;
    const channel = this.#channel;
    const machine = this.#machine;
    if (!machine || this.#isDefect) {
      channel.send({ type: "answer", id, thrown: "The state machine is in no state to answer." });
      return;
    }
    switch (question.call) {
      case "ping":
        reply(channel, id, Promise.resolve(undefined));
        return;
      case "install":
        reply(channel, id, this.#install(machine, question.ask));
        return;
      case "verify":
        reply(channel, id, machine.verify(question.ask));
        return;
      case "snapshot":
        reply(channel, id, machine.snapshot(question.ask));
        return;
      case "digest":
        reply(channel, id, machine.digest());
        return;
      case "answer": {
        const { from, body } = question.ask;
        reply(channel, id, machine.answer(from, body).then(alone), (answer) => [answer.buffer]);
        return;
      }
      default:
        unreachable(question);
    }
  }

  async #install(machine: StateMachine, snapshot: StoredSnapshot): Promise<Result<void, string>> {
    const installed = await machine.install(snapshot);
    if (installed.ok) this.#applied = Math.max(this.#applied, snapshot.point.index);
    return installed;
  }

  // --- Its end

  /** Nothing of what it was doing will be answered; what it was writing may be in the log. */
  #died(cause: string): void {
    if (this.#end) return;
    this.#log.error("raft.thread_ended", { cause });
    this.#over({
      reason: "unavailable",
      message:
        "The thread of consensus ended unexpectedly; the log says why. Restart Hive. What was being written may have been made or not.",
    });
  }

  #over(end: ConsensusError): void {
    if (this.#end) return;
    this.#end = end;
    this.#channel.close();
    const failed = fail(storeError("failed", end.message));
    this.#opened.resolve(failed);
    this.#started.resolve(failed);
    if (!this.#closing) {
      this.#lost();
      this.#machine?.leaderChanged(undefined);
    }
    this.#questions.end(fail(end));
    this.#ended.resolve();
  }
}

const CLOSED: ConsensusError = { reason: "closed", message: "This node is stopping." };
