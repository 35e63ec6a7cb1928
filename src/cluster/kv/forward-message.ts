/**
 * What a follower and the leader say to each other about transactions, as JSON in UTF-8. A request:
 *   [1, "register", term]                          asks for a session
 *   [1, "do", term, session, low, [item, …]]       transactions of one session; nobody waits for those below `low` any more
 * An item is [number, what, …]:
 *   [number, "w", [compare, …], [operation, …]]    a write if every compare holds; operations as in the log (`command.ts`)
 *   [number, "g", lease, ttlMs]                    grants a lease, named by the client so that it can ask again
 *   [number, "x", lease]   [number, "k", lease]    ends a lease; keeps it alive
 * A compare is ["k", key, modRevision], ["r", from, to, count, maxRevision] or ["i", table, index, value, count, maxRevision]:
 * indexes go by name, as two versions of Hive may number them differently.
 * An answer:
 *   ["moved"]             this node does not lead that term: nothing was done, and nothing will be
 *   ["expired"]           the session is forgotten: nothing was done
 *   ["bad", message]      the request is not one of these: nothing was done
 *   ["session", id]
 *   ["done", index, [result, …]]
 * with a result for each item: 1 it is committed, at or before `index`; 0 a compare did not hold, as the state at `index`
 * shows; -1 it can't be said: ask again, with the same number; [reason, message] it was refused.
 *
 * A request is for the leader of one term, whatever happens to it on the way. That is what makes "nothing was done" final: a
 * late copy of it can't be carried out by a later leader, and an earlier one can't commit anything any more.
 */
import { fail, ok, type Result } from "../../lib/result.ts";
import { KEY_LENGTH_MAX, type LeaseId, RECORD_BYTES_MAX, type StoreError } from "../../model/store.ts";
import type { Index, Term } from "../raft/types.ts";
import { putOf, putText, type SealedOperation } from "./command.ts";
import { NewerFormat, type Schema, upgrade } from "./schema.ts";
import { SESSION_WINDOW, type SessionId } from "./sessions.ts";
import type { Compare } from "./view.ts";

export type Transaction =
  | { readonly kind: "write"; readonly compares: readonly Compare[]; readonly operations: readonly SealedOperation[] }
  | { readonly kind: "grant-lease"; readonly lease: LeaseId; readonly ttlMs: number }
  | { readonly kind: "revoke-lease"; readonly lease: LeaseId }
  | { readonly kind: "keep-alive"; readonly lease: LeaseId };

export type Request =
  | { readonly kind: "register"; readonly term: Term }
  | {
      readonly kind: "do";
      readonly term: Term;
      readonly session: SessionId;
      readonly low: number;
      readonly items: readonly { readonly number: number; readonly transaction: Transaction }[];
    };

export type ItemResult = "committed" | "conflict" | "unresolved" | StoreError;

export type Answer =
  | { readonly kind: "moved" | "expired" }
  | { readonly kind: "bad"; readonly message: string }
  | { readonly kind: "session"; readonly session: SessionId }
  | { readonly kind: "done"; readonly index: Index; readonly results: readonly ItemResult[] };

/** Below the largest frame between nodes, with room for what is around it. */
export const REQUEST_BYTES_MAX = 15 * 1024 * 1024;
/** What one transaction may look at: more than a decision on single keys ever needs; ranges are one compare each. */
export const COMPARES_MAX = 100_000;
export const LEASE_MS_MAX = 365 * 24 * 3600 * 1000;
const VERSION = 1;

export const encodeRegister = (term: Term): Uint8Array => encoder.encode(`[${VERSION},"register",${term}]`);

export const encodeDo = (term: Term, session: SessionId, low: number, items: readonly string[]): Uint8Array =>
  encoder.encode(`[${VERSION},"do",${term},${session},${low},[${items.join(",")}]]`);

/** One item, without its number: `[${number},${text}`. */
export function encodeTransaction(schema: Schema, transaction: Transaction): string {
  switch (transaction.kind) {
    case "write": {
      const compares = transaction.compares.map((compare) => JSON.stringify(compareRow(schema, compare)));
      return `"w",[${compares.join(",")}],[${transaction.operations.map(({ text }) => text).join(",")}]]`;
    }
    case "grant-lease":
      return `"g","${transaction.lease}",${transaction.ttlMs}]`;
    case "revoke-lease":
      return `"x","${transaction.lease}"]`;
    default:
      return `"k","${transaction.lease}"]`;
  }
}

