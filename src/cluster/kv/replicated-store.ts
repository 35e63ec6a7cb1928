/**
 * The replicated store: the state machine that consensus drives, and the key/value store that services see.
 *
 * On the leader, decisions are put in order by the `Sequencer` and proposed; elsewhere the `Forwarder` has the leader carry
 * them out, with what they looked at as compares. Reads are local on every node. What a caller is told is never wrong:
 *   committed          it is in the log for good, and this node's state shows it
 *   not made           it is in no log and never will be
 *   outcome unknown    said so in the message of an `unavailable`, after a bounded time, when nobody can tell
 * A proposal of a leader that lost its office is decided anew, by whoever leads then, once it is known that it was not made.
 */
import { assert } from "../../lib/assert.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { type Random, randomHex } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import {
  type LeaseId,
  type Revision,
  type StoreError,
  type StoreStatus,
  TRANSACTION_BYTES_MAX,
} from "../../model/store.ts";
import type { Consensus, ConsensusError, StateMachine, StoredSnapshot } from "../consensus.ts";
import { kindOf, membersOf } from "../raft/configuration.ts";
import type { Configuration, Entry, Index, PeerId, SnapshotPoint, Term } from "../raft/types.ts";
import {
  decodeCommand,
  encodeGrant,
  encodeRegister,
  encodeRevoke,
  encodeWrites,
  type SealedOperation,
} from "./command.ts";
import type { Disk } from "./disk.ts";
import { LEASE_MS_MAX, type Transaction } from "./forward-message.ts";
import { type Done, ForwardServer } from "./forward-server.ts";
import { FORWARD_MS_MAX, Forwarder, type Leader } from "./forwarder.ts";
import type { History, KeyEvent, WatchKeys } from "./history.ts";
import type { KeyDecision, KeyValueStore } from "./key-value-store.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import { Ledger } from "./ledger.ts";
import { proposeOptimistically } from "./optimistic.ts";
import { Progress } from "./progress.ts";
import { advance, type Logged } from "./replicated.ts";
import type { Schema } from "./schema.ts";
import { Sequencer, type Settle } from "./sequencer.ts";
import type { SessionTag } from "./sessions.ts";
import { snapshotName } from "./snapshot-format.ts";
import { checkSnapshot, readSnapshot } from "./snapshot-reader.ts";
import { writeSnapshot } from "./snapshot-writer.ts";
import type { Command, Operation, State } from "./state.ts";
import { busy, closed, noLease, outcomeUnknown, storeError, transactionTooLarge } from "./store-errors.ts";
import { type Compare, holds, View } from "./view.ts";

/** A proposal that has not come back for this long, and up to twice that, is answered: its outcome is unknown. */
const OUTCOME_MS = 5000;

export type ReplicatedStoreParts = {
  readonly schema: Schema;
  readonly disk: Disk;
  /** Where snapshots are written. */
  readonly directory: string;
  readonly ledger: Ledger;
  readonly history: History;
  /** The revision of the newest snapshot file, 0 when there is none. */
  readonly snapshotRevision: Revision;
  /** Raft's: a node that is alone leads again within twice this, if its disk lets it. */
  readonly electionMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
};

export class ReplicatedStore implements KeyValueStore, StateMachine {
  readonly #parts: ReplicatedStoreParts;
  readonly #schema: Schema;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #history: History;
  #ledger: Ledger;
  readonly #progress: Progress;
  readonly #sequencer: Sequencer;
  readonly #forwarder: Forwarder;
  readonly #forwarded: ForwardServer;
  readonly #leases: LeaseKeeper;
  /** What was proposed and is not in the log up to here never will be. */
  #refusedAfter: { readonly index: Index; readonly error: StoreError } | undefined;
  #consensus: Consensus | undefined;
  #release: () => Promise<void> = async () => {};
  #snapshotRevision: Revision;
  readonly #ended = new AbortController();
  #isWatching = false;
  #closing: Promise<void> | undefined;
  readonly #gained = Promise.withResolvers<void>();
  /** Resolves when this node leads for the first time. */
  readonly gained: Promise<void> = this.#gained.promise;

