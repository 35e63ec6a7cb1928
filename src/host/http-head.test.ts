import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { BODY_BYTES_MAX, HEAD_BYTES_MAX, keepsAlive, readRequest } from "./http-head.ts";

const read = (text: string) => readRequest(Buffer.from(text, "latin1"));

describe("a request", () => {
  test("is read whole, with names in lower case and values trimmed", () => {
    const text = "GET /latest/?a=b HTTP/1.1\r\nHost: x\r\nX-Token:  abc \r\nX-Token: d\r\n\r\n";
    const step = read(text);
    expect(step).toMatchObject({ kind: "request", consumed: text.length });
    if (step.kind !== "request") return;
    expect(step.head).toMatchObject({ method: "GET", target: "/latest/?a=b", version: "1.1" });
    expect([...step.head.headers]).toEqual([
      ["host", "x"],
      ["x-token", "abc, d"],
    ]);
  });

  const lenient: [string, string][] = [
    ["bare line feeds", "GET / HTTP/1.0\nHost: x\n\n"],
    ["an empty line before it", "\r\n\r\nGET / HTTP/1.1\r\n\r\n"],
    ["no headers", "GET / HTTP/1.0\r\n\r\n"],
    ["an absolute target", "GET http://169.254.169.254 HTTP/1.1\r\n\r\n"],
    ["a body that is skipped", "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"],
  ];
  test.each(lenient)("may have %s", (_, text) => {
    expect(read(text)).toMatchObject({ kind: "request", head: { target: "/" }, consumed: text.length });
  });

  const refused: [string, string, number][] = [
    ["no version", "GET /\r\n\r\n", 400],
    ["another version", "GET / HTTP/2.0\r\n\r\n", 400],
    ["a space in its target", "GET /a b HTTP/1.1\r\n\r\n", 400],
    ["a relative target", "GET latest HTTP/1.1\r\n\r\n", 400],
    ["bytes beyond ASCII in its target", "GET /\xff HTTP/1.1\r\n\r\n", 400],
    ["a header without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", 400],
    ["a folded header", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400],
    ["a space before a header's colon", "GET / HTTP/1.1\r\nA : b\r\n\r\n", 400],
    ["NUL in a header", "GET / HTTP/1.1\r\nA: \0\r\n\r\n", 400],
    ["two lengths", "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400],
    ["a negative length", "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400],
    ["a long body", `PUT / HTTP/1.1\r\nContent-Length: ${BODY_BYTES_MAX + 1}\r\n\r\n`, 413],
    ["chunks", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501],
    ["a long head", `GET / HTTP/1.1\r\nA: ${"a".repeat(HEAD_BYTES_MAX)}`, 431],
    ["a long head that ends", `GET / HTTP/1.1\r\nA: ${"a".repeat(HEAD_BYTES_MAX)}\r\n\r\n`, 431],
    ["too many headers", `GET / HTTP/1.1\r\n${"A: b\r\n".repeat(101)}\r\n`, 400],
  ];
  test.each(refused)("with %s is refused", (_, text, status) => {
    expect(read(text)).toEqual({ kind: "refused", status } as never);
  });

  test("is incomplete until its last byte is there, however it is cut", () => {
    const text = "PUT /latest/api/token HTTP/1.1\r\nContent-Length: 2\r\n\r\nxy";
    for (let length = 0; length < text.length; length++) expect(read(text.slice(0, length)).kind).toBe("incomplete");
    expect(read(`${text}GET`)).toMatchObject({ kind: "request", consumed: text.length });
  });

  test("of any bytes never throws, and what is read is inside the bytes", () => {
    const pieces = fc.constantFrom(
      "GET",
      " ",
      "/",
      "HTTP/1.1",
      "\r",
      "\n",
      "\r\n\r\n",
      ":",
      "a",
      "Content-Length",
      "5",
      "\0",
      "\xff",
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 40 }), (parts) => {
        const text = parts.join("");
        const step = read(text);
        if (step.kind === "request") expect(step.consumed).toBeLessThanOrEqual(text.length);
      }),
    );
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void readRequest(bytes)));
  });
});

test("a connection stays open by the version's default, or by what the client says", () => {
  const keeps = (line: string) => {
    const step = read(`GET / HTTP/${line}\r\n\r\n`);
    return step.kind === "request" && keepsAlive(step.head);
  };
  expect(keeps("1.1")).toBe(true);
  expect(keeps("1.1\r\nConnection: Close")).toBe(false);
  expect(keeps("1.0")).toBe(false);
  expect(keeps("1.0\r\nConnection: keep-alive")).toBe(true);
});
