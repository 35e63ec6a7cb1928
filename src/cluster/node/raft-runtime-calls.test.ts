import { expect, test } from "bun:test";
import { silentLog } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { ok } from "../../lib/result.ts";
import { memoryNetwork } from "./memory-transport.ts";
import { Calls, firstIdOf } from "./raft-runtime-calls.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("the answer to what a node asked in an earlier life is not taken for that to another question", async () => {
  const network = memoryNetwork();
  const answers: ((reply: Uint8Array) => void)[] = [];
  const live = (id: string, seed: number) => {
    const transport = network.transport(id);
    const calls = new Calls({
      transport,
      log: silentLog,
      answer: () => new Promise((resolve) => answers.push(resolve)),
      firstId: firstIdOf(seededRandom(seed)),
    });
    transport.listen({
      frame: (from, frame) => {
        if (frame.type === "request") calls.onRequest(from, frame.id, frame.body);
        if (frame.type === "response") calls.onResponse(from, frame.id, frame.body);
      },
      unreachable: () => {},
    });
    return calls;
  };
  live("leader", 1);
  void live("n1", 2).request("leader", Uint8Array.of(), 1000);
  await turn();
  const second = live("n1", 3).request("leader", Uint8Array.of(), 1000);
  await turn();
  const [toFirst, toSecond] = answers;
  toFirst?.(Uint8Array.of(1));
  await turn();
  toSecond?.(Uint8Array.of(2));
  expect(await second).toEqual(ok(Uint8Array.of(2)));
});
