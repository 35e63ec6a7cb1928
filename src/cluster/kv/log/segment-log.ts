import { assert, present } from "../../../lib/assert.ts";
import type { Clock } from "../../../lib/clock.ts";
import type { Log } from "../../../lib/log.ts";
import { fail, ok, type Result } from "../../../lib/result.ts";
import type { Disk, DiskFile } from "../disk.ts";
import {
  type Damage,
  type Entry,
  type HardState,
  LOG_LOST,
  type LogError,
  type LogStorage,
  UNKNOWN_VOTE,
} from "./log-storage.ts";
import { newHeader, type SnapshotPoint } from "./plan-repair.ts";
import {
  decodeRecord,
  encodeRecords,
  KIND_ENTRY,
  KIND_HARD_STATE,
  KIND_TRUNCATION,
  type LogRecord,
  type Recovery,
  recordBytes,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  sealRecords,
  truncationRecord,
} from "./record.ts";
import { type RecoverError, type RecoveredLog, type RecoveredSegment, recoverLog } from "./recover-log.ts";
import { attempt, SegmentMaker, setAside } from "./segment-files.ts";

export type SegmentLogOptions = {
  readonly disk: Disk;
  readonly directory: string;
  /** Size of a segment file; one record that is larger gets a file that fits it. */
  readonly segmentBytes: number;
  readonly log: Log;
  /** With it, the log is sealed once nothing was written for `sealAfterMs`. Without, only when it is told to or closed. */
  readonly clock?: Clock;
  readonly sealAfterMs?: number;
  /**
   * The node has peers: damage is cut out of the log and owed (`LogStorage.damage`), and no reason to refuse. `snapshot` is
   * then the newest good one, from which the log has to lead on; without any, the log has to begin with the first entry.
   */
  readonly repairable?: boolean;
  readonly snapshot?: SnapshotPoint;
};

/** Long enough that a busy log has no seals, short beside the time that rot takes. */
const SEAL_AFTER_MS = 50;
const NO_SNAPSHOT: SnapshotPoint = { index: 0, term: 0 };

type Segment = RecoveredSegment;

