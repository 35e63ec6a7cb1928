/**
 * One node's end of the gossip: the core, its frames and its keys, without socket or clock. Whoever has those (`gossip-runtime.ts`,
 * or a simulator) passes datagrams and time in, and gets datagrams and events out.
 *
 * Inside each frame: u8 kind, u32 version and u32 digest of the sender's ring (its stamp), then
 *   message   what the core says (`gossip/codec.ts`); sealed with the ring's primary
 *   knock     str address, u8[16] challenge: tell me the ring; sealed with the key of the join secret
 *   ring      u8[16] the challenge that it answers, or zeros; the ring
 *
 * How a rotation reaches everybody, those included who were not there:
 *  - Every frame shows how new its sender's ring is. Who has a later one answers with it, under the key that the frame came
 *    under: that key is still in the ring, so its holders are trusted. A ring thus spreads with the probes, and a joiner that
 *    only has an older key of the ring gets in.
 *  - A frame under an unknown key, of this cluster by its tag, is answered with a knock. Either side may be the one behind: who is
 *    knocked at by somebody with a later ring knocks back. A joiner without any ring knocks at its seeds. Knocks are answered
 *    under the key of the join secret: it opens the way to every later ring.
 *  - A ring is never told under a ring key that it does not contain. Replacing a key that leaked tells its thief nothing.
 *  - A ring under the join secret has to answer a challenge of this process, or a recorded one could bring old keys back.
 */
import { hkdfSync } from "node:crypto";
import type { Log, Secret } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { ok, type Result } from "../../lib/result.ts";
import { below } from "../gossip/chance.ts";
import { isAddress } from "../gossip/check.ts";
import { decodeMessage, encodeMessage } from "../gossip/codec.ts";
import { deadline, type GossipState, initialState } from "../gossip/state.ts";
import { step } from "../gossip/step.ts";
import type { Address, GossipEvent, Incarnation, Input, Ms, NodeId, Options } from "../gossip/types.ts";
import { ENVELOPE_BYTES, type FrameKey, Frames, type Refusal } from "./gossip-frames.ts";
import { decodeRing, encodeRing, isLater, keyBytes, keyOf, type Ring, type Stamp, stampOf } from "./gossip-keyring.ts";

const KIND_MESSAGE = 0;
const KIND_KNOCK = 1;
const KIND_RING = 2;
const CHALLENGE_BYTES = 16;
const NO_CHALLENGE = new Uint8Array(CHALLENGE_BYTES);
/** Challenges that may still be answered. */
const CHALLENGES_MAX = 8;
/** A second: rings told, and knocks sent in answer to what nobody can read. */
const RINGS_MAX = 20;
const KNOCKS_MAX = 4;
/** Without a ring, this many seeds are asked this often. */
const KNOCK_MS: Ms = 1000;
const KNOCK_SEEDS = 3;

export type EndpointOptions = {
  readonly clusterId: string;
  readonly id: NodeId;
  readonly address: Address;
  readonly incarnation: Incarnation;
  readonly facts: { readonly [name: string]: string };
  readonly seeds: readonly Address[];
  /** At least 16 characters that nobody can guess. Without it, a node needs a key of the ring, and `replaceKeys` parts the cluster. */
  readonly joinSecret: Secret | undefined;
  /** As last told by `ringChanged`; undefined on a node that has yet to join. */
  readonly ring: Ring | undefined;
  readonly options: Options;
  readonly random: Random;
  readonly log: Log;
  readonly now: Ms;
};

/** What an endpoint wants done. By then it is as it will be: these may call it back. */
export interface EndpointHost {
  send(to: Address, frame: Uint8Array): void;
  event(event: GossipEvent): void;
  /** To be kept, as secret as a key: the next start takes it. */
  ringChanged(ring: Ring): void;
  /** A datagram was dropped. `unreadable`: it opened, and holds no message. */
  refused(reason: Refusal | "unreadable"): void;
}

