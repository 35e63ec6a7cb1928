/**
 * AWS Signature Version 4, as a server checks it: in the Authorization header, or in the query of a presigned URL.
 *
 * The signer hashes the canonical request (sigv4-canonical.ts) and signs that hash, the time and a scope
 * (`20150830/us-east-1/ec2/aws4_request`) with a key that is derived from the secret and the scope. The server does the
 * same from what it received, and compares. Everything here is a pure function of its arguments.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import { textMemo } from "../lib/text-memo.ts";
import { MINUTE_MS, SECOND_MS } from "../lib/units.ts";
import {
  ALGORITHM,
  basicTime,
  canonicalHeaderValue,
  canonicalPath,
  canonicalQuery,
  hmacHex,
  parseBasicTime,
  type SignableHeaders,
  type SigningKeys,
  stringToSign,
  TERMINATOR,
} from "./sigv4-canonical.ts";
import type { SignatureFailure } from "./sigv4-failures.ts";

/** How far the signer's clock may be off. What the query services allow. */
export const CLOCK_SKEW_MS = 5 * MINUTE_MS;
/** X-Amz-Expires: a week at most, as AWS has it; without it a presigned request to a query service lives 15 minutes. */
export const EXPIRES_SECONDS_MAX = 604_800;
const EXPIRES_SECONDS_DEFAULT = 900;
/** An Authorization header longer than this is refused unread. A session token is not part of it. */
const AUTHORIZATION_LENGTH_MAX = 8192;
const SIGNED_HEADERS_MAX = 100;

export interface SignedRequest {
  /** Upper case. */
  readonly method: string;
  /** As it stands in the request line, escapes and all. */
  readonly path: string;
  /** After the `?`, as it stands; empty without one. */
  readonly query: string;
  readonly headers: SignableHeaders;
  /** SHA-256 of the body in lower-case hexadecimal. S3 signs what x-amz-content-sha256 says instead. */
  readonly bodyHash: string;
}

export interface Verification<Identity> {
  /** The secret of an access key, and whose it is; undefined when there is no such (active) key. */
  readonly lookup: (
    accessKeyId: string,
    sessionToken: string | undefined,
  ) => { readonly secret: string; readonly identity: Identity } | undefined;
  /** Whether requests to this service may be signed for this region. */
  readonly acceptRegion: (region: string, service: string) => boolean;
  /** Milliseconds since the epoch. */
  readonly now: number;
  readonly signingKeys: SigningKeys;
}

/** What a good signature proves. */
export interface Verified<Identity> {
  readonly identity: Identity;
  readonly accessKeyId: string;
  readonly region: string;
  readonly service: string;
  /** What stands for the body in the signature: its hash, or (S3 and Hive's own routes) `UNSIGNED-PAYLOAD` and its like. */
  readonly payloadHash: string;
}

interface Claim {
  readonly accessKeyId: string;
  readonly date: string;
  readonly region: string;
  readonly service: string;
  readonly signedHeaders: string;
  readonly signature: string;
  /** ISO 8601 basic, as it is signed. */
  readonly time: string;
  readonly presigned: boolean;
  readonly expiresSeconds: number;
  readonly sessionToken: string | undefined;
}

type Checked<T> = Result<T, SignatureFailure>;
const incomplete = (message: string): Checked<never> => fail({ kind: "incomplete", message });
const badScope = (message: string): Checked<never> => fail({ kind: "scope", message });

/** The service that a request claims to be signed for, without proof, to choose the form of an error. */
export function claimedService(headers: SignableHeaders, query: string): string | undefined {
  const header = headerOf(headers, "authorization") ?? "";
  const at = header.indexOf("Credential=");
  const end = at < 0 ? -1 : header.indexOf(",", at);
  const credential =
    at >= 0
      ? header.slice(at + 11, end < 0 ? undefined : end)
      : query.includes("X-Amz-Credential=")
        ? queryParameter(query, "X-Amz-Credential")
        : undefined;
  return credential?.split("/").at(-2);
}

