import { expect, test } from "bun:test";
import fc from "fast-check";
import { present } from "../../lib/assert.ts";
import { defineTable, type LeaseId, RECORD_BYTES_MAX } from "../../model/store.ts";
import { decodeCommand, encodeWrites, type SealedOperation, sealPut, sealRemove, withoutText } from "./command.ts";
import { schemaOf } from "./schema.ts";

const rows = defineTable({ name: "rows", version: 3, key: (record: { id: string }) => record.id });
const schema = schemaOf([rows]);

const sealed = (result: ReturnType<typeof sealPut>): SealedOperation =>
  present(result.ok ? result.value : undefined, "it fits");

test("what is written into the log is read back as it was", () => {
  const optional = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined });
  const write = fc.record({
    key: fc.integer(),
    lease: optional(fc.constant("00000000000000aa" as LeaseId)),
    value: fc.jsonValue(),
    successor: optional(fc.jsonValue()),
    pastMax: optional(fc.nat(9)),
    restores: optional(fc.constant(true as const)),
    isRemoval: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(write, { minLength: 1, maxLength: 8 }), (writes) => {
      const operations = writes.map(({ key, lease, value, successor, pastMax, restores, isRemoval }, at) => {
        const name = `rows/${key}-${at}`;
        if (isRemoval) return sealRemove(name);
        const next = successor === undefined ? undefined : { value: successor };
        return sealed(sealPut(name, { value }, 3, { lease, pastMax, restores, successor: next }));
      });
      const command = decodeCommand(schema, encodeWrites(operations));
      expect(command).toEqual({
        kind: "command",
        // The value's text is for whoever had it at hand.
        command: { kind: "write", operations: operations.map(({ operation }) => withoutText(operation)) },
      });
    }),
  );
});

test("a successor has a record's limit, too", () => {
  const put = sealPut("rows/a", { id: "a" }, 3, { successor: { text: "x".repeat(RECORD_BYTES_MAX) } });
  expect(put).toMatchObject({ ok: false, error: { reason: "too-large" } });
});

test("values of an earlier version are brought to this one, a successor too", () => {
  const migrating = schemaOf([defineTable({ ...rows, migrate: (stored, from) => ({ id: `${from}`, stored }) })]);
  const text = `["w",[["p","rows/a",2,"00000000000000aa",{"n":1},4,{"n":2}]]]`;
  const { command } = decodeCommand(migrating, Buffer.from(text)) as { command: unknown };
  const at = (n: number) => ({ id: "2", stored: { n } });
  expect(command).toMatchObject({ operations: [{ format: 3, value: at(1), successor: at(2), pastMax: 4 }] });
});
