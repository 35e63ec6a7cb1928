import { afterAll, beforeAll, expect, test } from "bun:test";
import { createPublicKey, verify, X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemRandom } from "../../lib/random.ts";
import { type IdentityKeys, type IdentitySigner, identitySigner, newIdentityKeys } from "./identity.ts";

const DOCUMENT = '{\n  "instanceId" : "i-0123456789abcdef0"\n}';
const NOW = Date.now();
let keys: IdentityKeys;
let signer: IdentitySigner;
let folder: string;

beforeAll(async () => {
  keys = await newIdentityKeys("us-east-1", NOW, systemRandom);
  signer = identitySigner(keys);
  folder = mkdtempSync(join(tmpdir(), "hive-identity-"));
  writeFileSync(join(folder, "cert.pem"), keys.certificatePem);
  writeFileSync(join(folder, "document"), DOCUMENT);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const openssl = (...argv: string[]) => {
  const done = Bun.spawnSync(["openssl", ...argv], { cwd: folder });
  return { code: done.exitCode, out: done.stdout.toString(), error: done.stderr.toString() };
};

test("the certificate is its own issuer, valid now, and of the key", () => {
  const certificate = new X509Certificate(keys.certificatePem);
  expect(certificate.issuer).toBe(certificate.subject);
  expect(certificate.verify(certificate.publicKey)).toBe(true);
  expect(certificate.ca).toBe(false);
  expect(Date.parse(certificate.validFrom)).toBeLessThan(NOW);
  expect(Date.parse(certificate.validTo)).toBeGreaterThan(NOW + 50 * 365 * 24 * 3600 * 1000);
  expect(certificate.subject).toContain("instance identity us-east-1");
});

test("the signature verifies over the document, and over no other", () => {
  const key = createPublicKey(keys.certificatePem);
  const signature = Buffer.from(signer.signature(DOCUMENT), "base64");
  expect(verify("sha256", Buffer.from(DOCUMENT), key, signature)).toBe(true);
  expect(verify("sha256", Buffer.from(`${DOCUMENT} `), key, signature)).toBe(false);
  for (const line of signer.signature(DOCUMENT).split("\n")) expect(line.length).toBeLessThanOrEqual(76);
});

test.skipIf(!Bun.which("openssl"))(
  "openssl smime and cms accept the PKCS#7 form as AWS's guide has it, and reject a changed one",
  () => {
    const body = signer.pkcs7(DOCUMENT);
    writeFileSync(join(folder, "pkcs7"), `-----BEGIN PKCS7-----\n${body}\n-----END PKCS7-----\n`);
    const smime = ["smime", "-verify", "-in", "pkcs7", "-inform", "PEM"];
    expect(openssl(...smime, "-content", "document", "-certfile", "cert.pem", "-noverify")).toMatchObject({
      code: 0,
      out: DOCUMENT,
    });
    expect(openssl(...smime, "-CAfile", "cert.pem")).toMatchObject({ code: 0, out: DOCUMENT });
    expect(openssl("cms", ...smime.slice(1), "-CAfile", "cert.pem")).toMatchObject({ code: 0, out: DOCUMENT });
    // Without trust in the certificate it does not verify.
    expect(openssl(...smime).code).not.toBe(0);
    const other = signer.pkcs7(DOCUMENT.replace("i-0", "i-1"));
    expect(other).not.toBe(body);
    const der = Buffer.from(body, "base64");
    der[der.indexOf("i-0123456789")]! += 1;
    writeFileSync(
      join(folder, "pkcs7"),
      `-----BEGIN PKCS7-----\n${der.toString("base64").replace(/(.{64})/g, "$1\n")}\n-----END PKCS7-----\n`,
    );
    expect(openssl(...smime, "-CAfile", "cert.pem").code).not.toBe(0);
  },
);

test("a certificate of another key is refused", async () => {
  const other = await newIdentityKeys("us-east-1", NOW, systemRandom);
  expect(() => identitySigner({ ...keys, certificatePem: other.certificatePem })).toThrow("not of the identity key");
});
