import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import fc from "fast-check";
import { type ComputeWorld, computeWorld } from "../../test/support/compute-world.ts";
import { openSshLine, parsePublicKey, sshPublicKey } from "./ssh-key.ts";

let world: ComputeWorld;
beforeEach(async () => {
  world = await computeWorld();
});
afterEach(() => world.close());

const importKey = (text: string, KeyName = "mine") =>
  world.ok("ImportKeyPair", { KeyName, PublicKeyMaterial: Buffer.from(text) });
const ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeqPYEpQ8tRPXYyBPdCAtxfFwWt3XAN4kGoPGNRpbEJ me@here";

describe("a created key pair", () => {
  test("RSA: the private key in PEM, and the SHA-1 of it in PKCS#8", async () => {
    const made = await world.ok("CreateKeyPair", { KeyName: "mine" });
    expect(made.KeyMaterial).toStartWith("-----BEGIN RSA PRIVATE KEY-----\n");
    const key = createPrivateKey(made.KeyMaterial!);
    expect(key.asymmetricKeyDetails!.modulusLength).toBe(2048);
    const digest = createHash("sha1")
      .update(key.export({ format: "der", type: "pkcs8" }))
      .digest("hex");
    expect(made.KeyFingerprint).toBe(digest.match(/../g)!.join(":"));
    const [described] = (await world.ok("DescribeKeyPairs", { IncludePublicKey: true })).KeyPairs!;
    const expected = openSshLine(sshPublicKey(createPublicKey(key))!, "mine");
    expect(described).toMatchObject({
      KeyName: "mine",
      KeyType: "rsa",
      PublicKey: expected,
      KeyPairId: made.KeyPairId,
    });
  });
  test("Ed25519 for PuTTY", async () => {
    const made = await world.ok("CreateKeyPair", { KeyName: "mine", KeyType: "ed25519", KeyFormat: "ppk" });
    expect(made.KeyMaterial).toStartWith("PuTTY-User-Key-File-2: ssh-ed25519\r\nEncryption: none\r\nComment: mine\r\n");
    expect(made.KeyFingerprint).toMatch(/^[A-Za-z0-9+/]{43}=$/);
  });
});

describe("an imported key", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const spki = rsa.publicKey.export({ format: "der", type: "spki" });
  const line = openSshLine(sshPublicKey(rsa.publicKey)!, "me@here");
  const base64 = line.split(" ")[1]!;
  const forms: [string, string][] = [
    ["an OpenSSH line", line],
    ["an OpenSSH line without a comment, and a line end", `ssh-rsa ${base64}\r\n`],
    ["DER in base64", spki.toString("base64")],
    ["DER in PEM", rsa.publicKey.export({ format: "pem", type: "spki" }) as string],
    [
      "an SSH2 file",
      `---- BEGIN SSH2 PUBLIC KEY ----\nComment: "a key of \\\nmine"\nSubject: me\n${base64.replace(/.{70}/g, "$&\n")}\n---- END SSH2 PUBLIC KEY ----\n`,
    ],
  ];
  test.each(forms)("from %s has the MD5 of its DER", async (_form, text) => {
    const made = await importKey(text);
    expect(made.KeyFingerprint).toBe(createHash("md5").update(spki).digest("hex").match(/../g)!.join(":"));
    const [described] = (await world.ok("DescribeKeyPairs", { IncludePublicKey: true })).KeyPairs!;
    expect(described!.PublicKey).toBe(`ssh-rsa ${base64} mine`);
  });
  test("Ed25519 has the SHA-256 of its SSH form, padded", async () => {
    const made = await importKey(ed25519);
    const blob = Buffer.from(ed25519.split(" ")[1]!, "base64");
    expect(made.KeyFingerprint).toBe(createHash("sha256").update(blob).digest("base64"));
  });

  const short = openSshLine(sshPublicKey(generateKeyPairSync("rsa", { modulusLength: 1016 }).publicKey)!, "short");
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "der", type: "spki" });
  const refused: [string, string][] = [
    ["of 1016 bits", short],
    ["of an elliptic curve in DER", ec.toString("base64")],
    ["of DSA", `ssh-dss ${Buffer.from("\0\0\0\x07ssh-dss").toString("base64")} x`],
    ["whose name and blob differ", `ssh-ed25519 ${base64}`],
    ["that is cut off", `ssh-rsa ${base64.slice(0, 200)}`],
    ["that is none", "hello"],
    ["of two lines", `${line}\n${line}`],
  ];
  test.each(refused)("%s is refused", async (_claim, text) => {
    const answer = await world.refusal("ImportKeyPair", { KeyName: "x", PublicKeyMaterial: Buffer.from(text) });
    expect(answer).toStartWith("InvalidKey.Format: ");
  });

  test("no text makes the parser throw, and what it takes it gives back", () => {
    const mutated = fc
      .tuple(fc.constantFrom(...forms.map(([, text]) => text), ed25519), fc.nat(), fc.string({ maxLength: 4 }))
      .map(([text, at, by]) => text.slice(0, at % text.length) + by + text.slice((at % text.length) + by.length));
    fc.assert(
      fc.property(fc.oneof(mutated, fc.string()), (text) => {
        const key = parsePublicKey(text);
        if (key.ok) expect(parsePublicKey(openSshLine(key.value, "again"))).toEqual(key);
      }),
      { numRuns: 300 },
    );
  });
});

test("names are unique, found, and deleted; deleting what is not there succeeds", async () => {
  const { KeyPairId } = await importKey(ed25519);
  expect(await world.refusal("CreateKeyPair", { KeyName: "mine" })).toBe(
    "InvalidKeyPair.Duplicate: The keypair 'mine' already exists.",
  );
  expect(await world.refusal("CreateKeyPair", { KeyName: " mine" })).toStartWith("InvalidParameterValue");
  expect((await world.ok("DescribeKeyPairs", { KeyNames: ["mine"] })).KeyPairs![0]!.PublicKey).toBeUndefined();
  expect(await world.refusal("DescribeKeyPairs", { KeyNames: ["yours"] })).toBe(
    "InvalidKeyPair.NotFound: The key pair 'yours' does not exist",
  );
  expect(await world.ok("DeleteKeyPair", { KeyPairId: KeyPairId! })).toEqual({ Return: true, KeyPairId: KeyPairId! });
  expect(await world.ok("DeleteKeyPair", { KeyName: "mine" })).toEqual({ Return: true });
  expect(await world.refusal("DeleteKeyPair", {})).toStartWith("MissingParameter");
});
