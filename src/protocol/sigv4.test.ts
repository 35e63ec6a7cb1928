import { describe, expect, test } from "bun:test";
import { SignatureV4 } from "@smithy/signature-v4";
import fc from "fast-check";
import { type SignedRequest, type Verification, verifySignature } from "./sigv4.ts";
import type { SignableHeaders } from "./sigv4-canonical.ts";
import {
  basicTime,
  canonicalPath,
  canonicalQuery,
  encodeRfc3986,
  parseBasicTime,
  SigningKeys,
  sha256Hex,
} from "./sigv4-canonical.ts";
import { signatureError } from "./sigv4-failures.ts";
import { signRequest } from "./sigv4-sign.ts";

/** The test suite that AWS publishes: its key, time, region and service. */
const KEY = "AKIDEXAMPLE";
const SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TIME = "20150830T123600Z";
const NOW = parseBasicTime(TIME)!;

const using = (over: Partial<Verification<string>> = {}): Verification<string> => ({
  lookup: (id) => (id === KEY ? { secret: SECRET, identity: "someone" } : undefined),
  acceptRegion: (region) => region === "us-east-1",
  now: NOW,
  signingKeys: new SigningKeys(),
  ...over,
});

type Vector = [
  name: string,
  request: string,
  signedHeaders: string,
  signature: string,
  headers?: SignableHeaders,
  body?: string,
];
const suite: Vector[] = [
  ["get-vanilla", "GET /", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"],
  [
    "get-vanilla-query-order-key-case",
    "GET /?Param2=value2&Param1=value1",
    "host;x-amz-date",
    "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
  ],
  [
    "get-vanilla-query-unreserved",
    "GET /?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "host;x-amz-date",
    "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
  ],
  [
    "get-vanilla-empty-query-key",
    "GET /?Param1=value1",
    "host;x-amz-date",
    "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
  ],
  [
    "get-vanilla-utf8-query",
    "GET /?ሴ=bar",
    "host;x-amz-date",
    "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
  ],
  ["get-utf8", "GET /ሴ", "host;x-amz-date", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"],
  [
    "get-unreserved",
    "GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "host;x-amz-date",
    "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
  ],
  [
    "normalize-path/get-relative",
    "GET /example/..",
    "host;x-amz-date",
    "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
  ],
  [
    "normalize-path/get-slash-dot-slash",
    "GET /./",
    "host;x-amz-date",
    "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
  ],
  [
    "normalize-path/get-slashes",
    "GET //example//",
    "host;x-amz-date",
    "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
  ],
  [
    "normalize-path/get-slash-pointless-dot",
    "GET /./example",
    "host;x-amz-date",
    "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
  ],
  [
    "normalize-path/get-space",
    "GET /example space/",
    "host;x-amz-date",
    "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
  ],
  [
    "get-header-key-duplicate",
    "GET /",
    "host;my-header1;x-amz-date",
    "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    { "my-header1": ["value2", "value2", "value1"] },
  ],
  [
    "get-header-key-duplicate, as Fetch joins",
    "GET /",
    "host;my-header1;x-amz-date",
    "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    { "my-header1": "value2, value2, value1" },
  ],
  [
    "get-header-value-order",
    "GET /",
    "host;my-header1;x-amz-date",
    "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    { "my-header1": ["value4", "value1", "value3", "value2"] },
  ],
  [
    "get-header-value-trim",
    "GET /",
    "host;my-header1;my-header2;x-amz-date",
    "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    { "my-header1": " value1", "my-header2": ' "a   b   c"' },
  ],
  ["post-vanilla", "POST /", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"],
  [
    "post-vanilla-query",
    "POST /?Param1=value1",
    "host;x-amz-date",
    "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
  ],
  [
    "post-header-key-sort",
    "POST /",
    "host;my-header1;x-amz-date",
    "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    { "my-header1": "value1" },
  ],
  [
    "post-header-value-case",
    "POST /",
    "host;my-header1;x-amz-date",
    "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    { "my-header1": "VALUE1" },
  ],
  [
    "post-x-www-form-urlencoded",
    "POST /",
    "content-type;host;x-amz-date",
    "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    { "content-type": "application/x-www-form-urlencoded" },
    "Param1=value1",
  ],
  [
    "post-x-www-form-urlencoded-parameters",
    "POST /",
    "content-type;host;x-amz-date",
    "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
    { "content-type": "application/x-www-form-urlencoded; charset=utf8" },
    "Param1=value1",
  ],
];

test.each(suite)("AWS's vector %s", (_, line, signedHeaders, signature, headers = {}, body = "") => {
  const [method, target] = [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)];
  const [path, query = ""] = target.split("?");
  const request: SignedRequest = {
    method,
    path: path!,
    query,
    headers: {
      host: "example.amazonaws.com",
      "x-amz-date": TIME,
      ...headers,
      authorization: `AWS4-HMAC-SHA256 Credential=${KEY}/20150830/us-east-1/service/aws4_request, SignedHeaders=${signedHeaders}, Signature=${signature}`,
    },
    bodyHash: sha256Hex(body),
  };
  expect(verifySignature(request, using())).toMatchObject({
    ok: true,
    value: { identity: "someone", service: "service" },
  });
});

test("the example of the IAM User Guide", () => {
  const request: SignedRequest = {
    method: "GET",
    path: "/",
    query: "Action=ListUsers&Version=2010-05-08",
    headers: {
      host: "iam.amazonaws.com",
      "content-type": "application/x-www-form-urlencoded; charset=utf-8",
      "x-amz-date": TIME,
      authorization: `AWS4-HMAC-SHA256 Credential=${KEY}/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7`,
    },
    bodyHash: sha256Hex(""),
  };
  expect(verifySignature(request, using()).ok).toBe(true);
});

class Sha256 {
  #hasher: Bun.CryptoHasher;
  constructor(key?: string | Uint8Array) {
    this.#hasher = key === undefined ? new Bun.CryptoHasher("sha256") : new Bun.CryptoHasher("sha256", key);
  }
  update(data: string | Uint8Array) {
    this.#hasher.update(data);
  }
  async digest() {
    return new Uint8Array(this.#hasher.digest());
  }
  reset() {}
}

const sdkSigner = (service: string) =>
  new SignatureV4({
    service,
    region: "us-east-1",
    credentials: { accessKeyId: KEY, secretAccessKey: SECRET },
    sha256: Sha256 as never,
    uriEscapePath: service !== "s3",
    applyChecksum: service === "s3",
  });

async function signedBySdk(service: string, request: object): Promise<Record<string, string>> {
  const options = { signingDate: new Date(NOW) };
  const signed = (await sdkSigner(service).sign(request as never, options)) as unknown;
  return (signed as { headers: Record<string, string> }).headers;
}

const parameters = fc.dictionary(
  // The SDK's signer itself loses a parameter of this name.
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 }).filter((name) => name !== "__proto__"),
  fc.string({ unit: "grapheme", maxLength: 20 }),
  { maxKeys: 5 },
);
const segment = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 8 })
  .map(encodeRfc3986)
  .filter((s) => s !== "." && s !== "..");

