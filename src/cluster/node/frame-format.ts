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
import type { Message, PeerId } from "../raft/types.ts";
import { FRAME_BYTES_MAX, type Frame } from "./transport.ts";

export const FRAME_FORMAT_VERSION = 1;
export const FRAME_HEADER_BYTES = 12;
/** No frame is longer than this plus its data (entries with their headers, body, piece of a snapshot and its lists). */
export const FRAME_OVERHEAD_BYTES = 64;
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

export const TYPE = {
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

export const U32 = 2 ** 32;
export const ENTRY_HEADER_BYTES = 12;
/** One write to a socket takes a block; most turns of the event loop fill less than one. */
export const BLOCK_BYTES = 256 * 1024;

export const isPeerId = (id: string): boolean => id.length >= 1 && id.length <= PEER_ID_LENGTH_MAX && id.isWellFormed();
