import { describe, expect, test } from "bun:test";
import type { WatchLine } from "../operator/config-routes.ts";
import { WatchPosition } from "./config.ts";

const at = (revision: number): WatchLine => ({ event: "at", revision });
const gone = (revision: number, key: string): WatchLine => ({ event: "deleted", revision, key, version: 1 });
const anew = (revision: number): WatchLine => ({ event: "compacted", revision });

/** What is printed of these lines; after `break`, the watch is made anew. */
function printed(
  lines: readonly (WatchLine | "break")[],
  from?: number,
): { shown: string[]; asked: (number | undefined)[] } {
  const position = new WatchPosition(from);
  const shown: string[] = [];
  const asked = [position.from];
  for (const line of lines) {
    if (line === "break") asked.push(position.from);
    else if (position.isNew(line)) shown.push("key" in line ? `${line.key}@${line.revision}` : "anew");
  }
  return { shown, asked };
}

describe("a watch that breaks", () => {
  test("between revisions goes on after the last", () => {
    expect(printed([at(4), gone(5, "a"), at(5), "break", at(5), gone(6, "b")])).toEqual({
      shown: ["a@5", "b@6"],
      asked: [undefined, 5],
    });
  });
  test("after a revision whose end is not known asks for it again, and shows each line once", () => {
    expect(
      printed(
        [at(4), gone(5, "a"), gone(6, "b"), gone(6, "c"), "break", at(5), gone(6, "b"), gone(6, "c"), gone(6, "d")],
        4,
      ),
    ).toEqual({ shown: ["a@5", "b@6", "c@6", "d@6"], asked: [4, 5] });
  });
  test("twice within a revision still shows each line once", () => {
    const lines = [
      at(0),
      gone(1, "a"),
      "break",
      at(0),
      gone(1, "a"),
      gone(1, "b"),
      "break",
      at(0),
      gone(1, "a"),
      gone(1, "b"),
      gone(1, "c"),
    ] as const;
    expect(printed(lines)).toEqual({ shown: ["a@1", "b@1", "c@1"], asked: [undefined, 0, 0] });
  });
  test("before anything was shown again shows it all", () => {
    expect(printed([at(0), gone(1, "a"), "break", "break", at(0), gone(1, "a"), gone(2, "b")]).shown).toEqual([
      "a@1",
      "b@2",
    ]);
  });
  test("while everything is told anew is told everything anew", () => {
    expect(
      printed([anew(9), gone(9, "a"), "break", anew(9), gone(9, "a"), gone(9, "b"), at(9), gone(10, "c")], 1),
    ).toEqual({
      shown: ["anew", "a@9", "anew", "a@9", "b@9", "c@10"],
      asked: [1, 1],
    });
  });
});
