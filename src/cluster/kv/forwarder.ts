/**
 * The follower's side of writing: gathers transactions, numbers them in a session, and has the leader carry them out; asks
 * again, with the same number, whatever leader there is then, until there is an answer or it takes too long. What the leader
 * remembers of the session makes each happen once (`sessions.ts`).
 *
 * The leader may be this very node, elected meanwhile: it then asks itself in the same way.
 */
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { MIB } from "../../lib/units.ts";
import type { StoreError } from "../../model/store.ts";
import type { ConsensusError } from "../consensus.ts";
import type { Index, PeerId, Term } from "../raft/types.ts";
import {
  COMPARES_MAX,
  encodeDo,
  encodeRegister,
  encodeTransaction,
  type ItemResult,
  numbered,
  parseAnswer,
  REQUEST_BYTES_MAX,
  type Transaction,
} from "./forward-message.ts";
import type { Schema } from "./schema.ts";
import { PENDING_BYTES_MAX, PENDING_MAX } from "./sequencer.ts";
import { SESSION_WINDOW, type SessionId } from "./sessions.ts";
import { busy, closed, storeError } from "./store-errors.ts";

export type Leader = { readonly id: PeerId; readonly term: Term };

export type ForwarderPorts = {
  readonly schema: Schema;
  readonly clock: Clock;
  readonly log: Log;
  /** Who can be asked now. */
  leader(): Leader | undefined;
  request(to: PeerId, body: Uint8Array, timeoutMs: number): Promise<Result<Uint8Array, ConsensusError>>;
  /** Why nobody shall be asked any more. */
  refusal(): StoreError | undefined;
  /** How long it is waited for a leader at present, at most FORWARD_MS_MAX, and what is wrong then. */
  withoutLeader(): { readonly ms: number; readonly error: StoreError };
  /** Resolves once an entry is applied here, or with false when that takes longer than `ms`. */
  untilApplied(index: Index, ms: number): Promise<boolean>;
};

/** A transaction is given up after this long. */
export const FORWARD_MS_MAX = 5000;
/** When an answer is no longer waited for, and the question asked again. */
const REQUEST_MS = 1500;
/** Before the same leader is asked again, or it is looked for one. */
const RETRY_MS = 50;
/** … and how long at first: a leader that was just elected is ready within a round trip or two. */
const RETRY_MS_FIRST = 2;
/** While so many requests are out, what comes is gathered into the next. */
const REQUESTS_MAX = 4;
/** What one request carries, beyond its first transaction. */
const GROUP_BYTES_MAX = MIB;
const GROUP_ITEMS_MAX = 1024;

type Done = Result<{ readonly committed: boolean }, StoreError>;

type Call = {
  readonly text: string;
  /** A decision that wrote nothing: what it saw is this node's own state, so that nothing is left to be shown. */
  readonly writesNothing: boolean;
  readonly startedAt: number;
  readonly resolve: (done: Done) => void;
  /** Its place in a session, once it was sent. */
  session: SessionId | undefined;
  number: number;
  /** It may have been carried out: a request that is refused or lost may have arrived twice. */
  isSent: boolean;
};

export class Forwarder {
  readonly #ports: ForwarderPorts;
  /** To be sent, the oldest first. */
  #queue: Call[] = [];
  /** Those with a number in the current session that have no answer, in order of numbers. */
  #open = new Map<number, Call>();
  #session: SessionId | undefined;
  #nextNumber = 1;
  #isRegistering = false;
  #requests = 0;
  #calls = 0;
  #bytes = 0;
  #isPumping = false;
  /** The leader that failed to answer, and when to ask it again. */
  #pause: { readonly leader: Leader | undefined; readonly until: number } | undefined;
  #retryMs = RETRY_MS_FIRST;
  #timer: AbortController | undefined;
  #wakesAt = 0;

  constructor(ports: ForwarderPorts) {
    this.#ports = ports;
  }

  get pending(): number {
    return this.#calls;
  }

