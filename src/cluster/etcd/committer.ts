import { fail, type Result } from "../../lib/result.ts";
import { type StoreError, TRANSACTION_BYTES_MAX } from "../../model/store.ts";
import { type Commit, Draft, type Effect } from "./draft.ts";
import { BACKOFF_MS_MAX, BACKOFF_MS_MIN, type EtcdParts, type Follower } from "./follower.ts";
import { afterPrefix, bytes, compareValue, type RequestOperation } from "./gateway-json.ts";
import { storeError, watchLags } from "./health.ts";
import { chunkText, HEAD_KEY, makeHead, type Row, STAGED, stagedKey, WAITING } from "./layout.ts";
import type { Replica } from "./replica.ts";
import type { Turns } from "./turns.ts";

/** How long a transaction may wait for etcd, conflicts included. An election of etcd's takes a second or two. */
export const PATIENCE_MS = 10_000;
/** A node that does not take its turn is passed over after so long. */
const TURN_MS = 250;
/** From so many conflicts in a row on, a node asks for its turn. */
const LOSSES_MAX = 2;
/** A writer that does not settle its own commit in so long is gone. */
const SETTLING_MS = 1000;
/** A transaction that met conflicts so often is refused as `busy`. */
const ATTEMPTS_MAX = 100;
const PENDING_MAX = 16_384;
/** Of what one transaction writes, with the earlier values that are kept of what it replaces. */
export const COMMIT_BYTES_MAX = 3 * TRANSACTION_BYTES_MAX;
/** Decisions that one commit carries at most, those that write nothing included. */
const MEMBERS_MAX = 1000;

/** What a decision comes to: what it does, if anything, and what its caller gets once that is committed. */
export type Decided<T, E> = { readonly effect?: Effect; readonly answer: Result<T, E> };

/** A decision that waits. */
type Proposal = {
  readonly deadlineMs: number;
  attempts: number;
  /** Decides on the draft's state. May throw. */
  decide(draft: Draft): { readonly effect: Effect | undefined; readonly answer: () => void };
  refuse(error: StoreError): void;
  /** It was found to be a defect of the caller's, or of its tables'. */
  reject(defect: unknown): void;
};
type Member = { readonly proposal: Proposal; readonly answer: () => void };

/** What became of something sent to etcd. `lost`: the head is another one by now. */
type Outcome =
  | { readonly kind: "done"; readonly position: number }
  | { readonly kind: "lost" }
  | { readonly kind: "failed"; readonly error: StoreError };

/** The same of one transaction; with `mayBeDone`, an answer was missing. */
type Sent =
  | { readonly kind: "done"; readonly position: number }
  | { readonly kind: "lost"; readonly mayBeDone: boolean }
  | { readonly kind: "failed"; readonly error: StoreError; readonly mayBeDone: boolean };

/** Makes decisions on the newest state and commits them, one commit at a time. */
export class Committer {
  readonly #parts: EtcdParts;
  readonly #follower: Follower;
  readonly #turns: Turns;
  #sequence = 0;
  #queue: Proposal[] = [];
  /** Decisions that are being committed. */
  #members: readonly Member[] = [];
  #losses = 0;
  #pumping: Promise<void> | undefined;

  constructor(parts: EtcdParts, follower: Follower, turns: Turns) {
    this.#parts = parts;
    this.#follower = follower;
    this.#turns = turns;
  }

  get pending(): number {
    return this.#queue.length + this.#members.length;
  }

  /** Waits for what is on its way. To be called once `health` is closed; what waits is then refused. */
  async close(): Promise<void> {
    this.#follower.announce();
    await this.#pumping;
  }

