import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Configuration, Entry, MessageBody } from "../raft/types.ts";
import { BODY_BYTES_MAX, FRAME_FORMAT_VERSION, type WireFrame } from "./frame-format.ts";
import { FrameReader } from "./frame-reader.ts";
import { encodeFrame, FrameQueue } from "./frame-writer.ts";
import { FRAME_BYTES_MAX, SNAPSHOT_CHUNK_BYTES } from "./transport.ts";

const link = { from: "n1", to: "n2" };
const raft = (body: MessageBody, term = 7): WireFrame => ({ type: "raft", message: { ...link, term, ...body } });
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

// Every number that matters: small ones, those around 2^32, and the largest.
const number = fc.oneof(
  fc.maxSafeNat(),
  fc.constantFrom(0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER),
);
const id = fc.string({ unit: "binary", minLength: 1, maxLength: 64 }).filter((text) => text.length <= 64);
const data = fc.uint8Array({ maxLength: 400 });
const configuration: fc.Arbitrary<Configuration> = fc.record({
  voters: fc.array(id, { maxLength: 5 }),
  outgoing: fc.array(id, { maxLength: 5 }),
  learners: fc.array(id, { maxLength: 5 }),
  joining: fc.array(id, { maxLength: 5 }),
});
const append = fc
  .record({
    prevIndex: fc.oneof(fc.nat(), fc.constantFrom(0, 2 ** 32 - 2, Number.MAX_SAFE_INTEGER - 8)),
    prevTerm: number,
    commit: number,
    round: number,
    entries: fc.array(fc.record({ term: number, data }), { maxLength: 8 }),
  })
  .map(({ prevIndex, entries, ...rest }) => ({
    ...rest,
    type: "append" as const,
    prevIndex,
    entries: entries.map((entry, at): Entry => ({ index: prevIndex + 1 + at, ...entry })),
  }));
const body: fc.Arbitrary<MessageBody> = fc.oneof(
  fc.record({ type: fc.constant("pre-vote" as const), lastIndex: number, lastTerm: number }),
  fc.record({ type: fc.constant("pre-vote-reply" as const), granted: fc.boolean() }),
  fc.record({ type: fc.constant("vote" as const), lastIndex: number, lastTerm: number, transfer: fc.boolean() }),
  fc.record({ type: fc.constant("vote-reply" as const), granted: fc.boolean() }),
  append,
  fc.record({ type: fc.constant("append-reply" as const), match: number, round: number }),
  fc.record({
    type: fc.constant("append-refused" as const),
    prevIndex: number,
    hintIndex: number,
    hintTerm: number,
    round: number,
  }),
  fc.record({ type: fc.constant("timeout-now" as const) }),
  fc.record({ type: fc.constant("read" as const), id: number }),
  fc.record({
    type: fc.constant("read-reply" as const),
    id: number,
    index: fc.option(number, { nil: undefined }),
  }),
);
const frame: fc.Arbitrary<WireFrame> = fc.oneof(
  { weight: 10, arbitrary: fc.tuple(body, number).map(([message, term]) => raft(message, term)) },
  fc.record({
    type: fc.constant("snapshot-chunk" as const),
    term: number,
    point: fc.record({ index: number, term: number, configuration }),
    offset: number,
    total: number,
    crc: fc.nat(0xffffffff),
    bytes: data,
  }),
  fc.record({
    type: fc.constant("snapshot-ack" as const),
    term: number,
    index: number,
    offset: number,
    done: fc.boolean(),
  }),
  fc.record({ type: fc.constantFrom("request" as const, "response" as const), id: number, body: data }),
  fc.record({ type: fc.constantFrom("ping" as const, "pong" as const), number }),
);

/** Cuts bytes at the given places. */
function cut(stream: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [...new Set(places.map((place) => place % (stream.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((from, which) => stream.slice(from, at[which] ?? stream.length));
}

function readAll(chunks: readonly Uint8Array[]) {
  const reader = new FrameReader(link);
  const frames: WireFrame[] = [];
  let skipped = 0;
  for (const chunk of chunks) {
    const reading = reader.read(chunk);
    frames.push(...reading.frames);
    skipped += reading.skipped;
    if (reading.refusal) return { frames, skipped, refusal: reading.refusal };
  }
  return { frames, skipped, refusal: undefined };
}

const encodeAll = (frames: readonly WireFrame[]): Uint8Array<ArrayBuffer> =>
  new Uint8Array(Buffer.concat(frames.map((one) => encodeFrame(one, link))));

/** Bytes with another CRC over them, as a defect or an ill-meaning member would send them. */
function sealed(encoded: Uint8Array, change: (view: DataView) => void): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(encoded);
  const view = new DataView(copy.buffer);
  change(view);
  view.setUint32(0, Bun.hash.crc32(copy.subarray(4)), true);
  return copy;
}

test("every frame comes back as it was, however the stream is cut", () => {
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 6 }), fc.array(fc.nat(), { maxLength: 12 }), (frames, places) => {
      expect(readAll(cut(encodeAll(frames), places))).toEqual({ frames, skipped: 0, refusal: undefined });
    }),
    { numRuns: 500 },
  );
});

