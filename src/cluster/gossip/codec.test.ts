import { expect, test } from "bun:test";
import fc from "fast-check";
import { decodeMessage, encodeMessage, messageBytes } from "./codec.ts";
import { MESSAGE_BYTES_MAX, type Message, type MessageBody, type Rumor, STATUSES } from "./types.ts";

const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
const address = fc.oneof(
  fc.tuple(fc.ipV4(), fc.integer({ min: 1, max: 65535 })).map(([ip, port]) => `${ip}:${port}`),
  fc.constant("[2001:db8::1]:7946"),
);
const u48 = fc.nat({ max: 2 ** 48 - 1 });
const u32 = fc.nat({ max: 2 ** 32 - 1 });
const status = fc.constantFrom(...STATUSES);
const fact = fc.record({
  name,
  version: u48,
  value: fc.string({ unit: "grapheme", maxLength: 20 }).map((text) => text.toWellFormed()),
});
const rumor: fc.Arbitrary<Rumor> = fc
  .record({
    id: name,
    address,
    incarnation: u48,
    status,
    witnesses: fc.array(name, { maxLength: 5 }),
    ageSeconds: u32,
    facts: fc.array(fact, { maxLength: 4 }),
  })
  .map((told) => ({
    ...told,
    witnesses: told.status === "suspect" ? told.witnesses : [],
    ageSeconds: told.status === "dead" || told.status === "left" ? told.ageSeconds : 0,
  }));
const entry = fc.record({ id: name, incarnation: u48, status, factsHash: u32 });
const body: fc.Arbitrary<MessageBody> = fc.oneof(
  fc.record({ type: fc.constant("ping"), seq: u32, to: name }),
  fc.record({ type: fc.constantFrom("ack", "nack"), seq: u32 }),
  fc.record({ type: fc.constant("ping-request"), seq: u32, target: name, targetAddress: address }),
  fc.record({ type: fc.constantFrom("gossip", "records") }),
  fc.record({ type: fc.constant("sync"), hash: u32 }),
  fc.record({
    type: fc.constant("digest"),
    after: fc.oneof(name, fc.constant("")),
    through: fc.oneof(name, fc.constant("")),
    entries: fc.array(entry, { maxLength: 10 }),
  }),
  fc.record({ type: fc.constant("want"), ids: fc.array(name, { maxLength: 10 }) }),
);
const message = fc
  .record({ from: name, address, incarnation: u48, body, rumors: fc.array(rumor, { maxLength: 3 }) })
  .map(({ body, ...head }): Message => ({ ...head, ...body }))
  .filter((made) => messageBytes(made) <= MESSAGE_BYTES_MAX);

test("a message comes out as it went in, and is as long as was said", () => {
  fc.assert(
    fc.property(message, (sent) => {
      const bytes = encodeMessage(sent);
      expect(bytes.length).toBe(messageBytes(sent));
      expect(decodeMessage(bytes)).toEqual(sent);
    }),
  );
});

test("a message that is cut, lengthened or changed is another message or none, and never an exception", () => {
  fc.assert(
    fc.property(message, fc.nat(), fc.integer({ min: 1, max: 255 }), (sent, where, flip) => {
      const bytes = encodeMessage(sent);
      const at = where % bytes.length;
      expect(decodeMessage(bytes.subarray(0, at))).toBeUndefined();
      expect(decodeMessage(Buffer.concat([bytes, new Uint8Array(1)]))).toBeUndefined();
      const changed = Uint8Array.from(bytes);
      changed[at] = changed[at]! ^ flip;
      const read = decodeMessage(changed);
      // Whatever was accepted can be passed on.
      if (read) expect(decodeMessage(encodeMessage(read))).toEqual(read);
    }),
    { numRuns: 500 },
  );
});

test("garbage of any length is no message, and never an exception", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => {
      const read = decodeMessage(bytes);
      if (read) expect(messageBytes(read)).toBe(bytes.length);
    }),
    { numRuns: 2000 },
  );
});

const ping: Message = {
  ...{ type: "ping", seq: 1, to: "b", from: "a", address: "10.0.0.1:1", incarnation: 1 },
  rumors: [],
};
const told: Rumor = {
  ...{ id: "b", address: "10.0.0.2:2", incarnation: 2, status: "alive", witnesses: [], ageSeconds: 0 },
  facts: [{ name: "zone", version: 3, value: "ab" }],
};
const refused: [string, (bytes: Buffer) => void][] = [
  ["an unknown type", (bytes) => bytes.writeUInt8(9, 0)],
  ["a name with a space", (bytes) => bytes.write(" ", 2)],
  ["an empty name", (bytes) => bytes.writeUInt8(0, 1)],
  ["an address without a number", (bytes) => bytes.write("x", bytes.indexOf("10.0.0.1"))],
  ["an unknown status", (bytes) => bytes.writeUInt8(4, bytes.indexOf("10.0.0.2") - 4)],
  ["a value that is no UTF-8", (bytes) => bytes.writeUInt8(0xff, bytes.length - 1)],
];
test.each(refused)("%s is refused", (_, spoil) => {
  const bytes = Buffer.from(encodeMessage({ ...ping, rumors: [told] }));
  expect(decodeMessage(bytes)).toBeDefined();
  spoil(bytes);
  expect(decodeMessage(bytes)).toBeUndefined();
});

test("the bytes of a ping are these: a change of the format needs a new version", () => {
  expect(Buffer.from(encodeMessage(ping)).toString("hex")).toBe(
    ["00", "0161", "0a31302e302e302e313a31", "010000000000", "01000000", "0162", "00"].join(""),
  );
});
