import { expect, test } from "bun:test";
import { Violation } from "../base/simulation.ts";
import { type SeenChange, Truth, WatchChecker } from "./watch-checker.ts";

const put = (key: string, after: string, before?: string): SeenChange => ({ key, before, after });

/** Feeds a stream to a checker, and says which invariant it breaks. */
function broken(feed: (one: WatchChecker, other: WatchChecker) => void): string | undefined {
  const truth = new Truth();
  try {
    feed(new WatchChecker(truth, "one"), new WatchChecker(truth, "other"));
    return undefined;
  } catch (error) {
    if (error instanceof Violation) return error.invariant;
    throw error;
  }
}

const cases: [string, string | undefined, (one: WatchChecker, other: WatchChecker) => void][] = [
  [
    "a stream in order",
    undefined,
    (one) => {
      one.began(0, new Map());
      one.changed(1, [put("a", "1")], 1);
      one.changed(2, [put("a", "2", "1"), put("b", "1")], 5);
    },
  ],
  [
    "two watchers that see the same from different beginnings",
    undefined,
    (one, other) => {
      one.began(0, new Map());
      one.changed(1, [put("a", "1")], 1);
      other.began(1, new Map([["a", "1"]]));
      one.changed(2, [put("b", "1")], 2);
      other.changed(2, [put("b", "1")], 2);
    },
  ],
  [
    "one that is told to begin anew, and does",
    undefined,
    (one) => {
      one.began(0, new Map());
      one.compacted(3, 4);
      one.began(4, new Map([["a", "4"]]));
      one.changed(5, [put("a", "5", "4")], 5);
    },
  ],
  [
    "a gap",
    "watches leave no gap",
    (one) => {
      one.began(0, new Map());
      one.changed(2, [put("a", "1")], 2);
    },
  ],
  [
    "a doubled event",
    "watches never go back",
    (one) => {
      one.began(0, new Map());
      one.changed(1, [put("a", "1")], 1);
      one.changed(1, [put("a", "1")], 1);
    },
  ],
  [
    "an event of what the reader had already",
    "watches never go back",
    (one) => {
      one.began(4, new Map());
      one.changed(3, [put("a", "1")], 4);
    },
  ],
  [
    "an event before the node shows it",
    "watches never show the future",
    (one) => {
      one.began(0, new Map());
      one.changed(1, [put("a", "1")], 0);
    },
  ],
  [
    "a change of what was not there",
    "a change follows from what was there",
    (one) => {
      one.began(0, new Map());
      one.changed(1, [put("a", "2", "1")], 1);
    },
  ],
  [
    "two nodes that see different changes",
    "all nodes see the same",
    (one, other) => {
      one.began(0, new Map());
      other.began(0, new Map());
      one.changed(1, [put("a", "1")], 1);
      other.changed(1, [put("a", "2")], 1);
    },
  ],
  [
    "two nodes that hold different records",
    "all nodes hold the same",
    (one, other) => {
      one.began(0, new Map());
      one.changed(1, [put("a", "1")], 1);
      other.began(1, new Map([["a", "2"]]));
    },
  ],
  [
    "an event after the end",
    "nothing follows the end of a watch",
    (one) => {
      one.began(0, new Map());
      one.compacted(3, 3);
      one.changed(4, [put("a", "1")], 4);
    },
  ],
  [
    "a restart that nothing calls for",
    "only who lags is told to begin anew",
    (one) => {
      one.began(3, new Map());
      one.compacted(3, 3);
    },
  ],
];

test.each(cases)("%s", (_, invariant, feed) => expect(broken(feed)).toBe(invariant));