/** What the client puts on the wire for these parameters. */
const wire = (query: Record<string, string>) =>
  Object.entries(query)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
    .join("&");

describe("what the SDK's own signer signs", () => {
  test.each(["ec2", "s3"])("is accepted for %s, and refused when any byte changes", async (service) => {
    await fc.assert(
      fc.asyncProperty(
        parameters,
        fc.array(segment, { maxLength: 3 }),
        fc.string(),
        fc.nat(),
        async (query, segments, body, at) => {
          const path = `/${segments.join("/")}`;
          const signed = await signedBySdk(service, {
            method: "POST",
            protocol: "https:",
            hostname: "h",
            path,
            query,
            headers: { host: "h", "x-amz-meta": "a  b" },
            body,
          });
          const headers = Object.fromEntries(
            Object.entries(signed).map(([name, value]) => [name.toLowerCase(), value]),
          );
          const request: SignedRequest = {
            method: "POST",
            path,
            query: wire(query),
            headers,
            bodyHash: sha256Hex(body),
          };
          expect(verifySignature(request, using())).toMatchObject({ ok: true });
          expect(verifySignature({ ...request, method: "GET" }, using()).ok).toBe(false);
          expect(verifySignature({ ...request, path: `${path}x` }, using()).ok).toBe(false);
          expect(verifySignature({ ...request, query: `${request.query}&x=1` }, using()).ok).toBe(false);
          expect(verifySignature({ ...request, headers: { ...headers, host: "other" } }, using()).ok).toBe(false);
          expect(verifySignature({ ...request, headers: { ...headers, "x-amz-more": "1" } }, using()).ok).toBe(false);
          if (service !== "s3")
            expect(verifySignature({ ...request, bodyHash: sha256Hex(`${body}x`) }, using()).ok).toBe(false);
          const authorization = headers.authorization!;
          const place = at % authorization.length;
          const tampered = `${authorization.slice(0, place)}${authorization[place] === "0" ? "1" : "0"}${authorization.slice(place + 1)}`;
          expect(verifySignature({ ...request, headers: { ...headers, authorization: tampered } }, using()).ok).toBe(
            false,
          );
        },
      ),
      { numRuns: 200 },
    );
  });

  test("is accepted as a presigned URL until it expires", async () => {
    const presigned = await sdkSigner("sts").presign(
      {
        method: "GET",
        protocol: "https:",
        hostname: "h",
        path: "/",
        query: { Action: "GetCallerIdentity", Version: "2011-06-15" },
        headers: { host: "h" },
      } as never,
      { signingDate: new Date(NOW), expiresIn: 60 },
    );
    const request: SignedRequest = {
      method: "GET",
      path: "/",
      query: wire(presigned.query as Record<string, string>),
      headers: { host: "h" },
      bodyHash: sha256Hex(""),
    };
    expect(verifySignature(request, using())).toMatchObject({ ok: true, value: { service: "sts" } });
    expect(verifySignature(request, using({ now: NOW + 60_000 })).ok).toBe(true);
    expect(verifySignature(request, using({ now: NOW + 60_001 }))).toMatchObject({ error: { kind: "expired" } });
    const longer = { ...request, query: request.query.replace("X-Amz-Expires=60", "X-Amz-Expires=61") };
    expect(verifySignature(longer, using())).toMatchObject({ error: { kind: "mismatch" } });
    for (const bad of ["0", "604801", "-1", "x", "1e3"]) {
      const out = { ...request, query: request.query.replace("X-Amz-Expires=60", `X-Amz-Expires=${bad}`) };
      expect(verifySignature(out, using())).toMatchObject({ error: { kind: "incomplete" } });
    }
  });

  test("is refused once its session token is unknown", async () => {
    const seen: (string | undefined)[] = [];
    const headers = await signedBySdk("sts", {
      method: "GET",
      protocol: "https:",
      hostname: "h",
      path: "/",
      headers: { host: "h", "x-amz-security-token": "token" },
    });
    verifySignature(
      { method: "GET", path: "/", query: "", headers, bodyHash: sha256Hex("") },
      using({ lookup: (_, token) => void seen.push(token) }),
    );
    expect(seen).toEqual(["token"]);
  });
});

