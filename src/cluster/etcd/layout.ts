/**
 * How a cloud lies in etcd. Every key begins with the cloud's prefix (`/hive/`); values are JSON text.
 *
 *   layout                              the number of this layout
 *   head                                the newest commit: see Head. It is compared and written by every commit
 *   records/<table>/<key>               [modRevision, createRevision, version, format, lease | null, record]
 *   successors/<table>/<key>            [format, record]: what takes the record's place when its lease ends
 *   past/<table>/<key>/<modRevision>    [format, record]: what the record was before
 *   leases/<id>                         how long it lasts from a keep-alive, in ms; written anew by each keep-alive
 *   waiting/<ticket>                    a node waits for its turn to commit
 *   staged/<commit>/<chunk>             rows of a commit that is too large for one of etcd's transactions:
 *                                       [[key, value | null], …]
 *
 * A successor and each part of a record's past have keys of their own, because each of them may be as large as a record, and
 * etcd takes no more than one such in a request. They are written and removed with the record's own row, never alone.
 */
import { z } from "zod";
import type { LeaseId, Revision } from "../../model/store.ts";
import type { KeyValue, PastValue } from "../kv/state.ts";

/** The layout that this version of Hive reads and writes. */
export const LAYOUT = 1;
export const LAYOUT_KEY = "layout";
export const HEAD_KEY = "head";
const RECORDS = "records/";
const SUCCESSORS = "successors/";
const PAST = "past/";
const LEASES = "leases/";
export const STAGED = "staged/";
export const WAITING = "waiting/";

/** A key below the prefix with its JSON text; undefined: it is removed. */
export type Row = { readonly key: string; readonly text: string | undefined };

const natural = z.int().min(0);
const head = z.object({
  /** The store's revision with this commit. */
  revision: natural,
  /** The etcd revision of the head before: the commits form a chain, in which a missing one shows. */
  previous: natural,
  /**
   * CRC-32 of that head's text: an etcd that was put back comes to the same revisions again, with other commits. Absent where
   * there was none, and in heads of earlier versions of Hive.
   */
  previousCrc: natural.optional(),
  /** Whose commit it is, and that writer's number for it: so a writer that heard no answer knows its own. */
  writer: z.string().max(64),
  sequence: natural,
  /** How many rows of content it writes. */
  rows: natural,
  /** Where they are, if they are not in the head's own transaction. */
  staged: z.object({ commit: z.string().max(128), chunks: natural }).optional(),
});
/** With its text, by which it is compared: no two commits have the same, not even of an etcd that was put back. */
export type Head = z.infer<typeof head> & { readonly text: string };

const stored = z.tuple([natural, natural, natural, natural, z.string().max(64).nullable(), z.unknown()]);
const versioned = z.tuple([natural, z.unknown()]);
const chunk = z.array(z.tuple([z.string(), z.unknown()]));

/** A record's key may hold anything, etcd's is UTF-8: escaped as in JSON, which leaves the usual ones as they are. */
const escaped = (key: string): string => JSON.stringify(key).slice(1, -1);
export const recordKey = (key: string): string => RECORDS + escaped(key);
export const successorKey = (key: string): string => SUCCESSORS + escaped(key);
export const pastKey = (key: string, modRevision: Revision): string => `${PAST}${escaped(key)}/${modRevision}`;
export const leaseKey = (lease: LeaseId): string => LEASES + lease;
export const stagedKey = (commit: string, index: number): string => `${STAGED}${commit}/${index}`;

export const recordText = ({ modRevision, createRevision, version, format, lease, value }: KeyValue): string =>
  JSON.stringify([modRevision, createRevision, version, format, lease ?? null, value]);
const versionedText = ({ format, value }: Versioned): string => JSON.stringify([format, value]);

export const recordRow = (key: string, entry: KeyValue | undefined): Row => ({
  key: recordKey(key),
  text: entry && recordText(entry),
});

/** The rows beside the record's own that lead from one entry of a key to another. */
export function rowsBeside(key: string, before: KeyValue | undefined, after: KeyValue | undefined): Row[] {
  const rows: Row[] = [];
  if (after?.successor) {
    const { format, successor: value } = after;
    rows.push({ key: successorKey(key), text: versionedText({ format, value }) });
  } else if (before?.successor) {
    rows.push({ key: successorKey(key), text: undefined });
  }
  const { past: old = NO_PAST } = before ?? {};
  const { past = NO_PAST } = after ?? {};
  if (past === old) return rows;
  const stored = new Set(old.map(({ modRevision }) => modRevision));
  for (const one of past) {
    const isStored = stored.delete(one.modRevision);
    if (!isStored) rows.push({ key: pastKey(key, one.modRevision), text: `[${one.format},${one.text}]` });
  }
  for (const modRevision of stored) rows.push({ key: pastKey(key, modRevision), text: undefined });
  return rows;
}
const NO_PAST: readonly PastValue[] = [];

