/** `hive console` and `hive logs`: the serial console of an instance. */
import { CommandFailed, type Connection, hiveRequest, signedHeaders } from "./connection.ts";
import { dim, say } from "./output.ts";

/** Ctrl-] as in telnet and virsh; rarely typed in a guest. */
const DETACH_KEY = 0x1d;

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
      stdin.pause();
    };
    const finish = (code: number, note: string) => {
      restore();
      say(dim(`\r\n[${note}]`));
      resolve(code);
    };
    const type = (bytes: Buffer) => {
      const detach = stdin.isTTY ? bytes.indexOf(DETACH_KEY) : -1;
      if (detach !== 0) socket.send(detach < 0 ? bytes : bytes.subarray(0, detach));
      if (detach >= 0) {
        socket.onclose = null;
        socket.close();
        finish(0, "detached");
      }
    };
    socket.onopen = () => {
      opened = true;
      say(dim(`[connected to ${instanceId}; Ctrl-] detaches]`));
      if (stdin.isTTY) stdin.setRawMode(true);
      stdin.on("data", type);
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

/** Prints what an instance's console has said; with `follow`, goes on until the machine ends. */
export async function printLogs(connection: Connection, instanceId: string, follow: boolean): Promise<void> {
  const response = await hiveRequest(
    connection,
    "GET",
    `/_hive/logs/${encodeURIComponent(instanceId)}${follow ? "?follow=true" : ""}`,
  );
  if (!response.body) return;
  for await (const chunk of response.body) process.stdout.write(chunk);
}
