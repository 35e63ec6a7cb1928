import { expect, test } from "bun:test";
import fc from "fast-check";
import { present } from "../../lib/assert.ts";
import { defineTable, type LeaseId } from "../../model/store.ts";
import { decodeCommand, encodeWrites, type SealedOperation, sealPut, sealRemove } from "./command.ts";
import { schemaOf } from "./schema.ts";

const rows = defineTable({ name: "rows", version: 3, key: (record: { id: string }) => record.id });
const schema = schemaOf([rows]);

const sealed = (result: ReturnType<typeof sealPut>): SealedOperation =>
  present(result.ok ? result.value : undefined, "it fits");

test("what is written into the log is read back as it was", () => {
  const lease = fc.option(fc.constant("00000000000000aa" as LeaseId), { nil: undefined });
  const write = fc.record({
    key: fc.integer(),
    lease,
    value: fc.jsonValue(),
    how: fc.constantFrom("put", "same", "remove"),
  });
  fc.assert(
    fc.property(fc.array(write, { minLength: 1, maxLength: 8 }), (writes) => {
      let before: { record: object; sealed: SealedOperation } | undefined;
      const operations = writes.map(({ key, lease, value, how }, at) => {
        const name = `rows/${key}-${at}`;
        if (how === "remove") return sealRemove(name);
        const same = how === "same" ? before : undefined;
        const record = same?.record ?? { value };
        const put = sealed(sealPut(name, record, 3, lease, same?.sealed));
        before = { record, sealed: put };
        return put;
      });
      const command = decodeCommand(schema, encodeWrites(operations));
      expect(command).toEqual({
        kind: "command",
        command: { kind: "write", operations: operations.map(({ operation }) => operation) },
      });
    }),
  );
});

test("one record under two keys is turned into JSON, and written, once", () => {
  const record = { id: "a", text: "x".repeat(1000) };
  const first = sealed(sealPut("rows/a", record, 3, undefined));
  const second = sealed(sealPut("rows/b", record, 3, undefined, first));
  expect(first.operation.kind === "put" && second.operation.kind === "put").toBe(true);
  expect(encodeWrites([first, second]).length).toBeLessThan(1200);
  // Not next to each other, each stands for itself.
  const between = sealRemove("rows/c");
  expect(encodeWrites([first, between, second]).length).toBeGreaterThan(2000);
});
