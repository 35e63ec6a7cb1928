/**
 * etcd's v3 API as its JSON gateway speaks it (etcd's `rpc.proto` in proto3's JSON mapping): keys and values in base64,
 * 64-bit numbers as text, and what has its default value left out. What is read here came from a socket: it is checked.
 */
import { z } from "zod";

/** A key or a value on its way out. */
export const bytes = (text: string): string => Buffer.from(text).toString("base64");
const text = z
  .string()
  .transform((base64) => Buffer.from(base64, "base64").toString())
  .default("");
const int64 = z
  .string()
  .regex(/^\d{1,16}$/)
  .transform(Number)
  .refine(Number.isSafeInteger)
  .default(0);

const header = z.object({
  cluster_id: z.string().max(20),
  /** The store's revision when it answered. */
  revision: int64,
});
/** The answer's members that every call has. */
export const headed = z.object({ header });

const keyValue = z.object({ key: text, value: text, mod_revision: int64 });
export type EtcdKeyValue = z.infer<typeof keyValue>;

export const rangeAnswer = z.object({
  header,
  kvs: z.array(keyValue).default([]),
  more: z.boolean().default(false),
});

export const txnAnswer = z.object({ header, succeeded: z.boolean().default(false) });

export const tokenAnswer = z.object({ token: z.string().min(1).max(4096) });

/** An error of the gateway's, or of etcd behind it: gRPC's code, and a message. */
export const errorAnswer = z.object({ code: z.int().default(2), message: z.string() });

const event = z.object({ type: z.enum(["PUT", "DELETE"]).default("PUT"), kv: keyValue });
/** One line of a watch. `compact_revision` is there when the revision asked for is held no more. */
export const watchLine = z.union([
  z.object({
    result: z.object({
      header,
      created: z.boolean().default(false),
      canceled: z.boolean().default(false),
      compact_revision: int64,
      cancel_reason: z.string().default(""),
      events: z.array(event).default([]),
    }),
  }),
  z.object({ error: z.object({ message: z.string() }) }),
]);

export type Compare =
  | { readonly key: string; readonly target: "VALUE"; readonly result: "EQUAL"; readonly value: string }
  /** There is no such key. */
  | { readonly key: string; readonly target: "MOD"; readonly result: "EQUAL"; readonly mod_revision: 0 };
export type RequestOperation =
  | { readonly request_range: { readonly key: string; readonly keys_only: true } }
  | { readonly request_put: { readonly key: string; readonly value: string } }
  | { readonly request_delete_range: { readonly key: string; readonly range_end?: string } };
export type TxnRequest = { readonly compare: readonly Compare[]; readonly success: readonly RequestOperation[] };
export type RangeRequest = {
  readonly key: string;
  readonly range_end?: string;
  readonly limit?: number;
  /** Read as it was then; 0 or absent: as it is. */
  readonly revision?: number;
};
export type WatchRequest = { readonly key: string; readonly range_end: string; readonly start_revision: number };

/** That a key has this value; undefined: that it isn't there. */
export function compareValue(key: string, value: string | undefined): Compare {
  return value === undefined
    ? { key: bytes(key), target: "MOD", result: "EQUAL", mod_revision: 0 }
    : { key: bytes(key), target: "VALUE", result: "EQUAL", value: bytes(value) };
}

/** What comes right after every key with the prefix. The prefix ends in a slash. */
export const afterPrefix = (prefix: string): string => `${prefix.slice(0, -1)}0`;
