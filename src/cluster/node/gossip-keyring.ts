/**
 * The keys of the cluster's gossip. One of them, the primary, seals what a node sends; all of them open what it receives. A
 * rotation installs a new key, waits until every member has the ring, uses the key, waits again, and removes the old one; each
 * is a new version of the ring, made on any one node, and the ring itself travels between the nodes (`gossip-endpoint.ts`).
 * Where an old key is known to have leaked, `replaceKeys` does it in one step.
 *
 * Two changes made on two nodes at the same time have the same version; all nodes then agree on one of them, and the other is
 * lost. Whoever rotates looks at the ring afterwards, or decides through the log.
 */
import { createHash } from "node:crypto";
import { assert } from "../../lib/assert.ts";
import { Secret } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";

/** Eight hexadecimal digits, derived from the key: names it without betraying it. */
export type KeyId = string;

export type GossipKey = {
  readonly id: KeyId;
  /** KEY_BYTES bytes in base64. */
  readonly secret: Secret;
};

export type Ring = {
  /** 1 for the first; every change adds one. */
  readonly version: number;
  readonly primary: KeyId;
  /** Sorted by id, 1 to KEYS_MAX. */
  readonly keys: readonly GossipKey[];
};

export const KEY_BYTES = 32;
/** One primary, its predecessor, and rotations that were not finished. */
export const KEYS_MAX = 8;
const VERSION_MAX = 2 ** 32 - 1;

export function newKey(random: Random): GossipKey {
  return keyOf(random.bytes(KEY_BYTES));
}

export function keyOf(bytes: Uint8Array): GossipKey {
  assert(bytes.length === KEY_BYTES, "a gossip key has 256 bits");
  const id = createHash("sha256").update("hive gossip key id\0").update(bytes).digest("hex").slice(0, 8);
  return { id, secret: new Secret(Buffer.from(bytes).toString("base64")) };
}

export const keyBytes = (key: GossipKey): Uint8Array => Buffer.from(key.secret.reveal(), "base64");

/** The ring of a new cluster. */
export function newRing(random: Random): Ring {
  const key = newKey(random);
  return { version: 1, primary: key.id, keys: [key] };
}

export const findKey = (ring: Ring, id: KeyId): GossipKey | undefined => ring.keys.find((key) => key.id === id);

/** Adds a key that all nodes open frames with from now on. */
export function installKey(ring: Ring, key: GossipKey): Result<Ring, string> {
  if (findKey(ring, key.id)) return ok(ring);
  if (ring.keys.length >= KEYS_MAX) return fail(`the ring holds ${KEYS_MAX} keys: remove one first`);
  return next(ring, ring.primary, [...ring.keys, key]);
}

/** Makes an installed key the one that seals. */
export function useKey(ring: Ring, id: KeyId): Result<Ring, string> {
  if (!findKey(ring, id)) return fail(`there is no key ${id} in the ring`);
  return ring.primary === id ? ok(ring) : next(ring, id, ring.keys);
}

/** Takes a key out: what is sealed with it is refused from now on. */
export function removeKey(ring: Ring, id: KeyId): Result<Ring, string> {
  if (ring.primary === id) return fail(`the key ${id} is in use`);
  if (!findKey(ring, id)) return ok(ring);
  const keys = ring.keys.filter((key) => key.id !== id);
  return next(ring, ring.primary, keys);
}

/**
 * One key instead of all: for when one has leaked. Members learn it by the join secret alone, so that nobody does who only has
 * the old keys; until they have it they don't understand each other, for a second or so.
 */
export const replaceKeys = (ring: Ring, key: GossipKey): Result<Ring, string> => next(ring, key.id, [key]);

function next(ring: Ring, primary: KeyId, keys: readonly GossipKey[]): Result<Ring, string> {
  if (ring.version >= VERSION_MAX) return fail("the ring has been changed too often");
  return ok({ version: ring.version + 1, primary, keys: keys.toSorted((a, b) => (a.id < b.id ? -1 : 1)) });
}

/** A ring's place among others: the later wins. */
export type Stamp = { readonly version: number; readonly digest: number };
export const NO_RING: Stamp = { version: 0, digest: 0 };

export function stampOf(ring: Ring | undefined): Stamp {
  if (!ring) return NO_RING;
  return { version: ring.version, digest: createHash("sha256").update(encodeRing(ring)).digest().readUInt32LE(0) };
}

export const isLater = (a: Stamp, b: Stamp): boolean =>
  a.version > b.version || (a.version === b.version && a.digest > b.digest);

/** u32 version, u32 primary's id, u8 count, and the keys, KEY_BYTES each. Little-endian; ids follow from keys. */
export function encodeRing(ring: Ring): Uint8Array {
  const head = Buffer.alloc(9);
  head.writeUInt32LE(ring.version, 0);
  head.writeUInt32BE(Number.parseInt(ring.primary, 16), 4);
  head.writeUInt8(ring.keys.length, 8);
  return Buffer.concat([head, ...ring.keys.map(keyBytes)]);
}

/** Reads a ring, or says that these bytes are none. */
export function decodeRing(bytes: Uint8Array): Ring | undefined {
  const input = Buffer.from(bytes);
  const count = (input.length - 9) / KEY_BYTES;
  if (!Number.isInteger(count) || count < 1 || count > KEYS_MAX || input[8] !== count) return undefined;
  const keys = Array.from({ length: count }, (_, i) =>
    keyOf(input.subarray(9 + i * KEY_BYTES, 9 + (i + 1) * KEY_BYTES)),
  );
  const version = input.readUInt32LE(0);
  const primary = input.toString("hex", 4, 8);
  const isSorted = keys.every((key, i) => i === 0 || keys[i - 1]!.id < key.id);
  return version >= 1 && isSorted && keys.some((key) => key.id === primary) ? { version, primary, keys } : undefined;
}
