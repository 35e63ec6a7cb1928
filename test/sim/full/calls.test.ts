import { beforeEach, describe, expect, test } from "bun:test";
import { EventQueue } from "../base/event-queue.ts";
import type { Violation } from "../base/simulation.ts";
import { type Callee, Calls } from "./calls.ts";

const MINUTE_MS = 60_000;

let queue: EventQueue;
let violations: { readonly at: number; readonly invariant: string }[];
let calls: Calls;

beforeEach(() => {
  queue = new EventQueue();
  violations = [];
  calls = new Calls({
    sleep: (ms) => new Promise((resolve) => queue.after(ms, resolve)),
    calledAt: () => {},
    fails: ({ invariant }: Violation) => violations.push({ at: queue.now, invariant }),
  });
});

/** A node that runs this share of the time, in pieces of any size, until it dies. */
function serverThatRuns(share: number) {
  const { promise: ended, resolve: dies } = Promise.withResolvers<void>();
  const node = { isClosing: false };
  const server: Callee = {
    id: "n1",
    ended,
    runMs: () => queue.now * share,
    isClosing: () => node.isClosing,
  };
  return { server, node, dies };
}

const never = new Promise<never>(() => {});

/** Events are real turns of the loop apart, so that all that follows from one has happened before the next. */
async function runUntil(at: number): Promise<void> {
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  await turn();
  while (queue.step(at)) await turn();
  queue.now = at;
}

describe("a call that is never answered", () => {
  test("is told of once its node has run for 15 s", async () => {
    void calls.told("c1", serverThatRuns(1).server, never);
    await runUntil(14_999);
    expect(violations).toEqual([]);
    await runUntil(MINUTE_MS);
    expect(violations).toEqual([{ at: 15_000, invariant: "every call is answered in time" }]);
    expect(calls.open).toBe(1);
  });

  test("has more time at a node that is paused nearly always, and not for ever", async () => {
    void calls.told("c1", serverThatRuns(0.05).server, never);
    await runUntil(4.9 * MINUTE_MS);
    expect(violations).toEqual([]);
    await runUntil(5 * MINUTE_MS);
    expect(violations).toHaveLength(1);
  });

  test("is not held against a node that died, or is about to", async () => {
    const dead = serverThatRuns(1);
    const closing = serverThatRuns(1);
    void calls.told("c1", dead.server, never);
    void calls.told("c2", closing.server, never);
    dead.dies();
    closing.node.isClosing = true;
    await runUntil(MINUTE_MS);
    expect(violations).toEqual([]);
    expect(calls.open).toBe(1);
    closing.dies();
    await runUntil(MINUTE_MS);
    expect(calls.open).toBe(0);
  });
});

test("a client goes its way after 15 s, and the answer may still come", async () => {
  const { promise: answer, resolve } = Promise.withResolvers<string>();
  let told: string | undefined = "nothing yet";
  void calls.told("c1", serverThatRuns(0.5).server, answer).then((value) => {
    told = value;
  });
  await runUntil(20_000);
  expect(told).toBeUndefined();
  expect(calls.open).toBe(1);
  resolve("late");
  await runUntil(MINUTE_MS);
  expect(calls.open).toBe(0);
  expect(violations).toEqual([]);
});

test("a client is told what the node answers", async () => {
  expect(await calls.told("c1", serverThatRuns(1).server, Promise.resolve("an answer"))).toBe("an answer");
  await runUntil(MINUTE_MS);
  expect(calls.open).toBe(0);
  expect(violations).toEqual([]);
});
