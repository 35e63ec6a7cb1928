import { expect, test } from "bun:test";
import fc from "fast-check";
import { compilePattern } from "./wildcard.ts";

const table: [pattern: string, value: string, matches: boolean][] = [
  ["*", "", true],
  ["a*c", "abbc", true],
  ["a*c", "abcd", false],
  ["a?c", "abc", true],
  ["a?c", "ac", false],
  ["?", "", false],
  ["*amazon?\\\\", "x-amazonY\\", true],
  ["\\*a", "*a", true],
  ["\\*a", "ba", false],
  ["\\?", "x", false],
  ["A*", "abc", false],
  ["**b**", "abc", true],
  ["*ab", "aab", true],
  ["a\\", "a\\", true],
];
test.each(table)("%s against %s: %p", (pattern, value, matches) =>
  expect(compilePattern(pattern)(value)).toBe(matches),
);

test("a pattern matches what a regular expression of the same meaning does", () => {
  const characters = fc.constantFrom("a", "b", "*", "?", ".");
  fc.assert(
    fc.property(
      fc.string({ unit: characters, maxLength: 8 }),
      fc.string({ unit: characters, maxLength: 10 }),
      (pattern, value) => {
        const source = pattern.replaceAll(".", "\\.").replaceAll("*", "[^]*").replaceAll("?", "[^]");
        expect(compilePattern(pattern)(value)).toBe(new RegExp(`^${source}$`).test(value));
      },
    ),
  );
});

test("a hostile pattern costs no more than the product of both lengths", () => {
  const pattern = compilePattern(`${"*a".repeat(1000)}b`);
  const started = performance.now();
  expect(pattern("a".repeat(2000))).toBe(false);
  expect(performance.now() - started).toBeLessThan(500);
});
