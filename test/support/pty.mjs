/**
 * One program in a terminal of its own, by node-pty. It runs under Node, since under Bun 1.4 node-pty reads nothing.
 * Arguments: the program's. On stdin, a JSON object a line: { type }, { resize: [columns, rows] }, { hangUp: true }. On stdout, a
 * JSON object a line: { pid } first, then { data } as it comes, and { exit: { exitCode, signal } } at the end.
 */
import { createInterface } from "node:readline";
import { spawn } from "node-pty";

const [file, ...args] = process.argv.slice(2);
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const terminal = spawn(file, args, { name: "xterm", cols: 80, rows: 24, env: process.env });
say({ pid: terminal.pid });
terminal.onData((data) => say({ data }));
terminal.onExit((exit) => {
  say({ exit });
  process.exitCode = 0;
  process.stdin.destroy();
});
createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  if (command.type !== undefined) terminal.write(command.type);
  if (command.resize) terminal.resize(...command.resize);
  // The master side goes away, as when a window is closed: the kernel hangs up.
  if (command.hangUp) terminal.destroy();
});
