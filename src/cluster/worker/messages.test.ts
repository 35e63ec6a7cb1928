import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Entry } from "../raft/types.ts";
import { pack, packEntries, unpack, unpackEntries } from "./messages.ts";

const bytes = fc.uint8Array({ maxLength: 40 });

test("byte strings come out of a pack as they went in, and the pack is one buffer", () => {
  fc.assert(
    fc.property(fc.array(bytes), (all) => {
      const packed = pack(all);
      expect(packed.bytes.buffer.byteLength).toBe(all.reduce((sum, { length }) => sum + length, 0));
      expect(unpack(packed)).toEqual(all);
    }),
  );
});

test("entries come out of a pack as they went in, across terms", () => {
  const entries = fc
    .tuple(fc.integer({ min: 1, max: 1e9 }), fc.array(fc.tuple(fc.integer({ min: 0, max: 2 }), bytes)))
    .map(([first, steps]) => {
      let term = 1;
      return steps.map(([step, data], i): Entry => {
        term += step;
        return { index: first + i, term, data };
      });
    });
  fc.assert(
    fc.property(entries, (all) => {
      expect(unpackEntries(packEntries(all))).toEqual(all);
    }),
  );
});
