import { expect, test } from "bun:test";
import { type ConsoleHub, streamConsole } from "./console-socket.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** A machine's console that a test speaks for. */
function machine(said = "boot\n") {
  const watchers = new Set<{ data: (bytes: Uint8Array) => void; end: () => void }>();
  const hub: ConsoleHub = {
    output: (id) => (id === "i-1" ? bytes(said) : undefined),
    watch: (_, data, end) => {
      const watcher = { data, end };
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    write: () => true,
  };
  return {
    hub,
    watchers,
    says: (text: string) => watchers.forEach(({ data }) => void data(bytes(text))),
    ends: () => watchers.forEach(({ end }) => void end()),
  };
}
const stream = (hub: ConsoleHub, follow: boolean, signal = new AbortController().signal) => {
  const made = streamConsole(hub, "i-1", follow, signal);
  if (!made) throw new Error("the console is there");
  return made;
};

test("without follow the stream is what was said", async () => {
  const { hub, watchers } = machine();
  expect(await new Response(stream(hub, false)).text()).toBe("boot\n");
  expect(watchers.size).toBe(0);
});

test("with follow what is said meanwhile comes too, until the machine ends", async () => {
  const there = machine();
  const text = new Response(stream(there.hub, true)).text();
  there.says("one\n");
  there.says("two\n");
  there.ends();
  expect(await text).toBe("boot\none\ntwo\n");
  expect(there.watchers.size).toBe(0);
});

test("a reader that goes is watched for no longer", async () => {
  const there = machine();
  await stream(there.hub, true).cancel();
  expect(there.watchers.size).toBe(0);
  const leaving = new AbortController();
  stream(there.hub, true, leaving.signal);
  leaving.abort();
  expect(there.watchers.size).toBe(0);
});

test("a reader that doesn't read is dropped before it fills the memory", () => {
  const there = machine();
  stream(there.hub, true);
  for (let i = 0; i < 200 && there.watchers.size > 0; i++) there.says("x".repeat(64 * 1024));
  expect(there.watchers.size).toBe(0);
});

test("an instance without a console has no stream", () => {
  expect(streamConsole(machine().hub, "i-2", true, new AbortController().signal)).toBeUndefined();
});
