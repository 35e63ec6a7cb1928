/** For tests: nodes in one process, each with a disk and a network in memory, over a state machine that is a list of texts. */
import { assert } from "../../lib/assert.ts";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { type Log, silentLog } from "../../lib/log.ts";
import { systemRandom } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { StateMachine, StoredSnapshot } from "../consensus.ts";
import type { Disk } from "../kv/disk.ts";
import { SegmentLog } from "../kv/log/segment-log.ts";
import { MemoryDisk } from "../kv/memory-disk.ts";
import { indexOfSnapshot, isSnapshotName, snapshotName } from "../kv/snapshot-format.ts";
import { configurationOf, kindOf } from "../raft/configuration.ts";
import type { Configuration, Entry, Index, Options, PeerId, SnapshotPoint, Term } from "../raft/types.ts";
import { memoryNetwork } from "./memory-transport.ts";
import { RaftRuntime } from "./raft-runtime.ts";
import type { TransferLimits } from "./snapshot-transfer.ts";
import type { Transport } from "./transport.ts";

export const DIRECTORY = "/store";
/** Short, and long enough for a busy machine. */
const QUICK: Partial<Options> = { electionMs: 150, heartbeatMs: 30, diskStallMs: 400, catchUpEntries: 10 };

/** Remembers every command; its snapshot is a JSON file of them. */
export class ListMachine implements StateMachine {
  readonly disk: Disk;
  values: string[] = [];
  applied: Index = 0;
  appliedTerm: Term = 0;
  ledTerm: Term | undefined;
  leader: PeerId | undefined;
  /** What it was told, beyond entries: `gained 2`, `lost 2`, `leader n1`, `installed 17`. */
  readonly events: string[] = [];
  readonly batches: number[] = [];
  /** Makes it one that says later that it applied these. */
  lag: ((entries: readonly Entry[]) => Promise<void>) | undefined;
  answer: StateMachine["answer"] = async (from, body) => Buffer.from(`${from}:${Buffer.from(body)}`);
  #digest = 0;
  #readers: (() => void)[] = [];

  constructor(disk: Disk) {
    this.disk = disk;
  }

  apply(entries: readonly Entry[]): Promise<void> | undefined {
    this.batches.push(entries.length);
    for (const entry of entries) {
      assert(entry.index === this.applied + 1, "entries come without gaps");
      assert(
        this.ledTerm === undefined || entry.term <= this.ledTerm,
        "a leader knows that it is none before others' entries",
      );
      this.applied = entry.index;
      this.appliedTerm = entry.term;
      if (kindOf(entry) === "command") this.put(Buffer.from(entry.data).toString());
    }
    this.#changed();
    return this.lag?.(entries);
  }

  put(value: string): void {
    this.values.push(value);
    this.#digest = Bun.hash.crc32(value, this.#digest);
  }

  gainedLeadership(term: Term): void {
    assert(this.ledTerm === undefined, "what was lost is told before what is gained");
    assert(this.appliedTerm === term, "the term's first entry is applied");
    this.ledTerm = term;
    this.events.push(`gained ${term}`);
    this.#changed();
  }
  lostLeadership(term: Term): void {
    assert(this.ledTerm === term, "only what was gained is lost");
    this.ledTerm = undefined;
    this.events.push(`lost ${term}`);
  }
  leaderChanged(leader: PeerId | undefined): void {
    this.leader = leader;
    this.events.push(`leader ${leader ?? "none"}`);
  }
  async digest(): Promise<number> {
    return this.#digest;
  }

  async install({ path, point }: StoredSnapshot): Promise<Result<void, string>> {
    const read = await readList(this.disk, path);
    if (!read.ok) return read;
    this.load(read.value);
    this.events.push(`installed ${point.index}`);
    this.#changed();
    return ok(undefined);
  }
  load({ point, values }: List): void {
    this.values = [];
    this.#digest = 0;
    for (const value of values) this.put(value);
    this.applied = point.index;
    this.appliedTerm = point.term;
  }