test("a queue gives the bytes that single encodings give, however little the socket takes at a time", () => {
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 6 }), fc.infiniteStream(fc.nat(90)), (frames, takes) => {
      const queue = new FrameQueue(link, FRAME_BYTES_MAX);
      const taken: Uint8Array[] = [];
      const drain = () => {
        queue.drain((from, offset, length) => {
          const count = Math.min(length, takes.next().value);
          taken.push(from.slice(offset, offset + count));
          return count;
        });
      };
      for (const one of frames) {
        expect(queue.push(one)).toBe("ok");
        drain();
      }
      while (queue.length > 0) drain();
      expect(new Uint8Array(Buffer.concat(taken))).toEqual(encodeAll(frames));
    }),
  );
});

test("frames that fill many blocks come out whole and in order", () => {
  const queue = new FrameQueue(link, 4 * FRAME_BYTES_MAX);
  const frames = [100, 200_000, 300_000, 5, 1_000_000, 0, 250_000].map((length, at) => ({
    type: "request" as const,
    id: at,
    body: new Uint8Array(length).fill(at),
  }));
  const reader = new FrameReader(link);
  const got: WireFrame[] = [];
  for (let round = 0; round < 3; round++) {
    for (const one of frames) queue.push(one);
    const isEmpty = queue.drain((from, offset, length) => {
      got.push(...reader.read(from.slice(offset, offset + length)).frames);
      return length;
    });
    expect(isEmpty).toBe(true);
    expect(queue.length).toBe(0);
  }
  expect(got).toEqual([...frames, ...frames, ...frames]);
});

test("a format that is written down stays: version 1, byte by byte", () => {
  const vote = raft({ type: "vote", lastIndex: 0x1_0000_0002, lastTerm: 3, transfer: true }, 4);
  expect(Buffer.from(encodeFrame(vote, link)).toString("hex")).toBe(
    "e989f749 18000000 01 03 01 00 0400000000000000 0200000001000000 0300000000000000".replaceAll(" ", ""),
  );
  const entries = [{ index: 6, term: 2, data: bytes("ab") }];
  const one = raft({ type: "append", prevIndex: 5, prevTerm: 1, commit: 4, round: 9, entries }, 2);
  expect(Buffer.from(encodeFrame(one, link)).toString("hex").slice(8)).toBe(
    (
      "3a000000 01 05 00 00 0200000000000000 0500000000000000 0100000000000000 0400000000000000 0900000000000000" +
      "01000000 0200000000000000 02000000 6162"
    ).replaceAll(" ", ""),
  );
});

test("any bytes whatever are read without a throw", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (chunks) => {
      readAll(chunks);
    }),
    { numRuns: 2000 },
  );
});

test("any payload under a right CRC gives a frame, an unknown kind, or `malformed`", () => {
  const types = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 18, 19, 32, 33];
  const small = fc.constantFrom(0, 0, 0, 1, 2, 255);
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 120 }),
    fc.array(small, { maxLength: 120 }).map((list) => new Uint8Array(list)),
  );
  fc.assert(
    fc.property(fc.constantFrom(...types), fc.nat(2), fc.nat(1), payload, (type, flag, zero, payload) => {
      const encoded = sealed(new Uint8Array(12 + payload.length), (view) => {
        view.setUint32(4, payload.length, true);
        view.setUint8(8, 1);
        view.setUint8(9, type);
        view.setUint8(10, flag);
        view.setUint8(11, zero);
        new Uint8Array(view.buffer).set(payload, 12);
      });
      const { frames, refusal } = readAll([encoded]);
      expect(refusal === "malformed" ? 0 : 1).toBe(frames.length);
      // What is taken for a frame is one: it encodes to the very bytes (but for a flag that its type does not use).
      if (frames[0] && flag === 0) expect(encodeFrame(frames[0], link)).toEqual(encoded);
    }),
    { numRuns: 5000 },
  );
});

