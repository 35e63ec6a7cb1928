/** Two watchers on every process, one that keeps up and one that dawdles; what they are shown, all nodes have to agree on. */
import type { Change, Reader, Store } from "../../../src/model/store.ts";
import { asViolation } from "../base/simulation.ts";
import { type SeenChange, Truth, WatchChecker } from "../check/watch-checker.ts";
import type { Cluster, Life, Node } from "./cluster.ts";
import type { Invariants } from "./invariants.ts";
import type { LeaseBook } from "./leases.ts";
import { type Leased, leased, type Register, registers, TABLES } from "./tables.ts";

export class Watchers {
  readonly #cluster: Cluster;
  readonly #invariants: Invariants;
  readonly #leases: LeaseBook;
  readonly #truth = new Truth();

  constructor(cluster: Cluster, invariants: Invariants, leases: LeaseBook) {
    this.#cluster = cluster;
    this.#invariants = invariants;
    this.#leases = leases;
  }

  start(node: Node, life: Life, store: Store): void {
    void this.#watch(node, life, store, 0);
    void this.#watch(node, life, store, this.#cluster.plan.thinkMs * 20);
  }

  /** A node shows this now. */
  stood(node: string, reader: Reader): void {
    let hash = 0;
    for (const [key, text] of contentsOf(reader)) hash ^= Number(Bun.hash.crc32(`${key}\0${text}`)) | 0;
    this.#truth.stood(node, reader.revision, hash);
  }

  async #watch(node: Node, life: Life, store: Store, pauseMs: number): Promise<void> {
    const checker = new WatchChecker(this.#truth, `a watcher of ${node.id}`);
    const { signal } = life.watches;
    try {
      while (!life.isOver && !life.isClosing) {
        const reader = store.read();
        checker.began(reader.revision, contentsOf(reader));
        for await (const event of store.watch(TABLES, { fromRevision: reader.revision, signal })) {
          if (life.isOver) return;
          const shown = store.read().revision;
          if (event.kind === "compacted") {
            checker.compacted(event.revision, shown);
            break;
          }
          checker.changed(event.revision, event.changes.map(seen).sort(byKey), shown);
          for (const change of event.changes) this.#note(event.revision, change);
          if (pauseMs > 0) await this.#cluster.sleep(this.#cluster.prng.clients.wait(pauseMs));
        }
        if (store.status().health === "closed") return;
      }
    } catch (error) {
      if (!life.isOver) this.#cluster.fails(asViolation(error));
    }
  }

  #note(revision: number, { table, before, after }: Change): void {
    if (table.name === registers.name && after) this.#invariants.wrote((after as Register).value, revision);
    if (table.name === leased.name && before && !after) {
      this.#leases.vanished((before as Leased).lease, this.#cluster.queue.now);
    }
  }
}

function contentsOf(reader: Reader): Map<string, string> {
  const contents = new Map<string, string>();
  for (const record of reader.all(registers)) contents.set(`registers/${record.id}`, JSON.stringify(record));
  for (const record of reader.all(leased)) contents.set(`leased/${record.id}`, JSON.stringify(record));
  return contents;
}

const seen = ({ table, key, before, after }: Change): SeenChange => ({
  key: `${table.name}/${key}`,
  before: before && JSON.stringify(before),
  after: after && JSON.stringify(after),
});
const byKey = (a: SeenChange, b: SeenChange): number => (a.key < b.key ? -1 : 1);
