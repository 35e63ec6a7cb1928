import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  CommandReader,
  OK,
  RESP_LIMITS,
  RESP_STRANGER_LIMITS,
  type Reply,
  ReplyWriter,
  type RespVersion,
  replyBytes,
  splitInline,
} from "./resp.ts";

const bytes = (text: string) => Buffer.from(text, "latin1");

/** Everything that a reader takes out of a stream which comes in these pieces. */
function read(pieces: readonly Buffer[], limits = RESP_LIMITS) {
  const reader = new CommandReader(limits);
  const commands: (readonly string[])[] = [];
  const drain = () => {
    for (let command = reader.next(); command; command = reader.next()) commands.push(command);
  };
  for (const piece of pieces) {
    reader.push(piece);
    drain();
  }
  return { commands, error: reader.error, held: reader.held };
}

/** Cuts bytes at the given places. */
function cut(all: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((place) => place % (all.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((from, i) => Buffer.from(all.subarray(from, at[i] ?? all.length)));
}

const encode = (command: readonly string[]) =>
  `*${command.length}\r\n${command.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;

const word = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array).toString("latin1"));
const commands = fc.array(fc.array(word, { minLength: 1, maxLength: 6 }), { maxLength: 8 });
const places = fc.array(fc.nat(4096), { maxLength: 40 });

describe("reading commands", () => {
  test("whatever bytes the words have and wherever the stream is cut, the same commands come out", () =>
    fc.assert(
      fc.property(commands, places, (sent, at) => {
        const all = bytes(sent.map(encode).join(""));
        expect(read(cut(all, at))).toEqual({ commands: sent, error: undefined, held: 0 });
      }),
    ));

  test("byte by byte, a stream of arrays and lines says the same as whole", () => {
    const all = bytes("PING\r\n*1\r\n$4\r\nPING\r\n\r\n*0\r\n*-1\r\nset k 'a b'\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n");
    const whole = read([all]);
    expect(whole.commands).toEqual([["PING"], ["PING"], ["set", "k", "a b"], ["GET", ""]]);
    expect(read(Array.from(all, (byte) => Buffer.from([byte])))).toEqual(whole);
  });

  test("no garbage throws, and what comes out does not depend on where it is cut", () => {
    const garbage = fc.oneof(
      fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array).toString("latin1")),
      fc
        .array(fc.constantFrom("*", "$", "-1", "3", "\r\n", "\r", "\n", " ", '"', "'", "GET", "99999999999", "\0", "é"))
        .map((parts) => parts.join("")),
    );
    fc.assert(
      fc.property(garbage, places, (text, at) => {
        const whole = read([bytes(text)]);
        const pieces = read(cut(bytes(text), at));
        expect([pieces.commands, pieces.error]).toEqual([whole.commands, whole.error]);
      }),
      { numRuns: 500 },
    );
  });

  const large = "x".repeat(2_000_000);
  const broken: [string, string][] = [
    ["invalid multibulk length", "*x\r\n"],
    ["invalid multibulk length", "*\r\n"],
    ["invalid multibulk length", "*8193\r\n"],
    ["invalid multibulk length", "*99999999999999999999\r\n"],
    ["invalid multibulk length", "*1\n$4\r\nPING\r\n"],
    ["expected '$', got 'P'", "*1\r\nPING\r\n"],
    ["expected '$', got '\\x01'", "*1\r\n\x01"],
    ["invalid bulk length", "*1\r\n$-1\r\n"],
    ["invalid bulk length", "*1\r\n$2097153\r\n"],
    ["invalid bulk length", `*3\r\n$2000000\r\n${large}\r\n$2000000\r\n${large}\r\n$2000000\r\n`],
    ["a bulk string is longer than it says", "*1\r\n$4\r\nPINGS\r\n"],
    ["unbalanced quotes", 'set "k v\r\n'],
    ["too big inline request", "x".repeat(70_000)],
    ["too big inline request", `${"x ".repeat(9000)}\r\n`],
  ];
  test.each(broken)("a stream that breaks the protocol is over: %s", (complaint, text) => {
    const { commands: taken, error, held } = read([bytes(text), bytes("*1\r\n$4\r\nPING\r\n")]);
    expect(taken).toEqual([]);
    expect(error).toContain(complaint);
    expect(error).toStartWith("Protocol error: ");
    expect(held).toBe(0);
  });

  test("a stranger may say only so much", () => {
    expect(read([bytes("*17\r\n")], RESP_STRANGER_LIMITS).error).toContain("multibulk");
    expect(read([bytes("*1\r\n$16385\r\n")], RESP_STRANGER_LIMITS).error).toContain("bulk");
    expect(read([bytes("x".repeat(40_000))], RESP_STRANGER_LIMITS).error).toContain("inline");
  });

  test("limits that were raised between two commands hold from the next one on", () => {
    const reader = new CommandReader(RESP_STRANGER_LIMITS);
    const large = encode(["SET", "k", "v".repeat(20_000)]);
    reader.push(bytes(encode(["AUTH", "p"]) + large));
    expect(reader.next()).toEqual(["AUTH", "p"]);
    reader.limits = RESP_LIMITS;
    expect(reader.next()?.[2]?.length).toBe(20_000);
  });

  test("a large value that comes in tiny pieces is put together once, and not anew with each", () => {
    const value = "v".repeat(RESP_LIMITS.wordBytesMax);
    const all = bytes(encode(["SET", "k", value]));
    const pieces = Array.from({ length: Math.ceil(all.length / 8) }, (_, i) => all.subarray(i * 8, i * 8 + 8));
    // A quarter of a million pieces: copying what was there for each would be 250 GB, and take minutes.
    expect(read(pieces).commands[0]?.[2] === value).toBe(true);
  });
});

test.each<[string, string[] | undefined]>([
  ["  set  k\tv ", ["set", "k", "v"]],
  [`set k "a b\\n\\x41\\"\\q"`, ["set", "k", 'a b\nA"q']],
  ["set k 'it\\'s \\n'", ["set", "k", "it's \\n"]],
  ['""', [""]],
  ["", []],
  ['"a"b', undefined],
  ["'a", undefined],
  ['"a\\', undefined],
])("the words of %j", (line, words) => {
  expect(splitInline(line)).toEqual(words as string[]);
});

