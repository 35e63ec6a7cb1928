/**
 * The leader's side of forwarding: carries out what other nodes ask for, once, however often they ask. What was written, the
 * sessions in the replicated state remember, across leaders; what was decided without writing, this leader does while it leads.
 * The other side is the `Forwarder`.
 */
import type { Log } from "../../lib/log.ts";
import type { StoreError } from "../../model/store.ts";
import type { Index, PeerId } from "../raft/types.ts";
import { type Answer, encodeAnswer, type ItemResult, parseRequest, type Transaction } from "./forward-message.ts";
import type { Schema } from "./schema.ts";
import type { Sequencer, Settle } from "./sequencer.ts";
import { lookUp, type SessionId, type SessionTag } from "./sessions.ts";
import { outcomeUnknown } from "./store-errors.ts";

/** What became of a transaction. `conflict`: a compare did not hold; otherwise see `Settle`. */
export type Done = (problem: "dropped" | "conflict" | StoreError | undefined, index: Index) => void;

export type ForwardServerPorts = {
  readonly schema: Schema;
  readonly log: Log;
  readonly sequencer: Sequencer;
  /** Only while leading. */
  carryOut(transaction: Transaction, tag: SessionTag, done: Done): void;
  /** Once everything that the tentative state holds is applied. */
  waitForAll(settle: Settle): void;
  /** Puts the next session into the log. */
  register(settle: Settle): void;
  isClosing(): boolean;
};

type Client = {
  /** The highest that it named: late copies of what is below are not carried out. */
  low: number;
  /**
   * Its transactions from `low` on that were decided without writing anything; "unresolved" until it is sure. Whoever asks
   * again gets the same answer: a late copy must not carry out what its client was told not to be made.
   */
  readonly unwritten: Map<number, ItemResult>;
};

export class ForwardServer {
  readonly #ports: ForwardServerPorts;
  /** As leader of this term: what is known of those who forward, beyond what their sessions say. */
  #clients = new Map<SessionId, Client>();

  constructor(ports: ForwardServerPorts) {
    this.#ports = ports;
  }

  /** A term begins or ends: nothing that was decided without writing binds anybody any more. */
  forget(): void {
    this.#clients.clear();
  }

  /** Answers another node's request. Never rejects. */
  async answer(from: PeerId, body: Uint8Array): Promise<Uint8Array> {
    try {
      return encodeAnswer(await this.#answerTo(from, body));
    } catch (error) {
      // A record that this version's indexes make nothing of, say.
      this.#ports.log.error("store.forwarded_failed", { peer: from, error });
      return encodeAnswer({ kind: "bad", message: String(error) });
    }
  }

  async #answerTo(from: PeerId, body: Uint8Array): Promise<Answer> {
    const request = parseRequest(this.#ports.schema, body);
    if (!request.ok) {
      this.#ports.log.warn("store.forwarded_malformed", { peer: from, message: request.error });
      return { kind: "bad", message: request.error };
    }
    const { kind, term } = request.value;
    const { sequencer } = this.#ports;
    if (this.#ports.isClosing() || !sequencer.isLeading || sequencer.term !== term) return { kind: "moved" };
    if (kind === "register") return this.#register();
    const { session, low, items } = request.value;
    if (lookUp(sequencer.tentative.sessions, { session, number: low, low }) === "expired") return { kind: "expired" };
    const client = this.#clientOf(session, low);
    const settled = await Promise.all(
      items.map(({ number, transaction }) => this.#answerItem({ session, number, low }, transaction, client)),
    );
    return {
      kind: "done",
      index: Math.max(0, ...settled.map(({ index }) => index)),
      results: settled.map(({ result }) => result),
    };
  }

  #register(): Promise<Answer> {
    const { sequencer, register } = this.#ports;
    const session = sequencer.tentative.sessions.nextId;
    if (sequencer.isFull) return Promise.resolve({ kind: "moved" });
    return new Promise((resolve) => {
      register((problem) => {
        resolve(problem === undefined ? { kind: "session", session } : { kind: "moved" });
      });
    });
  }

  #clientOf(session: SessionId, low: number): Client {
    const client = this.#clients.get(session) ?? { low, unwritten: new Map() };
    this.#clients.set(session, client);
    client.low = Math.max(client.low, low);
    for (const number of client.unwritten.keys()) if (number < client.low) client.unwritten.delete(number);
    return client;
  }

  #answerItem(
    tag: SessionTag,
    transaction: Transaction,
    { low, unwritten }: Client,
  ): Promise<{ readonly result: ItemResult; readonly index: Index }> {
    const { number } = tag;
    return new Promise((resolve) => {
      const settle = (result: ItemResult, index: Index) => resolve({ result, index });
      const known = this.#knownOf(tag, low, unwritten);
      if (known === "unresolved") {
        settle(known, 0);
        return;
      }
      if (known !== undefined) {
        this.#ports.waitForAll((problem, index) => settle(problem ? "unresolved" : known, index));
        return;
      }
      unwritten.set(number, "unresolved");
      this.#ports.carryOut(transaction, tag, (problem, index) => {
        const result = resultOf(problem);
        if (unwritten.has(number)) {
          if (result === "unresolved") unwritten.delete(number);
          else unwritten.set(number, result);
        }
        settle(result, index);
      });
      // What is written, the session remembers.
      if (lookUp(this.#ports.sequencer.tentative.sessions, tag) === "done") unwritten.delete(number);
    });
  }

  /** What was decided of it already. */
  #knownOf(tag: SessionTag, low: number, unwritten: ReadonlyMap<number, ItemResult>): ItemResult | undefined {
    if (tag.number < low) return "unresolved";
    const before = unwritten.get(tag.number);
    if (before !== undefined) return before;
    const found = lookUp(this.#ports.sequencer.tentative.sessions, tag);
    if (found === "new") return undefined;
    return found === "done" ? "committed" : "unresolved";
  }
}

function resultOf(problem: Parameters<Done>[0]): ItemResult {
  if (problem === undefined) return "committed";
  return problem === "dropped" || problem === outcomeUnknown ? "unresolved" : problem;
}
