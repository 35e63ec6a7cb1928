/**
 * What Redis's data commands do to settings, as pure functions of a draft. A command is parsed into an *operation* first,
 * so that it can wait in a MULTI or run in one transaction with others of a pipeline.
 */

import type { SettingRecord, StoredValue } from "../../model/settings.ts";
import type { Reader } from "../../model/store.ts";
import { type ErrorReply, errorReply, OK, type Reply, type RespCommand } from "../../protocol/resp.ts";
import { countSettings, currentSetting, settingsIn } from "../current.ts";
import type { Draft, Expiry, Refusal } from "../draft.ts";
import { TTL_MS_MAX } from "../settings.ts";
import { contentOf, textOf, valueOfBytes } from "../stored-value.ts";
import { type CommandSpec, type CommandTable, NO_KEYS } from "./command-table.ts";
import { compileGlob, literalPrefix, PATTERN_CHARS_MAX } from "./glob.ts";
import type { ScanCursors } from "./scan-cursors.ts";

export interface Operation {
  /** Keys that it may write; undefined for one that only reads. */
  readonly writes?: readonly string[];
  /** It looks at the whole table, and not at a draft's changes to it: it does not join others. */
  readonly alone?: true;
  /** Its answer may have REPLY_BYTES_MAX: it joins others in a MULTI only, which bounds them all. */
  readonly isLarge?: true;
  /** The leases that it needs, as far as this state tells. */
  ttls?(state: Reader): readonly number[];
  run(draft: Draft): Reply;
}

export interface ParseContext {
  /** Milliseconds since the epoch. */
  readonly now: number;
  readonly cursors: ScanCursors;
}

export interface DataCommand extends CommandSpec {
  parse(words: RespCommand, context: ParseContext): Operation | ErrorReply;
}

export const SYNTAX_ERROR = errorReply("ERR syntax error");
const NOT_AN_INTEGER = errorReply("ERR value is not an integer or out of range");
export const wrongArity = (name: string): ErrorReply =>
  errorReply(`ERR wrong number of arguments for '${name.toLowerCase()}' command`);
const invalidExpiry = (name: string): ErrorReply =>
  errorReply(`ERR invalid expire time in '${name.toLowerCase()}' command`);
const refused = ({ kind, message }: Refusal): ErrorReply => errorReply(`${kind === "full" ? "OOM" : "ERR"} ${message}`);

/** Bytes of values in one reply: what a client may make the daemon hold at one time. */
export const REPLY_BYTES_MAX = 16 * 1024 * 1024;
const TOO_LONG_REPLY = errorReply(
  `ERR the reply would be larger than ${REPLY_BYTES_MAX} bytes; ask for less at a time`,
);
/** KEYS answers at once, so only what does not stop the daemon for long. */
export const KEYS_MAX = 10_000;
const SCAN_COUNT_MAX = 1000;

const content = (setting: SettingRecord | undefined): Reply => (setting ? contentOf(setting) : null);

/** A command that reads what is under its keys. */
const reading = (
  arity: number,
  keys: CommandSpec["keys"],
  run: (draft: Draft, words: RespCommand) => Reply,
): DataCommand => ({
  arity,
  flags: ["readonly", "fast"],
  keys,
  parse: (words) => ({ run: (draft) => run(draft, words) }),
});

const writing = (
  arity: number,
  keys: CommandSpec["keys"],
  parse: (words: RespCommand, context: ParseContext) => Operation | ErrorReply,
): DataCommand => ({ arity, flags: ["write", "denyoom", "fast"], keys, parse });

const ONE_KEY = [1, 1, 1] as const;
const ALL_KEYS = [1, -1, 1] as const;

