import { expect, test } from "bun:test";
import fc from "fast-check";
import { canonicalJson, fromPlain, toPlain } from "./plain-json.ts";

const leaf = fc.oneof(
  fc.string(),
  fc.integer(),
  fc.boolean(),
  fc.constant(null),
  fc.date({ noInvalidDate: true }),
  fc.uint8Array({ maxLength: 8 }),
  fc.bigInt(),
);
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    leaf,
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom("$date", "$bytes", "$object", "a", "b"), tie("value"), {
      maxKeys: 3,
      noNullPrototype: true,
    }),
  ),
}));

test("what is stored comes back as it was, dates and bytes included", () => {
  fc.assert(fc.property(value, (v) => expect(fromPlain(JSON.parse(JSON.stringify(toPlain(v))))).toEqual(v)));
});

test("the order of members doesn't change the canonical text, and a value does", () => {
  expect(canonicalJson({ b: [1, { d: 1, c: 2 }], a: undefined })).toBe(canonicalJson({ b: [1, { c: 2, d: 1 }] }));
  expect(canonicalJson({ a: new Date(0) })).not.toBe(canonicalJson({ a: "1970-01-01T00:00:00.000Z" }));
  expect(canonicalJson({ a: [1, 2] })).not.toBe(canonicalJson({ a: [2, 1] }));
});
