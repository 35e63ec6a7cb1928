import { expect, test } from "bun:test";
import fc from "fast-check";
import { defineTable, type LeaseId } from "../../model/store.ts";
import { buildState, buildStateInSlices } from "./build-state.ts";
import { schemaOf } from "./schema.ts";
import { getFrom, scan } from "./sorted-map.ts";
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

test("a key keeps as many earlier values as its last write says, newest first, none that hung on a lease, and none twice", () => {
  const value = fc.record({ n: fc.nat() });
  const step = fc.oneof(
    fc.record({
      value,
      pastMax: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }),
      leased: fc.boolean(),
      restores: fc.boolean(),
    }),
    fc.constant("remove" as const),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      let state = apply(schema, emptyState(schema), { kind: "grant-lease", lease, ttlMs: 1 }).state;
      // The same, told naively: everything that was, newest first.
      let before: { n: number; leased: boolean; revision: number }[] = [];
      for (const one of steps) {
        if (one === "remove") {
          state = apply(schema, state, { kind: "write", operations: [{ kind: "remove", key: "rows/a" }] }).state;
          before = [];
          continue;
        }
        const { value, pastMax, leased, restores } = one;
        const put = { kind: "put", key: "rows/a", format: 1, value } as const;
        const how = { ...(pastMax && { pastMax }), ...(leased && { lease }), ...(restores && { restores }) };
        const operation = { ...put, ...how };
        state = apply(schema, state, { kind: "write", operations: [operation] }).state;
        // What is restored is the newest of them.
        const lasting = before.filter((entry) => !entry.leased).slice(restores ? 1 : 0);
        const kept = lasting.slice(0, pastMax ?? 0);
        const { past } = getFrom(state.keys, "rows/a")!;
        expect(past?.map(({ text, modRevision }) => [JSON.parse(text), modRevision]) ?? []).toEqual(
          kept.map(({ n, revision }) => [{ n }, revision]),
        );
        before = [{ n: value.n, leased, revision: state.revision }, ...kept];
      }
    }),
  );
});

test("at its lease's end, a record's successor takes its place and keeps its past", () => {
  const write = (state: State, ...operations: Operation[]) => apply(schema, state, { kind: "write", operations }).state;
  const put = (id: string, group: string, more: Partial<Operation> = {}): Operation => ({
    ...({ kind: "put", key: `rows/${id}`, format: 1, value: { id, group, tags: [] } } as const),
    ...more,
  });
  const successor = { id: "a", group: "after", tags: ["x"] };
  let state = apply(schema, emptyState(schema), { kind: "grant-lease", lease, ttlMs: 1 }).state;
  state = write(state, put("a", "first", { pastMax: 3 }));
  state = write(state, put("a", "passing", { pastMax: 3, lease, successor }), put("b", "passing", { lease }));
  const ended = apply(schema, state, { kind: "revoke-lease", lease });
  expect(ended.changes.map(({ key, before, after }) => [key, before?.value, after?.value])).toEqual([
    ["rows/a", { id: "a", group: "passing", tags: [] }, successor],
    ["rows/b", { id: "b", group: "passing", tags: [] }, undefined],
  ]);
  expect(scan(ended.state.keys)).toEqual([
    {
      key: "rows/a",
      value: successor,
      format: 1,
      createRevision: 1,
      modRevision: 3,
      version: 3,
      past: [{ text: '{"id":"a","group":"first","tags":[]}', format: 1, modRevision: 1 }],
    },
  ]);
  expect(shown(ended.state)).toEqual(shown(buildState(schema, 3, new Map(), scan(ended.state.keys))));
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
