/**
 * Commands as bytes in the log: JSON in UTF-8, an array whose first element says what it is.
 *   ["w", [operation, …]]      a write; an operation is ["p", key, format, lease | null, value] or ["r", key]
 *   ["g", lease, ttlMs]        grants a lease
 *   ["x", lease]               ends a lease
 *   ["n"]                      nothing (a leader's first entry)
 * JSON and not a format of our own: Bun writes and reads it natively at hundreds of MB/s, and a log can be read by eye.
 */
import { assert } from "../../lib/assert.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { KEY_LENGTH_MAX, type LeaseId, RECORD_BYTES_MAX, type StoreError } from "../../model/store.ts";
import { type Schema, spaceOfKey, upgrade } from "./schema.ts";
import type { Command, Operation } from "./state.ts";

/** An operation with its text, so that a value is turned into JSON once. */
export type SealedOperation = { readonly operation: Operation; readonly text: string };

const tooLarge = (message: string): StoreError => ({ kind: "store", reason: "too-large", message });

/**
 * Takes a record into the store: what is kept is what its JSON says, frozen, and shared with nobody. So the state in
 * memory is at all times the state that a recovery would read.
 * @throws BrokenInvariant for a key with NUL, or a value that JSON does not give back (a Date, NaN, a Map …)
 */
export function sealPut(
  key: string,
  value: object,
  format: number,
  lease: LeaseId | undefined,
): Result<SealedOperation, StoreError> {
  if (key.length > KEY_LENGTH_MAX)
    return fail(tooLarge(`A key has ${key.length} characters, at most ${KEY_LENGTH_MAX} fit.`));
  assert(!key.includes("\0"), "a key holds no NUL");
  assertPlain(value, "record");
  const text = JSON.stringify(value);
  if (text.length > RECORD_BYTES_MAX || Buffer.byteLength(text) > RECORD_BYTES_MAX) {
    return fail(tooLarge(`The record ${key} is larger than ${RECORD_BYTES_MAX} bytes.`));
  }
  const operation: Operation = {
    kind: "put",
    key,
    value: deepFreeze(JSON.parse(text)),
    format,
    ...(lease !== undefined && { lease }),
  };
  return ok({ operation, text: `["p",${JSON.stringify(key)},${format},${lease ? `"${lease}"` : null},${text}]` });
}

export function sealRemove(key: string): SealedOperation {
  return { operation: { kind: "remove", key }, text: JSON.stringify(["r", key]) };
}

export function encodeWrites(operations: readonly SealedOperation[]): Uint8Array {
  return Buffer.from(`["w",[${operations.map(({ text }) => text).join(",")}]]`);
}

export const encodeGrant = (lease: LeaseId, ttlMs: number): Uint8Array =>
  Buffer.from(JSON.stringify(["g", lease, ttlMs]));
export const encodeRevoke = (lease: LeaseId): Uint8Array => Buffer.from(JSON.stringify(["x", lease]));

/**
 * Reads a command that passed its checksum; undefined for one that does nothing.
 * @throws NewerFormat; BrokenInvariant for what no version up to this one writes
 */
export function decodeCommand(schema: Schema, bytes: Uint8Array): Command | undefined {
  const parsed = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString()) as unknown[];
  switch (parsed[0]) {
    case "w":
      return { kind: "write", operations: (parsed[1] as unknown[][]).map((row) => decodeOperation(schema, row)) };
    case "g":
      return { kind: "grant-lease", lease: parsed[1] as LeaseId, ttlMs: parsed[2] as number };
    case "x":
      return { kind: "revoke-lease", lease: parsed[1] as LeaseId };
    default:
      assert(parsed[0] === "n", `"${parsed[0]}" is a command`);
      return undefined;
  }
}

function decodeOperation(schema: Schema, row: unknown[]): Operation {
  const key = row[1] as string;
  if (row[0] === "r") return { kind: "remove", key };
  assert(row[0] === "p", "an operation puts or removes");
  const upgraded = upgrade(spaceOfKey(schema, key), row[2] as number, row[4] as object);
  const lease = row[3] as LeaseId | null;
  return { kind: "put", key, format: upgraded.format, value: deepFreeze(upgraded.value), ...(lease && { lease }) };
}

export function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  for (const member of Array.isArray(value) ? value : Object.values(value)) {
    if (typeof member === "object") deepFreeze(member);
  }
  return Object.freeze(value);
}

function assertPlain(value: unknown, path: string): void {
  switch (typeof value) {
    case "string":
    case "boolean":
    case "undefined":
      return;
    case "number":
      assert(Number.isFinite(value), `${path} is a finite number`);
      return;
    case "object": {
      if (value === null) return;
      if (Array.isArray(value)) {
        // JSON would turn an undefined element into null.
        for (const element of value) assert(element !== undefined, `${path} has no undefined element`);
        for (const element of value) assertPlain(element, path);
        return;
      }
      const prototype = Object.getPrototypeOf(value);
      assert(prototype === Object.prototype || prototype === null, `${path} is plain data`);
      for (const name in value) assertPlain((value as Record<string, unknown>)[name], name);
      return;
    }
    default:
      assert(false, `${path} is JSON data, not a ${typeof value}`);
  }
}
