/**
 * Commands as bytes in the log: JSON in UTF-8, an array whose first element says what it is.
 *   ["w", [operation, …], tag?]      a write; an operation is ["r", key] or
 *                                    ["p", key, format, lease | null, value, pastMax | null, successor | null, restores | null];
 *                                    nulls at its end may be left out, and `restores` is 1 (`Operation` says what it does)
 *   ["g", lease, ttlMs, tag?]        grants a lease
 *   ["x", lease, tag?]               ends a lease
 *   ["s"]                            registers a session
 *   ["n"]                            nothing (only in logs of the first version of the store)
 * `tag` is [session, number, low] and there when a client forwarded the transaction (`sessions.ts`). JSON and not a format of
 * our own: Bun writes and reads it natively at hundreds of MB/s, and a log can be read by eye.
 */
import { assert } from "../../lib/assert.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { KEY_LENGTH_MAX, type LeaseId, RECORD_BYTES_MAX, type StoreError } from "../../model/store.ts";
import type { Logged } from "./replicated.ts";
import { type Schema, upgrade } from "./schema.ts";
import type { SessionTag } from "./sessions.ts";
import type { Command, Operation, Writable } from "./state.ts";

/** An operation with its text: so that a value is turned into JSON once. */
export type SealedOperation = { readonly operation: Operation; readonly text: string };

const tooLarge = (message: string): StoreError => ({ kind: "store", reason: "too-large", message });

/** What a put may say beside its value. */
export type PutOptions = {
  readonly lease?: LeaseId | undefined;
  readonly successor?: object | undefined;
  readonly pastMax?: number | undefined;
  readonly restores?: true | undefined;
  /** The value as JSON; kept for its past only. */
  readonly text?: string | undefined;
};

/**
 * Takes a record into the store: what is kept is what its JSON says, frozen, and shared with nobody. So the state in
 * memory is at all times the state that a recovery would read.
 * @throws BrokenInvariant for a key with NUL, or a value that JSON does not give back (a Date, NaN, a Map …)
 */
export function sealPut(
  key: string,
  value: object,
  format: number,
  { lease, successor, pastMax, restores }: Omit<PutOptions, "text"> = {},
): Result<SealedOperation, StoreError> {
  if (key.length > KEY_LENGTH_MAX)
    return fail(tooLarge(`A key has ${key.length} characters, at most ${KEY_LENGTH_MAX} fit.`));
  assert(!key.includes("\0"), "a key holds no NUL");
  const valueText = textOfRecord(value);
  const successorText = successor && textOfRecord(successor);
  for (const text of successorText === undefined ? [valueText] : [valueText, successorText]) {
    // At most three bytes a character.
    if (text.length * 3 > RECORD_BYTES_MAX && Buffer.byteLength(text) > RECORD_BYTES_MAX) {
      return fail(tooLarge(`The record ${key} is larger than ${RECORD_BYTES_MAX} bytes.`));
    }
  }
  const next = successorText === undefined ? undefined : deepFreeze<object>(JSON.parse(successorText));
  const options = { lease, successor: next, pastMax, restores, text: valueText };
  const operation = putOf(key, deepFreeze<object>(JSON.parse(valueText)), format, options);
  return ok({ operation, text: putText(operation, valueText, successorText) });
}

/** A put, without the options that are absent. Most have no lease: each command passes here, on every node. */
export function putOf(
  key: string,
  value: object,
  format: number,
  { lease, successor, pastMax, restores, text }: PutOptions,
): Operation & { readonly kind: "put" } {
  const put: Writable<Operation & { readonly kind: "put" }> = { kind: "put", key, value, format };
  if (pastMax !== undefined) {
    put.pastMax = pastMax;
    if (text !== undefined) put.text = text;
  }
  if (restores) put.restores = true;
  if (lease !== undefined) put.lease = lease;
  if (successor !== undefined) put.successor = successor;
  return put;
}

function textOfRecord(value: object): string {
  assertPlain(value, "record");
  return JSON.stringify(value);
}

