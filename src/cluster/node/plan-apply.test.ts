import { expect, test } from "bun:test";
import { appended, emptyLog } from "../raft/log.ts";
import { planApply } from "./plan-apply.ts";
import { DIGEST_EVERY } from "./raft-runtime-digests.ts";

/** A log of entries of 10 bytes each, of these terms, index `first` first. */
const logOf = (terms: readonly number[], first = 1) =>
  appended(
    emptyLog({ index: first - 1, term: 0 }),
    terms.map((term, i) => ({ index: first + i, term, data: Buffer.alloc(10) })),
  );
const plenty = { entries: 100, bytes: 10_000 };
type Case = [
  claim: string,
  terms: number[],
  commit: number,
  applied: number,
  led: number | undefined,
  budget: typeof plenty,
  expected: [from: number, to: number, losesTerm: boolean] | undefined,
];
const cases: Case[] = [
  ["everything committed at once", [1, 1, 1], 3, 0, undefined, plenty, [1, 3, false]],
  ["nothing beyond the commit", [1, 1, 1], 2, 0, undefined, plenty, [1, 2, false]],
  ["nothing when all is applied", [1, 1], 2, 2, undefined, plenty, undefined],
  ["no more entries than the budget", [1, 1, 1], 3, 0, undefined, { entries: 2, bytes: 10_000 }, [1, 2, false]],
  ["no more bytes than the budget", [1, 1, 1], 3, 0, undefined, { entries: 100, bytes: 20 }, [1, 2, false]],
  ["one entry at least", [1, 1], 2, 0, undefined, { entries: 0, bytes: 0 }, [1, 1, false]],
  ["its own term's entries as they come", [1, 2, 2], 3, 0, 2, plenty, [1, 3, false]],
  ["up to the end of the term that it led", [1, 1, 2], 3, 0, 1, plenty, [1, 2, false]],
  ["another leader's only once it knows", [1, 1, 2], 3, 2, 1, plenty, [3, 3, true]],
];
test.each(cases)("applies %s", (_, terms, commit, applied, led, budget, expected) => {
  const batch = planApply({ log: logOf(terms), commit }, applied, led, budget);
  expect(batch && [batch.entries[0]!.index, batch.entries.at(-1)!.index, batch.losesTerm]).toEqual(expected);
});

test("a batch ends at an index where states are compared", () => {
  const log = logOf([1, 1, 1, 1], DIGEST_EVERY - 1);
  const batch = planApply({ log, commit: DIGEST_EVERY + 2 }, DIGEST_EVERY - 2, undefined, plenty);
  expect(batch?.entries.at(-1)?.index).toBe(DIGEST_EVERY);
});
