/**
 * How two nodes make sure of each other, before any frame is taken. Both know the cluster's secret and prove it, without
 * showing it, over numbers that neither could choose alone (challenge and response, as in RFC 2104's HMAC):
 *
 *   dialer                                                                  acceptor
 *     hello      versions, nonce, cluster, own id, id wanted       ──▶
 *                                             ◀──   challenge   version, nonce
 *     proof      HMAC(secret, "dialer" ‖ hello ‖ challenge)        ──▶
 *                                             ◀──   welcome     HMAC(secret, "acceptor" ‖ hello ‖ challenge)
 *     frames                                                       ──▶
 *
 * - The nonces are fresh on both sides: nothing recorded earlier proves anything now.
 * - The proofs say which way they go: what one side said can't be sent back to it.
 * - They cover hello and challenge whole: cluster, both ids and the versions can't be altered on the way, nor the
 *   conversation be led to another node or to an older version.
 * - The dialer proves itself first: a stranger gets nothing that is made with the secret, and hears who may take part
 *   only after its proof. A stranger that accepts gets one HMAC over its own nonce, of no use elsewhere; the secret
 *   is random bytes, so it can't be guessed from that either.
 *
 * What this gives is the authentication of a connection's opening. It does not encrypt, and does not protect the bytes that
 * follow against an attacker on the path, who may pass the handshake on and then read, alter or add frames. That takes
 * TLS around it, which is therefore required wherever the path leaves the host (see tcp-transport.ts). With TLS, the
 * handshake still says which member it is, and keeps out other clusters and machines whose certificate leaked.
 * All members hold the same secret: one that turned against the cluster can speak as any other.
 *
 * A message, numbers little-endian, at most HANDSHAKE_BYTES_MAX bytes:
 *   0   u8[8] magic "HIVENODE"      8   u16 length of what follows byte 11      10  u8 kind      11  u8 zero
 *   12  1 hello      u8 oldest and u8 newest version, u8[32] nonce, three texts: cluster id, own id, id wanted
 *                    (a text: u8 length, UTF-8)
 *       2 challenge  u8 version, u8[32] nonce
 *       3 proof      u8[32]          4 welcome  u8[32]
 *       5 refusal    u8 reason, its place in REFUSALS. From nobody in particular: believed by nobody, but good to log
 *
 * Hello and refusal stay as they are in all versions; what a newer one adds comes after the challenge.
 * Nobody speaks out of turn: bytes that come after a message, before its answer went out, are garbage.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { assert } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import type { PeerId } from "../raft/types.ts";
import { isPeerId } from "./frame-format.ts";

/** The versions of the protocol (handshake and frames) that this node speaks. */
export const VERSIONS: Versions = { oldest: 1, newest: 1 };
export type Versions = { readonly oldest: number; readonly newest: number };

export type Identity = {
  readonly id: PeerId;
  /** 1 to 64 characters. */
  readonly clusterId: string;
  /** At least SECRET_BYTES_MIN random bytes, the same on every node of the cluster and known to nobody else. */
  readonly secret: Uint8Array;
};
export const SECRET_BYTES_MIN = 16;

/** Why no connection came about. The order is that of the wire: only ever add at the end. */
export const REFUSALS = [
  /** Not this protocol at all, or a message out of turn. */
  "garbage",
  /** No version that both speak. */
  "version",
  /** Of another cluster. */
  "cluster",
  /** The dialer wanted another node: its address book is out of date. */
  "addressee",
  /** The proof was made with another secret, or over something else. */
  "proof",
  /** A member's secret, but an id that nobody admitted. */
  "stranger",
  /** Too many connections. */
  "full",
] as const;
export type Refusal = (typeof REFUSALS)[number];

export type Step =
  /** Send this, if given, and wait for more. */
  | { readonly state: "open"; readonly send?: Uint8Array<ArrayBuffer> }
  /** Send this, if given; then frames may follow. */
  | {
      readonly state: "done";
      readonly peer: PeerId;
      readonly version: number;
      readonly send?: Uint8Array<ArrayBuffer>;
    }
  /** Send this, if given, and close. `message` says more than `reason`; parts of it may be the peer's words. */
  | {
      readonly state: "refused";
      readonly reason: Refusal;
      readonly message: string;
      readonly send?: Uint8Array<ArrayBuffer>;
    };

