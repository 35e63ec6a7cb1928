/**
 * Loads an etcd with puts or linearizable gets and prints a JSON line of what it measured: gRPC, written straight onto
 * HTTP/2 frames. etcd's own ways in from JavaScript (its JSON gateway, the npm clients) cost more than etcd itself, and would
 * be a benchmark of them. One connection a client, one call at a time on each, as an SDK's user has it.
 *
 *   bun test/bench/etcd-load.ts put|get HOST:PORT CONNECTIONS SECONDS KEYS VALUE_BYTES WARM_UP_MS
 *
 * Frames after RFC 9113, header fields after RFC 7541 (literals, never indexed; a table of size 0 on both sides), messages
 * after gRPC's HTTP/2 protocol and etcd's rpc.proto.
 */
import type { Socket } from "bun";
import { loadReport } from "./load-report.ts";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const DATA = 0;
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const WINDOW_UPDATE = 8;
const END_STREAM = 1;
const ACK = 1;
const END_HEADERS = 4;
const WINDOW_BYTES = 2 ** 31 - 1;

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes.writeUInt8(type, 3);
  bytes.writeUInt8(flags, 4);
  bytes.writeUInt32BE(stream, 5);
  bytes.set(payload, 9);
  return bytes;
}

/** A literal field without indexing: its name by index in the static table, or spelt out. */
function field(name: number | string, value: string): Buffer {
  const head = typeof name === "number" ? integer(name, 4) : Buffer.concat([Buffer.of(0), text(name)]);
  return Buffer.concat([head, text(value)]);
}
const text = (value: string): Buffer => Buffer.concat([integer(value.length, 7), Buffer.from(value)]);
/** An integer with a prefix of `bits` bits, the rest of its first byte zero (RFC 7541, 5.1). */
function integer(value: number, bits: number): Buffer {
  const max = 2 ** bits - 1;
  if (value < max) return Buffer.of(value);
  const rest = [max];
  let left = value - max;
  for (; left >= 128; left >>= 7) rest.push((left & 127) | 128);
  return Buffer.from([...rest, left]);
}

const POST = Buffer.of(0x83);
const HTTP = Buffer.of(0x86);
const PATH = 4;
const AUTHORITY = 1;
const CONTENT_TYPE = 31;

function requestHeaders(path: string, authority: string): Buffer {
  return Buffer.concat([
    POST,
    HTTP,
    field(PATH, path),
    field(AUTHORITY, authority),
    field(CONTENT_TYPE, "application/grpc"),
    field("te", "trailers"),
  ]);
}

/** A protobuf field of bytes. */
function bytesField(number: number, value: Uint8Array): Buffer {
  const length: number[] = [];
  let left = value.length;
  for (; left >= 128; left >>= 7) length.push((left & 127) | 128);
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length, left]), value]);
}

function grpcMessage(message: Uint8Array): Buffer {
  const bytes = Buffer.alloc(5 + message.length);
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, 5);
  return bytes;
}

const [kind, address, connectionsText, secondsText, keysText, valueText, warmUpText] = process.argv.slice(2);
const keys = Number(keysText);
const value = Buffer.alloc(Number(valueText), "v");
const path = kind === "put" ? "/etcdserverpb.KV/Put" : "/etcdserverpb.KV/Range";
const headers = requestHeaders(path, address!);
const KEY_DIGITS = 8;
const keyOf = (n: number) => `bench/${String(n % keys).padStart(KEY_DIGITS, "0")}`;
const body = [bytesField(1, Buffer.from(keyOf(0))), ...(kind === "put" ? [bytesField(2, value)] : [])];

/** One call, made once; only the stream's number and the key's digits change from one to the next. */
function callTemplate(): Buffer {
  return Buffer.concat([
    frame(HEADERS, END_HEADERS, 0, headers),
    frame(DATA, END_STREAM, 0, grpcMessage(Buffer.concat(body))),
  ]);
}
const STREAM_AT = 5;
const DATA_STREAM_AT = 9 + headers.length + STREAM_AT;

