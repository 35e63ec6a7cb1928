/**
 * Answers to Describe calls, kept as bytes for as long as the state is the same: a poller that asks the same question
 * again costs a signature check, a look-up and a copy. Only the request id differs, and it always takes as many bytes.
 *
 * Such an answer follows from the input, the account, the region and the state, unless its handler looked at the rest of
 * the call: the time, chance, who asks. `watched` sees that, and the answer is then not kept. Every commit forgets all
 * answers: to ask what each had read would keep some of them longer, and cost every read.
 */

import { MIB } from "../lib/units.ts";
import type { Call } from "../model/operation.ts";

const ANSWERS_MAX = 256;
/** Of all answers together. A thousand instances take 4.5 MB. */
const ANSWER_BYTES_MAX = 8 * MIB;

interface KeptAnswer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The part of `bytes` that is the request id. */
  readonly id: Uint8Array<ArrayBuffer>;
}

const encoder = new TextEncoder();

export class AnswerCache {
  readonly #answers = new Map<string, KeptAnswer>();
  #revision = -1;
  #bytes = 0;

  /**
   * The answer to `question` at this revision, with this request id in it. It is changed by the next call: to be copied at
   * once, as a Response does with the bytes that it is made of.
   */
  find(question: string, revision: number, requestId: string): Uint8Array<ArrayBuffer> | undefined {
    if (revision !== this.#revision) return undefined;
    const kept = this.#answers.get(question);
    if (!kept || encoder.encodeInto(requestId, kept.id).written !== kept.id.length) return undefined;
    return kept.bytes;
  }

  /** Takes over `bytes`, an answer in which `requestId` stands once. */
  keep(question: string, revision: number, requestId: string, bytes: Uint8Array<ArrayBuffer>): void {
    const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(requestId);
    if (at < 0 || bytes.length > ANSWER_BYTES_MAX) return;
    if (
      revision !== this.#revision ||
      this.#answers.size >= ANSWERS_MAX ||
      this.#bytes + bytes.length > ANSWER_BYTES_MAX
    ) {
      this.#answers.clear();
      this.#bytes = 0;
      this.#revision = revision;
    }
    this.#answers.set(question, { bytes, id: bytes.subarray(at, at + requestId.length) });
    this.#bytes += bytes.length;
  }
}

/** The same call, and whether its handler has looked at what an answer that is kept may not depend on. */
export function watched(call: Call): { readonly call: Call; readonly steady: () => boolean } {
  let steady = true;
  const seen = <T>(value: T): T => {
    steady = false;
    return value;
  };
  return {
    call: {
      accountId: call.accountId,
      region: call.region,
      config: call.config,
      state: call.state,
      get requestId() {
        return seen(call.requestId);
      },
      get principal() {
        return seen(call.principal);
      },
      get now() {
        return seen(call.now);
      },
      get random() {
        return seen(call.random);
      },
    },
    steady: () => steady,
  };
}
