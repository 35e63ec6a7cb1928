import { expect, test } from "bun:test";
import { seededRandom } from "../../lib/random.ts";
import { defineTable, type LeaseId } from "../../model/store.ts";
import { sealPut, sealRemove } from "../kv/command.ts";
import { schemaOf } from "../kv/schema.ts";
import { scan } from "../kv/sorted-map.ts";
import type { State } from "../kv/state.ts";
import { type Commit, Draft, type Effect, ROWS_MAX } from "./draft.ts";
import { chunkText, HEAD_KEY, makeHead, type Row, readChunk, stagedKey } from "./layout.ts";
import { emptyReplica, follow, load, type Replica, type Trouble } from "./replica.ts";

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
  const head = makeHead({ revision, previous: replica.position, writer: "me", sequence, rows: 0 });
  const gone = [...etcd.keys.keys()].filter((key) => key.startsWith("staged/"));
  const position = etcd.commit([{ key: HEAD_KEY, text: head.text }, ...gone.map((key) => ({ key, text: undefined }))]);
  return { ...replica, position, head, unsettled: [], staged: new Map() };
}

const put = (id: string, tag: string, lease?: LeaseId) => {
  const sealed = sealPut(`notes/${id}`, { id, tag }, 1, lease);
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

test("a draft that changes nothing is no commit", () => {
  const draft = new Draft(schema, emptyReplica(schema));
  draft.add(writing(sealRemove("notes/none")));
  expect(draft.finish()).toBeUndefined();
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
    { key: "records/notes/b", text: undefined },
  ];
  expect(readChunk(chunkText(rows))).toEqual(rows);
  expect(readChunk("[[1,2]]")).toBeUndefined();
});
