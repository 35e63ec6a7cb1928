/**
 * A real `hive server` on a test node (its own network namespace and Open vSwitch), and the clients that strangers use: the AWS
 * CLI and ssh, run in the same namespace. Everything ends with the node; machines that still run are ended by their pid.
 */
import { chmodSync, existsSync } from "node:fs";
import { join } from "node:path";
import { findGuests } from "../../src/host/hypervisor/process.ts";
import { type Spawned, type TestNode, until, withNode } from "./netns.ts";

export const PROJECT = join(import.meta.dir, "../..");
export const HIVE = join(PROJECT, "dist/hive");
/** Debian's AWS CLI; another `aws` may come first in PATH. */
const AWS = existsSync("/usr/bin/aws") ? "/usr/bin/aws" : "aws";
/** Packages and built images, kept between runs. */
export const IMAGE_CACHE = process.env.HIVE_TEST_CACHE ?? join(PROJECT, ".cache/images");

export interface Hive {
  readonly node: TestNode;
  readonly dataDir: string;
  readonly endpoint: string;
  /** The daemon's process; another one after `restart`. */
  readonly pid: number;
  /** Runs the AWS CLI and parses its JSON. Throws what it printed when it fails. */
  // biome-ignore lint/suspicious/noExplicitAny: answers are of every shape, and looked into by tests
  aws(...words: string[]): Promise<any>;
  /** Runs the AWS CLI, which has to fail; gives what it printed. */
  awsFails(...words: string[]): Promise<string>;
  /** Runs a `hive` command and gives its stdout. */
  hive(...words: string[]): Promise<string>;
  /** Runs a command on a guest by ssh. */
  ssh(address: string, keyFile: string, command: string, user?: string): Promise<string>;
  /** What the daemon printed. */
  output(): string;
  /** Ends the daemon with a signal (default SIGKILL) and starts another on the same directory. */
  restart(signal?: NodeJS.Signals): Promise<void>;
  /** Ends the daemon. @returns its exit code */
  kill(signal?: NodeJS.Signals): Promise<number>;
  /** Starts it again, with these flags besides its own. */
  start(flags?: readonly string[]): Promise<void>;
}

export interface HiveOptions {
  readonly accel?: "none" | "tcg" | "auto";
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Absolute; by default a folder of the node's own. */
  readonly dataDir?: string;
  /** What the daemon is started by: a program and arguments that end in running the rest. */
  readonly prefix?: readonly string[];
  /** The node begins without Open vSwitch's daemons. */
  readonly openVswitch?: "stopped";
}

/** Starts a node and a daemon on it, hands them to `body`, and ends everything. */
export async function withHive<T>(body: (hive: Hive) => Promise<T>, options: HiveOptions = {}): Promise<T> {
  return withNode(
    async (node) => {
      chmodSync(node.directory, 0o711); // QEMU's own user passes through to its machine's folder
      const hive = new RunningHive(node, options);
      // The node's own handler ends what it has spawned, but a machine is nobody's child; the daemon would begin it anew.
      const onSignal = () => {
        if (hive.pid > 0) process.kill(hive.pid, "SIGKILL");
        endMachines(hive.dataDir);
      };
      process.once("SIGINT", onSignal);
      process.once("SIGTERM", onSignal);
      try {
        await hive.start();
        return await body(hive);
      } catch (cause) {
        const events = hive.output().split("\n");
        console.error(
          events
            .filter((line) => !/"api\.call".*"code":"ok"/.test(line))
            .slice(-40)
            .join("\n"),
        );
        throw cause;
      } finally {
        process.off("SIGINT", onSignal);
        process.off("SIGTERM", onSignal);
        await hive.kill();
        endMachines(hive.dataDir);
      }
    },
    { stopped: options.openVswitch === "stopped" },
  );
}

class RunningHive implements Hive {
  readonly node: TestNode;
  readonly dataDir: string;
  readonly endpoint = "http://127.0.0.1:9999";
  readonly #options: HiveOptions;
  #daemon: Spawned | undefined;
  #printed = "";

  constructor(node: TestNode, options: HiveOptions) {
    this.node = node;
    this.dataDir = options.dataDir ?? join(node.directory, "data");
    this.#options = options;
  }

  get pid(): number {
    return this.#daemon?.pid ?? 0;
  }

  async start(more: readonly string[] = []): Promise<void> {
    const { accel = "tcg", flags = [], env = {}, prefix = [] } = this.#options;
    this.#daemon = this.node.spawn([
      "env",
      ...Object.entries(env).map(([name, value]) => `${name}=${value}`),
      ...prefix,
      HIVE,
      "server",
      "--role=all",
      "--data-dir",
      this.dataDir,
      "--accel",
      accel,
      ...flags,
      ...more,
    ]);
    await this.#daemon.waitFor(/^ready /m, 30_000);
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<number> {
    if (!this.#daemon) return 0;
    const code = await this.#daemon.kill(signal);
    this.#printed += this.#daemon.output();
    this.#daemon = undefined;
    return code;
  }

  async restart(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await this.kill(signal);
    await this.start();
  }

  output(): string {
    return this.#printed + (this.#daemon?.output() ?? "");
  }

  get #environment(): Record<string, string> {
    return {
      AWS_PROFILE: "hive",
      AWS_CONFIG_FILE: join(this.dataDir, "aws/config"),
      AWS_SHARED_CREDENTIALS_FILE: join(this.dataDir, "aws/credentials"),
      AWS_PAGER: "",
      AWS_MAX_ATTEMPTS: "1",
      HIVE_ENDPOINT: this.endpoint,
    };
  }

  #awsArguments(words: string[]): string[] {
    return [AWS, "--endpoint-url", this.endpoint, "--output", "json", ...words];
  }

  async aws(...words: string[]) {
    const { stdout } = await this.node.exec(this.#awsArguments(words), { env: this.#environment, timeoutMs: 300_000 });
    return stdout.trim() === "" ? undefined : JSON.parse(stdout);
  }

  async awsFails(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.node.try(this.#awsArguments(words), { env: this.#environment });
    if (code === 0) throw new Error(`aws ${words.join(" ")} succeeded: ${stdout}`);
    return stderr;
  }

  async hive(...words: string[]): Promise<string> {
    const { stdout } = await this.node.exec([HIVE, ...words], { env: this.#environment, timeoutMs: 600_000 });
    return stdout.trim();
  }

  async ssh(address: string, keyFile: string, command: string, user = "root"): Promise<string> {
    const known = join(this.node.directory, "known-hosts");
    const argv = [
      ...["ssh", "-i", keyFile, "-o", "StrictHostKeyChecking=accept-new", "-o", `UserKnownHostsFile=${known}`],
      ...["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR", `${user}@${address}`, command],
    ];
    return (await this.node.exec(argv, { timeoutMs: 120_000 })).stdout;
  }
}

/** Ends the machines of a data directory. */
export function endMachines(dataDir: string): void {
  for (const { pid } of [...findGuests(dataDir).values()].flat()) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // Gone meanwhile.
    }
  }
}

export { until };
