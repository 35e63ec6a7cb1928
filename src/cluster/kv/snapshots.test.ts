import { expect, test } from "bun:test";
import type { LeaseId } from "../../model/store.ts";
import { defineTable } from "../../model/store.ts";
import { configurationOf } from "../raft/configuration.ts";
import { diskError, MemoryDisk } from "./memory-disk.ts";
import { schemaOf } from "./schema.ts";
import { NO_SESSIONS, record, register } from "./sessions.ts";
import { type Snapshot, snapshotName } from "./snapshot-format.ts";
import { checkSnapshot, readSnapshot } from "./snapshot-reader.ts";
import { writeSnapshot } from "./snapshot-writer.ts";
import { scan } from "./sorted-map.ts";
import { apply, emptyState, type Operation, type State } from "./state.ts";

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
  for (let i = 0; i < 900; i++) {
    const id = `r${(i * 7) % 300}`;
    const value = { id, group: `g${i % 5}`, pad: "x".repeat(500) };
    const put: Operation = {
      kind: "put",
      key: `rows/${id}`,
      value,
      format: 1,
      ...(i % 9 === 0 && { lease }),
      ...(i % 27 === 0 && { successor: { id, group: "after" } }),
      ...(i % 5 !== 0 && { pastMax: 2 }),
    };
    state = apply(schema, state, { kind: "write", operations: [put] }).state;
  }
  return state;
}
const configuration = configurationOf(["a", "b", "c"]);
const sessions = record(register(register(NO_SESSIONS)), { session: 2, number: 7, low: 5 });
const snapshotOf = (state: State): Snapshot & { configuration: typeof configuration } => ({
  index: 9,
  term: 2,
  configuration,
  digest: 0xdeadbeef,
  terms: [
    [1, 300],
    [2, 101],
  ],
  state,
  sessions,
});

test("what is read is what was written: keys with their revisions, indexes, leases, sessions", async () => {
  const disk = new MemoryDisk();
  const state = someState();
  const snapshot = snapshotOf(state);
  const bytes = await writeSnapshot(disk, "/store", snapshot);
  const read = await readSnapshot(disk, path, schema);
  if (!read.ok) throw new Error(read.error.message);
  const { state: readState, sessions: readSessions, ...rest } = read.value;
  const { state: _, sessions: __, ...expected } = snapshot;
  expect(rest).toEqual({ ...expected, bytes });
  expect(readSessions).toEqual(sessions);
  expect(readState.revision).toBe(state.revision);
  expect(readState.leases).toEqual(state.leases);
  expect(scan(readState.keys)).toEqual(scan(state.keys));
  expect(readState.indexes.map((index) => scan(index))).toEqual(state.indexes.map((index) => scan(index)));
  expect(await checkSnapshot(disk, path, schema)).toEqual({ ok: true, value: { index: 9, term: 2, configuration } });
});

test("a file that was cut is damaged, wherever the cut is, between chunks too", async () => {
  const disk = new MemoryDisk();
  const state = someState();
  const bytes = await writeSnapshot(disk, "/store", snapshotOf(state));
  const whole = disk.peek(path);
  const cuts = [0, 10, 20, 5000, bytes - 1];
  for (let at = 0; at < bytes; at += 20 + whole.readUInt32LE(at + 8)) cuts.push(at);
  expect(cuts.length).toBeGreaterThan(8);
  for (const cut of cuts) {
    const other = new MemoryDisk();
    const file = await other.open(path, "create");
    await file.write(0, whole.subarray(0, cut));
    expect(await readSnapshot(other, path, schema)).toMatchObject({ ok: false, error: { reason: "damaged" } });
  }
});

