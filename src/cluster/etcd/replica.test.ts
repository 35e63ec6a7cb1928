import { expect, test } from "bun:test";
import fc from "fast-check";
import { present } from "../../lib/assert.ts";
import { seededRandom } from "../../lib/random.ts";
import { defineTable, type LeaseId } from "../../model/store.ts";
import { type PutOptions, sealPut, sealRemove } from "../kv/command.ts";
import { schemaOf } from "../kv/schema.ts";
import { getFrom, scan } from "../kv/sorted-map.ts";
import type { State } from "../kv/state.ts";
import { type Commit, Draft, type Effect, ROWS_MAX } from "./draft.ts";
import { chunkText, HEAD_KEY, isContent, makeHead, type Row, readChunk, stagedKey } from "./layout.ts";
import { emptyReplica, follow, load, type Replica } from "./replica.ts";
import type { Trouble } from "./trouble.ts";

type Note = { readonly id: string; readonly tag: string };
const notes = defineTable({
  name: "notes",
  version: 1,
  key: (note: Note) => note.id,
  indexes: { byTag: (note) => note.tag },
});
const schema = schemaOf([notes]);

/** What matters of a state: every entry, every index, every lease. */
const shown = ({ revision, keys, indexes, leases }: State) => ({
  revision,
  keys: scan(keys),
  indexes: indexes.map((index) => scan(index)),
  leases: [...leases].sort(),
});

const isSame = (a: State, b: State): boolean => Bun.deepEquals(shown(a), shown(b), true);

/** An etcd of the mind: keys with revisions, one transaction after another. */
class Etcd {
  revision = 1;
  readonly keys = new Map<string, { value: string; mod_revision: number }>();
  /** What a watch tells. */
  readonly told: { revision: number; changes: { key: string; value: string | undefined }[] }[] = [];

  commit(rows: readonly Row[]): number {
    this.revision++;
    for (const { key, text } of rows) {
      if (text === undefined) this.keys.delete(key);
      else this.keys.set(key, { value: text, mod_revision: this.revision });
    }
    this.told.push({ revision: this.revision, changes: rows.map(({ key, text }) => ({ key, value: text })) });
    return this.revision;
  }
  all() {
    return [...this.keys].map(([key, entry]) => ({ key, ...entry }));
  }
}

/** As the store does it. */
function commitTo(etcd: Etcd, commit: Commit, sequence: number): Replica {
  const chunks = commit.chunks();
  if (chunks.length === 1 || chunks.length === 0) {
    const head = commit.head("me", sequence);
    const position = etcd.commit([{ key: HEAD_KEY, text: head.text }, ...commit.rows]);
    return commit.replica(head, position, chunks);
  }
  const staged = { commit: `me-${sequence}`, chunks: chunks.length };
  for (const [i, rows] of chunks.entries()) etcd.commit([{ key: stagedKey(staged.commit, i), text: chunkText(rows) }]);
  const head = commit.head("me", sequence, staged);
  return commit.replica(head, etcd.commit([{ key: HEAD_KEY, text: head.text }]), chunks);
}

function settle(etcd: Etcd, replica: Replica, sequence: number): Replica {
  for (const rows of replica.unsettled) etcd.commit(rows);
  const { revision } = replica.state;
  const head = makeHead(replica, { revision, writer: "me", sequence, rows: 0 });
  const gone = [...etcd.keys.keys()].filter((key) => key.startsWith("staged/"));
  const position = etcd.commit([{ key: HEAD_KEY, text: head.text }, ...gone.map((key) => ({ key, text: undefined }))]);
  return { ...replica, position, head, unsettled: [], staged: new Map() };
}

const put = (id: string, tag: string, lease?: LeaseId, more: Omit<PutOptions, "lease"> = {}) => {
  const sealed = sealPut(`notes/${id}`, { id, tag }, 1, { lease, ...more });
  if (!sealed.ok) throw new Error(sealed.error.message);
  return sealed.value;
};
const writing = (...operations: Extract<Effect, { kind: "write" }>["operations"]): Effect => ({
  kind: "write",
  operations,
});