const own = (service = "ec2", now = NOW, region = "us-east-1"): SignedRequest => ({
  method: "POST",
  path: "/",
  query: "",
  headers: signRequest(
    { method: "POST", url: new URL("http://127.0.0.1:9999/"), headers: {}, body: "Action=X", region, service, now },
    { accessKeyId: KEY, secretAccessKey: SECRET },
  ),
  bodyHash: sha256Hex("Action=X"),
});
const withAuthorization = (authorization: string): SignedRequest => ({
  ...own(),
  headers: { ...own().headers, authorization },
});
const edited = (edit: (authorization: string) => string) =>
  withAuthorization(edit(String(own().headers.authorization)));

test("Hive's own signer is accepted", () => {
  expect(verifySignature(own(), using())).toMatchObject({ ok: true, value: { region: "us-east-1", service: "ec2" } });
});

test("a clock may be five minutes off, and no more", () => {
  const at = (offset: number) => verifySignature(own("ec2", NOW + offset), using());
  expect(at(300_000).ok).toBe(true);
  expect(at(-300_000).ok).toBe(true);
  expect(at(301_000)).toMatchObject({
    error: {
      kind: "not-yet",
      message:
        "Signature not yet current: 20150830T124101Z is still later than 20150830T124100Z (20150830T123600Z + 5 min.)",
    },
  });
  expect(at(-301_000)).toMatchObject({
    error: {
      kind: "expired",
      message: "Signature expired: 20150830T123059Z is now earlier than 20150830T123100Z (20150830T123600Z - 5 min.)",
    },
  });
});

