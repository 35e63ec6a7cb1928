import { isQuorum } from "../raft/configuration.ts";
import type { Configuration, Index, PeerId } from "../raft/types.ts";

/** Every so many entries, nodes compare their states. */
export const DIGEST_EVERY = 1024;
/** How many indexes are remembered while others' digests are awaited. */
const REMEMBERED_MAX = 16;

/**
 * agreed    a majority has this node's digest, or nobody has another
 * outvoted  a majority has another one
 * differs   somebody does, and no majority has spoken
 */
export type Verdict = "agreed" | "outvoted" | "differs";

/**
 * Compares this node's digests with the other members'. Two states that came apart without any error are the one fault that
 * consensus can't see by itself, and a leader can be the one that is wrong: a majority tells. Digests come in any order.
 */
export class Digests {
  readonly #self: PeerId;
  readonly #said = new Map<Index, Map<PeerId, number>>();

  constructor(self: PeerId) {
    this.#self = self;
  }

  /** What a member, this node too, has at an index. */
  note(from: PeerId, index: Index, digest: number): void {
    let said = this.#said.get(index);
    if (!said) {
      said = new Map();
      this.#said.set(index, said);
      if (this.#said.size > REMEMBERED_MAX) this.#said.delete(Math.min(...this.#said.keys()));
    }
    said.set(from, digest);
  }

  /** Undefined where this node has said nothing yet. */
  judge(index: Index, configuration: Configuration): Verdict | undefined {
    const said = this.#said.get(index);
    const own = said?.get(this.#self);
    if (!said || own === undefined) return undefined;
    const others = new Set([...said.values()].filter((digest) => digest !== own));
    const isMajority = (digest: number) => isQuorum(configuration, (peer) => said.get(peer) === digest);
    if (others.size === 0 || isMajority(own)) return "agreed";
    return [...others].some(isMajority) ? "outvoted" : "differs";
  }

  /** Whether a peer has another digest than this node somewhere before an index, and no majority came to tell who is right. */
  isInDoubt(peer: PeerId, before: Index, configuration: Configuration): boolean {
    return [...this.#said].some(([index, said]) => {
      const differs = said.has(peer) && said.get(peer) !== said.get(this.#self);
      return index < before && differs && this.judge(index, configuration) === "differs";
    });
  }
}

/** A digest on its way: a tag byte, the index as a double and the digest, both little-endian. */
const DIGEST_BYTES = 13;

export function encodeDigest(tag: number, index: Index, digest: number): Uint8Array {
  const body = Buffer.alloc(DIGEST_BYTES, tag);
  body.writeDoubleLE(index, 1);
  body.writeUInt32LE(digest, 9);
  return body;
}

/** Undefined for what is no digest. */
export function decodeDigest(body: Uint8Array): { readonly index: Index; readonly digest: number } | undefined {
  if (body.length !== DIGEST_BYTES) return undefined;
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  return { index: view.getFloat64(1, true), digest: view.getUint32(9, true) };
}