test("writer, follower and whoever reads everything anew have the same state, after every commit of every size", () => {
  for (let seed = 1; seed <= 5; seed++) {
    const random = seededRandom(seed);
    const pick = (n: number) => random.bytes(1)[0]! % n;
    const etcd = new Etcd();
    let writer = emptyReplica(schema);
    let follower = emptyReplica(schema);
    let sequence = 0;
    let granted = 0;
    for (let round = 0; round < 25; round++) {
      const draft = new Draft(schema, writer);
      const effects = 1 + pick(4);
      for (let i = 0; i < effects; i++) {
        const leases = [...draft.state.leases.keys()];
        const lease = leases[pick(leases.length + 1)];
        const kind = pick(8);
        if (kind === 0) draft.add({ kind: "grant-lease", lease: `lease-${granted++}` as LeaseId, ttlMs: 1 + pick(99) });
        else if (kind === 1 && lease) draft.add({ kind: "revoke-lease", lease });
        else if (kind === 2 && lease) draft.add({ kind: "renew-lease", lease });
        else if (kind === 3) draft.add(writing(sealRemove(`notes/${pick(30)}`)));
        else if (kind === 4) {
          const many = Array.from({ length: ROWS_MAX + pick(200) }, (_, n) => put(`${n}`, `t${pick(3)}`));
          draft.add(writing(...many));
        } else draft.add(writing(put(`${pick(30)}`, ["a\0", "ä𐍈", "\ud800", '"\\'][pick(4)]!, lease)));
      }
      const commit = draft.finish();
      if (commit) writer = commitTo(etcd, commit, ++sequence);
      if (pick(2) === 0 && writer.unsettled.length > 0) {
        const read = load(schema, etcd.all());
        expect(read.ok && isSame(read.value.state, writer.state)).toBe(true);
      }
      // Nobody commits on what is not settled. The follower may hear of all of it at once, or of one by one.
      if (writer.unsettled.length > 0) writer = settle(etcd, writer, ++sequence);
      for (const told of etcd.told.splice(0)) {
        const followed = follow(schema, follower, told);
        if (!followed.ok) throw new Error(`seed ${seed}: ${followed.error.message}`);
        const { events } = followed.value;
        expect(events.map(({ revision }) => revision)).toEqual(
          Array.from({ length: events.length }, (_, i) => follower.state.revision + 1 + i),
        );
        follower = followed.value.replica;
      }
      expect(isSame(follower.state, writer.state)).toBe(true);
      expect(follower.position).toBe(writer.position);
      const read = load(schema, etcd.all(), writer);
      if (!read.ok) throw new Error(read.error.message);
      expect(isSame(read.value.state, writer.state)).toBe(true);
      const kept = scan(writer.state.keys);
      expect(scan(read.value.state.keys).every((entry, i) => entry === kept[i])).toBe(true);
    }
  }
});

const LEASES = ["lease-0", "lease-1"] as LeaseId[];
// One begins another's keys, and its past's; and some look different as etcd's keys.
const IDS = ["a", "a/1", "a/1/2", "a/2", '"\\', "ä/\ud800", "1", ""];
/** Commits, each of several effects. */
const arbitraryCommits = (() => {
  const id = fc.constantFrom(...IDS);
  const lease = fc.constantFrom(...LEASES);
  const tag = fc.constantFrom("x", "y", "z\0");
  const one = fc.record({
    id,
    tag,
    lease: fc.option(lease, { nil: undefined }),
    successor: fc.option(tag, { nil: undefined }),
    pastMax: fc.constantFrom(undefined, 1, 2, 3, 3),
    restores: fc.constantFrom(undefined, undefined, true as const),
  });
  const effect = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant("put" as const), puts: fc.array(one, { minLength: 1, maxLength: 3 }) }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("remove" as const), id }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constantFrom("grant" as const, "renew" as const, "revoke" as const), lease }),
    },
    // With so many rows, it has to be staged.
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant("many" as const), tag, lease: fc.option(lease, { nil: undefined }) }),
    },
  );
  return fc.array(fc.array(effect, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 12 });
})();
type Described = (typeof arbitraryCommits extends fc.Arbitrary<infer T> ? T : never)[number][number];

