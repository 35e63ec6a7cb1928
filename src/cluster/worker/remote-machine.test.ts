import { expect, test } from "bun:test";
import { Channel } from "./channel.ts";
import { RemoteMachine } from "./remote-machine.ts";

const entry = { index: 1, term: 1, data: new Uint8Array(0) };

test("a defect of the store's thread ends what is handed over, and whatever would be after it", async () => {
  const machine = new RemoteMachine(new Channel({ postMessage() {} }));
  const before = machine.apply([entry]);
  machine.defect("it cannot be");
  await expect(before).rejects.toThrow("it cannot be");
  await expect(machine.apply([{ ...entry, index: 2 }])).rejects.toThrow("it cannot be");
});
