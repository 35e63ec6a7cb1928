import { expect, test } from "bun:test";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { LogError, LogStorage } from "../kv/log/log-storage.ts";
import type { Persist } from "../raft/types.ts";
import { Persister } from "./raft-runtime-persister.ts";

const point = { index: 9, term: 2, configuration: { voters: [], outgoing: [], learners: [], joining: [] } };
const order = (number: number, more: Partial<Persist> = {}): Persist => ({
  order: number,
  entries: [{ index: number, term: 1, data: new Uint8Array(10) }],
  send: [],
  ...more,
});

/** A storage that writes down what is asked of it, and answers when it is told to. */
function recorded(answers: Record<string, Result<void, LogError> | "rejects"> = {}) {
  const calls: string[] = [];
  const ends: (() => void)[] = [];
  const call = (what: string): Promise<Result<void, LogError>> => {
    calls.push(what);
    return new Promise((resolve, reject) => {
      const answer = answers[what] ?? ok(undefined);
      ends.push(() => (answer === "rejects" ? reject(new Error("a defect")) : resolve(answer)));
    });
  };
  const storage = {
    append: (entries, hardState) =>
      call(`append ${entries.map(({ index }) => index)}${hardState ? ` vote ${hardState.vote}` : ""}`),
    truncateAfter: (index) => call(`truncate ${index}`),
    restartAfter: (index) => call(`restart ${index}`),
  } satisfies Partial<LogStorage> as unknown as LogStorage;
  const persister = new Persister({
    storage,
    durable: (orders) => calls.push(`durable ${orders.map(({ order }) => order)}`),
    refused: ({ order }, error) => calls.push(`refused ${order} ${error.reason}`),
  });
  const end = async () => {
    ends.shift()!();
    for (let i = 0; i < 5; i++) await Promise.resolve();
    return calls.splice(0);
  };
  return { persister, calls, end };
}

test("orders that wait share one write, which begins before the last ones are reported", async () => {
  const { persister, calls, end } = recorded();
  persister.add([order(1)]);
  persister.add([order(2, { hardState: { term: 1, vote: "a" } })]);
  persister.add([order(3, { hardState: { term: 2, vote: "b" } }), order(4)]);
  expect(calls.splice(0)).toEqual(["append 1"]);
  expect(await end()).toEqual(["append 2,3,4 vote b", "durable 1"]);
  expect(await end()).toEqual(["durable 2,3,4"]);
});

test("a cut of the log begins a write of its own, with what follows it", async () => {
  const { persister, calls, end } = recorded();
  persister.add([
    order(1),
    order(2),
    order(3, { truncateAfter: 2 }),
    order(4),
    order(9, { restart: point }),
    order(10),
  ]);
  expect(calls.splice(0)).toEqual(["append 1,2"]);
  expect(await end()).toEqual(["truncate 2", "durable 1,2"]);
  expect(await end()).toEqual(["append 3,4"]);
  expect(await end()).toEqual(["restart 9", "durable 3,4"]);
  expect(await end()).toEqual(["append 9,10"]);
  expect(await end()).toEqual(["durable 9,10"]);
});

test("one write carries a bounded number of bytes, or a single order", async () => {
  const large = (number: number) => order(number, { entries: [{ index: number, term: 1, data: new Uint8Array(3e6) }] });
  const { persister, calls, end } = recorded();
  persister.add([large(1), large(2), order(3), order(4)]);
  expect(calls.splice(0)).toEqual(["append 1"]);
  expect(await end()).toEqual(["append 2,3,4", "durable 1"]);
});

test("an order that writes nothing waits for those before it only", async () => {
  const { persister, calls, end } = recorded();
  persister.add([order(1)]);
  persister.add([order(2, { entries: [] })]);
  expect(calls.splice(0)).toEqual(["append 1"]);
  expect(await end()).toEqual(["durable 1", "durable 2"]);
});

test("a refusal drops all orders from there on, and the next one is tried", async () => {
  const full: LogError = { reason: "full", message: "" };
  const { persister, calls, end } = recorded({ "append 2,3": fail(full), "append 7": "rejects" });
  persister.add([order(1), order(2, { truncateAfter: 1 }), order(3), order(4, { truncateAfter: 1 })]);
  expect(calls.splice(0)).toEqual(["append 1"]);
  expect(await end()).toEqual(["truncate 1", "durable 1"]);
  persister.add([order(5)]);
  expect(await end()).toEqual(["append 2,3"]);
  expect(await end()).toEqual(["refused 2 full"]);
  persister.add([order(6)]);
  expect(calls.splice(0)).toEqual(["append 6"]);
  expect(await end()).toEqual(["durable 6"]);
  persister.add([order(7)]);
  expect(await end()).toEqual(["append 7", "refused 7 failed"]);
});

test("closing waits for the write that is under way and drops what waits", async () => {
  const { persister, calls, end } = recorded();
  persister.add([order(1)]);
  persister.add([order(2)]);
  const closed = persister.close().then(() => calls.push("closed"));
  expect(await end()).toEqual(["append 1", "durable 1", "closed"]);
  await closed;
});