/** Checks a request's signature. */
export function verifySignature<Identity>(
  request: SignedRequest,
  using: Verification<Identity>,
): Checked<Verified<Identity>> {
  const claimed = readClaim(request);
  if (!claimed.ok) return claimed;
  const claim = claimed.value;
  const current = checkTime(claim, using.now);
  if (!current.ok) return current;
  if (!using.acceptRegion(claim.region, claim.service)) {
    return badScope(`Credential should be scoped to a valid region, not '${shown(claim.region)}'. `);
  }
  const key = using.lookup(claim.accessKeyId, claim.sessionToken);
  if (!key) return fail({ kind: "unknown-key", accessKeyId: claim.accessKeyId });
  const names = signedNames(claim.signedHeaders, request.headers);
  if (!names.ok) return names;
  const payload = payloadHash(request, claim);
  if (!payload.ok) return payload;

  const signingKey = using.signingKeys.get(claim.accessKeyId, key.secret, claim.date, claim.region, claim.service);
  const scope = `${claim.date}/${claim.region}/${claim.service}/${TERMINATOR}`;
  const head = `${request.method}\n${canonicalPath(request.path, claim.service)}\n${canonicalQuery(
    request.query,
    claim.presigned ? "X-Amz-Signature" : undefined,
  )}\n`;
  const tail = `\n${claim.signedHeaders}\n${payload.value}`;
  const matches = (headers: string) =>
    equalInConstantTime(hmacHex(signingKey, stringToSign(claim.time, scope, head + headers + tail)), claim.signature);

  const headers = canonicalHeaders(names.value, request.headers);
  // Fetch joins values of one name by ", ", the signature by ",": HTTP takes both as the same, and so it is tried again.
  if (!matches(headers) && !(headers.includes(", ") && matches(headers.replaceAll(", ", ",")))) {
    return fail({ kind: "mismatch" });
  }
  return ok({
    identity: key.identity,
    accessKeyId: claim.accessKeyId,
    region: claim.region,
    service: claim.service,
    payloadHash: payload.value,
  });
}

function readClaim(request: SignedRequest): Checked<Claim> {
  const header = headerOf(request.headers, "authorization");
  if (header !== undefined) return readHeaderClaim(request.headers, header);
  if (request.query.includes("X-Amz-")) return readQueryClaim(request);
  return fail({ kind: "missing" });
}

interface Authorization {
  readonly credential: string | undefined;
  readonly signedHeaders: string | undefined;
  readonly signature: string | undefined;
}

const SIGNATURE_CHARS = 64;
const SIGNATURE_NAME = "Signature=";

/** What stands before the signature is the same for a client's whole day, so that it is taken apart once. */
function readHeaderClaim(headers: SignableHeaders, header: string): Checked<Claim> {
  if (header.length > AUTHORIZATION_LENGTH_MAX) return incomplete("Authorization header is too long.");
  const at = header.length - SIGNATURE_CHARS;
  const isUsual = header.startsWith(SIGNATURE_NAME, at - SIGNATURE_NAME.length);
  const parsed = isUsual ? parseHead(header.slice(0, at)) : parseAuthorization(header);
  if (!parsed.ok) return parsed;
  const { credential, signedHeaders, signature } = parsed.value;
  return claimOf(headers, credential, signedHeaders, isUsual ? header.slice(at).trim() : signature);
}

function parseAuthorization(header: string): Checked<Authorization> {
  const space = header.indexOf(" ");
  const algorithm = space < 0 ? header : header.slice(0, space);
  if (!algorithm.startsWith("AWS")) return fail({ kind: "missing" });
  if (algorithm !== ALGORITHM) return incomplete(`Unsupported AWS 'algorithm': '${shown(algorithm)}'.`);
  let credential: string | undefined;
  let signedHeaders: string | undefined;
  let signature: string | undefined;
  for (const part of header.slice(space + 1).split(",")) {
    const equals = part.indexOf("=");
    const value = part.slice(equals + 1).trim();
    const name = equals < 0 ? "" : part.slice(0, equals).trim();
    const again =
      (name === "Credential" && credential !== undefined) ||
      (name === "SignedHeaders" && signedHeaders !== undefined) ||
      (name === "Signature" && signature !== undefined);
    if (again) return incomplete(`Authorization header has more than one '${name}' parameter.`);
    if (name === "Credential") credential = value;
    else if (name === "SignedHeaders") signedHeaders = value;
    else if (name === "Signature") signature = value;
    else
      return incomplete(
        `'${shown(part.trim())}' is not a valid key=value pair (missing equal-sign) in Authorization header.`,
      );
  }
  return ok({ credential, signedHeaders, signature });
}