  async verify(path: string): Promise<Result<SnapshotPoint, string>> {
    const read = await readList(this.disk, path);
    return read.ok ? ok(read.value.point) : read;
  }

  async snapshot(point: SnapshotPoint): Promise<Result<StoredSnapshot, string>> {
    assert(point.index === this.applied && point.term === this.appliedTerm, "a snapshot is of now");
    const body = Buffer.from(JSON.stringify({ point, values: this.values } satisfies List));
    const bytes = Buffer.alloc(4 + body.length);
    bytes.writeUInt32LE(Bun.hash.crc32(body), 0);
    bytes.set(body, 4);
    const path = `${DIRECTORY}/${snapshotName(point.index)}`;
    try {
      await this.disk.remove(`${path}.tmp`).catch(() => {});
      const file = await this.disk.open(`${path}.tmp`, "create");
      await file.write(0, bytes);
      await file.datasync();
      await file.close();
      await this.disk.rename(`${path}.tmp`, path);
      await this.disk.syncDirectory(DIRECTORY);
      return ok({ point, path, bytes: bytes.length });
    } catch (error) {
      return fail(String(error));
    }
  }

  /** Resolves once the condition holds; it is looked at whenever something was applied or gained. */
  until(condition: () => boolean): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve) => {
      const look = () => {
        if (condition()) resolve();
        else this.#readers.push(look);
      };
      this.#readers.push(look);
    });
  }

  #changed(): void {
    const readers = this.#readers;
    this.#readers = [];
    for (const reader of readers) reader();
  }
}

type List = { readonly point: SnapshotPoint; readonly values: readonly string[] };

async function readList(disk: Disk, path: string): Promise<Result<List, string>> {
  const file = await disk.open(path, "read");
  const bytes = Buffer.from(await file.read(0, await file.size()));
  await file.close();
  if (bytes.length < 4 || Bun.hash.crc32(bytes.subarray(4)) !== bytes.readUInt32LE(0)) return fail("its CRC is wrong");
  return ok(JSON.parse(bytes.subarray(4).toString()) as List);
}

export type NodeOptions = {
  readonly configuration?: Configuration;
  readonly options?: Partial<Options>;
  readonly snapshotBytesMin?: number;
  readonly recoverThrough?: Index | "lost";
  readonly transferLimits?: TransferLimits;
  readonly log?: Log;
  readonly clock?: Clock;
};

export type Node = {
  readonly id: PeerId;
  readonly disk: MemoryDisk;
  readonly machine: ListMachine;
  readonly runtime: RaftRuntime;
  readonly storage: SegmentLog;
  readonly transport: Transport;
  /** The configuration that it began with. */
  readonly start: Configuration;
  /** Its snapshot was there, and its log had not started over after it yet. */
  readonly startedOver: boolean;
};

export class Cluster {
  readonly net = memoryNetwork();
  readonly nodes = new Map<PeerId, Node>();
  readonly #options: NodeOptions;

  constructor(options: NodeOptions = {}) {
    this.#options = options;
  }

  static async of(ids: readonly PeerId[], options: NodeOptions = {}): Promise<Cluster> {
    const cluster = new Cluster(options);
    for (const id of ids) await cluster.open(id, new MemoryDisk(), { configuration: configurationOf(ids), ...options });
    return cluster;
  }

