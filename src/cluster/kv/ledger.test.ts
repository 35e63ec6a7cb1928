import { expect, test } from "bun:test";
import { defineTable } from "../../model/store.ts";
import { decodeCommand } from "./command.ts";
import { Ledger } from "./ledger.ts";
import { advance, emptyReplicated } from "./replicated.ts";
import { schemaOf } from "./schema.ts";

const rows = defineTable({ name: "rows", version: 1, key: (row: { readonly id: string }) => row.id });
const schema = schemaOf([rows]);

const put = (id: string) => `["w",[["p","rows/${id}",1,null,{"id":"${id}"}]]]`;
const remove = (id: string) => `["w",[["r","rows/${id}"]]]`;

/** A ledger after these commands, each in a term. */
function after(
  commands: readonly (readonly [term: number, text: string])[],
  start = Ledger.empty(emptyReplicated(schema)),
) {
  for (const [term, text] of commands) {
    const entry = { index: start.index + 1, term, data: Buffer.from(text) };
    start.add(entry, advance(schema, start.now, decodeCommand(schema, entry.data)));
  }
  return start;
}

test("the digest is the same for the same commands, and another for any other, or for another result of the same", () => {
  const commands = [put("a"), put("b"), remove("a")].map((text) => [1, text] as const);
  const digest = after(commands).digest;
  expect(after(commands).digest).toBe(digest);
  const others = [
    commands.slice(1),
    commands.slice(0, 2),
    commands.toReversed(),
    [...commands, [1, put("c")] as const],
  ];
  for (const other of others) expect(after(other).digest).not.toBe(digest);
  // Two states that came apart unseen: one has a record more, or a revision more, and then applies the same command.
  const same = after(commands);
  const apart = after(commands);
  apart.now = advance(schema, apart.now, decodeCommand(schema, Buffer.from(put("x"))));
  expect(after([[1, put("z")]], apart).digest).not.toBe(after([[1, put("z")]], same).digest);
  const revised = after(commands);
  revised.now = { ...revised.now, state: { ...revised.now.state, revision: revised.now.state.revision + 1 } };
  expect(after([[1, put("z")]], revised).digest).not.toBe(after([[1, put("z")]], after(commands)).digest);
});

test("the digest goes on from a snapshot as if there had been none", () => {
  const commands = [put("a"), put("b"), remove("a"), put("c")].map((text) => [1, text] as const);
  const captured = after(commands.slice(0, 2)).captured();
  expect(after(commands.slice(2), new Ledger(captured)).digest).toBe(after(commands).digest);
});

test("commands are counted by term, and what is captured stays as it was", () => {
  const ledger = after([
    [2, put("a")],
    [2, put("b")],
    [5, put("c")],
  ]);
  const captured = ledger.captured();
  after([[5, put("d")]], ledger);
  ledger.add({ index: ledger.index + 1, term: 6, data: new Uint8Array(0) });
  expect([1, 2, 3, 5, 6].map((term) => ledger.countOf(term))).toEqual([0, 2, 0, 2, 0]);
  expect(captured.terms).toEqual([
    [2, 2],
    [5, 1],
  ]);
  // What is too long ago is not known, which is another thing than nothing.
  for (let term = 10; term < 80; term++) after([[term, put("e")]], ledger);
  expect(ledger.countOf(2)).toBeUndefined();
  expect(ledger.countOf(79)).toBe(1);
  expect(ledger.countOf(80)).toBe(0);
});
