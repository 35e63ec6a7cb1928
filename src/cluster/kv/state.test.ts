import { expect, test } from "bun:test";
import fc from "fast-check";
import { defineTable, type LeaseId } from "../../model/store.ts";
import { buildState, buildStateInSlices } from "./build-state.ts";
import { schemaOf } from "./schema.ts";
import { scan } from "./sorted-map.ts";
import { apply, emptyState, type Operation, type State } from "./state.ts";

type Row = { readonly id: string; readonly group?: string; readonly tags: readonly string[] };
const rows = defineTable({
  name: "rows",
  version: 1,
  key: (row: Row) => row.id,
  indexes: { byGroup: (row) => row.group, byTag: (row) => row.tags },
});
const schema = schemaOf([rows]);
const lease = "00000000000000aa" as LeaseId;

const tag = fc.constantFrom("x", "y", "z", "x\0", "");
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc
    .record({
      id: fc.constantFrom("a", "b", "c", "d"),
      group: fc.option(fc.constantFrom("g", "h"), { nil: undefined }),
      tags: fc.array(tag, { maxLength: 3 }),
      leased: fc.boolean(),
    })
    .map(({ leased, ...value }) => ({
      kind: "put" as const,
      key: `rows/${value.id}`,
      value,
      format: 1,
      ...(leased && { lease }),
    })),
  fc.constantFrom("a", "b", "c", "d").map((id) => ({ kind: "remove" as const, key: `rows/${id}` })),
);
const groups = fc.array(fc.uniqueArray(operation, { selector: ({ key }) => key, maxLength: 3 }), { maxLength: 12 });

const shown = (state: State) => ({ ...state, keys: scan(state.keys), indexes: state.indexes.map((map) => scan(map)) });

test("indexes that are kept entry by entry are those that building anew gives, at once or in slices", async () => {
  await fc.assert(
    fc.asyncProperty(groups, async (writes) => {
      let state = apply(schema, emptyState(schema), { kind: "grant-lease", lease, ttlMs: 1 }).state;
      for (const operations of writes) state = apply(schema, state, { kind: "write", operations }).state;
      const parts = [schema, state.revision, state.leases, scan(state.keys)] as const;
      expect(shown(state)).toEqual(shown(buildState(...parts)));
      expect(shown(state)).toEqual(shown(await buildStateInSlices(...parts)));
      const ended = apply(schema, state, { kind: "revoke-lease", lease }).state;
      expect(scan(ended.keys)).toEqual(scan(state.keys).filter((entry) => entry.lease === undefined));
      expect(shown(ended)).toEqual(shown(buildState(schema, ended.revision, ended.leases, scan(ended.keys))));
    }),
    { numRuns: 400 },
  );
});

test("many entries are built in slices as they are at once", async () => {
  const operations = Array.from({ length: 9000 }, (_, i): Operation => {
    const id = `r${((i * 7919) % 9000).toString().padStart(5, "0")}`;
    return { kind: "put", key: `rows/${id}`, format: 1, value: { id, group: `g${i % 7}`, tags: [`t${i}`, "all"] } };
  });
  const { state } = apply(schema, emptyState(schema), { kind: "write", operations });
  const parts = [schema, state.revision, state.leases, scan(state.keys)] as const;
  expect(shown(await buildStateInSlices(...parts))).toEqual(shown(buildState(...parts)));
});
