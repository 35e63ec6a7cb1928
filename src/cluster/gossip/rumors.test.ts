import { expect, test } from "bun:test";
import { enqueued, type Queue, taken, waitingFacts } from "./rumors.ts";
import { DEFAULT_OPTIONS, type Rumor } from "./types.ts";

const rumor = (id: string, factBytes = 0): Rumor => ({
  ...{ id, address: "10.0.0.1:1", incarnation: 1, status: "alive", witnesses: [], ageSeconds: 0 },
  facts: factBytes > 0 ? [{ name: "load", version: 1, value: "x".repeat(factBytes) }] : [],
});
const take = (queue: Queue, room: number, except?: string, present = 9) =>
  taken(queue, room, 0, except, DEFAULT_OPTIONS, present);
const ids = (rumors: readonly Rumor[]): string => rumors.map(({ id }) => id).join("");
const queued = (queue: Queue): string =>
  queue.map(({ rumor: { id }, isUrgent }) => (isUrgent ? id : `${id}'`)).join(" ");

test("who lives comes before facts, the newest first, and what was told less before what was told more", () => {
  let queue: Queue = [];
  for (const id of "ab") queue = enqueued(queue, rumor(id), true);
  for (const id of "xy") queue = enqueued(queue, rumor(id, 10), false);
  expect(queued(queue)).toBe("b a y' x'");
  const room = 60;
  const first = take(queue, room);
  expect(ids(first.rumors)).toBe("ba");
  queue = enqueued(first.queue, rumor("c"), true);
  expect(queued(queue)).toBe("c b a y' x'");
  expect(ids(take(queue, room).rumors)).toBe("cb");
});

test("later news of a member takes the place of earlier news of the same kind", () => {
  let queue = enqueued([], rumor("a"), true);
  queue = enqueued(queue, rumor("a", 10), false);
  queue = enqueued(queue, { ...rumor("a"), incarnation: 2 }, true);
  expect(queued(queue)).toBe("a a'");
  expect(queue[0]!.rumor.incarnation).toBe(2);
  expect(waitingFacts(queue, "a", false)).toEqual(["load"]);
  expect(waitingFacts(queue, "a", true)).toEqual([]);
});

test("a rumour is told so often, in proportion to the logarithm of the members, and then no more", () => {
  const tellings = (isUrgent: boolean, present: number): number => {
    let queue = enqueued([], rumor("a", isUrgent ? 0 : 5), isUrgent);
    let told = 0;
    while (queue.length > 0) {
      const next = take(queue, 1000, undefined, present);
      told += next.rumors.length;
      queue = next.queue;
    }
    return told;
  };
  expect([9, 99, 999].map((present) => tellings(true, present))).toEqual([6, 12, 18]);
  expect([9, 99, 999].map((present) => tellings(false, present))).toEqual([2, 4, 6]);
});

test("what doesn't fit is passed over, what is about the receiver too, and neither is lost", () => {
  let queue = enqueued([], rumor("c"), true);
  queue = enqueued(queue, rumor("b", 400), true);
  queue = enqueued(queue, rumor("a"), true);
  const next = take(queue, 100, "a");
  expect(ids(next.rumors)).toBe("c");
  expect(queued(next.queue)).toBe("a b c");
});

test("nothing is taken from an empty queue, or into no room", () => {
  expect(take([], 1000).rumors).toEqual([]);
  const queue = enqueued([], rumor("a"), true);
  expect(take(queue, 5)).toEqual({ rumors: [], queue });
});