/** A log in preallocated segment files. How they look: `record.ts`; how they're read after a crash: `recover-log.ts`. */
export class SegmentLog implements LogStorage {
  readonly #options: SegmentLogOptions;
  readonly #maker: SegmentMaker;
  readonly #segments: Segment[];
  /** The last segment, open for writing, and the CRC of its last record. */
  #file: DiskFile;
  #chain: number;
  #hardState: HardState;
  readonly #lastIndexAtOpen: number;
  /** Whether something after the last write proves that it was durable. */
  #isSealed: boolean;
  #isSealing = false;
  /** Counts the changes of the log, to tell whether it is idle. */
  #changes = 0;
  /** Writes that found no space. */
  #refusals = 0;
  readonly #closing = new AbortController();
  #failure: LogError | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(
    options: SegmentLogOptions,
    maker: SegmentMaker,
    segments: readonly Segment[],
    last: {
      readonly file: DiskFile;
      readonly chain: number;
      readonly hardState: HardState;
      readonly isSealed: boolean;
    },
  ) {
    this.#options = options;
    this.#maker = maker;
    this.#segments = [...segments];
    this.#file = last.file;
    this.#chain = last.chain;
    this.#hardState = last.hardState;
    this.#isSealed = last.isSealed;
    this.#lastIndexAtOpen = this.lastIndex;
    this.#sealWhenIdle();
  }

  /** Opens the log of a directory, or begins one. `entries` is everything that it holds, durable by now. */
  static async open(
    options: SegmentLogOptions,
  ): Promise<Result<{ log: SegmentLog; entries: readonly Entry[] }, LogError | RecoverError>> {
    const { disk, directory } = options;
    const maker = new SegmentMaker(disk, directory);
    const repair = options.repairable ? { snapshot: options.snapshot ?? NO_SNAPSHOT } : undefined;
    const read = await attempt("reading the log", () => recoverLog(disk, directory, options.log, repair));
    if (!read.ok) return read;
    if (!read.value.ok) return read.value;
    const found = read.value.value;
    const last = await lastSegment(options, maker, found);
    if (!last.ok) return last;
    const cleaned = await attempt("opening the log", async () => {
      for (const path of found.superseded) await disk.remove(path);
      await setAside(disk, directory, found.damaged);
      await disk.syncDirectory(directory);
    });
    if (!cleaned.ok) {
      await last.value.file.close().catch(() => {});
      return cleaned;
    }
    const { segments, ...rest } = last.value;
    const log = new SegmentLog(options, maker, segments, { ...rest, hardState: found.hardState });
    return ok({ log, entries: found.entries });
  }

  get firstIndex(): number {
    return this.#segments[0]!.header.firstIndex;
  }
  get lastIndex(): number {
    const { header, offsets } = this.#last;
    return header.firstIndex + offsets.length - 1;
  }
  get hardState(): HardState {
    return this.#hardState;
  }
  get bytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.bytes, 0);
  }
  get damage(): Damage | undefined {
    const { recovery } = this.#last.header;
    return (
      recovery && {
        lastGoodIndex: this.#lastIndexAtOpen,
        recoverThrough: recovery.through,
        termAtLeast: recovery.termAtLeast,
        voteUnknown: this.#hardState.vote === UNKNOWN_VOTE,
      }
    );
  }

  termOf(index: number): number | undefined {
    if (index === this.firstIndex - 1) return this.#segments[0]!.header.previousTerm;
    if (index < this.firstIndex || index > this.lastIndex) return undefined;
    const segment = this.#segmentOf(index);
    return segment.terms[index - segment.header.firstIndex];
  }

  append(entries: readonly Entry[], hardState?: HardState): Promise<Result<void, LogError>> {
    return this.#inOrder(async () => {
      const records: LogRecord[] = [];
      if (hardState) {
        const payload = Buffer.from(hardState.vote);
        records.push({ kind: KIND_HARD_STATE, index: this.lastIndex, term: hardState.term, payload });
      }
      entries.forEach(({ index, term, data }, i) => {
        assert(index === this.lastIndex + 1 + i, "log indexes have no gaps");
        records.push({ kind: KIND_ENTRY, index, term, payload: data });
      });
      if (records.length === 0) return ok(undefined);
      // One call stays in one file, so that a failure leaves nothing of it behind.
      const bytes = records.reduce((sum, record) => sum + recordBytes(record.payload.length), 0);
      if (this.#last.end + bytes > this.#last.bytes) {
        const rotated = await this.#rotate(SEGMENT_HEADER_BYTES + bytes, this.#last.header.recovery);
        if (!rotated.ok) return rotated;
      }
      const written = await this.#write(records);
      if (written.ok) this.#hardState = hardState ?? this.#hardState;
      return written;
    });
  }

  /** Within the last segment that is one small record; beyond it, a new segment takes the place of those that are cut. */
  truncateAfter(index: number): Promise<Result<void, LogError>> {
    return this.#inOrder(async () => {
      if (index >= this.lastIndex) return ok(undefined);
      assert(index >= this.firstIndex - 1, "what a snapshot replaced is never truncated");
      const { header, end, bytes } = this.#last;
      const hasRoom = header.format > 1 && end + recordBytes(0) <= bytes;
      return hasRoom && index + 1 >= header.firstIndex
        ? this.#write([truncationRecord(index, this.#highestTerm)])
        : this.#truncateInNewSegment(index);
    });
  }

  async #truncateInNewSegment(index: number): Promise<Result<void, LogError>> {
    const cut = this.#segmentOf(index + 1);
    const position = index + 1 - cut.header.firstIndex;
    let { chain } = cut.header;
    if (position > 0) {
      const kept = await this.#recordsAt(cut, position - 1, 1);
      if (!kept.ok) return kept;
      chain = kept.value[0]!.crc;
    }
    const previousTerm = present(this.termOf(index), "the term before the cut is known");
    const after = { firstIndex: index + 1, previousTerm, chain, startsOver: false };
    return this.#startSegment(after, 0, this.#last.header.recovery, () => {
      const whole = this.#segments.filter((segment) => segment.header.firstIndex <= index);
      if (position > 0) {
        cut.end = cut.offsets[position]!;
        cut.offsets.length = position;
        cut.terms.length = position;
      }
      return whole;
    });
  }

  restartAfter(index: number, term: number): Promise<Result<void, LogError>> {
    return this.#inOrder(() => {
      const after = { firstIndex: index + 1, previousTerm: term, chain: 0, startsOver: true };
      return this.#startSegment(after, 0, this.#last.header.recovery, () => []);
    });
  }

  recovered(): Promise<Result<void, LogError>> {
    return this.#inOrder(async () => {
      const { damage } = this;
      if (!damage) return ok(undefined);
      assert(damage.recoverThrough !== LOG_LOST, "a log that is lost is never recovered");
      return this.#rotate(0, undefined);
    });
  }

  /**
   * Writes what proves that all of the log was durable, unless it is there. Should the last write rot one day, it is then
   * told from one that a crash tore. Nobody needs to wait for it. Where the seal does not fit, a new segment begins, which
   * proves the same of the one before.
   */
  seal(): Promise<Result<void, LogError>> {
    return this.#inOrder(async () => {
      if (this.#isSealed) return ok(undefined);
      const fits = this.#last.header.format > 1 && this.#sealRecords().length === 2;
      if (!fits && (this.#last.header.format === 1 || this.#last.end > SEGMENT_HEADER_BYTES)) {
        const rotated = await this.#rotate(0, this.#last.header.recovery);
        if (!rotated.ok) return rotated;
      }
      const records = this.#sealRecords();
      const written = records.length === 0 ? ok(undefined) : await this.#write(records);
      this.#isSealed = written.ok;
      return written;
    });
  }

  #sealRecords(): readonly LogRecord[] {
    const { end, bytes } = this.#last;
    return sealRecords(this.lastIndex, this.#highestTerm, end, bytes - end);
  }

  read(from: number, to: number, bytesMax: number): Promise<Result<readonly Entry[], LogError>> {
    return this.#inOrder(async () => {
      assert(from >= this.firstIndex && to <= this.lastIndex && from <= to, "only entries that are held are read");
      const entries: Entry[] = [];
      let bytes = 0;
      for (let index = from; index <= to; ) {
        const segment = this.#segmentOf(index);
        const position = index - segment.header.firstIndex;
        let count = 0;
        while (index + count <= to && position + count < segment.offsets.length) {
          const end = segment.offsets[position + count + 1] ?? segment.end;
          const length = end - segment.offsets[position + count]!;
          if (entries.length + count > 0 && bytes + length > bytesMax) break;
          bytes += length;
          count++;
        }
        if (count === 0) break;
        const records = await this.#recordsAt(segment, position, count);
        if (!records.ok) return records;
        for (const { index, term, payload } of records.value) entries.push({ index, term, data: payload });
        index += count;
      }
      return ok(entries);
    });
  }

  compact(index: number): Promise<Result<void, LogError>> {
    return this.#inOrder(async () => {
      while (this.#segments.length > 1 && this.#segments[1]!.header.firstIndex <= index + 1) {
        const { path } = this.#segments[0]!;
        // One at a time, so that no crash leaves a gap behind.
        const removed = await attempt("removing an old log segment", async () => {
          await this.#options.disk.remove(path);
          this.#segments.shift();
          await this.#options.disk.syncDirectory(this.#options.directory);
        });
        if (!removed.ok) return removed;
      }
      return ok(undefined);
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    if (this.#changes > 0) await this.seal();
    const closed = this.#queue.then(async () => {
      this.#failure = { reason: "failed", message: "The log was closed." };
      await this.#maker.close();
      await this.#file.close().catch(() => {});
    });
    this.#queue = closed;
    await closed;
  }

  get #last(): Segment {
    return this.#segments.at(-1)!;
  }

  /** Of all that this node has seen, so that a record shows it should the others be damaged. */
  get #highestTerm(): number {
    return Math.max(this.#hardState.term, this.termOf(this.lastIndex) ?? 0);
  }

  /** Writes records at the log's end, durably, and makes them part of it. */
  async #write(records: readonly LogRecord[]): Promise<Result<void, LogError>> {
    const segment = this.#last;
    const encoded = encodeRecords(records, segment.end, this.#chain, this.#refusals);
    const written = await attempt("a write to the log", () => this.#file.writeDurable(segment.end, encoded.bytes));
    if (!written.ok) {
      // After a failed sync the kernel may count the pages as clean though they never reached the disk, and a second sync
      // would succeed without them ("fsyncgate"): nothing more is written until the log was read anew.
      if (written.error.reason !== "full") return this.#failed({ ...written.error, reason: "failed" });
      // Part of it may have got in. Without its first record, the rest doesn't continue the chain; only once that is
      // durable may the caller be told that nothing was written.
      this.#refusals++;
      const wiped = await attempt("a write to the log", () => this.#file.writeDurable(segment.end, new Uint8Array(8)));
      return this.#failed({ ...written.error, reason: wiped.ok ? "full" : "failed" });
    }
    for (const [i, record] of records.entries()) {
      if (record.kind === KIND_ENTRY) {
        segment.offsets.push(encoded.offsets[i]!);
        segment.terms.push(record.term);
      } else if (record.kind === KIND_TRUNCATION) {
        segment.offsets.length = record.index + 1 - segment.header.firstIndex;
        segment.terms.length = segment.offsets.length;
      }
    }
    segment.end += encoded.bytes.length;
    this.#chain = encoded.chain;
    if (segment.end * 2 > segment.bytes) this.#maker.prepare(this.#options.segmentBytes);
    this.#changed();
    return ok(undefined);
  }

  #rotate(bytesMin: number, recovery: Recovery | undefined): Promise<Result<void, LogError>> {
    const firstIndex = this.lastIndex + 1;
    const previousTerm = present(this.termOf(firstIndex - 1), "the last term is known");
    // One that holds no entry, only votes, is replaced: of two that begin at one index, the later one counts.
    const replaced = this.#last.offsets.length === 0 ? this.#last : undefined;
    const chain = replaced?.header.chain ?? this.#chain;
    const after = { firstIndex, previousTerm, chain, startsOver: replaced?.header.startsOver ?? false };
    return this.#startSegment(after, bytesMin, recovery, () =>
      this.#segments.filter((segment) => segment !== replaced),
    );
  }

  /** Begins a segment after the ones that `keep` returns; removes the others once it has its name. */
  async #startSegment(
    after: Pick<SegmentHeader, "firstIndex" | "previousTerm" | "chain" | "startsOver">,
    bytesMin: number,
    recovery: Recovery | undefined,
    keep: () => readonly Segment[],
  ): Promise<Result<void, LogError>> {
    const { disk, directory, segmentBytes } = this.#options;
    const header = newHeader(this.#last.header.sequence + 1, after, this.#hardState, recovery);
    const made = await this.#maker.make(header, Math.max(bytesMin, segmentBytes));
    if (!made.ok) return this.#failed(made.error);
    await this.#file.close().catch(() => {});
    this.#file = made.value.file;
    this.#chain = header.chain;
    const kept = keep();
    const dropped = this.#segments.filter((segment) => !kept.includes(segment));
    this.#segments.splice(0, this.#segments.length, ...kept, begun(header, made.value));
    this.#changed();
    if (dropped.length === 0) return ok(undefined);
    // Gone for good before anything is written after them: should this segment's header rot, they'd be taken for the log.
    const removed = await attempt("removing a log segment", async () => {
      for (const { path } of dropped) await disk.remove(path);
      await disk.syncDirectory(directory);
    });
    return removed.ok ? removed : this.#failed({ ...removed.error, reason: "failed" });
  }

  /** The log has grown, so that its end is not sealed. */
  #changed(): void {
    this.#changes++;
    this.#isSealed = false;
    this.#sealWhenIdle();
  }

  /** Seals the log after a time in which nothing changed. There is one wait at a time, and none once it is sealed. */
  async #sealWhenIdle(): Promise<void> {
    const { clock, log, directory, sealAfterMs = SEAL_AFTER_MS } = this.#options;
    if (!clock || this.#isSealing || this.#isSealed) return;
    this.#isSealing = true;
    const { signal } = this.#closing;
    while (!this.#isSealed && !signal.aborted) {
      const before = this.#changes;
      await clock.sleep(sealAfterMs, signal);
      if (this.#changes !== before || signal.aborted) continue;
      const sealed = await this.seal();
      if (sealed.ok) continue;
      // The next append is told of a disk that failed; on one that is full, it is tried again after that.
      log.warn("store.log_not_sealed", { directory, message: sealed.error.message });
      break;
    }
    this.#isSealing = false;
  }

  async #recordsAt(segment: Segment, position: number, count: number) {
    const from = segment.offsets[position]!;
    const to = segment.offsets[position + count] ?? segment.end;
    const read = await attempt("reading the log", async () => {
      if (segment === this.#last) return bufferOf(await this.#file.read(from, to - from));
      const file = await this.#options.disk.open(segment.path, "read");
      try {
        return bufferOf(await file.read(from, to - from));
      } finally {
        await file.close();
      }
    });
    if (!read.ok) return read;
    const records = [];
    for (let i = position; i < position + count; i++) {
      const record = decodeRecord(read.value, segment.offsets[i]! - from);
      if (!record || record.kind !== KIND_ENTRY || record.index !== segment.header.firstIndex + i) {
        const where = `${segment.path}, offset ${segment.offsets[i]}`;
        return fail<LogError>({ reason: "corrupt", message: `A log record fails its checksum: ${where}.` });
      }
      records.push(record);
    }
    return ok(records);
  }

  #segmentOf(index: number): Segment {
    return present(
      this.#segments.findLast((segment) => segment.header.firstIndex <= index),
      "a held entry has a segment",
    );
  }

  #failed(error: LogError): Result<never, LogError> {
    if (error.reason === "failed") this.#failure = error;
    return fail(error);
  }

  #inOrder<T>(work: () => Promise<Result<T, LogError>>): Promise<Result<T, LogError>> {
    const done = this.#queue.then(() => (this.#failure ? fail(this.#failure) : work()));
    this.#queue = done.catch(() => {});
    return done;
  }
}