const commands: Readonly<Record<string, DataCommand>> = {
  GET: reading(2, ONE_KEY, (draft, words) => content(draft.get(words[1]!))),
  STRLEN: reading(2, ONE_KEY, (draft, words) => {
    const setting = draft.get(words[1]!);
    if (!setting) return 0;
    const value = contentOf(setting);
    return typeof value === "string" ? Buffer.byteLength(value) : value.length;
  }),
  EXISTS: reading(-2, ALL_KEYS, (draft, words) => words.slice(1).filter((key) => draft.get(key)).length),
  TYPE: reading(2, ONE_KEY, (draft, words) => ({ simple: draft.get(words[1]!) ? "string" : "none" })),
  TTL: reading(2, ONE_KEY, (draft, words) => remaining(draft, words[1]!, 1000)),
  PTTL: reading(2, ONE_KEY, (draft, words) => remaining(draft, words[1]!, 1)),
  MGET: { arity: -2, flags: ["readonly", "fast"], keys: ALL_KEYS, parse: parseMget },

  SET: writing(-3, ONE_KEY, parseSet),
  SETNX: writing(3, ONE_KEY, ([, key, bytes]) =>
    setting({ key: key!, bytes: bytes!, onlyIf: "absent", answer: (written) => (written ? 1 : 0) }),
  ),
  SETEX: writing(4, ONE_KEY, ([, key, ttl, bytes]) => settingFor("SETEX", key!, ttl!, 1000, bytes!)),
  PSETEX: writing(4, ONE_KEY, ([, key, ttl, bytes]) => settingFor("PSETEX", key!, ttl!, 1, bytes!)),
  GETSET: writing(3, ONE_KEY, ([, key, bytes]) =>
    setting({ key: key!, bytes: bytes!, answer: (_, before) => content(before) }),
  ),
  GETDEL: writing(2, ONE_KEY, ([, key]) => ({ writes: [key!], run: (draft) => content(draft.delete(key!)) })),
  MSET: writing(-3, [1, -1, 2], parseMset),
  DEL: writing(-2, ALL_KEYS, deleting),
  UNLINK: writing(-2, ALL_KEYS, deleting),
  INCR: writing(2, ONE_KEY, ([, key]) => adding(key!, 1n)),
  DECR: writing(2, ONE_KEY, ([, key]) => adding(key!, -1n)),
  INCRBY: writing(3, ONE_KEY, ([, key, by]) => addingText(key!, by!, 1n)),
  DECRBY: writing(3, ONE_KEY, ([, key, by]) => addingText(key!, by!, -1n)),
  EXPIRE: writing(3, ONE_KEY, ([name, key, ttl]) => expiring(name!, key!, ttl!, 1000)),
  PEXPIRE: writing(3, ONE_KEY, ([name, key, ttl]) => expiring(name!, key!, ttl!, 1)),
  PERSIST: writing(2, ONE_KEY, ([, key]) => ({
    writes: [key!],
    run: (draft) => {
      const done = draft.expire(key!, "never");
      return done.ok ? Number(done.value) : refused(done.error);
    },
  })),

  DBSIZE: {
    arity: 1,
    flags: ["readonly", "fast"],
    keys: NO_KEYS,
    parse: () => ({ alone: true, run: (draft) => countSettings(draft.state) }),
  },
  KEYS: { arity: 2, flags: ["readonly", "sort_for_script"], keys: NO_KEYS, parse: parseKeys },
  SCAN: { arity: -2, flags: ["readonly"], keys: NO_KEYS, parse: parseScan },
};

export const DATA_COMMANDS: CommandTable<DataCommand> = new Map(Object.entries(commands));

type SetOptions = {
  readonly key: string;
  readonly bytes: string;
  readonly expiry?: Expiry;
  /** `equal`: only where the value is this, Redis 8.4's IFEQ. */
  readonly onlyIf?: "absent" | "present" | { readonly equal: string };
  answer(written: boolean, before: SettingRecord | undefined): Reply;
};

const plainAnswer = (written: boolean): Reply => (written ? OK : null);

/** The one way to write a value. */
function setting({ key, bytes, expiry = "never", onlyIf, answer }: SetOptions): Operation | ErrorReply {
  const value = valueOfBytes(bytes);
  if (!value.ok) return errorReply(`ERR ${value.error}`);
  const allowed = (before: SettingRecord | undefined): boolean => {
    if (onlyIf === undefined) return true;
    if (onlyIf === "absent") return before === undefined;
    if (onlyIf === "present") return before !== undefined;
    return before !== undefined && sameBytes(before, onlyIf.equal);
  };
  // An answer that needs what was there before, or a condition, looks; most writes do not.
  const looks = onlyIf !== undefined || answer !== plainAnswer;
  const run = (draft: Draft): Reply => {
    const before = looks ? draft.get(key) : undefined;
    if (!allowed(before)) return answer(false, before);
    const done = draft.set(key, value.value, expiry);
    return done.ok ? answer(true, before) : refused(done.error);
  };
  if (typeof expiry === "string") return { writes: [key], run };
  return { writes: [key], run, ttls: (state) => (allowed(currentSetting(state, key)) ? [expiry.ttlMs] : []) };
}

