import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  appended,
  compacted,
  emptyLog,
  firstInMemory,
  lastTerm,
  lastWithin,
  type RaftLog,
  slice,
  termAt,
  trimmed,
  truncated,
} from "./log.ts";
import type { Entry } from "./types.ts";

const entry = (index: number, term: number): Entry => ({ index, term, data: Buffer.alloc(index % 5) });

/** The same log, the plain way: `terms[i]` is the term of entry i, from `base` on. */
type Model = { readonly base: number; readonly terms: readonly number[]; readonly firstInMemory: number };

const operation = fc.oneof(
  fc.record({ do: fc.constant("append" as const), raise: fc.nat(2), count: fc.nat(4) }),
  fc.record({ do: fc.constant("truncate" as const), at: fc.nat(40) }),
  fc.record({ do: fc.constant("compact" as const), at: fc.nat(40) }),
  fc.record({ do: fc.constant("trim" as const), at: fc.nat(40), bytes: fc.nat(20) }),
);

function agrees(log: RaftLog, { base, terms, firstInMemory: first }: Model): void {
  const last = terms.length - 1;
  expect(log.last).toBe(last);
  expect(lastTerm(log)).toBe(terms[last]!);
  expect(termAt(log, base - 1)).toBeUndefined();
  expect(termAt(log, last + 1)).toBeUndefined();
  for (let index = base; index <= last; index++) expect(termAt(log, index)).toBe(terms[index]!);
  expect(firstInMemory(log)).toBe(first);
  if (first > base + 1) expect(slice(log, first - 1, last, 100)).toBeUndefined();
  for (let index = first; index <= last; index++) {
    const found = slice(log, index, last, Number.POSITIVE_INFINITY)!;
    expect(found.map(({ index, term }) => [index, term])).toEqual(
      terms.slice(index).map((term, i) => [index + i, term]),
    );
  }
  for (let term = 0; term <= terms[last]! + 1; term++) {
    let index = last;
    while (index >= base && terms[index]! > term) index--;
    expect(lastWithin(log, last + 3, term)).toEqual(index < base ? undefined : { index, term: terms[index]! });
  }
}

test("a log does what a list of terms would do, and old views of it stay as they were", () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 25 }), (operations) => {
      let log = emptyLog({ index: 0, term: 0 });
      let model: Model = { base: 0, terms: [0], firstInMemory: 1 };
      const views: [RaftLog, Model][] = [];
      for (const operation of operations) {
        views.push([log, model]);
        const last = model.terms.length - 1;
        switch (operation.do) {
          case "append": {
            const term = model.terms[last]! + operation.raise;
            const added = Array.from({ length: operation.count }, (_, i) => entry(last + 1 + i, term));
            log = appended(log, added);
            model = { ...model, terms: [...model.terms, ...added.map(() => term)] };
            break;
          }
          case "truncate": {
            const at = Math.max(model.base, Math.min(last, operation.at));
            log = truncated(log, at);
            model = {
              ...model,
              terms: model.terms.slice(0, at + 1),
              firstInMemory: Math.min(model.firstInMemory, at + 1),
            };
            break;
          }
          case "compact": {
            const at = Math.min(last, operation.at);
            if (at <= model.base) break;
            log = compacted(log, { index: at, term: model.terms[at]! });
            model = { ...model, base: at, firstInMemory: Math.max(model.firstInMemory, at + 1) };
            break;
          }
          case "trim":
            log = trimmed(log, operation.at, operation.bytes);
            // How much goes is the log's affair: never what is after the index, and no more than it has to.
            expect(firstInMemory(log)).toBeLessThanOrEqual(Math.max(model.firstInMemory, operation.at + 1));
            model = { ...model, firstInMemory: firstInMemory(log) };
            break;
        }
        agrees(log, model);
      }
      // A view may be built upon again: a simulator and a test step the same state twice.
      for (const [view, then] of views) {
        agrees(view, then);
        const next = then.terms.length;
        const grown = appended(view, [entry(next, 99)]);
        expect(termAt(grown, next)).toBe(99);
      }
      for (const [view, then] of views) agrees(view, then);
      agrees(log, model);
    }),
    { numRuns: 300 },
  );
});

test("a slice stops at its bytes, but gives at least one entry", () => {
  const log = appended(
    emptyLog({ index: 0, term: 0 }),
    [1, 2, 3].map((index) => ({ index, term: 1, data: Buffer.alloc(10) })),
  );
  expect(slice(log, 1, 3, 5)!.length).toBe(1);
  expect(slice(log, 1, 3, 20)!.length).toBe(2);
  expect(slice(log, 1, 2, 100)!.length).toBe(2);
});

test("entries follow each other", () => {
  const log = emptyLog({ index: 4, term: 2 });
  expect(() => appended(log, [entry(6, 2)])).toThrow("no gaps");
  expect(() => appended(log, [entry(5, 1)])).toThrow("never fall");
});
