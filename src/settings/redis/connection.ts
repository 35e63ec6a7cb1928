/**
 * One connection of the Redis protocol: a stream of commands in, answers out, in order.
 *
 * Commands that wait together (a pipeline) and write different keys run as one transaction; a key that is written again begins
 * the next, so that each write is a revision of its own. Across connections nothing waits for anything, and the store's group
 * commit serves all. Reads are linearizable unless the client says READONLY: they wait for the store's barrier, one for all
 * that wait. A client that does not read its answers is not read from either; one that is only sent messages is dropped.
 */
import { KIB, MIB } from "../../lib/units.ts";
import type { Reader, StoreError } from "../../model/store.ts";
import {
  CommandReader,
  type ErrorReply,
  errorReply,
  RESP_LIMITS,
  RESP_STRANGER_LIMITS,
  type Reply,
  ReplyWriter,
  type RespCommand,
} from "../../protocol/resp.ts";
import { Draft } from "../draft.ts";
import type { Subscriber } from "./notifications.ts";
import type { Operation } from "./operations.ts";
import { commandBytes, NOAUTH, Session, type Shared } from "./session.ts";

/** What a connection needs of its socket. */
export interface Transport {
  readonly remoteAddress: string;
  /** How many bytes were taken; the rest is to be written once `drained` is called. Negative when the socket is gone. */
  write(bytes: Uint8Array): number;
  /** Stops and resumes reading. */
  pause(): void;
  resume(): void;
  /** Closes once what was written is gone. */
  end(): void;
  /** Closes now. */
  terminate(): void;
}

/** Commands of one transaction that nobody asked for, and their bytes. */
const BATCH_MAX = 128;
const BATCH_BYTES = MIB;
/** Above this nothing more is read while commands run. */
const HELD_BYTES = MIB;
/** Above this no further command is run until the client has read. */
const BACKLOG_BYTES = MIB;
/** Small answers that wait are joined to so much: each by itself would take several times its bytes. */
const CHUNK_BYTES = 4 * KIB;
/** Above this a client that only listens is dropped. It connects anew, and knows that it missed something. */
const MESSAGES_BYTES_MAX = 8 * MIB;
const FLUSH_BYTES = 64 * KIB;

/** One writer for all connections: it is empty whenever something else can run. */
const writer = new ReplyWriter(4 * FLUSH_BYTES);

export class Connection implements Subscriber {
  readonly #shared: Shared;
  readonly #transport: Transport;
  readonly #session: Session;
  readonly #reader = new CommandReader(RESP_STRANGER_LIMITS);
  /** A command that was taken, and is to run next. */
  #next: RespCommand | undefined;
  #isServing = false;
  #isPaused = false;
  /** The client says no more. */
  #isEnding = false;
  #isClosed = false;
  /** What the socket did not take. */
  #backlog: Uint8Array[] = [];
  #backlogBytes = 0;
  #onDrained: (() => void) | undefined;
  #messages: ReplyWriter | undefined;

  constructor(id: number, shared: Shared, transport: Transport) {
    this.#shared = shared;
    this.#transport = transport;
    this.#session = new Session(id, shared, this, transport.remoteAddress);
  }

  get isStranger(): boolean {
    return this.#session.accessKeyId === undefined;
  }

