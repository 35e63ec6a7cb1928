/**
 * SSH keys: reading public keys in the three forms that EC2 takes, the fingerprints that EC2 shows, and private keys in
 * the two forms that it gives. Formats: RFC 4253 section 6.6 and RFC 8709 (public key blobs), RFC 4716 (SSH2 files),
 * OpenSSH's PROTOCOL.key (its private key files), and PuTTY's documentation, appendix C (PPK).
 */
import { createHash, createHmac, createPublicKey, type KeyObject } from "node:crypto";
import { assert } from "../lib/assert.ts";
import type { Random } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";

export type SshKeyType = "rsa" | "ed25519";

export interface SshPublicKey {
  readonly type: SshKeyType;
  /** The key as it goes over an SSH connection. */
  readonly blob: Buffer;
}

export const RSA_BITS_MIN = 1024;
export const RSA_BITS_MAX = 16384;

/** A length and that many bytes: RFC 4251's `string`. */
function sshString(value: Uint8Array | string): Buffer {
  const bytes = Buffer.from(value as Uint8Array);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** RFC 4251's `mpint` of a positive number given in base64url, as in a JWK. */
function sshMpint(base64url: string): Buffer {
  let bytes = Buffer.from(base64url, "base64url");
  let zeros = 0;
  while (zeros < bytes.length - 1 && bytes[zeros] === 0) zeros++;
  bytes = bytes.subarray(zeros);
  return sshString(bytes[0]! & 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes);
}

/** Splits a blob into its strings; undefined when a length does not fit. */
function sshStrings(blob: Buffer): Buffer[] | undefined {
  const parts: Buffer[] = [];
  let at = 0;
  while (at < blob.length) {
    if (at + 4 > blob.length) return undefined;
    const length = blob.readUInt32BE(at);
    if (at + 4 + length > blob.length) return undefined;
    parts.push(blob.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return parts;
}

/** The SSH form of a public key. Only RSA and Ed25519 have one here. */
export function sshPublicKey(key: KeyObject): SshPublicKey | undefined {
  const jwk = key.export({ format: "jwk" });
  if (key.asymmetricKeyType === "rsa")
    return { type: "rsa", blob: Buffer.concat([sshString("ssh-rsa"), sshMpint(jwk.e!), sshMpint(jwk.n!)]) };
  if (key.asymmetricKeyType === "ed25519")
    return {
      type: "ed25519",
      blob: Buffer.concat([sshString("ssh-ed25519"), sshString(Buffer.from(jwk.x!, "base64url"))]),
    };
  return undefined;
}

/** `ssh-ed25519 AAAA… comment`, on one line. */
export const openSshLine = ({ type, blob }: SshPublicKey, comment: string): string =>
  `ssh-${type} ${blob.toString("base64")} ${comment}`;

/** Reads a blob strictly: what is not exactly an RSA or Ed25519 key of a fair size is refused with a reason. */
function parseBlob(blob: Buffer): Result<SshPublicKey, string> {
  const parts = sshStrings(blob);
  const name = parts?.[0]?.toString("latin1");
  if (name === "ssh-ed25519" && parts?.length === 2 && parts[1]!.length === 32) return ok({ type: "ed25519", blob });
  if (name === "ssh-rsa" && parts?.length === 3) {
    const [, e, n] = parts;
    const modulus = n![0] === 0 ? n!.subarray(1) : n!;
    const negative = (n![0] ?? 0) & 0x80 || (e![0] ?? 0) & 0x80;
    const bits = modulus.length === 0 ? 0 : modulus.length * 8 - Math.clz32(modulus[0]!) + 24;
    if (negative || e!.length === 0 || e!.length > 8) return fail("The RSA key is malformed");
    if (bits < RSA_BITS_MIN) return fail(`RSA keys must be at least ${RSA_BITS_MIN} bits long`);
    if (bits > RSA_BITS_MAX) return fail(`RSA keys must be at most ${RSA_BITS_MAX} bits long`);
    try {
      spki({ type: "rsa", blob });
    } catch {
      return fail("The RSA key is malformed");
    }
    return ok({ type: "rsa", blob });
  }
  return fail("Key is not in valid OpenSSH public key format");
}

const isBase64 = (text: string): boolean => text.length > 0 && /^[A-Za-z0-9+/]+={0,2}$/.test(text);

/** Reads a public key: an OpenSSH line, an SSH2 file (RFC 4716), or DER (SubjectPublicKeyInfo) in base64 or PEM. */
export function parsePublicKey(text: string): Result<SshPublicKey, string> {
  const trimmed = text.trim();
  const ssh2 = /^---- BEGIN SSH2 PUBLIC KEY ----\r?\n([\s\S]*?)\r?\n---- END SSH2 PUBLIC KEY ----$/.exec(trimmed);
  if (ssh2) return parseSsh2(ssh2[1]!);
  const line = /^(ssh-[a-z0-9@.-]+|ecdsa-[a-z0-9-]+)[ \t]+(\S+)([ \t][^\r\n]*)?$/.exec(trimmed);
  if (line) {
    if (!isBase64(line[2]!)) return fail("Key is not in valid OpenSSH public key format");
    const key = parseBlob(Buffer.from(line[2]!, "base64"));
    return key.ok && `ssh-${key.value.type}` !== line[1] ? fail("Key is not in valid OpenSSH public key format") : key;
  }
  const pem = /^-----BEGIN (RSA )?PUBLIC KEY-----\r?\n([\s\S]*?)-----END (RSA )?PUBLIC KEY-----$/.exec(trimmed);
  const base64 = (pem ? pem[2]! : trimmed).replace(/\s/g, "");
  if (!isBase64(base64)) return fail("Key is not in valid OpenSSH public key format");
  return parseDer(Buffer.from(base64, "base64"));
}

function parseSsh2(body: string): Result<SshPublicKey, string> {
  // Headers are `Tag: value`, and go on after a line that ends with a backslash.
  const lines = body.split(/\r?\n/);
  let at = 0;
  while (at < lines.length && lines[at]!.includes(":")) {
    while (lines[at]?.endsWith("\\")) at++;
    at++;
  }
  const base64 = lines.slice(at).join("").replace(/\s/g, "");
  return isBase64(base64)
    ? parseBlob(Buffer.from(base64, "base64"))
    : fail("Key is not in valid SSH2 public key format");
}

function parseDer(der: Buffer): Result<SshPublicKey, string> {
  for (const type of ["spki", "pkcs1"] as const) {
    try {
      const key = sshPublicKey(createPublicKey({ key: der, format: "der", type }));
      if (key) return parseBlob(key.blob);
    } catch {
      // Not this kind of DER: the parser says so only by throwing.
    }
  }
  return fail("Key is not in valid OpenSSH public key format");
}

const colons = (digest: Buffer): string => digest.toString("hex").replace(/..(?=.)/g, "$&:");

/** The blob as DER SubjectPublicKeyInfo. The key is one that `parseBlob` took. */
function spki({ type, blob }: SshPublicKey): Buffer {
  const parts = sshStrings(blob)!;
  const jwk =
    type === "rsa"
      ? { kty: "RSA", e: parts[1]!.toString("base64url"), n: unsigned(parts[2]!).toString("base64url") }
      : { kty: "OKP", crv: "Ed25519", x: parts[1]!.toString("base64url") };
  return createPublicKey({ key: jwk, format: "jwk" }).export({ format: "der", type: "spki" });
}
const unsigned = (mpint: Buffer): Buffer => (mpint[0] === 0 ? mpint.subarray(1) : mpint);

/**
 * The fingerprint of an imported key: MD5 of the DER public key for RSA; for Ed25519 SHA-256 of the SSH blob in base64,
 * with the padding that ssh-keygen leaves out.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html
 */
export const importedFingerprint = (key: SshPublicKey): string =>
  key.type === "rsa"
    ? colons(createHash("md5").update(spki(key)).digest())
    : createHash("sha256").update(key.blob).digest("base64");

/** The fingerprint of a key that EC2 made: SHA-1 of the DER PKCS#8 private key for RSA; Ed25519 as when imported. */
export function createdFingerprint(key: SshPublicKey, privateKey: KeyObject): string {
  if (key.type === "ed25519") return importedFingerprint(key);
  return colons(
    createHash("sha1")
      .update(privateKey.export({ format: "der", type: "pkcs8" }))
      .digest(),
  );
}

const wrapped = (base64: string, width: number): string => base64.replace(new RegExp(`.{1,${width}}`, "g"), "$&\n");

/** The private key file for OpenSSH: PKCS#1 in PEM for RSA, OpenSSH's own format for Ed25519. */
export function pemOf(key: SshPublicKey, privateKey: KeyObject, comment: string, random: Random): string {
  if (key.type === "rsa") return privateKey.export({ format: "pem", type: "pkcs1" }) as string;
  const jwk = privateKey.export({ format: "jwk" });
  const seed = Buffer.from(jwk.d!, "base64url");
  const point = Buffer.from(jwk.x!, "base64url");
  // Twice the same number, by which a reader knows that it decrypted rightly; nothing is encrypted here.
  const check = Buffer.from(random.bytes(4));
  const inner = Buffer.concat([
    check,
    check,
    sshString("ssh-ed25519"),
    sshString(point),
    sshString(Buffer.concat([seed, point])),
    sshString(comment),
  ]);
  const padding = Buffer.from(Array.from({ length: (8 - (inner.length % 8)) % 8 }, (_, i) => i + 1));
  const body = Buffer.concat([
    Buffer.from("openssh-key-v1\0"),
    sshString("none"),
    sshString("none"),
    sshString(""),
    Buffer.of(0, 0, 0, 1),
    sshString(key.blob),
    sshString(Buffer.concat([inner, padding])),
  ]);
  return `-----BEGIN OPENSSH PRIVATE KEY-----\n${wrapped(body.toString("base64"), 70)}-----END OPENSSH PRIVATE KEY-----\n`;
}

/** The private key file for PuTTY: version 2, which every PuTTY reads, not encrypted. */
export function ppkOf(key: SshPublicKey, privateKey: KeyObject, comment: string): string {
  assert(!/[\r\n]/.test(comment), "a PPK comment is one line");
  const jwk = privateKey.export({ format: "jwk" });
  const secret =
    key.type === "rsa"
      ? Buffer.concat([sshMpint(jwk.d!), sshMpint(jwk.p!), sshMpint(jwk.q!), sshMpint(jwk.qi!)])
      : sshString(Buffer.from(jwk.d!, "base64url"));
  const name = `ssh-${key.type}`;
  const authenticated = [name, "none", comment, key.blob, secret].map((part) => sshString(part));
  const macKey = createHash("sha1").update("putty-private-key-file-mac-key").digest();
  const mac = createHmac("sha1", macKey).update(Buffer.concat(authenticated)).digest("hex");
  const block = (bytes: Buffer) => {
    const lines = wrapped(bytes.toString("base64"), 64);
    return `${lines.split("\n").length - 1}\n${lines}`;
  };
  return (
    `PuTTY-User-Key-File-2: ${name}\nEncryption: none\nComment: ${comment}\n` +
    `Public-Lines: ${block(key.blob)}Private-Lines: ${block(secret)}Private-MAC: ${mac}\n`
  ).replace(/\n/g, "\r\n");
}
