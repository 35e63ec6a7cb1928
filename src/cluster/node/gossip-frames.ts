/**
 * Gossip on the wire: every datagram is one frame, sealed with AES-256-GCM. Big enough for a message, small enough for one packet.
 *
 *   0   u8 format version, 1       1  three zeros
 *   4   u8[4] tag of the cluster: the start of SHA-256 of its id
 *   8   u8[4] id of the key        12 u8[16] session       28 u48 number of the frame in its session, from 1
 *   34  two zeros                  36 ciphertext           -16 authentication tag
 *
 * A session is one life of one process: 16 random bytes. The key that seals is derived (HKDF-SHA-256) from the ring's key, the
 * session and the cluster's id, so the number of the frame can be the nonce: no two lives share a key, and the 2^32 frames
 * that random nonces would allow for one key are no bound. The head is authenticated with the rest.
 *
 * Replays: a receiver keeps, for each of the SESSIONS_MAX sessions it heard of last, which of the newest WINDOW_FRAMES numbers it
 * has seen, and refuses those and all older ones (as RFC 4303 does, section 3.4.3). Not covered: a frame of a session that this
 * receiver does not know, because it has itself restarted or was never sent anything of it. All such a frame can do is say again
 * what was true once: incarnations and versions make old news lose against new, acks need a sequence number of this life,
 * answers go to the address inside the frame and not to where it came from, and rings need the answer to a question.
 */
import { createCipheriv, createDecipheriv, createHash, hkdfSync } from "node:crypto";
import { assert } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import { MESSAGE_BYTES_MAX } from "../gossip/types.ts";

export const FRAME_FORMAT_VERSION = 1;
export const HEAD_BYTES = 36;
const TAG_BYTES = 16;
/** What sealing adds. */
export const SEAL_BYTES = HEAD_BYTES + TAG_BYTES;
/** Kind and ring, in front of a message: see `gossip-endpoint.ts`. */
export const ENVELOPE_BYTES = 9;
export const FRAME_BYTES_MAX = SEAL_BYTES + ENVELOPE_BYTES + MESSAGE_BYTES_MAX;
assert(FRAME_BYTES_MAX <= 1400, "a frame fits into a packet, tunnelled too");

const SESSIONS_MAX = 4096;
const WINDOW_FRAMES = 1024;

/** A key as frames use it. */
export type FrameKey = { readonly id: string; readonly bytes: Uint8Array };

export type Refusal = "oversized" | "malformed" | "version" | "foreign" | "unknown-key" | "forged" | "replayed";

export type Opened =
  | { readonly ok: true; readonly plaintext: Uint8Array; readonly keyId: string }
  | { readonly ok: false; readonly reason: Refusal };

type Session = {
  /** By key id: what this session's frames under that ring key are sealed with. */
  readonly keys: Map<string, Uint8Array>;
  readonly seen: Window;
};

/** Seals what one process sends, and opens what it receives. */
export class Frames {
  readonly #clusterId: Uint8Array;
  readonly #clusterTag: Buffer;
  readonly #session: Uint8Array;
  readonly #own = new Map<string, Uint8Array>();
  #sent = 0;
  /** In order of use, the longest unused first. */
  readonly #sessions = new Map<string, Session>();

  constructor(clusterId: string, random: Random) {
    this.#clusterId = new TextEncoder().encode(clusterId);
    this.#clusterTag = createHash("sha256").update(this.#clusterId).digest().subarray(0, 4);
    this.#session = random.bytes(16);
  }

