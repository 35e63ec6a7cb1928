/**
 * Moves a snapshot file from the leader to a peer, in pieces, over a transport that may lose, double and delay them.
 *
 *   sender                                                 receiver
 *   offer: a piece at 0 without bytes              ──▶     has a part of this very file from before? Of another: removed
 *                                                  ◀──     ack: I have everything up to `offset`
 *   pieces from there on, WINDOW_BYTES ahead of    ──▶     writes what continues its part, and says how far it is;
 *   what is acknowledged                           ◀──     anything else it only answers
 *                                                          the whole file: synced, verified, named, handed to consensus
 *                                                  ◀──     ack, done
 *
 * Each piece carries the CRC of the file up to its end. The receiver's part has another: it is of another file with the same
 * name, or has holes after a crash, and is begun anew. So the receiver alone decides where to go on, which makes lost pieces,
 * broken connections and restarts of either side one case: after a silence the sender offers again.
 */
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { GIB, MIB } from "../../lib/units.ts";
import type { StoredSnapshot } from "../consensus.ts";
import { type Disk, type DiskFile, errorCode } from "../kv/disk.ts";
import { snapshotName } from "../kv/snapshot-format.ts";
import type { Index, PeerId, SnapshotPoint, Term } from "../raft/types.ts";
import { type Frame, SNAPSHOT_CHUNK_BYTES } from "./transport.ts";

export type SnapshotChunk = Extract<Frame, { readonly type: "snapshot-chunk" }>;
export type SnapshotAck = Extract<Frame, { readonly type: "snapshot-ack" }>;

const WINDOW_BYTES = 4 * SNAPSHOT_CHUNK_BYTES;
const SNAPSHOT_BYTES_MAX = 64 * GIB;
const READ_BYTES = MIB;

export type TransferLimits = {
  /** Nothing heard for so long: the sender offers again. */
  readonly silenceMs: number;
  /** So many offers in a row without an answer end the transfer. */
  readonly silencesMax: number;
  /** How often the receiver may fall back. */
  readonly setbacksMax: number;
  /** While a transfer lasts, the sender's log is kept from the snapshot on: it must not last for ever. */
  readonly transferMs: number;
};
export const TRANSFER_LIMITS: TransferLimits = {
  silenceMs: 1000,
  silencesMax: 10,
  setbacksMax: 5,
  transferMs: 30 * 60_000,
};

export type SenderOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly snapshot: StoredSnapshot;
  readonly term: Term;
  readonly send: (chunk: SnapshotChunk) => void;
  readonly limits?: TransferLimits;
};

/**
 * One transfer of one file to one peer. The file stays open for as long as it lasts, so that it may be removed meanwhile.
 * @see `done`: whether the peer holds the snapshot now
 */
export class SnapshotSender {
  readonly done: Promise<Result<void, string>>;
  readonly #options: SenderOptions;
  readonly #limits: TransferLimits;
  readonly #ended = new AbortController();
  /** Answers that wait, no more than were asked for: older ones say nothing that newer ones don't. */
  #acks: SnapshotAck[] = [];
  #wake: AbortController | undefined;
  #file: DiskFile | undefined;
  #total = 0;
  /** The end of what was sent last, and the CRC of the file up to there. */
  #sent = 0;
  #crc = 0;
  #isFileSuspect = false;

  constructor(options: SenderOptions) {
    this.#options = options;
    this.#limits = options.limits ?? TRANSFER_LIMITS;
    this.done = this.#run();
  }

