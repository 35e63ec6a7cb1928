import { expect, test } from "bun:test";
import fc from "fast-check";
import { defineTable, type LeaseId } from "../../model/store.ts";
import { type PutOptions, sealPut, sealRemove, withoutText } from "./command.ts";
import {
  type Answer,
  encodeAnswer,
  encodeDo,
  encodeRegister,
  encodeTransaction,
  numbered,
  parseAnswer,
  parseRequest,
  type Transaction,
} from "./forward-message.ts";
import { schemaOf } from "./schema.ts";

type Row = { readonly id: string; readonly group: string };
const rows = defineTable({
  name: "rows",
  version: 2,
  key: (row: Row) => row.id,
  indexes: { byGroup: (row) => row.group },
  migrate: (stored) => ({ ...(stored as Row), group: "migrated" }),
});
const schema = schemaOf([rows]);
const lease = "00000000000000aa" as LeaseId;

const sealed = (id: string, group = "g", options: PutOptions = {}) => {
  const put = sealPut(`rows/${id}`, { id, group, text: "ä\u0001\ud800" }, 2, options);
  if (!put.ok) throw new Error(put.error.message);
  const { operation, text } = put.value;
  // The value's text is for whoever had it at hand.
  return { operation: withoutText(operation), text };
};

const transactions: Transaction[] = [
  { kind: "write", compares: [], operations: [] },
  {
    kind: "write",
    compares: [
      { kind: "key", key: "rows/a", modRevision: 0 },
      { kind: "range", from: "rows/", to: "rows0", count: 3, maxRevision: 7 },
      { kind: "index", slot: 1, value: "g\0h", count: 1, maxRevision: 2 },
    ],
    operations: [
      sealed("a"),
      sealed("b", "h", { lease }),
      sealRemove("rows/c"),
      sealed("d", "g", { pastMax: 9 }),
      sealed("e", "g", { lease, successor: { id: "e", group: "after" } }),
      sealed("f", "g", { lease, pastMax: 2, successor: { id: "f", group: "after" } }),
      sealed("g", "g", { pastMax: 2, restores: true }),
      sealed("h", "g", { lease, pastMax: 2, successor: { id: "h", group: "after" }, restores: true }),
    ],
  },
  { kind: "grant-lease", lease, ttlMs: 1500 },
  { kind: "revoke-lease", lease },
  { kind: "keep-alive", lease },
];

test("what is read is what was written", () => {
  const items = transactions.map((transaction, i) => numbered(7 + i, encodeTransaction(schema, transaction)));
  const read = parseRequest(schema, encodeDo(3, 4, 5, items));
  expect(read).toEqual({
    ok: true,
    value: {
      kind: "do",
      term: 3,
      session: 4,
      low: 5,
      items: transactions.map((transaction, i) => ({ number: 7 + i, transaction })),
    },
  });
  expect(parseRequest(schema, encodeRegister(9))).toEqual({ ok: true, value: { kind: "register", term: 9 } });
  const answers: Answer[] = [
    { kind: "moved" },
    { kind: "expired" },
    { kind: "bad", message: "no" },
    { kind: "session", session: 12 },
    {
      kind: "done",
      index: 99,
      results: ["committed", "conflict", "unresolved", { kind: "store", reason: "busy", message: "later" }],
    },
  ];
  for (const answer of answers) expect(parseAnswer(encodeAnswer(answer), 4)).toEqual({ ok: true, value: answer });
});

test("values are frozen, and brought to this version of their table", () => {
  const old = `[7,"w",[],[["p","rows/a",1,null,{"id":"a","deep":[{}]}]]]`;
  const read = parseRequest(schema, encodeDo(1, 1, 1, [old]));
  if (!read.ok || read.value.kind !== "do") throw new Error("not read");
  const { transaction } = read.value.items[0]!;
  if (transaction.kind !== "write") throw new Error("not a write");
  const [{ operation, text }] = transaction.operations as [(typeof transaction.operations)[0]];
  expect(operation).toEqual({
    kind: "put",
    key: "rows/a",
    format: 2,
    value: { id: "a", deep: [{}], group: "migrated" },
  });
  expect(text).toBe('["p","rows/a",2,null,{"id":"a","deep":[{}],"group":"migrated"}]');
  if (operation.kind === "put") expect(Object.isFrozen((operation.value as { deep: object[] }).deep[0])).toBe(true);
});