const REMEMBERED = 256;
const parseHead = textMemo(parseAuthorization, REMEMBERED, 1024);
const namesIn = textMemo((signedHeaders) => signedHeaders.split(";") as readonly string[], REMEMBERED, 512);

function claimOf(
  headers: SignableHeaders,
  credential: string | undefined,
  signedHeaders: string | undefined,
  signature: string | undefined,
): Checked<Claim> {
  const time = readTime(headers);
  if (!credential || !signature || !signedHeaders || time === undefined) {
    const lacks = [
      credential ? "" : "Authorization header requires 'Credential' parameter.",
      signature ? "" : "Authorization header requires 'Signature' parameter.",
      signedHeaders ? "" : "Authorization header requires 'SignedHeaders' parameter.",
      time === undefined ? "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header." : "",
    ];
    return incomplete(lacks.filter((sentence) => sentence !== "").join(" "));
  }
  return completeClaim({
    credential,
    signedHeaders,
    signature,
    time,
    presigned: false,
    expiresSeconds: 0,
    sessionToken: headerOf(headers, "x-amz-security-token"),
  });
}

/** X-Amz-Date, else Date in the form of RFC 1123, as ISO 8601 basic. */
function readTime(headers: SignableHeaders): string | undefined {
  const own = headerOf(headers, "x-amz-date");
  if (own !== undefined) return own;
  const date = headerOf(headers, "date");
  if (date === undefined || parseBasicTime(date) !== undefined) return date;
  const ms = date.length < 64 ? Date.parse(date) : Number.NaN;
  return Number.isNaN(ms) ? date : basicTime(ms);
}

function readQueryClaim(request: SignedRequest): Checked<Claim> {
  const { query } = request;
  const algorithm = queryParameter(query, "X-Amz-Algorithm");
  const credential = queryParameter(query, "X-Amz-Credential");
  const signedHeaders = queryParameter(query, "X-Amz-SignedHeaders");
  const signature = queryParameter(query, "X-Amz-Signature");
  const time = queryParameter(query, "X-Amz-Date");
  const expires = queryParameter(query, "X-Amz-Expires");
  if (!algorithm && !credential && !signature) return fail({ kind: "missing" });
  const lacks = [
    ["X-Amz-Algorithm", algorithm],
    ["X-Amz-Credential", credential],
    ["X-Amz-Signature", signature],
    ["X-Amz-SignedHeaders", signedHeaders],
    ["X-Amz-Date", time],
  ].filter(([, value]) => !value);
  if (lacks.length > 0) {
    return incomplete(lacks.map(([name]) => `AWS query-string parameters must include '${name}'.`).join(" "));
  }
  if (algorithm !== ALGORITHM) return incomplete(`Unsupported AWS 'algorithm': '${shown(algorithm!)}'.`);
  const expiresSeconds = expires === undefined ? EXPIRES_SECONDS_DEFAULT : Number(expires);
  if (expires !== undefined && !/^\d{1,9}$/.test(expires)) return incomplete("X-Amz-Expires should be a number.");
  if (expiresSeconds < 1 || expiresSeconds > EXPIRES_SECONDS_MAX) {
    return incomplete(
      `X-Amz-Expires must be between 1 and ${EXPIRES_SECONDS_MAX} seconds; it is ${shown(expires ?? "")}.`,
    );
  }
  return completeClaim({
    credential: credential!,
    signedHeaders: signedHeaders!,
    signature: signature!,
    time: time!,
    presigned: true,
    expiresSeconds,
    sessionToken: queryParameter(query, "X-Amz-Security-Token"),
  });
}

function completeClaim(
  parts: Omit<Claim, "accessKeyId" | "date" | "region" | "service"> & { readonly credential: string },
): Checked<Claim> {
  const scope = parts.credential.split("/");
  const [accessKeyId, date, region, service, terminator] = scope;
  if (scope.length !== 5 || !accessKeyId || !date || !region || !service) {
    return incomplete(
      `Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '${shown(parts.credential)}'`,
    );
  }
  if (terminator !== TERMINATOR) {
    return badScope(
      `Credential should be scoped with a valid terminator: '${TERMINATOR}', not '${shown(terminator ?? "")}'. `,
    );
  }
  const { signedHeaders, signature, time, presigned, expiresSeconds, sessionToken } = parts;
  return ok({
    accessKeyId,
    date,
    region,
    service,
    signedHeaders,
    signature,
    time,
    presigned,
    expiresSeconds,
    sessionToken,
  });
}

