/**
 * The canonical forms that Signature Version 4 hashes. Both sides write the request in this one form, sign the hash of
 * it, and so agree on every byte that matters while proxies may change the rest (header order, case of percent-escapes).
 * Source: "Create a signed AWS API request" in the IAM User Guide; checked by AWS's published test suite.
 */

/** Headers by lower-case name. Several values of one name are an array, or joined by ", " as the Fetch standard does. */
export type SignableHeaders = { readonly [name: string]: string | readonly string[] | undefined };

export const ALGORITHM = "AWS4-HMAC-SHA256";
export const TERMINATOR = "aws4_request";

const HEX = "0123456789ABCDEF";

/** Letters, digits and `-._~`: what RFC 3986 leaves unescaped. */
const UNRESERVED = new Uint8Array(128);
for (const char of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
  UNRESERVED[char.charCodeAt(0)] = 1;

const hexDigit = (code: number): number => {
  if (code >= 48 && code <= 57) return code - 48;
  const lower = code | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
};

const escaped = (byte: number): string => `%${HEX[byte >> 4]}${HEX[byte & 15]}`;

/**
 * Percent-encodes text as RFC 3986 has it (not only what `encodeURIComponent` does: `!'()*` too). A lone surrogate is
 * encoded as U+FFFD; never throws.
 */
export function encodeRfc3986(text: string): string {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code >= 128 || UNRESERVED[code] === 0)
      return text.slice(0, at) + encodeBytes(Buffer.from(text.slice(at), "utf8"));
  }
  return text;
}

function encodeBytes(bytes: Uint8Array): string {
  let out = "";
  for (const byte of bytes) out += byte < 128 && UNRESERVED[byte] === 1 ? String.fromCharCode(byte) : escaped(byte);
  return out;
}

/**
 * A query's name or value, as it came, in canonical form: escapes of unreserved characters undone, all others escaped
 * with upper-case digits, `+` read as a space (as the form parser reads it). A `%` that begins no escape is itself escaped.
 */
export function canonicalComponent(raw: string): string {
  let out = "";
  let plainFrom = 0;
  for (let at = 0; at < raw.length; at++) {
    const code = raw.charCodeAt(at);
    if (code < 128 && UNRESERVED[code] === 1) continue;
    out += raw.slice(plainFrom, at);
    if (code === 37 /* % */) {
      const high = hexDigit(raw.charCodeAt(at + 1));
      const low = hexDigit(raw.charCodeAt(at + 2));
      if (high >= 0 && low >= 0) {
        const byte = (high << 4) | low;
        out += byte < 128 && UNRESERVED[byte] === 1 ? String.fromCharCode(byte) : escaped(byte);
        at += 2;
      } else out += "%25";
    } else if (code === 43 /* + */) out += "%20";
    else if (code >= 0xd800 && code <= 0xdbff) {
      out += encodeRfc3986(raw.slice(at, at + 2));
      at++;
    } else out += encodeRfc3986(raw[at]!);
    plainFrom = at + 1;
  }
  return plainFrom === 0 ? raw : out + raw.slice(plainFrom);
}

/** The query in canonical form: each part escaped, sorted by name and then by value, without `except`. */
export function canonicalQuery(rawQuery: string, except?: string): string {
  if (rawQuery === "") return "";
  const pairs: [string, string][] = [];
  for (const part of rawQuery.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = canonicalComponent(equals < 0 ? part : part.slice(0, equals));
    if (name !== except) pairs.push([name, equals < 0 ? "" : canonicalComponent(part.slice(equals + 1))]);
  }
  // By name first: joined with "=", "a-b=…" would sort before "a=…".
  pairs.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0));
  return pairs.map(([name, value]) => `${name}=${value}`).join("&");
}

/**
 * The path in canonical form. S3 keeps it as sent (escaped once, nothing resolved, since `a//b` is a key of its own);
 * every other service resolves `.`, `..` and empty segments, and escapes the escaped segments once more.
 */
