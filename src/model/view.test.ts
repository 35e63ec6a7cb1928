import { expect, test } from "bun:test";
import { memoView } from "./view.ts";

const view = memoView((key: { n: number }, list: readonly object[], tag: object | undefined, count: number) => ({
  n: key.n,
  size: list.length,
  tagged: tag !== undefined,
  count,
}));

test("a view keeps its identity while its records do, and lists count by their elements", () => {
  const key = { n: 1 };
  const [a, b] = [{}, {}];
  const first = view(key, [a, b], undefined, 3);
  expect(view(key, [a, b], undefined, 3)).toBe(first);
  expect(view(key, [b, a], undefined, 3)).not.toBe(first);
});

test("a view is made anew when its record, a list, a second record or a value differs", () => {
  const key = { n: 1 };
  const a = {};
  const first = view(key, [a], undefined, 3);
  expect(view({ n: 1 }, [a], undefined, 3)).not.toBe(first);
  expect(view(key, [], undefined, 3)).toEqual({ n: 1, size: 0, tagged: false, count: 3 });
  expect(view(key, [], {}, 3).tagged).toBe(true);
  expect(view(key, [], {}, 4).count).toBe(4);
});