/** The head of a commit that is made on another, which is at an etcd revision. */
export function makeHead(
  previous: { readonly head: Head | undefined; readonly position: number },
  fields: Omit<z.infer<typeof head>, "previous" | "previousCrc">,
): Head {
  const chained = {
    ...fields,
    previous: previous.position,
    ...(previous.head && { previousCrc: crcOf(previous.head) }),
  };
  return { ...chained, text: JSON.stringify(chained) };
}
/** Of a head's text, as the next one names it. */
export const crcOf = ({ text }: Head): number => Bun.hash.crc32(text);
export const chunkText = (rows: readonly Row[]): string =>
  `[${rows.map(({ key, text }) => `[${JSON.stringify(key)},${text ?? "null"}]`).join(",")}]`;

/** Whether a key is one that a commit writes: of a record, of what is beside it, or of a lease. */
export const isContent = (key: string): boolean => CONTENT.some((prefix) => key.startsWith(prefix));
const CONTENT = [RECORDS, SUCCESSORS, PAST, LEASES];

/** A value, and the version of its shape. */
export type Versioned = { readonly format: number; readonly value: object };

/** What a row says. Other keys are not ours to judge: a later version may write them. */
export type Meaning =
  | { readonly kind: "record"; readonly key: string; readonly entry: KeyValue | undefined }
  | { readonly kind: "successor"; readonly key: string; readonly stored: Versioned | undefined }
  | {
      readonly kind: "past";
      readonly key: string;
      readonly modRevision: Revision;
      readonly stored: Versioned | undefined;
    }
  | { readonly kind: "lease"; readonly lease: LeaseId; readonly ttlMs: number | undefined }
  | { readonly kind: "other" }
  /** A key of ours with something that no version of Hive writes there. */
  | { readonly kind: "damaged" };

/** Reads a row. Values are as they were stored, whatever the format; an entry is without what is beside it. Pure. */
export function meaningOf({ key, text }: Row): Meaning {
  if (key.startsWith(RECORDS)) {
    const name = unescaped(key.slice(RECORDS.length));
    if (name === undefined) return damaged;
    if (text === undefined) return { kind: "record", key: name, entry: undefined };
    const read = stored.safeParse(parsed(text));
    if (!read.success) return damaged;
    const [modRevision, createRevision, version, format, lease, value] = read.data;
    if (typeof value !== "object" || value === null) return damaged;
    const entry = { key: name, value, format, createRevision, modRevision, version };
    return { kind: "record", key: name, entry: lease === null ? entry : { ...entry, lease: lease as LeaseId } };
  }
  if (key.startsWith(SUCCESSORS)) {
    const name = unescaped(key.slice(SUCCESSORS.length));
    const stored = readVersioned(text);
    return name === undefined || stored === "damaged" ? damaged : { kind: "successor", key: name, stored };
  }
  if (key.startsWith(PAST)) {
    // A record's key may have slashes; the revision after the last one has none.
    const [, escapedKey = "", digits] = /^(.*)\/([1-9]\d{0,15})$/s.exec(key.slice(PAST.length)) ?? [];
    const name = unescaped(escapedKey);
    const stored = readVersioned(text);
    if (digits === undefined || name === undefined || stored === "damaged") return damaged;
    return { kind: "past", key: name, modRevision: Number(digits), stored };
  }
  if (key.startsWith(LEASES)) {
    const lease = key.slice(LEASES.length) as LeaseId;
    if (text === undefined) return { kind: "lease", lease, ttlMs: undefined };
    const ttlMs = parsed(text);
    return Number.isSafeInteger(ttlMs) && (ttlMs as number) > 0
      ? { kind: "lease", lease, ttlMs: ttlMs as number }
      : damaged;
  }
  return { kind: "other" };
}
const damaged = { kind: "damaged" } as const;

function unescaped(key: string): string | undefined {
  const name = parsed(`"${key}"`);
  return typeof name === "string" ? name : undefined;
}

function readVersioned(text: string | undefined): Versioned | undefined | "damaged" {
  if (text === undefined) return undefined;
  const read = versioned.safeParse(parsed(text));
  if (!read.success) return "damaged";
  const [format, value] = read.data;
  return typeof value === "object" && value !== null ? { format, value } : "damaged";
}

export function readHead(text: string): Head | undefined {
  const read = head.safeParse(parsed(text));
  return read.data && { ...read.data, text };
}

/** The rows of a chunk; undefined when it is none. */
export function readChunk(text: string): readonly Row[] | undefined {
  const read = chunk.safeParse(parsed(text));
  return read.data?.map(([key, value]) => ({ key, text: value === null ? undefined : JSON.stringify(value) }));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