/** Adds an effect, if the leases that it is about are there. */
function addDescribed(draft: Draft, described: Described): void {
  const { leases } = draft.state;
  const there = (lease: LeaseId | undefined) => (lease && leases.has(lease) ? lease : undefined);
  if (described.kind === "put") {
    const byId = new Map(described.puts.map((one) => [one.id, one]));
    const puts = [...byId.values()].map(({ id, tag, lease, successor, pastMax, restores }) =>
      put(id, tag, there(lease), {
        pastMax,
        restores,
        ...(there(lease) && successor !== undefined && { successor: { id, tag: successor } }),
      }),
    );
    draft.add(writing(...puts));
  } else if (described.kind === "remove") draft.add(writing(sealRemove(`notes/${described.id}`)));
  else if (described.kind === "many") {
    const lease = there(described.lease);
    const { tag } = described;
    const more = { pastMax: 2, ...(lease && { successor: { id: "n", tag } }) };
    draft.add(writing(...Array.from({ length: ROWS_MAX }, (_, n) => put(`n${n}`, tag, lease, more))));
  } else if (described.kind === "grant") {
    if (!leases.has(described.lease)) draft.add({ kind: "grant-lease", lease: described.lease, ttlMs: 9 });
  } else if (leases.has(described.lease)) {
    draft.add({ kind: `${described.kind}-lease`, lease: described.lease });
  }
}

/** Whether a later state has what an earlier one had as the same objects: they may be large. */
function keepsValues(earlier: State, later: State): boolean {
  return scan(later.keys).every((entry) => {
    const { key, past = [] } = entry;
    const before = getFrom(earlier.keys, key);
    if (before?.modRevision === entry.modRevision) return before === entry;
    return past.every((one) => (before?.past?.find((had) => had.modRevision === one.modRevision) ?? one) === one);
  });
}

test("pasts and successors arrive as the writer has them, told or read anew, and leave no row behind", () => {
  fc.assert(
    fc.property(arbitraryCommits, (commits) => {
      const etcd = new Etcd();
      let writer = emptyReplica(schema);
      let follower = emptyReplica(schema);
      let [sequence, told] = [0, 0];
      for (const effects of commits) {
        const earlier = writer;
        const draft = new Draft(schema, writer);
        for (const effect of effects) addDescribed(draft, effect);
        const commit = draft.finish();
        if (!commit) continue;
        writer = commitTo(etcd, commit, ++sequence);
        const readUnsettled = load(schema, etcd.all());
        expect(readUnsettled.ok && isSame(readUnsettled.value.state, writer.state)).toBe(true);
        if (writer.unsettled.length > 0) writer = settle(etcd, writer, ++sequence);
        const heard = follower.state;
        for (; told < etcd.told.length; told++) {
          const followed = follow(schema, follower, etcd.told[told]!);
          if (!followed.ok) throw new Error(followed.error.message);
          follower = followed.value.replica;
        }
        expect(isSame(follower.state, writer.state)).toBe(true);
        const entries = scan(writer.state.keys);
        const rows = entries.map(({ past, successor }) => 1 + (past?.length ?? 0) + (successor ? 1 : 0));
        expect([...etcd.keys.keys()].filter(isContent)).toHaveLength(
          rows.reduce((sum, count) => sum + count, writer.state.leases.size),
        );
        // Who knew an earlier state keeps what is the same.
        const read = load(schema, etcd.all(), earlier);
        if (!read.ok) throw new Error(read.error.message);
        expect(isSame(read.value.state, writer.state)).toBe(true);
        expect(keepsValues(earlier.state, read.value.state)).toBe(true);
        expect(keepsValues(heard, follower.state)).toBe(true);
      }
    }),
    { numRuns: 60 },
  );
});

const single = (base: Replica, ...effects: Effect[]): Commit => {
  const draft = new Draft(schema, base);
  for (const effect of effects) draft.add(effect);
  const commit = draft.finish();
  if (!commit) throw new Error("nothing to commit");
  return commit;
};

