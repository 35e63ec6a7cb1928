import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { compileGlob, literalPrefix } from "./glob.ts";

describe("a pattern", () => {
  test.each<[string, string, boolean]>([
    ["*", "", true],
    ["*", "anything", true],
    ["h?llo", "hello", true],
    ["h?llo", "hllo", false],
    ["h*llo", "heeeello", true],
    ["h[ae]llo", "hallo", true],
    ["h[ae]llo", "hillo", false],
    ["h[^e]llo", "hallo", true],
    ["h[^e]llo", "hello", false],
    ["h[a-b]llo", "hbllo", true],
    ["h[b-a]llo", "hallo", true],
    ["h[a-b]llo", "hcllo", false],
    ["a\\*b", "a*b", true],
    ["a\\*b", "axb", false],
    ["[\\]]", "]", true],
    ["[abc", "c", true],
    ["a\\", "a\\", true],
    ["", "", true],
    ["", "a", false],
    ["__keyspace@0__:user:*", "__keyspace@0__:user:1", true],
    ["[]", "]", false],
    ["*ab*abc", "abxababc", true],
    ["*ab*abc", "abxabab", false],
    ["*\\*ab?", "x*abc", true],
    ["*aab", "aaab", true],
  ])("%j matches %j: %p", (pattern, text, expected) => {
    expect(compileGlob(pattern)(text)).toBe(expected);
  });

  test("says the same as a regular expression, for stars and question marks", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 12 });
    const pattern = fc.string({ unit: fc.constantFrom("a", "b", "*", "?"), maxLength: 8 });
    fc.assert(
      fc.property(pattern, letters, (glob, text) => {
        const expression = new RegExp(`^${glob.replaceAll("*", ".*").replaceAll("?", ".")}$`);
        expect(compileGlob(glob)(text)).toBe(expression.test(text));
      }),
      { numRuns: 1000 },
    );
  });

  test("takes no exponential time", () => {
    const matches = compileGlob("*a".repeat(30));
    const started = performance.now();
    expect(matches(`${"a".repeat(2000)}b`)).toBe(false);
    expect(performance.now() - started).toBeLessThan(1000);
  });

  test("that is long takes little time where it nearly matches everywhere", () => {
    const patterns = Array.from({ length: 100 }, (_, n) => compileGlob(`*${"a".repeat(240)}${n}x`));
    const text = "a".repeat(500);
    const started = performance.now();
    for (let n = 0; n < 50; n++) expect(patterns.some((matches) => matches(text))).toBe(false);
    // A character at a time, it takes seconds.
    expect(performance.now() - started).toBeLessThan(1000);
  });

  test("begins every text that it matches with its literal prefix", () => {
    const part = fc.constantFrom("a", "b", "*", "?", "[ab]", "\\*", "\\");
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 6 }),
        fc.string({ unit: fc.constantFrom("a", "b", "*"), maxLength: 6 }),
        (parts, text) => {
          const pattern = parts.join("");
          if (compileGlob(pattern)(text)) expect(text).toStartWith(literalPrefix(pattern));
        },
      ),
      { numRuns: 2000 },
    );
  });
});
