import { afterAll, afterEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withSocketPath } from "./qemu/socket-path.ts";
import { connectQmp, type Qmp, type QmpEvent } from "./qmp.ts";

/** The other end of the protocol; the real one is in test/integration/qemu.test.ts. */
const GREETING = `${JSON.stringify({ QMP: { version: {}, capabilities: [] } })}\r\n`;
const folder = mkdtempSync(join(tmpdir(), "hive-qmp-"));
let stops: (() => void)[] = [];
let next = 0;
afterEach(() => {
  for (const stop of stops) stop();
  stops = [];
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Command = { execute: string; id: number };
async function monitor(
  answer: (command: Command, send: (text: string) => void, end: () => void) => void,
  greeting = GREETING,
  path = join(folder, `${next++}`),
) {
  await withSocketPath(path, async (unix) => {
    const server = Bun.listen({
      unix,
      socket: {
        open: (socket) => void socket.write(greeting),
        data: (socket, chunk) => {
          for (const line of chunk.toString().trim().split("\n")) {
            const command = JSON.parse(line) as Command;
            if (command.execute === "qmp_capabilities")
              socket.write(`${JSON.stringify({ return: {}, id: command.id })}\n`);
            else
              answer(
                command,
                (text) => void socket.write(text),
                () => void socket.end(),
              );
          }
        },
      },
    });
    stops.push(() => server.stop(true));
  });
  return path;
}
const connect = async (path: string, onEvent: (event: QmpEvent) => void = () => {}): Promise<Qmp> => {
  const connected = await connectQmp(path, onEvent, 2000);
  if (!connected.ok) throw new Error(connected.error.message);
  stops.push(() => connected.value.close());
  return connected.value;
};

test("answers find their command by id, in whatever order and pieces they come", async () => {
  const waiting: Command[] = [];
  const path = await monitor((command, send) => {
    waiting.push(command);
    if (waiting.length < 2) return;
    const text = waiting
      .reverse()
      .map(({ execute, id }) => `${JSON.stringify({ return: `${execute} é`, id })}\n`)
      .join("");
    const bytes = Buffer.from(text);
    for (const at of [0, 7, 19])
      setTimeout(() => send(bytes.subarray(at, at === 19 ? undefined : at === 0 ? 7 : 19).toString("latin1")), at);
  });
  const qmp = await connect(path);
  const both = await Promise.all([qmp.execute("first"), qmp.execute("second")]);
  expect(both.map((r) => r.ok && String(r.value).split(" ")[0])).toEqual(["first", "second"]);
});

test("events are heard, also between command and answer; a refusal is QEMU's own sentence", async () => {
  const path = await monitor(({ id }, send) => {
    send(`${JSON.stringify({ event: "STOP", data: { a: 1 }, timestamp: {} })}\n`);
    send(`${JSON.stringify({ error: { class: "GenericError", desc: "Device 'x' not found" }, id })}\n`);
  });
  const events: QmpEvent[] = [];
  const qmp = await connect(path, (event) => events.push(event));
  const refused = await qmp.execute("device_del", { id: "x" });
  expect(refused).toMatchObject({
    ok: false,
    error: { kind: "command-failed", message: "QEMU refused: Device 'x' not found" },
  });
  expect(events).toEqual([{ event: "STOP", data: { a: 1 } }]);
});

test("the end of the process fails what waits, and is seen", async () => {
  const path = await monitor((_command, _send, end) => end());
  const qmp = await connect(path);
  expect(await qmp.execute("quit")).toMatchObject({ ok: false, error: { kind: "io" } });
  await qmp.closed;
  expect(await qmp.execute("query-status")).toMatchObject({ ok: false, error: { kind: "io" } });
});

test("a monitor that serves another client does not hold us for ever", async () => {
  const path = await monitor(() => {}, "");
  expect(await connectQmp(path, () => {}, 50)).toMatchObject({ ok: false, error: { kind: "timeout" } });
  const silent = await connect(await monitor(() => {}));
  expect(await silent.execute("query-status", undefined, 50)).toMatchObject({ ok: false, error: { kind: "timeout" } });
});

test("what is no monitor is refused", async () => {
  const path = await monitor(() => {}, "SSH-2.0-OpenSSH\n");
  expect((await connectQmp(path, () => {}, 1000)).ok).toBe(false);
  expect(await connectQmp(join(folder, "none"), () => {}, 1000)).toMatchObject({
    ok: false,
    error: { kind: "not-found" },
  });
});

test("a socket deeper than socket paths may be long is reached", async () => {
  const deep = join(folder, "d".repeat(100), "e".repeat(100));
  mkdirSync(deep, { recursive: true });
  const path = await monitor(
    ({ id }, send) => send(`${JSON.stringify({ return: 1, id })}\n`),
    GREETING,
    join(deep, "q"),
  );
  expect(await (await connect(path)).execute("x")).toEqual({ ok: true, value: 1 });
});
