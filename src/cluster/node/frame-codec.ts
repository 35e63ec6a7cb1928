/**
 * Frames as bytes. All numbers are little-endian; u64 stays below 2^53. A frame, FRAME_BYTES_MAX bytes at most:
 *
 *   0   u32 CRC of bytes 4 to the end                4   u32 length of the payload
 *   8   u8 format version, 1                         9   u8 type      10  u8 flag, 0 or 1      11  u8 zero
 *   12  payload, by type:
 *
 *    1  pre-vote        u64 term, u64 last index, u64 last term
 *    2  pre-vote-reply  u64 term                                                      flag: granted
 *    3  vote            u64 term, u64 last index, u64 last term                       flag: transfer
 *    4  vote-reply      u64 term                                                      flag: granted
 *    5  append          u64 term, u64 previous index, u64 previous term, u64 commit, u64 round, u32 count,
 *                       then for each entry: u64 term, u32 length, data
 *    6  append-reply    u64 term, u64 match, u64 round
 *    7  append-refused  u64 term, u64 previous index, u64 hint index, u64 hint term, u64 round
 *    8  timeout-now     u64 term
 *    9  read            u64 term, u64 id
 *   10  read-reply      u64 term, u64 id, and with the flag u64 index
 *   16  snapshot-chunk  u64 term, u64 index, u64 term of the snapshot, u64 offset, u64 total, u32 CRC,
 *                       four lists of ids (voters, outgoing, learners, joining), u32 length, bytes
 *                       a list: u16 count, then for each id: u8 length, UTF-8
 *   17  snapshot-ack    u64 term, u64 index, u64 offset                               flag: done
 *   18  request         u64 id, then the body          19  response  u64 id, then the body
 *   32  ping            u64 number                     33  pong      u64 number: the connection's own, see tcp-transport.ts
 *
 * The CRC is CRC-32 (ISO-HDLC, as in zlib). It finds a defect on the way or in this code; it is no protection against
 * an attacker, which is the transport's business.
 *
 * What is not said can't be wrong: who sent a frame and for whom is known from the connection, and an append's entries
 * are numbered from its previous index on, so that no frame speaks in another's name or has a gap.
 *
 * Bytes 0 to 9 are the same in every version, so that a frame of a kind not known here (a newer node's) is stepped over,
 * and reported. New kinds take new types; the version grows only when a layout above changes.
 */
import { assert, unreachable } from "../../lib/assert.ts";
import type { Configuration, Entry, Message, PeerId } from "../raft/types.ts";
import { FRAME_BYTES_MAX, type Frame } from "./transport.ts";

export const FRAME_FORMAT_VERSION = 1;
const FRAME_HEADER_BYTES = 12;
/** No frame is longer than this plus its data (entries with their headers, body, piece of a snapshot and its lists). */
const FRAME_OVERHEAD_BYTES = 64;
/** The longest body of a request or a response that fits a frame. */
export const BODY_BYTES_MAX = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES;
export const PEER_ID_LENGTH_MAX = 64;

/** What a connection carries: the frames of consensus, and its own questions whether the other end is there. */
export type WireFrame =
  | Frame
  | { readonly type: "ping"; readonly number: number }
  | { readonly type: "pong"; readonly number: number };

/** Who speaks to whom on a connection. */
export type Link = { readonly from: PeerId; readonly to: PeerId };

const TYPE = {
  "pre-vote": 1,
  "pre-vote-reply": 2,
  vote: 3,
  "vote-reply": 4,
  append: 5,
  "append-reply": 6,
  "append-refused": 7,
  "timeout-now": 8,
  read: 9,
  "read-reply": 10,
  "snapshot-chunk": 16,
  "snapshot-ack": 17,
  request: 18,
  response: 19,
  ping: 32,
  pong: 33,
} as const satisfies Record<Message["type"] | Exclude<WireFrame["type"], "raft">, number>;

const U32 = 2 ** 32;
const ENTRY_HEADER_BYTES = 12;
/** One write to a socket takes a block; most turns of the event loop fill less than one. */
const BLOCK_BYTES = 256 * 1024;

