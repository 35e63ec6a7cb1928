import { expect, test } from "bun:test";
import { hkdfSync } from "node:crypto";
import { Secret, silentLog } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { ok } from "../../lib/result.ts";
import { encodeMessage } from "../gossip/codec.ts";
import { DEFAULT_OPTIONS, type Message } from "../gossip/types.ts";
import { GossipEndpoint } from "./gossip-endpoint.ts";
import { type FrameKey, Frames } from "./gossip-frames.ts";
import { encodeRing, installKey, keyBytes, keyOf, newKey, newRing, type Ring } from "./gossip-keyring.ts";

const CLUSTER = "cluster";
const secret = new Secret("a secret of some length, from a generator");
const random = seededRandom(1);
const first = newRing(random);
const second = (() => {
  const made = installKey(first, newKey(random));
  if (!made.ok) throw new Error(made.error);
  return made.value;
})();

/** An endpoint, what it sent, and what it refused. */
function endpoint(id: string, ring: Ring | undefined, seeds: string[] = []) {
  const sent: { to: string; frame: Uint8Array }[] = [];
  const refused: string[] = [];
  const made = new GossipEndpoint(
    {
      ...{ clusterId: CLUSTER, id, address: addressOf(id), incarnation: 1, facts: {}, seeds, joinSecret: secret, ring },
      ...{ options: DEFAULT_OPTIONS, random: seededRandom(id.length * 1000 + sessions++), log: silentLog, now: 0 },
    },
    {
      send: (to, frame) => void sent.push({ to, frame }),
      event() {},
      ringChanged() {},
      refused: (reason) => void refused.push(reason),
    },
  );
  return { endpoint: made, sent, refused };
}
let sessions = 0;
const addressOf = (id: string) => `10.0.0.${id.charCodeAt(0)}:7946`;
type End = ReturnType<typeof endpoint>;

/** Gives `to` whatever `from` has sent to it. */
function pass(from: End, to: End, id: string, now: number): Uint8Array[] {
  const frames = from.sent.splice(0).filter((sent) => sent.to === addressOf(id));
  for (const { frame } of frames) to.endpoint.receive(frame, "10.0.0.1:1", now);
  return frames.map(({ frame }) => frame);
}

const ringKey: FrameKey = { id: first.primary, bytes: keyBytes(first.keys[0]!) };
const joinBytes = new Uint8Array(hkdfSync("sha256", secret.reveal(), "", `hive gossip join\0${CLUSTER}`, 32));
const joinKey: FrameKey = { id: keyOf(joinBytes).id, bytes: joinBytes };

/** What a member could send that is not this program. */
const crafted = (key: FrameKey, kind: number, body: Uint8Array): Uint8Array =>
  new Frames(CLUSTER, seededRandom(5000 + sessions++)).seal(
    key,
    Buffer.concat([Buffer.of(kind), new Uint8Array(8), body]),
  );

const ping: Message = {
  ...{ type: "ping", seq: 1, to: "a", from: "b", address: addressOf("b"), incarnation: 1 },
  rumors: [],
};

test("a joiner knocks, is told the ring, and a recording of that is worth nothing to the next joiner", () => {
  const member = endpoint("m", second);
  const joiner = endpoint("j", undefined, [addressOf("m")]);
  joiner.endpoint.input({ type: "tick" }, 0);
  pass(joiner, member, "m", 0);
  const recorded = pass(member, joiner, "j", 1);
  expect(joiner.endpoint.ring).toEqual(second);

  const next = endpoint("j", undefined, [addressOf("m")]);
  next.endpoint.input({ type: "tick" }, 0);
  for (const frame of recorded) next.endpoint.receive(frame, addressOf("m"), 1);
  expect(next.endpoint.ring).toBeUndefined();
  expect(next.refused).toContain("unreadable");
});

test("a ring that is older than one's own is passed over, under whatever key it comes", () => {
  const node = endpoint("a", second);
  node.endpoint.receive(crafted(ringKey, 2, Buffer.concat([new Uint8Array(16), encodeRing(first)])), addressOf("b"), 0);
  expect(node.endpoint.ring).toEqual(second);
  const behind = endpoint("a", first);
  behind.endpoint.receive(
    crafted(ringKey, 2, Buffer.concat([new Uint8Array(16), encodeRing(second)])),
    addressOf("b"),
    0,
  );
  expect(behind.endpoint.ring).toEqual(second);
});

test("who sends under an older ring is told the later one under the key it used; who has the later is not", () => {
  const node = endpoint("a", second);
  const old = endpoint("b", first);
  node.endpoint.receive(crafted(ringKey, 0, encodeMessage(ping)), addressOf("b"), 0);
  pass(node, old, "b", 0);
  expect(old.endpoint.ring).toEqual(second);
  expect(old.refused).toEqual([]);
});

const unreadable: [string, Uint8Array][] = [
  ["a message under the join secret", crafted(joinKey, 0, encodeMessage(ping))],
  ["a knock under a key of the ring", crafted(ringKey, 1, Buffer.from(`\x0d${addressOf("b")}${"c".repeat(16)}`))],
  ["an unknown kind", crafted(ringKey, 3, new Uint8Array(20))],
  ["no message", crafted(ringKey, 0, new Uint8Array(20))],
  ["no ring", crafted(ringKey, 2, new Uint8Array(60))],
  ["a ring that is cut", crafted(ringKey, 2, new Uint8Array(3))],
  ["a knock that is cut", crafted(joinKey, 1, Buffer.from([13, 49]))],
  ["a knock from nowhere", crafted(joinKey, 1, Buffer.from(`\x03abc${"c".repeat(16)}`))],
  ["an empty frame", new Frames(CLUSTER, seededRandom(77)).seal(ringKey, new Uint8Array(0))],
];
test.each(unreadable)("%s is dropped and counted", (_, frame) => {
  const node = endpoint("a", first);
  node.endpoint.receive(frame, addressOf("b"), 0);
  expect(node.refused).toEqual(["unreadable"]);
  expect(node.sent).toEqual([]);
});

test("a flood under an unknown key is answered with a few knocks a second, smaller than what was sent", () => {
  const node = endpoint("a", first);
  const stranger = newKey(random);
  const key = { id: stranger.id, bytes: keyBytes(stranger) };
  for (let i = 0; i < 1000; i++) node.endpoint.receive(crafted(key, 0, new Uint8Array(200)), "192.0.2.1:9", i);
  expect(node.sent.length).toBe(4);
  expect(node.sent.every(({ frame }) => frame.length < 200)).toBe(true);
});

test("a change that fails, or that changes nothing, leaves the ring as it is", () => {
  const node = endpoint("a", first);
  expect(node.endpoint.changeRing(() => ({ ok: false, error: "no" }))).toEqual({ ok: false, error: "no" });
  expect(node.endpoint.changeRing(ok)).toEqual(ok(first));
  expect(endpoint("b", undefined).endpoint.changeRing(ok).ok).toBe(false);
});
