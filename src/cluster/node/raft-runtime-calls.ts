import type { Log } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { KIB, MIB } from "../../lib/units.ts";
import type { ConsensusError } from "../consensus.ts";
import type { Ms, PeerId } from "../raft/types.ts";
import { FRAME_BYTES_MAX, type Transport } from "./transport.ts";

/** Requests that wait for an answer: of this node, and from one peer. More are refused, or not heard. */
const ASKED_MAX = 4096;
const ANSWERING_MAX = 1024;
/** … and in their bytes: the store may be busy elsewhere, and take none of them for a while. */
const ANSWERING_BYTES_MAX = 32 * MIB;
const BODY_BYTES_MAX = FRAME_BYTES_MAX - 64 * KIB;

export type CallsOptions = {
  readonly transport: Transport;
  readonly log: Log;
  readonly answer: (from: PeerId, body: Uint8Array) => Promise<Uint8Array>;
  readonly firstId: number;
};

/**
 * Where the ids of one life's questions to other nodes begin: elsewhere than in the life before, so that the answer to what
 * that one asked, if it is still on its way, is not taken for another question's. 48 bits, as ids stay below 2^53.
 */
export const firstIdOf = (random: Random): number => Buffer.from(random.bytes(6)).readUIntLE(0, 6);

type Call = {
  readonly to: PeerId;
  readonly until: Ms;
  readonly settle: (answer: Result<Uint8Array, ConsensusError>) => void;
};

/** Questions between nodes' stores, and their answers. Each is asked once; one that is lost times out. */
export class Calls {
  readonly #options: CallsOptions;
  readonly #asked = new Map<number, Call>();
  readonly #answering = new Map<PeerId, { readonly count: number; readonly bytes: number }>();
  #nextId: number;

  constructor(options: CallsOptions) {
    this.#options = options;
    this.#nextId = options.firstId;
  }

  get waiting(): number {
    return this.#asked.size;
  }

  request(to: PeerId, body: Uint8Array, until: Ms): Promise<Result<Uint8Array, ConsensusError>> {
    if (body.length > BODY_BYTES_MAX) return refused(`a request of ${body.length} bytes is too large`);
    if (this.#asked.size >= ASKED_MAX) return refused("too many requests wait for an answer");
    const id = this.#nextId++;
    return new Promise((settle) => {
      this.#asked.set(id, { to, until, settle });
      this.#options.transport.send(to, { type: "request", id, body });
    });
  }

  onRequest(from: PeerId, id: number, body: Uint8Array): void {
    const { transport, log, answer } = this.#options;
    const { count, bytes } = this.#answering.get(from) ?? { count: 0, bytes: 0 };
    if (count >= ANSWERING_MAX || bytes >= ANSWERING_BYTES_MAX) return;
    this.#answering.set(from, { count: count + 1, bytes: bytes + body.length });
    const done = () => {
      const left = this.#answering.get(from)!;
      if (left.count > 1) this.#answering.set(from, { count: left.count - 1, bytes: left.bytes - body.length });
      else this.#answering.delete(from);
    };
    answer(from, body).then(
      (reply) => {
        done();
        if (reply.length <= BODY_BYTES_MAX) return transport.send(from, { type: "response", id, body: reply });
        log.error("raft.answer_too_large", { peer: from, bytes: reply.length });
      },
      (error) => {
        done();
        log.error("raft.answer_failed", { peer: from, error });
      },
    );
  }

  onResponse(from: PeerId, id: number, body: Uint8Array): void {
    const call = this.#asked.get(id);
    if (call?.to !== from) return;
    this.#asked.delete(id);
    call.settle(ok(body));
  }

  /** The connection broke: whether the peer got what it was asked, and what it answered, is not known. */
  unreachable(peer: PeerId): void {
    this.#end(({ to }) => to === peer, {
      reason: "unavailable",
      message: `The connection to node ${peer} broke before it answered.`,
    });
  }

  timeOut(now: Ms): void {
    this.#end(({ until }) => until <= now, {
      reason: "unavailable",
      message: "The other node did not answer in time.",
    });
  }

  close(error: ConsensusError): void {
    this.#end(() => true, error);
  }

  #end(isOver: (call: Call) => boolean, error: ConsensusError): void {
    for (const [id, call] of this.#asked) {
      if (!isOver(call)) continue;
      this.#asked.delete(id);
      call.settle(fail(error));
    }
  }
}

const refused = (message: string): Promise<Result<never, ConsensusError>> =>
  Promise.resolve(fail({ reason: "refused", message: `It was not sent: ${message}.` }));
