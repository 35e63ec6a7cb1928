import { expect, test } from "bun:test";
import fc from "fast-check";
import { emptyMap, fromSorted, getFrom, measure, type SortedMap, scan, withKey, withoutKey } from "./sorted-map.ts";

type Value = { readonly key: string; readonly modRevision: number };
const key = fc.integer({ min: 0, max: 400 }).map((n) => n.toString(36).padStart(2, "0"));
const action = fc.oneof(
  { weight: 3, arbitrary: fc.tuple(fc.constant("put" as const), key) },
  { weight: 2, arbitrary: fc.tuple(fc.constant("remove" as const), key) },
);

/** The map's answers, by the plainest means. */
function expected(model: ReadonlyMap<string, Value>, from?: string, to?: string): Value[] {
  return [...model.values()]
    .filter((value) => (from === undefined || value.key >= from) && (to === undefined || value.key < to))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

test("it answers as a sorted array would, and earlier versions never change", () => {
  fc.assert(
    fc.property(
      fc.array(action, { maxLength: 900, size: "max" }),
      fc.option(key, { nil: undefined }),
      fc.option(key, { nil: undefined }),
      fc.integer({ min: 0, max: 50 }),
      (actions, from, to, limit) => {
        let map: SortedMap<Value> = emptyMap();
        const model = new Map<string, Value>();
        let kept: { map: SortedMap<Value>; values: Value[] } | undefined;
        actions.forEach(([kind, name], i) => {
          if (i === actions.length >> 1) kept = { map, values: expected(model) };
          if (kind === "put") {
            const value = { key: name, modRevision: i + 1 };
            map = withKey(map, name, value);
            model.set(name, value);
          } else {
            map = withoutKey(map, name);
            model.delete(name);
          }
        });
        expect(scan(map)).toEqual(expected(model));
        const inRange = expected(model, from, to);
        expect(scan(map, from, to)).toEqual(inRange);
        expect(scan(map, from, to, limit)).toEqual(inRange.slice(0, limit));
        const maxRevision = Math.max(0, ...inRange.map((value) => value.modRevision));
        expect({ ...measure(map, from, to) }).toMatchObject({ count: inRange.length, maxRevision });
        for (const [name] of actions) expect(getFrom(map, name)).toBe(model.get(name));
        if (kept) expect(scan(kept.map)).toEqual(kept.values);
      },
    ),
    { numRuns: 60 },
  );
});

test("a map built from sorted entries is the map that inserts would make", () => {
  for (const size of [0, 1, 32, 33, 1024, 1025, 5000]) {
    const values = Array.from({ length: size }, (_, i) => ({ key: String(i).padStart(6, "0"), modRevision: i }));
    const built = fromSorted(
      values.map((value) => value.key),
      values,
    );
    expect(scan(built)).toEqual(values);
    expect(built.count).toBe(size);
    expect(scan(withoutKey(built, "000000"))).toEqual(values.slice(1));
  }
});

test("emptying a large map leaves nothing, in any order", () => {
  let map: SortedMap<Value> = emptyMap();
  const keys = Array.from({ length: 3000 }, (_, i) => ((i * 7919) % 3000).toString().padStart(4, "0"));
  for (const name of keys) map = withKey(map, name, { key: name, modRevision: 1 });
  expect(map.count).toBe(3000);
  for (const name of keys.toReversed()) map = withoutKey(map, name);
  expect(map.count).toBe(0);
  expect(scan(map)).toEqual([]);
});
