import { describe, expect, test } from "bun:test";
import { Prng } from "../base/prng.ts";
import { checkLinearizability, type Operation, type Pairs } from "./linearizability.ts";

/** `[call, return, requires, effects]`; a return of 0 is an unknown outcome. */
type Row = [call: number, returned: number, requires: Pairs, effects: Pairs];
const history = (rows: readonly Row[]): Operation[] =>
  rows.map(([call, returned, requires, effects]) => ({ call, return: returned || undefined, requires, effects }));

const x = (value: number): Pairs => [["x", value]];
const y = (value: number): Pairs => [["y", value]];
const xy = (a: number, b: number): Pairs => [
  ["x", a],
  ["y", b],
];

const good: [string, Row[]][] = [
  ["nothing happened", []],
  [
    "a write, then a read of it",
    [
      [1, 2, [], x(1)],
      [3, 4, x(1), []],
    ],
  ],
  [
    "a read of nothing before any write",
    [
      [1, 2, x(0), []],
      [3, 4, [], x(1)],
    ],
  ],
  [
    "a read that overlaps a write may see it",
    [
      [1, 4, [], x(1)],
      [2, 3, x(1), []],
    ],
  ],
  [
    "a read that overlaps a write may not see it",
    [
      [1, 4, [], x(1)],
      [2, 3, x(0), []],
    ],
  ],
  [
    "two overlapping writes in either order",
    [
      [1, 5, [], x(1)],
      [2, 6, [], x(2)],
      [7, 8, x(1), []],
    ],
  ],
  [
    "a later read after overlapping writes settles their order",
    [
      [1, 5, [], x(1)],
      [2, 6, [], x(2)],
      [7, 8, x(2), []],
      [9, 10, x(2), []],
    ],
  ],
  [
    "an unknown write that is never seen",
    [
      [1, 0, [], x(1)],
      [2, 3, x(0), []],
    ],
  ],
  [
    "an unknown write that is seen much later",
    [
      [1, 0, [], x(1)],
      [2, 3, x(0), []],
      [4, 5, x(1), []],
    ],
  ],
  [
    "an unknown write that lands between two others",
    [
      [1, 0, [], x(1)],
      [2, 3, [], x(2)],
      [4, 5, x(2), []],
      [6, 7, x(1), []],
    ],
  ],
  [
    "a compare-and-set on what is there",
    [
      [1, 2, [], x(1)],
      [3, 4, x(1), x(2)],
      [5, 6, x(2), []],
    ],
  ],
  [
    "an unknown compare-and-set that could not have happened",
    [
      [1, 2, [], x(1)],
      [3, 0, x(9), x(2)],
      [5, 6, x(1), []],
    ],
  ],
  [
    "a removal",
    [
      [1, 2, [], x(1)],
      [3, 4, x(1), x(0)],
      [5, 6, x(0), []],
    ],
  ],
  [
    "a transaction over two keys, seen whole",
    [
      [1, 2, [], xy(1, 2)],
      [3, 4, xy(1, 2), []],
    ],
  ],
  [
    "keys that have nothing to do with each other",
    [
      [1, 8, [], x(1)],
      [2, 3, y(0), []],
      [4, 5, [], y(1)],
      [6, 7, x(1), []],
    ],
  ],
];

const bad: [string, Row[]][] = [
  [
    "a stale read",
    [
      [1, 2, [], x(1)],
      [3, 4, x(0), []],
    ],
  ],
  [
    "a read of what nobody wrote",
    [
      [1, 2, [], x(1)],
      [3, 4, x(7), []],
    ],
  ],
  [
    "a read from the future",
    [
      [1, 2, x(1), []],
      [3, 4, [], x(1)],
    ],
  ],
  [
    "a read from before an unknown write was called",
    [
      [1, 2, x(1), []],
      [3, 0, [], x(1)],
    ],
  ],
  [
    "a lost write",
    [
      [1, 2, [], x(1)],
      [3, 4, [], x(2)],
      [5, 6, x(1), []],
    ],
  ],
  [
    "reads that go back",
    [
      [1, 9, [], x(1)],
      [2, 3, x(1), []],
      [4, 5, x(0), []],
    ],
  ],
  [
    "two readers that disagree on the order of two writes",
    [
      [1, 10, [], x(1)],
      [2, 11, [], x(2)],
      [12, 13, x(1), []],
      [14, 15, x(2), []],
    ],
  ],
  [
    "an unknown write that comes and goes",
    [
      [1, 0, [], x(1)],
      [2, 3, x(1), []],
      [4, 5, x(0), []],
    ],
  ],
  [
    "an unknown write that happens twice",
    [
      [1, 0, [], x(1)],
      [2, 3, x(1), []],
      [4, 5, [], x(2)],
      [6, 7, x(2), []],
      [8, 9, x(1), []],
    ],
  ],
  [
    "two compare-and-sets that both took the same value",
    [
      [1, 2, [], x(1)],
      [3, 6, x(1), x(2)],
      [4, 5, x(1), x(3)],
    ],
  ],
  [
    "half a transaction",
    [
      [1, 2, [], xy(1, 1)],
      [3, 4, xy(1, 0), []],
    ],
  ],
  [
    "half of an unknown transaction",
    [
      [1, 0, [], xy(1, 1)],
      [3, 4, x(1), []],
      [5, 6, y(0), []],
    ],
  ],
  [
    "write skew",
    [
      [1, 4, xy(0, 0), x(1)],
      [2, 3, xy(0, 0), y(1)],
    ],
  ],
  [
    "a long fork: two readers see two writes in different orders",
    [
      [1, 20, [], x(1)],
      [2, 21, [], y(1)],
      [3, 6, xy(1, 0), []],
      [4, 7, xy(0, 1), []],
    ],
  ],
  [
    "a removed key that is back",
    [
      [1, 2, [], x(1)],
      [3, 4, [], x(0)],
      [5, 6, x(1), []],
    ],
  ],
];

