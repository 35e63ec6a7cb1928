/** What a process is given of the world: a clock that may run fast or jump, a disk that may fail it, a log that is read here. */
import { type DiskOperation, diskError } from "../../../src/cluster/kv/memory-disk.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import type { Fields, Log } from "../../../src/lib/log.ts";
import { Violation } from "../base/simulation.ts";
import type { Cluster, Life, Node } from "./cluster.ts";
import { ProcessDisk } from "./disk.ts";

const EPOCH_MS = 1_700_000_000_000;
const MAKES_DURABLE: readonly DiskOperation["kind"][] = ["datasync", "writeDurable", "syncDirectory"];

export class Environment {
  readonly #cluster: Cluster;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  clockOf(node: Node, life: Life): Clock {
    const { queue } = this.#cluster;
    const monotonicMs = () => node.offset + node.rate * queue.now;
    return {
      monotonicMs,
      now: () => EPOCH_MS + queue.now + node.wallSkewMs,
      sleep: (ms, signal) =>
        new Promise<void>((resolve) => {
          if (signal?.aborted) {
            resolve();
            return;
          }
          const onAbort = () => {
            queue.cancel(event);
            resolve();
          };
          // A hair late, so that what was slept for has really gone by on the node's own clock.
          const event = queue.after(ms / node.rate + 1e-6, () => {
            this.#cluster.asNode(node, life, () => {
              signal?.removeEventListener("abort", onAbort);
              resolve();
            });
          });
          signal?.addEventListener("abort", onAbort, { once: true });
        }),
    };
  }

  logOf(node: Node, life: Life): Log {
    const say = (level: string) => (event: string, fields?: Fields) => {
      if (life.isOver) return;
      this.#cluster.line(() => `${node.id} ${level} ${event} ${JSON.stringify(fields ?? {}, errorsAsText)}`);
      if (level === "error") this.#unexpected(node, event, fields);
    };
    const log: Log = {
      debug: say("debug"),
      info: say("info"),
      warn: say("warn"),
      error: say("error"),
      with: () => log,
    };
    return log;
  }

  /** Errors that no fault explains. */
  #unexpected(node: Node, event: string, fields: Fields | undefined): void {
    const message = String(fields?.message ?? "");
    const text = `${node.id} ${event} ${JSON.stringify(fields ?? {}, errorsAsText)}`;
    const fails = (invariant: string) => this.#cluster.fails(new Violation(invariant, text.slice(0, 600)));
    if (event === "raft.failed" && message.includes("cannot be")) fails("the code's own assertions");
    else if (event === "raft.failed" && message.includes("differs")) fails("all nodes hold the same");
    else if (["store.forwarded_failed", "store.forward_refused", "raft.answer_failed"].includes(event)) {
      fails("nodes understand each other");
    }
  }

  diskOf(node: Node, life: Life): ProcessDisk {
    const { queue, plan } = this.#cluster;
    const { syncMs, readMs } = plan.disk;
    const prng = this.#cluster.prng.disk;
    node.disk.before = (operation) => this.#disturb(node, operation);
    return new ProcessDisk(life, node.disk, ({ kind }, done) => {
      const mean = MAKES_DURABLE.includes(kind) ? syncMs : kind === "write" ? syncMs / 20 : readMs;
      const stall = Math.max(0, node.stalledUntil - queue.now);
      if (mean === 0 && stall === 0) return false;
      queue.after((mean === 0 ? 0 : prng.wait(mean)) + stall, () => this.#cluster.asNode(node, life, done));
      return true;
    });
  }

  #disturb(node: Node, { kind, path, offset, length }: DiskOperation): void {
    const { queue, prng } = this.#cluster;
    if (kind === "write" || kind === "writeDurable") node.lastWrites.set(path, { from: offset, to: offset + length });
    const { disk } = node;
    if (disk.usedBytes >= disk.capacityBytes) node.mayFail = true;
    // Where files are written anew and not in place, a full disk refuses what was allocated long ago, too.
    if (node.fullUntil > queue.now && kind === "writeDurable" && prng.disk.chance(0.3)) {
      node.mayFail = true;
      throw diskError("ENOSPC");
    }
    if (node.syncErrorsUntil <= queue.now || !MAKES_DURABLE.includes(kind)) return;
    if (!prng.disk.chance(0.5)) return;
    node.mayFail = true;
    this.#cluster.note("sync error", node);
    throw diskError("EIO");
  }
}

const errorsAsText = (_: string, value: unknown): unknown =>
  value instanceof Error ? `${value.message} ${value.stack}` : value;