  /** An answer from the peer. */
  ack(ack: SnapshotAck): void {
    if (ack.index !== this.#options.snapshot.point.index || ack.term !== this.#options.term) return;
    this.#acks = [...this.#acks.slice(-WINDOW_BYTES / SNAPSHOT_CHUNK_BYTES), ack];
    this.#wake?.abort();
  }

  /** It failed in a way that a rotten file explains: the next transfer should be of another one. */
  get isFileSuspect(): boolean {
    return this.#isFileSuspect;
  }

  /** Ends it: this node leads no more, or stops. */
  abort(): void {
    this.#ended.abort();
    this.#wake?.abort();
  }

  async #run(): Promise<Result<void, string>> {
    const { disk, snapshot } = this.#options;
    try {
      this.#file = await disk.open(snapshot.path, "read");
      this.#total = await this.#file.size();
      return await this.#converse();
    } catch (error) {
      this.#isFileSuspect = true;
      return fail(`${snapshot.path} cannot be read (${errorCode(error) ?? error})`);
    } finally {
      await this.#file?.close().catch(() => {});
    }
  }

  async #converse(): Promise<Result<void, string>> {
    const { clock } = this.#options;
    const { silencesMax, setbacksMax, transferMs } = this.#limits;
    const until = clock.monotonicMs() + transferMs;
    let silences = 0;
    let setbacks = 0;
    let acknowledged: number | undefined;
    this.#offer();
    while (clock.monotonicMs() < until) {
      const ack = await this.#nextAck();
      if (this.#ended.signal.aborted) return fail("the transfer was ended");
      if (!ack) {
        if (++silences >= silencesMax) return fail("the peer does not answer");
        acknowledged = undefined;
        this.#offer();
        continue;
      }
      silences = 0;
      if (ack.done) return ok(undefined);
      if (ack.offset > this.#total) return fail("the peer has more than there is");
      // After an offer its answer counts, whatever it says; later, only a peer that began anew falls back.
      const fellBack = acknowledged !== undefined && ack.offset < acknowledged;
      if (fellBack && ++setbacks > setbacksMax) {
        this.#isFileSuspect = true;
        return fail("the peer began anew too often");
      }
      if (acknowledged === undefined || fellBack || ack.offset > this.#sent) await this.#seek(ack.offset);
      acknowledged = ack.offset;
      while (this.#sent < this.#total && this.#sent - acknowledged < WINDOW_BYTES) await this.#sendPiece();
    }
    return fail("the transfer took too long");
  }

  async #nextAck(): Promise<SnapshotAck | undefined> {
    if (this.#acks.length === 0 && !this.#ended.signal.aborted) {
      this.#wake = new AbortController();
      await this.#options.clock.sleep(this.#limits.silenceMs, this.#wake.signal);
      this.#wake = undefined;
    }
    return this.#acks.shift();
  }

  #offer(): void {
    this.#send(0, 0, new Uint8Array(0));
  }

  async #sendPiece(): Promise<void> {
    const bytes = await this.#read(this.#sent, SNAPSHOT_CHUNK_BYTES);
    this.#crc = Bun.hash.crc32(bytes, this.#crc);
    this.#send(this.#sent, this.#crc, bytes);
    this.#sent += bytes.length;
  }

  #send(offset: number, crc: number, bytes: Uint8Array): void {
    const { term, snapshot, send } = this.#options;
    send({ type: "snapshot-chunk", term, point: snapshot.point, offset, total: this.#total, crc, bytes });
  }

  /** Goes to `offset`; the CRC up to there takes reading the file up to there. */
  async #seek(offset: number): Promise<void> {
    if (offset < this.#sent) {
      this.#sent = 0;
      this.#crc = 0;
    }
    while (this.#sent < offset && !this.#ended.signal.aborted) {
      const bytes = await this.#read(this.#sent, Math.min(READ_BYTES, offset - this.#sent));
      this.#crc = Bun.hash.crc32(bytes, this.#crc);
      this.#sent += bytes.length;
    }
  }

  async #read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = await this.#file!.read(offset, Math.min(length, this.#total - offset));
    if (bytes.length === 0) throw new Error("it is shorter than it was");
    return bytes;
  }
}