  seal(key: FrameKey, plaintext: Uint8Array): Uint8Array {
    assert(plaintext.length + SEAL_BYTES <= FRAME_BYTES_MAX, "what is sealed fits into a frame");
    let sessionKey = this.#own.get(key.id);
    if (!sessionKey) {
      sessionKey = this.#derive(key.bytes, this.#session);
      this.#own.set(key.id, sessionKey);
    }
    const head = Buffer.alloc(HEAD_BYTES);
    head[0] = FRAME_FORMAT_VERSION;
    this.#clusterTag.copy(head, 4);
    head.write(key.id, 8, "hex");
    head.set(this.#session, 12);
    head.writeUIntLE(++this.#sent, 28, 6);
    const cipher = createCipheriv("aes-256-gcm", sessionKey, nonceOf(head));
    cipher.setAAD(head);
    return Buffer.concat([head, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  }

  /** Opens a datagram of any origin. `keyById` has the keys that this process accepts. Never throws. */
  open(frame: Uint8Array, keyById: (id: string) => FrameKey | undefined): Opened {
    if (frame.length > FRAME_BYTES_MAX) return refused("oversized");
    if (frame.length < SEAL_BYTES) return refused("malformed");
    if (frame[0] !== FRAME_FORMAT_VERSION) return refused("version");
    const bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
    const head = bytes.subarray(0, HEAD_BYTES);
    if (this.#clusterTag.compare(head, 4, 8) !== 0) return refused("foreign");
    const keyId = head.toString("hex", 8, 12);
    const key = keyById(keyId);
    if (!key) return refused("unknown-key");
    const sessionId = head.subarray(12, 28);
    if (sessionId.equals(this.#session)) return refused("replayed");

    const name = sessionId.toString("latin1");
    const number = head.readUIntLE(28, 6);
    const known = this.#sessions.get(name);
    if (known?.seen.has(number)) return refused("replayed");
    const sessionKey = known?.keys.get(keyId) ?? this.#derive(key.bytes, sessionId);
    const plaintext = decrypt(bytes, head, sessionKey);
    if (!plaintext) return refused("forged");

    // Only now is there somebody to remember.
    const session = known ?? { keys: new Map(), seen: new Window() };
    if (!session.keys.has(keyId)) {
      if (session.keys.size >= SESSION_KEYS_MAX) session.keys.clear();
      session.keys.set(keyId, sessionKey);
    }
    session.seen.add(number);
    this.#sessions.delete(name);
    this.#sessions.set(name, session);
    if (this.#sessions.size > SESSIONS_MAX) this.#sessions.delete(this.#sessions.keys().next().value!);
    return { ok: true, plaintext, keyId };
  }

  #derive(key: Uint8Array, session: Uint8Array): Uint8Array {
    const info = Buffer.concat([Buffer.from(`hive gossip frame ${FRAME_FORMAT_VERSION}\0`), this.#clusterId]);
    return new Uint8Array(hkdfSync("sha256", key, session, info, 32));
  }
}

/** More keys than a ring holds, and the join secret's. */
const SESSION_KEYS_MAX = 16;

const refused = (reason: Refusal): Opened => ({ ok: false, reason });

const nonceOf = (head: Buffer): Buffer => Buffer.concat([Buffer.alloc(6), head.subarray(28, 34)]);

function decrypt(frame: Buffer, head: Buffer, key: Uint8Array): Uint8Array | undefined {
  const decipher = createDecipheriv("aes-256-gcm", key, nonceOf(head));
  decipher.setAAD(head);
  decipher.setAuthTag(frame.subarray(frame.length - TAG_BYTES));
  const plaintext = decipher.update(frame.subarray(HEAD_BYTES, frame.length - TAG_BYTES));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return plaintext;
}

/** Which of the newest numbers of a session were seen. */
export class Window {
  #newest = 0;
  readonly #bits = new Uint32Array(WINDOW_FRAMES / 32);

  /** Also true for numbers that are too old to tell, and for 0, which no frame has. */
  has(number: number): boolean {
    if (number > this.#newest) return false;
    if (number === 0 || number <= this.#newest - WINDOW_FRAMES) return true;
    const bit = number % WINDOW_FRAMES;
    return (this.#bits[bit >> 5]! & (1 << (bit & 31))) !== 0;
  }

  add(number: number): void {
    const from = Math.max(this.#newest + 1, number - WINDOW_FRAMES + 1);
    for (let i = from; i <= number; i++) this.#set(i, false);
    this.#newest = Math.max(this.#newest, number);
    this.#set(number, true);
  }

  #set(number: number, isSeen: boolean): void {
    const bit = number % WINDOW_FRAMES;
    const mask = 1 << (bit & 31);
    this.#bits[bit >> 5] = isSeen ? this.#bits[bit >> 5]! | mask : this.#bits[bit >> 5]! & ~mask;
  }
}