/** One side of a handshake. */
export interface Handshake {
  /** Takes bytes that came. Not to be called after `done` or `refused`. */
  receive(chunk: Uint8Array): Step;
}

const MAGIC = Buffer.from("HIVENODE");
const HEADER_BYTES = 12;
const NONCE_BYTES = 32;
const PROOF_BYTES = 32;
export const HANDSHAKE_BYTES_MAX = 1024;

const HELLO = 1;
const CHALLENGE = 2;
const PROOF = 3;
const WELCOME = 4;
const REFUSAL = 5;

/** The side that connects. @returns the first message, and what takes the answers */
export function dial(
  self: Identity,
  peer: PeerId,
  random: Random,
  versions: Versions = VERSIONS,
): { readonly hello: Uint8Array<ArrayBuffer>; readonly handshake: Handshake } {
  assertIdentity(self);
  assert(isPeerId(peer), "a peer's id has 1 to 64 characters");
  const hello = encode(HELLO, [
    new Uint8Array([versions.oldest, versions.newest]),
    random.bytes(NONCE_BYTES),
    text(self.clusterId),
    text(self.id),
    text(peer),
  ]);
  let version = 0;
  let challenge: Uint8Array | undefined;

  const take = (message: Message): Step => {
    if (!challenge) {
      version = message.payload[0]!;
      if (version < versions.oldest || version > versions.newest) {
        return refuse("version", `the other side chose version ${version} of ${spoken(versions)}`);
      }
      challenge = message.whole;
      return { state: "open", send: encode(PROOF, [prove(self.secret, "dialer", hello, challenge)]) };
    }
    const isRight = timingSafeEqual(message.payload, prove(self.secret, "acceptor", hello, challenge));
    return isRight ? { state: "done", peer, version } : refuse("proof", "the other side has not the cluster's secret");
  };
  return { hello, handshake: conversation(() => (challenge ? WELCOME : CHALLENGE), take) };
}

/**
 * The side that is connected to.
 * @param admission whether a node that proved itself may take part; asked once, with its id, when all else is right
 */
export function accept(
  self: Identity,
  admission: (id: PeerId) => "stranger" | "full" | undefined,
  random: Random,
  versions: Versions = VERSIONS,
): Handshake {
  assertIdentity(self);
  let greeting: { readonly hello: Uint8Array; readonly peer: PeerId; readonly version: number } | undefined;
  let challenge = new Uint8Array(0);

  const takeHello = (message: Message): Step => {
    const hello = parseHello(message.payload);
    if (!hello) return refuse("garbage", "the hello is malformed");
    const version = Math.min(hello.versions.newest, versions.newest);
    if (version < Math.max(hello.versions.oldest, versions.oldest)) {
      return refuse(
        "version",
        `the other side speaks versions ${spoken(hello.versions)}, this one ${spoken(versions)}`,
      );
    }
    if (hello.clusterId !== self.clusterId) return refuse("cluster", `of the cluster ${hello.clusterId}`);
    if (hello.wanted !== self.id)
      return refuse("addressee", `${hello.id} wanted ${hello.wanted}, and this is ${self.id}`);
    greeting = { hello: message.whole, peer: hello.id, version };
    challenge = encode(CHALLENGE, [new Uint8Array([version]), random.bytes(NONCE_BYTES)]);
    return { state: "open", send: challenge };
  };

  const take = (message: Message): Step => {
    if (!greeting) return takeHello(message);
    const { hello, peer, version } = greeting;
    if (!timingSafeEqual(message.payload, prove(self.secret, "dialer", hello, challenge))) {
      return refuse("proof", `${peer} has not the cluster's secret`);
    }
    const refusal = admission(peer);
    if (refusal === "stranger") return refuse("stranger", `${peer} is no peer of this node`);
    if (refusal === "full") return refuse("full", `no room for ${peer}`);
    const send = encode(WELCOME, [prove(self.secret, "acceptor", hello, challenge)]);
    return { state: "done", peer, version, send };
  };
  return conversation(() => (greeting ? PROOF : HELLO), take);
}

function assertIdentity(self: Identity): void {
  assert(isPeerId(self.id) && isPeerId(self.clusterId), "ids have 1 to 64 characters");
  assert(self.secret.length >= SECRET_BYTES_MIN, "the secret can't be guessed");
}