export type ReceiverOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly directory: string;
  readonly log: Log;
  readonly send: (to: PeerId, ack: SnapshotAck) => void;
  /** Pieces from leaders of earlier terms are ignored. */
  readonly term: () => Term;
  /** A snapshot up to here, or before, brings nothing new. */
  readonly appliedIndex: () => Index;
  readonly verify: (path: string) => Promise<Result<SnapshotPoint, string>>;
  /** The file is whole, verified, named, durable. @returns whether it is going to be installed (and removed otherwise) */
  readonly received: (from: PeerId, term: Term, snapshot: StoredSnapshot) => boolean;
};

/** How long nothing is received after the disk refused: longer than a sender bears silence, or it would fill the disk again. */
const REFUSAL_MS = 15_000;
/** More than a sender has on its way. What comes beyond is dropped, and sent again after a silence. */
const WAITING_MAX = 2 * (WINDOW_BYTES / SNAPSHOT_CHUNK_BYTES);

export const incomingName = (index: Index): string => `${snapshotName(index)}.incoming`;
const isIncomingName = (name: string): boolean => name.endsWith(".snapshot.incoming");

/** The file that is being received. */
type Incoming = {
  readonly index: Index;
  readonly total: number;
  readonly path: string;
  file: DiskFile;
  offset: number;
  crc: number;
  /** The latest that sends it. */
  term: Term;
};

/** Receives one snapshot at a time. */
export class SnapshotReceiver {
  readonly #options: ReceiverOptions;
  #waiting: { readonly from: PeerId; readonly chunk: SnapshotChunk }[] = [];
  #working: Promise<void> | undefined;
  #incoming: Incoming | undefined;
  #isVerifying = false;
  /** The last one that consensus took. */
  #takenIndex: Index = 0;
  #refusesUntil = 0;
  #isClosed = false;

  constructor(options: ReceiverOptions) {
    this.#options = options;
  }

