/**
 * Consensus's side of the Worker: the log, the peers' sockets and Raft, driven by their own event loop. Nothing here waits for
 * the store's thread but what the store alone can do: applying what is committed, and reading and writing snapshots. Elections,
 * heartbeats, a follower's promises and the disk go on while that thread is busy.
 */
import { present, unreachable } from "../../lib/assert.ts";
import { systemClock } from "../../lib/clock.ts";
import { systemRandom } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { StoreError } from "../../model/store.ts";
import type { Consensus, ConsensusError } from "../consensus.ts";
import type { Disk } from "../kv/disk.ts";
import { storeError } from "../kv/store-errors.ts";
import { type Ground, type OpenLog, openLog, type Replayed, refusalOf } from "../node/open-consensus.ts";
import { openTcpTransport, type TcpTransport } from "../node/tcp-transport.ts";
import { alone, Channel, type Port, reply } from "./channel.ts";
import {
  type ConsensusCalls,
  type ListenAt,
  type OpenedLog,
  packEntries,
  type Question,
  type ToConsensus,
  type ToStore,
  unpack,
} from "./messages.ts";
import { postedLog } from "./posted-log.ts";
import { RemoteMachine } from "./remote-machine.ts";

/** The Worker's end of the way: `self`. */
export type HostPort = Port & { onmessage: ((event: MessageEvent<readonly ToConsensus[]>) => void) | null };

/** The end of whoever runs in a Worker. */
export const workerPort = globalThis as unknown as HostPort;

/** Serves one node, whatever the other thread asks for; `disk` holds its log. */
export function hostConsensus(port: HostPort, disk: Disk): void {
  const host = new Host(new Channel<ToStore>(port), disk);
  port.onmessage = ({ data }) => {
    for (const message of data) host.hear(message);
  };
}

/** How often a leader looks whether its store's thread is there, and how long that may say nothing before another should lead. */
const LOOK_MS = 2000;
const STALL_MS = 6000;

class Host {
  readonly #channel: Channel<ToStore>;
  readonly #disk: Disk;
  readonly #machine: RemoteMachine;
  #directory = "";
  #transport: TcpTransport | undefined;
  #opened: OpenLog | undefined;
  #consensus: Consensus | undefined;
  readonly #log = postedLog((message) => this.#channel.send(message));
  #looking: ReturnType<typeof setInterval> | undefined;
  /** The store's thread was asked whether it is there, and has not answered since. */
  #pingedAt: number | undefined;

  constructor(channel: Channel<ToStore>, disk: Disk) {
    this.#channel = channel;
    this.#disk = disk;
    this.#machine = new RemoteMachine(channel);
  }