test("one flipped byte is found, wherever it is, by whoever reads or only checks", async () => {
  const disk = new MemoryDisk();
  await writeSnapshot(disk, "/store", snapshotOf(someState()));
  const whole = disk.peek(path);
  for (let at = 0; at < whole.length; at += at < 1000 ? 7 : 1009) {
    const other = new MemoryDisk();
    const file = await other.open(path, "create");
    const flipped = Buffer.from(whole);
    flipped[at]! ^= 0x11;
    await file.write(0, flipped);
    expect(await checkSnapshot(other, path, schema)).toMatchObject({ ok: false });
    if (at % 250 === 0) expect(await readSnapshot(other, path, schema)).toMatchObject({ ok: false });
  }
});

/** A file of these payloads, with good checksums, so that only what they say can be wrong. */
async function fileOf(payloads: readonly unknown[], version = 3): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const file = await disk.open(path, "create");
  let offset = 0;
  let chain = 0;
  for (const payload of payloads) {
    const text = Buffer.from(
      version > 2 && Array.isArray(payload) && payload.length > 0
        ? payload.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n")
        : JSON.stringify(payload),
    );
    const chunk = Buffer.alloc(20 + text.length);
    chunk.writeUInt32LE(0x4e535648, 0);
    chunk.writeUInt32LE(version, 4);
    chunk.writeUInt32LE(text.length, 8);
    chunk.writeUInt32LE(chain, 12);
    text.copy(chunk, 20);
    chain = Bun.hash.crc32(text, Bun.hash.crc32(chunk.subarray(0, 16)));
    chunk.writeUInt32LE(chain, 16);
    await file.write(offset, chunk);
    offset += chunk.length;
  }
  return disk;
}

const lease = "00000000000000aa";
const meta = { index: 9, term: 2, revision: 5, configuration, digest: 1, terms: [], nextSession: 3, sessionUses: 4 };
const row = (key: string, more: { modRevision?: number; lease?: string; format?: number; value?: unknown } = {}) => [
  key,
  more.format ?? 1,
  1,
  more.modRevision ?? 2,
  1,
  more.lease ?? null,
  "value" in more ? more.value : { id: key, group: "g" },
];
const end = (rows = 0, leases = 0, sessions = 0) => ({ rows, leases, sessions });

test("a file of the first version is read: a node's own, without sessions", async () => {
  const disk = await fileOf(
    [{ index: 9, term: 2, revision: 5, leases: [[lease, 1500]] }, [row("rows/a", { lease })], { rows: 1 }],
    1,
  );
  const read = await readSnapshot(disk, path, schema);
  if (!read.ok) throw new Error(read.error.message);
  expect(read.value).toMatchObject({ index: 9, term: 2, configuration: undefined, digest: 0, terms: [] });
  expect(read.value.sessions).toEqual(NO_SESSIONS);
  expect(read.value.state.leases).toEqual(new Map([[lease as LeaseId, 1500]]));
  expect(scan(read.value.state.keys)).toMatchObject([{ key: "rows/a", lease }]);
  // It names no configuration: no peer sends such a one.
  expect(await checkSnapshot(disk, path, schema)).toMatchObject({ ok: false });
});

