import { expect, test } from "bun:test";
import { jsonLog, LogThreshold, lineBuffer, Secret } from "./log.ts";

const lines: string[] = [];
const log = jsonLog(
  (line) => lines.push(line),
  "info",
  () => 0,
);
const last = () => JSON.parse(lines.at(-1)!);

test("an event is one line of JSON with its time, level and fields", () => {
  log.with({ part: "x" }).info("thing.done", { count: 2 });
  expect(last()).toEqual({ time: "1970-01-01T00:00:00.000Z", level: "info", event: "thing.done", part: "x", count: 2 });
});
test("what is below the level is not written", () => {
  const before = lines.length;
  log.debug("noise");
  expect(lines.length).toBe(before);
});
test("a threshold that is moved holds for every log that was made with it", () => {
  const written: string[] = [];
  const threshold = new LogThreshold("error");
  const moving = jsonLog(
    (line) => written.push(line),
    threshold,
    () => 0,
  ).with({ part: "x" });
  moving.info("before");
  threshold.level = "debug";
  moving.debug("after");
  expect(written.map((line) => JSON.parse(line).event)).toEqual(["after"]);
});
test("an error is written with its cause, and a big number as text", () => {
  log.error("broke", { cause: new Error("outer", { cause: new Error("inner") }), size: 10n });
  expect(last()).toMatchObject({ cause: { message: "outer", cause: { message: "inner" } }, size: "10" });
});
test("a secret is never written", () => {
  log.info("key", { secret: new Secret("hunter2") });
  expect(lines.at(-1)).not.toContain("hunter2");
});
test("the lines of one turn are one write, and a flush loses none", async () => {
  const writes: string[] = [];
  const buffer = lineBuffer((text) => writes.push(text));
  buffer.write("a\n");
  buffer.write("b\n");
  while (writes.length === 0) await new Promise((done) => setTimeout(done, 1));
  expect(writes).toEqual(["a\nb\n"]);
  buffer.write("c\n");
  buffer.flush();
  expect(writes).toEqual(["a\nb\n", "c\n"]);
});
test("many lines do not wait", () => {
  const writes: string[] = [];
  const buffer = lineBuffer((text) => writes.push(text));
  for (let i = 0; i < 1024; i++) buffer.write(`${"x".repeat(127)}\n`);
  expect(writes.map((text) => text.length)).toEqual([64 * 1024, 64 * 1024]);
});