  hear(message: ToConsensus): void {
    switch (message.type) {
      case "open":
        void this.#open(message.ground, message.listen).then((result) => {
          this.#channel.send(
            { type: "opened", result },
            ...(result.ok ? [result.value.entries.data.bytes.buffer] : []),
          );
        });
        return;
      case "start":
        void this.#start(message.replayed);
        return;
      case "propose":
        this.#consensus?.propose(message.term, unpack(message.commands));
        return;
      case "applied":
        this.#machine.applied(message.index);
        return;
      case "defect":
        this.#machine.defect(message.message);
        return;
      case "peers":
        this.#transport?.setPeers(message.peers);
        return;
      case "question":
        this.#answer(message);
        return;
      case "answer":
        this.#machine.answered(message);
        return;
      case "close":
        void this.#close();
        return;
      default:
        unreachable(message);
    }
  }

  async #open(ground: Ground, listen: Omit<ListenAt, "program">): Promise<Result<OpenedLog, StoreError>> {
    const around = {
      disk: this.#disk,
      clock: systemClock,
      random: systemRandom,
      log: this.#log,
    };
    const { clusterId, secret, hostname, port, tls, limits, admitsStrangers = false } = listen;
    const listening = openTcpTransport({
      ...around,
      ...{ self: { id: ground.id, clusterId, secret }, hostname, port },
      ...(tls && { tls }),
      ...(limits && { limits }),
      admit: () => admitsStrangers,
    });
    if (!listening.ok) return fail(storeError("failed", `Hive ${listening.error}.`));
    const transport = listening.value;
    const opened = await sendable(ground.directory, () => openLog(ground, around, transport));
    if (!opened.ok) {
      await transport.close();
      return opened;
    }
    this.#transport = transport;
    this.#opened = opened.value;
    this.#directory = ground.directory;
    const { entries, ...found } = opened.value.found;
    // What is not known to be committed is of no use to the store.
    return ok({ ...found, entries: packEntries(found.isAlone ? entries : []), port: transport.port });
  }

  async #start(replayed: Replayed | undefined): Promise<void> {
    const opened = present(this.#opened, "a log is started on that was opened");
    const started = await sendable(this.#directory, () =>
      opened.start(this.#machine, replayed, (consensus) => {
        this.#consensus = consensus;
        this.#looking = setInterval(() => this.#lookAtStore(), LOOK_MS);
        this.#channel.send({ type: "started", result: ok(this.#machine.attach(consensus)) });
      }),
    );
    if (!started.ok) this.#channel.send({ type: "started", result: started });
  }

  #answer(question: Question<ConsensusCalls>): void {
    const { id } = question;
    const channel = this.#channel;
    const consensus = this.#consensus;
    if (!consensus || !this.#transport) {
      channel.send({ type: "answer", id, value: fail(NOT_STARTED) });
      return;
    }
    switch (question.call) {
      case "readIndex":
        reply(channel, id, consensus.readIndex());
        return;
      case "changeConfiguration":
        reply(channel, id, consensus.changeConfiguration(question.ask));
        return;
      case "transferLeadership":
        reply(channel, id, consensus.transferLeadership(question.ask));
        return;
      case "request": {
        const { to, body, timeoutMs } = question.ask;
        const answer = consensus.request(to, body, timeoutMs).then((done) => (done.ok ? ok(alone(done.value)) : done));
        reply(channel, id, answer, (done) => (done.ok ? [done.value.buffer] : []));
        return;
      }
      case "stats":
        reply(channel, id, Promise.resolve(ok(this.#transport.stats())));
        return;
      default:
        unreachable(question);
    }
  }

  /**
   * A leader whose store is stuck serves nobody, while its heartbeats keep the others from electing another: after a pause that
   * no garbage collection takes, it hands over.
   */
  #lookAtStore(): void {
    if (this.#consensus?.status().role !== "leader") {
      this.#pingedAt = undefined;
      return;
    }
    const now = systemClock.monotonicMs();
    if (this.#pingedAt === undefined) {
      this.#pingedAt = now;
      const answered = () => {
        this.#pingedAt = undefined;
      };
      this.#machine.ping().then(answered, answered);
    } else if (now - this.#pingedAt >= STALL_MS) {
      this.#log.warn("raft.store_stalled", { ms: Math.round(now - this.#pingedAt) });
      void this.#consensus.transferLeadership();
    }
  }

  /** In the order in which they rest on each other. What the machine still has to say is heard meanwhile. */
  async #close(): Promise<void> {
    clearInterval(this.#looking);
    await this.#consensus?.close();
    await this.#opened?.close();
    await this.#transport?.close();
    this.#channel.send({ type: "closed" });
  }
}

/** What `act` says; a refusal in words only, as what caused it can't always be sent. */
async function sendable<T>(
  directory: string,
  act: () => Promise<Result<T, StoreError>>,
): Promise<Result<T, StoreError>> {
  try {
    const done = await act();
    return done.ok ? done : fail(storeError(done.error.reason, done.error.message));
  } catch (cause) {
    const { reason, message } = refusalOf(directory, cause);
    return fail(storeError(reason, message));
  }
}

const NOT_STARTED: ConsensusError = { reason: "unavailable", message: "This node has not started yet." };
