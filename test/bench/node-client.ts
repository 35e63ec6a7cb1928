/** Calls to a daemon that runs in a test node, with the moments at which they were sent and answered. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { runFile } from "../../src/host/qemu/command-line.ts";
import type { Hive } from "../support/hive.ts";
import { until } from "../support/netns.ts";
import { signedCall } from "./hive-process.ts";

const PORT = 9999;

export interface Called {
  /** Milliseconds since the epoch, with fractions. */
  readonly sentAt: number;
  readonly answeredAt: number;
  /** The XML. */
  readonly body: string;
}

export class NodeClient {
  readonly #process: ReturnType<Hive["node"]["spawn"]>;
  #answers = 0;

  private constructor(child: ReturnType<Hive["node"]["spawn"]>) {
    this.#process = child;
  }

  static async start(hive: Hive): Promise<NodeClient> {
    const child = hive.node.spawn([process.execPath, join(import.meta.dir, "call.ts"), String(PORT)]);
    await child.waitFor(/^started\n/);
    return new NodeClient(child);
  }

  /** One call. @throws when it is refused */
  async call(action: string, parameters: Readonly<Record<string, string>> = {}): Promise<Called> {
    this.#process.write(`${signedCall(PORT, action, parameters).toString("base64")}\n`);
    const wanted = ++this.#answers;
    const lines = () => this.#process.output().split("\n").slice(1, -1);
    await until(() => lines().length >= wanted, `${action} is answered`, 60_000);
    const { sentAt, answeredAt, answer } = JSON.parse(lines()[wanted - 1]!) as Called & { answer: string };
    if (!answer.startsWith("HTTP/1.1 200")) throw new Error(`${action}: ${answer}`);
    return { sentAt, answeredAt, body: answer.slice(answer.indexOf("\r\n\r\n") + 4) };
  }
}

/** What is between `<name>` and `</name>`, each time. */
export const elements = (xml: string, name: string): string[] =>
  [...xml.matchAll(new RegExp(`<${name}>([^<]*)</${name}>`, "g"))].map((match) => match[1]!);

/** What a guest's console has shown, as QEMU writes it down. */
export function consoleOf(dataDir: string, instanceId: string): string {
  try {
    return readFileSync(join(dataDir, runFile.consoleLog(instanceId)), "utf8");
  } catch {
    return ""; // not there yet
  }
}

/** When `text` was on a console: milliseconds since the epoch. It is looked for every other millisecond. */
export async function shownAt(dataDir: string, instanceId: string, text: string, timeoutMs: number): Promise<number> {
  const deadline = performance.now() + timeoutMs;
  while (!consoleOf(dataDir, instanceId).includes(text)) {
    if (performance.now() > deadline) {
      throw new Error(`no ${text} within ${timeoutMs} ms: ${consoleOf(dataDir, instanceId).slice(-500)}`);
    }
    await Bun.sleep(2);
  }
  return performance.timeOrigin + performance.now();
}
