import { afterEach, expect, test } from "bun:test";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openMemoryStore } from "../cluster/open-memory-store.ts";
import { Secret } from "../lib/log.ts";
import { seededRandom, systemRandom } from "../lib/random.ts";
import { ok } from "../lib/result.ts";
import type { AccountId } from "../model/ids.ts";
import { put, type Store } from "../model/store.ts";
import { accessKeys } from "../model/tables.ts";
import { createCredentials } from "./credentials.ts";
import { ensureRootKey, newAccessKey, type RootKey, rootKeyFromEnvironment } from "./root-key.ts";
import { loadSealingKey, SealingKey } from "./sealing-key.ts";

const ACCOUNT = "123456789012" as AccountId;
const sealingKey = new SealingKey(seededRandom(1).bytes(32));
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

async function emptyStore(): Promise<Store> {
  const store = await openMemoryStore([accessKeys]);
  cleanups.push(() => store.close());
  return store;
}
const given = (id: string, secret: string): RootKey => ({ accessKeyId: id, secretAccessKey: new Secret(secret) });
const ensure = async (store: Store, key?: RootKey, sealing = sealingKey, now = 1) => {
  const result = await ensureRootKey(store, ACCOUNT, key, { sealingKey: sealing, random: systemRandom, now });
  return result.ok
    ? { id: result.value.accessKeyId, secret: result.value.secretAccessKey.reveal() }
    : result.error.message;
};

test("a fresh key has AWS's form", () => {
  const key = newAccessKey(systemRandom);
  expect(key.accessKeyId).toMatch(/^AKIA[A-Z2-7]{16}$/);
  expect(key.secretAccessKey.reveal()).toMatch(/^[A-Za-z0-9+/]{40}$/);
  expect(JSON.stringify(key)).not.toContain(key.secretAccessKey.reveal());
});

test("the root key is made once, and found again", async () => {
  const store = await emptyStore();
  const first = await ensure(store);
  expect(await ensure(store)).toEqual(first);
  expect(store.read().count(accessKeys)).toBe(1);
});

test("the store holds no secret in the clear", async () => {
  const store = await emptyStore();
  await ensure(store, given("AKIAGIVEN", "a-very-secret-secret"));
  expect(JSON.stringify(store.read().all(accessKeys))).not.toContain("a-very-secret-secret");
});

test("a key from the environment replaces the one before it", async () => {
  const store = await emptyStore();
  const credentials = createCredentials(store, sealingKey);
  await ensure(store, given("AKIAONE", "secret-one"));
  expect(credentials.lookup("AKIAONE")).toMatchObject({
    secret: "secret-one",
    principal: { arn: `arn:aws:iam::${ACCOUNT}:root` },
  });
  await ensure(store, given("AKIAONE", "secret-changed"), sealingKey, 2);
  expect(credentials.lookup("AKIAONE")?.secret).toBe("secret-changed");
  await ensure(store, given("AKIATWO", "secret-two"), sealingKey, 3);
  expect(credentials.lookup("AKIAONE")).toBeUndefined();
  expect(await ensure(store)).toEqual({ id: "AKIATWO", secret: "secret-two" });
  const { revision } = store.read();
  await ensure(store, given("AKIATWO", "secret-two"), sealingKey, 4);
  expect(store.read().revision).toBe(revision);
});

test("another key file opens nothing, and says so", async () => {
  const store = await emptyStore();
  const { id } = (await ensure(store)) as { id: string };
  const other = new SealingKey(seededRandom(2).bytes(32));
  expect(await ensure(store, undefined, other)).toContain("sealed under another key file");
  expect(createCredentials(store, other).lookup(id)).toBeUndefined();
});

test("a sealed secret cannot be moved to another key's record", async () => {
  const store = await emptyStore();
  await ensure(store, given("AKIAONE", "secret-one"));
  await store.transact((state) => {
    const record = state.get(accessKeys, "AKIAONE")!;
    return ok({ writes: [put(accessKeys, { ...record, accessKeyId: "AKIATHIEF" })], value: undefined });
  });
  expect(createCredentials(store, sealingKey).lookup("AKIATHIEF")).toBeUndefined();
  expect(createCredentials(store, sealingKey).lookup("AKIAONE", "a-session-token")).toBeUndefined();
});

test("a damaged sealed secret opens to nothing", () => {
  const sealed = sealingKey.seal("secret", "name", systemRandom);
  expect(sealingKey.open(sealed, "name")).toBe("secret");
  expect(
    sealingKey.open(
      sealed.replace(/^./, (c) => (c === "A" ? "B" : "A")),
      "name",
    ),
  ).toBeUndefined();
  for (const bad of ["", "AAAA", sealed.slice(0, 20)]) expect(sealingKey.open(bad, "name")).toBeUndefined();
});

test("the environment gives both parts or neither", () => {
  expect(rootKeyFromEnvironment({})).toEqual({ ok: true, value: undefined });
  expect(rootKeyFromEnvironment({ HIVE_ROOT_ACCESS_KEY_ID: "AKIAONE" }).ok).toBe(false);
  expect(
    rootKeyFromEnvironment({ HIVE_ROOT_ACCESS_KEY_ID: "a/b", HIVE_ROOT_SECRET_ACCESS_KEY: "long-enough" }).ok,
  ).toBe(false);
  expect(
    rootKeyFromEnvironment({ HIVE_ROOT_ACCESS_KEY_ID: "AKIAONE", HIVE_ROOT_SECRET_ACCESS_KEY: "long enough" }).ok,
  ).toBe(false);
  expect(
    rootKeyFromEnvironment({ HIVE_ROOT_ACCESS_KEY_ID: "AKIAONE", HIVE_ROOT_SECRET_ACCESS_KEY: "long-enough" }),
  ).toMatchObject({ value: { accessKeyId: "AKIAONE" } });
});

test("the key file is made once, for its owner's eyes, and two who start at once agree on it", async () => {
  const directory = await mkdtemp(join(tmpdir(), "hive-keys-"));
  cleanups.push(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, "keys", "sealing.key");
  const loaded = await Promise.all(Array.from({ length: 8 }, () => loadSealingKey(path, systemRandom)));
  const keys = loaded.map((result) => result.ok && Buffer.from(result.value.derive("test")).toString("hex"));
  expect(new Set(keys).size).toBe(1);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await readFile(path, "utf8")).toMatch(/^[0-9a-f]{64}\n$/);

  await chmod(path, 0o644);
  await loadSealingKey(path, systemRandom);
  expect((await stat(path)).mode & 0o777).toBe(0o600);

  await writeFile(path, "damaged");
  const damaged = await loadSealingKey(path, systemRandom);
  expect(damaged).toMatchObject({ ok: false, error: { message: expect.stringContaining(path) } });
});
