import { expect, test } from "bun:test";
import { Turns } from "./turns.ts";

test("tickets pass in etcd's order, and ours counts once it was heard of", () => {
  const turns = new Turns("b");
  turns.hear("a-1", true);
  expect(turns.othersWait).toBe(true);
  const ours = turns.name();
  turns.hold(ours);
  expect(turns.ahead).toBe(ours);
  turns.hear(ours, true);
  turns.hear("c-1", true);
  expect(turns.ahead).toBe("a-1");
  turns.hear("a-1", false);
  expect(turns.ahead).toBeUndefined();
  expect(turns.spent).toEqual([ours]);
  turns.passed(turns.spent);
  expect(turns.ours).toBeUndefined();
  expect(turns.ahead).toBe("c-1");
});

test("the ticket of a commit may be heard of before the commit's own answer", () => {
  const turns = new Turns("b");
  const first = turns.name();
  turns.hear(first, true);
  turns.hold(first);
  const next = turns.name();
  turns.hear(first, false);
  turns.hear(next, true);
  turns.passed([first], next);
  expect(turns.ahead).toBeUndefined();
  expect(turns.spent).toEqual([next]);
});

test("who does not take its turn is passed over, and cleared away with the next commit", () => {
  const turns = new Turns("b");
  turns.hear("dead-1", true);
  turns.giveUp("dead-1");
  expect(turns.ahead).toBeUndefined();
  turns.hear("dead-1", true);
  expect(turns.ahead).toBeUndefined();
  expect(turns.spent).toEqual(["dead-1"]);
  turns.passed(turns.spent);
  expect(turns.spent).toEqual([]);
});

test("a ticket of ours that was thought to be lost holds nobody up", () => {
  const turns = new Turns("b");
  const lost = turns.name();
  turns.hold(turns.name());
  turns.hear(lost, true);
  expect(turns.spent).toContain(lost);
  expect(turns.othersWait).toBe(false);
});
