/** Key files as OpenSSH, OpenSSL and (where it is installed) PuTTY read them. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ComputeWorld, computeWorld } from "../support/compute-world.ts";

let world: ComputeWorld;
let directory: string;
beforeEach(async () => {
  world = await computeWorld({ seed: Date.now() });
  directory = await mkdtemp(join(tmpdir(), "hive-keys-"));
});
afterEach(async () => {
  await world.close();
  await rm(directory, { recursive: true, force: true });
});

async function output(...command: string[]): Promise<string> {
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe" });
  const [out, err, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  expect([command[0], code, code === 0 ? "" : err]).toEqual([command[0], 0, ""]);
  return out.trim();
}

async function privateFile(text: string, name = "key"): Promise<string> {
  const file = join(directory, name);
  await writeFile(file, text);
  await chmod(file, 0o600);
  return file;
}

const described = async () => (await world.ok("DescribeKeyPairs", { IncludePublicKey: true })).KeyPairs![0]!;

test("a created RSA key is read by ssh-keygen and openssl, and its fingerprint is what AWS's guide computes", async () => {
  const made = await world.ok("CreateKeyPair", { KeyName: "mine" });
  const file = await privateFile(made.KeyMaterial!);
  const publicKey = (await output("ssh-keygen", "-y", "-f", file)).split(" ").slice(0, 2).join(" ");
  expect((await described()).PublicKey).toBe(`${publicKey} mine`);
  const der = join(directory, "der");
  await output("openssl", "pkcs8", "-in", file, "-inform", "PEM", "-outform", "DER", "-topk8", "-nocrypt", "-out", der);
  const digest = await output("openssl", "sha1", "-c", der);
  expect(digest).toEndWith(made.KeyFingerprint!);
});

test("a created Ed25519 key is read by ssh-keygen, which shows the same fingerprint without padding", async () => {
  const made = await world.ok("CreateKeyPair", { KeyName: "mine", KeyType: "ed25519" });
  const file = await privateFile(made.KeyMaterial!);
  expect(await output("ssh-keygen", "-y", "-f", file)).toBe((await described()).PublicKey!);
  expect(await output("ssh-keygen", "-l", "-f", file)).toContain(`SHA256:${made.KeyFingerprint!.replace("=", "")} `);
});

test("an imported RSA key of ssh-keygen has the fingerprint that AWS's guide computes", async () => {
  const file = join(directory, "own");
  await output("ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "", "-C", "me", "-f", file);
  for (const [format, name] of [
    ["", "line"],
    ["RFC4716", "ssh2"],
    ["PKCS8", "der"],
  ] as const) {
    const text = format
      ? await output("ssh-keygen", "-e", "-m", format, "-f", `${file}.pub`)
      : await Bun.file(`${file}.pub`).text();
    const made = await world.ok("ImportKeyPair", { KeyName: name, PublicKeyMaterial: Buffer.from(text) });
    await output("ssh-keygen", "-p", "-q", "-m", "PEM", "-N", "", "-f", file);
    const der = join(directory, "public.der");
    await output("openssl", "pkey", "-in", file, "-pubout", "-outform", "DER", "-out", der);
    expect(await output("openssl", "md5", "-c", der)).toEndWith(made.KeyFingerprint!);
  }
});

const puttygen = process.env.HIVE_TEST_PUTTYGEN ?? Bun.which("puttygen");
test.skipIf(!puttygen)("PuTTY's files are read by puttygen (skipped: no puttygen)", async () => {
  for (const KeyType of ["rsa", "ed25519"] as const) {
    const made = await world.ok("CreateKeyPair", { KeyName: KeyType, KeyType, KeyFormat: "ppk" });
    const file = await privateFile(made.KeyMaterial!, KeyType);
    const publicKey = await output(puttygen!, file, "-L");
    const pair = (await world.ok("DescribeKeyPairs", { KeyNames: [KeyType], IncludePublicKey: true })).KeyPairs![0]!;
    expect(publicKey).toBe(pair.PublicKey!);
    // The private half too: PuTTY checks the MAC and converts it.
    const pem = join(directory, `${KeyType}.pem`);
    await output(puttygen!, file, "-O", "private-openssh", "-o", pem);
    expect((await output("ssh-keygen", "-y", "-f", pem)).split(" ")[1]).toBe(publicKey.split(" ")[1]!);
  }
});