/** A put as JSON, whose values are JSON already. */
export function putText(
  { key, format, lease, pastMax, restores }: Operation & { readonly kind: "put" },
  valueText: string,
  successorText: string | undefined,
): string {
  const head = `["p",${JSON.stringify(key)},${format},${lease ? `"${lease}"` : "null"},${valueText}`;
  if (restores) return `${head},${pastMax ?? "null"},${successorText ?? "null"},1]`;
  if (successorText !== undefined) return `${head},${pastMax ?? "null"},${successorText}]`;
  return pastMax === undefined ? `${head}]` : `${head},${pastMax}]`;
}

/** An operation as it is read from a log, where the text of its value is not at hand. */
export function withoutText(operation: Operation): Operation {
  if (operation.kind === "remove" || operation.text === undefined) return operation;
  const { text: _, ...rest } = operation;
  return rest;
}

export function sealRemove(key: string): SealedOperation {
  return { operation: { kind: "remove", key }, text: JSON.stringify(["r", key]) };
}

export function encodeWrites(operations: readonly SealedOperation[], tag?: SessionTag): Uint8Array {
  let text = '["w",[';
  for (let i = 0; i < operations.length; i++) text += i === 0 ? operations[i]!.text : `,${operations[i]!.text}`;
  return encoder.encode(`${text}]${textOf(tag)}]`);
}

export const encodeGrant = (lease: LeaseId, ttlMs: number, tag?: SessionTag): Uint8Array =>
  encoder.encode(`["g","${lease}",${ttlMs}${textOf(tag)}]`);
export const encodeRevoke = (lease: LeaseId, tag?: SessionTag): Uint8Array =>
  encoder.encode(`["x","${lease}"${textOf(tag)}]`);
export const encodeRegister = (): Uint8Array => encoder.encode('["s"]');

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const textOf = (tag: SessionTag | undefined): string => (tag ? `,[${tag.session},${tag.number},${tag.low}]` : "");

/**
 * Reads a command that passed its checksum.
 * @throws NewerFormat; BrokenInvariant for what no version up to this one writes
 */
export function decodeCommand(schema: Schema, bytes: Uint8Array): Logged {
  const parsed = JSON.parse(decoder.decode(bytes)) as unknown[];
  switch (parsed[0]) {
    case "w": {
      const operations = (parsed[1] as unknown[][]).map((row) => decodeOperation(schema, row));
      return logged({ kind: "write", operations }, parsed[2]);
    }
    case "g":
      return logged({ kind: "grant-lease", lease: parsed[1] as LeaseId, ttlMs: parsed[2] as number }, parsed[3]);
    case "x":
      return logged({ kind: "revoke-lease", lease: parsed[1] as LeaseId }, parsed[2]);
    case "s":
      return { kind: "register" };
    default:
      assert(parsed[0] === "n", `"${parsed[0]}" is a command`);
      return { kind: "nothing" };
  }
}

function logged(command: Command, tag: unknown): Logged {
  if (tag === undefined) return { kind: "command", command };
  const [session, number, low] = tag as [number, number, number];
  return { kind: "command", command, tag: { session, number, low } };
}

function decodeOperation(schema: Schema, row: unknown[]): Operation {
  const key = row[1] as string;
  if (row[0] === "r") return { kind: "remove", key };
  assert(row[0] === "p", "an operation puts or removes");
  const space = schema.spaceOfKey(key);
  const stored = row[2] as number;
  const { format, value } = upgrade(space, stored, row[4] as object);
  const successor = row[6] as object | null | undefined;
  return putOf(key, deepFreeze(value), format, {
    lease: (row[3] ?? undefined) as LeaseId | undefined,
    successor: successor ? deepFreeze(upgrade(space, stored, successor).value) : undefined,
    pastMax: (row[5] ?? undefined) as number | undefined,
    restores: row[7] === 1 ? true : undefined,
  });
}

export function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  for (const name in value) {
    const member = value[name];
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
