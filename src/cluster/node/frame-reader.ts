/** Bytes into frames; how they look: `frame-format.ts`. */
import type { Entry, Message, PeerId } from "../raft/types.ts";
import {
  BLOCK_BYTES,
  ENTRY_HEADER_BYTES,
  FRAME_FORMAT_VERSION,
  FRAME_HEADER_BYTES,
  isPeerId,
  type Link,
  TYPE,
  U32,
  type WireFrame,
} from "./frame-format.ts";
import { FRAME_BYTES_MAX } from "./transport.ts";

export type FrameRefusal =
  /** Longer than FRAME_BYTES_MAX: nothing was kept of it. */
  | "oversized"
  /** The CRC says that these are not the bytes that were sent. */
  | "damaged"
  /** Sent as it is, and no version up to this one writes it. */
  | "malformed";

export type Reading = {
  readonly frames: readonly WireFrame[];
  /** Frames of kinds that are not known here were stepped over: how many, and what the last one said that it is. */
  readonly skipped: number;
  readonly lastSkipped: string | undefined;
  /** The stream makes no sense from here on: the connection has to go. `frames` came before that, and count. */
  readonly refusal: FrameRefusal | undefined;
};

/**
 * Frames out of a stream of bytes, however it is cut up. Total: any bytes give frames, or wait for more, or are refused.
 *
 * Data in frames is copied out of the chunks. An entry stays in memory for as long as it lies in the log's window, and a
 * view would hold its whole chunk (512 KiB from Bun) with it; the copy of 300 bytes costs some 100 ns.
 * What waits for more is at most one frame, and the memory for it grows only as its bytes come.
 */
export class FrameReader {
  readonly #cursor: Cursor;
  readonly #link: Link;
  #held = new Uint8Array(0);
  #heldBytes = 0;

  constructor(link: Link) {
    this.#link = link;
    this.#cursor = new Cursor();
  }

  /** Takes a chunk. After a refusal, no more may be given. */
  read(chunk: Uint8Array): Reading {
    const frames: WireFrame[] = [];
    let skipped = 0;
    let lastSkipped: string | undefined;
    const done = (refusal?: FrameRefusal): Reading => ({ frames, skipped, lastSkipped, refusal });
    let at = 0;
    for (;;) {
      // A frame that began in an earlier chunk is completed beside them; all others are read where they lie.
      const isHeld = this.#heldBytes > 0;
      const bytes = isHeld ? this.#held : chunk;
      const start = isHeld ? 0 : at;
      const available = isHeld ? this.#heldBytes : chunk.length - at;
      const length = available < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : frameLength(bytes, start);
      if (length > FRAME_BYTES_MAX) return done("oversized");
      if (available < length) {
        if (at === chunk.length) return done();
        const more = Math.min(length - (isHeld ? available : 0), chunk.length - at);
        this.#hold(chunk, at, more, length);
        at += more;
        continue;
      }
      const decoded = this.#decode(bytes, start, length);
      if (decoded === "damaged" || decoded === "malformed") return done(decoded);
      if (typeof decoded === "object") frames.push(decoded);
      else {
        skipped++;
        lastSkipped = `type ${bytes[start + 9]} of format ${bytes[start + 8]}`;
      }
      if (isHeld) this.#release();
      else at += length;
    }
  }

