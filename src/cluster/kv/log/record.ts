/**
 * The bytes of log segments. All numbers are little-endian. A segment is a header block, then records, then zeros: it is
 * allocated whole and filled with zeros beforehand, so that a sync has no metadata to write.
 *
 * Header, SEGMENT_HEADER_BYTES (a block of its own, never rewritten once the file has its name):
 *   0   u8[8] magic "HIVELOG\0"     8   u32 format version, 1 or 2   12  u32 length of the vote, at most VOTE_BYTES_MAX
 *   16  u64 sequence of the segment 24  u64 index of its first entry
 *   32  u64 term of the entry before the first      40  u32 CRC of the record before the first (the chain's start)
 *   44  u32 1 when the log starts over here (nothing before counts), else 0
 *   48  u64 term of the hard state  56  the vote, UTF-8
 *   316 u32 1 while the node has to recover what it lost to damage, else 0
 *   320 u64 through which index     328 u64 the highest term that the damaged log showed
 *   4092 u32 CRC of bytes 0 to 4091
 *
 * Record, aligned to 8 bytes:
 *   0   u32 magic 0x524C5648 ("HVLR")               4   u32 CRC of bytes 8 to the payload's end
 *   8   u32 payload length                          12  u32 CRC of the record before: the chain
 *   16  u64 index of the log's last entry, this record included
 *   24  u64 term: an entry's; a hard state's; a truncation's, of the entry that is now the last; a seal's, the hard state's
 *   32  u32 offset in this file at which the write that brought this record began
 *   36  u8 kind             37  u24 how many writes were refused before this one      40  payload
 *
 *   kind            payload                         format
 *   1 entry         its data                        1
 *   2 hard state    the vote, UTF-8                 1
 *   3 seal          zeros, to set two seals apart   2
 *   4 truncation    none; drops the entries after its index, which are all in this segment    2
 *
 * The CRC is CRC-32 (ISO-HDLC, as in zlib). Each record can be checked alone, and the chain says that it follows the one
 * before: what an earlier, longer life of the file left behind is never taken for a continuation. Nor is what a write left
 * that was refused for want of space, even if its first record is written once more: the count of refusals has changed.
 *
 * The offset at 32 is what tells a torn write from rot: a write begins only after the one before it is durable, so a good
 * record proves that everything in front of its own write was once durable. See `scan-segment.ts`. The log's last write
 * has nothing after it that would prove this, and so an idle log is sealed: with two records, the second in the next
 * block, so that whatever damages the block in which the log ends leaves a proof.
 */
import { assert } from "../../../lib/assert.ts";
import type { HardState } from "./log-storage.ts";

export const SEGMENT_HEADER_BYTES = 4096;
export const RECORD_HEADER_BYTES = 40;
/** What is written. Version 1, without seals, truncations and recovery, is read; nothing of version 2 is written into it. */
export const LOG_FORMAT_VERSION = 2;
export const VOTE_BYTES_MAX = 256;
export const RECORD_MAGIC = 0x524c5648;
const SEGMENT_MAGIC = "HIVELOG\0";
const HEADER_CRC_OFFSET = SEGMENT_HEADER_BYTES - 4;

export const KIND_ENTRY = 1;
export const KIND_HARD_STATE = 2;
export const KIND_SEAL = 3;
export const KIND_TRUNCATION = 4;
export type RecordKind = typeof KIND_ENTRY | typeof KIND_HARD_STATE | typeof KIND_SEAL | typeof KIND_TRUNCATION;

/** What a damaged log owes: the entries through this index, in a term that is no lower. */
export type Recovery = { readonly through: number; readonly termAtLeast: number };

export type SegmentHeader = {
  readonly format: number;
  readonly sequence: number;
  readonly firstIndex: number;
  readonly previousTerm: number;
  readonly chain: number;
  readonly startsOver: boolean;
  readonly hardState: HardState;
  readonly recovery: Recovery | undefined;
};

export type LogRecord = {
  readonly kind: RecordKind;
  readonly index: number;
  readonly term: number;
  readonly payload: Uint8Array;
};

export type DecodedRecord = LogRecord & {
  readonly crc: number;
  readonly chain: number;
  /** Where the write that brought this record began. */
  readonly writeStart: number;
};

/** The length of a record in the file, padding included. */
export const recordBytes = (payloadBytes: number): number => (RECORD_HEADER_BYTES + payloadBytes + 7) & ~7;

/**
 * Encodes records that are written in one go at `writeStart`, chained to the record whose CRC is `chain`.
 * @param refusals how many writes this log refused since it was opened
 * @returns the bytes, where each record begins (as an offset in the file), and the CRC of the last one
 */
export function encodeRecords(records: readonly LogRecord[], writeStart: number, chain: number, refusals: number) {
  const bytes = Buffer.alloc(records.reduce((sum, record) => sum + recordBytes(record.payload.length), 0));
  const offsets: number[] = [];
  let at = 0;
  for (const record of records) {
    offsets.push(writeStart + at);
    bytes.writeUInt32LE(RECORD_MAGIC, at);
    bytes.writeUInt32LE(record.payload.length, at + 8);
    bytes.writeUInt32LE(chain, at + 12);
    writeU64(bytes, record.index, at + 16);
    writeU64(bytes, record.term, at + 24);
    bytes.writeUInt32LE(writeStart, at + 32);
    bytes.writeUInt8(record.kind, at + 36);
    bytes.writeUIntLE(refusals % 2 ** 24, at + 37, 3);
    bytes.set(record.payload, at + RECORD_HEADER_BYTES);
    const end = at + RECORD_HEADER_BYTES + record.payload.length;
    chain = Bun.hash.crc32(bytes.subarray(at + 8, end));
    bytes.writeUInt32LE(chain, at + 4);
    at += recordBytes(record.payload.length);
  }
  return { bytes, offsets, chain };
}

