import { expect, test } from "bun:test";
import type { LeaseId } from "../../model/store.ts";
import { defineTable } from "../../model/store.ts";
import { diskError, MemoryDisk } from "./memory-disk.ts";
import { schemaOf } from "./schema.ts";
import { readSnapshot, type SnapshotMeta, snapshotName, writeSnapshot } from "./snapshot-file.ts";
import { scan } from "./sorted-map.ts";
import { apply, emptyState, type State } from "./state.ts";

type Row = { readonly id: string; readonly group: string; readonly pad: string };
const rows = defineTable({
  name: "rows",
  version: 1,
  key: (row: Row) => row.id,
  indexes: { byGroup: (row) => row.group },
});
const schema = schemaOf([rows]);
const path = `/store/${snapshotName(9)}`;

/** A state of several chunks, with revisions, versions and leases that a rebuild by writing would not give. */
function someState(): State {
  const lease = "00000000000000aa" as LeaseId;
  let state = apply(schema, emptyState(schema), { kind: "grant-lease", lease, ttlMs: 5000 }).state;
  for (let i = 0; i < 400; i++) {
    const id = `r${(i * 7) % 300}`;
    const value = { id, group: `g${i % 5}`, pad: "x".repeat(500) };
    const put = { kind: "put", key: `rows/${id}`, value, format: 1, ...(i % 9 === 0 && { lease }) } as const;
    state = apply(schema, state, { kind: "write", operations: [put] }).state;
  }
  return state;
}
const metaOf = (state: State): SnapshotMeta => ({
  index: 9,
  term: 2,
  revision: state.revision,
  leases: [...state.leases],
});

test("what is read is what was written: keys with their revisions, indexes, leases", async () => {
  const disk = new MemoryDisk();
  const state = someState();
  const bytes = await writeSnapshot(disk, "/store", metaOf(state), state);
  const read = await readSnapshot(disk, path, schema);
  if ("reason" in read) throw new Error(read.message);
  expect(read.bytes).toBe(bytes);
  expect(read.meta).toEqual(metaOf(state));
  expect(read.state.leases).toEqual(state.leases);
  expect(scan(read.state.keys)).toEqual(scan(state.keys));
  expect(read.state.indexes.map((index) => scan(index))).toEqual(state.indexes.map((index) => scan(index)));
});

test("a file that was cut is damaged, wherever the cut is, between chunks too", async () => {
  const disk = new MemoryDisk();
  const state = someState();
  const bytes = await writeSnapshot(disk, "/store", metaOf(state), state);
  const whole = disk.peek(path);
  const cuts = [0, 10, 20, 5000, bytes - 1];
  for (let at = 0; at < bytes; at += 20 + whole.readUInt32LE(at + 8)) cuts.push(at);
  expect(cuts.length).toBeGreaterThan(8);
  for (const cut of cuts) {
    const other = new MemoryDisk();
    const file = await other.open(path, "create");
    await file.write(0, whole.subarray(0, cut));
    expect(await readSnapshot(other, path, schema)).toMatchObject({ reason: "damaged" });
  }
});

test("a snapshot that runs out of space leaves nothing behind", async () => {
  const disk = new MemoryDisk();
  const state = someState();
  disk.before = ({ kind, number }) => {
    if (kind === "write" && number > 3) throw diskError("ENOSPC");
  };
  await expect(writeSnapshot(disk, "/store", metaOf(state), state)).rejects.toThrow("ENOSPC");
  expect(await disk.list("/store")).toEqual([]);
});
