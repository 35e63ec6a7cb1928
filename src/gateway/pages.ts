/**
 * Pages of Describe answers. A token names the last item of the page before, and is valid for the same operation, account,
 * region and parameters only: it carries an HMAC over all of them under a key of the cluster, so that any gateway can
 * take it and nobody can make one.
 *
 *   base64url( first 16 bytes of HMAC-SHA256(key, binding, last key) | last key in UTF-8 )
 *
 * The next page holds the items after that key, so items that come or go between two calls disturb nothing.
 */
import { timingSafeEqual } from "node:crypto";
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError, invalidParameterValue } from "../model/errors.ts";
import { sha256Hex } from "../protocol/sigv4-canonical.ts";
import { canonicalJson } from "./plain-json.ts";

const MAC_BYTES = 16;
const TOKEN_CHARS_MAX = 4096;

export interface PageRequest {
  readonly operation: string;
  readonly accountId: string;
  readonly region: string;
  /** All parameters; MaxResults may change from page to page. */
  readonly input: { readonly [name: string]: unknown };
  readonly maxResults: number | undefined;
  readonly nextToken: string | undefined;
}

export interface Page<Item> {
  readonly items: readonly Item[];
  readonly nextToken: string | undefined;
}

/** Cuts one page out of the items. Errors: InvalidParameterValue (MaxResults out of bounds), InvalidNextToken. */
export function cutPage<Item>(
  items: readonly Item[],
  page: { readonly min: number; readonly max: number; readonly key: (item: Item) => string },
  request: PageRequest,
  tokenKey: Uint8Array,
): Result<Page<Item>, AwsError> {
  const { maxResults, nextToken } = request;
  if (maxResults !== undefined) {
    if (maxResults < page.min) {
      return fail(maxResultsInvalid(maxResults, `greater than or equal to ${page.min}`));
    }
    if (maxResults > page.max) return fail(maxResultsInvalid(maxResults, `less than or equal to ${page.max}`));
  }
  if (maxResults === undefined && nextToken === undefined) return ok({ items, nextToken: undefined });

  const binding = bindingOf(request);
  const sorted = inOrder(items, page.key);
  let from = 0;
  if (nextToken !== undefined) {
    const after = openToken(nextToken, binding, tokenKey);
    if (after === undefined) return fail(nextTokenInvalid());
    from = firstAfter(sorted, page.key, after);
  }
  const until = maxResults === undefined ? sorted.length : from + maxResults;
  const cut = sorted.slice(from, until);
  const more = until < sorted.length;
  return ok({ items: cut, nextToken: more ? makeToken(page.key(cut.at(-1)!), binding, tokenKey) : undefined });
}

function bindingOf({ operation, accountId, region, input }: PageRequest): string {
  const { MaxResults: _, NextToken: __, DryRun: ___, ...parameters } = input;
  return `${operation}\n${accountId}\n${region}\n${sha256Hex(canonicalJson(parameters))}`;
}

function inOrder<Item>(items: readonly Item[], key: (item: Item) => string): readonly Item[] {
  for (let at = 1; at < items.length; at++) {
    if (key(items[at - 1]!) > key(items[at]!)) {
      return [...items].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
    }
  }
  return items;
}

function firstAfter<Item>(sorted: readonly Item[], key: (item: Item) => string, after: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (key(sorted[middle]!) <= after) low = middle + 1;
    else high = middle;
  }
  return low;
}

function macOf(lastKey: string, binding: string, tokenKey: Uint8Array): Buffer {
  const hasher = new Bun.CryptoHasher("sha256", tokenKey);
  return Buffer.from(hasher.update(`${binding}\n${lastKey}`).digest()).subarray(0, MAC_BYTES);
}

const makeToken = (lastKey: string, binding: string, tokenKey: Uint8Array): string =>
  Buffer.concat([macOf(lastKey, binding, tokenKey), Buffer.from(lastKey, "utf8")]).toString("base64url");

function openToken(token: string, binding: string, tokenKey: Uint8Array): string | undefined {
  if (token.length > TOKEN_CHARS_MAX || !/^[\w-]+$/.test(token)) return undefined;
  const bytes = Buffer.from(token, "base64url");
  if (bytes.length <= MAC_BYTES) return undefined;
  const lastKey = bytes.subarray(MAC_BYTES).toString("utf8");
  const wanted = macOf(lastKey, binding, tokenKey);
  return timingSafeEqual(wanted, bytes.subarray(0, MAC_BYTES)) ? lastKey : undefined;
}

const maxResultsInvalid = (value: number, expected: string): AwsError =>
  invalidParameterValue(`Value ( ${value} ) for parameter maxResults is invalid. Expecting a value ${expected}.`);
const nextTokenInvalid = (): AwsError => awsError("InvalidNextToken", "The specified NextToken is not valid.");
