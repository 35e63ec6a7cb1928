/** `hive console` and `hive logs`: the serial console of an instance. */
import { CommandFailed, type Connection, hiveRequest, signedHeaders } from "./connection.ts";
import { dim, type OutputFormat, say, writeOut } from "./output.ts";

/** Ctrl-] as in telnet and virsh; rarely typed in a guest. */
const DETACH_KEY = 0x1d;
const ENDING_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const SIGNAL_NUMBERS: Partial<Record<NodeJS.Signals, number>> = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 };

/**
 * Joins the terminal to an instance's serial console, raw, until Ctrl-] is typed, the machine ends or stdin ends. Others may watch
 * and type at the same time. @returns the exit code
 */
export async function openConsole(connection: Connection, instanceId: string): Promise<number> {
  const path = `/_hive/console/${encodeURIComponent(instanceId)}`;
  const url = new URL(`${connection.endpoint}${path}`);
  const headers = signedHeaders(connection, "GET", url, "");
  const socket = new WebSocket(`${connection.endpoint.replace(/^http/, "ws")}${path}`, {
    headers,
  } as unknown as string[]);
  socket.binaryType = "arraybuffer";

  return new Promise<number>((resolve, reject) => {
    let opened = false;
    const stdin = process.stdin;
    const restore = () => {
      if (stdin.isTTY) stdin.setRawMode(false);
      stdin.off("data", type);
      stdin.off("end", ended);
      stdin.pause();
      for (const signal of ENDING_SIGNALS) process.off(signal, killed);
    };
    let finished = false;
    const finish = (code: number, note: string) => {
      if (finished) return;
      finished = true;
      restore();
      socket.close();
      say(dim(`\r\n[${note}]`));
      resolve(code);
    };
    const type = (bytes: Buffer) => {
      const detach = stdin.isTTY ? bytes.indexOf(DETACH_KEY) : -1;
      if (detach !== 0) socket.send(detach < 0 ? bytes : bytes.subarray(0, detach));
      if (detach >= 0) finish(0, "detached");
    };
    const ended = () => finish(0, "the input has ended");
    // The terminal is given back as it was, whatever ends the command.
    const killed = (signal: NodeJS.Signals) => finish(128 + SIGNAL_NUMBERS[signal]!, `ended by ${signal}`);
    socket.onopen = () => {
      opened = true;
      say(dim(`[connected to ${instanceId}; Ctrl-] detaches]`));
      if (stdin.isTTY) stdin.setRawMode(true);
      stdin.on("data", type);
      stdin.on("end", ended);
      for (const signal of ENDING_SIGNALS) process.on(signal, killed);
      stdin.resume();
    };
    socket.onmessage = (event) => {
      process.stdout.write(new Uint8Array(event.data as ArrayBuffer));
    };
    socket.onclose = (event) => {
      if (opened) finish(0, event.reason || "the console closed");
    };
    // A refused upgrade carries no body to a websocket: ask the plain route what is wrong.
    socket.onerror = () => {
      if (opened) return;
      hiveRequest(connection, "GET", path).then(
        () => reject(new CommandFailed("the console could not be opened")),
        (cause) => reject(cause),
      );
    };
  });
}

/**
 * Prints what an instance's console has said; with `follow`, goes on until the machine ends. As JSON: an object
 * `{ instanceId, output }`; with `follow` one a line for what comes.
 */
export async function printLogs(
  connection: Connection,
  instanceId: string,
  follow: boolean,
  format: OutputFormat,
): Promise<void> {
  const path = `/_hive/logs/${encodeURIComponent(instanceId)}${follow ? "?follow=true" : ""}`;
  const response = await hiveRequest(connection, "GET", path);
  const decoder = new TextDecoder();
  const json = (output: string) => `${JSON.stringify({ instanceId, output })}\n`;
  if (format === "json" && !follow) {
    await writeOut(json(await response.text()));
    return;
  }
  for await (const chunk of response.body ?? []) {
    const there = await writeOut(format === "json" ? json(decoder.decode(chunk, { stream: true })) : chunk);
    if (!there) return;
  }
}
