import { afterEach, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CONSOLE_OUTPUT_BYTES_MAX, Console, type ConsoleFiles, consoleOutput, forgetConsole } from "./console.ts";

/** A guest's serial port as QEMU offers it: a socket for one client, and a log beside it. */
function serialPort() {
  const folder = mkdtempSync(join(tmpdir(), "hive-console-"));
  const files: ConsoleFiles = {
    socket: join(folder, "serial.sock"),
    log: join(folder, "qemu-console.log"),
    kept: join(folder, "console.log"),
    seam: join(folder, "console.seam"),
  };
  const clients = new Set<Bun.Socket>();
  const listener = Bun.listen({
    unix: files.socket,
    socket: {
      open: (socket) => void clients.add(socket),
      close: (socket) => void clients.delete(socket),
      data() {},
    },
  });
  undo.push(() => {
    listener.stop(true);
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    files,
    clients,
    /** Prints as a guest does; `logged` is what QEMU's log gets of it. */
    print(text: string, logged = text) {
      appendFileSync(files.log, logged);
      for (const client of clients) client.write(text);
    },
  };
}

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0)) step();
});

const text = (files: ConsoleFiles, live: boolean) => Buffer.from(consoleOutput(files, live)?.bytes ?? []).toString();
async function until(condition: () => boolean) {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error("not within five seconds");
    await Bun.sleep(1);
  }
}

async function connected(port: ReturnType<typeof serialPort>): Promise<Console> {
  const console = new Console(port.files);
  await console.connect();
  await until(() => port.clients.size > 0);
  undo.unshift(() => console.close());
  return console;
}

test("bytes that QEMU logs twice are shown once", async () => {
  const port = serialPort();
  await connected(port);
  port.print("ready\n", "rready\n");
  await until(() => text(port.files, true).length >= 6);
  expect(text(port.files, true)).toBe("ready\n");
  expect(text(port.files, false)).toBe("ready\n");
});

test("a console that has said nothing yet is empty, and there", async () => {
  const port = serialPort();
  await connected(port);
  expect(consoleOutput(port.files, true)?.bytes.length).toBe(0);
});

test("what a guest said while no daemon ran stands in its place", async () => {
  const port = serialPort();
  const first = await connected(port);
  port.print("one\n");
  await until(() => text(port.files, true) === "one\n");
  first.close();
  await until(() => port.clients.size === 0);
  port.print("two\n");
  expect(text(port.files, false)).toBe("one\ntwo\n");
  await connected(port);
  port.print("three\n");
  await until(() => text(port.files, true).endsWith("three\n"));
  expect(text(port.files, true)).toBe("one\ntwo\nthree\n");
});

test("a watcher that looks at the output first misses nothing and gets nothing twice", async () => {
  const port = serialPort();
  const console = await connected(port);
  port.print("before ");
  await until(() => text(port.files, true) === "before ");
  let seen = text(port.files, true);
  console.watch((chunk) => {
    seen += Buffer.from(chunk).toString();
  });
  port.print("after");
  await until(() => seen.endsWith("after"));
  expect(seen).toBe("before after");
});

test("output has a bound, in memory and on disk", async () => {
  const port = serialPort();
  await connected(port);
  const line = `${"x".repeat(1023)}\n`;
  for (let i = 0; i < 2500; i++) {
    port.print(line);
    if (i % 50 === 0) await Bun.sleep(1);
  }
  port.print("end\n");
  await until(() => text(port.files, true).endsWith("end\n"));
  expect(text(port.files, true).length).toBe(CONSOLE_OUTPUT_BYTES_MAX);
  expect(readFileSync(port.files.kept).length).toBeLessThanOrEqual(1024 * 1024 + CONSOLE_OUTPUT_BYTES_MAX);
});

test("a link that a guest's process puts in the log's place is not followed", async () => {
  const port = serialPort();
  const secret = join(port.files.log, "../secret");
  writeFileSync(secret, "the host's own");
  symlinkSync(secret, port.files.log);
  expect(text(port.files, false)).not.toContain("host");
});

test("a new start begins with an empty console", () => {
  const port = serialPort();
  port.print("old");
  forgetConsole(port.files);
  expect(consoleOutput(port.files, false)).toBeUndefined();
});