function checkTime(claim: Claim, now: number): Checked<void> {
  const signedAt = parseBasicTime(claim.time);
  if (signedAt === undefined) {
    return incomplete(
      `Date must be in ISO-8601 'basic format'. Got '${shown(claim.time)}'. See http://en.wikipedia.org/wiki/ISO_8601`,
    );
  }
  if (!claim.time.startsWith(claim.date) || claim.date.length !== 8) {
    return badScope(
      `Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: ` +
        `'${shown(claim.date)}' != '${claim.time.slice(0, 8)}', from '${claim.time}'.`,
    );
  }
  if (signedAt > now + CLOCK_SKEW_MS) {
    const latest = basicTime(now + CLOCK_SKEW_MS);
    return fail({
      kind: "not-yet",
      message: `Signature not yet current: ${claim.time} is still later than ${latest} (${basicTime(now)} + 5 min.)`,
    });
  }
  if (claim.presigned) {
    const until = signedAt + claim.expiresSeconds * SECOND_MS;
    if (now > until) {
      return fail({
        kind: "expired",
        message: `Signature expired: ${basicTime(until)} is now earlier than ${basicTime(now)}`,
      });
    }
  } else if (signedAt < now - CLOCK_SKEW_MS) {
    const earliest = basicTime(now - CLOCK_SKEW_MS);
    return fail({
      kind: "expired",
      message: `Signature expired: ${claim.time} is now earlier than ${earliest} (${basicTime(now)} - 5 min.)`,
    });
  }
  return ok(undefined);
}

/** The names of the signed headers, which must be sorted, present, and cover `host` and all of `x-amz-*`. */
function signedNames(signedHeaders: string, headers: SignableHeaders): Checked<readonly string[]> {
  const names = namesIn(signedHeaders);
  if (names.length > SIGNED_HEADERS_MAX) return incomplete("Too many signed headers.");
  for (let at = 0; at < names.length; at++) {
    if (at > 0 && names[at - 1]! >= names[at]!) return fail({ kind: "mismatch" });
    if (!Object.hasOwn(headers, names[at]!)) return fail({ kind: "mismatch" });
  }
  if (!names.includes("host")) return fail({ kind: "unsigned-header", header: "host" });
  for (const name in headers) {
    if (name.startsWith("x-amz-") && !names.includes(name)) return fail({ kind: "unsigned-header", header: name });
  }
  return ok(names);
}

function canonicalHeaders(names: readonly string[], headers: SignableHeaders): string {
  let lines = "";
  for (const name of names) lines += `${name}:${canonicalHeaderValue(headers[name] ?? "")}\n`;
  return lines;
}

function payloadHash(request: SignedRequest, claim: Claim): Checked<string> {
  const declared = headerOf(request.headers, "x-amz-content-sha256");
  if (claim.service !== "s3") {
    // Hive's own uploads are streamed, and so not hashed before they are sent. An AWS query is never exempt.
    return ok(claim.service === "hive" && declared === "UNSIGNED-PAYLOAD" ? declared : request.bodyHash);
  }
  if (declared !== undefined) return ok(declared);
  if (claim.presigned) return ok("UNSIGNED-PAYLOAD");
  return incomplete("Missing required header for this request: x-amz-content-sha256");
}

function headerOf(headers: SignableHeaders, name: string): string | undefined {
  const value = Object.hasOwn(headers, name) ? headers[name] : undefined;
  return typeof value === "string" || value === undefined ? value : value.join(",");
}

/** The first value of a query's parameter, decoded; undefined when it is not there or not decodable. */
function queryParameter(query: string, name: string): string | undefined {
  for (const part of query.split("&")) {
    if (!part.startsWith(name) || part[name.length] !== "=") continue;
    try {
      return decodeURIComponent(part.slice(name.length + 1).replaceAll("+", " "));
    } catch {
      return undefined;
    }
  }
  return undefined;
}

/** Text from the request, cut to fit an error's message. */
const shown = (text: string): string => (text.length > 128 ? `${text.slice(0, 128)}…` : text);

/** Compares in a time that depends on the length alone. */
function equalInConstantTime(computed: string, given: string): boolean {
  if (computed.length !== given.length) return false;
  let difference = 0;
  for (let at = 0; at < computed.length; at++) difference |= computed.charCodeAt(at) ^ given.charCodeAt(at);
  return difference === 0;
}
