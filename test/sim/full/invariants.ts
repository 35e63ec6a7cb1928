/**
 * What must hold after every event, seen from outside: of what a node says of itself, and of what it sends. The store's own
 * promises are judged elsewhere: histories and watches in `../check`, leases in `leases.ts`.
 */
import type { ConsensusStatus } from "../../../src/cluster/consensus.ts";
import type { Frame } from "../../../src/cluster/node/transport.ts";
import type { PeerId } from "../../../src/cluster/raft/types.ts";
import { Violation } from "../base/simulation.ts";
import { Elections } from "../check/elections.ts";
import type { Node } from "./cluster.ts";

export class Invariants {
  readonly #elections = new Elections();
  /** By index and term: the CRC of an entry's data. */
  readonly #entries = new Map<number, number>();
  /** The revision that wrote each value; and what nodes were at when they said that it was written. */
  readonly #revisionOf = new Map<number, number>();
  readonly #acknowledged: { readonly server: string; readonly value: number; readonly revision: number }[] = [];

  /** A node says where it is. */
  stands(node: Node, { term, role, health }: ConsensusStatus, revision: number): void {
    if (term < node.term) throw new Violation("terms never go back", `${node.id} ${node.term} to ${term}`);
    node.term = term;
    if (revision < node.revision) {
      throw new Violation("revisions never go back", `${node.id} ${node.revision} to ${revision}`);
    }
    node.revision = revision;
    if (role === "leader" && health !== "failed") this.#elections.led(node.id, term);
  }

  sent(from: PeerId, to: PeerId, frame: Frame): void {
    if (frame.type !== "raft") return;
    const { message } = frame;
    if (message.type === "vote-reply" && message.granted) this.#elections.voted(from, message.term, to);
    if (message.type !== "append") return;
    const { term, entries } = message;
    this.#elections.led(from, term);
    for (const entry of entries) {
      const key = entry.index * 2 ** 20 + entry.term;
      const crc = Number(Bun.hash.crc32(entry.data));
      const known = this.#entries.get(key);
      if (known === undefined) this.#entries.set(key, crc);
      else if (known !== crc) {
        throw new Violation("log matching", `${from} sends ${to} another entry ${entry.index} of term ${entry.term}`);
      }
    }
  }

  /** Some node shows that `value` was written at `revision`. */
  wrote(value: number, revision: number): void {
    this.#revisionOf.set(value, revision);
  }

  /** A client was told that `value` was written, while the node was at `revision`, and it shows another value. */
  acknowledged(server: string, value: number, revision: number): void {
    this.#acknowledged.push({ server, value, revision });
  }

  /** At the end: what was acknowledged and not shown had been overwritten by then. */
  checkOwnWrites(): void {
    for (const { server, value, revision } of this.#acknowledged) {
      const at = this.#revisionOf.get(value);
      if (at !== undefined && at > revision) {
        throw new Violation("a node shows its own writes", `${server} at ${revision} acknowledged ${value} of ${at}`);
      }
    }
  }
}
