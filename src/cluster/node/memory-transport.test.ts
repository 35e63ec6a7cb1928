import { expect, test } from "bun:test";
import { memoryNetwork } from "./memory-transport.ts";
import type { Frame } from "./transport.ts";

const frame = (id: number): Frame => ({ type: "request", id, body: new Uint8Array(0) });
const turn = () => new Promise((resolve) => setImmediate(resolve));

function nodes() {
  const net = memoryNetwork();
  const heard: string[] = [];
  const open = (id: string) => {
    const transport = net.transport(id);
    transport.listen({
      frame: (from, frame) => heard.push(`${id}<${from}:${frame.type === "request" ? frame.id : "?"}`),
      unreachable: (peer) => heard.push(`${id}!${peer}`),
    });
    return transport;
  };
  return { net, heard, n1: open("n1"), n2: open("n2"), open };
}

test("frames arrive in order, and never within the call that sent them", async () => {
  const { heard, n1, n2 } = nodes();
  n1.send("n2", frame(1));
  n1.send("n2", frame(2));
  n2.send("n1", frame(3));
  expect(heard).toEqual([]);
  await turn();
  expect(heard).toEqual(["n2<n1:1", "n2<n1:2", "n1<n2:3"]);
});

test("a cut link loses what is sent and what is on its way, until it heals", async () => {
  const { net, heard, n1, n2 } = nodes();
  n1.send("n2", frame(1));
  net.cut("n1", "n2");
  n2.send("n1", frame(2));
  await turn();
  expect(heard).toEqual([]);
  net.heal();
  n1.send("n2", frame(3));
  await turn();
  expect(heard).toEqual(["n2<n1:3"]);
});

test("a link can be cut in one direction", async () => {
  const { net, heard, n1, n2 } = nodes();
  net.cut("n1", "n2", "one-way");
  n1.send("n2", frame(1));
  n2.send("n1", frame(2));
  await turn();
  expect(heard).toEqual(["n1<n2:2"]);
});

test("an isolated node hears and says nothing", async () => {
  const { net, heard, n1, n2 } = nodes();
  net.isolate("n1");
  n1.send("n2", frame(1));
  n2.send("n1", frame(2));
  await turn();
  expect(heard).toEqual([]);
});

test("whoever sends to a node that is gone is told so", async () => {
  const { heard, n1, n2 } = nodes();
  await n2.close();
  n1.send("n2", frame(1));
  n2.send("n1", frame(2));
  await turn();
  expect(heard).toEqual(["n1!n2"]);
});

test("a node that opens again takes the place of its former self", async () => {
  const { heard, n1, n2, open } = nodes();
  open("n2");
  n2.send("n1", frame(1));
  await n2.close();
  n1.send("n2", frame(2));
  await turn();
  expect(heard).toEqual(["n2<n1:2"]);
});
