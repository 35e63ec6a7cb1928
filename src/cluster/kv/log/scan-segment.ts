import {
  type DecodedRecord,
  decodeRecord,
  KIND_ENTRY,
  KIND_HARD_STATE,
  KIND_TRUNCATION,
  RECORD_MAGIC,
  recordBytes,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
} from "./record.ts";

export type ScannedRecord = DecodedRecord & { readonly offset: number };

/**
 * How the records of a segment end:
 *   followed  at the record that the next segment follows; whatever comes after it does not count
 *   clean     nothing but zeros follows
 *   torn      something follows that fails its checks, and a crash in the last, unsynced write explains it
 *   corrupt   a record fails its checks although a good one after it proves that it was once durable
 */
export type Ending =
  | { readonly kind: "followed" }
  | { readonly kind: "clean" }
  | { readonly kind: "torn" }
  | { readonly kind: "corrupt"; readonly provenBy: number };

export type SegmentScan = {
  /** The entries that the segment holds after its truncations, from `header.firstIndex`. */
  readonly entries: readonly ScannedRecord[];
  readonly hardState: ScannedRecord | undefined;
  /** The last record of any kind, and where it ends. */
  readonly last: ScannedRecord | undefined;
  readonly end: number;
  readonly ending: Ending;
};

/**
 * Reads a segment's records up to the one that `next`, the header of the segment after it, follows, or to the first that
 * fails its checks. From `dataEnd` on, the file is zeros. Pure.
 *
 * A crash leaves any mixture of old and new sectors within the one write that was not durable, so bad records with good
 * ones after them are no proof of rot by themselves. But a write begins only after the one before it is durable: a good
 * record after `end` whose write began after `end` proves that `end` was durable, and is damaged now. Cutting the
 * log there would drop acknowledged entries (Protocol-Aware Recovery, FAST '18): that is for the caller to judge.
 */
export function scanSegment(
  file: Buffer,
  dataEnd: number,
  header: SegmentHeader,
  next: Pick<SegmentHeader, "firstIndex" | "chain"> | undefined,
): SegmentScan {
  const entries: ScannedRecord[] = [];
  let hardState: ScannedRecord | undefined;
  let last: ScannedRecord | undefined;
  let at = SEGMENT_HEADER_BYTES;
  let chain = header.chain;
  let index = header.firstIndex - 1;
  let ending: Ending | undefined;
  while (!ending) {
    if (next && chain === next.chain && index === next.firstIndex - 1) {
      ending = { kind: "followed" };
      break;
    }
    const record = decodeRecord(file, at);
    if (!record || record.chain !== chain || !follows(record, index, header.firstIndex)) {
      ending = judge(file, dataEnd, at);
      break;
    }
    last = { ...record, offset: at };
    if (record.kind === KIND_ENTRY) entries.push(last);
    if (record.kind === KIND_HARD_STATE) hardState = last;
    if (record.kind === KIND_TRUNCATION) entries.length = record.index + 1 - header.firstIndex;
    chain = record.crc;
    index = record.index;
    at += recordBytes(record.payload.length);
  }
  return { entries, hardState, last, end: at, ending };
}

/** Whether a record makes sense where the log's last entry is `index`. */
function follows(record: DecodedRecord, index: number, firstIndex: number): boolean {
  if (record.kind === KIND_ENTRY) return record.index === index + 1;
  if (record.kind === KIND_TRUNCATION) return record.index < index && record.index >= firstIndex - 1;
  return record.index === index;
}

/** What the bytes after the last good record say. */
function judge(file: Buffer, dataEnd: number, end: number): Ending {
  if (dataEnd <= end) return { kind: "clean" };
  for (const record of goodRecords(file, dataEnd, end)) {
    if (record.writeStart > end) return { kind: "corrupt", provenBy: record.offset };
  }
  return { kind: "torn" };
}

/**
 * Every record from `start` on that passes its own checks, whether or not it follows another. A payload may hold a copy
 * of a record; jumping over good ones saves the search from it.
 */
function* goodRecords(file: Buffer, dataEnd: number, start: number): Generator<ScannedRecord> {
  // A record may end in zeros: only where one begins is before the end of the data.
  const data = file.subarray(0, dataEnd);
  let found = data.indexOf(MAGIC, start);
  while (found !== -1) {
    const record = found % 8 === 0 ? decodeRecord(file, found) : undefined;
    const isGood = record && record.writeStart >= SEGMENT_HEADER_BYTES && record.writeStart <= found;
    if (isGood) yield { ...record, offset: found };
    found = data.indexOf(MAGIC, found + (isGood ? recordBytes(record.payload.length) : 4));
  }
}

const MAGIC = Buffer.alloc(4);
MAGIC.writeUInt32LE(RECORD_MAGIC);

/**
 * What a damaged segment shows of the log's extent, whether or not its records still follow each other: the last entry
 * that it may have held in the end, and the highest term.
 */
export function surveySegment(
  file: Buffer,
  dataEnd: number,
): { readonly index: number; readonly term: number } | undefined {
  let index: number | undefined;
  let term = 0;
  for (const record of goodRecords(file, dataEnd, SEGMENT_HEADER_BYTES)) {
    index = record.kind === KIND_TRUNCATION ? record.index : Math.max(index ?? 0, record.index);
    term = Math.max(term, record.term);
  }
  return index === undefined ? undefined : { index, term };
}