  /** Bytes from the client, which become the connection's own. */
  receive(chunk: Buffer): void {
    if (this.#isEnding || this.#isClosed || this.#session.isOver) return;
    this.#reader.push(chunk);
    if (!this.#isServing) void this.#serve();
    else if (this.#reader.held > HELD_BYTES) this.#pause();
  }

  /** The client says no more. What it said is still answered. */
  ended(): void {
    this.#isEnding = true;
    if (!this.#isServing) this.#end();
  }

  /** The socket takes bytes again. */
  drained(): void {
    while (this.#backlog.length > 0) {
      const bytes = this.#backlog[0]!;
      const written = Math.max(0, this.#transport.write(bytes));
      this.#backlogBytes -= written;
      if (written < bytes.length) {
        this.#backlog[0] = bytes.subarray(written);
        break;
      }
      this.#backlog.shift();
    }
    if (this.#backlogBytes <= BACKLOG_BYTES) this.#onDrained?.();
    if (!this.#isServing && (this.#isEnding || this.#session.isOver)) this.#end();
  }

  /** The socket is gone. */
  closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#session.close();
    this.#backlog = [];
    this.#backlogBytes = 0;
    this.#onDrained?.();
  }

  /** Ends the connection now. */
  close(): void {
    if (this.#isClosed) return;
    this.closed();
    this.#transport.terminate();
  }

  notify(channel: string, message: string, pattern?: string): void {
    if (this.#isClosed) return;
    if (!this.#session.checkUser()) {
      this.close();
      return;
    }
    if (!this.#messages) {
      // Messages of one turn of the loop are one write.
      this.#messages = new ReplyWriter(4 * KIB);
      setImmediate(() => this.#flushMessages());
    }
    const parts = pattern === undefined ? ["message", channel, message] : ["pmessage", pattern, channel, message];
    this.#messages.write({ message: parts }, this.#session.version);
    if (this.#backlogBytes + this.#messages.length <= MESSAGES_BYTES_MAX) return;
    this.#shared.log.info("config.subscriber-too-slow", { remoteAddress: this.#transport.remoteAddress });
    this.close();
  }

  /** Runs what has come, until nothing is there whole. Never rejects. */
  async #serve(): Promise<void> {
    this.#isServing = true;
    try {
      for (let command = this.#take(); command; command = this.#take()) {
        const operations = this.#operationsOf(command);
        if (operations) await this.#run(operations);
        else {
          const step = this.#session.take(command);
          if ("run" in step) await this.#run([step]);
          else await this.#answer(step);
          this.#reader.limits = this.isStranger ? RESP_STRANGER_LIMITS : RESP_LIMITS;
        }
      }
      if (this.#reader.error !== undefined && !this.#session.isOver) await this.#protocolError(this.#reader.error);
    } catch (cause) {
      this.#shared.log.error("config.failed", { cause });
      this.close();
    }
    this.#isServing = false;
    if (this.#isEnding || this.#session.isOver) this.#end();
    else this.#resume();
  }

  /** The next command that is here whole; undefined when there is none, or none is to be run any more. */
  #take(): RespCommand | undefined {
    if (this.#isClosed || this.#session.isOver) return undefined;
    const command = this.#next ?? this.#reader.next();
    this.#next = undefined;
    if (this.#reader.held <= HELD_BYTES) this.#resume();
    return command;
  }

  /** A data command, and what can share a transaction with it of what has come. Undefined for any other command. */
  #operationsOf(command: RespCommand): readonly Operation[] | undefined {
    const first = this.#session.operationOf(command);
    if (!first) return undefined;
    const batch = [first];
    if (first.alone || first.isLarge || this.#reader.held === 0) return batch;
    const written = new Set(first.writes);
    let bytes = commandBytes(command);
    while (batch.length < BATCH_MAX && bytes < BATCH_BYTES) {
      const next = this.#reader.next();
      if (!next) break;
      const operation = this.#session.operationOf(next);
      if (!operation || operation.alone || operation.isLarge || operation.writes?.some((key) => written.has(key))) {
        this.#next = next;
        break;
      }
      batch.push(operation);
      for (const key of operation.writes ?? []) written.add(key);
      bytes += commandBytes(next);
    }
    return batch;
  }

  /** Runs operations as one, and answers each. */
  async #run(operations: readonly Operation[]): Promise<void> {
    const session = this.#session;
    if (!session.checkUser()) return this.#answer([NOAUTH]);
    const { settings, clock } = this.#shared;
    const by = session.accessKeyId!;
    const work = (draft: Draft): readonly Reply[] => operations.map((operation) => operation.run(draft));
    const all = (reply: Reply): readonly Reply[] => operations.map(() => reply);
    if (operations.some(({ writes }) => writes !== undefined)) {
      const done = await settings.write(by, work, this.#foreseenTtls(operations));
      if (!done.ok && done.error.reason === "too-large" && operations.length > 1) {
        // Nobody asked for one transaction.
        for (const operation of operations) await this.#run([operation]);
        return;
      }
      return this.#answer(done.ok ? done.value : all(writeError(done.error)));
    }
    if (!session.readsLocally) {
      const passed = await settings.barrier();
      if (!passed.ok) return this.#answer(all(readError(passed.error)));
    }
    return this.#answer(work(new Draft(settings.read(), { by, now: clock.now() })));
  }

  #foreseenTtls(operations: readonly Operation[]): readonly number[] {
    let state: Reader | undefined;
    const ttls: number[] = [];
    for (const operation of operations) {
      if (!operation.ttls) continue;
      state ??= this.#shared.settings.read();
      ttls.push(...operation.ttls(state));
    }
    return ttls;
  }

  async #protocolError(error: string): Promise<void> {
    this.#session.isOver = true;
    this.#shared.log.info("config.protocol-error", { remoteAddress: this.#transport.remoteAddress, error });
    await this.#answer([errorReply(`ERR ${error}`)]);
  }

  /** Sends answers, as one write where that is not too large. Waits in between where the client does not read them. */
  async #answer(replies: readonly Reply[]): Promise<void> {
    for (const reply of replies) {
      writer.write(reply, this.#session.version);
      if (writer.length < FLUSH_BYTES) continue;
      this.#flush();
      if (this.#backlogBytes > BACKLOG_BYTES) await this.#room();
      if (this.#isClosed) return;
    }
    this.#flush();
    // Small answers, too, add up to much that the client does not read.
    if (this.#backlogBytes > BACKLOG_BYTES) await this.#room();
  }

  /** Hands over what was written, before anything else can run: the writer is everybody's. */
  #flush(): void {
    const bytes = writer.take();
    this.#flushMessages();
    this.#send(bytes);
  }

  #flushMessages(): void {
    const messages = this.#messages;
    this.#messages = undefined;
    if (messages) this.#send(messages.take());
  }

  #send(bytes: Uint8Array): void {
    if (this.#isClosed || bytes.length === 0) return;
    const written = this.#backlogBytes > 0 ? 0 : Math.max(0, this.#transport.write(bytes));
    if (written === bytes.length) return;
    // A copy: the writer's bytes are written over.
    const rest = bytes.subarray(written);
    const last = this.#backlog.at(-1);
    if (last && last.length + rest.length <= CHUNK_BYTES) this.#backlog.splice(-1, 1, Buffer.concat([last, rest]));
    else this.#backlog.push(Uint8Array.from(rest));
    this.#backlogBytes += rest.length;
  }

  async #room(): Promise<void> {
    while (this.#backlogBytes > BACKLOG_BYTES && !this.#isClosed) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#onDrained = resolve;
      await promise;
      this.#onDrained = undefined;
    }
  }

  #pause(): void {
    if (this.#isPaused || this.#isClosed) return;
    this.#isPaused = true;
    this.#transport.pause();
  }

  #resume(): void {
    if (!this.#isPaused || this.#isClosed) return;
    this.#isPaused = false;
    this.#transport.resume();
  }

  #end(): void {
    if (this.#backlogBytes === 0 && !this.#isClosed) this.#transport.end();
  }
}

/** Codes that clients of Redis know: try again, the cluster cannot be reached, the disk takes nothing. */
function writeError({ reason, message }: StoreError): ErrorReply {
  switch (reason) {
    case "busy":
    case "no-lease":
      return errorReply(`TRYAGAIN ${message}`);
    case "unavailable":
    case "closed":
      // Whether it was written, the message says.
      return errorReply(`CLUSTERDOWN ${message}`);
    case "full":
    case "failed":
      return errorReply(`MISCONF ${message}`);
    default:
      return errorReply(`ERR ${message}`);
  }
}

const readError = ({ message }: StoreError): ErrorReply =>
  errorReply(`CLUSTERDOWN ${message} After READONLY, what this node has is read.`);
