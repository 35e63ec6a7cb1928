/**
 * RESP, the protocol of Redis: versions 2 and 3 (redis.io/docs/latest/develop/reference/protocol-spec).
 *
 * A client sends commands. A command is an array of bulk strings, `*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`, or *inline*, a line of words
 * as a person types it. The server answers each in order, and in version 3 may push messages in between. Bulk strings are
 * counted bytes; here they are *byte strings*: one character, U+0000 to U+00FF, for each byte. Engines keep such strings at a
 * byte a character and slice them out of a buffer faster than they make views of it.
 *
 * What a socket brings is hostile: every length is bounded before anything is allocated for it, and a stream that breaks the
 * protocol is over, since nobody can tell where its next command begins.
 */
import { assert } from "../lib/assert.ts";
import { KIB, MIB } from "../lib/units.ts";

/** One command: its name and arguments, as byte strings. Never empty. */
export type RespCommand = readonly string[];

export interface RespLimits {
  /** Words of one command, its name included. */
  readonly wordsMax: number;
  /** Bytes of one word. */
  readonly wordBytesMax: number;
  /** Bytes of all words of one command. */
  readonly commandBytesMax: number;
}

/** For a client that has proven who it is. */
export const RESP_LIMITS: RespLimits = { wordsMax: 8192, wordBytesMax: 2 * MIB, commandBytesMax: 4 * MIB };
/** For one that has not: room for AUTH and HELLO, as in Redis. */
export const RESP_STRANGER_LIMITS: RespLimits = { wordsMax: 16, wordBytesMax: 16 * KIB, commandBytesMax: 32 * KIB };

/** A line: the head of an array or a bulk string. */
const HEAD_BYTES_MAX = 32;
/** An inline command, as in Redis. */
const INLINE_BYTES_MAX = 64 * KIB;

const CR = 13;
const LF = 10;
const ASTERISK = 42;
const DOLLAR = 36;
const MINUS = 45;
const DIGIT_0 = 48;

const NOTHING = Buffer.alloc(0);
const INCOMPLETE = -1;
const BROKEN = -2;

/**
 * Cuts a stream into commands, whatever pieces it comes in. It holds the bytes that are not taken yet and never looks at one
 * twice, so a large value that comes in small pieces costs no more than its bytes.
 */
export class CommandReader {
  limits: RespLimits;
  #bytes: Buffer = NOTHING;
  /** Whether `#bytes` was made here, with room to grow, and not by the socket. */
  #isOwn = false;
  #from = 0;
  #to = 0;
  /** Up to here no line feed has been found. */
  #searched = 0;
  /** Words of an array that are still to come; 0 between commands. */
  #missing = 0;
  /** Bytes of the word that is being read; -1 before its head. */
  #wordBytes = -1;
  #words: string[] = [];
  #commandBytes = 0;
  #error: string | undefined;

  constructor(limits: RespLimits) {
    this.limits = limits;
  }

  /** Why the stream is over: Redis's sentence, without its `ERR`. */
  get error(): string | undefined {
    return this.#error;
  }

  /** Bytes that are held: those of commands that were not taken yet. */
  get held(): number {
    return this.#to - this.#from;
  }