describe("writing replies", () => {
  const written = (reply: Reply, version: RespVersion) => {
    const writer = new ReplyWriter(8);
    writer.write(reply, version);
    return writer.take().toString("latin1");
  };
  const table: [string, Reply, string, string?][] = [
    ["a line", OK, "+OK\r\n"],
    ["an error", { error: "ERR no\r\n+OK" }, "-ERR no +OK\r\n"],
    ["a number", -3, ":-3\r\n"],
    ["a large number", 2n ** 62n, ":4611686018427387904\r\n"],
    ["text", "a", "$1\r\na\r\n"],
    ["text beyond ASCII", "é", "$2\r\n\xc3\xa9\r\n"],
    ["no text", "", "$0\r\n\r\n"],
    ["bytes", new Uint8Array([0, 255]), "$2\r\n\0\xff\r\n"],
    ["nothing", null, "$-1\r\n", "_\r\n"],
    ["a list", ["a", [1, null]], "*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n", "*2\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n"],
    ["an empty list", [], "*0\r\n"],
    ["a map", { pairs: [["a", 1]] }, "*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n$1\r\na\r\n:1\r\n"],
  ];
  test.each(table)("%s", (_, reply, version2, version3 = version2) => {
    expect(written(reply, 2)).toBe(version2);
    expect(written(reply, 3)).toBe(version3);
  });

  test("a push is a kind of its own in version 3, and an array in version 2", () => {
    const writer = new ReplyWriter();
    writer.write({ message: ["message", 1] }, 3);
    writer.write({ message: ["message", 1] }, 2);
    expect(writer.take().toString()).toBe(">2\r\n$7\r\nmessage\r\n:1\r\n*2\r\n$7\r\nmessage\r\n:1\r\n");
  });

  test("replies follow one another, and a taken writer is empty", () => {
    const writer = new ReplyWriter(4);
    for (const reply of [OK, "x".repeat(100), 1]) writer.write(reply, 2);
    expect(writer.take().toString()).toBe(`+OK\r\n$100\r\n${"x".repeat(100)}\r\n:1\r\n`);
    expect(writer.length).toBe(0);
    writer.write(2, 2);
    expect(writer.take().toString()).toBe(":2\r\n");
  });

  test("what a reply takes is about what was foretold", () => {
    for (const [, reply] of table) {
      const foretold = replyBytes(reply);
      expect(Math.abs(foretold - written(reply, 2).length)).toBeLessThan(100);
    }
  });
});
