import { expect, test } from "bun:test";
import { textMemo } from "./text-memo.ts";

test("a result is remembered, for short texts and for so many", () => {
  const asked: string[] = [];
  const upper = textMemo(
    (text) => {
      asked.push(text);
      return text.toUpperCase();
    },
    2,
    3,
  );
  expect([upper("a"), upper("a"), upper("long"), upper("long")]).toEqual(["A", "A", "LONG", "LONG"]);
  expect(asked).toEqual(["a", "long", "long"]);
  upper("b");
  upper("c"); // the third: those before are forgotten
  expect(upper("a")).toBe("A");
  expect(asked.slice(3)).toEqual(["b", "c", "a"]);
});