describe("a good history is linearizable:", () => {
  test.each(good)("%s", (_, rows) => expect(checkLinearizability(history(rows)).kind).toBe("linearizable"));
});

describe("a bad history is not:", () => {
  test.each(bad)("%s", (_, rows) => expect(checkLinearizability(history(rows)).kind).toBe("violation"));
});

test("a verdict names the keys and the operations that do not fit", () => {
  const verdict = checkLinearizability(
    history([
      [1, 2, [], y(1)],
      [3, 4, [], x(1)],
      [5, 6, x(0), []],
    ]),
  );
  expect(verdict).toMatchObject({ kind: "violation", keys: ["x"], operations: [{ call: 3 }, { call: 5 }] });
});

/** A real register, asked by several clients at once; each operation happens at a moment between its call and its return. */
function generated(prng: Prng, count: number, clients: number, keys: readonly string[]): Operation[] {
  const registers = new Map(keys.map((key) => [key, 0]));
  let time = 0;
  let values = 0;
  type Running = {
    call: number;
    at: "called" | "done";
    isRead: boolean;
    key: string;
    other: string;
    pairs?: [Pairs, Pairs];
  };
  const running: (Running | undefined)[] = Array.from({ length: clients });
  const done: Operation[] = [];
  while (done.length < count) {
    const client = prng.below(clients);
    const operation = running[client];
    time++;
    if (!operation) {
      const [key, other] = prng.shuffled(keys) as [string, string];
      running[client] = { call: time, at: "called", isRead: prng.chance(0.5), key, other };
    } else if (operation.at === "called") {
      const { key, other, isRead } = operation;
      const found: Pairs = prng.chance(0.3)
        ? [
            [key, registers.get(key)!],
            [other, registers.get(other)!],
          ]
        : [[key, registers.get(key)!]];
      const wrote: Pairs = isRead ? [] : found.map(([name]) => [name, ++values]);
      for (const [name, value] of wrote) registers.set(name, value);
      operation.pairs = [!isRead && prng.chance(0.5) ? [] : found, wrote];
      operation.at = "done";
    } else {
      const [requires, effects] = operation.pairs!;
      const isUnknown = effects.length > 0 && prng.chance(0.15);
      done.push({
        call: operation.call,
        return: isUnknown ? undefined : time,
        requires: isUnknown ? [] : requires,
        effects,
      });
      running[client] = undefined;
    }
  }
  // Who asked and was not answered may have been heard.
  for (const operation of running) {
    if (operation?.pairs)
      done.push({ call: operation.call, return: undefined, requires: [], effects: operation.pairs[1] });
  }
  return done;
}

test("what a real register did is always linearizable, also with unknown outcomes", () => {
  for (let seed = 1; seed <= 150; seed++) {
    const rows = generated(new Prng(seed), 120, 2 + (seed % 7), ["a", "b", "c"]);
    expect(checkLinearizability(rows).kind).toBe("linearizable");
  }
});

test("a read that is changed to an older value is caught", () => {
  let caught = 0;
  let changed = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const prng = new Prng(seed);
    const rows = generated(prng, 120, 4, ["a", "b"]);
    // A read that returned after which a later read is made to see what was overwritten before it was called.
    const writes = rows.filter((row) => row.effects.some(([key]) => key === "a") && row.return !== undefined);
    const late = rows.filter((row) => row.effects.length === 0 && row.requires.some(([key]) => key === "a"));
    const victim = late.at(-1);
    const first = writes[0];
    const overwriting = writes.find((row) => first && row.call > first.return! && victim && row.return! < victim.call);
    if (!victim || !first || !overwriting) continue;
    const old = first.effects.find(([key]) => key === "a")![1];
    const broken = rows.map((row) =>
      row === victim
        ? { ...row, requires: row.requires.map(([key, value]) => [key, key === "a" ? old : value] as const) }
        : row,
    );
    changed++;
    if (checkLinearizability(broken).kind === "violation") caught++;
  }
  expect(changed).toBeGreaterThan(100);
  expect(caught).toBe(changed);
});

test("a search that grows too long ends as unknown, not as a verdict", () => {
  const rows = history(Array.from({ length: 24 }, (_, i): Row => [i + 1, 100 + i, [], [["x", i + 1]]]));
  const hopeless: Operation[] = [...rows, { call: 200, return: 201, requires: [["x", 99]], effects: [] }];
  expect(checkLinearizability(hopeless, 5000).kind).toBe("unknown");
});