test("each decision of a shared commit has its own revision, and what came to nothing has one too", () => {
  const commit = single(
    emptyReplica(schema),
    writing(put("a", "1")),
    writing(put("b", "1")),
    writing(put("a", "2")),
    writing(sealRemove("notes/b")),
  );
  expect(commit.events.map(({ revision }) => revision)).toEqual([1, 2, 3, 4]);
  expect(commit.rows.map(({ key }) => key)).toEqual(["records/notes/a"]);
  const etcd = new Etcd();
  const replica = commitTo(etcd, commit, 1);
  expect(replica.state.revision).toBe(4);
  const followed = follow(schema, emptyReplica(schema), etcd.told[0]!);
  expect(followed).toMatchObject({
    value: {
      events: [{ changes: [] }, { changes: [] }, { changes: [] }, { revision: 4, changes: [{ key: "notes/a" }] }],
    },
  });
  expect(scan(replica.state.keys)).toMatchObject([{ createRevision: 1, modRevision: 3, version: 2 }]);
});

test("an effect is worked out on the state before it, also one that was there already", () => {
  const draft = new Draft(schema, emptyReplica(schema));
  const effect = writing(put("a", "1", undefined, { pastMax: 2 }));
  expect(draft.fits(effect)).toBe(true);
  draft.add(effect);
  draft.add(effect);
  expect(scan(draft.state.keys)).toMatchObject([{ version: 2, modRevision: 2, past: [{ modRevision: 1 }] }]);
});

test("a draft that changes nothing is no commit", () => {
  const draft = new Draft(schema, emptyReplica(schema));
  draft.add(writing(sealRemove("notes/none")));
  expect(draft.finish()).toBeUndefined();
});

/** Of a record on a lease, with a successor and a past. */
const held = () => {
  const etcd = new Etcd();
  let replica = emptyReplica(schema);
  const lease = "lease-0" as LeaseId;
  const commits: Effect[][] = [
    [{ kind: "grant-lease", lease, ttlMs: 9 }],
    [writing(put("a", "1", undefined, { pastMax: 2 }))],
    [writing(put("a", "2", undefined, { pastMax: 2 }))],
    [writing(put("a", "3", undefined, { pastMax: 2 })), writing(put("a", "4", undefined, { pastMax: 2 }))],
    [writing(put("a", "5", lease, { pastMax: 2, successor: { id: "a", tag: "6" } }))],
  ];
  const before: Replica[] = [];
  for (const [i, effects] of commits.entries()) {
    before.push(replica);
    replica = commitTo(etcd, single(replica, ...effects), i + 1);
  }
  return { etcd, replica, before, lease };
};

test("a commit writes of a past only what is new, and removes only what fell out", () => {
  const { etcd, replica, lease } = held();
  const rows = etcd.told.map(({ changes }) => changes.map(({ key, value }) => [key, value]).slice(1));
  expect(rows.slice(1)).toEqual([
    [["records/notes/a", '[1,1,1,1,null,{"id":"a","tag":"1"}]']],
    [
      ["records/notes/a", '[2,1,2,1,null,{"id":"a","tag":"2"}]'],
      ["past/notes/a/1", '[1,{"id":"a","tag":"1"}]'],
    ],
    [
      ["records/notes/a", '[4,1,4,1,null,{"id":"a","tag":"4"}]'],
      ["past/notes/a/3", '[1,{"id":"a","tag":"3"}]'],
      ["past/notes/a/2", '[1,{"id":"a","tag":"2"}]'],
      ["past/notes/a/1", undefined],
    ],
    [
      ["records/notes/a", '[5,1,5,1,"lease-0",{"id":"a","tag":"5"}]'],
      ["successors/notes/a", '[1,{"id":"a","tag":"6"}]'],
      ["past/notes/a/4", '[1,{"id":"a","tag":"4"}]'],
      ["past/notes/a/2", undefined],
    ],
  ]);
  const ended = single(replica, { kind: "revoke-lease", lease });
  expect(ended.rows).toEqual([
    { key: "records/notes/a", text: '[6,1,6,1,null,{"id":"a","tag":"6"}]' },
    { key: "successors/notes/a", text: undefined },
    { key: "leases/lease-0", text: undefined },
  ]);
  expect(single(replica, writing(sealRemove("notes/a"))).rows.map(({ key }) => key)).toEqual([
    "records/notes/a",
    "successors/notes/a",
    "past/notes/a/4",
    "past/notes/a/3",
  ]);
});