  /** Opens a node on what its disk holds, as the head of `snapshots.ts` says. */
  async open(id: PeerId, disk: MemoryDisk, more: NodeOptions = {}): Promise<Node> {
    const options = { ...this.#options, ...more };
    const { log = silentLog, clock = systemClock, configuration = configurationOf([]) } = options;
    const machine = new ListMachine(disk);
    const indexes = (await disk.list(DIRECTORY))
      .filter(isSnapshotName)
      .map(indexOfSnapshot)
      .sort((a, b) => b - a);
    let snapshot: StoredSnapshot | undefined;
    const [newest, ...olderSnapshots] = indexes;
    if (newest !== undefined) {
      const path = `${DIRECTORY}/${snapshotName(newest)}`;
      const list = await readList(disk, path);
      if (!list.ok) throw new Error(list.error);
      machine.load(list.value);
      snapshot = { point: list.value.point, path, bytes: disk.peek(path).length };
    }
    const opened = await SegmentLog.open({ disk, directory: DIRECTORY, segmentBytes: 16 * 1024, log });
    if (!opened.ok) throw new Error(opened.error.message);
    const { log: storage } = opened.value;
    let { entries } = opened.value;
    const startedOver = snapshot !== undefined && storage.termOf(snapshot.point.index) !== snapshot.point.term;
    if (snapshot && startedOver) {
      const begun = await storage.restartAfter(snapshot.point.index, snapshot.point.term);
      if (!begun.ok) throw new Error(begun.error.message);
      entries = [];
    }
    const transport = this.net.transport(id);
    const start = snapshot?.point.configuration ?? configuration;
    const runtime = RaftRuntime.start({
      id,
      storage,
      disk,
      directory: DIRECTORY,
      transport,
      clock,
      random: systemRandom,
      log,
      machine,
      options: { ...QUICK, ...options.options },
      snapshotBytesMin: options.snapshotBytesMin ?? 1e9,
      ...(options.transferLimits && { transferLimits: options.transferLimits }),
      start: {
        snapshot,
        olderSnapshots,
        configuration: start,
        entries,
        recoverThrough: options.recoverThrough,
      },
    });
    const node: Node = { id, disk, machine, runtime, storage, transport, start, startedOver };
    this.nodes.set(id, node);
    return node;
  }

  node(id: PeerId): Node {
    return this.nodes.get(id)!;
  }

  async close(id: PeerId): Promise<void> {
    const { runtime, storage, transport } = this.node(id);
    this.nodes.delete(id);
    await runtime.close();
    await transport.close();
    await storage.close();
  }

  async closeAll(): Promise<void> {
    for (const id of [...this.nodes.keys()]) await this.close(id);
  }

  /** The node that leads, the one of the highest term if several think so. */
  async leader(besides?: PeerId): Promise<Node> {
    let found: Node | undefined;
    await eventually("there is a leader", () => {
      const leading = [...this.nodes.values()].filter(
        ({ id, machine }) => id !== besides && machine.ledTerm !== undefined,
      );
      found = leading.sort((a, b) => b.machine.ledTerm! - a.machine.ledTerm!)[0];
      return found !== undefined;
    });
    return found!;
  }

  /** Writes through the leader until it is applied there. A leader that is lost meanwhile is found again. */
  async write(values: readonly string[]): Promise<Node> {
    for (let attempt = 0; attempt < 20; attempt++) {
      const leader = await this.leader();
      const term = leader.machine.ledTerm!;
      leader.runtime.propose(
        term,
        values.map((value) => Buffer.from(value)),
      );
      const last = values.at(-1)!;
      await eventually(
        "the values are applied",
        () => leader.machine.ledTerm !== term || leader.machine.values.includes(last),
      );
      if (leader.machine.values.includes(last)) return leader;
    }
    throw new Error("no leader kept leading");
  }

  /** Waits until all nodes hold the same, `last` included. */
  async converged(last: string): Promise<void> {
    const lists = () => [...this.nodes.values()].map(({ machine }) => machine.values);
    await eventually("all nodes hold the same", () =>
      lists().every((values) => values.includes(last) && values.join() === lists()[0]!.join()),
    );
  }
}

export async function eventually(
  claim: string,
  condition: () => boolean | Promise<boolean>,
  ms = 10_000,
): Promise<void> {
  const until = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > until) throw new Error(`not within ${ms} ms: ${claim}`);
    await Bun.sleep(3);
  }
}

export const numbered = (prefix: string, count: number, pad = 0): string[] =>
  Array.from({ length: count }, (_, i) => `${prefix}${i}`.padEnd(pad, "."));
