/**
 * Messages as bytes. Numbers are little-endian; `str` is a u8 length and so many bytes of ASCII.
 *
 *   u8 type, in the order of TYPES    str from    str address    u48 incarnation
 *   ping            u32 seq, str to
 *   ack, nack       u32 seq
 *   ping-request    u32 seq, str target, str target's address
 *   sync            u32 hash
 *   digest          str after, str through, u8 count, count times: str id, u48 incarnation, u8 status, u32 facts' hash
 *   want            u8 count, count times: str id
 *   u8 count of rumours, each: u8 status in the order of STATUSES, str id, str address, u48 incarnation,
 *     suspect: u8 count, count times: str witness    dead, left: u32 age in seconds
 *     u8 count of facts, each: str name, u48 version, u16 length and so many bytes of UTF-8
 *
 * The version of this format is in the frame around it. `decodeMessage` takes bytes of any origin: whatever isn't exactly a
 * message within the limits of `types.ts` is undefined, and costs no more than its length.
 */
import { assert } from "../../lib/assert.ts";
import { isAddress, isName, utf8Length } from "./check.ts";
import {
  type DigestEntry,
  FACT_VALUE_BYTES_MAX,
  FACTS_MAX,
  type Fact,
  MESSAGE_BYTES_MAX,
  type Message,
  type MessageBody,
  RUMORS_MAX,
  type Rumor,
  STATUSES,
  type Status,
  WITNESSES_MAX,
} from "./types.ts";

const TYPES = ["ping", "ack", "ping-request", "nack", "gossip", "sync", "digest", "want", "records"] as const;

/** Bytes of the message without rumours, their count included. */
export function bodyBytes(message: MessageBody & { readonly from: string; readonly address: string }): number {
  const head = 1 + 1 + message.from.length + 1 + message.address.length + 6 + 1;
  switch (message.type) {
    case "ping":
      return head + 4 + 1 + message.to.length;
    case "ack":
    case "nack":
    case "sync":
      return head + 4;
    case "ping-request":
      return head + 4 + 1 + message.target.length + 1 + message.targetAddress.length;
    case "digest": {
      let sum = head + 1 + message.after.length + 1 + message.through.length + 1;
      for (const entry of message.entries) sum += digestEntryBytes(entry);
      return sum;
    }
    case "want":
      return message.ids.reduce((sum, id) => sum + 1 + id.length, head + 1);
    case "gossip":
    case "records":
      return head;
  }
}

export const digestEntryBytes = (entry: DigestEntry): number => 1 + entry.id.length + 6 + 1 + 4;

export function rumorBytes(rumor: Rumor): number {
  let sum = 1 + 1 + rumor.id.length + 1 + rumor.address.length + 6 + 1;
  if (rumor.status === "suspect") {
    sum += 1;
    for (const witness of rumor.witnesses) sum += 1 + witness.length;
  } else if (rumor.status !== "alive") sum += 4;
  for (const fact of rumor.facts) sum += factBytes(fact);
  return sum;
}

export const factBytes = (fact: Fact): number => 1 + fact.name.length + 6 + 2 + utf8Length(fact.value);

/** What `encodeMessage` will make of it. */
export function messageBytes(message: Message): number {
  let sum = bodyBytes(message);
  for (const rumor of message.rumors) sum += rumorBytes(rumor);
  return sum;
}