const PUT_BACK: [string, string, string | undefined, Trouble["kind"], string][] = [
  ["a past without its record", "records/notes/a", undefined, "damaged", "successors/notes/a"],
  ["a past of a record that is not there", "past/notes/b/1", '[1,{"id":"b"}]', "damaged", "past/notes/b/1"],
  ["a past that is newer than its record", "past/notes/a/5", '[1,{"id":"a"}]', "damaged", "past/notes/a/5"],
  [
    "a past that is older than its record",
    "records/notes/a",
    '[5,4,5,1,"lease-0",{"id":"a","tag":"5"}]',
    "damaged",
    "past/notes/a/3",
  ],
  ["a past that is none", "past/notes/a/3", '{"id":"a"}', "damaged", "past/notes/a/3"],
  ["a past that is no JSON", "past/notes/a/3", "[1", "damaged", "past/notes/a/3"],
  ["a past without a value", "past/notes/a/3", "[1,null]", "damaged", "past/notes/a/3"],
  ["a past of no revision", "past/notes/a/03", '[1,{"id":"a"}]', "damaged", "past/notes/a/03"],
  ["a past of no key", "past/3", '[1,{"id":"a"}]', "damaged", "past/3"],
  ["a past of a later version", "past/notes/a/2", '[7,{"id":"a"}]', "newer", "version 7"],
  ["a successor that is none", "successors/notes/a", "[1]", "damaged", "successors/notes/a"],
  ["a successor of a later version", "successors/notes/a", '[8,{"id":"a"}]', "newer", "version 8"],
  [
    "a successor of a record on no lease",
    "records/notes/a",
    '[5,1,5,1,null,{"id":"a","tag":"5"}]',
    "damaged",
    "successors/notes/a",
  ],
];
test.each(PUT_BACK)("%s is found out by whoever reads everything", (_, key, value, kind, part) => {
  const { etcd } = held();
  etcd.commit([{ key, text: value }]);
  const read = load(schema, etcd.all());
  expect(read).toMatchObject({ ok: false, error: { kind } });
  expect(!read.ok && read.error.message).toContain(part);
});

test.each<[string, (changes: { key: string; value: string | undefined }[]) => void, string]>([
  ["a past that comes without its record", (changes) => (changes[1]!.key = "past/notes/b/1"), "past/notes/b/1"],
  ["a past that comes alone", (changes) => (changes[1]!.key = "past/notes/a/1"), "past/notes/a"],
  ["a past that is none", (changes) => (changes[3]!.value = "[]"), "past/notes/a/4"],
  ["a successor that is none", (changes) => (changes[2]!.value = "null"), "successors/notes/a"],
  ["a successor without a lease", (changes) => (changes[1]!.value = '[5,1,5,1,null,{"id":"a"}]'), "successors/notes/a"],
  ["a record that goes, and leaves its past", (changes) => (changes[1]!.value = undefined), "successors/notes/a"],
])("%s is found out by a follower", (_, damage, part) => {
  const { etcd, before } = held();
  const told = etcd.told.at(-1)!;
  damage(told.changes);
  const followed = follow(schema, before.at(-1)!, told);
  expect(followed).toMatchObject({ ok: false, error: { kind: "damaged" } });
  expect(!followed.ok && followed.error.message).toContain(part);
});

test("rows beside a record that go without it, or stay without it, are found out by a follower", () => {
  const { etcd, before, replica } = held();
  /** What etcd tells of a commit, without some of its rows. */
  const partOf = ({ revision, changes }: Etcd["told"][number], isThere: (key: string) => boolean) => {
    const [head, ...rows] = changes;
    const left = rows.filter(({ key }) => isThere(key));
    const value = present(head?.value, "a head").replace(`"rows":${rows.length}`, `"rows":${left.length}`);
    return { revision, changes: [{ key: HEAD_KEY, value }, ...left] };
  };
  const alone = follow(
    schema,
    before[3]!,
    partOf(etcd.told[3]!, (key) => key === "past/notes/a/1"),
  );
  expect(alone).toMatchObject({ error: { kind: "damaged", message: expect.stringContaining("records/notes/a") } });
  commitTo(etcd, single(replica, writing(put("a", "7", undefined, { pastMax: 2 }))), 9);
  const whole = etcd.told.at(-1)!;
  expect(
    follow(
      schema,
      replica,
      partOf(whole, () => true),
    ).ok,
  ).toBe(true);
  const left = follow(
    schema,
    replica,
    partOf(whole, (key) => key !== "successors/notes/a"),
  );
  expect(left).toMatchObject({ error: { kind: "damaged", message: expect.stringContaining("successors/notes/a") } });
});