const good = [
  meta,
  { leases: [[lease, 1]] },
  { sessions: [[1, 1, 1, [1, 4]]] },
  [row("rows/a", { lease })],
  end(1, 1, 1),
];
const wrong: [string, readonly unknown[]][] = [
  ["no object first", [[], end()]],
  ["no place in the log", [{ ...meta, index: -1 }, end()]],
  ["a configuration of anything", [{ ...meta, configuration: { voters: [7] } }, end()]],
  ["more voters than can be", [{ ...meta, configuration: { ...configuration, voters: Array(10).fill("a") } }, end()]],
  ["a digest of another size", [{ ...meta, digest: 2 ** 40 }, end()]],
  ["keys that do not ascend", [meta, [row("rows/b"), row("rows/a")], end(2)]],
  ["a key twice", [meta, [row("rows/a")], [row("rows/a")], end(2)]],
  ["a row of the future", [meta, [row("rows/a", { modRevision: 6 })], end(1)]],
  ["a lease that is not there", [meta, [row("rows/a", { lease })], end(1)]],
  [
    "a lease twice",
    [
      meta,
      {
        leases: [
          [lease, 1],
          [lease, 2],
        ],
      },
      end(0, 2),
    ],
  ],
  ["a value that is none", [meta, [row("rows/a", { value: 1 })], end(1)]],
  ["a row that is short", [meta, [["rows/a"]], end(1)]],
  ["a past of nothing", [meta, ["1 1 {}", row("rows/a")], end(2)]],
  ["a past of the same time", [meta, [row("rows/a"), "1 2 {}"], end(2)]],
  ["a past out of order", [meta, [row("rows/a", { modRevision: 4 }), "1 2 {}", "1 3 {}"], end(3)]],
  ["a past that is none", [meta, [row("rows/a"), "1 1 7"], end(2)]],
  ["a past that is missing", [meta, [row("rows/a")], end(2)]],
  ["a successor without a lease", [meta, [[...row("rows/a"), {}]], end(1)]],
  ["a successor that is none", [meta, { leases: [[lease, 1]] }, [[...row("rows/a", { lease }), 7]], end(1, 1)]],
  ["rows that are missing", [meta, [row("rows/a")], end(2)]],
  ["sessions that are missing", [meta, end(0, 0, 1)]],
  ["a session of the future", [meta, { sessions: [[3, 1, 1, []]] }, end(0, 0, 1)]],
  [
    "a session out of order",
    [
      meta,
      {
        sessions: [
          [2, 1, 1, []],
          [1, 1, 1, []],
        ],
      },
      end(0, 0, 2),
    ],
  ],
  ["half a range", [meta, { sessions: [[1, 1, 1, [1]]] }, end(0, 0, 1)]],
  ["no end", good.slice(0, -1)],
  ["more after the end", [...good, [row("rows/b")]]],
  ["a number that is neither", [meta, 7, end()]],
];
test.each(wrong)("%s is damage, checksums or not", async (_, payloads) => {
  expect(await checkSnapshot(await fileOf(good), path, schema)).toMatchObject({ ok: true });
  const disk = await fileOf(payloads);
  expect(await checkSnapshot(disk, path, schema)).toMatchObject({ ok: false, error: { reason: "damaged" } });
  expect(await readSnapshot(disk, path, schema)).toMatchObject({ ok: false, error: { reason: "damaged" } });
});

test("a file of the second version is read: nothing has a past", async () => {
  const read = await readSnapshot(await fileOf(good, 2), path, schema);
  if (!read.ok) throw new Error(read.error.message);
  expect(scan(read.value.state.keys)).toEqual([
    {
      key: "rows/a",
      value: { id: "rows/a", group: "g" },
      format: 1,
      createRevision: 1,
      modRevision: 2,
      version: 1,
      lease: lease as LeaseId,
    },
  ]);
});

test("what a later version wrote is told from damage", async () => {
  const ofFile = await checkSnapshot(await fileOf(good, 4), path, schema);
  expect(ofFile).toMatchObject({ ok: false, error: { reason: "newer" } });
  const ofPast = await checkSnapshot(await fileOf([meta, [row("rows/a"), "2 1 {}"], end(2)]), path, schema);
  expect(ofPast).toMatchObject({ ok: false, error: { reason: "newer" } });
  const ofTable = await checkSnapshot(await fileOf([meta, [row("rows/a", { format: 2 })], end(1)]), path, schema);
  expect(ofTable).toMatchObject({ ok: false, error: { reason: "newer" } });
});

test("a snapshot that runs out of space leaves nothing behind", async () => {
  const disk = new MemoryDisk();
  const state = someState();
  disk.before = ({ kind, number }) => {
    if (kind === "write" && number > 3) throw diskError("ENOSPC");
  };
  await expect(writeSnapshot(disk, "/store", snapshotOf(state))).rejects.toThrow("ENOSPC");
  expect(await disk.list("/store")).toEqual([]);
});
