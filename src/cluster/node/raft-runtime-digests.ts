import type { Index } from "../raft/types.ts";

/** Every so many entries, nodes compare their states. */
export const DIGEST_EVERY = 1024;
/** How many digests are remembered while the other side's is awaited. */
const REMEMBERED_MAX = 16;

/**
 * Compares this node's digests with its leader's. They come in any order: what has no counterpart yet is remembered for a
 * while. Two states that came apart without any error are the one fault that consensus can't see by itself.
 */
export class Digests {
  readonly #own = new Map<Index, number>();
  readonly #leaders = new Map<Index, number>();

  /** @returns false when the leader had another digest there */
  own(index: Index, digest: number): boolean {
    return compare(index, digest, this.#own, this.#leaders);
  }

  /** @returns false when this node had another digest there */
  leaders(index: Index, digest: number): boolean {
    return compare(index, digest, this.#leaders, this.#own);
  }
}

function compare(index: Index, digest: number, mine: Map<Index, number>, others: ReadonlyMap<Index, number>): boolean {
  mine.set(index, digest);
  const [oldest] = mine.keys();
  if (mine.size > REMEMBERED_MAX) mine.delete(oldest!);
  return (others.get(index) ?? digest) === digest;
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
