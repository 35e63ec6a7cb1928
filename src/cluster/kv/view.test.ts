import { expect, test } from "bun:test";
import fc from "fast-check";
import { defineTable } from "../../model/store.ts";
import { schemaOf } from "./schema.ts";
import { apply, emptyState, type Operation, type State } from "./state.ts";
import { type Compare, holds, View } from "./view.ts";

type Row = { readonly id: string; readonly group: string };
const rows = defineTable({
  name: "rows",
  version: 1,
  key: (row: Row) => row.id,
  indexes: { byGroup: (row) => row.group },
});
const schema = schemaOf([rows]);
const slot = schema.spaces.get("rows")!.slotOf.get("byGroup")!;

const key = fc.constantFrom("a", "b", "c", "d", "e").map((id) => `rows/${id}`);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({
    kind: fc.constant("put" as const),
    key,
    value: fc.record({ group: fc.constantFrom("x", "y") }),
    format: fc.constant(1),
  }),
  fc.record({ kind: fc.constant("remove" as const), key }),
);
const commands = fc.array(fc.uniqueArray(operation, { selector: ({ key }) => key, maxLength: 3 }), { maxLength: 8 });

const run = (state: State, groups: Operation[][]) =>
  groups.reduce((at, operations) => apply(schema, at, { kind: "write", operations }).state, state);

/** One reading of the state: what a decision may have looked at, and what it saw, with the revisions that made it. */
const readings: ((view: View) => unknown)[] = [
  (view) => view.get("rows/b"),
  (view) => view.range("rows/", "rows0"),
  (view) => view.range("rows/b", "rows/d"),
  (view) => view.range("rows/", "rows0", 2),
  (view) => view.count("rows/a", "rows/c") && view.range("rows/a", "rows/c"),
  (view) => view.lookup(slot, "x"),
  (view) => view.countOf(slot, "y") && view.lookup(slot, "y"),
];

test("what was read compares as equal exactly when reading it again sees the same entries", () => {
  fc.assert(
    fc.property(commands, commands, fc.nat(readings.length - 1), (before, after, which) => {
      const read = readings[which]!;
      const then = run(emptyState(schema), before);
      const reads = new Map<string, Compare>();
      const saw = read(new View(then, reads));
      const now = run(then, after);
      // Entries carry their revisions: a row that was replaced by its like is another.
      expect(holds(now, [...reads.values()])).toBe(Bun.deepEquals(read(new View(now)), saw));
    }),
    { numRuns: 3000 },
  );
});

test("a removal alone is noticed, and so is one that an insertion makes up for in number", () => {
  const put = (id: string): Operation => ({ kind: "put", key: `rows/${id}`, value: { group: "x" }, format: 1 });
  const remove = (id: string): Operation => ({ kind: "remove", key: `rows/${id}` });
  const then = run(emptyState(schema), [[put("a")], [put("b")]]);
  for (const read of [(view: View) => view.lookup(slot, "x"), (view: View) => view.range("rows/", "rows0")]) {
    const reads = new Map<string, Compare>();
    read(new View(then, reads));
    expect(holds(then, [...reads.values()])).toBe(true);
    // "a" is the older one: the greatest revision stays.
    expect(holds(run(then, [[remove("a")]]), [...reads.values()])).toBe(false);
    expect(holds(run(then, [[remove("a"), put("c")]]), [...reads.values()])).toBe(false);
  }
});
