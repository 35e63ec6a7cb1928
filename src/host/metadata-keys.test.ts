import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemRandom } from "../lib/random.ts";
import { loadIdentityKeys, loadTokenKey } from "./metadata-keys.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hive-keys-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("the token key is made once, 32 bytes that only their owner reads", async () => {
  const first = await loadTokenKey(folder, systemRandom);
  expect(first.ok && first.value.length).toBe(32);
  expect(await loadTokenKey(folder, systemRandom)).toEqual(first);
  expect(statSync(join(folder, "keys", "metadata-token.key")).mode & 0o777).toBe(0o600);
  writeFileSync(join(folder, "keys", "metadata-token.key"), "damaged");
  const mended = await loadTokenKey(folder, systemRandom);
  expect(mended.ok && mended.value.length).toBe(32);
});

test("the identity keys are made once, and again when one of the two is gone", async () => {
  let made = 0;
  const make = async () => ({ privateKeyPem: `key ${++made}`, certificatePem: `certificate ${made}` });
  const first = await loadIdentityKeys(folder, make);
  expect(await loadIdentityKeys(folder, make)).toEqual(first);
  expect(made).toBe(1);
  expect(statSync(join(folder, "keys", "identity.key.pem")).mode & 0o777).toBe(0o600);
  rmSync(join(folder, "keys", "identity.key.pem"));
  expect(await loadIdentityKeys(folder, make)).toMatchObject({ ok: true, value: { certificatePem: "certificate 2" } });
});

test("a directory that cannot be written is a failure that names the file", async () => {
  writeFileSync(join(folder, "keys"), "a file");
  const failed = await loadTokenKey(folder, systemRandom);
  expect(failed.ok).toBe(false);
  if (!failed.ok) expect(failed.error.message).toContain("metadata-token.key");
});