  chunk(from: PeerId, chunk: SnapshotChunk): void {
    if (this.#isClosed || !isPlausible(chunk) || this.#options.clock.monotonicMs() < this.#refusesUntil) return;
    // Verifying takes a while, and the sender wants to know that this node is alive.
    if (this.#isVerifying && this.#incoming?.index === chunk.point.index) {
      this.#ack(from, chunk, this.#incoming.offset, false);
      return;
    }
    if (this.#waiting.length >= WAITING_MAX) return;
    this.#waiting.push({ from, chunk });
    this.#working ??= this.#work();
  }

  /** Waits for what is being written; the part that came stays, to be continued after a restart. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#waiting = [];
    await this.#working;
    await this.#incoming?.file.close().catch(() => {});
    this.#incoming = undefined;
  }

  async #work(): Promise<void> {
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      try {
        await this.#take(next.from, next.chunk);
      } catch (error) {
        this.#options.log.error("raft.snapshot_not_received", {
          from: next.from,
          index: next.chunk.point.index,
          error,
        });
        // On a full disk, the half-received file must not be what keeps it full.
        this.#waiting = [];
        this.#refusesUntil = this.#options.clock.monotonicMs() + REFUSAL_MS;
        await this.#discard();
      }
    }
    this.#working = undefined;
  }

  async #take(from: PeerId, chunk: SnapshotChunk): Promise<void> {
    const { term, appliedIndex } = this.#options;
    if (chunk.term < term() || chunk.term < (this.#incoming?.term ?? 0)) return;
    if (chunk.point.index <= Math.max(appliedIndex(), this.#takenIndex)) {
      return this.#ack(from, chunk, chunk.total, true);
    }
    const incoming = await this.#incomingFor(chunk);
    if (!incoming) return;
    incoming.term = chunk.term;
    if (chunk.offset === incoming.offset && chunk.bytes.length > 0) {
      const crc = Bun.hash.crc32(chunk.bytes, incoming.crc);
      if (crc !== chunk.crc) {
        this.#options.log.warn("raft.snapshot_begun_anew", { from, index: incoming.index, offset: incoming.offset });
        await this.#discard();
        return this.#ack(from, chunk, 0, false);
      }
      await incoming.file.write(incoming.offset, chunk.bytes);
      incoming.offset += chunk.bytes.length;
      incoming.crc = crc;
    }
    this.#ack(from, chunk, incoming.offset, false);
    if (incoming.offset === incoming.total) await this.#finish(from, chunk, incoming);
  }

  /** The part of this file that is there: in hand, or left by an earlier life of this node, or none yet. */
  async #incomingFor({ point: { index }, total, term }: SnapshotChunk): Promise<Incoming | undefined> {
    const { disk, directory } = this.#options;
    const current = this.#incoming;
    if (current?.index === index && current.total === total) return current;
    // A leader's snapshots only get newer: this is a straggler of the transfer before.
    if (current && current.term === term && current.index > index) return undefined;
    await current?.file.close().catch(() => {});
    this.#incoming = undefined;
    const name = incomingName(index);
    const parts = (await disk.list(directory)).filter(isIncomingName);
    for (const other of parts) if (other !== name) await disk.remove(`${directory}/${other}`);
    const path = `${directory}/${name}`;
    if (parts.includes(name)) {
      const file = await disk.open(path, "write");
      const offset = await file.size();
      if (offset <= total) {
        this.#incoming = { index, total, path, file, offset, crc: await crcOf(file, offset), term };
        return this.#incoming;
      }
      await file.close();
      await disk.remove(path);
    }
    const file = await disk.open(path, "create");
    this.#incoming = { index, total, path, file, offset: 0, crc: 0, term };
    return this.#incoming;
  }

  async #finish(from: PeerId, chunk: SnapshotChunk, incoming: Incoming): Promise<void> {
    const { disk, directory, log, verify, received } = this.#options;
    const { index, term } = chunk.point;
    await incoming.file.datasync();
    this.#isVerifying = true;
    const verified = await verify(incoming.path);
    this.#isVerifying = false;
    const isIt = verified.ok && verified.value.index === index && verified.value.term === term;
    if (!isIt) {
      log.error("raft.snapshot_damaged", { from, index, message: verified.ok ? "It is another one." : verified.error });
      await this.#discard();
      return this.#ack(from, chunk, 0, false);
    }
    await incoming.file.close();
    this.#incoming = undefined;
    const path = `${directory}/${snapshotName(index)}`;
    await disk.rename(incoming.path, path);
    await disk.syncDirectory(directory);
    log.info("raft.snapshot_received", { from, index, term, bytes: incoming.total });
    if (received(from, chunk.term, { point: verified.value, path, bytes: incoming.total })) this.#takenIndex = index;
    this.#ack(from, chunk, incoming.total, true);
  }

  async #discard(): Promise<void> {
    const incoming = this.#incoming;
    this.#incoming = undefined;
    this.#isVerifying = false;
    if (!incoming) return;
    await incoming.file.close().catch(() => {});
    await this.#options.disk.remove(incoming.path).catch(() => {});
  }

  #ack(to: PeerId, { term, point: { index } }: SnapshotChunk, offset: number, done: boolean): void {
    this.#options.send(to, { type: "snapshot-ack", term, index, offset, done });
  }
}

/** Checks the bounds of what a peer sent. */
function isPlausible({ point, offset, total, bytes }: SnapshotChunk): boolean {
  return (
    Number.isSafeInteger(point.index) &&
    point.index > 0 &&
    Number.isSafeInteger(total) &&
    total > 0 &&
    total <= SNAPSHOT_BYTES_MAX &&
    Number.isSafeInteger(offset) &&
    offset >= 0 &&
    bytes.length <= SNAPSHOT_CHUNK_BYTES &&
    offset + bytes.length <= total
  );
}

async function crcOf(file: DiskFile, length: number): Promise<number> {
  let crc = 0;
  for (let at = 0; at < length; ) {
    const bytes = await file.read(at, Math.min(READ_BYTES, length - at));
    if (bytes.length === 0) break;
    crc = Bun.hash.crc32(bytes, crc);
    at += bytes.length;
  }
  return crc;
}
