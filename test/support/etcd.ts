/** An etcd of a test's own: on loopback, with a fresh directory, ended with the test. */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "./netns.ts";

export interface TestEtcd {
  /** `127.0.0.1:port` of its clients. */
  readonly address: string;
  readonly pid: number;
  /** One call of its JSON gateway. Throws unless it succeeds. */
  call(path: string, body: object): Promise<Record<string, unknown>>;
  /** Ends it as a power cut would. */
  kill(): Promise<void>;
  /** Starts it again on the same port and directory. */
  start(): Promise<void>;
  /** Copies its data aside, or puts them back. While it does not run. */
  save(): void;
  restore(): void;
  /** Ends it for good. */
  stop(): Promise<void>;
}

/** Files: who signs, what the server shows, and what this test shows to it. */
export interface TestTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly clientCert: string;
  readonly clientKey: string;
}

export async function startEtcd(flags: readonly string[] = [], tls?: TestTls): Promise<TestEtcd> {
  const etcd = new RunningEtcd(0, [freePort()], flags, tls);
  await etcd.start();
  return etcd;
}

/** A cluster of so many members. */
export async function startEtcdCluster(size: number): Promise<TestEtcd[]> {
  const peers = Array.from({ length: size }, freePort);
  const members = peers.map((_, index) => new RunningEtcd(index, peers));
  await Promise.all(members.map((member) => member.start()));
  return members;
}

class RunningEtcd implements TestEtcd {
  readonly address: string;
  readonly #command: readonly string[];
  readonly #directory: string;
  #process: Bun.Subprocess | undefined;
  readonly #origin: string;
  readonly #tls: Bun.TLSOptions | undefined;
  readonly #onExit = () => this.#process?.kill("SIGKILL");

  constructor(index: number, peerPorts: readonly number[], flags: readonly string[] = [], tls?: TestTls) {
    const directory = mkdtempSync(join(tmpdir(), "hive-etcd-"));
    this.#directory = directory;
    this.address = `127.0.0.1:${freePort()}`;
    this.#origin = `${tls ? "https" : "http"}://${this.address}`;
    this.#tls = tls && { ca: Bun.file(tls.ca), cert: Bun.file(tls.clientCert), key: Bun.file(tls.clientKey) };
    const peers = peerPorts.map((port) => `http://127.0.0.1:${port}`);
    const members = peers.map((url, i) => `member-${i}=${url}`).join();
    const [client, peer] = [this.#origin, peers[index]!];
    this.#command = [
      ...[
        "etcd",
        "--name",
        `member-${index}`,
        "--data-dir",
        join(directory, "data"),
        "--logger",
        "zap",
        "--log-level",
        "error",
      ],
      ...["--listen-client-urls", client, "--advertise-client-urls", client],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", members],
      ...(tls
        ? ["--cert-file", tls.cert, "--key-file", tls.key, "--trusted-ca-file", tls.ca, "--client-cert-auth"]
        : []),
      ...flags,
    ];
    process.on("exit", this.#onExit);
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  async start(): Promise<void> {
    const said = Bun.file(join(this.#directory, "stderr"));
    const started = Bun.spawn([...this.#command], { stdin: "ignore", stdout: "ignore", stderr: said });
    this.#process = started;
    const isHealthy = async () => {
      if (started.exitCode !== null) throw new Error(`etcd ended: ${await said.text()}`);
      const health = await this.#fetch("/health", {}).catch(() => undefined);
      return health?.ok === true;
    };
    await until(isHealthy, "etcd is healthy", 30_000);
  }

  async call(path: string, body: object): Promise<Record<string, unknown>> {
    const response = await this.#fetch(`/v3/${path}`, { method: "POST", body: JSON.stringify(body) });
    if (!response.ok) throw new Error(await response.text());
    return (await response.json()) as Record<string, unknown>;
  }

  #fetch(path: string, init: BunFetchRequestInit): Promise<Response> {
    return fetch(this.#origin + path, this.#tls ? { ...init, tls: this.#tls } : init);
  }

  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.exited;
    this.#process = undefined;
  }

  save(): void {
    cpSync(join(this.#directory, "data"), join(this.#directory, "saved"), { recursive: true });
  }

  restore(): void {
    rmSync(join(this.#directory, "data"), { recursive: true });
    cpSync(join(this.#directory, "saved"), join(this.#directory, "data"), { recursive: true });
  }

  async stop(): Promise<void> {
    process.off("exit", this.#onExit);
    await this.kill();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** A port that nobody listens on at this moment. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