export function canonicalPath(rawPath: string, service: string): string {
  if (rawPath === "/" || rawPath === "") return "/";
  if (service === "s3") return rawPath.split("/").map(canonicalPathSegment).join("/");
  const segments: string[] = [];
  for (const segment of rawPath.split("/")) {
    if (segment === "..") segments.pop();
    else if (segment !== "" && segment !== ".") segments.push(encodeRfc3986(segment));
  }
  const directory = segments.length > 0 && rawPath.endsWith("/") ? "/" : "";
  return `/${segments.join("/")}${directory}`;
}

// In a path `+` is a plus.
const canonicalPathSegment = (raw: string): string => canonicalComponent(raw.replaceAll("+", "%2B"));

/** A header's value without outer white space, runs of it within made one space, several values joined by a comma. */
export function canonicalHeaderValue(value: string | readonly string[]): string {
  if (typeof value !== "string") return value.map(canonicalHeaderValue).join(",");
  const trimmed = value.trim();
  return trimmed.includes("  ") || trimmed.includes("\t") || trimmed.includes("\n")
    ? trimmed.replace(/\s+/g, " ")
    : trimmed;
}

export const sha256Hex = (data: string | Uint8Array): string => Bun.SHA256.hash(data, "hex");

/** SHA-256 of nothing. */
export const EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const hmac = (key: string | Uint8Array, data: string): Uint8Array =>
  new Bun.CryptoHasher("sha256", key).update(data).digest();

/** HMAC-SHA256 in lower-case hexadecimal. */
export const hmacHex = (key: Uint8Array, data: string): string =>
  new Bun.CryptoHasher("sha256", key).update(data).digest("hex");

/** The key that signs one day's requests of one access key to one service in one region. */
export const deriveSigningKey = (secret: string, date: string, region: string, service: string): Uint8Array =>
  hmac(hmac(hmac(hmac(`AWS4${secret}`, date), region), service), TERMINATOR);

/** The lines under a canonical request's hash. `time` is ISO 8601 basic, `20150830T123600Z`. */
export const stringToSign = (time: string, scope: string, canonicalRequest: string): string =>
  `${ALGORITHM}\n${time}\n${scope}\n${sha256Hex(canonicalRequest)}`;

/** `20150830T123600Z` as milliseconds since the epoch; undefined when it is not of that form. */
export function parseBasicTime(text: string): number | undefined {
  if (text.length !== 16 || text[8] !== "T" || text[15] !== "Z") return undefined;
  const month = digits(text, 4, 6);
  const day = digits(text, 6, 8);
  const hour = digits(text, 9, 11);
  const minute = digits(text, 11, 13);
  const second = digits(text, 13, 15);
  if (!(month >= 1 && month <= 12 && day >= 1 && day <= 31 && hour <= 23 && minute <= 59 && second <= 60))
    return undefined;
  const ms = Date.UTC(digits(text, 0, 4), month - 1, day, hour, minute, second);
  return Number.isNaN(ms) ? undefined : ms;
}

/** A decimal number; NaN when a character is no digit. */
function digits(text: string, from: number, to: number): number {
  let value = 0;
  for (let at = from; at < to; at++) {
    const digit = text.charCodeAt(at) - 48;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
  }
  return value;
}

/** Milliseconds since the epoch as `20150830T123600Z`. */
export const basicTime = (ms: number): string =>
  `${new Date(ms).toISOString().slice(0, 19).replaceAll("-", "").replaceAll(":", "")}Z`;

/** Signing keys by access key, day, region and service, so that four of a request's five HMACs are done once a day. */
export class SigningKeys {
  readonly #keys = new Map<string, { readonly secret: string; readonly key: Uint8Array }>();
  readonly #limit: number;

  /** Holds up to `limit` keys; the oldest leaves first. */
  constructor(limit = 1024) {
    this.#limit = limit;
  }

  get(accessKeyId: string, secret: string, date: string, region: string, service: string): Uint8Array {
    const name = `${accessKeyId}/${date}/${region}/${service}`;
    const held = this.#keys.get(name);
    // The secret may have been replaced under the same id since.
    if (held && held.secret === secret) return held.key;
    const key = deriveSigningKey(secret, date, region, service);
    if (!held && this.#keys.size >= this.#limit) this.#keys.delete(this.#keys.keys().next().value!);
    this.#keys.set(name, { secret, key });
    return key;
  }
}