export class GossipEndpoint {
  #state: GossipState;
  #ring: Ring | undefined;
  #stamp: Stamp;
  #keys = new Map<string, FrameKey>();
  readonly #joinKey: FrameKey | undefined;
  readonly #frames: Frames;
  readonly #options: EndpointOptions;
  readonly #host: EndpointHost;
  #challenges: Uint8Array[] = [];
  #knockAt: Ms;
  #second = Number.NEGATIVE_INFINITY;
  #ringsTold = 0;
  #knocks = 0;

  constructor(options: EndpointOptions, host: EndpointHost) {
    this.#options = options;
    this.#host = host;
    this.#frames = new Frames(options.clusterId, options.random);
    this.#joinKey = options.joinSecret && joinKey(options.joinSecret, options.clusterId);
    this.#state = initialState(options, options.random);
    this.#stamp = stampOf(undefined);
    this.#knockAt = options.now;
    if (options.ring) this.#take(options.ring);
  }

  get state(): GossipState {
    return this.#state;
  }

  get ring(): Ring | undefined {
    return this.#ring;
  }

  /** When to `input` a tick at the latest. */
  deadline(): Ms {
    const at = deadline(this.#state);
    return this.#ring || !this.#joinKey ? at : Math.min(at, this.#knockAt);
  }

  input(input: Input, now: Ms): void {
    const { state, effects } = step(this.#state, input, now, this.#options.random);
    this.#state = state;
    for (const { to, message } of effects.send) this.#sealed(to, KIND_MESSAGE, encodeMessage(message), this.#primary());
    for (const event of effects.events) this.#host.event(event);
    if (!this.#ring && now >= this.#knockAt) this.#knockAtSeeds(now);
  }

  /** A datagram that came from `source`, which anybody can write on it: answers go elsewhere, but for knocks. */
  receive(frame: Uint8Array, source: Address, now: Ms): void {
    const opened = this.#frames.open(frame, (id) => (id === this.#joinKey?.id ? this.#joinKey : this.#keys.get(id)));
    if (!opened.ok) {
      this.#host.refused(opened.reason);
      if (opened.reason === "unknown-key" && isAddress(source)) this.#knock(source, now);
      return;
    }
    const { plaintext, keyId } = opened;
    const envelope = Buffer.from(plaintext.buffer, plaintext.byteOffset, plaintext.byteLength);
    const isRead = envelope.length >= ENVELOPE_BYTES && this.#read(envelope, keyId, now);
    if (!isRead) this.#host.refused("unreadable");
  }

  /** Makes another ring of this node's, which then spreads. Fails as the change does, or when there is no ring yet. */
  changeRing(change: (ring: Ring) => Result<Ring, string>): Result<Ring, string> {
    if (!this.#ring) return { ok: false, error: "this node has not joined the cluster yet" };
    const changed = change(this.#ring);
    if (!changed.ok || changed.value === this.#ring) return changed;
    this.#adopt(changed.value);
    return ok(changed.value);
  }

  #read(envelope: Buffer, keyId: string, now: Ms): boolean {
    const kind = envelope[0];
    const stamp = { version: envelope.readUInt32LE(1), digest: envelope.readUInt32LE(5) };
    const body = envelope.subarray(ENVELOPE_BYTES);
    const isUnderJoinKey = keyId === this.#joinKey?.id;
    if (kind === KIND_KNOCK) return isUnderJoinKey && this.#answerKnock(body, stamp, now);
    if (kind === KIND_RING) return this.#readRing(body, isUnderJoinKey, now);
    if (kind !== KIND_MESSAGE || isUnderJoinKey) return false;
    const message = decodeMessage(body);
    if (!message) return false;
    if (isLater(this.#stamp, stamp)) this.#tellRing(message.address, this.#keys.get(keyId), NO_CHALLENGE, now);
    this.input({ type: "message", message }, now);
    return true;
  }

  #answerKnock(body: Buffer, stamp: Stamp, now: Ms): boolean {
    const length = body[0] ?? 0;
    if (body.length !== 1 + length + CHALLENGE_BYTES) return false;
    const address = body.toString("latin1", 1, 1 + length);
    if (!isAddress(address)) return false;
    if (isLater(this.#stamp, stamp)) this.#tellRing(address, this.#joinKey, body.subarray(1 + length), now);
    else if (isLater(stamp, this.#stamp)) this.#knock(address, now);
    return true;
  }

  #readRing(body: Buffer, isUnderJoinKey: boolean, now: Ms): boolean {
    if (body.length < CHALLENGE_BYTES) return false;
    const challenge = body.subarray(0, CHALLENGE_BYTES);
    if (isUnderJoinKey && !this.#challenges.some((open) => challenge.equals(open))) return false;
    const ring = decodeRing(body.subarray(CHALLENGE_BYTES));
    if (!ring) return false;
    if (!isLater(stampOf(ring), this.#stamp)) return true;
    const isFirst = this.#ring === undefined;
    this.#adopt(ring);
    // What was sent so far, nobody could read.
    if (isFirst) this.input({ type: "join", seeds: this.#state.seeds }, now);
    return true;
  }

  #adopt(ring: Ring): void {
    this.#take(ring);
    const { version, primary } = ring;
    this.#options.log.info("gossip.ring", { version, primary, keys: ring.keys.map((key) => key.id) });
    this.#host.ringChanged(ring);
  }

  #take(ring: Ring): void {
    this.#ring = ring;
    this.#stamp = stampOf(ring);
    this.#keys = new Map(ring.keys.map((key) => [key.id, { id: key.id, bytes: keyBytes(key) }]));
  }

  #primary(): FrameKey | undefined {
    return this.#ring && this.#keys.get(this.#ring.primary);
  }

  /** Under a key of this ring, or the join secret's: never under one that the ring no longer has. */
  #tellRing(to: Address, key: FrameKey | undefined, challenge: Uint8Array, now: Ms): void {
    if (!this.#ring || !this.#isWithin("rings", now)) return;
    this.#sealed(to, KIND_RING, Buffer.concat([challenge, encodeRing(this.#ring)]), key);
  }

  #knock(to: Address, now: Ms): void {
    if (!this.#joinKey || !this.#isWithin("knocks", now)) return;
    const challenge = this.#options.random.bytes(CHALLENGE_BYTES);
    this.#challenges = [challenge, ...this.#challenges].slice(0, CHALLENGES_MAX);
    const { address } = this.#options;
    const body = Buffer.concat([Buffer.of(address.length), Buffer.from(address, "latin1"), challenge]);
    this.#sealed(to, KIND_KNOCK, body, this.#joinKey);
  }

  #knockAtSeeds(now: Ms): void {
    this.#knockAt = now + KNOCK_MS;
    const { seeds } = this.#state;
    const start = below(this.#options.random, Math.max(seeds.length, 1));
    for (let i = 0; i < Math.min(KNOCK_SEEDS, seeds.length); i++) this.#knock(seeds[(start + i) % seeds.length]!, now);
  }

  #sealed(to: Address, kind: number, body: Uint8Array, key: FrameKey | undefined): void {
    if (!key) return;
    const plaintext = Buffer.alloc(ENVELOPE_BYTES + body.length);
    plaintext[0] = kind;
    plaintext.writeUInt32LE(this.#stamp.version, 1);
    plaintext.writeUInt32LE(this.#stamp.digest, 5);
    plaintext.set(body, ENVELOPE_BYTES);
    this.#host.send(to, this.#frames.seal(key, plaintext));
  }

  #isWithin(what: "rings" | "knocks", now: Ms): boolean {
    if (now - this.#second >= 1000) {
      this.#second = now;
      this.#ringsTold = 0;
      this.#knocks = 0;
    }
    return what === "rings" ? this.#ringsTold++ < RINGS_MAX : this.#knocks++ < KNOCKS_MAX;
  }
}

/** The key that the join secret stands for. Derived without stretching: the secret is long, or it is none. */
function joinKey(secret: Secret, clusterId: string): FrameKey {
  const bytes = new Uint8Array(hkdfSync("sha256", secret.reveal(), "", `hive gossip join\0${clusterId}`, 32));
  return { id: keyOf(bytes).id, bytes };
}