/** The bytes that a frame takes, or a few more. */
function roomFor(frame: WireFrame): number {
  switch (frame.type) {
    case "raft": {
      let bytes = FRAME_OVERHEAD_BYTES;
      if (frame.message.type !== "append") return bytes;
      for (const { data } of frame.message.entries) bytes += ENTRY_HEADER_BYTES + data.length;
      return bytes;
    }
    case "snapshot-chunk": {
      let bytes = FRAME_OVERHEAD_BYTES + frame.bytes.length;
      for (const ids of idLists(frame.point.configuration)) {
        bytes += 2;
        for (const id of ids) bytes += 1 + Buffer.byteLength(id);
      }
      return bytes;
    }
    case "request":
    case "response":
      return FRAME_OVERHEAD_BYTES + frame.body.length;
    case "snapshot-ack":
    case "ping":
    case "pong":
      return FRAME_OVERHEAD_BYTES;
    default:
      return unreachable(frame);
  }
}

const idLists = (configuration: Configuration): readonly (readonly PeerId[])[] => [
  configuration.voters,
  configuration.outgoing,
  configuration.learners,
  configuration.joining,
];

/** A piece of memory that is filled up to `end` and sent from `start`; frames lie in it whole. */
class Block {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  start = 0;
  end = 0;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  /**
   * Writes one frame, for which there is room.
   * @returns its length
   * @throws BrokenInvariant, and then nothing was written
   */
  frame(frame: WireFrame): number {
    const start = this.end;
    let flag: boolean;
    try {
      this.end = start + FRAME_HEADER_BYTES;
      flag = this.#payload(frame);
    } catch (defect) {
      this.end = start;
      throw defect;
    }
    const view = this.#view;
    view.setUint32(start + 4, this.end - start - FRAME_HEADER_BYTES, true);
    view.setUint8(start + 8, FRAME_FORMAT_VERSION);
    view.setUint8(start + 9, TYPE[frame.type === "raft" ? frame.message.type : frame.type]);
    view.setUint16(start + 10, flag ? 1 : 0, true);
    view.setUint32(start, Bun.hash.crc32(this.bytes.subarray(start + 4, this.end)), true);
    return this.end - start;
  }

  /** @returns the flag */
  #payload(frame: WireFrame): boolean {
    switch (frame.type) {
      case "raft":
        return this.#message(frame.message);
      case "snapshot-chunk":
        this.#u64(frame.term);
        this.#u64(frame.point.index);
        this.#u64(frame.point.term);
        this.#u64(frame.offset);
        this.#u64(frame.total);
        this.#u32(frame.crc);
        for (const ids of idLists(frame.point.configuration)) this.#ids(ids);
        this.#u32(frame.bytes.length);
        this.#raw(frame.bytes);
        return false;
      case "snapshot-ack":
        this.#u64(frame.term);
        this.#u64(frame.index);
        this.#u64(frame.offset);
        return frame.done;
      case "request":
      case "response":
        this.#u64(frame.id);
        this.#raw(frame.body);
        return false;
      case "ping":
      case "pong":
        this.#u64(frame.number);
        return false;
      default:
        return unreachable(frame);
    }
  }

  #message(message: Message): boolean {
    this.#u64(message.term);
    switch (message.type) {
      case "append":
        this.#u64(message.prevIndex);
        this.#u64(message.prevTerm);
        this.#u64(message.commit);
        this.#u64(message.round);
        this.#entries(message.prevIndex, message.entries);
        return false;
      case "append-reply":
        this.#u64(message.match);
        this.#u64(message.round);
        return false;
      case "append-refused":
        this.#u64(message.prevIndex);
        this.#u64(message.hintIndex);
        this.#u64(message.hintTerm);
        this.#u64(message.round);
        return false;
      case "pre-vote":
        this.#u64(message.lastIndex);
        this.#u64(message.lastTerm);
        return false;
      case "vote":
        this.#u64(message.lastIndex);
        this.#u64(message.lastTerm);
        return message.transfer;
      case "pre-vote-reply":
      case "vote-reply":
        return message.granted;
      case "timeout-now":
        return false;
      case "read":
        this.#u64(message.id);
        return false;
      case "read-reply":
        this.#u64(message.id);
        if (message.index !== undefined) this.#u64(message.index);
        return message.index !== undefined;
      default:
        return unreachable(message);
    }
  }

  #entries(prevIndex: number, entries: readonly Entry[]): void {
    this.#u32(entries.length);
    let index = prevIndex;
    for (const entry of entries) {
      assert(entry.index === ++index, "an append's entries follow its previous index");
      this.#u64(entry.term);
      this.#u32(entry.data.length);
      this.#raw(entry.data);
    }
  }

  #ids(ids: readonly PeerId[]): void {
    assert(ids.length <= 0xffff, "a configuration has few peers");
    this.#view.setUint16(this.end, ids.length, true);
    this.end += 2;
    for (const id of ids) {
      assert(isPeerId(id), "an id has 1 to 64 characters");
      const encoded = Buffer.from(id);
      this.bytes[this.end++] = encoded.length;
      this.#raw(encoded);
    }
  }

  #u32(value: number): void {
    this.#view.setUint32(this.end, value, true);
    this.end += 4;
  }

  #u64(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, "a count fits in 53 bits");
    this.#view.setUint32(this.end, value >>> 0, true); // modulo 2^32
    this.#view.setUint32(this.end + 4, value / U32, true);
    this.end += 8;
  }

  #raw(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.end);
    this.end += bytes.length;
  }
}