test("pasts and successors of an earlier version are brought to this one, and kept as they were where the table is unknown", () => {
  const { etcd } = held();
  const longer = schemaOf([
    defineTable({
      name: "notes",
      version: 3,
      key: (note: { readonly id: string }) => note.id,
      migrate: (stored, from) => ({ id: (stored as Note).id, was: (stored as Note).tag, from }),
    }),
  ]);
  const at = (was: string) => ({ id: "a", was, from: 1 });
  const entry = {
    format: 3,
    value: at("5"),
    successor: at("6"),
    past: [
      // Brought to this version when it is read.
      { format: 1, text: '{"id":"a","tag":"4"}', modRevision: 4 },
      { format: 1, text: '{"id":"a","tag":"3"}', modRevision: 3 },
    ],
  };
  let follower = emptyReplica(longer);
  for (const told of etcd.told) {
    const followed = follow(longer, follower, told);
    if (!followed.ok) throw new Error(followed.error.message);
    follower = followed.value.replica;
  }
  const read = load(longer, etcd.all());
  for (const replica of [follower, ...(read.ok ? [read.value] : [])]) {
    const [found] = scan(replica.state.keys);
    expect(found).toMatchObject(entry);
    expect(Object.isFrozen(found?.successor)).toBe(true);
  }
  expect(read.ok).toBe(true);
  const unknown = load(schemaOf([]), etcd.all());
  expect(unknown.ok && scan(unknown.value.state.keys)).toMatchObject([
    {
      format: 1,
      successor: { tag: "6" },
      past: [
        { format: 1, modRevision: 4 },
        { format: 1, modRevision: 3 },
      ],
    },
  ]);
});

test("what a commit may be is measured with what it adds to pasts, and what takes a place at a lease's end", () => {
  const text = "x".repeat(400_000);
  const base = new Draft(schema, emptyReplica(schema));
  const lease = "lease-0" as LeaseId;
  base.add({ kind: "grant-lease", lease, ttlMs: 9 });
  base.add(writing(put("a", text)));
  for (const id of ["b", "c", "d"]) base.add(writing(put(id, "", lease, { successor: { id, tag: text } })));
  for (let n = 0; n < ROWS_MAX; n++) base.add(writing(put("many", `${n}`, undefined, { pastMax: ROWS_MAX })));
  const replica = commitTo(new Etcd(), present(base.finish(), "a commit"), 1);
  const draft = () => {
    const made = new Draft(schema, replica);
    made.add(writing(put("e", text), put("f", text)));
    return made;
  };
  expect(draft().fits(writing(put("a", text)))).toBe(true);
  expect(draft().fits(writing(put("a", text, undefined, { pastMax: 1 })))).toBe(false);
  expect(draft().fits({ kind: "revoke-lease", lease })).toBe(false);
  expect(draft().fits(writing(sealRemove("notes/many")))).toBe(false);
  expect(draft().fits(writing(put("many", "", undefined, { pastMax: ROWS_MAX })))).toBe(true);
});