/** The record at `at`, if its bytes are whole and pass their own CRC. Whether it follows in the chain is not judged. */
export function decodeRecord(file: Buffer, at: number): DecodedRecord | undefined {
  if (at + RECORD_HEADER_BYTES > file.length || file.readUInt32LE(at) !== RECORD_MAGIC) return undefined;
  const end = at + RECORD_HEADER_BYTES + file.readUInt32LE(at + 8);
  if (end > file.length) return undefined;
  const crc = Bun.hash.crc32(file.subarray(at + 8, end));
  if (crc !== file.readUInt32LE(at + 4)) return undefined;
  const kind = file.readUInt8(at + 36);
  if (!isKind(kind)) return undefined;
  return {
    kind,
    crc,
    chain: file.readUInt32LE(at + 12),
    index: readU64(file, at + 16),
    term: readU64(file, at + 24),
    writeStart: file.readUInt32LE(at + 32),
    payload: file.subarray(at + RECORD_HEADER_BYTES, end),
  };
}

const isKind = (kind: number): kind is RecordKind => kind >= KIND_ENTRY && kind <= KIND_TRUNCATION;

const NO_PAYLOAD = new Uint8Array(0);
/** The unit in which disks and file systems lose data. */
const SEAL_BLOCK_BYTES = 4096;

/** The seal of a log that ends at offset `end` of a file with `room` bytes left: two records, or one, or none if they don't fit. */
export function sealRecords(index: number, term: number, end: number, room: number): readonly LogRecord[] {
  const seal = { kind: KIND_SEAL, index, term, payload: NO_PAYLOAD } as const;
  const toNextBlock = SEAL_BLOCK_BYTES - 1 - ((end + RECORD_HEADER_BYTES - 1) % SEAL_BLOCK_BYTES);
  if (recordBytes(toNextBlock) + recordBytes(0) <= room)
    return [{ ...seal, payload: new Uint8Array(toNextBlock) }, seal];
  return recordBytes(0) <= room ? [seal] : [];
}

/** The record that makes `index` the log's last entry again. */
export const truncationRecord = (index: number, term: number): LogRecord => ({
  kind: KIND_TRUNCATION,
  index,
  term,
  payload: NO_PAYLOAD,
});

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const vote = Buffer.from(header.hardState.vote);
  assert(vote.length <= VOTE_BYTES_MAX, "a vote is a node's id");
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
  bytes.write(SEGMENT_MAGIC, "latin1");
  assert(header.format === LOG_FORMAT_VERSION, "only the newest format is written");
  bytes.writeUInt32LE(header.format, 8);
  bytes.writeUInt32LE(vote.length, 12);
  writeU64(bytes, header.sequence, 16);
  writeU64(bytes, header.firstIndex, 24);
  writeU64(bytes, header.previousTerm, 32);
  bytes.writeUInt32LE(header.chain, 40);
  bytes.writeUInt32LE(header.startsOver ? 1 : 0, 44);
  writeU64(bytes, header.hardState.term, 48);
  bytes.set(vote, 56);
  if (header.recovery) {
    bytes.writeUInt32LE(1, 316);
    writeU64(bytes, header.recovery.through, 320);
    writeU64(bytes, header.recovery.termAtLeast, 328);
  }
  bytes.writeUInt32LE(Bun.hash.crc32(bytes.subarray(0, HEADER_CRC_OFFSET)), HEADER_CRC_OFFSET);
  return bytes;
}

/** Reads a header block: what it says, or why it can't be trusted. A later format is told apart from damage. */
export function decodeSegmentHeader(bytes: Buffer): SegmentHeader | "bad" | { readonly newerFormat: number } {
  if (bytes.length < SEGMENT_HEADER_BYTES || bytes.toString("latin1", 0, 8) !== SEGMENT_MAGIC) return "bad";
  if (bytes.readUInt32LE(HEADER_CRC_OFFSET) !== Bun.hash.crc32(bytes.subarray(0, HEADER_CRC_OFFSET))) return "bad";
  const version = bytes.readUInt32LE(8);
  if (version > LOG_FORMAT_VERSION) return { newerFormat: version };
  const owes = bytes.readUInt32LE(316) === 1;
  return {
    format: version,
    sequence: readU64(bytes, 16),
    firstIndex: readU64(bytes, 24),
    previousTerm: readU64(bytes, 32),
    chain: bytes.readUInt32LE(40),
    startsOver: bytes.readUInt32LE(44) === 1,
    hardState: { term: readU64(bytes, 48), vote: bytes.toString("utf8", 56, 56 + bytes.readUInt32LE(12)) },
    recovery: owes ? { through: readU64(bytes, 320), termAtLeast: readU64(bytes, 328) } : undefined,
  };
}

const U32 = 2 ** 32;

/** Numbers stay below 2^53: at a million entries a second, that is 285 years. */
function writeU64(bytes: Buffer, value: number, at: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, "a count fits in 53 bits");
  bytes.writeUInt32LE(value % U32, at);
  bytes.writeUInt32LE(Math.floor(value / U32), at + 4);
}

function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * U32;
}
