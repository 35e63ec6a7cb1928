/**
 * The bytes of log segments. All numbers are little-endian. A segment is a header block, then records, then zeros: it is
 * allocated whole and filled with zeros beforehand, so that a sync has no metadata to write.
 *
 * Header, SEGMENT_HEADER_BYTES (a block of its own, never rewritten once the file has its name):
 *   0   u8[8] magic "HIVELOG\0"     8   u32 format version, 1       12  u32 length of the vote, at most VOTE_BYTES_MAX
 *   16  u64 sequence of the segment 24  u64 index of its first entry
 *   32  u64 term of the entry before the first      40  u32 CRC of the record before the first (the chain's start)
 *   44  u32 1 when the log starts over here (nothing before counts), else 0
 *   48  u64 term of the hard state  56  the vote, UTF-8
 *   4092 u32 CRC of bytes 0 to 4091
 *
 * Record, aligned to 8 bytes:
 *   0   u32 magic 0x524C5648 ("HVLR")               4   u32 CRC of bytes 8 to the payload's end
 *   8   u32 payload length                          12  u32 CRC of the record before: the chain
 *   16  u64 index (a hard state's: of the last entry before it)
 *   24  u64 term (a hard state's: its term)
 *   32  u32 offset in this file at which the write that brought this record began
 *   36  u8 kind: 1 entry, 2 hard state              37  three zeros
 *   40  payload: an entry's data; a hard state's vote, UTF-8
 *
 * The CRC is CRC-32 (ISO-HDLC, as in zlib). Each record can be checked alone, and the chain says that it follows the one
 * before: what an earlier, longer life of the file left behind is never taken for a continuation.
 *
 * The offset at 32 is what tells a torn write from rot: a write begins only after the sync of the one before, so a good
 * record proves that everything in front of its own write was once durable. See `scan-segment.ts`.
 */
import { assert } from "../../../lib/assert.ts";
import type { HardState } from "./log-storage.ts";

export const SEGMENT_HEADER_BYTES = 4096;
export const RECORD_HEADER_BYTES = 40;
export const LOG_FORMAT_VERSION = 1;
export const VOTE_BYTES_MAX = 256;
export const RECORD_MAGIC = 0x524c5648;
const SEGMENT_MAGIC = "HIVELOG\0";
const HEADER_CRC_OFFSET = SEGMENT_HEADER_BYTES - 4;

export const KIND_ENTRY = 1;
export const KIND_HARD_STATE = 2;

export type SegmentHeader = {
  readonly sequence: number;
  readonly firstIndex: number;
  readonly previousTerm: number;
  readonly chain: number;
  readonly startsOver: boolean;
  readonly hardState: HardState;
};

export type LogRecord = {
  readonly kind: typeof KIND_ENTRY | typeof KIND_HARD_STATE;
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
 * @returns the bytes, where each record begins (as an offset in the file), and the CRC of the last one
 */
export function encodeRecords(records: readonly LogRecord[], writeStart: number, chain: number) {
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
  if (kind !== KIND_ENTRY && kind !== KIND_HARD_STATE) return undefined;
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

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const vote = Buffer.from(header.hardState.vote);
  assert(vote.length <= VOTE_BYTES_MAX, "a vote is a node's id");
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
  bytes.write(SEGMENT_MAGIC, "latin1");
  bytes.writeUInt32LE(LOG_FORMAT_VERSION, 8);
  bytes.writeUInt32LE(vote.length, 12);
  writeU64(bytes, header.sequence, 16);
  writeU64(bytes, header.firstIndex, 24);
  writeU64(bytes, header.previousTerm, 32);
  bytes.writeUInt32LE(header.chain, 40);
  bytes.writeUInt32LE(header.startsOver ? 1 : 0, 44);
  writeU64(bytes, header.hardState.term, 48);
  bytes.set(vote, 56);
  bytes.writeUInt32LE(Bun.hash.crc32(bytes.subarray(0, HEADER_CRC_OFFSET)), HEADER_CRC_OFFSET);
  return bytes;
}

/** Reads a header block: what it says, or why it can't be trusted. A later format is told apart from damage. */
export function decodeSegmentHeader(bytes: Buffer): SegmentHeader | "bad" | { readonly newerFormat: number } {
  if (bytes.length < SEGMENT_HEADER_BYTES || bytes.toString("latin1", 0, 8) !== SEGMENT_MAGIC) return "bad";
  if (bytes.readUInt32LE(HEADER_CRC_OFFSET) !== Bun.hash.crc32(bytes.subarray(0, HEADER_CRC_OFFSET))) return "bad";
  const version = bytes.readUInt32LE(8);
  if (version > LOG_FORMAT_VERSION) return { newerFormat: version };
  return {
    sequence: readU64(bytes, 16),
    firstIndex: readU64(bytes, 24),
    previousTerm: readU64(bytes, 32),
    chain: bytes.readUInt32LE(40),
    startsOver: bytes.readUInt32LE(44) === 1,
    hardState: { term: readU64(bytes, 48), vote: bytes.toString("utf8", 56, 56 + bytes.readUInt32LE(12)) },
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
