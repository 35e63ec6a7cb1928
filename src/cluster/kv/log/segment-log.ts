import { assert, present } from "../../../lib/assert.ts";
import type { Log } from "../../../lib/log.ts";
import { fail, ok, type Result } from "../../../lib/result.ts";
import type { Disk, DiskFile } from "../disk.ts";
import type { Entry, HardState, LogError, LogStorage } from "./log-storage.ts";
import {
  decodeRecord,
  encodeRecords,
  KIND_ENTRY,
  KIND_HARD_STATE,
  type LogRecord,
  recordBytes,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
} from "./record.ts";
import { type RecoverError, type RecoveredSegment, recoverLog } from "./recover-log.ts";
import { attempt, SegmentMaker, segmentName } from "./segment-files.ts";

export type SegmentLogOptions = {
  readonly disk: Disk;
  readonly directory: string;
  /** Size of a segment file; one record that is larger gets a file that fits it. */
  readonly segmentBytes: number;
  readonly log: Log;
};

type Segment = RecoveredSegment;

/** A log in preallocated segment files. How they look: `record.ts`; how they're read after a crash: `recover-log.ts`. */
export class SegmentLog implements LogStorage {
  readonly #options: SegmentLogOptions;
  readonly #maker: SegmentMaker;
  readonly #segments: Segment[];
  /** The last segment, open for writing; where its records end; the CRC of the last one. */
  #file: DiskFile;
  #end: number;
  #chain: number;
  #hardState: HardState;
  #failure: LogError | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(
    options: SegmentLogOptions,
    maker: SegmentMaker,
    segments: readonly Segment[],
    last: { file: DiskFile; end: number; chain: number; hardState: HardState },
  ) {
    this.#options = options;
    this.#maker = maker;
    this.#segments = [...segments];
    this.#file = last.file;
    this.#end = last.end;
    this.#chain = last.chain;
    this.#hardState = last.hardState;
  }

  /** Opens the log of a directory, or begins one. `entries` is everything that it holds, durable by now. */
  static async open(
    options: SegmentLogOptions,
  ): Promise<Result<{ log: SegmentLog; entries: readonly Entry[] }, LogError | RecoverError>> {
    const { disk, directory } = options;
    const maker = new SegmentMaker(disk, directory);
    const read = await attempt("reading the log", () => recoverLog(disk, directory, options.log));
    if (!read.ok) return read;
    if (!read.value.ok) return read.value;
    const found = read.value.value;
    if (!found) return SegmentLog.#begin(options, maker);
    const opened = await attempt("opening the log", async () => {
      for (const path of found.superseded) await disk.remove(path);
      const file = await disk.open(present(found.segments.at(-1), "the log has a segment").path, "write");
      if (found.tail.rewrite.length > 0) {
        await file.write(found.tail.rewriteAt, found.tail.rewrite);
        await file.datasync();
      }
      await disk.syncDirectory(directory);
      return file;
    });
    if (!opened.ok) return opened;
    const last = { file: opened.value, hardState: found.hardState, ...found.tail };
    return ok({ log: new SegmentLog(options, maker, found.segments, last), entries: found.entries });
  }

  static async #begin(options: SegmentLogOptions, maker: SegmentMaker) {
    const hardState: HardState = { term: 0, vote: "" };
    const header = { sequence: 1, firstIndex: 1, previousTerm: 0, chain: 0, startsOver: false, hardState };
    const made = await maker.make(header, options.segmentBytes);
    if (!made.ok) return made;
    const segment = {
      header,
      path: `${options.directory}/${segmentName(1)}`,
      bytes: made.value.bytes,
      offsets: [],
      terms: [],
    };
    const last = { file: made.value.file, end: SEGMENT_HEADER_BYTES, chain: 0, hardState };
    return ok({ log: new SegmentLog(options, maker, [segment], last), entries: [] });
  }

  get firstIndex(): number {
    return this.#segments[0]!.header.firstIndex;
  }
  get lastIndex(): number {
    const { header, offsets } = this.#segments.at(-1)!;
    return header.firstIndex + offsets.length - 1;
  }
  get hardState(): HardState {
    return this.#hardState;
  }
  get bytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.bytes, 0);
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
      if (this.#end + bytes > this.#segments.at(-1)!.bytes) {
        const rotated = await this.#rotate(SEGMENT_HEADER_BYTES + bytes);
        if (!rotated.ok) return rotated;
      }
      return this.#write(records, hardState);
    });
  }

  async #write(records: readonly LogRecord[], hardState: HardState | undefined): Promise<Result<void, LogError>> {
    const segment = this.#segments.at(-1)!;
    const encoded = encodeRecords(records, this.#end, this.#chain);
    const written = await attempt("a write to the log", () => this.#file.write(this.#end, encoded.bytes));
    if (!written.ok) {
      // Part of it may have got in. Without its first record, the rest doesn't continue the chain; only once that is
      // durable may the caller be told that nothing was written.
      const wiped = await attempt("a write to the log", async () => {
        await this.#file.write(this.#end, new Uint8Array(8));
        await this.#file.datasync();
      });
      return this.#failed({ ...written.error, reason: wiped.ok ? written.error.reason : "failed" });
    }
    const synced = await attempt("a sync of the log", () => this.#file.datasync());
    // After a failed sync the kernel may count the pages as clean though they never reached the disk, and a second sync
    // would succeed without them ("fsyncgate"): nothing more is written until the log was read anew.
    if (!synced.ok) return this.#failed({ ...synced.error, reason: "failed" });
    records.forEach((record, i) => {
      if (record.kind !== KIND_ENTRY) return;
      segment.offsets.push(encoded.offsets[i]!);
      segment.terms.push(record.term);
    });
    this.#end += encoded.bytes.length;
    this.#chain = encoded.chain;
    this.#hardState = hardState ?? this.#hardState;
    if (this.#end * 2 > segment.bytes) this.#maker.prepare(this.#options.segmentBytes);
    return ok(undefined);
  }

  truncateAfter(index: number): Promise<Result<void, LogError>> {
    return this.#inOrder(async () => {
      if (index >= this.lastIndex) return ok(undefined);
      assert(index >= this.firstIndex - 1, "what a snapshot replaced is never truncated");
      const dropped = this.#segmentOf(index + 1);
      const position = index + 1 - dropped.header.firstIndex;
      let chain = dropped.header.chain;
      if (position > 0) {
        const record = await this.#recordAt(dropped, position, 1);
        if (!record.ok) return record;
        chain = record.value[0]!.chain;
      }
      const previousTerm = present(this.termOf(index), "the term before the cut is known");
      return this.#startSegment({ firstIndex: index + 1, previousTerm, chain, startsOver: false }, 0, () => {
        const whole = this.#segments.filter((segment) => segment.header.firstIndex <= index);
        const last = whole.at(-1);
        if (last) {
          last.offsets.length = Math.min(last.offsets.length, index + 1 - last.header.firstIndex);
          last.terms.length = last.offsets.length;
        }
        return whole;
      });
    });
  }

  restartAfter(index: number, term: number): Promise<Result<void, LogError>> {
    return this.#inOrder(() =>
      this.#startSegment({ firstIndex: index + 1, previousTerm: term, chain: 0, startsOver: true }, 0, () => []),
    );
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
          const end =
            segment.offsets[position + count + 1] ?? (segment === this.#segments.at(-1) ? this.#end : segment.bytes);
          const length = end - segment.offsets[position + count]!;
          if (entries.length + count > 0 && bytes + length > bytesMax) break;
          bytes += length;
          count++;
        }
        if (count === 0) break;
        const records = await this.#recordAt(segment, position, count);
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
          await this.#options.disk.syncDirectory(this.#options.directory);
        });
        if (!removed.ok) return removed;
        this.#segments.shift();
      }
      return ok(undefined);
    });
  }

  async close(): Promise<void> {
    await this.#inOrder(async () => {
      this.#failure ??= { reason: "failed", message: "The log was closed." };
      await this.#maker.close();
      await this.#file.close().catch(() => {});
      return ok(undefined);
    });
  }

  #rotate(bytesMin: number): Promise<Result<void, LogError>> {
    const firstIndex = this.lastIndex + 1;
    const previousTerm = present(this.termOf(firstIndex - 1), "the last term is known");
    // One that holds no entry, only votes, is replaced: of two that begin at one index, the later one counts.
    const last = this.#segments.at(-1)!;
    const replaced = last.offsets.length === 0 ? last : undefined;
    const header = { firstIndex, previousTerm, chain: replaced?.header.chain ?? this.#chain, startsOver: false };
    if (replaced?.header.startsOver) header.startsOver = true;
    return this.#startSegment(header, bytesMin, () => this.#segments.filter((segment) => segment !== replaced));
  }

  /** Begins a segment after the ones that `keep` returns; removes the others once it has its name. */
  async #startSegment(
    header: Pick<SegmentHeader, "firstIndex" | "previousTerm" | "chain" | "startsOver">,
    bytesMin: number,
    keep: () => readonly Segment[],
  ): Promise<Result<void, LogError>> {
    const sequence = this.#segments.at(-1)!.header.sequence + 1;
    const whole: SegmentHeader = { ...header, sequence, hardState: this.#hardState };
    const made = await this.#maker.make(whole, Math.max(bytesMin, this.#options.segmentBytes));
    if (!made.ok) return this.#failed(made.error);
    await this.#file.close().catch(() => {});
    this.#file = made.value.file;
    this.#end = SEGMENT_HEADER_BYTES;
    this.#chain = header.chain;
    const path = `${this.#options.directory}/${segmentName(sequence)}`;
    const kept = keep();
    const dropped = this.#segments.filter((segment) => !kept.includes(segment));
    this.#segments.splice(0, this.#segments.length, ...kept, {
      header: whole,
      path,
      bytes: made.value.bytes,
      offsets: [],
      terms: [],
    });
    // Should this fail, the next opening finds them superseded and removes them.
    for (const segment of dropped) await this.#options.disk.remove(segment.path).catch(() => {});
    return ok(undefined);
  }

  async #recordAt(segment: Segment, position: number, count: number) {
    const from = segment.offsets[position]!;
    const last = segment === this.#segments.at(-1);
    const to = segment.offsets[position + count] ?? (last ? this.#end : segment.bytes);
    const read = await attempt("reading the log", async () => {
      const file = await this.#options.disk.open(segment.path, "read");
      try {
        return Buffer.from(await file.read(from, to - from));
      } finally {
        await file.close();
      }
    });
    if (!read.ok) return read;
    const records = [];
    for (let i = position; i < position + count; i++) {
      const record = decodeRecord(read.value, segment.offsets[i]! - from);
      if (!record || record.index !== segment.header.firstIndex + i) {
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