const put = (key: string, format: unknown, leaseId: unknown, value: string) =>
  `[1,"w",[],[["p",${JSON.stringify(key)},${format},${JSON.stringify(leaseId)},${value}]]]`;
const refused: [string, string][] = [
  ["no JSON", "[1,"],
  ["no list", "{}"],
  ["another version", '[2,"do",1,1,1,[]]'],
  ["another request", '[1,"undo",1,1,1,[]]'],
  ["a term that is no number", '[1,"register","1"]'],
  ["a term below 0", '[1,"register",-1]'],
  ["an item that is no list", '[1,"do",1,1,1,[7]]'],
  ["an item below the low mark", '[1,"do",1,1,2,[[1,"k","00000000000000aa"]]]'],
  ["a number twice", '[1,"do",1,1,1,[[1,"k","00000000000000aa"],[1,"k","00000000000000aa"]]]'],
  ["an item that is unknown", '[1,"do",1,1,1,[[1,"q","00000000000000aa"]]]'],
  ["a lease with another name", '[1,"do",1,1,1,[[1,"k","..\\"]]]'],
  ["a lease that never ends", '[1,"do",1,1,1,[[1,"g","00000000000000aa",1e300]]]'],
  ["a key that is empty", `[1,"do",1,1,1,[${put("", 1, null, "{}")}]]`],
  ["a key with NUL", `[1,"do",1,1,1,[${put("rows/\0", 1, null, "{}")}]]`],
  ["a key that is too long", `[1,"do",1,1,1,[${put(`rows/${"k".repeat(3000)}`, 1, null, "{}")}]]`],
  ["a format that is no number", `[1,"do",1,1,1,[${put("rows/a", "null", null, "{}")}]]`],
  ["a format of a later version", `[1,"do",1,1,1,[${put("rows/a", 3, null, "{}")}]]`],
  ["a value that is no object", `[1,"do",1,1,1,[${put("rows/a", 2, null, "1")}]]`],
  ["a number that JSON can't give back", `[1,"do",1,1,1,[${put("rows/a", 2, null, '{"n":1e999}')}]]`],
  ["a record that is too large", `[1,"do",1,1,1,[${put("rows/a", 2, null, `{"n":"${"x".repeat(1_050_000)}"}`)}]]`],
  ["a past of no length", '[1,"do",1,1,1,[[1,"w",[],[["p","rows/a",2,null,{},0]]]]]'],
  ["a successor that is none", `[1,"do",1,1,1,[[1,"w",[],[["p","rows/a",2,"${lease}",{},null,7]]]]]`],
  ["a successor without a lease", '[1,"do",1,1,1,[[1,"w",[],[["p","rows/a",2,null,{},null,{}]]]]]'],
  ["a value nested too deeply", `[1,"do",1,1,1,[${put("rows/a", 2, null, "[".repeat(5e5) + "]".repeat(5e5))}]]`],
  ["a key written twice", '[1,"do",1,1,1,[[1,"w",[],[["r","rows/a"],["r","rows/a"]]]]]'],
  ["a compare of nothing", '[1,"do",1,1,1,[[1,"w",[[]],[]]]]'],
  ["a compare without a revision", '[1,"do",1,1,1,[[1,"w",[["k","rows/a"]],[]]]]'],
  ["a compare by an index that is not known", '[1,"do",1,1,1,[[1,"w",[["i","rows","byAge","1",1,1]],[]]]]'],
];
test.each(refused)("%s is refused, and harms nobody", (_, text) => {
  expect(parseRequest(schema, Buffer.from(text)).ok).toBe(false);
});

test("no bytes make a reader throw", () => {
  const items = transactions.map((transaction, i) => numbered(7 + i, encodeTransaction(schema, transaction)));
  const good = Buffer.from(encodeDo(3, 4, 5, items));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 4 }), (flips) => {
      const bytes = Buffer.from(good);
      for (const [at, byte] of flips) bytes[at] = byte;
      expect(typeof parseRequest(schema, bytes).ok).toBe("boolean");
      expect(typeof parseAnswer(bytes, 1).ok).toBe("boolean");
    }),
    { numRuns: 3000 },
  );
});
