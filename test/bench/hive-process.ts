/** A `hive server` of the benchmark: started without a test node, told its root keys, spoken to by signed bytes. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { signRequest } from "../../src/protocol/sigv4-sign.ts";
import { HIVE } from "../support/hive.ts";

const ACCESS_KEY_ID = "AKIAHIVEBENCHMARK000";
const SECRET_ACCESS_KEY = "benchmark/benchmark/benchmark/benchmark0";
const REGION = "us-east-1";
/** For a daemon whose calls are to be signed by `signedCall`. */
export const ROOT_KEY_ENVIRONMENT = {
  HIVE_ROOT_ACCESS_KEY_ID: ACCESS_KEY_ID,
  HIVE_ROOT_SECRET_ACCESS_KEY: SECRET_ACCESS_KEY,
};

export interface HiveProcess {
  readonly pid: number;
  readonly port: number;
  readonly dataDir: string;
  /** Ends it and waits until it is gone. The data directory stays. */
  kill(signal?: NodeJS.Signals): Promise<void>;
}

/** A fresh directory for the length of `body`. */
export async function withDirectory<T>(body: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "hive-bench-"));
  try {
    return await body(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The command line of a daemon without machines, with room for thousands of records, whose log goes where stdout goes. */
export function hiveCommand(
  directory: string,
  port: number,
  options: readonly string[] = [],
): { argv: string[]; env: Record<string, string> } {
  const config = join(directory, "hive.yaml");
  writeFileSync(config, "overcommit:\n  cpu: 100000\n  memory: 100000\n");
  return {
    argv: [
      ...[HIVE, "server", "--role=all", "--accel", "none", "--data-dir", join(directory, "data")],
      ...["--config", config, "--listen", `127.0.0.1:${port}`, ...options],
    ],
    env: {
      PATH: process.env.PATH ?? "",
      ...ROOT_KEY_ENVIRONMENT,
    },
  };
}

/** Starts it and waits until it says that it is ready. Its output goes to `directory/hive.log`, as under a service manager. */
export async function startHive(directory: string, options: readonly string[] = []): Promise<HiveProcess> {
  const logFile = join(directory, "hive.log");
  const { argv, env } = hiveCommand(directory, 0, options);
  const out = openSync(logFile, "w");
  const child = Bun.spawn(argv, { env, stdin: "ignore", stdout: out, stderr: out });
  closeSync(out);
  const kill = async (signal: NodeJS.Signals = "SIGKILL") => {
    child.kill(signal);
    await child.exited;
  };
  for (let waited = 0; waited < 10_000; waited += 5) {
    const port = /^ready http:\/\/\S+:(\d+)$/m.exec(readFileSync(logFile, "utf8"))?.[1];
    if (port) return { pid: child.pid, port: Number(port), dataDir: join(directory, "data"), kill };
    if (child.exitCode !== null) break;
    await Bun.sleep(5);
  }
  await kill();
  throw new Error(`hive server did not get ready: ${readFileSync(logFile, "utf8")}`);
}

/** Free a moment ago, at least. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

/** An import of a small disk, by Hive's own command. @returns the AMI's id */
export async function importImage(hive: HiveProcess, directory: string): Promise<string> {
  const disk = join(directory, "disk.raw");
  const bytes = Buffer.alloc(1024 * 1024);
  bytes.set([0x55, 0xaa], 510); // a boot record, as any disk has
  writeFileSync(disk, bytes);
  const child = Bun.spawn([HIVE, "image", "import", disk, "--name", "bench"], {
    env: {
      PATH: process.env.PATH ?? "",
      HIVE_ENDPOINT: `http://127.0.0.1:${hive.port}`,
      AWS_ACCESS_KEY_ID: ACCESS_KEY_ID,
      AWS_SECRET_ACCESS_KEY: SECRET_ACCESS_KEY,
      AWS_REGION: REGION,
      AWS_PROFILE: "hive",
      AWS_CONFIG_FILE: join(hive.dataDir, "aws/config"),
      AWS_SHARED_CREDENTIALS_FILE: join(hive.dataDir, "aws/credentials"),
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, error] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(`hive image import: ${error}`);
  return out.trim();
}

/** A signed EC2 call as the bytes of one HTTP request, with the headers that the AWS CLI sends. */
export function signedCall(port: number, action: string, parameters: Readonly<Record<string, string>> = {}): Buffer {
  const body = new URLSearchParams({ Action: action, Version: "2016-11-15", ...parameters }).toString();
  const headers = signRequest(
    {
      method: "POST",
      url: new URL(`http://127.0.0.1:${port}/`),
      service: "ec2",
      region: REGION,
      headers: { "content-type": "application/x-www-form-urlencoded; charset=utf-8" },
      body,
      now: Date.now(),
    },
    { accessKeyId: ACCESS_KEY_ID, secretAccessKey: SECRET_ACCESS_KEY },
  );
  return httpRequest(headers, body);
}

function httpRequest(headers: Readonly<Record<string, string>>, body: string): Buffer {
  const all = {
    ...headers,
    "user-agent": "aws-cli/2.9.19 Python/3.11.2 Linux/6.1.0 source/x86_64.debian.12 prompt/off command/ec2.bench",
    "accept-encoding": "identity",
    "content-length": String(Buffer.byteLength(body)),
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`POST / HTTP/1.1\r\n${lines.join("")}\r\n${body}`);
}

/** One RunInstances of one instance, with a client token of its own, as the AWS CLI sends it. */
export const runOne = (port: number, imageId: string, parameters: Readonly<Record<string, string>> = {}): Buffer =>
  signedCall(port, "RunInstances", {
    ImageId: imageId,
    InstanceType: "h1.nano",
    MinCount: "1",
    MaxCount: "1",
    ClientToken: crypto.randomUUID(),
    ...parameters,
  });

export interface Memory {
  readonly residentMib: number;
  /** Of it, what no file backs: the rest is mostly the executable. */
  readonly anonymousMib: number;
}

export function memoryOf(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const mib = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? Number.NaN) / 1024;
  return { residentMib: mib("VmRSS"), anonymousMib: mib("RssAnon") };
}
