/** Frames into bytes; how they look: `frame-format.ts`. */
import { assert, unreachable } from "../../lib/assert.ts";
import type { Configuration, Entry, Message, PeerId } from "../raft/types.ts";
import {
  BLOCK_BYTES,
  ENTRY_HEADER_BYTES,
  FRAME_FORMAT_VERSION,
  FRAME_HEADER_BYTES,
  FRAME_OVERHEAD_BYTES,
  isPeerId,
  type Link,
  TYPE,
  U32,
  type WireFrame,
} from "./frame-format.ts";
import { FRAME_BYTES_MAX } from "./transport.ts";

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
