/**
 * A real `hive server` without machines and networks, on ports of this host that were free: for what can be seen from outside
 * through its sockets alone. It needs no root and starts in a fraction of a second.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HIVE } from "./hive.ts";
import { until } from "./netns.ts";

export const ROOT_KEY = { id: "AKIALIGHTHIVE0000000", secret: "a/secret+for/tests+that/nobody+guesses00" } as const;

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface LightHive {
  readonly endpoint: string;
  /** Of the configuration store, over the Redis protocol. */
  readonly configPort: number;
  readonly pid: number;
  /** Runs a `hive` command to its end, whatever it is. */
  hive(words: readonly string[], stdin?: string | Uint8Array): Promise<Ran>;
  /** Starts a `hive` command. It is ended with the server, if it has not ended. */
  start(words: readonly string[]): RunningCommand;
  /** Runs Redis's own command. */
  redisCli(words: readonly string[], stdin?: string): Promise<Ran>;
  /** What the server printed. */
  output(): string;
  /** Ends the server by a signal and starts it on the same directory and ports. */
  restart(signal: NodeJS.Signals): Promise<void>;
  /** @returns the exit code */
  stop(signal?: NodeJS.Signals): Promise<number>;
}

export interface RunningCommand {
  output(): string;
  errors(): string;
  /** @returns the exit code */
  end(signal: NodeJS.Signals): Promise<number>;
}

/** Starts a server, hands it to `body`, and ends everything. */
export async function withLightHive<T>(
  body: (hive: LightHive) => Promise<T>,
  flags: readonly string[] = [],
): Promise<T> {
  const hive = new Server(flags);
  try {
    await hive.up();
    return await body(hive);
  } catch (cause) {
    console.error(hive.output().split("\n").slice(-30).join("\n"));
    throw cause;
  } finally {
    await hive.close();
  }
}

class Server implements LightHive {
  readonly #directory = mkdtempSync(join(tmpdir(), "hive-light-"));
  readonly #flags: readonly string[];
  readonly #commands = new Set<RunningCommand>();
  #process: Bun.Subprocess<"ignore", "pipe", "pipe"> | undefined;
  #printed = "";
  #ports = { endpoint: 0, config: 0 };

  constructor(flags: readonly string[]) {
    this.#flags = flags;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#ports.endpoint}`;
  }
  get configPort(): number {
    return this.#ports.config;
  }
  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  async up(): Promise<void> {
    const { endpoint, config } = this.#ports;
    const argv = [
      ...[HIVE, "server", "--role=all", "--accel", "none", "--data-dir", join(this.#directory, "data")],
      ...["--listen", `127.0.0.1:${endpoint}`, "--config-listen", `127.0.0.1:${config}`, ...this.#flags],
    ];
    const env = {
      PATH: process.env.PATH ?? "",
      HIVE_ROOT_ACCESS_KEY_ID: ROOT_KEY.id,
      HIVE_ROOT_SECRET_ACCESS_KEY: ROOT_KEY.secret,
    };
    const child = Bun.spawn(argv, { env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    this.#process = child;
    let printed = "";
    const gather = async (stream: ReadableStream<Uint8Array>) => {
      for await (const chunk of stream) {
        printed += new TextDecoder().decode(chunk);
        this.#printed += new TextDecoder().decode(chunk);
      }
    };
    void gather(child.stdout);
    void gather(child.stderr);
    await until(() => /^ready /m.test(printed) || child.exitCode !== null, "the server is ready", 30_000);
    const port = (pattern: RegExp) => Number(pattern.exec(printed)?.[1]);
    this.#ports = { endpoint: port(/^ready http:\S+:(\d+)$/m), config: port(/redis:\/\/127\.0\.0\.1:(\d+) /) };
    if (!this.#ports.endpoint) throw new Error(`the server has ended: ${printed}`);
  }

  output(): string {
    return this.#printed;
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
    const child = this.#process;
    this.#process = undefined;
    child?.kill(signal);
    return (await child?.exited) ?? 0;
  }

  async restart(signal: NodeJS.Signals): Promise<void> {
    await this.stop(signal);
    await this.up();
  }

  async close(): Promise<void> {
    for (const command of this.#commands) await command.end("SIGKILL");
    await this.stop("SIGKILL");
    rmSync(this.#directory, { recursive: true, force: true });
  }

  get #environment(): Record<string, string> {
    return {
      PATH: process.env.PATH ?? "",
      HOME: "/nonexistent",
      HIVE_ENDPOINT: this.endpoint,
      AWS_ACCESS_KEY_ID: ROOT_KEY.id,
      AWS_SECRET_ACCESS_KEY: ROOT_KEY.secret,
      REDISCLI_AUTH: ROOT_KEY.secret,
    };
  }

  hive(words: readonly string[], stdin?: string | Uint8Array): Promise<Ran> {
    return run([HIVE, ...words], this.#environment, stdin);
  }

  redisCli(words: readonly string[], stdin?: string): Promise<Ran> {
    const argv = ["redis-cli", "-h", "127.0.0.1", "-p", String(this.configPort), "--user", ROOT_KEY.id, ...words];
    return run(argv, this.#environment, stdin);
  }

  start(words: readonly string[]): RunningCommand {
    const child = Bun.spawn([HIVE, ...words], {
      env: this.#environment,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    let [out, errors] = ["", ""];
    const gather = async (stream: ReadableStream<Uint8Array>, add: (text: string) => void) => {
      for await (const chunk of stream) add(new TextDecoder().decode(chunk));
    };
    const gathered = Promise.all([
      gather(child.stdout, (text) => {
        out += text;
      }),
      gather(child.stderr, (text) => {
        errors += text;
      }),
    ]);
    const command: RunningCommand = {
      output: () => out,
      errors: () => errors,
      end: async (signal) => {
        this.#commands.delete(command);
        child.kill(signal);
        await gathered;
        return child.exited;
      },
    };
    this.#commands.add(command);
    return command;
  }
}

async function run(argv: string[], env: Record<string, string>, stdin?: string | Uint8Array): Promise<Ran> {
  const child = Bun.spawn(argv, {
    env,
    stdin: stdin === undefined ? "ignore" : Buffer.from(stdin as string),
    stdout: "pipe",
    stderr: "pipe",
    timeout: 30_000,
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, stdout, stderr };
}
