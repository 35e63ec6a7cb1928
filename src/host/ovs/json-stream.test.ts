import { expect, test } from "bun:test";
import fc from "fast-check";
import { JsonStream } from "./json-stream.ts";

test("values come out whole and in order, wherever the stream is cut", () => {
  const value = fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.jsonValue()));
  fc.assert(
    fc.property(fc.array(value, { maxLength: 6 }), fc.integer({ min: 1, max: 7 }), (values, step) => {
      const bytes = new TextEncoder().encode(values.map((v) => JSON.stringify(v)).join(""));
      const stream = new JsonStream();
      const seen: unknown[] = [];
      for (let at = 0; at < bytes.length; at += step) seen.push(...stream.push(bytes.subarray(at, at + step)));
      expect(seen).toEqual(values.map((v) => JSON.parse(JSON.stringify(v))));
    }),
  );
});
