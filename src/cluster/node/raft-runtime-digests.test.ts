import { expect, test } from "bun:test";
import { configurationOf } from "../raft/configuration.ts";
import { DIGEST_EVERY, Digests, type Verdict } from "./raft-runtime-digests.ts";

const three = configurationOf(["me", "a", "b"]);
const two = configurationOf(["me", "a"]);
const five = configurationOf(["me", "a", "b", "c", "d"]);

const table: [string, typeof three, readonly (readonly [string, number])[], Verdict | undefined][] = [
  ["nothing is known without the node's own", three, [["a", 7]], undefined],
  ["its own alone is agreed", three, [["me", 7]], "agreed"],
  [
    "the same is agreed",
    three,
    [
      ["a", 7],
      ["me", 7],
      ["b", 7],
    ],
    "agreed",
  ],
  [
    "one other that differs tells nothing",
    three,
    [
      ["me", 7],
      ["a", 8],
    ],
    "differs",
  ],
  [
    "two others that agree outvote",
    three,
    [
      ["a", 8],
      ["b", 8],
      ["me", 7],
    ],
    "outvoted",
  ],
  [
    "two others that differ from each other don't",
    three,
    [
      ["a", 8],
      ["b", 9],
      ["me", 7],
    ],
    "differs",
  ],
  [
    "a majority that it is of is right",
    three,
    [
      ["a", 8],
      ["b", 7],
      ["me", 7],
    ],
    "agreed",
  ],
  [
    "of two, nobody has a majority",
    two,
    [
      ["me", 7],
      ["a", 8],
    ],
    "differs",
  ],
  [
    "of five, two that agree have none",
    five,
    [
      ["me", 7],
      ["a", 8],
      ["b", 8],
    ],
    "differs",
  ],
  [
    "of five, three have",
    five,
    [
      ["me", 7],
      ["a", 8],
      ["b", 8],
      ["c", 8],
    ],
    "outvoted",
  ],
  [
    "who has no vote does not count",
    two,
    [
      ["me", 7],
      ["a", 7],
      ["learner", 8],
    ],
    "agreed",
  ],
  [
    "a learner is outvoted by the voters",
    configurationOf(["a", "b"]),
    [
      ["me", 7],
      ["a", 8],
      ["b", 8],
    ],
    "outvoted",
  ],
];
test.each(table)("%s", (_, configuration, said, verdict) => {
  for (const order of [said, said.toReversed()]) {
    const digests = new Digests("me");
    for (const [from, digest] of order) digests.note(from, DIGEST_EVERY, digest);
    expect(digests.judge(DIGEST_EVERY, configuration)).toBe(verdict);
  }
});

test("a difference that no majority came to judge is a doubt, until it is judged or forgotten", () => {
  const digests = new Digests("me");
  const say = (index: number, ...said: readonly (readonly [string, number])[]) => {
    for (const [from, digest] of said) digests.note(from, index, digest);
  };
  say(1024, ["me", 7], ["a", 8]);
  expect(digests.isInDoubt("a", 1024, three)).toBe(false);
  expect(digests.isInDoubt("a", 2048, three)).toBe(true);
  expect(digests.isInDoubt("b", 2048, three)).toBe(false);
  say(1024, ["b", 7]);
  expect(digests.isInDoubt("a", 2048, three)).toBe(false);
  say(2048, ["me", 7], ["a", 8]);
  expect(digests.isInDoubt("a", 3072, three)).toBe(true);
  for (let i = 3; i < 40; i++) say(i * 1024, ["me", i]);
  expect(digests.isInDoubt("a", 99_999, three)).toBe(false);
});
