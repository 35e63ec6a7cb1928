/**
 * The signer of instance identity documents: a key and a self-signed certificate of this cloud's own, as AWS has one
 * for each region. Three forms of signature, as at `dynamic/instance-identity/`:
 *   signature   RSA with SHA-256 over the document
 *   pkcs7       PKCS#7 SignedData (RFC 2315) with document and certificate in it; EC2 signs this one with DSA and SHA-1
 *   rsa2048     the same with RSA-2048 and SHA-256; here both are
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-iid.html
 */
import { createPrivateKey, createPublicKey, generateKeyPair, type KeyObject, sign, X509Certificate } from "node:crypto";
import { promisify } from "node:util";
import type { Random } from "../../lib/random.ts";
import * as der from "./der.ts";

/** What is kept on disk. The private key never leaves its node. */
export interface IdentityKeys {
  /** PKCS#8. */
  readonly privateKeyPem: string;
  readonly certificatePem: string;
}

export interface IdentitySigner {
  /** For whoever wants to verify a document. */
  readonly certificatePem: string;
  /** Base64, in lines of 76 characters. */
  signature(document: string): string;
  /** Base64 of the DER, in lines of 64 characters, without PEM's first and last line. */
  pkcs7(document: string): string;
}

const SHA256_RSA = der.sequence(der.oid("1.2.840.113549.1.1.11"), der.nothing);
const SHA256 = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.nothing);
const RSA = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.nothing);
const DATA = der.oid("1.2.840.113549.1.7.1");
const SIGNED_DATA = der.oid("1.2.840.113549.1.7.2");
const COMMON_NAME = "2.5.4.3";
const ORGANIZATION = "2.5.4.10";
const YEAR_MS = 365 * 24 * 3600 * 1000;
const CERTIFICATE_YEARS = 100;

const nameOf = (attributes: readonly (readonly [string, string])[]): Buffer =>
  der.sequence(...attributes.map(([type, value]) => der.setOf(der.sequence(der.oid(type), der.utf8String(value)))));

const signed = (key: KeyObject, bytes: Uint8Array): Buffer => sign("sha256", bytes, key);

/** A self-signed certificate (X.509 version 3, RFC 5280) that may sign documents and nothing else. */
function selfSigned(key: KeyObject, commonName: string, now: number, random: Random): Buffer {
  const subject = nameOf([
    [ORGANIZATION, "Hive"],
    [COMMON_NAME, commonName],
  ]);
  const serial = Buffer.from(random.bytes(16));
  serial[0] = (serial[0]! & 0x7f) | 0x40; // positive, and never shorter
  const extension = (id: string, value: Buffer) => der.sequence(der.oid(id), der.truth, der.octetString(value));
  const body = der.sequence(
    der.tagged(0, der.integer(Buffer.from([2]))),
    der.integer(serial),
    SHA256_RSA,
    subject,
    // A day earlier than now: clocks differ.
    der.sequence(der.time(now - YEAR_MS / 365), der.time(now + CERTIFICATE_YEARS * YEAR_MS)),
    subject,
    createPublicKey(key).export({ type: "spki", format: "der" }),
    der.tagged(
      3,
      der.sequence(
        extension("2.5.29.19", der.sequence()), // basic constraints: no authority
        extension("2.5.29.15", der.bitString(Buffer.from([0x80]), 7)), // key usage: digital signature
      ),
    ),
  );
  return der.sequence(body, SHA256_RSA, der.bitString(signed(key, body)));
}

const wrapped = (bytes: Uint8Array, columns: number): string =>
  Buffer.from(bytes)
    .toString("base64")
    .replace(new RegExp(`(.{${columns}})(?=.)`, "g"), "$1\n");

/** Makes a key and its certificate: some tenths of a second, off the event loop. */
export async function newIdentityKeys(region: string, now: number, random: Random): Promise<IdentityKeys> {
  const { privateKey } = await promisify(generateKeyPair)("rsa", { modulusLength: 2048 });
  const certificate = selfSigned(privateKey, `instance identity ${region}`, now, random);
  return {
    privateKeyPem: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    certificatePem: `-----BEGIN CERTIFICATE-----\n${wrapped(certificate, 64)}\n-----END CERTIFICATE-----\n`,
  };
}

/** How many documents' signatures are remembered: a guest may ask as often as it likes, and signing costs a millisecond. */
const REMEMBERED_MAX = 1024;

function remembered(make: (document: string) => string): (document: string) => string {
  const made = new Map<string, string>();
  return (document) => {
    const known = made.get(document);
    if (known !== undefined) return known;
    if (made.size >= REMEMBERED_MAX) made.clear();
    const fresh = make(document);
    made.set(document, fresh);
    return fresh;
  };
}

/** @throws Error when the key or the certificate cannot be read, or they do not belong together */
export function identitySigner(keys: IdentityKeys): IdentitySigner {
  const key = createPrivateKey(keys.privateKeyPem);
  const certificate = new X509Certificate(keys.certificatePem);
  if (!certificate.checkPrivateKey(key)) throw new Error("the identity certificate is not of the identity key");
  const issuerAndSerial = issuerAndSerialOf(certificate);
  return {
    certificatePem: keys.certificatePem,
    signature: remembered((document) => wrapped(signed(key, Buffer.from(document)), 76)),
    pkcs7: remembered((document) => {
      const content = Buffer.from(document);
      const signer = der.sequence(
        der.integer(Buffer.from([1])),
        issuerAndSerial,
        SHA256,
        RSA,
        der.octetString(signed(key, content)),
      );
      const signedData = der.sequence(
        der.integer(Buffer.from([1])),
        der.setOf(SHA256),
        der.sequence(DATA, der.tagged(0, der.octetString(content))),
        der.tagged(0, certificate.raw),
        der.setOf(signer),
      );
      return wrapped(der.sequence(SIGNED_DATA, der.tagged(0, signedData)), 64);
    }),
  };
}

/** The issuer's name and the serial number, as they stand in a certificate that `selfSigned` made. */
function issuerAndSerialOf(certificate: X509Certificate): Buffer {
  const body = children(children(certificate.raw)[0]!);
  const [, serial, , issuer] = body; // version, serial, algorithm, issuer
  return der.sequence(issuer!, serial!);
}

/** The elements in a DER element, each with its header. Trusts its input: a certificate that was parsed before. */
function children(bytes: Uint8Array): Uint8Array[] {
  const found: Uint8Array[] = [];
  let at = headerLength(bytes, 0);
  while (at < bytes.length) {
    const end = at + headerLength(bytes, at) + contentLength(bytes, at);
    found.push(bytes.subarray(at, end));
    at = end;
  }
  return found;
}
const headerLength = (bytes: Uint8Array, at: number): number =>
  bytes[at + 1]! < 0x80 ? 2 : 2 + (bytes[at + 1]! & 0x7f);
function contentLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at + 1]!;
  if (first < 0x80) return first;
  let length = 0;
  for (let i = 0; i < (first & 0x7f); i++) length = length * 256 + bytes[at + 2 + i]!;
  return length;
}
