import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { fail, type Result } from "../../lib/result.ts";
import type { StoredSnapshot } from "../consensus.ts";
import type { Disk } from "../kv/disk.ts";
import type { Index, PeerId, Term } from "../raft/types.ts";
import { type SnapshotAck, SnapshotSender, TRANSFER_LIMITS, type TransferLimits } from "./snapshot-transfer.ts";
import type { Snapshots } from "./snapshots.ts";
import type { Transport } from "./transport.ts";

/** After a transfer that failed, the next one to that peer waits so long. */
const RETRY_MS = 1000;

export type SnapshotDispatchOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly log: Log;
  readonly transport: Transport;
  readonly snapshots: Snapshots;
  /** Takes a snapshot as of now, if that can be, and it would hold the entry at `index`. */
  readonly take: (index: Index) => Promise<void>;
  /** The peer holds the snapshot up to `index`, or (undefined) it does not, and may be tried again. */
  readonly sent: (to: PeerId, index: Index | undefined) => void;
  readonly limits: TransferLimits | undefined;
};

type Transfer = { readonly term: Term; readonly sender: SnapshotSender | undefined; readonly isEnded: boolean };

/** A leader's transfers of snapshots, one to a peer at a time. */
export class SnapshotDispatch {
  readonly #options: SnapshotDispatchOptions;
  readonly #transfers = new Map<PeerId, Transfer>();
  readonly #working = new Set<Promise<void>>();
  /** What peers need from the log, and can't be read. */
  readonly #unreadable = new Map<PeerId, Index>();
  /** The newest snapshot's file may be rotten: another is taken before the next transfer. */
  #isNewestSuspect = false;
  readonly #ended = new AbortController();

  constructor(options: SnapshotDispatchOptions) {
    this.#options = options;
  }

  get isBusy(): boolean {
    return this.#transfers.size > 0;
  }

  /** The log can't lead this peer on from `index`: the next snapshot for it has to reach that far. */
  unreadable(peer: PeerId, index: Index): void {
    this.#unreadable.set(peer, index);
  }

  begin(to: PeerId, term: Term): void {
    if (this.#transfers.has(to) || this.#ended.signal.aborted) return;
    const work = this.#transfer(to, term).finally(() => this.#working.delete(work));
    this.#working.add(work);
  }

  ack(from: PeerId, ack: SnapshotAck): void {
    this.#transfers.get(from)?.sender?.ack(ack);
  }

  end(isOver: (peer: PeerId, term: Term) => boolean): void {
    for (const [peer, transfer] of this.#transfers) {
      if (transfer.isEnded || !isOver(peer, transfer.term)) continue;
      transfer.sender?.abort();
      this.#transfers.set(peer, { ...transfer, isEnded: true });
    }
  }

  async close(): Promise<void> {
    this.#ended.abort();
    this.end(() => true);
    await Promise.all(this.#working);
  }

  async #transfer(to: PeerId, term: Term): Promise<void> {
    const { clock, log, sent } = this.#options;
    this.#transfers.set(to, { term, sender: undefined, isEnded: false });
    const snapshot = await this.#snapshotFor(to);
    const index = snapshot?.point.index;
    const done = snapshot ? await this.#send(to, term, snapshot) : fail("there is no snapshot to send");
    if (done.ok) log.info("raft.snapshot_sent", { to, index });
    else if (!this.#isEnded(to)) {
      log.warn("raft.snapshot_not_sent", { to, index, message: done.error });
      await clock.sleep(RETRY_MS, this.#ended.signal);
    }
    this.#transfers.delete(to);
    sent(to, done.ok ? index : undefined);
  }

  async #send(to: PeerId, term: Term, snapshot: StoredSnapshot): Promise<Result<void, string>> {
    const { disk, clock, log, transport, snapshots, limits = TRANSFER_LIMITS } = this.#options;
    if (this.#isEnded(to)) return fail("the transfer was ended");
    log.info("raft.snapshot_sending", { to, index: snapshot.point.index, bytes: snapshot.bytes });
    const letGo = snapshots.hold(snapshot.point);
    const sender = new SnapshotSender({
      disk,
      clock,
      snapshot,
      term,
      send: (chunk) => transport.send(to, chunk),
      limits,
    });
    this.#transfers.set(to, { term, sender, isEnded: false });
    const done = await sender.done;
    if (sender.isFileSuspect) this.#isNewestSuspect = true;
    letGo();
    return done;
  }

  /** The newest, unless the log can't lead the peer on from there: then one as of now. */
  async #snapshotFor(peer: PeerId): Promise<StoredSnapshot | undefined> {
    const { snapshots, take } = this.#options;
    const through = this.#unreadable.get(peer) ?? 1;
    this.#unreadable.delete(peer);
    if (this.#isNewestSuspect) {
      this.#isNewestSuspect = false;
      // Of the same entry, it takes the place of the file.
      await take(snapshots.newest?.point.index ?? 1);
    }
    const reaches = () => (snapshots.newest?.point.index ?? 0) >= through;
    // The first may have been under way already, and be of before.
    for (let attempt = 0; attempt < 2 && !reaches(); attempt++) await take(through);
    return reaches() ? snapshots.newest : undefined;
  }

  #isEnded(peer: PeerId): boolean {
    return this.#transfers.get(peer)?.isEnded ?? true;
  }
}