function sameBytes(stored: StoredValue, bytes: string): boolean {
  const value = contentOf(stored);
  return Buffer.from(bytes, "latin1").equals(typeof value === "string" ? Buffer.from(value) : value);
}

function parseSet(words: RespCommand, { now }: ParseContext): Operation | ErrorReply {
  if (words.length === 3) return setting({ key: words[1]!, bytes: words[2]!, answer: plainAnswer });
  let expiry: Expiry | undefined;
  let onlyIf: SetOptions["onlyIf"];
  let getsBefore = false;
  for (let at = 3; at < words.length; at++) {
    const option = words[at]!.toUpperCase();
    const once = option === "NX" || option === "XX" || option === "IFEQ" ? onlyIf === undefined : true;
    if (!once) return SYNTAX_ERROR;
    if (option === "NX") onlyIf = "absent";
    else if (option === "XX") onlyIf = "present";
    else if (option === "GET") getsBefore = true;
    else if (option === "IFEQ") {
      const equal = words[++at];
      if (equal === undefined) return SYNTAX_ERROR;
      onlyIf = { equal };
    } else if (option === "KEEPTTL" || option in EXPIRY_UNITS) {
      if (expiry !== undefined) return SYNTAX_ERROR;
      if (option === "KEEPTTL") expiry = "as before";
      else {
        const text = words[++at];
        if (text === undefined) return SYNTAX_ERROR;
        const ttlMs = ttlOf("SET", text, EXPIRY_UNITS[option]!, option.endsWith("AT") ? now : 0);
        if (typeof ttlMs !== "number") return ttlMs;
        expiry = { ttlMs };
      }
    } else return SYNTAX_ERROR;
  }
  return setting({
    key: words[1]!,
    bytes: words[2]!,
    ...(expiry && { expiry }),
    ...(onlyIf && { onlyIf }),
    answer: getsBefore ? (_, before) => content(before) : plainAnswer,
  });
}

const EXPIRY_UNITS: Readonly<Record<string, number>> = { EX: 1000, PX: 1, EXAT: 1000, PXAT: 1 };

/** A time to live in milliseconds, from a count of `unitMs` after `since`. */
function ttlOf(name: string, text: string, unitMs: number, since = 0): number | ErrorReply {
  const count = integerIn(text);
  if (count === undefined) return NOT_AN_INTEGER;
  const ttlMs = count * BigInt(unitMs) - BigInt(since);
  return ttlMs > 0n && ttlMs <= BigInt(TTL_MS_MAX) ? Number(ttlMs) : invalidExpiry(name);
}

function settingFor(name: string, key: string, ttl: string, unitMs: number, bytes: string): Operation | ErrorReply {
  const ttlMs = ttlOf(name, ttl, unitMs);
  return typeof ttlMs === "number" ? setting({ key, bytes, expiry: { ttlMs }, answer: plainAnswer }) : ttlMs;
}

function parseMget(words: RespCommand): Operation {
  return {
    isLarge: true,
    run: (draft) => {
      const found = words.slice(1).map((key) => draft.get(key));
      const bytes = found.reduce((sum, setting) => sum + (setting?.value.length ?? 0), 0);
      return bytes > REPLY_BYTES_MAX ? TOO_LONG_REPLY : found.map(content);
    },
  };
}

function parseMset(words: RespCommand): Operation | ErrorReply {
  if (words.length % 2 === 0) return wrongArity("mset");
  const pairs: [string, StoredValue][] = [];
  for (let at = 1; at < words.length; at += 2) {
    const value = valueOfBytes(words[at + 1]!);
    if (!value.ok) return errorReply(`ERR ${value.error}`);
    pairs.push([words[at]!, value.value]);
  }
  return {
    writes: pairs.map(([key]) => key),
    run: (draft) => {
      // All or none: first it is asked whether any would be refused.
      for (const [key, value] of pairs) {
        const unfit = draft.refusalOf(key, value);
        if (unfit) return refused(unfit);
      }
      for (const [key, value] of pairs) draft.set(key, value);
      return OK;
    },
  };
}

function deleting(words: RespCommand): Operation {
  const keys = words.slice(1);
  return { writes: keys, run: (draft) => keys.filter((key) => draft.delete(key)).length };
}

/** A whole number in 64 bits with a sign, written the one way that Redis takes: no plus, no leading zeros, no spaces. */
function integerIn(text: string): bigint | undefined {
  if (!/^(0|-?[1-9]\d{0,18})$/.test(text)) return undefined;
  const value = BigInt(text);
  return BigInt.asIntN(64, value) === value ? value : undefined;
}