test.each<[string, (etcd: Etcd) => void, Trouble["kind"], string]>([
  ["a commit that was not told", (etcd) => etcd.told.shift(), "gap", "was made on"],
  ["a commit that was told by half", (etcd) => etcd.told[0]!.changes.pop(), "gap", "incomplete"],
  ["a head that was removed", (etcd) => (etcd.told[0]!.changes[0]!.value = undefined), "damaged", "head"],
  ["a head that is none", (etcd) => (etcd.told[0]!.changes[0]!.value = "{}"), "damaged", "head"],
  ["a record that is none", (etcd) => (etcd.told[0]!.changes[1]!.value = "[1,2]"), "damaged", "records/notes/a"],
  ["JSON that is none", (etcd) => (etcd.told[0]!.changes[1]!.value = "{"), "damaged", "records/notes/a"],
  [
    "a record on a lease that is none",
    (etcd) => (etcd.told[0]!.changes[1]!.value = '[1,1,1,1,"nope",{"id":"a"}]'),
    "damaged",
    "lease nope",
  ],
  [
    "a record of a later version",
    (etcd) => (etcd.told[0]!.changes[1]!.value = '[1,1,1,9,null,{"id":"a"}]'),
    "newer",
    "version 9",
  ],
  [
    "a revision from nowhere",
    (etcd) => {
      const head = etcd.told[0]!.changes[0]!;
      head.value = head.value!.replace('"revision":1', '"revision":999999999');
    },
    "gap",
    "leads",
  ],
])("%s is found out", (_, damage, kind, part) => {
  const etcd = new Etcd();
  const one = commitTo(etcd, single(emptyReplica(schema), writing(put("a", "1"))), 1);
  commitTo(etcd, single(one, writing(put("b", "1"))), 2);
  damage(etcd);
  const followed = follow(schema, emptyReplica(schema), etcd.told[0]!);
  expect(followed).toMatchObject({ ok: false, error: { kind } });
  expect(!followed.ok && followed.error.message).toContain(part);
});

test("an etcd that was put back, and has gone on from there, is found out", () => {
  const etcd = new Etcd();
  const kept = commitTo(etcd, single(emptyReplica(schema), writing(put("a", "1"))), 1);
  const lost = commitTo(etcd, single(kept, writing(put("a", "lost"))), 2);
  etcd.revision = kept.position;
  const other = commitTo(etcd, single(kept, writing(put("a", "instead"))), 3);
  expect(other.position).toBe(lost.position);
  commitTo(etcd, single(other, writing(put("b", "1"))), 4);
  const [, , instead, next] = etcd.told;
  expect(follow(schema, lost, next!)).toMatchObject({ ok: false, error: { kind: "restored" } });
  // Who has not seen what was lost goes on.
  const followed = follow(schema, kept, instead!);
  expect(followed.ok && follow(schema, followed.value.replica, next!).ok).toBe(true);
});

test("keys that change without a head change nothing here", () => {
  const etcd = new Etcd();
  const one = commitTo(etcd, single(emptyReplica(schema), writing(put("a", "1"))), 1);
  etcd.commit([
    { key: "records/notes/a", text: undefined },
    { key: "something/else", text: "?" },
  ]);
  expect(follow(schema, one, etcd.told[1]!)).toMatchObject({ ok: true, value: { replica: one, events: [] } });
});

test("a staged commit whose chunks are not all there is a gap to a follower, and damage to a reader", () => {
  const many = Array.from({ length: 400 }, (_, n) => put(`${n}`, "t"));
  const etcd = new Etcd();
  commitTo(etcd, single(emptyReplica(schema), writing(...many)), 1);
  const [, ...rest] = etcd.told;
  let replica = emptyReplica(schema);
  let last: ReturnType<typeof follow> | undefined;
  for (const told of rest) {
    last = follow(schema, replica, told);
    if (last.ok) replica = last.value.replica;
  }
  expect(last).toMatchObject({ ok: false, error: { kind: "gap" } });
  etcd.keys.delete(stagedKey("me-1", 0));
  expect(load(schema, etcd.all())).toMatchObject({ ok: false, error: { kind: "damaged" } });
});

test("records without a head are not taken for a cloud", () => {
  const etcd = new Etcd();
  commitTo(etcd, single(emptyReplica(schema), writing(put("a", "1"))), 1);
  etcd.keys.delete(HEAD_KEY);
  expect(load(schema, etcd.all())).toMatchObject({ ok: false, error: { kind: "damaged" } });
});

test("a chunk's rows come back as they were", () => {
  const rows: Row[] = [
    { key: 'records/notes/"\\\\', text: '[1,1,1,1,null,{"a":[null,"ä"]}]' },
    { key: "leases/x", text: "5" },
    { key: 'past/notes/"\\\\/7', text: '[1,{"a":"ä"}]' },
    { key: "records/notes/b", text: undefined },
  ];
  expect(readChunk(chunkText(rows))).toEqual(rows);
  expect(readChunk("[[1,2]]")).toBeUndefined();
});
