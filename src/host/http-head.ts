/**
 * Reads HTTP/1.0 and 1.1 requests (RFC 9112) from bytes as they come: just what a small service needs whose requests have
 * no bodies worth reading. Lenient in what guests' simplest clients send (bare LF, HTTP/1.0, absolute targets), strict in
 * whatever makes one message look like two. Pure.
 */

export interface HttpHead {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly version: "1.0" | "1.1";
  /** Names in lower case; a name that came twice has both values, joined by a comma. */
  readonly headers: ReadonlyMap<string, string>;
}

/** `consumed` counts the bytes of the request, its body included. */
export type HttpStep =
  | { readonly kind: "incomplete" }
  | { readonly kind: "request"; readonly head: HttpHead; readonly consumed: number }
  | { readonly kind: "refused"; readonly status: 400 | 413 | 431 | 501 };

export const HEAD_BYTES_MAX = 16 * 1024;
export const HEADERS_MAX = 100;
export const BODY_BYTES_MAX = 16 * 1024;

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const LF = 10;
const CR = 13;

const refused = (status: 400 | 413 | 431 | 501): HttpStep => ({ kind: "refused", status });

/** The first request in `bytes`, if it is whole. A body is skipped: what asks the metadata service needs none. */
export function readRequest(bytes: Uint8Array): HttpStep {
  let start = 0;
  // Some clients end a request with an empty line too many (RFC 9112, 2.2).
  while (start < bytes.length && (bytes[start] === CR || bytes[start] === LF)) start++;
  const end = headEnd(bytes, start);
  if (end === undefined) return bytes.length - start > HEAD_BYTES_MAX ? refused(431) : { kind: "incomplete" };
  if (end - start > HEAD_BYTES_MAX) return refused(431);
  const lines = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start)
    .toString("latin1")
    .split(/\r?\n/);
  const first = /^(\S+) (\S+) HTTP\/(1\.[01])$/.exec(lines[0] ?? "");
  if (!first || !TOKEN.test(first[1]!)) return refused(400);
  const target = originForm(first[2]!);
  const headers = readHeaders(lines.slice(1).filter((line) => line !== ""));
  if (target === undefined || headers === undefined) return refused(400);
  if (headers.has("transfer-encoding")) return refused(501);
  const stated = headers.get("content-length") ?? "0";
  if (!/^\d{1,15}$/.test(stated)) return refused(400);
  const length = Number(stated);
  if (length > BODY_BYTES_MAX) return refused(413);
  if (bytes.length - end < length) return { kind: "incomplete" };
  const head: HttpHead = { method: first[1]!, target, version: first[3] as "1.0" | "1.1", headers };
  return { kind: "request", head, consumed: end + length };
}

/** Where the empty line after the head ends. */
function headEnd(bytes: Uint8Array, start: number): number | undefined {
  for (let at = bytes.indexOf(LF, start); at >= 0; at = bytes.indexOf(LF, at + 1)) {
    if (bytes[at + 1] === LF) return at + 2;
    if (bytes[at + 1] === CR && bytes[at + 2] === LF) return at + 3;
  }
  return undefined;
}

/** A target as path and query; a proxy's absolute form loses its scheme and authority. */
function originForm(target: string): string | undefined {
  const path = target.replace(/^https?:\/\/[^/?#]*/i, "");
  if (path === "" && target !== "") return "/";
  return /^\/[\x21-\x7e]*$/.test(path) ? path : undefined;
}

/** Undefined for a line that is no header, a control character, too many, or lengths that contradict each other. */
function readHeaders(lines: readonly string[]): ReadonlyMap<string, string> | undefined {
  if (lines.length > HEADERS_MAX) return undefined;
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon));
    const value = line.slice(colon + 1).trim();
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
    if (!TOKEN.test(name) || /[\x00-\x08\x0a-\x1f\x7f]/.test(value)) return undefined;
    const key = name.toLowerCase();
    const before = headers.get(key);
    if (before !== undefined && key === "content-length" && before !== value) return undefined;
    headers.set(key, before === undefined || key === "content-length" ? value : `${before}, ${value}`);
  }
  return headers;
}

/** Whether the connection stays open after the answer. */
export function keepsAlive({ version, headers }: HttpHead): boolean {
  const options = (headers.get("connection") ?? "").toLowerCase().split(/\s*,\s*/);
  return version === "1.1" ? !options.includes("close") : options.includes("keep-alive");
}