export function encodeMessage(message: Message): Uint8Array {
  const bytes = Buffer.allocUnsafe(messageBytes(message));
  assert(bytes.length <= MESSAGE_BYTES_MAX, "a message fits into a frame");
  let at = 0;
  const u8 = (value: number) => {
    at = bytes.writeUInt8(value, at);
  };
  const u32 = (value: number) => {
    at = bytes.writeUInt32LE(value, at);
  };
  const u48 = (value: number) => {
    at = bytes.writeUIntLE(value, at, 6);
  };
  const str = (text: string) => {
    u8(text.length);
    at += bytes.write(text, at, "latin1");
  };
  const fact = ({ name, version, value }: Fact) => {
    str(name);
    u48(version);
    const length = bytes.write(value, at + 2);
    bytes.writeUInt16LE(length, at);
    at += 2 + length;
  };
  const rumor = (told: Rumor) => {
    u8(STATUSES.indexOf(told.status));
    str(told.id);
    str(told.address);
    u48(told.incarnation);
    if (told.status === "suspect") {
      u8(told.witnesses.length);
      told.witnesses.forEach(str);
    } else if (told.status !== "alive") u32(told.ageSeconds);
    u8(told.facts.length);
    told.facts.forEach(fact);
  };

  u8(TYPES.indexOf(message.type));
  str(message.from);
  str(message.address);
  u48(message.incarnation);
  switch (message.type) {
    case "ping":
      u32(message.seq);
      str(message.to);
      break;
    case "ack":
    case "nack":
      u32(message.seq);
      break;
    case "ping-request":
      u32(message.seq);
      str(message.target);
      str(message.targetAddress);
      break;
    case "sync":
      u32(message.hash);
      break;
    case "digest":
      str(message.after);
      str(message.through);
      u8(message.entries.length);
      for (const entry of message.entries) {
        str(entry.id);
        u48(entry.incarnation);
        u8(STATUSES.indexOf(entry.status));
        u32(entry.factsHash);
      }
      break;
    case "want":
      u8(message.ids.length);
      message.ids.forEach(str);
      break;
  }
  u8(message.rumors.length);
  message.rumors.forEach(rumor);
  assert(at === bytes.length, "a message is as long as was computed");
  return bytes;
}

class Malformed extends Error {}

/** Reads a message, or says that it is none. Never throws. */
export function decodeMessage(input: Uint8Array): Message | undefined {
  if (input.length > MESSAGE_BYTES_MAX) return undefined;
  try {
    return decode(Buffer.from(input.buffer, input.byteOffset, input.byteLength));
  } catch (error) {
    if (error instanceof Malformed || error instanceof RangeError || error instanceof TypeError) return undefined;
    throw error;
  }
}

function decode(bytes: Buffer): Message {
  let at = 0;
  const refuse = (): never => {
    throw new Malformed();
  };
  const take = (count: number): number => {
    const from = at;
    at += count;
    return at > bytes.length ? refuse() : from;
  };
  const u8 = () => bytes[take(1)]!;
  const u32 = () => bytes.readUInt32LE(take(4));
  const u48 = () => bytes.readUIntLE(take(6), 6);
  const str = () => {
    const length = u8();
    return bytes.toString("latin1", take(length), at);
  };
  const name = () => {
    const text = str();
    return isName(text) ? text : refuse();
  };
  /** A name, or nothing: the ends of a range. */
  const bound = () => {
    const text = str();
    return text === "" || isName(text) ? text : refuse();
  };
  const address = () => {
    const text = str();
    return isAddress(text) ? text : refuse();
  };
  const status = (): Status => STATUSES[u8()] ?? refuse();
  const list = <T>(max: number, read: () => T): T[] => {
    const count = u8();
    if (count > max) refuse();
    const out: T[] = [];
    for (let i = 0; i < count; i++) out.push(read());
    return out;
  };
  const fact = (): Fact => {
    const label = name();
    const version = u48();
    const length = bytes.readUInt16LE(take(2));
    if (length > FACT_VALUE_BYTES_MAX) refuse();
    const value = bytes.toString("utf8", take(length), at);
    // What isn't UTF-8 would grow when it is passed on.
    return utf8Length(value) === length ? { name: label, version, value } : refuse();
  };
  const rumor = (): Rumor => {
    const held = status();
    return {
      status: held,
      id: name(),
      address: address(),
      incarnation: u48(),
      witnesses: held === "suspect" ? list(WITNESSES_MAX, name) : [],
      ageSeconds: held === "dead" || held === "left" ? u32() : 0,
      facts: list(FACTS_MAX, fact),
    };
  };
  const entry = (): DigestEntry => ({ id: name(), incarnation: u48(), status: status(), factsHash: u32() });
  const body = (type: MessageBody["type"]): MessageBody => {
    switch (type) {
      case "ping":
        return { type, seq: u32(), to: name() };
      case "ack":
      case "nack":
        return { type, seq: u32() };
      case "ping-request":
        return { type, seq: u32(), target: name(), targetAddress: address() };
      case "gossip":
      case "records":
        return { type };
      case "sync":
        return { type, hash: u32() };
      case "digest":
        return { type, after: bound(), through: bound(), entries: list(255, entry) };
      case "want":
        return { type, ids: list(255, name) };
    }
  };

  const type = TYPES[u8()] ?? refuse();
  const head = { from: name(), address: address(), incarnation: u48() };
  const message = { ...head, ...body(type), rumors: list(RUMORS_MAX, rumor) };
  return at === bytes.length ? message : refuse();
}