export const isPeerId = (id: string): boolean => id.length >= 1 && id.length <= PEER_ID_LENGTH_MAX && id.isWellFormed();

/**
 * Frames as bytes, in order, until a socket has taken them. They lie in blocks, so that what waits for a slow peer is
 * never moved, and a block that was sent is filled again.
 */
export class FrameQueue {
  readonly #link: Link;
  readonly #bytesMax: number;
  #blocks: Block[] = [];
  #length = 0;

  /** @param bytesMax what may wait; at least FRAME_BYTES_MAX */
  constructor(link: Link, bytesMax: number) {
    assert(bytesMax >= FRAME_BYTES_MAX, "any one frame fits an empty queue");
    this.#link = link;
    this.#bytesMax = bytesMax;
  }

  /** The bytes that wait. */
  get length(): number {
    return this.#length;
  }

  /**
   * Takes a frame, whose data is copied.
   * @returns `too-large` when no frame may be of that size; `full` when too much waits already
   * @throws BrokenInvariant for a message that is not from and to the two ends, and for entries with gaps
   */
  push(frame: WireFrame): "ok" | "too-large" | "full" {
    assertOnLink(frame, this.#link);
    const room = roomFor(frame);
    if (room > FRAME_BYTES_MAX) return "too-large";
    if (this.#length + room > this.#bytesMax) return "full";
    let block = this.#blocks.at(-1);
    if (!block || block.end + room > block.bytes.length) {
      block = new Block(Math.max(BLOCK_BYTES, room));
      this.#blocks.push(block);
    }
    this.#length += block.frame(frame);
    return "ok";
  }

  /**
   * Gives the bytes to `write`, which says how many it took (as `Socket.write` does: fewer when it is full, -1 when it is
   * closed). @returns whether all of them are gone
   */
  drain(write: (bytes: Uint8Array<ArrayBuffer>, offset: number, length: number) => number): boolean {
    while (this.#length > 0) {
      const block = this.#blocks[0]!;
      const waiting = block.end - block.start;
      const taken = Math.max(0, write(block.bytes, block.start, waiting));
      block.start += taken;
      this.#length -= taken;
      if (taken < waiting) return false;
      if (this.#blocks.length === 1 && block.bytes.length === BLOCK_BYTES) block.start = block.end = 0;
      else this.#blocks.shift();
    }
    return true;
  }

  clear(): void {
    this.#blocks = [];
    this.#length = 0;
  }
}

/** One frame, alone. @throws BrokenInvariant when it is too large, and as `FrameQueue.push` */
export function encodeFrame(frame: WireFrame, link: Link): Uint8Array<ArrayBuffer> {
  assertOnLink(frame, link);
  const room = roomFor(frame);
  assert(room <= FRAME_BYTES_MAX, "a frame fits");
  const block = new Block(room);
  return block.bytes.subarray(0, block.frame(frame));
}

function assertOnLink(frame: WireFrame, { from, to }: Link): void {
  if (frame.type !== "raft") return;
  assert(frame.message.from === from && frame.message.to === to, "a message goes where it says");
}

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