export const numbered = (number: number, text: string): string => `[${number},${text}`;

export function encodeAnswer(answer: Answer): Uint8Array {
  return encoder.encode(JSON.stringify(answerRow(answer)));
}

function answerRow(answer: Answer): unknown[] {
  switch (answer.kind) {
    case "bad":
      return ["bad", answer.message];
    case "session":
      return ["session", answer.session];
    case "done":
      return ["done", answer.index, answer.results.map(resultCode)];
    default:
      return [answer.kind];
  }
}

const RESULT_CODES = { committed: 1, conflict: 0, unresolved: -1 } as const;
const resultCode = (result: ItemResult): unknown =>
  typeof result === "string" ? RESULT_CODES[result] : [result.reason, result.message];

const encoder = new TextEncoder();

function compareRow(schema: Schema, compare: Compare): unknown[] {
  if (compare.kind === "key") return ["k", compare.key, compare.modRevision];
  const { count, maxRevision } = compare;
  if (compare.kind === "range") return ["r", compare.from, compare.to, count, maxRevision];
  return ["i", ...indexName(schema, compare.slot), compare.value, count, maxRevision];
}

function indexName(schema: Schema, slot: number): [table: string, index: string] {
  for (const [table, space] of schema.spaces) {
    for (const [index, at] of space.slotOf) if (at === slot) return [table, index];
  }
  return ["", ""];
}

/** What is not as described above. Thrown and caught within this file only. */
class Malformed extends Error {}

function check(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Malformed(what);
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function parsed<T>(bytes: Uint8Array, read: (value: unknown) => T): Result<T, string> {
  try {
    check(bytes.length <= REQUEST_BYTES_MAX, "it is too large");
    return ok(read(JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString())));
  } catch (error) {
    // Nesting that exhausts the stack is a RangeError.
    if (error instanceof Malformed || error instanceof SyntaxError || error instanceof RangeError) {
      return fail(error.message);
    }
    if (error instanceof NewerFormat) return fail(error.message);
    throw error;
  }
}

/** Reads a request that may hold anything. */
export const parseRequest = (schema: Schema, bytes: Uint8Array): Result<Request, string> =>
  parsed(bytes, (value) => {
    check(Array.isArray(value), "it is no list");
    const [version, kind, term, session, low, items] = value as unknown[];
    check(version === VERSION, "its version is unknown");
    check(isCount(term), "it names no term");
    if (kind === "register") return { kind, term };
    check(kind === "do" && isCount(session) && isCount(low) && Array.isArray(items), "it is not known");
    check(items.length <= SESSION_WINDOW, "it has too many items");
    const numbers = new Set<number>();
    return {
      kind,
      term,
      session,
      low,
      items: items.map((row: unknown) => {
        check(Array.isArray(row) && isCount(row[0]) && row[0] >= low && !numbers.has(row[0]), "an item has no number");
        numbers.add(row[0]);
        return { number: row[0], transaction: readTransaction(schema, row) };
      }),
    };
  });

function readTransaction(schema: Schema, [, what, first, second]: unknown[]): Transaction {
  if (what === "w") {
    check(Array.isArray(first) && Array.isArray(second), "a write has compares and operations");
    check(first.length <= COMPARES_MAX, "it has too many compares");
    const operations = second.map((row: unknown) => readOperation(schema, row));
    check(
      new Set(operations.map(({ operation }) => operation.key)).size === operations.length,
      "a key is written twice",
    );
    return { kind: "write", compares: first.map((row: unknown) => readCompare(schema, row)), operations };
  }
  check(isLease(first), "a lease has a name");
  if (what === "x") return { kind: "revoke-lease", lease: first };
  if (what === "k") return { kind: "keep-alive", lease: first };
  check(what === "g" && isCount(second) && second > 0 && second <= LEASE_MS_MAX, "an item is not known");
  return { kind: "grant-lease", lease: first, ttlMs: second };
}

const isLease = (value: unknown): value is LeaseId => typeof value === "string" && /^[0-9a-f]{16}$/.test(value);
const isKey = (value: unknown): value is string =>
  typeof value === "string" && value !== "" && value.length <= KEY_LENGTH_MAX && !value.includes("\0");

