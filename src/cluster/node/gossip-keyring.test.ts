import { expect, test } from "bun:test";
import { seededRandom } from "../../lib/random.ts";
import type { Result } from "../../lib/result.ts";
import {
  decodeRing,
  encodeRing,
  findKey,
  installKey,
  isLater,
  KEYS_MAX,
  NO_RING,
  newKey,
  newRing,
  type Ring,
  removeKey,
  replaceKeys,
  stampOf,
  useKey,
} from "./gossip-keyring.ts";

const random = seededRandom(1);
const must = (made: Result<Ring, string>): Ring => {
  if (!made.ok) throw new Error(made.error);
  return made.value;
};

test("a rotation: install, use, remove, each a later ring; doing it twice changes nothing", () => {
  const first = newRing(random);
  const key = newKey(random);
  const installed = must(installKey(first, key));
  expect(must(installKey(installed, key))).toBe(installed);
  expect(installed.primary).toBe(first.primary);
  const used = must(useKey(installed, key.id));
  expect(must(useKey(used, key.id))).toBe(used);
  const removed = must(removeKey(used, first.primary));
  expect(must(removeKey(removed, first.primary))).toBe(removed);
  expect(removed.keys.map(({ id }) => id)).toEqual([key.id]);
  const stamps = [NO_RING, ...[first, installed, used, removed].map(stampOf)];
  for (let i = 1; i < stamps.length; i++) {
    expect(isLater(stamps[i]!, stamps[i - 1]!)).toBe(true);
    expect(isLater(stamps[i - 1]!, stamps[i]!)).toBe(false);
  }
});

test("what would leave a ring without a primary, or too large, is refused with a sentence", () => {
  let ring = newRing(random);
  expect(removeKey(ring, ring.primary)).toMatchObject({ ok: false, error: expect.stringContaining("in use") });
  expect(useKey(ring, "00000000")).toMatchObject({ ok: false, error: expect.stringContaining("no key 00000000") });
  for (let i = 1; i < KEYS_MAX; i++) ring = must(installKey(ring, newKey(random)));
  expect(installKey(ring, newKey(random)).ok).toBe(false);
  const key = newKey(random);
  expect(must(replaceKeys(ring, key))).toEqual({ version: ring.version + 1, primary: key.id, keys: [key] });
});

test("of two rings of one version all nodes take the same, and never both", () => {
  const first = newRing(random);
  const [a, b] = [newKey(random), newKey(random)].map((key) => stampOf(must(installKey(first, key))));
  expect(Number(isLater(a!, b!)) + Number(isLater(b!, a!))).toBe(1);
});

test("a ring comes out as it went in; what is none is refused; a key shows itself to nobody", () => {
  let ring = newRing(random);
  for (let i = 1; i < KEYS_MAX; i++) ring = must(installKey(ring, newKey(random)));
  const bytes = encodeRing(ring);
  expect(decodeRing(bytes)).toEqual(ring);
  expect(findKey(decodeRing(bytes)!, ring.primary)?.secret.reveal()).toBe(findKey(ring, ring.primary)!.secret.reveal());
  for (let length = 0; length < bytes.length; length++) expect(decodeRing(bytes.subarray(0, length))).toBeUndefined();
  for (let at = 4; at < bytes.length; at++) {
    // A changed key has another id, so the primary is missing or the order wrong, or it is another ring.
    const read = decodeRing(Uint8Array.from(bytes).with(at, bytes[at]! ^ 1));
    if (read) expect(stampOf(read)).not.toEqual(stampOf(ring));
  }
  expect(decodeRing(new Uint8Array(9))).toBeUndefined();
  for (const key of ring.keys) expect(JSON.stringify(ring)).not.toContain(key.secret.reveal());
});
