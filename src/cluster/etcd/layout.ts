/**
 * How a cloud lies in etcd. Every key begins with the cloud's prefix (`/hive/`); values are JSON text.
 *
 *   layout                    the number of this layout
 *   head                      the newest commit: see Head. It is compared and written by every commit
 *   records/<table>/<key>     [modRevision, createRevision, version, format, lease | null, record]
 *   leases/<id>               how long it lasts from a keep-alive, in ms; written anew by each keep-alive
 *   waiting/<ticket>          a node waits for its turn to commit
 *   staged/<commit>/<chunk>   rows of a commit that is too large for one of etcd's transactions: [[key, value | null], …]
 */
import { z } from "zod";
import type { LeaseId } from "../../model/store.ts";
import type { KeyValue } from "../kv/state.ts";

/** The layout that this version of Hive reads and writes. */
export const LAYOUT = 1;
export const LAYOUT_KEY = "layout";
export const HEAD_KEY = "head";
const RECORDS = "records/";
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
  /** Whose commit it is, and that writer's number for it: so a writer that heard no answer knows its own. */
  writer: z.string().max(64),
  sequence: natural,
  /** How many records and leases it writes. */
  rows: natural,
  /** Where they are, if they are not in the head's own transaction. */
  staged: z.object({ commit: z.string().max(128), chunks: natural }).optional(),
});
/** With its text, by which it is compared: no two commits have the same, not even of an etcd that was put back. */
export type Head = z.infer<typeof head> & { readonly text: string };

const stored = z.tuple([natural, natural, natural, natural, z.string().max(64).nullable(), z.unknown()]);
const chunk = z.array(z.tuple([z.string(), z.unknown()]));

/** A record's key may hold anything, etcd's is UTF-8: escaped as in JSON, which leaves the usual ones as they are. */
export const recordKey = (key: string): string => RECORDS + JSON.stringify(key).slice(1, -1);
export const leaseKey = (lease: LeaseId): string => LEASES + lease;
export const stagedKey = (commit: string, index: number): string => `${STAGED}${commit}/${index}`;

export const recordText = ({ modRevision, createRevision, version, format, lease, value }: KeyValue): string =>
  JSON.stringify([modRevision, createRevision, version, format, lease ?? null, value]);
export const makeHead = (fields: z.infer<typeof head>): Head => ({ ...fields, text: JSON.stringify(fields) });
export const chunkText = (rows: readonly Row[]): string =>
  `[${rows.map(({ key, text }) => `[${JSON.stringify(key)},${text ?? "null"}]`).join(",")}]`;

/** Whether a key is of a record or a lease: what a commit writes. */
export const isContent = (key: string): boolean => key.startsWith(RECORDS) || key.startsWith(LEASES);

/** What a row says. Other keys are not ours to judge: a later version may write them. */
export type Meaning =
  | { readonly kind: "record"; readonly key: string; readonly entry: KeyValue | undefined }
  | { readonly kind: "lease"; readonly lease: LeaseId; readonly ttlMs: number | undefined }
  | { readonly kind: "other" }
  /** A key of ours with something that no version of Hive writes there. */
  | { readonly kind: "damaged" };

/** Reads a row. The entry's value is as it was stored, whatever the format. Pure. */
export function meaningOf({ key, text }: Row): Meaning {
  if (key.startsWith(RECORDS)) {
    const name = parsed(`"${key.slice(RECORDS.length)}"`);
    if (typeof name !== "string") return damaged;
    if (text === undefined) return { kind: "record", key: name, entry: undefined };
    const read = stored.safeParse(parsed(text));
    if (!read.success) return damaged;
    const [modRevision, createRevision, version, format, lease, value] = read.data;
    if (typeof value !== "object" || value === null) return damaged;
    const entry = { key: name, value, format, createRevision, modRevision, version };
    return { kind: "record", key: name, entry: lease === null ? entry : { ...entry, lease: lease as LeaseId } };
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