function readCompare(schema: Schema, row: unknown): Compare {
  check(Array.isArray(row), "a compare is a list");
  const [kind, a, b, c, d, e] = row as unknown[];
  check(typeof a === "string", "a compare names something");
  if (kind === "k") {
    check(isCount(b), "a revision is a number");
    return { kind: "key", key: a, modRevision: b };
  }
  check(typeof b === "string", "a compare names something");
  if (kind === "r") {
    check(isCount(c) && isCount(d), "a range has a measure");
    return { kind: "range", from: a, to: b, count: c, maxRevision: d };
  }
  const slot = schema.spaces.get(a)?.slotOf.get(b);
  check(slot !== undefined, `the leader knows no index "${b}" of "${a}"`);
  check(kind === "i" && typeof c === "string" && isCount(d) && isCount(e), "an index has a measure");
  return { kind: "index", slot, value: c, count: d, maxRevision: e };
}

function readOperation(schema: Schema, row: unknown): SealedOperation {
  check(Array.isArray(row) && isKey(row[1]), "an operation has a key");
  const [what, key, stored, lease, value, pastMax, successor, restores] = row as [unknown, string, ...unknown[]];
  if (what === "r") return { operation: { kind: "remove", key }, text: JSON.stringify(["r", key]) };
  check(what === "p" && isCount(stored) && stored >= 1, "an operation puts or removes");
  check(lease === null || isLease(lease), "a lease has a name");
  check(pastMax === undefined || pastMax === null || (isCount(pastMax) && pastMax >= 1), "a past has a length");
  check(successor === undefined || successor === null || lease !== null, "a successor follows on a lease");
  check(restores === undefined || restores === null || restores === 1, "a put restores, or does not");
  const record = readRecord(schema, key, stored, value);
  const next = successor === undefined || successor === null ? undefined : readRecord(schema, key, stored, successor);
  const operation = putOf(key, record.value, record.format, {
    lease: lease ?? undefined,
    successor: next?.value,
    pastMax: pastMax ?? undefined,
    restores: restores === 1 ? true : undefined,
  });
  return { operation, text: putText(operation, record.text, next?.text) };
}

function readRecord(schema: Schema, key: string, stored: number, raw: unknown) {
  check(typeof raw === "object" && raw !== null, "a value is an object");
  const upgraded = upgrade(schema.spaceOfKey(key), stored, raw);
  const value = frozen(upgraded.value);
  const text = JSON.stringify(value);
  check(Buffer.byteLength(text) <= RECORD_BYTES_MAX, "a record is too large");
  return { value, format: upgraded.format, text };
}

/** JSON can write numbers that it can't read back: 1e999. */
function frozen<T>(value: T): T {
  if (typeof value === "number") check(Number.isFinite(value), "a number is too large");
  if (typeof value !== "object" || value === null) return value;
  for (const member of Array.isArray(value) ? value : Object.values(value)) frozen(member);
  return Object.freeze(value);
}

const REASONS = ["full", "failed", "too-large", "busy", "no-lease", "unavailable", "closed"] as const;

/** Reads an answer to a request with so many items. */
export const parseAnswer = (bytes: Uint8Array, items: number): Result<Answer, string> =>
  parsed(bytes, (value): Answer => {
    check(Array.isArray(value), "it is no list");
    const [kind, first, second] = value as unknown[];
    switch (kind) {
      case "moved":
      case "expired":
        return { kind };
      case "bad":
        return { kind, message: String(first) };
      case "session":
        check(isCount(first), "a session has a number");
        return { kind, session: first };
      default:
        check(kind === "done" && isCount(first) && Array.isArray(second), "it is not known");
        check(second.length === items, "every item has a result");
        return { kind, index: first, results: second.map(readResult) };
    }
  });

function readResult(code: unknown): ItemResult {
  if (code === 1) return "committed";
  if (code === 0) return "conflict";
  if (code === -1) return "unresolved";
  check(Array.isArray(code), "a result is known");
  const reason = REASONS.find((known) => known === code[0]);
  check(reason, "a refusal has a reason");
  return { kind: "store", reason, message: String(code[1]) };
}