test("a frame with any one bit flipped is refused, or waits for bytes that do not come", () => {
  const encoded = encodeFrame(
    raft({
      type: "append",
      prevIndex: 5,
      prevTerm: 1,
      commit: 4,
      round: 9,
      entries: [{ index: 6, term: 2, data: bytes("entry") }],
    }),
    link,
  );
  for (let bit = 0; bit < encoded.length * 8; bit++) {
    const damaged = new Uint8Array(encoded);
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    const { frames, skipped, refusal } = readAll([damaged]);
    expect({ frames, skipped }).toEqual({ frames: [], skipped: 0 });
    const inLength = bit >= 32 && bit < 64;
    if (!inLength) expect(refusal).toBe("damaged");
  }
});

test("frames before a damaged one count, those after it do not", () => {
  const good: WireFrame = { type: "ping", number: 1 };
  const bad = encodeFrame(good, link).slice();
  bad[12]! ^= 1;
  const stream = Buffer.concat([encodeFrame(good, link), bad, encodeFrame(good, link)]);
  expect(readAll([new Uint8Array(stream)])).toEqual({ frames: [good], skipped: 0, refusal: "damaged" });
});

test("a frame of a kind or format that is not known is stepped over, and named", () => {
  const ping: WireFrame = { type: "ping", number: 1 };
  const encoded = encodeFrame(ping, link);
  const newKind = sealed(encoded, (view) => view.setUint8(9, 77));
  const newFormat = sealed(encoded, (view) => view.setUint8(8, FRAME_FORMAT_VERSION + 1));
  const stream = new Uint8Array(Buffer.concat([newKind, encoded, newFormat, encoded]));
  expect(new FrameReader(link).read(stream)).toEqual({
    frames: [ping, ping],
    skipped: 2,
    lastSkipped: "type 32 of format 2",
    refusal: undefined,
  });
  expect(new FrameReader(link).read(newKind).lastSkipped).toBe("type 77 of format 1");
});

test.each<[string, (view: DataView) => void]>([
  ["of no version", (view) => view.setUint8(8, 0)],
  ["with a flag that is neither 0 nor 1", (view) => view.setUint8(10, 2)],
  ["with something in the zero", (view) => view.setUint8(11, 1)],
  ["with a number of 2^53", (view) => view.setUint32(16, 0x20_0000, true)],
  ["of another type, for which it is too short", (view) => view.setUint8(9, 1)],
  ["of another type, for which it is too long", (view) => view.setUint8(9, 8)],
])("a frame %s is malformed", (_, change) => {
  const encoded = encodeFrame(raft({ type: "read", id: 3 }), link);
  expect(readAll([sealed(new Uint8Array(encoded), change)]).refusal).toBe("malformed");
});

test("counts that promise more than is there are refused before anything is made for them", () => {
  const append = encodeFrame(
    raft({ type: "append", prevIndex: 1, prevTerm: 1, commit: 1, round: 1, entries: [] }),
    link,
  );
  const many = sealed(new Uint8Array(append), (view) => view.setUint32(52, 0xffffffff, true));
  expect(readAll([many]).refusal).toBe("malformed");
  // An entry whose data would end behind the frame.
  const entries = [{ index: 2, term: 1, data: bytes("x") }];
  const one = encodeFrame(raft({ type: "append", prevIndex: 1, prevTerm: 1, commit: 1, round: 1, entries }), link);
  expect(readAll([sealed(new Uint8Array(one), (view) => view.setUint32(64, 2, true))]).refusal).toBe("malformed");
});

test("entries whose indexes would leave 2^53 are malformed", () => {
  const entries = [1, 2, 3].map((index) => ({ index, term: 1, data: bytes("") }));
  const encoded = encodeFrame(raft({ type: "append", prevIndex: 0, prevTerm: 1, commit: 1, round: 1, entries }), link);
  const beyond = sealed(new Uint8Array(encoded), (view) => {
    view.setUint32(20, 0xffffffff, true);
    view.setUint32(24, 0x1fffff, true);
  });
  expect(readAll([beyond]).refusal).toBe("malformed");
});

test("a length beyond the bound is refused from the header alone", () => {
  const header = new Uint8Array(12);
  new DataView(header.buffer).setUint32(4, FRAME_BYTES_MAX - 11, true);
  expect(readAll([header]).refusal).toBe("oversized");
  new DataView(header.buffer).setUint32(4, FRAME_BYTES_MAX - 12, true);
  expect(readAll([header]).refusal).toBeUndefined();
});

