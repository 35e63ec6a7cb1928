/** Programs in a terminal of their own, in a test node: what a person at a keyboard sees and does. See pty.mjs. */
import { join } from "node:path";
import { type TestNode, until } from "./netns.ts";

const HELPER = join(import.meta.dir, "pty.mjs");

export interface Terminal {
  /** Everything that was shown until now, escapes and all. */
  shown(): string;
  /** Resolves once what was shown since the last call matches. */
  waitFor(pattern: RegExp, timeoutMs?: number): Promise<void>;
  type(keys: string): void;
  resize(columns: number, rows: number): void;
  /** Closes the window with the program in it. */
  hangUp(): void;
  /** How the program ended: undefined while it runs. */
  readonly exit: { readonly exitCode: number; readonly signal: number } | undefined;
  /** Resolves once it has ended, with its exit code. */
  ended(timeoutMs?: number): Promise<number>;
}

/** Why there are no terminals here, as a sentence; undefined when there are. For `test.skipIf`. */
export function terminalUnavailable(): string | undefined {
  const cwd = join(import.meta.dir, "../..");
  const tried = Bun.spawnSync(["node", "-e", 'require("node-pty")'], { cwd, stdout: "ignore", stderr: "pipe" });
  return tried.exitCode === 0 ? undefined : "needs Node and node-pty (npm ci with python3, make and g++)";
}

/** Starts a program in a terminal of 80 by 24; it ends with the node at the latest. */
export function openTerminal(node: TestNode, argv: readonly string[]): Terminal {
  const child = node.spawn(["env", "TERM=xterm", "node", HELPER, ...argv]);
  let seen = 0;
  const events = () =>
    child
      .output()
      .split("\n")
      .slice(0, -1)
      .map((line) => parse(line));
  const shown = () =>
    events()
      .map((event) => event.data ?? "")
      .join("");
  const tell = (command: object) => child.write(`${JSON.stringify(command)}\n`);
  const exit = () => events().find((event) => event.exit)?.exit;
  return {
    shown,
    async waitFor(pattern, timeoutMs = 20_000) {
      await until(
        () => pattern.test(shown().slice(seen)),
        `the terminal of ${argv.join(" ")} shows ${pattern}`,
        timeoutMs,
      ).catch((cause) => {
        throw new Error(
          `${cause.message}; it showed: ${JSON.stringify(shown().slice(-2000))} ${child.output().slice(-500)}`,
        );
      });
      seen = shown().length;
    },
    type: (keys) => tell({ type: keys }),
    resize: (columns, rows) => tell({ resize: [columns, rows] }),
    hangUp: () => tell({ hangUp: true }),
    get exit() {
      return exit();
    },
    async ended(timeoutMs = 20_000) {
      await until(() => exit() !== undefined, `${argv.join(" ")} ends; it showed ${shown().slice(-500)}`, timeoutMs);
      return exit()?.exitCode ?? -1;
    },
  };
}

interface TerminalEvent {
  readonly data?: string;
  readonly exit?: { readonly exitCode: number; readonly signal: number };
}

function parse(line: string): TerminalEvent {
  try {
    return JSON.parse(line) as TerminalEvent;
  } catch {
    return {}; // A complaint of Node's on stderr, shown when a wait fails.
  }
}