function addingText(key: string, text: string, sign: 1n | -1n): Operation | ErrorReply {
  const by = integerIn(text);
  return by === undefined ? NOT_AN_INTEGER : adding(key, by * sign);
}

function adding(key: string, by: bigint): Operation {
  return {
    writes: [key],
    run: (draft) => {
      const before = draft.get(key);
      const value = before ? integerIn(textOf(before) ?? "") : 0n;
      if (value === undefined) return NOT_AN_INTEGER;
      const sum = value + by;
      if (BigInt.asIntN(64, sum) !== sum) return errorReply("ERR increment or decrement would overflow");
      const done = draft.set(key, { value: String(sum) }, "as before");
      return done.ok ? sum : refused(done.error);
    },
  };
}

function expiring(name: string, key: string, text: string, unitMs: number): Operation | ErrorReply {
  const count = integerIn(text);
  if (count === undefined) return NOT_AN_INTEGER;
  // What is to end in the past ends now.
  if (count <= 0n) return { writes: [key], run: (draft) => (draft.delete(key) ? 1 : 0) };
  const ttlMs = ttlOf(name, text, unitMs);
  if (typeof ttlMs !== "number") return ttlMs;
  return {
    writes: [key],
    ttls: (state) => (currentSetting(state, key) ? [ttlMs] : []),
    run: (draft) => {
      const done = draft.expire(key, { ttlMs });
      return done.ok ? Number(done.value) : refused(done.error);
    },
  };
}

/** TTL and PTTL: -2 without a key, -1 without an end. */
function remaining(draft: Draft, key: string, unitMs: number): number {
  const found = draft.get(key);
  if (!found) return -2;
  return found.expires ? Math.round(Math.max(0, found.expires.at - draft.now) / unitMs) : -1;
}

export const PATTERN_TOO_LONG = errorReply(`ERR a pattern has at most ${PATTERN_CHARS_MAX} characters`);

function parseKeys([, pattern]: RespCommand): Operation | ErrorReply {
  if (pattern!.length > PATTERN_CHARS_MAX) return PATTERN_TOO_LONG;
  const matches = compileGlob(pattern!);
  return {
    alone: true,
    run: ({ state }) => {
      const found = settingsIn(state, { prefix: literalPrefix(pattern!), limit: KEYS_MAX + 1 });
      if (found.length > KEYS_MAX) return errorReply(`ERR KEYS would look at more than ${KEYS_MAX} keys; use SCAN`);
      return found.map(({ key }) => key).filter(matches);
    },
  };
}

function parseScan(words: RespCommand, { cursors }: ParseContext): Operation | ErrorReply {
  const cursor = words[1]!;
  if (!/^\d{1,20}$/.test(cursor)) return errorReply("ERR invalid cursor");
  let pattern = "*";
  let count = 10;
  let isString = true;
  for (let at = 2; at < words.length; at += 2) {
    const value = words[at + 1];
    if (value === undefined) return SYNTAX_ERROR;
    switch (words[at]!.toUpperCase()) {
      case "MATCH":
        pattern = value;
        break;
      case "COUNT": {
        const wanted = integerIn(value);
        if (wanted === undefined) return NOT_AN_INTEGER;
        if (wanted < 1n) return SYNTAX_ERROR;
        count = wanted > SCAN_COUNT_MAX ? SCAN_COUNT_MAX : Number(wanted);
        break;
      }
      case "TYPE":
        isString = value.toLowerCase() === "string";
        break;
      default:
        return SYNTAX_ERROR;
    }
  }
  const after = /^0+$/.test(cursor) ? undefined : cursors.keyOf(cursor);
  if (after === undefined && !/^0+$/.test(cursor)) {
    return errorReply("ERR invalid cursor: this node did not hand it out, or too long ago; begin anew with 0");
  }
  if (pattern.length > PATTERN_CHARS_MAX) return PATTERN_TOO_LONG;
  const matches = compileGlob(pattern);
  const prefix = literalPrefix(pattern);
  return {
    alone: true,
    run: ({ state }) => {
      const page = settingsIn(state, { prefix, limit: count, ...(after !== undefined && { after }) });
      const next = page.length < count ? "0" : cursors.after(page.at(-1)!.key);
      return [next, isString ? page.map(({ key }) => key).filter(matches) : []];
    },
  };
}

export const isOperation = (parsed: Operation | ErrorReply): parsed is Operation => "run" in parsed;