  #hold(chunk: Uint8Array, at: number, count: number, length: number): void {
    const needed = this.#heldBytes + count;
    if (needed > this.#held.length) {
      const held = new Uint8Array(Math.max(needed, Math.min(length, this.#held.length * 2)));
      held.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = held;
    }
    this.#held.set(chunk.subarray(at, at + count), this.#heldBytes);
    this.#heldBytes = needed;
  }

  #release(): void {
    this.#heldBytes = 0;
    if (this.#held.length > BLOCK_BYTES) this.#held = new Uint8Array(0);
  }

  #decode(bytes: Uint8Array, start: number, length: number): WireFrame | "damaged" | "malformed" | "unknown" {
    const end = start + length;
    if (Bun.hash.crc32(bytes.subarray(start + 4, end)) !== u32(bytes, start)) return "damaged";
    if (bytes[start + 8]! > FRAME_FORMAT_VERSION) return "unknown";
    const flag = bytes[start + 10]!;
    if (bytes[start + 8] === 0 || flag > 1 || bytes[start + 11] !== 0) return "malformed";
    const cursor = this.#cursor.over(bytes, start + FRAME_HEADER_BYTES, end);
    const frame = decodePayload(bytes[start + 9]!, flag === 1, cursor, this.#link);
    if (frame === "unknown") return frame;
    return cursor.isAtEnd() ? frame : "malformed";
  }
}

/** Without a view of its own for every chunk; 0xFFFFFFFF is not negative. */
const u32 = (bytes: Uint8Array, at: number): number =>
  (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;

const frameLength = (bytes: Uint8Array, start: number): number => FRAME_HEADER_BYTES + u32(bytes, start + 4);

const NO_BYTES = new Uint8Array(0);

/** Reads a payload from its start to its end. What is not there reads as 0, and then the end is never reached. */
class Cursor {
  #bytes: Uint8Array = NO_BYTES;
  #plain: Uint8Array = NO_BYTES;
  #view: DataView = new DataView(NO_BYTES.buffer);
  #at = 0;
  #end = 0;
  #isBad = false;

  over(bytes: Uint8Array, at: number, end: number): this {
    if (this.#bytes !== bytes) {
      this.#bytes = bytes;
      // A Buffer's `slice` is a view; a plain array's is a copy.
      this.#plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
    this.#at = at;
    this.#end = end;
    this.#isBad = false;
    return this;
  }

  get left(): number {
    return this.#end - this.#at;
  }

  /** Everything was read, and it was right. */
  isAtEnd(): boolean {
    return !this.#isBad && this.#at === this.#end;
  }

  refuse(): void {
    this.#isBad = true;
  }

  #take(count: number): number {
    const at = this.#at;
    if (at + count > this.#end) {
      this.#isBad = true;
      return -1;
    }
    this.#at = at + count;
    return at;
  }

  u8(): number {
    const at = this.#take(1);
    return at < 0 ? 0 : this.#view.getUint8(at);
  }

  u16(): number {
    const at = this.#take(2);
    return at < 0 ? 0 : this.#view.getUint16(at, true);
  }

  u32(): number {
    const at = this.#take(4);
    return at < 0 ? 0 : this.#view.getUint32(at, true);
  }

  u64(): number {
    const at = this.#take(8);
    if (at < 0) return 0;
    const value = this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * U32;
    if (value <= Number.MAX_SAFE_INTEGER) return value;
    this.#isBad = true;
    return 0;
  }

  /** A copy of the next bytes. */
  copy(count: number): Uint8Array {
    const at = this.#take(count);
    return at < 0 ? NO_BYTES : this.#plain.slice(at, at + count);
  }

  ids(): readonly PeerId[] {
    const ids: PeerId[] = [];
    for (let count = this.u16(); count > 0 && !this.#isBad; count--) {
      const length = this.u8();
      const at = this.#take(length);
      if (at < 0) break;
      const id = Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset + at, length).toString();
      if (!isPeerId(id)) this.#isBad = true;
      ids.push(id);
    }
    return ids;
  }

  /** A number of things of which each has at least `bytesEach`. */
  count(bytesEach: number): number {
    const count = this.u32();
    if (count * bytesEach <= this.left) return count;
    this.#isBad = true;
    return 0;
  }
}

function decodePayload(type: number, flag: boolean, from: Cursor, link: Link): WireFrame | "unknown" {
  switch (type) {
    case TYPE["snapshot-chunk"]:
      return {
        type: "snapshot-chunk",
        term: from.u64(),
        ...readSnapshotPosition(from),
        bytes: from.copy(from.count(1)),
      };
    case TYPE["snapshot-ack"]:
      return { type: "snapshot-ack", term: from.u64(), index: from.u64(), offset: from.u64(), done: flag };
    case TYPE.request:
      return { type: "request", id: from.u64(), body: from.copy(Math.max(0, from.left)) };
    case TYPE.response:
      return { type: "response", id: from.u64(), body: from.copy(Math.max(0, from.left)) };
    case TYPE.ping:
      return { type: "ping", number: from.u64() };
    case TYPE.pong:
      return { type: "pong", number: from.u64() };
    default: {
      const message = decodeMessage(type, flag, from, link);
      return message === "unknown" ? message : { type: "raft", message };
    }
  }
}

function readSnapshotPosition(from: Cursor) {
  const [index, term, offset, total, crc] = [from.u64(), from.u64(), from.u64(), from.u64(), from.u32()];
  const configuration = { voters: from.ids(), outgoing: from.ids(), learners: from.ids(), joining: from.ids() };
  return { point: { index, term, configuration }, offset, total, crc };
}

/** Members are read in the order in which they are written here: that of the bytes. */
function decodeMessage(type: number, flag: boolean, cursor: Cursor, { from, to }: Link): Message | "unknown" {
  switch (type) {
    case TYPE.append: {
      const term = cursor.u64();
      const prevIndex = cursor.u64();
      const prevTerm = cursor.u64();
      const commit = cursor.u64();
      const round = cursor.u64();
      const entries = readEntries(cursor, prevIndex);
      return { type: "append", from, to, term, prevIndex, prevTerm, entries, commit, round };
    }
    case TYPE["append-reply"]:
      return { type: "append-reply", from, to, term: cursor.u64(), match: cursor.u64(), round: cursor.u64() };
    case TYPE["append-refused"]: {
      const term = cursor.u64();
      const prevIndex = cursor.u64();
      const [hintIndex, hintTerm, round] = [cursor.u64(), cursor.u64(), cursor.u64()];
      return { type: "append-refused", from, to, term, prevIndex, hintIndex, hintTerm, round };
    }
    case TYPE["pre-vote"]:
      return { type: "pre-vote", from, to, term: cursor.u64(), lastIndex: cursor.u64(), lastTerm: cursor.u64() };
    case TYPE["pre-vote-reply"]:
      return { type: "pre-vote-reply", from, to, term: cursor.u64(), granted: flag };
    case TYPE.vote: {
      const [term, lastIndex, lastTerm] = [cursor.u64(), cursor.u64(), cursor.u64()];
      return { type: "vote", from, to, term, lastIndex, lastTerm, transfer: flag };
    }
    case TYPE["vote-reply"]:
      return { type: "vote-reply", from, to, term: cursor.u64(), granted: flag };
    case TYPE["timeout-now"]:
      return { type: "timeout-now", from, to, term: cursor.u64() };
    case TYPE.read:
      return { type: "read", from, to, term: cursor.u64(), id: cursor.u64() };
    case TYPE["read-reply"]: {
      const [term, id] = [cursor.u64(), cursor.u64()];
      return { type: "read-reply", from, to, term, id, index: flag ? cursor.u64() : undefined };
    }
    default:
      return "unknown";
  }
}

function readEntries(cursor: Cursor, prevIndex: number): readonly Entry[] {
  const count = cursor.count(ENTRY_HEADER_BYTES);
  const entries: Entry[] = [];
  for (let at = 1; at <= count; at++) {
    const term = cursor.u64();
    entries.push({ index: prevIndex + at, term, data: cursor.copy(cursor.u32()) });
  }
  if (prevIndex + count > Number.MAX_SAFE_INTEGER) cursor.refuse();
  return entries;
}