const report = loadReport(Number(secondsText), Number(warmUpText ?? 0));
let sent = Math.floor(Math.random() * keys);

const NOTHING = Buffer.alloc(0);

class Connection {
  #received: Buffer = NOTHING;
  #socket: Socket | undefined;
  #stream = 1;
  #startedAt = 0;
  readonly #call = callTemplate();
  readonly #digitsAt = this.#call.indexOf(keyOf(0)) + keyOf(0).length - KEY_DIGITS;
  #gotData = false;
  /** Response bytes since the last update of the connection's window. */
  #consumed = 0;

  async open(): Promise<void> {
    const [hostname, port] = address!.split(":");
    this.#socket = await Bun.connect({
      hostname: hostname!,
      port: Number(port),
      socket: {
        data: (_socket, bytes) => this.#receive(bytes),
        close: () => {
          report.connectionLost();
        },
        error: () => {
          report.connectionLost();
        },
      },
    });
    // The table for header fields is of size 0, and the window for answers as large as it gets.
    const settings = Buffer.alloc(12);
    settings.writeUInt16BE(1, 0);
    settings.writeUInt16BE(4, 6);
    settings.writeUInt32BE(WINDOW_BYTES, 8);
    const window = Buffer.alloc(4);
    window.writeUInt32BE(WINDOW_BYTES - 65_535);
    this.#socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0, settings), frame(WINDOW_UPDATE, 0, 0, window)]));
  }

  next(): void {
    if (report.isOver()) {
      this.#socket!.end();
      return;
    }
    this.#startedAt = performance.now();
    this.#gotData = false;
    this.#call.writeUInt32BE(this.#stream, STREAM_AT);
    this.#call.writeUInt32BE(this.#stream, DATA_STREAM_AT);
    this.#call.write(keyOf(sent++).slice(-KEY_DIGITS), this.#digitsAt, "latin1");
    this.#socket!.write(this.#call);
    this.#stream += 2;
  }

  #receive(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    let at = 0;
    while (at + 9 <= this.#received.length) {
      const length = this.#received.readUIntBE(at, 3);
      if (at + 9 + length > this.#received.length) break;
      this.#onFrame(this.#received[at + 3]!, this.#received[at + 4]!, this.#received.subarray(at + 9, at + 9 + length));
      at += 9 + length;
    }
    this.#received = at === this.#received.length ? NOTHING : Buffer.from(this.#received.subarray(at));
  }

  #onFrame(type: number, flags: number, payload: Buffer): void {
    if (type === SETTINGS && (flags & ACK) === 0) this.#socket!.write(frame(SETTINGS, ACK, 0, Buffer.alloc(0)));
    if (type === PING && (flags & ACK) === 0) this.#socket!.write(frame(PING, ACK, 0, payload));
    if (type === RST_STREAM || type === GOAWAY) report.failed();
    if (type === DATA) this.#onData(payload.length);
    if (type === HEADERS && (flags & END_STREAM) !== 0) {
      // A refusal comes as trailers alone; an answer has a message before them.
      if (this.#gotData) report.done(performance.now() - this.#startedAt);
      else report.failed();
      this.next();
    }
  }

  #onData(bytes: number): void {
    this.#gotData ||= bytes > 0;
    this.#consumed += bytes;
    if (this.#consumed < WINDOW_BYTES / 2) return;
    const window = Buffer.alloc(4);
    window.writeUInt32BE(this.#consumed);
    this.#socket!.write(frame(WINDOW_UPDATE, 0, 0, window));
    this.#consumed = 0;
  }
}

const connections = Array.from({ length: Number(connectionsText) }, () => new Connection());
await Promise.all(connections.map((connection) => connection.open()));
report.begin();
for (const connection of connections) connection.next();
console.log(JSON.stringify(await report.result));
process.exit(0);