  constructor(parts: ReplicatedStoreParts) {
    this.#parts = parts;
    this.#schema = parts.schema;
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#history = parts.history;
    this.#ledger = parts.ledger;
    this.#snapshotRevision = parts.snapshotRevision;
    this.#progress = new Progress(parts.clock, parts.ledger.index);
    this.#sequencer = new Sequencer(parts.schema, (term, commands) => this.#running.propose(term, commands));
    this.#forwarder = new Forwarder({
      schema: parts.schema,
      clock: parts.clock,
      log: parts.log,
      leader: () => this.#leader(),
      request: (to, body, timeoutMs) => this.#running.request(to, body, timeoutMs),
      refusal: () => this.#refusal(),
      withoutLeader: () => this.#withoutLeader(),
      untilApplied: (index, ms) => this.#progress.until(index, ms),
    });
    this.#forwarded = new ForwardServer({
      schema: parts.schema,
      log: parts.log,
      sequencer: this.#sequencer,
      carryOut: (transaction, tag, done) => this.#carryOut(transaction, tag, done),
      waitForAll: (settle) => this.#waitForAll(settle),
      register: (settle) => this.#register(settle),
      isClosing: () => this.#closing !== undefined,
    });
    this.#leases = new LeaseKeeper(parts.clock, (lease) => this.#expire(lease));
  }

  /** Gives it the consensus that drives it; before anyone uses it. `release` is called at the end of `close`. */
  attach(consensus: Consensus, release: () => Promise<void>): void {
    assert(!this.#consensus, "a store is driven by one consensus");
    this.#consensus = consensus;
    this.#release = release;
  }

  get #running(): Consensus {
    assert(this.#consensus, "the store was attached");
    return this.#consensus;
  }

  // --- The store, as services see it

  get isLeading(): boolean {
    return this.#sequencer.isLeading;
  }

  state(): State {
    return this.#ledger.now.state;
  }

  propose<T, E>(decide: (view: View) => Result<KeyDecision<T>, E>): Promise<Result<T, E | StoreError>> {
    if (!this.#sequencer.isLeading) return proposeOptimistically(this, decide);
    const refusal = this.#refusal();
    if (refusal) return Promise.resolve(fail(refusal));
    if (this.#sequencer.isFull) return Promise.resolve(fail(busy));
    return new Promise((resolve) => {
      const decided = decide(new View(this.#sequencer.tentative.state));
      this.#write(decided.ok ? decided.value.operations : [], undefined, (problem) => {
        if (problem === undefined) resolve(decided.ok ? ok(decided.value.value) : decided);
        else if (typeof problem === "object") resolve(fail(problem));
        else resolve(proposeOptimistically(this, decide));
      });
    });
  }

  txn(
    compares: readonly Compare[],
    operations: readonly SealedOperation[],
  ): Promise<Result<{ readonly committed: boolean }, StoreError>> {
    return this.#run({ kind: "write", compares, operations });
  }

  watch(fromRevision: Revision, options?: WatchKeys): AsyncIterable<KeyEvent> {
    return this.#history.watch(fromRevision, options);
  }

  async barrier(): Promise<Result<void, StoreError>> {
    const refusal = this.#refusal();
    if (refusal) return fail(refusal);
    if (this.#decidesAlone()) return ok(undefined);
    const read = await this.#running.readIndex();
    if (!read.ok) return fail(unavailable(read.error));
    if (await this.#progress.until(read.value, FORWARD_MS_MAX)) return ok(undefined);
    return fail(
      storeError("unavailable", `This node lags: entry ${read.value} is committed, and not applied here yet.`),
    );
  }

  async grantLease(ttlMs: number): Promise<Result<LeaseId, StoreError>> {
    assert(Number.isInteger(ttlMs) && ttlMs > 0 && ttlMs <= LEASE_MS_MAX, "a lease lasts from 1 ms to a year");
    const lease = randomHex(this.#parts.random, 16) as LeaseId;
    const done = await this.#run({ kind: "grant-lease", lease, ttlMs });
    return done.ok ? ok(lease) : done;
  }

  async keepAlive(lease: LeaseId): Promise<Result<void, StoreError>> {
    const done = await this.#run({ kind: "keep-alive", lease });
    return done.ok ? ok(undefined) : done;
  }

  async revokeLease(lease: LeaseId): Promise<Result<void, StoreError>> {
    const done = await this.#run({ kind: "revoke-lease", lease });
    return done.ok ? ok(undefined) : done;
  }

  status(): StoreStatus {
    const { configuration, role, health, message, term, leader, logBytes, peers } = this.#running.status();
    const { state } = this.#ledger.now;
    const problem = this.#problem(health, message, leader !== undefined);
    return {
      revision: state.revision,
      health: "ok",
      ...problem,
      role: this.#isAlone(configuration) ? "single" : role === "leader" ? "leader" : "follower",
      records: state.keys.count,
      leases: state.leases.size,
      watchers: this.#history.watchers,
      pending: this.#sequencer.waiting + this.#forwarder.pending,
      logBytes,
      snapshotRevision: this.#snapshotRevision,
      term,
      ...(leader !== undefined && { leader }),
      ...(peers.length > 0 && { peers }),
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#leases.close();
    this.#forwarder.close();
    if (this.#sequencer.isLeading) {
      // What is being written is waited for, as long as anyone would wait.
      await new Promise<void>((resolve) => this.#waitForAll(() => resolve()));
    }
    await this.#running.close();
    this.#sequencer.fail(outcomeUnknown);
    this.#ended.abort();
    this.#history.close();
    await this.#release();
  }

  #problem(health: string, message: string | undefined, hasLeader: boolean): Partial<StoreStatus> {
    if (this.#closing) return { health: "closed", message: closed.message };
    const why = message === undefined ? {} : { message };
    if (health === "full" || health === "failed" || health === "closed") return { health, ...why };
    if (health === "lost") return { health: "failed", ...why };
    return hasLeader ? why : { health: "unavailable", message: "No node leads, or none can be reached." };
  }

  /** Why nothing can be written here, now or ever. */
  #refusal(): StoreError | undefined {
    if (this.#closing) return closed;
    if (this.#sequencer.isLeading) return undefined;
    const { health, message = "The disk failed." } = this.#running.status();
    if (health === "closed") return closed;
    return health === "failed" || health === "lost" ? storeError("failed", message) : undefined;
  }

  /** How long it is waited for a leader, and what is said then. */
  #withoutLeader(): { readonly ms: number; readonly error: StoreError } {
    const { health, message = "", configuration } = this.#running.status();
    if (health !== "full" || !this.#isAlone(configuration)) return { ms: FORWARD_MS_MAX, error: noLeader };
    return { ms: 3 * this.#parts.electionMs, error: storeError("full", message) };
  }

  /** Whether this node needs nobody to know what is committed. */
  #decidesAlone(): boolean {
    return this.#sequencer.isLeading && this.#running.status().decidesAlone;
  }

  #isAlone({ voters, outgoing }: Configuration): boolean {
    return voters.length === 1 && voters[0] === this.#running.id && outgoing.length === 0;
  }

  #leader(): Leader | undefined {
    const { id } = this.#running;
    if (this.#sequencer.isLeading) return { id, term: this.#sequencer.term };
    const { leader, term } = this.#running.status();
    // A node that was just elected can't decide before it has applied what its predecessors left.
    return leader === undefined || leader === id ? undefined : { id: leader, term };
  }

  // --- Carrying out transactions

  /** Here if this node leads, and by the leader otherwise. */
  #run(transaction: Transaction): Promise<Result<{ readonly committed: boolean }, StoreError>> {
    const refusal = this.#refusal();
    if (refusal) return Promise.resolve(fail(refusal));
    if (!this.#sequencer.isLeading) return this.#forwarder.carryOut(transaction);
    return new Promise((resolve) => {
      this.#carryOut(transaction, undefined, (problem) => {
        if (problem === undefined) resolve(ok({ committed: true }));
        else if (problem === "conflict") resolve(ok({ committed: false }));
        else resolve(problem === "dropped" ? this.#forwarder.carryOut(transaction) : fail(problem));
      });
    });
  }

  /** Only while leading. */
  #carryOut(transaction: Transaction, tag: SessionTag | undefined, done: Done): void {
    if (this.#sequencer.isFull) done(busy, 0);
    else if (transaction.kind === "write") this.#writeIf(transaction.compares, transaction.operations, tag, done);
    else this.#changeLease(transaction, tag, done);
  }

  #writeIf(
    compares: readonly Compare[],
    operations: readonly SealedOperation[],
    tag: SessionTag | undefined,
    done: Done,
  ): void {
    if (holds(this.#sequencer.tentative.state, compares)) this.#write(operations, tag, done);
    else this.#waitForAll((problem, index) => done(problem ?? "conflict", index));
  }

  #write(sealed: readonly SealedOperation[], tag: SessionTag | undefined, done: Done): void {
    const { leases } = this.#sequencer.tentative.state;
    const operations: Operation[] = [];
    for (const { operation } of sealed) {
      operations.push(operation);
      if (operation.kind === "remove" || operation.lease === undefined || leases.has(operation.lease)) continue;
      this.#answer(noLease(operation.lease), done);
      return;
    }
    if (operations.length === 0) {
      this.#answer(undefined, done);
      return;
    }
    const bytes = encodeWrites(sealed, tag);
    if (bytes.length > TRANSACTION_BYTES_MAX) done(transactionTooLarge(bytes.length), 0);
    else this.#submit(loggedOf({ kind: "write", operations }, tag), bytes, done);
  }

  #changeLease(transaction: Transaction & { readonly lease: LeaseId }, tag: SessionTag | undefined, done: Done): void {
    const { kind, lease } = transaction;
    const ttlMs = this.#sequencer.tentative.state.leases.get(lease);
    if (kind === "grant-lease") {
      const command: Command = { kind, lease, ttlMs: transaction.ttlMs };
      if (ttlMs !== undefined) done(storeError("busy", `There is a lease ${lease} already.`), 0);
      else this.#submit(loggedOf(command, tag), encodeGrant(lease, command.ttlMs, tag), done);
    } else if (ttlMs === undefined) {
      this.#answer(noLease(lease), done);
    } else if (kind === "revoke-lease") {
      this.#submit(loggedOf({ kind, lease }, tag), encodeRevoke(lease, tag), done);
    } else {
      this.#leases.renew(lease, ttlMs);
      this.#answer(undefined, done);
    }
  }

  #submit(logged: Logged, bytes: Uint8Array, settle: Settle): void {
    this.#sequencer.submit(logged, bytes, settle, logged.kind === "command" && logged.tag !== undefined);
    if (!this.#isWatching) void this.#watchPending();
  }

  /** Once everything that the tentative state holds is applied. */
  #waitForAll(settle: Settle): void {
    this.#sequencer.waitForAll(settle, this.#ledger.index);
    if (!this.#isWatching) void this.#watchPending();
  }

  /** An answer that writes nothing, but rests on the tentative state: it has to be committed, and nobody else lead by now. */
  #answer(problem: StoreError | undefined, done: Done): void {
    const { term } = this.#sequencer;
    const isStillLed = this.#decidesAlone() ? undefined : this.#running.readIndex();
    this.#waitForAll((trouble, index) => {
      if (trouble || !isStillLed) done(trouble ?? problem, index);
      else {
        void isStillLed.then(({ ok }) => {
          const isConfirmed = ok && this.#sequencer.isLeading && this.#sequencer.term === term;
          done(isConfirmed ? problem : "dropped", index);
        });
      }
    });
  }

  /** Runs while anybody waits. */
  async #watchPending(): Promise<void> {
    this.#isWatching = true;
    while (this.#sequencer.waiting > 0 && !this.#ended.signal.aborted) {
      const mark = this.#sequencer.submitted;
      const until = this.#clock.monotonicMs() + OUTCOME_MS;
      await this.#clock.sleep(OUTCOME_MS, this.#ended.signal);
      if (this.#clock.monotonicMs() >= until) this.#sequencer.failThrough(mark, outcomeUnknown);
    }
    this.#isWatching = false;
  }

  async #expire(lease: LeaseId): Promise<boolean> {
    if (!this.#sequencer.isLeading || this.#closing) return true;
    const ended = await new Promise<boolean>((resolve) => {
      this.#carryOut({ kind: "revoke-lease", lease }, undefined, (problem) => {
        resolve(problem === undefined || (typeof problem === "object" && problem.reason === "no-lease"));
      });
    });
    if (ended) this.#log.info("store.lease_expired", { lease });
    return ended;
  }

  // --- The state machine, as consensus drives it

  apply(entries: readonly Entry[]): undefined {
    const sequencer = this.#sequencer;
    for (const entry of entries) {
      // A node that is alone has applied its log before it led.
      if (entry.index <= this.#ledger.index) continue;
      assert(entry.index === this.#ledger.index + 1, "entries come in order, without gaps");
      sequencer.reached(entry.term);
      if (kindOf(entry) === "command") this.#applyCommand(entry);
      else this.#ledger.add(entry);
    }
    this.#failRefused();
    this.#progress.reached(this.#ledger.index);
  }

  #applyCommand(entry: Entry): void {
    const own = this.#sequencer.find(entry);
    const isAdopted = own !== undefined && own.base === this.#ledger.now;
    assert(isAdopted || !this.#sequencer.isLeading, "a leader's decisions were made on what is applied before them");
    const logged = own?.logged ?? decodeCommand(this.#schema, entry.data);
    const next = (isAdopted && own.after) || advance(this.#schema, this.#ledger.now, logged);
    this.#ledger.add(entry, next);
    if (next.changes.length > 0) this.#history.record(next.state.revision, next.changes, entry.data.length);
    if (logged.kind === "command" && this.#sequencer.isLeading) this.#noteLease(logged);
    if (own) this.#sequencer.settle(own, entry.index);
  }

  #noteLease({ command }: Logged & { kind: "command" }): void {
    if (command.kind === "grant-lease") this.#leases.renew(command.lease, command.ttlMs);
    if (command.kind === "revoke-lease") this.#leases.forget(command.lease);
  }

  gainedLeadership(term: Term): void {
    this.#forwarded.forget();
    this.#refusedAfter = undefined;
    this.#sequencer.begin(term, this.#ledger.now);
    // Nobody knows what time they have left: each gets all of it.
    for (const [lease, ttlMs] of this.state().leases) this.#leases.renew(lease, ttlMs);
    this.#gained.resolve();
    this.#forwarder.wake();
  }

  lostLeadership(): void {
    const { health, message = "The disk failed.", configuration, commitIndex } = this.#running.status();
    this.#leases.close();
    this.#forwarded.forget();
    // A disk that refused for want of space has nothing of what it did not make durable; and where there is no other member,
    // not even a learner that may have been made a voter by an entry sent along, nobody else has it either.
    if (health === "full" && membersOf(configuration).size === 1) {
      this.#refusedAfter = { index: commitIndex, error: storeError("full", message) };
      this.#failRefused();
    }
    this.#sequencer.lose();
    // Nothing more is applied here.
    if (health === "failed" || health === "lost") this.#sequencer.fail(storeError("failed", message));
    this.#forwarder.wake();
  }

  #failRefused(): void {
    if (!this.#refusedAfter || this.#refusedAfter.index > this.#ledger.index) return;
    this.#sequencer.fail(this.#refusedAfter.error);
    this.#refusedAfter = undefined;
  }

  leaderChanged(): void {
    this.#forwarder.wake();
  }

  async digest(): Promise<number> {
    return this.#ledger.digest;
  }

  async install({ point, path }: StoredSnapshot): Promise<Result<void, string>> {
    if (point.index <= this.#ledger.index) return ok(undefined);
    const read = await readSnapshot(this.#parts.disk, path, this.#schema);
    if (!read.ok) return fail(read.error.message);
    const { index, term, state } = read.value;
    if (index !== point.index || term !== point.term) return fail(`${path} is another snapshot than was announced.`);
    this.#ledger = new Ledger(read.value);
    this.#history.restartAfter(state.revision);
    this.#snapshotRevision = state.revision;
    this.#sequencer.installed(index, term, (of) => this.#ledger.countOf(of), outcomeUnknown);
    this.#progress.reached(index);
    this.#log.info("store.snapshot_installed", { index, revision: state.revision, records: state.keys.count });
    return ok(undefined);
  }

  async verify(path: string): Promise<Result<SnapshotPoint, string>> {
    const checked = await checkSnapshot(this.#parts.disk, path, this.#schema);
    return checked.ok ? checked : fail(checked.error.message);
  }

  async snapshot(point: SnapshotPoint): Promise<Result<StoredSnapshot, string>> {
    const { disk, directory } = this.#parts;
    const captured = this.#ledger.captured();
    assert(captured.index === point.index && captured.term === point.term, "a snapshot is of now");
    try {
      const bytes = await writeSnapshot(disk, directory, { ...captured, configuration: point.configuration });
      this.#snapshotRevision = Math.max(this.#snapshotRevision, captured.state.revision);
      return ok({ point, path: `${directory}/${snapshotName(point.index)}`, bytes });
    } catch (error) {
      return fail(error instanceof Error ? error.message : String(error));
    }
  }

  answer(from: PeerId, body: Uint8Array): Promise<Uint8Array> {
    return this.#forwarded.answer(from, body);
  }

  /** The session's id is known when its registration is: it has the place after those before it in the log. */
  #register(settle: Settle): void {
    this.#submit({ kind: "register" }, encodeRegister(), settle);
  }
}

const loggedOf = (command: Command, tag: SessionTag | undefined): Logged =>
  tag ? { kind: "command", command, tag } : { kind: "command", command };

const unavailable = ({ reason, message }: ConsensusError): StoreError =>
  reason === "closed" ? closed : storeError("unavailable", message);

const noLeader = storeError(
  "unavailable",
  "The transaction was not made: no leader could be reached. Most of the cluster's voters have to be up and connected.",
);