  /** Resolves once the decision, and all that it was made on, is committed and applied here. */
  propose<T, E>(decide: (draft: Draft) => Decided<T, E | StoreError>): Promise<Result<T, E | StoreError>> {
    const { health, clock } = this.#parts;
    if (health.refusal) return Promise.resolve(fail(health.refusal));
    if (this.#queue.length >= PENDING_MAX) return Promise.resolve(fail(busy("Too many transactions wait.")));
    return new Promise((resolve, reject) => {
      this.#queue.push({
        deadlineMs: clock.monotonicMs() + PATIENCE_MS,
        attempts: 0,
        decide(draft) {
          const { effect, answer } = decide(draft);
          return { effect, answer: () => resolve(answer) };
        },
        refuse: (error) => resolve(fail(error)),
        reject,
      });
      this.#pumping ??= this.#pump().catch((cause) => {
        health.foundDefect(cause);
        for (const { proposal } of this.#members) proposal.reject(cause);
        this.#refuseQueue(health.refusal ?? storeError("failed", String(cause)));
      });
    });
  }

  /** Commits what waits, one commit at a time, until nothing does. */
  async #pump(): Promise<void> {
    const { schema, clock, health, writer } = this.#parts;
    // Whoever else is about to propose in this turn of the loop joins the first commit.
    await Promise.resolve();
    for (;;) {
      if (this.#queue.length > 0) await this.#awaitTurn();
      const base = this.#follower.replica;
      const { refusal } = health;
      if (refusal) this.#refuseQueue(refusal);
      const isOurs = base.head?.writer === writer;
      if (base.unsettled.length > 0 && (this.#queue.length > 0 || (isOurs && !refusal))) {
        const left = this.#follower.unsettledSinceMs + SETTLING_MS - clock.monotonicMs();
        if (!isOurs && left > 0) {
          await this.#follower.moveWithin(left);
          continue;
        }
        const outcome = await this.#settle(base);
        if (outcome.kind !== "failed") continue;
        // Left to whoever commits next.
        this.#refuseQueue(outcome.error);
      }
      if (this.#queue.length === 0) {
        if (this.#turns.ours === undefined) break;
        await this.#returnTicket();
        continue;
      }
      const draft = new Draft(schema, base);
      const members = this.#fill(draft);
      this.#members = members;
      const commit = draft.finish();
      const outcome = await (commit ? this.#commit(commit) : this.#confirm(base));
      this.#members = [];
      this.#losses = outcome.kind === "lost" ? this.#losses + 1 : 0;
      if (outcome.kind === "done") for (const { answer } of members) answer();
      else if (outcome.kind === "lost") this.#requeue(members.map(({ proposal }) => proposal));
      else {
        for (const { proposal } of members) proposal.refuse(outcome.error);
        // Those behind would wait as long for the same answer.
        if (outcome.error.reason === "unavailable") this.#refuseQueue(outcome.error);
      }
    }
    this.#pumping = undefined;
  }

  /** Lets those pass who have waited longer, and asks for a turn where one is needed. */
  async #awaitTurn(): Promise<void> {
    let before: string | undefined;
    let passMs = 0;
    while (!this.#parts.health.refusal) {
      if (this.#turns.ours === undefined && (this.#turns.othersWait || this.#losses >= LOSSES_MAX)) {
        const ticket = this.#turns.name();
        const asked = await this.#parts.etcd.txn({
          compare: [],
          success: [this.#writing({ key: WAITING + ticket, text: "1" })],
        });
        // What is wrong, the commit itself will find out.
        if (!asked.ok) return;
        this.#turns.hold(ticket);
      }
      const { ahead } = this.#turns;
      if (ahead === undefined) return;
      const now = this.#parts.clock.monotonicMs();
      if (ahead !== before) passMs = now + TURN_MS;
      before = ahead;
      if (now < passMs) {
        await this.#follower.moveWithin(passMs - now);
        continue;
      }
      const isUnheard = ahead === this.#turns.ours;
      this.#turns.giveUp(ahead);
      if (isUnheard) return;
    }
  }

  /** Nobody is to wait for a ticket that is not needed any more. */
  async #returnTicket(): Promise<void> {
    const { spent } = this.#turns;
    const done = await this.#parts.etcd.txn({ compare: [], success: this.#clearing(spent) });
    if (done.ok) this.#turns.passed(spent);
    else this.#turns.hold(undefined);
  }

  #clearing(tickets: readonly string[]): RequestOperation[] {
    return tickets.map((ticket) => this.#writing({ key: WAITING + ticket, text: undefined }));
  }

  /** Makes decisions, in order, while what they do fits into one commit. */
  #fill(draft: Draft): Member[] {
    const members: Member[] = [];
    let taken = 0;
    for (const proposal of this.#queue) {
      if (members.length >= MEMBERS_MAX) break;
      try {
        const { effect, answer } = proposal.decide(draft);
        // It will be made again, on the state after this commit.
        if (effect && members.length > 0 && !draft.fits(effect)) break;
        if (effect?.kind === "write" && draft.bytesOf(effect) > COMMIT_BYTES_MAX) proposal.refuse(tooLarge);
        else {
          if (effect) draft.add(effect);
          members.push({ proposal, answer });
        }
      } catch (defect) {
        proposal.reject(defect);
      }
      taken++;
    }
    this.#queue.splice(0, taken);
    return members;
  }

  #requeue(proposals: readonly Proposal[]): void {
    const now = this.#parts.clock.monotonicMs();
    const again: Proposal[] = [];
    for (const proposal of proposals) {
      if (++proposal.attempts < ATTEMPTS_MAX && now < proposal.deadlineMs) again.push(proposal);
      else proposal.refuse(busy(`A transaction met other nodes' writes ${proposal.attempts} times in a row.`));
    }
    this.#queue = [...again, ...this.#queue];
  }

  #refuseQueue(error: StoreError): void {
    for (const proposal of this.#queue.splice(0)) proposal.refuse(error);
  }

  /** That the base is still the newest state: what was decided on it, and writes nothing, stands. */
  async #confirm(base: Replica): Promise<Outcome> {
    // The read makes it linearizable: a transaction without any operation is answered by what a lagging member knows.
    const sent = await this.#send(base, [
      { request_range: { key: bytes(this.#parts.prefix + HEAD_KEY), keys_only: true } },
    ]);
    return sent.kind === "done" ? sent : this.#notDone(base, sent);
  }

  async #commit(commit: Commit): Promise<Outcome> {
    const { base } = commit;
    const sequence = ++this.#sequence;
    const chunks = commit.chunks();
    const staged =
      chunks.length > 1 ? { commit: `${this.#parts.writer}-${sequence}`, chunks: chunks.length } : undefined;
    for (const [i, rows] of staged ? chunks.entries() : []) {
      const row = { key: stagedKey(`${staged?.commit}`, i), text: chunkText(rows) };
      const sent = await this.#send(base, [this.#writing(row)]);
      if (sent.kind !== "done") return this.#notDone(base, sent);
    }
    const head = commit.head(this.#parts.writer, sequence, staged);
    const { spent } = this.#turns;
    const next = this.#queue.length > 0 && this.#turns.othersWait ? this.#turns.name() : undefined;
    const reloads = this.#follower.reloads;
    const sent = await this.#send(base, [
      this.#writing({ key: HEAD_KEY, text: head.text }),
      ...(staged ? [] : commit.rows.map((row) => this.#writing(row))),
      ...this.#clearing(spent),
      ...(next === undefined ? [] : [this.#writing({ key: WAITING + next, text: "1" })]),
    ]);
    if (sent.kind === "done") {
      this.#turns.passed(spent, next);
      // The watch may have been faster.
      if (this.#follower.replica.position < sent.position) {
        this.#follower.install(commit.replica(head, sent.position, chunks), commit.events, commit.delta);
      }
      return sent;
    }
    if (sent.kind === "failed" && !sent.mayBeDone) return sent;
    // Another head: perhaps our own, if an answer was lost on the way. Once it is seen here, it is known.
    const moved = await this.#follower.past(base.position, sent.kind === "failed" ? 0 : this.#patience());
    if (this.#follower.committed >= sequence) {
      this.#turns.passed(spent, next);
      return { kind: "done", position: this.#follower.replica.position };
    }
    if (sent.kind === "failed") return { kind: "failed", error: uncertain(sent.error) };
    if (!moved) {
      const error = this.#parts.health.refusal ?? watchLags;
      return { kind: "failed", error: sent.mayBeDone ? uncertain(error) : error };
    }
    if (sent.mayBeDone && this.#follower.reloads > reloads) return { kind: "failed", error: uncertain(unseen) };
    return { kind: "lost" };
  }

  /** What is to be said of something without a head that was not done: `lost` once the newer head is here. */
  async #notDone(base: Replica, sent: Sent & { readonly kind: "lost" | "failed" }): Promise<Outcome> {
    if (sent.kind === "failed" || (await this.#follower.past(base.position, this.#patience()))) return sent;
    return { kind: "failed", error: this.#parts.health.refusal ?? watchLags };
  }

  /** Copies a staged commit's rows to their own keys, and says that it is done. */
  async #settle(base: Replica): Promise<Outcome> {
    for (const rows of base.unsettled) {
      const operations = rows.map((row) => this.#writing(row));
      const copied = await this.#send(base, operations);
      if (copied.kind !== "done") return this.#notDone(base, copied);
    }
    const sequence = ++this.#sequence;
    const { revision } = base.state;
    const head = makeHead(base, { revision, writer: this.#parts.writer, sequence, rows: 0 });
    const all = { key: bytes(this.#parts.prefix + STAGED), range_end: bytes(afterPrefix(this.#parts.prefix + STAGED)) };
    const sent = await this.#send(base, [
      this.#writing({ key: HEAD_KEY, text: head.text }),
      { request_delete_range: all },
    ]);
    if (sent.kind !== "done") return this.#notDone(base, sent);
    if (this.#follower.replica.position < sent.position) {
      this.#follower.install({ ...base, position: sent.position, head, unsettled: [], staged: new Map() }, []);
    }
    return sent;
  }

  #writing({ key, text }: Row): RequestOperation {
    const name = bytes(this.#parts.prefix + key);
    return text === undefined
      ? { request_delete_range: { key: name } }
      : { request_put: { key: name, value: bytes(text) } };
  }

  /**
   * One transaction of etcd's, on the condition that the head is still the base's. It is sent again while etcd does not
   * answer: it succeeds once at most if it writes the head, and does no harm twice if it doesn't.
   */
  async #send(base: Replica, success: readonly RequestOperation[]): Promise<Sent> {
    const { etcd, prefix, clock, health } = this.#parts;
    const request = { compare: [compareValue(prefix + HEAD_KEY, base.head?.text)], success };
    const writes = success.some((operation) => !("request_range" in operation));
    const deadlineMs = this.#patience();
    let mayBeDone = false;
    for (let wait = BACKOFF_MS_MIN; ; wait = Math.min(2 * wait, BACKOFF_MS_MAX)) {
      const answer = await etcd.txn(request);
      if (answer.ok) {
        health.heard(writes && answer.value.succeeded);
        this.#follower.checkAge(base.position, answer.value.revision);
        if (health.isBroken && health.refusal) return { kind: "failed", error: health.refusal, mayBeDone };
        return answer.value.succeeded ? { kind: "done", position: answer.value.revision } : { kind: "lost", mayBeDone };
      }
      const error = health.failed(answer.error);
      if (answer.error.kind !== "unreachable") return { kind: "failed", error, mayBeDone };
      mayBeDone = true;
      // Also when the watch is back before the answer: it knows more.
      if (this.#follower.replica.position > base.position) return { kind: "lost", mayBeDone };
      if (health.refusal || clock.monotonicMs() >= deadlineMs) return { kind: "failed", error, mayBeDone };
      await clock.sleep(wait, this.#follower.ended);
    }
  }

  #patience(): number {
    return this.#parts.clock.monotonicMs() + PATIENCE_MS;
  }
}

const busy = (message: string): StoreError => storeError("busy", message);
const unseen = storeError("unavailable", "What etcd committed meanwhile was compacted before it was seen here.");
const tooLarge = storeError(
  "too-large",
  `With the past of the records that it replaces, a transaction is larger than ${COMMIT_BYTES_MAX} bytes.`,
);
const uncertain = (error: StoreError): StoreError => ({
  ...error,
  message: `${error.message} The transaction may have been committed or not.`,
});