const bufferOf = ({ buffer, byteOffset, byteLength }: Uint8Array): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength);

const begun = (header: SegmentHeader, made: { readonly path: string; readonly bytes: number }): Segment => ({
  header,
  path: made.path,
  bytes: made.bytes,
  offsets: [],
  terms: [],
  end: SEGMENT_HEADER_BYTES,
});

/** Makes the last segment of a log ready to be written to: it goes on, or is begun. */
async function lastSegment({ disk, segmentBytes }: SegmentLogOptions, maker: SegmentMaker, found: RecoveredLog) {
  const { segments, next } = found;
  if ("begin" in next) {
    const made = await maker.make(next.begin, segmentBytes);
    if (!made.ok) return made;
    const { file } = made.value;
    return ok({
      segments: [...segments, begun(next.begin, made.value)],
      file,
      chain: next.begin.chain,
      isSealed: false,
    });
  }
  const { rewrite, rewriteAt, chain, isSealed } = next.tail;
  return attempt("opening the log", async () => {
    const file = await disk.open(present(segments.at(-1), "the log has a segment").path, "write");
    try {
      if (rewrite.length > 0) await file.writeDurable(rewriteAt, rewrite);
    } catch (error) {
      await file.close().catch(() => {});
      throw error;
    }
    return { segments, file, chain, isSealed };
  });
}
