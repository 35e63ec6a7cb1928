import { present } from "../../lib/assert.ts";
import type { Result } from "../../lib/result.ts";
import type { Consensus, ConsensusStatus, StateMachine, StoredSnapshot } from "../consensus.ts";
import type { Entry, Index, PeerId, SnapshotPoint, Term } from "../raft/types.ts";
import { alone, type Channel, Questions } from "./channel.ts";
import { type Answer, type MachineCalls, packEntries, type ToStore } from "./messages.ts";

/** How often counters are told at most; what matters to decisions is told at once. */
const STATUS_MS = 20;

type Handed = { readonly index: Index; readonly resolve: () => void; readonly reject: (error: Error) => void };

/** The store's state machine, as consensus sees it from its Worker. */
export class RemoteMachine implements StateMachine {
  readonly #channel: Channel<ToStore>;
  readonly #questions: Questions<MachineCalls>;
  /** Batches that were handed over and are not applied yet, in their order. */
  #handed: Handed[] = [];
  /** Why the other side takes no further entries. */
  #defect: Error | undefined;
  #consensus: Consensus | undefined;
  #told: ConsensusStatus | undefined;
  /** The other thread has taken in what it was told; if not, it is busy, and more would only pile up. */
  #isHeard = true;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(channel: Channel<ToStore>) {
    this.#channel = channel;
    this.#questions = new Questions(channel);
  }

  /** @returns the first status that is told */
  attach(consensus: Consensus): ConsensusStatus {
    this.#consensus = consensus;
    this.#told = consensus.status();
    return this.#told;
  }

  apply(entries: readonly Entry[]): Promise<void> {
    if (this.#defect) return Promise.reject(this.#defect);
    const packed = packEntries(entries);
    this.#channel.send({ type: "apply", entries: packed }, packed.data.bytes.buffer);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#handed.push({ index: packed.first + entries.length - 1, resolve, reject });
    return promise;
  }

  /** The other side says so. */
  applied(index: Index): void {
    if (!this.#isHeard) {
      this.#isHeard = true;
      this.changed();
    }
    let count = 0;
    while (count < this.#handed.length && this.#handed[count]!.index <= index) this.#handed[count++]!.resolve();
    if (count > 0) this.#handed.splice(0, count);
  }

  defect(message: string): void {
    this.#defect = new Error(message);
    const handed = this.#handed;
    this.#handed = [];
    for (const { reject } of handed) reject(this.#defect);
  }

  gainedLeadership(term: Term): void {
    this.#tellStatus();
    this.#channel.send({ type: "gained", term });
  }
  lostLeadership(term: Term): void {
    this.#tellStatus();
    this.#channel.send({ type: "lost", term });
  }
  leaderChanged(leader: PeerId | undefined): void {
    this.#tellStatus();
    this.#channel.send({ type: "leader", leader });
  }

  changed(): void {
    const now = this.#consensus?.status();
    if (!now || !this.#told) return;
    if (!isSame(now, this.#told)) this.#tell(now);
    else if (!this.#timer && this.#isHeard && !areCountersSame(now, this.#told)) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#tellStatus();
      }, STATUS_MS);
    }
  }

  install(snapshot: StoredSnapshot): Promise<Result<void, string>> {
    return this.#questions.ask("install", snapshot);
  }
  verify(path: string): Promise<Result<SnapshotPoint, string>> {
    return this.#questions.ask("verify", path);
  }
  snapshot(point: SnapshotPoint): Promise<Result<StoredSnapshot, string>> {
    return this.#questions.ask("snapshot", point);
  }
  digest(): Promise<number> {
    return this.#questions.ask("digest", undefined);
  }
  /** Resolves once the store's thread has come to hear it. */
  ping(): Promise<undefined> {
    return this.#questions.ask("ping", undefined);
  }
  answer(from: PeerId, body: Uint8Array): Promise<Uint8Array> {
    const own = alone(body);
    return this.#questions.ask("answer", { from, body: own }, own.buffer);
  }
  answered(answer: Answer): void {
    this.#questions.answered(answer);
  }

  #tellStatus(): void {
    this.#tell(present(this.#consensus, "consensus drives its machine").status());
  }

  #tell(status: ConsensusStatus): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#told = status;
    this.#isHeard = false;
    this.#channel.send({ type: "status", status });
  }
}

/** In what decisions are made by. */
function isSame(a: ConsensusStatus, b: ConsensusStatus): boolean {
  return (
    a.role === b.role &&
    a.term === b.term &&
    a.leader === b.leader &&
    a.configuration === b.configuration &&
    a.decidesAlone === b.decidesAlone &&
    a.health === b.health &&
    a.message === b.message
  );
}

function areCountersSame(a: ConsensusStatus, b: ConsensusStatus): boolean {
  return (
    a.commitIndex === b.commitIndex &&
    a.appliedIndex === b.appliedIndex &&
    a.lastIndex === b.lastIndex &&
    a.logBytes === b.logBytes &&
    a.snapshotIndex === b.snapshotIndex &&
    a.peers.length === b.peers.length &&
    a.peers.every(({ id, match, isActive }, i) => {
      const other = b.peers[i]!;
      return id === other.id && match === other.match && isActive === other.isActive;
    })
  );
}
