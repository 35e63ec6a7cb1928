import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { seededRandom } from "../../lib/random.ts";
import { FRAME_BYTES_MAX, type FrameKey, Frames, HEAD_BYTES, SEAL_BYTES, Window } from "./gossip-frames.ts";

const key: FrameKey = { id: "0102fe03", bytes: new Uint8Array(32).fill(7) };
const other: FrameKey = { id: "aabbccdd", bytes: new Uint8Array(32).fill(8) };
const ring = (id: string) => [key, other].find((candidate) => candidate.id === id);
const frames = (seed: number, cluster = "one") => new Frames(cluster, seededRandom(seed));
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (of: string) => new TextEncoder().encode(of);

function outcome(receiver: Frames, frame: Uint8Array, keys = ring): string {
  const opened = receiver.open(frame, keys);
  return opened.ok ? text(opened.plaintext) : opened.reason;
}

test("what one seals, another opens, and knows under which key; nothing of it is readable on the way", () => {
  const [a, b] = [frames(1), frames(2)];
  const frame = a.seal(other, bytes("a secret"));
  expect(frame.length).toBe(SEAL_BYTES + 8);
  expect(Buffer.from(frame).includes("secret")).toBe(false);
  expect(b.open(frame, ring)).toMatchObject({ ok: true, keyId: "aabbccdd" });
  expect(outcome(b, a.seal(key, new Uint8Array(0)))).toBe("");
});

test("each life seals the same in another way", () => {
  const heads = new Set([1, 2, 3].map((seed) => Buffer.from(frames(seed).seal(key, bytes("same"))).toString("hex")));
  expect(heads.size).toBe(3);
});

const FRAME = frames(1).seal(key, bytes("hello"));
const changed = (at: number, by = 1): Uint8Array => {
  const copy = Uint8Array.from(FRAME);
  copy[at] = copy[at]! ^ by;
  return copy;
};
const refused: [string, Uint8Array, string][] = [
  ["nothing", new Uint8Array(0), "malformed"],
  ["a frame without a tag", FRAME.subarray(0, SEAL_BYTES - 1), "malformed"],
  ["a cut frame", FRAME.subarray(0, FRAME.length - 1), "forged"],
  ["a longer frame", Buffer.concat([FRAME, new Uint8Array(1)]), "forged"],
  ["too much", new Uint8Array(FRAME_BYTES_MAX + 1), "oversized"],
  ["a frame of another version", changed(0, 3), "version"],
  ["a frame of another cluster", frames(1, "two").seal(key, bytes("hello")), "foreign"],
  ["a frame under a key that is not in the ring", changed(8), "unknown-key"],
  [
    "a frame that names another key of the ring",
    Uint8Array.from(FRAME).with(8, 0xaa).with(9, 0xbb).with(10, 0xcc).with(11, 0xdd),
    "forged",
  ],
  ["another session", changed(12), "forged"],
  ["another number", changed(28), "forged"],
  ["another reserved byte", changed(1), "forged"],
  ["other ciphertext", changed(HEAD_BYTES), "forged"],
  ["another tag", changed(FRAME.length - 1), "forged"],
];
test.each(refused)("%s is refused", (_, frame, reason) => {
  const receiver = frames(9);
  expect(outcome(receiver, frame)).toBe(reason);
  // And does not stand in the way of the true one.
  expect(outcome(receiver, FRAME)).toBe("hello");
});

test("a frame is opened once; a node's own frames are not opened at all", () => {
  const [a, b] = [frames(1), frames(2)];
  const sent = ["x", "y", "z"].map((word) => a.seal(key, bytes(word)));
  expect([2, 0, 0, 1, 2].map((i) => outcome(b, sent[i]!))).toEqual(["z", "x", "replayed", "y", "replayed"]);
  expect(outcome(a, sent[0]!)).toBe("replayed");
});

test("numbers go on across keys: a frame can't be replayed after a rotation", () => {
  const [a, b] = [frames(1), frames(2)];
  const before = a.seal(key, bytes("old"));
  expect(outcome(b, before)).toBe("old");
  expect(outcome(b, a.seal(other, bytes("new")))).toBe("new");
  expect(outcome(b, before)).toBe("replayed");
});

test("the window knows the newest thousand numbers, and takes all before for seen", () => {
  const window = new Window();
  const seen = new Set<number>();
  expect(window.has(0)).toBe(true);
  let newest = 0;
  const random = seededRandom(5);
  for (let i = 0; i < 20_000; i++) {
    const draw = Buffer.from(random.bytes(4)).readUInt32LE(0);
    const jump = draw % 500 === 0 ? 5000 : draw % 4;
    const number = draw % 3 === 0 ? Math.max(1, newest - (draw % 1500)) : newest + jump;
    const expected = number === 0 || seen.has(number) || number <= newest - 1024;
    expect(window.has(number)).toBe(expected);
    if (expected) continue;
    window.add(number);
    seen.add(number);
    newest = Math.max(newest, number);
  }
});

test("sessions are remembered up to a bound: a flood of new ones does not grow without end", () => {
  const receiver = frames(1);
  const before = frames(2).seal(key, bytes("kept"));
  expect(outcome(receiver, before)).toBe("kept");
  for (let i = 0; i < 4095; i++) receiver.open(frames(100 + i).seal(key, bytes("x")), ring);
  expect(outcome(receiver, before)).toBe("replayed");
  for (let i = 0; i < 2; i++) receiver.open(frames(10_000 + i).seal(key, bytes("x")), ring);
  // Forgotten, and thus accepted again: the limit that the module's comment states.
  expect(outcome(receiver, before)).toBe("kept");
});

test("no datagram whatever makes it throw", () => {
  const receiver = frames(3);
  for (let i = 0; i < 3000; i++) {
    const noise = Uint8Array.from(randomBytes(i % 1500));
    // The more of a true head, the deeper it gets.
    noise.set(FRAME.subarray(0, Math.min((i * 7) % 40, noise.length)));
    expect(receiver.open(noise, ring).ok).toBe(false);
  }
});
