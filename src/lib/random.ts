import { randomBytes } from "node:crypto";

/** Chance as an argument, so that a test can own it. */
export interface Random {
  /** `count` random bytes. The system's source is cryptographically strong; a seeded one is for tests only. */
  bytes(count: number): Uint8Array;
}

export const systemRandom: Random = { bytes: (count) => randomBytes(count) };

/** `digits` lower-case hexadecimal digits. */
export function randomHex(random: Random, digits: number): string {
  return Buffer.from(random.bytes((digits + 1) >> 1))
    .toString("hex")
    .slice(0, digits);
}

/** A random (version 4) UUID, RFC 9562. */
export function randomUuid(random: Random): string {
  const bytes = Buffer.from(random.bytes(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = bytes.toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** A deterministic source for tests (SplitMix64). The same seed gives the same bytes. Not for secrets. */
export function seededRandom(seed: number): Random {
  let state = BigInt.asUintN(64, BigInt(seed));
  const next = () => {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    let z = state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  };
  return {
    bytes(count) {
      const out = Buffer.alloc(count + 8);
      for (let at = 0; at < count; at += 8) out.writeBigUInt64LE(next(), at);
      return out.subarray(0, count);
    },
  };
}