const spoken = ({ oldest, newest }: Versions): string => `${oldest} to ${newest}`;

/** Both messages say how long they are and their parts too, so no other pair gives the same bytes. */
function prove(secret: Uint8Array, by: "dialer" | "acceptor", hello: Uint8Array, challenge: Uint8Array): Uint8Array {
  return createHmac("sha256", secret).update(`hive node ${by}\0`).update(hello).update(challenge).digest();
}

/** Garbage gets no answer: who sent it would not understand one. */
function refuse(reason: Refusal, message: string): Step {
  if (reason === "garbage") return { state: "refused", reason, message };
  const send = encode(REFUSAL, [new Uint8Array([REFUSALS.indexOf(reason)])]);
  return { state: "refused", reason, message, send };
}

type Message = { readonly payload: Uint8Array; readonly whole: Uint8Array };

/** The lengths that a payload may have. */
const PAYLOAD_BYTES: Record<number, { readonly min: number; readonly max: number }> = {
  [HELLO]: { min: 2 + NONCE_BYTES + 3, max: HANDSHAKE_BYTES_MAX - HEADER_BYTES },
  [CHALLENGE]: { min: 1 + NONCE_BYTES, max: 1 + NONCE_BYTES },
  [PROOF]: { min: PROOF_BYTES, max: PROOF_BYTES },
  [WELCOME]: { min: PROOF_BYTES, max: PROOF_BYTES },
  [REFUSAL]: { min: 1, max: 1 },
};

/** Gathers bytes until a message is whole, of the kind that `expected` says. Whoever spoke already may be refused. */
function conversation(expected: () => number, take: (message: Message) => Step): Handshake {
  let held = new Uint8Array(0);
  const garbage: Step = { state: "refused", reason: "garbage", message: "not a node of Hive, or out of turn" };
  return {
    receive(chunk) {
      if (held.length + chunk.length > HANDSHAKE_BYTES_MAX) return garbage;
      const bytes = new Uint8Array(held.length + chunk.length);
      bytes.set(held);
      bytes.set(chunk, held.length);
      held = bytes;
      for (let at = 0; at < Math.min(bytes.length, MAGIC.length); at++) if (bytes[at] !== MAGIC[at]) return garbage;
      if (bytes.length < HEADER_BYTES) return { state: "open" };
      const length = bytes[8]! | (bytes[9]! << 8);
      const kind = bytes[10]!;
      const bounds =
        kind === expected() || (kind === REFUSAL && expected() !== HELLO) ? PAYLOAD_BYTES[kind] : undefined;
      if (!bounds || length < bounds.min || length > bounds.max || bytes[11] !== 0) return garbage;
      if (bytes.length < HEADER_BYTES + length) return { state: "open" };
      if (bytes.length > HEADER_BYTES + length) return garbage;
      held = new Uint8Array(0);
      const payload = bytes.subarray(HEADER_BYTES);
      if (kind !== REFUSAL) return take({ payload, whole: bytes });
      const reason = REFUSALS[payload[0]!] ?? "garbage";
      return { state: "refused", reason, message: `the other side refused: ${reason}` };
    },
  };
}

function encode(kind: number, parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  assert(HEADER_BYTES + length <= HANDSHAKE_BYTES_MAX, "a handshake's messages are short");
  const bytes = new Uint8Array(HEADER_BYTES + length);
  bytes.set(MAGIC);
  bytes.set([length & 0xff, length >> 8, kind, 0], 8);
  let at = HEADER_BYTES;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function text(value: string): Uint8Array {
  const encoded = Buffer.from(value);
  return new Uint8Array([encoded.length, ...encoded]);
}

function parseHello(payload: Uint8Array) {
  const versions: Versions = { oldest: payload[0]!, newest: payload[1]! };
  const texts: string[] = [];
  let at = 2 + NONCE_BYTES;
  while (at < payload.length && texts.length < 3) {
    const end = at + 1 + payload[at]!;
    if (end > payload.length) return undefined;
    texts.push(Buffer.from(payload.subarray(at + 1, end)).toString());
    at = end;
  }
  const [clusterId, id, wanted] = texts;
  if (at !== payload.length || !clusterId || !id || !wanted || !texts.every(isPeerId)) return undefined;
  return { versions, clusterId, id, wanted };
}