const refusals: [string, SignedRequest, string][] = [
  ["no signature", { ...own(), headers: { host: "h" } }, "missing"],
  ["another scheme", withAuthorization("Bearer abc"), "missing"],
  ["another algorithm", edited((a) => a.replace("SHA256", "SHA512")), "incomplete"],
  ["no Signature", edited((a) => a.replace(/, Signature=.*/, "")), "incomplete"],
  ["no SignedHeaders", edited((a) => a.replace(/SignedHeaders=[^,]*, /, "")), "incomplete"],
  ["two Signatures", edited((a) => `${a}, Signature=00`), "incomplete"],
  ["a credential of four parts", edited((a) => a.replace("/ec2/", "/")), "incomplete"],
  ["no date", { ...own(), headers: { host: "h", authorization: own().headers.authorization } }, "incomplete"],
  ["a date of another form", { ...own(), headers: { ...own().headers, "x-amz-date": "2015-08-30" } }, "incomplete"],
  ["another terminator", edited((a) => a.replace("aws4_request", "aws5_request")), "scope"],
  ["another day in the scope", edited((a) => a.replace("20150830", "20150831")), "scope"],
  ["another region", own("ec2", NOW, "mars-north-1"), "scope"],
  ["an unknown key", edited((a) => a.replace(KEY, "AKIAOTHER")), "unknown-key"],
  ["a host that is not signed", edited((a) => a.replace("=host;", "=")), "unsigned-header"],
  [
    "an x-amz- header that is not signed",
    { ...own(), headers: { ...own().headers, "x-amz-target": "x" } },
    "unsigned-header",
  ],
  ["a signed header that is not there", edited((a) => a.replace("=host;", "=constructor;host;")), "mismatch"],
  ["a shorter signature", edited((a) => a.slice(0, -1)), "mismatch"],
];
test.each(refusals)("%s is refused", (_, request, kind) => {
  expect(verifySignature(request, using())).toMatchObject({ ok: false, error: { kind } });
});

test("only Hive's own routes take a body that is not hashed", () => {
  const streamed = (service: string): SignedRequest => ({
    method: "POST",
    path: "/",
    query: "",
    headers: signRequest(
      {
        method: "POST",
        url: new URL("http://h/"),
        headers: {},
        body: { hash: "UNSIGNED-PAYLOAD" },
        region: "us-east-1",
        service,
        now: NOW,
      },
      { accessKeyId: KEY, secretAccessKey: SECRET },
    ),
    bodyHash: sha256Hex("streamed"),
  });
  expect(verifySignature(streamed("hive"), using())).toMatchObject({ value: { payloadHash: "UNSIGNED-PAYLOAD" } });
  expect(verifySignature(streamed("ec2"), using())).toMatchObject({ error: { kind: "mismatch" } });
});

test("EC2 says AuthFailure where STS says what is wrong", () => {
  const failure = { kind: "mismatch" } as const;
  expect(signatureError(failure, "ec2")).toEqual({
    code: "AuthFailure",
    status: 401,
    message: "AWS was not able to validate the provided access credentials",
  });
  expect(signatureError(failure, "query")).toMatchObject({ code: "SignatureDoesNotMatch", status: 403 });
  expect(signatureError({ kind: "unknown-key", accessKeyId: "x" }, "query")).toMatchObject({
    code: "InvalidClientTokenId",
  });
  expect(signatureError({ kind: "expired", message: "" }, "ec2")).toMatchObject({ code: "RequestExpired" });
});

test("a signing key follows its secret, and old ones leave", () => {
  const keys = new SigningKeys(2);
  const first = keys.get("a", "one", "20150830", "r", "s");
  expect(keys.get("a", "one", "20150830", "r", "s")).toBe(first);
  expect(keys.get("a", "two", "20150830", "r", "s")).not.toEqual(first);
  keys.get("b", "one", "20150830", "r", "s");
  keys.get("c", "one", "20150830", "r", "s");
  expect(keys.get("a", "one", "20150830", "r", "s")).not.toBe(first);
});

test("canonical forms", () => {
  expect(canonicalQuery("b=2&a=1&a=0&a-b=x&c&%7e=%2f&p=a+b%")).toBe("a=0&a=1&a-b=x&b=2&c=&p=a%20b%25&~=%2F");
  expect(canonicalPath("/a%20b/../c+d", "ec2")).toBe("/c%2Bd");
  expect(canonicalPath("/a//b/../%41+~", "s3")).toBe("/a//b/../A%2B~");
  expect(basicTime(NOW)).toBe(TIME);
  expect(parseBasicTime("20151330T000000Z")).toBeUndefined();
});
