/** What the gateway reads of a request's head. */
import { HEADERS_MAX } from "../model/limits.ts";
import type { SignableHeaders } from "../protocol/sigv4-canonical.ts";

/** Headers as a plain object, which is twice as fast as asking for them one by one. */
export const headersOf = (request: Request): SignableHeaders =>
  (request.headers as unknown as { toJSON(): SignableHeaders }).toJSON();

/** Whether one was announced. */
export function mayHaveBody(headers: SignableHeaders): boolean {
  const length = headers["content-length"];
  return length === undefined ? headers["transfer-encoding"] !== undefined : length !== "0";
}

/** Path and query of an absolute URL, as they were sent. */
export function targetOf(url: string): { readonly path: string; readonly query: string } {
  const slash = url.indexOf("/", url.indexOf("://") + 3);
  if (slash < 0) return { path: "/", query: "" };
  const mark = url.indexOf("?", slash);
  return mark < 0
    ? { path: url.slice(slash), query: "" }
    : { path: url.slice(slash, mark), query: url.slice(mark + 1) };
}

/** More headers than are read. */
export function tooMany(headers: SignableHeaders): boolean {
  let count = 0;
  for (const _ in headers) count++;
  return count > HEADERS_MAX;
}