  /** Resolves once the transaction is committed, or can't be, and this node's state shows it. */
  carryOut(transaction: Transaction): Promise<Done> {
    const refusal = this.#ports.refusal();
    if (refusal) return Promise.resolve(fail(refusal));
    if (this.#calls >= PENDING_MAX || this.#bytes >= PENDING_BYTES_MAX) return Promise.resolve(fail(busy));
    if (transaction.kind === "write" && transaction.compares.length > COMPARES_MAX)
      return Promise.resolve(fail(tooLarge));
    const text = encodeTransaction(this.#ports.schema, transaction);
    // At most three bytes a character.
    if (text.length > REQUEST_BYTES_MAX / 3 && Buffer.byteLength(text) > REQUEST_BYTES_MAX - 1024) {
      return Promise.resolve(fail(tooLarge));
    }
    this.#calls++;
    this.#bytes += text.length;
    const writesNothing = transaction.kind === "write" && transaction.operations.length === 0;
    return new Promise((resolve) => {
      const startedAt = this.#ports.clock.monotonicMs();
      this.#queue.push({ text, writesNothing, startedAt, resolve, session: undefined, number: 0, isSent: false });
      this.wake();
    });
  }

  /** There may be a leader to ask, or none any more. */
  wake(): void {
    if (this.#isPumping || this.#queue.length === 0) return;
    this.#isPumping = true;
    // Whoever else calls in this turn of the loop joins.
    queueMicrotask(() => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  /** Gives up what waits. */
  close(): void {
    this.#timer?.abort();
    this.#refuseQueue(closed);
  }

  #pump(): void {
    const { clock, leader: leaderOf, refusal } = this.#ports;
    const problem = refusal();
    if (problem) this.#refuseQueue(problem);
    const now = clock.monotonicMs();
    if (this.#queue.length === 0) return;
    const leader = leaderOf();
    const isPaused =
      this.#pause && now < this.#pause.until && sameLeader(this.#pause.leader, leader) && leader !== undefined;
    if (!leader || isPaused) {
      this.#expire(now);
      if (this.#queue.length > 0) this.#wakeLater();
      return;
    }
    if (this.#session === undefined) {
      if (!this.#isRegistering) void this.#register(leader);
      return;
    }
    while (this.#queue.length > 0 && this.#requests < REQUESTS_MAX) {
      const group = this.#takeGroup();
      if (group.length === 0) break;
      void this.#send(leader, this.#session, group);
    }
  }

  #takeGroup(): Call[] {
    const low = this.#low();
    let bytes = 0;
    let count = 0;
    for (const call of this.#queue) {
      if (count > 0 && (count >= GROUP_ITEMS_MAX || bytes + call.text.length > GROUP_BYTES_MAX)) break;
      if (call.session === undefined) {
        if (this.#nextNumber >= low + SESSION_WINDOW) break;
        call.session = this.#session;
        call.number = this.#nextNumber++;
        this.#open.set(call.number, call);
      }
      bytes += call.text.length;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  /** Everything below has its answer. */
  #low(): number {
    return this.#open.keys().next().value ?? this.#nextNumber;
  }

  async #register(leader: Leader): Promise<void> {
    this.#isRegistering = true;
    const answered = await this.#ports.request(leader.id, encodeRegister(leader.term), REQUEST_MS);
    this.#isRegistering = false;
    const answer = answered.ok ? parseAnswer(answered.value, 0) : answered;
    if (answer.ok && answer.value.kind === "session") {
      this.#session = answer.value.session;
      this.#nextNumber = 1;
      this.#open = new Map();
    } else {
      this.#pauseFor(leader);
    }
    this.wake();
  }

  async #send(leader: Leader, session: SessionId, group: readonly Call[]): Promise<void> {
    const items = group.map(({ number, text }) => numbered(number, text));
    const body = encodeDo(leader.term, session, this.#low(), items);
    for (const call of group) call.isSent = true;
    this.#requests++;
    const answered = await this.#ports.request(leader.id, body, REQUEST_MS);
    this.#requests--;
    const answer = answered.ok ? parseAnswer(answered.value, group.length) : fail(answered.error.message);
    if (answer.ok && answer.value.kind === "done") await this.#settle(leader, group, answer.value);
    else if (answer.ok && answer.value.kind === "expired") this.#expired(session, group);
    else if (answer.ok && answer.value.kind === "bad") this.#refused(leader, group, answer.value.message);
    else {
      this.#pauseFor(leader);
      this.#again(group);
    }
    this.wake();
  }

  async #settle(
    leader: Leader,
    group: readonly Call[],
    { index, results }: { readonly index: Index; readonly results: readonly ItemResult[] },
  ): Promise<void> {
    const again: Call[] = [];
    const decided: { call: Call; committed: boolean }[] = [];
    for (const [i, call] of group.entries()) {
      const result = results[i]!;
      if (result === "unresolved") {
        again.push(call);
      } else if (result === "committed" && call.writesNothing) {
        this.#finish(call, ok({ committed: true }));
      } else if (typeof result === "string") {
        decided.push({ call, committed: result === "committed" });
        this.#close(call);
      } else {
        this.#finish(call, fail(result));
      }
    }
    if (again.length > 0) {
      this.#pauseFor(leader);
      this.#again(again);
    }
    if (again.length < group.length) this.#retryMs = RETRY_MS_FIRST;
    if (decided.length === 0) return;
    this.wake();
    // Every node shows its own writes, and a conflict only once it shows what it is with.
    const isShown = await this.#ports.untilApplied(index, FORWARD_MS_MAX);
    for (const { call, committed } of decided) {
      if (isShown) this.#finish(call, ok({ committed }));
      else if (committed) this.#finish(call, fail(notShown(index)));
      else this.#finish(call, fail(lagging));
    }
  }

  /** It was used so long ago that it is forgotten, and with it what was done in it. Those who come next get another one. */
  #expired(session: SessionId, group: readonly Call[]): void {
    this.#ports.log.warn("store.session_expired", { session });
    if (this.#session === session) this.#session = undefined;
    const queued = this.#queue;
    this.#queue = [];
    this.#again([...group, ...queued]);
  }

  /** The leader can't make sense of it: it has another version of Hive, if nothing worse. */
  #refused(leader: Leader, group: readonly Call[], why: string): void {
    this.#ports.log.error("store.forward_refused", { leader: leader.id, message: why });
    for (const call of group) this.#finish(call, fail(unknown(`the leader does not understand it: ${why}`)));
  }

  /** To be sent once more: with the same number, in the same session, or not at all. */
  #again(calls: readonly Call[]): void {
    const isOver = (call: Call) => call.session !== undefined && call.session !== this.#session;
    this.#queue = [...calls.filter((call) => !isOver(call)), ...this.#queue];
    for (const call of calls) if (isOver(call)) this.#finish(call, fail(unknown("its session expired")));
  }

  #pauseFor(leader: Leader): void {
    this.#pause = { leader, until: this.#ports.clock.monotonicMs() + this.#retryMs };
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS);
  }

  #wakeLater(): void {
    const now = this.#ports.clock.monotonicMs();
    const pause = (this.#pause?.until ?? Number.POSITIVE_INFINITY) - now;
    const ms = Math.max(RETRY_MS_FIRST / 2, Math.min(RETRY_MS, pause, this.#ports.withoutLeader().ms / 3));
    if (this.#timer && this.#wakesAt <= now + ms) return;
    this.#timer?.abort();
    const timer = new AbortController();
    this.#timer = timer;
    this.#wakesAt = now + ms;
    void this.#ports.clock.sleep(ms, timer.signal).then(() => {
      if (timer.signal.aborted) return;
      this.#timer = undefined;
      this.wake();
    });
  }

  #expire(now: number): void {
    const first = this.#queue.reduce((at, call) => Math.min(at, call.startedAt), Number.POSITIVE_INFINITY);
    const { ms, error } = this.#ports.withoutLeader();
    if (now - first < ms) return;
    const isLate = (call: Call) => now - call.startedAt >= ms;
    const late = this.#queue.filter(isLate);
    this.#queue = this.#queue.filter((call) => !isLate(call));
    const why = error.reason === "unavailable" ? "no leader answered" : error.message;
    for (const call of late) this.#finish(call, fail(call.isSent ? unknown(why) : error));
  }

  #refuseQueue(error: StoreError): void {
    const queue = this.#queue;
    this.#queue = [];
    for (const call of queue) this.#finish(call, fail(call.isSent ? unknown(error.message) : error));
  }

  /** It has its answer: the leader may forget it. */
  #close(call: Call): void {
    if (call.session !== undefined && call.session === this.#session) this.#open.delete(call.number);
  }

  #finish(call: Call, done: Done): void {
    this.#close(call);
    this.#calls--;
    this.#bytes -= call.text.length;
    call.resolve(done);
  }
}

const sameLeader = (a: Leader | undefined, b: Leader | undefined): boolean => a?.id === b?.id && a?.term === b?.term;

const tooLarge = storeError(
  "too-large",
  "A transaction that looked at so much, or writes so much, can't be sent to the leader.",
);
const unknown = (why: string): StoreError =>
  storeError("unavailable", `Outcome unknown: whether the transaction was made can't be said, as ${lowerFirst(why)}.`);
const lagging = storeError(
  "unavailable",
  "The transaction was not made: another came between, and this node lags too far behind to decide anew.",
);
const notShown = (index: Index): StoreError =>
  storeError(
    "unavailable",
    `The transaction was made (at entry ${index}), but this node lags too far behind to show it.`,
  );
const lowerFirst = (text: string): string => text.replace(/\.$/, "").replace(/^[A-Z](?=[a-z])/, (c) => c.toLowerCase());
