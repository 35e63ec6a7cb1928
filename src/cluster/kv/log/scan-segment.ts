import {
  type DecodedRecord,
  decodeRecord,
  KIND_ENTRY,
  RECORD_MAGIC,
  recordBytes,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
} from "./record.ts";

export type ScannedRecord = DecodedRecord & { readonly offset: number };

/**
 * How the records of a segment end:
 *   clean    nothing but zeros follows
 *   torn     something follows that fails its checks, and a crash in the last, unsynced write explains it
 *   corrupt  a record fails its checks although a good one after it proves that it was once durable
 */
export type Ending =
  | { readonly kind: "clean" }
  | { readonly kind: "torn" }
  | { readonly kind: "corrupt"; readonly provenBy: number };

export type SegmentScan = { readonly records: readonly ScannedRecord[]; readonly end: number; readonly ending: Ending };

/**
 * Reads a segment's records up to `lastIndex` (the last entry that the next segment leaves to this one; the open end
 * otherwise) or the first that doesn't follow, at `end`. From `dataEnd` on, the file is zeros. Pure.
 *
 * A crash leaves any mixture of old and new sectors within the one write that was not synced, so bad records with good
 * ones after them are no proof of rot by themselves. But a write begins only after the sync of the one before it: a good
 * record after `end` whose write began after `end` proves that `end` was durable, and is damaged now. Cutting the
 * log there would drop acknowledged entries (Protocol-Aware Recovery, FAST '18), so the caller has to stop.
 */
export function scanSegment(file: Buffer, dataEnd: number, header: SegmentHeader, lastIndex: number): SegmentScan {
  const records: ScannedRecord[] = [];
  let at = SEGMENT_HEADER_BYTES;
  let chain = header.chain;
  let index = header.firstIndex - 1;
  while (true) {
    const record = decodeRecord(file, at);
    if (!record || record.chain !== chain) break;
    if (record.index !== (record.kind === KIND_ENTRY ? index + 1 : index)) break;
    if (record.index > lastIndex) return { records, end: at, ending: { kind: "clean" } };
    records.push({ ...record, offset: at });
    chain = record.crc;
    index = record.index;
    at += recordBytes(record.payload.length);
  }
  return { records, end: at, ending: judge(file.subarray(0, dataEnd), at) };
}

const MAGIC = Buffer.alloc(4);
MAGIC.writeUInt32LE(RECORD_MAGIC);

/** What the bytes after the last good record say; the file's last byte is not zero. */
function judge(file: Buffer, end: number): Ending {
  if (file.length <= end) return { kind: "clean" };
  let found = file.indexOf(MAGIC, end);
  while (found !== -1) {
    const record = found % 8 === 0 ? decodeRecord(file, found) : undefined;
    if (record && record.writeStart > end && record.writeStart <= found) return { kind: "corrupt", provenBy: found };
    // A payload may hold a copy of a record; jumping over good ones saves the search from it.
    found = file.indexOf(MAGIC, found + (record ? recordBytes(record.payload.length) : 4));
  }
  return { kind: "torn" };
}