test("a header that promises much makes no memory for it", () => {
  const header = new Uint8Array(12);
  new DataView(header.buffer).setUint32(4, FRAME_BYTES_MAX - 12, true);
  const before = process.memoryUsage().external;
  const readers = Array.from({ length: 64 }, () => new FrameReader(link));
  for (const reader of readers) reader.read(header);
  expect(process.memoryUsage().external - before).toBeLessThan(FRAME_BYTES_MAX);
});

test("the largest body fits, one byte more does not", () => {
  const queue = new FrameQueue(link, FRAME_BYTES_MAX);
  const largest: WireFrame = { type: "request", id: 1, body: new Uint8Array(BODY_BYTES_MAX).fill(7) };
  expect(queue.push({ ...largest, body: new Uint8Array(BODY_BYTES_MAX + 1) })).toBe("too-large");
  const encoded = encodeFrame(largest, link);
  const chunks = Array.from({ length: Math.ceil(encoded.length / 524288) }, (_, at) =>
    encoded.subarray(at * 524288, (at + 1) * 524288),
  );
  const { frames } = readAll(chunks);
  expect(frames.length).toBe(1);
  const [frame] = frames;
  expect(frame?.type === "request" && Buffer.compare(frame.body, largest.body)).toBe(0);
});

test("a queue takes no more than its bound, and takes again once something is gone", () => {
  const queue = new FrameQueue(link, FRAME_BYTES_MAX);
  const chunk: WireFrame = { type: "request", id: 1, body: new Uint8Array(SNAPSHOT_CHUNK_BYTES) };
  let count = 0;
  while (queue.push(chunk) === "ok") count++;
  expect(count).toBe(FRAME_BYTES_MAX / SNAPSHOT_CHUNK_BYTES - 1);
  expect(queue.length).toBeLessThanOrEqual(FRAME_BYTES_MAX);
  let writes = 0;
  expect(queue.drain((_bytes, _offset, length) => (writes++ === 0 ? length : -1))).toBe(false);
  expect(queue.push(chunk)).toBe("ok");
  expect(queue.push(chunk)).toBe("full");
});

test("data in frames shares no memory with the chunks", () => {
  const entries = [{ index: 2, term: 1, data: bytes("0123456789") }];
  const stream = encodeAll([
    raft({ type: "append", prevIndex: 1, prevTerm: 1, commit: 1, round: 1, entries }),
    { type: "request", id: 1, body: bytes("body") },
  ]);
  const { frames } = readAll([Buffer.from(stream.buffer)]); // a Buffer's slices are views
  const copies = structuredClone(frames);
  stream.fill(0xee);
  expect(frames).toEqual(copies);
  const [append] = frames;
  const kept = append?.type === "raft" && append.message.type === "append" ? append.message.entries[0] : undefined;
  expect(kept?.data.buffer.byteLength).toBe(10);
});

test("what is pushed may be changed afterwards", () => {
  const queue = new FrameQueue(link, FRAME_BYTES_MAX);
  const request = { type: "request" as const, id: 1, body: bytes("as it was") };
  queue.push(request);
  request.body.fill(0);
  let sent = new Uint8Array(0);
  queue.drain((from, offset, length) => {
    sent = from.slice(offset, offset + length);
    return length;
  });
  expect(readAll([sent]).frames).toEqual([{ ...request, body: bytes("as it was") }]);
});

test("a defect in one frame does not spoil the stream", () => {
  const queue = new FrameQueue(link, FRAME_BYTES_MAX);
  const ping: WireFrame = { type: "ping", number: 1 };
  queue.push(ping);
  const gap = [{ index: 3, term: 1, data: bytes("") }];
  expect(() =>
    queue.push(raft({ type: "append", prevIndex: 1, prevTerm: 1, commit: 1, round: 1, entries: gap })),
  ).toThrow("follow its previous index");
  expect(() => queue.push(raft({ type: "read", id: 0.5 }))).toThrow("53 bits");
  expect(() => queue.push({ type: "raft", message: { type: "timeout-now", from: "n3", to: "n2", term: 1 } })).toThrow(
    "goes where it says",
  );
  queue.push(ping);
  let sent = new Uint8Array(0);
  queue.drain((from, offset, length) => {
    sent = from.slice(offset, offset + length);
    return length;
  });
  expect(readAll([sent])).toEqual({ frames: [ping, ping], skipped: 0, refusal: undefined });
});
