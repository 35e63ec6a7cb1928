import { expect, test } from "bun:test";
import { duration } from "./status.ts";

test.each([
  [5, "5 ms"],
  [1000, "1 s"],
  [61_000, "1 min 1 s"],
  [3_600_000, "1 h"],
  [90_061_000, "1 d 1 h"],
])("%d ms is %p", (ms, text) => expect(duration(ms)).toBe(text));
