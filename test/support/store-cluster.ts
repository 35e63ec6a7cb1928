/** Several `store-node.ts` processes with a network between them that can be broken. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ConsensusStatus } from "../../src/cluster/consensus.ts";
import type { StoreStatus } from "../../src/model/store.ts";
import type { NodeConfig } from "./store-node.ts";
import { type FaultyProxy, faultyProxy } from "./tcp-proxy.ts";

export type NodeStatus = { readonly consensus: ConsensusStatus; readonly store: StoreStatus; readonly memory: number };

const PROGRAM = join(import.meta.dir, "store-node.ts");
const READY_MS = 30_000;

/** A process and its conversation over stdin and stdout. */
export class StoreNode {
  readonly id: string;
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncGenerator<string>;
  #asking: Promise<unknown> = Promise.resolve();
  /** Where peers connect, and where clients do. */
  port = 0;
  redis = 0;

  constructor(config: NodeConfig) {
    this.id = config.id;
    this.#process = Bun.spawn([process.execPath, PROGRAM, JSON.stringify(config)], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    this.#lines = linesOf(this.#process.stdout);
  }

  get pid(): number {
    return this.#process.pid;
  }
  get exited(): Promise<number> {
    return this.#process.exited;
  }

  async ready(): Promise<void> {
    const line = await Promise.race([this.#lines.next(), Bun.sleep(READY_MS)]);
    if (!line || line.done) throw new Error(`${this.id} did not come up`);
    const said = JSON.parse(line.value) as { ready?: boolean; port: number; redis: string; failed?: unknown };
    if (!said.ready) throw new Error(`${this.id}: ${JSON.stringify(said.failed)}`);
    this.port = said.port;
    this.redis = Number(new URL(said.redis).port);
  }

  /** One question at a time; undefined when the process has gone. */
  ask<T>(request: object): Promise<T | undefined> {
    const answer = this.#asking.then(async () => {
      try {
        this.#process.stdin.write(`${JSON.stringify(request)}\n`);
        await this.#process.stdin.flush();
        const line = await this.#lines.next();
        return line.done ? undefined : (JSON.parse(line.value) as T);
      } catch {
        return undefined;
      }
    });
    this.#asking = answer;
    return answer;
  }

  signal(name: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void {
    this.#process.kill(name);
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const lines = text.split("\n");
    text = lines.pop()!;
    yield* lines;
  }
}

export type ClusterOptions = {
  /** Through proxies that can be cut. Without, nodes talk to each other directly, as a benchmark wants it. */
  readonly proxied?: boolean;
  readonly losesUnsynced?: boolean;
  /** Consensus of each node in its main thread, and not in a Worker. */
  readonly inProcess?: boolean;
  /** Gives each node a small file system of its own (tmpfs, needs root), in MiB. */
  readonly diskMib?: number;
  /** Where the directories are; a benchmark wants a real disk. */
  readonly parent?: string;
};

export class StoreCluster {
  readonly ids: readonly string[];
  readonly proxy: FaultyProxy = faultyProxy();
  readonly nodes = new Map<string, StoreNode>();
  readonly directory: string;
  readonly #options: ClusterOptions;
  readonly #ports = new Map<string, number>();
  readonly #mounts: string[] = [];

  private constructor(size: number, options: ClusterOptions) {
    this.ids = Array.from({ length: size }, (_, i) => `n${i + 1}`);
    this.#options = options;
    this.directory = mkdtempSync(join(options.parent ?? tmpdir(), "hive-store-"));
  }

  static async start(size: number, options: ClusterOptions = {}): Promise<StoreCluster> {
    const cluster = new StoreCluster(size, options);
    try {
      if (options.proxied) await cluster.#link();
      for (const id of cluster.ids) cluster.#makeDirectory(id);
      await Promise.all(cluster.ids.map((id) => cluster.startNode(id)));
      await cluster.#introduce();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  directoryOf(id: string): string {
    return join(this.directory, id);
  }

  /** Starts a node, or starts it again. */
  async startNode(id: string): Promise<StoreNode> {
    const node = new StoreNode({
      id,
      directory: join(this.directoryOf(id), "store"),
      port: 0,
      voters: this.ids,
      secret: "a secret that the nodes of one test share",
      ...(this.#options.losesUnsynced && { losesUnsynced: true }),
      ...(this.#options.inProcess && { inProcess: true }),
    });
    this.nodes.set(id, node);
    await node.ready();
    this.proxy.target(id, { host: "127.0.0.1", port: node.port });
    if (this.#options.proxied) await node.ask({ do: "peers", peers: this.#peersOf(id) });
    else if (this.nodes.size === this.ids.length) await this.#introduce();
    return node;
  }

  async statuses(): Promise<Map<string, NodeStatus>> {
    const found = new Map<string, NodeStatus>();
    for (const [id, node] of this.nodes) {
      const status = await node.ask<NodeStatus>({ do: "status" });
      if (status) found.set(id, status);
    }
    return found;
  }

  /** The node that leads, as it says itself; waits until there is one. */
  async leader(timeoutMs = 10_000): Promise<StoreNode> {
    const deadline = Date.now() + timeoutMs;
    while (Date.now() < deadline) {
      const leading = [...(await this.statuses())]
        .filter(([, { consensus }]) => consensus.role === "leader")
        .sort(([, a], [, b]) => b.consensus.term - a.consensus.term)[0];
      if (leading) return this.nodes.get(leading[0])!;
      await Bun.sleep(10);
    }
    throw new Error("no node leads");
  }

  async stop(): Promise<void> {
    for (const node of this.nodes.values()) {
      node.signal("SIGKILL");
      await node.exited;
    }
    await this.proxy.close();
    for (const mount of this.#mounts) execFileSync("umount", [mount]);
    rmSync(this.directory, { recursive: true, force: true });
  }

  #makeDirectory(id: string): void {
    const path = this.directoryOf(id);
    mkdirSync(path);
    const { diskMib } = this.#options;
    if (diskMib === undefined) return;
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${diskMib}m`, "tmpfs", path]);
    this.#mounts.push(path);
  }

  async #link(): Promise<void> {
    for (const from of this.ids) {
      for (const to of this.ids) {
        if (from !== to) this.#ports.set(`${from} ${to}`, await this.proxy.link(from, to));
      }
    }
  }

  async #introduce(): Promise<void> {
    await Promise.all([...this.nodes].map(([id, node]) => node.ask({ do: "peers", peers: this.#peersOf(id) })));
  }

  #peersOf(id: string): Record<string, { host: string; port: number }> {
    const others = this.ids.filter((other) => other !== id);
    const portOf = (other: string) => this.#ports.get(`${id} ${other}`) ?? this.nodes.get(other)?.port ?? 0;
    return Object.fromEntries(others.map((other) => [other, { host: "127.0.0.1", port: portOf(other) }]));
  }
}