  /** Adds what the socket brought. The reader may keep `chunk`. */
  push(chunk: Buffer): void {
    if (this.#error !== undefined || chunk.length === 0) return;
    if (this.#from === this.#to) {
      this.#bytes = chunk;
      this.#isOwn = false;
      this.#from = 0;
      this.#to = chunk.length;
      this.#searched = 0;
      return;
    }
    const held = this.held;
    if (!this.#isOwn || this.#to + chunk.length > this.#bytes.length) {
      // Twice what is held: each byte is moved a constant number of times on average.
      const grown = Buffer.allocUnsafe(Math.max(4 * KIB, (held + chunk.length) * 2));
      this.#bytes.copy(grown, 0, this.#from, this.#to);
      this.#bytes = grown;
      this.#isOwn = true;
      this.#searched -= this.#from;
      this.#from = 0;
      this.#to = held;
    }
    chunk.copy(this.#bytes, this.#to);
    this.#to += chunk.length;
  }

  /** The next command that is here whole; undefined when there is none, or when the stream is over (`error`). */
  next(): RespCommand | undefined {
    while (this.#error === undefined) {
      if (this.#missing > 0) {
        if (!this.#readWord()) return undefined;
        if (this.#missing > 0) continue;
        const words = this.#words;
        this.#words = [];
        return words;
      }
      if (this.#from === this.#to) return undefined;
      if (this.#bytes[this.#from] !== ASTERISK) {
        const words = this.#readInline();
        if (words === undefined) return undefined;
        if (words.length > 0) return words;
        continue;
      }
      const count = this.#readHead("Protocol error: invalid multibulk length");
      if (count === INCOMPLETE || count === BROKEN) return undefined;
      if (count > this.limits.wordsMax) return this.#break("Protocol error: invalid multibulk length");
      this.#missing = count; // none, or "-1": nothing is asked
      this.#commandBytes = 0;
    }
    return undefined;
  }

  #break(message: string): undefined {
    this.#error = message;
    this.#bytes = NOTHING;
    this.#from = 0;
    this.#to = 0;
    this.#words = [];
    return undefined;
  }

  /** One bulk string. False when it is not here whole. */
  #readWord(): boolean {
    if (this.#wordBytes < 0) {
      if (this.#from === this.#to) return false;
      const kind = this.#bytes[this.#from]!;
      if (kind !== DOLLAR) {
        const shown = kind > 32 && kind < 127 ? String.fromCharCode(kind) : `\\x${kind.toString(16).padStart(2, "0")}`;
        this.#break(`Protocol error: expected '$', got '${shown}'`);
        return false;
      }
      const length = this.#readHead("Protocol error: invalid bulk length", false);
      if (length === INCOMPLETE || length === BROKEN) return false;
      this.#commandBytes += length;
      if (length > this.limits.wordBytesMax || this.#commandBytes > this.limits.commandBytesMax) {
        this.#break("Protocol error: invalid bulk length");
        return false;
      }
      this.#wordBytes = length;
    }
    const end = this.#from + this.#wordBytes;
    if (end + 2 > this.#to) return false;
    if (this.#bytes[end] !== CR || this.#bytes[end + 1] !== LF) {
      this.#break("Protocol error: a bulk string is longer than it says");
      return false;
    }
    this.#words.push(this.#bytes.toString("latin1", this.#from, end));
    this.#from = end + 2;
    this.#searched = this.#from;
    this.#wordBytes = -1;
    this.#missing--;
    return true;
  }

  /** The number of a head, `*3\r\n` or `$3\r\n`; `*-1` counts as 0. */
  #readHead(complaint: string, mayBeNegative = true): number {
    const bytes = this.#bytes;
    let at = this.#from + 1;
    const negative = mayBeNegative && at < this.#to && bytes[at] === MINUS;
    if (negative) at++;
    const first = at;
    let value = 0;
    for (; at < this.#to; at++) {
      const digit = bytes[at]! - DIGIT_0;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
      if (at - this.#from > HEAD_BYTES_MAX || value > 2 ** 31) return this.#brokenHead(complaint);
    }
    if (at + 1 >= this.#to) {
      return at < this.#to && (bytes[at] !== CR || at === first) ? this.#brokenHead(complaint) : INCOMPLETE;
    }
    if (at === first || bytes[at] !== CR || bytes[at + 1] !== LF) return this.#brokenHead(complaint);
    this.#from = at + 2;
    this.#searched = this.#from;
    return negative ? 0 : value;
  }

  #brokenHead(complaint: string): number {
    this.#break(complaint);
    return BROKEN;
  }

  /** The words of a line; none for an empty one, undefined when the line is not here whole. */
  #readInline(): string[] | undefined {
    const end = this.#bytes.subarray(0, this.#to).indexOf(LF, Math.max(this.#from, this.#searched));
    this.#searched = end < 0 ? this.#to : end;
    const length = this.#searched - this.#from;
    if (length > Math.min(INLINE_BYTES_MAX, this.limits.commandBytesMax)) {
      return this.#break("Protocol error: too big inline request");
    }
    if (end < 0) return undefined;
    const line = this.#bytes.toString(
      "latin1",
      this.#from,
      end > this.#from && this.#bytes[end - 1] === CR ? end - 1 : end,
    );
    this.#from = end + 1;
    this.#searched = this.#from;
    const words = splitInline(line);
    if (words === undefined) return this.#break("Protocol error: unbalanced quotes in request");
    if (words.length > this.limits.wordsMax) return this.#break("Protocol error: too big inline request");
    return words;
  }
}

const ESCAPES: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", b: "\b", a: "\u0007" };

/**
 * Words of an inline command: apart by white space; in double quotes `\n \r \t \b \a \xHH \" \\` stand for a byte, in single
 * quotes only `\'` does. Undefined when a quote is not closed, or something follows one directly.
 */
export function splitInline(line: string): string[] | undefined {
  const words: string[] = [];
  let at = 0;
  for (;;) {
    while (at < line.length && isSpace(line, at)) at++;
    if (at >= line.length) return words;
    let word = "";
    while (at < line.length && !isSpace(line, at)) {
      const quote = line[at]!;
      if (quote !== '"' && quote !== "'") {
        word += quote;
        at++;
        continue;
      }
      at++;
      while (line[at] !== quote) {
        if (at >= line.length) return undefined;
        if (line[at] !== "\\") word += line[at++];
        else if (quote === "'") {
          word += line[at + 1] === "'" ? "'" : "\\";
          at += line[at + 1] === "'" ? 2 : 1;
        } else {
          const hex = /^x[0-9a-fA-F]{2}/.exec(line.slice(at + 1, at + 4))?.[0];
          const next = line[at + 1] ?? "";
          word += hex ? String.fromCharCode(Number.parseInt(hex.slice(1), 16)) : (ESCAPES[next] ?? next);
          at += 1 + (hex?.length ?? 1);
        }
      }
      at++;
      if (at < line.length && !isSpace(line, at)) return undefined;
    }
    words.push(word);
  }
}

const isSpace = (line: string, at: number): boolean => {
  const code = line.charCodeAt(at);
  return code === 32 || (code >= 9 && code <= 13) || code === 0;
};

/** An answer, before it is known in which version it is written. A string is a bulk string of text, bytes are a bulk string. */
export type Reply =
  | string
  | number
  | bigint
  | null
  | Uint8Array
  | readonly Reply[]
  | SimpleReply
  | ErrorReply
  | MapReply
  | MessageReply;
/** A line: `OK`, `QUEUED`. */
export type SimpleReply = { readonly simple: string };
/** A line that begins with a code in capitals: `ERR no such key`. */
export type ErrorReply = { readonly error: string };
/** In version 2 an array of names and values. */
export type MapReply = { readonly pairs: readonly (readonly [Reply, Reply])[] };

/** A message that answers no command: a kind of its own in version 3, an array in version 2. Never within another reply. */
export type MessageReply = { readonly message: readonly Reply[] };

export type RespVersion = 2 | 3;

export const OK: SimpleReply = { simple: "OK" };
export const errorReply = (error: string): ErrorReply => ({ error });
export const isErrorReply = (reply: Reply): reply is ErrorReply =>
  typeof reply === "object" && reply !== null && "error" in reply;

/** Writes replies one after another into bytes. */
export class ReplyWriter {
  #bytes: Buffer;
  #length = 0;
  readonly #keptBytes: number;

  /** @param keptBytes what it holds on to after a larger reply was taken */
  constructor(keptBytes = 64 * KIB) {
    this.#keptBytes = keptBytes;
    this.#bytes = Buffer.allocUnsafe(keptBytes);
  }

  get length(): number {
    return this.#length;
  }

  /** What was written, valid until the next `write`; the writer is empty then. */
  take(): Buffer {
    const taken = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    if (this.#bytes.length > this.#keptBytes * 4) this.#bytes = Buffer.allocUnsafe(this.#keptBytes);
    return taken;
  }

  write(reply: Reply, version: RespVersion): void {
    if (typeof reply === "string") this.#bulkText(reply);
    else if (reply === null) this.#line(version === 3 ? "_" : "$-1", "");
    else if (typeof reply !== "object") this.#line(":", String(reply));
    else if (reply instanceof Uint8Array) this.#bulkBytes(reply);
    else if ("simple" in reply) this.#line("+", reply.simple);
    else if ("error" in reply) this.#line("-", reply.error.replace(/[\r\n]+/g, " "));
    else if ("pairs" in reply) {
      const { pairs } = reply;
      if (version === 3) this.#line("%", String(pairs.length));
      else this.#line("*", String(pairs.length * 2));
      for (const pair of pairs) for (const part of pair) this.write(part, version);
    } else if ("message" in reply) this.#elements(version === 3 ? ">" : "*", reply.message, version);
    else this.#elements("*", reply, version);
  }

  #elements(kind: string, elements: readonly Reply[], version: RespVersion): void {
    this.#line(kind, String(elements.length));
    for (const element of elements) this.write(element, version);
  }

  #line(kind: string, text: string): void {
    // Text may be a client's own words: at most three bytes a code unit.
    this.#reserve(kind.length + text.length * 3 + 2);
    this.#length += this.#bytes.write(kind, this.#length, "latin1");
    this.#length += this.#bytes.write(text, this.#length, "utf8");
    this.#lineEnd();
  }

  #bulkText(text: string): void {
    const length = Buffer.byteLength(text);
    this.#line("$", String(length));
    this.#reserve(length + 2);
    this.#length += this.#bytes.write(text, this.#length, length, "utf8");
    this.#lineEnd();
  }

  #bulkBytes(bytes: Uint8Array): void {
    this.#line("$", String(bytes.length));
    this.#reserve(bytes.length + 2);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    this.#lineEnd();
  }

  #lineEnd(): void {
    this.#bytes[this.#length++] = CR;
    this.#bytes[this.#length++] = LF;
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2));
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
    assert(this.#bytes.length >= needed, "the buffer has room");
  }
}

/** About how many bytes a reply takes, to bound it before it is written. */
export function replyBytes(reply: Reply): number {
  if (typeof reply === "string") return reply.length + 16;
  if (reply === null || typeof reply !== "object") return 24;
  if (reply instanceof Uint8Array) return reply.length + 16;
  if ("simple" in reply) return reply.simple.length + 3;
  if ("error" in reply) return reply.error.length + 3;
  if ("message" in reply) return replyBytes(reply.message);
  if ("pairs" in reply)
    return reply.pairs.reduce((sum, [name, value]) => sum + replyBytes(name) + replyBytes(value), 16);
  return reply.reduce<number>((sum, element) => sum + replyBytes(element), 16);
}
