import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { VALUE_STORED_BYTES_MAX } from "../model/settings.ts";
import { contentOf, textOf, valueOfBase64, valueOfBytes, valueOfText } from "./stored-value.ts";

const bytesOf = (stored: ReturnType<typeof valueOfBytes>): string => {
  if (!stored.ok) throw new Error(stored.error);
  const content = contentOf(stored.value);
  return Buffer.from(content as string).toString("latin1");
};

test("whatever the bytes, they come back as they were", () =>
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (array) => {
      const bytes = Buffer.from(array).toString("latin1");
      expect(bytesOf(valueOfBytes(bytes))).toBe(bytes);
      expect(bytesOf(valueOfBase64(Buffer.from(array).toString("base64")))).toBe(bytes);
    }),
  ));

test("whatever the text, it is stored as text, and the same as its UTF-8", () =>
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 100 }), (text) => {
      const stored = valueOfText(text);
      expect(stored).toEqual({ ok: true, value: { value: text } });
      expect(valueOfBytes(Buffer.from(text).toString("latin1"))).toEqual(stored);
    }),
  ));

describe("the largest value", () => {
  const KIB = 1024;
  test.each<[string, string, boolean]>([
    ["plain text of 1019 KiB fits", "x".repeat(1019 * KIB), true],
    ["plain text of a mebibyte does not", "x".repeat(1024 * KIB), false],
    ["bytes of 764 KiB fit", "\xff".repeat(764 * KIB), true],
    ["bytes of 766 KiB do not", "\xff".repeat(766 * KIB), false],
    ["control characters, six times as long as JSON, fit as bytes do", "\x01".repeat(764 * KIB), true],
    ["a text with a byte order mark keeps it", "\xef\xbb\xbfa", true],
  ])("%s", (_, bytes, fits) => {
    const stored = valueOfBytes(bytes);
    expect(stored.ok).toBe(fits);
    if (!stored.ok) return;
    expect(Buffer.byteLength(JSON.stringify(stored.value.value))).toBeLessThanOrEqual(VALUE_STORED_BYTES_MAX + 2);
    expect(bytesOf(stored) === bytes).toBe(true);
  });
  test("text that is stored as base64 for its length is still text", () => {
    const text = "\x01".repeat(400 * KIB);
    const stored = valueOfText(text);
    expect(stored).toMatchObject({ ok: true, value: { base64: true } });
    if (stored.ok) expect(textOf(stored.value) === text).toBe(true);
  });
});

test.each([
  ["\ud800", valueOfText],
  ["a b", valueOfBase64],
  ["YQ=", valueOfBase64],
])("%j is no value", (text, parse) => {
  expect(parse(text).ok).toBe(false);
});
