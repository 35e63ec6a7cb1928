import { afterEach, expect, test } from "bun:test";
import fc from "fast-check";
import { foreignTls, nodeTls, otherNameTls } from "../../../test/support/node-certificates.ts";
import { faultyProxy } from "../../../test/support/tcp-proxy.ts";
import { systemClock } from "../../lib/clock.ts";
import { type Fields, type Log, silentLog } from "../../lib/log.ts";
import { seededRandom, systemRandom } from "../../lib/random.ts";
import { FrameReader } from "./frame-reader.ts";
import { encodeFrame } from "./frame-writer.ts";
import { accept, dial, type Identity } from "./handshake.ts";
import { TLS_SERVER_NAME } from "./peer-link.ts";
import {
  openTcpTransport,
  type TcpTransport,
  type TcpTransportOptions,
  type TransportLimits,
} from "./tcp-transport.ts";
import { FRAME_BYTES_MAX, type Frame } from "./transport.ts";

const secret = new Uint8Array(32).fill(7);
const identity = (id: string, change: Partial<Identity> = {}): Identity => ({ id, clusterId: "c1", secret, ...change });
/** Fast, so that what takes seconds takes milliseconds; the silence is long enough for a busy machine. */
const FAST: Partial<TransportLimits> = { tickMs: 50, silentTicks: 10, handshakeTicks: 20, retryMs: 2, retryMaxMs: 50 };

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Node = {
  readonly id: string;
  readonly transport: TcpTransport;
  /** What came, as `from:id` for requests and `from:type` for the rest. */
  readonly heard: string[];
  readonly frames: Frame[];
  readonly unreachable: string[];
  readonly log: { readonly level: string; readonly event: string; readonly fields: Fields }[];
};

function node(id: string, change: Partial<TcpTransportOptions> = {}, onFrame?: (frame: Frame) => void): Node {
  const entries: Node["log"][number][] = [];
  const at =
    (level: string) =>
    (event: string, fields: Fields = {}) =>
      entries.push({ level, event, fields });
  const log: Log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), with: () => log };
  const opened = openTcpTransport({
    self: identity(id),
    hostname: "127.0.0.1",
    port: 0,
    clock: systemClock,
    random: systemRandom,
    log,
    ...change,
    limits: { ...FAST, ...change.limits },
  });
  if (!opened.ok) throw new Error(opened.error);
  const transport = opened.value;
  cleanups.push(() => transport.close());
  const self: Node = { id, transport, heard: [], frames: [], unreachable: [], log: entries };
  transport.listen({
    frame(from, frame) {
      self.heard.push(`${from}:${frame.type === "request" ? frame.id : frame.type}`);
      self.frames.push(frame);
      onFrame?.(frame);
    },
    unreachable: (peer) => self.unreachable.push(peer),
  });
  return self;
}

const at = (port: number) => ({ host: "127.0.0.1", port });

/** Gives all of them the same address book. */
function introduce(...nodes: readonly Node[]): void {
  const peers = new Map(nodes.map(({ id, transport }) => [id, at(transport.port)]));
  for (const { transport } of nodes) transport.setPeers(peers);
}

async function eventually(claim: string, condition: () => boolean): Promise<void> {
  const until = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > until) throw new Error(`it never came about: ${claim}`);
    await Bun.sleep(2);
  }
}

const request = (id: number, bytes = 0): Frame => ({ type: "request", id, body: new Uint8Array(bytes) });

async function connected(...nodes: readonly Node[]): Promise<void> {
  introduce(...nodes);
  await eventually("all are connected", () =>
    nodes.every(({ transport }) => transport.stats().peersConnected === nodes.length - 1),
  );
}

type Raw = { readonly socket: Bun.Socket; readonly received: Uint8Array[]; isClosed: boolean };

/** A connection that says only what the test says. */
async function raw(port: number, first?: Uint8Array<ArrayBuffer>): Promise<Raw> {
  const received: Uint8Array[] = [];
  let self: Raw | undefined;
  let isClosed = false;
  const socket = await Bun.connect({
    ...{ hostname: "127.0.0.1", port },
    socket: {
      data: (_socket, chunk) => void received.push(chunk),
      close() {
        isClosed = true;
        if (self) self.isClosed = true;
      },
      error() {},
    },
  });
  cleanups.push(() => socket.terminate());
  self = { socket, received, isClosed };
  if (first) socket.write(first);
  return self;
}

/** A connection that has proved itself as `id`, and on which the test may say what it likes. */
async function member(id: string, to: Node, change: Partial<Identity> = {}): Promise<Raw> {
  const { hello, handshake } = dial(identity(id, change), to.id, systemRandom);
  const { port } = to.transport;
  const self = await raw(port, hello);
  let read = 0;
  for (;;) {
    await eventually("an answer", () => self.received.length > read || self.isClosed);
    const chunk = self.received[read++];
    if (!chunk) return self;
    const step = handshake.receive(chunk);
    if (step.send) self.socket.write(step.send);
    if (step.state !== "open") return self;
  }
}

/** Something that listens as `id` would, proves itself, and then does with the bytes what the test wants. */
function acceptorAs(id: string, data: (socket: Bun.Socket, chunk: Buffer) => void) {
  const sockets: Bun.Socket[] = [];
  const handshakes = new Map<Bun.Socket, ReturnType<typeof accept> | undefined>();
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        sockets.push(socket);
        handshakes.set(
          socket,
          accept(identity(id), () => undefined, systemRandom),
        );
      },
      data(socket, chunk) {
        const handshake = handshakes.get(socket);
        if (!handshake) return data(socket, chunk);
        const step = handshake.receive(chunk);
        if (step.send) socket.write(step.send);
        if (step.state === "done") handshakes.set(socket, undefined);
      },
      error() {},
    },
  });
  cleanups.push(() => listener.stop(true));
  return { port: listener.port, sockets };
}

test("frames of nodes that know each other arrive, in order, in both directions", async () => {
  const [n1, n2, n3] = [node("n1"), node("n2"), node("n3")];
  await connected(n1, n2, n3);
  for (let id = 0; id < 100; id++) {
    n1.transport.send("n2", request(id, id * 100));
    n2.transport.send("n1", request(id));
    n3.transport.send("n1", request(id));
  }
  await eventually("all arrived", () => n2.heard.length === 100 && n1.heard.length === 200);
  expect(n2.heard).toEqual(Array.from({ length: 100 }, (_, id) => `n1:${id}`));
  for (const from of ["n2", "n3"]) {
    const ofOne = n1.heard.filter((line) => line.startsWith(from));
    expect(ofOne).toEqual(Array.from({ length: 100 }, (_, id) => `${from}:${id}`));
  }
});

test("a raft message arrives with the names of its connection's ends", async () => {
  const [n1, n2] = [node("n1"), node("n2")];
  await connected(n1, n2);
  const entries = [{ index: 8, term: 2, data: new Uint8Array([1, 2, 3]) }];
  const message = {
    type: "append",
    from: "n1",
    to: "n2",
    term: 3,
    prevIndex: 7,
    prevTerm: 2,
    entries,
    commit: 6,
    round: 1,
  };
  n1.transport.send("n2", { type: "raft", message } as Frame);
  await eventually("it arrived", () => n2.frames.length === 1);
  expect(n2.frames).toEqual([{ type: "raft", message } as Frame]);
});

test("what is sent while a connection is being made goes out once it is there", async () => {
  const [n1, n2] = [node("n1"), node("n2")];
  introduce(n1, n2);
  n1.transport.send("n2", request(1));
  await eventually("it arrived", () => n2.heard.length === 1);
  expect(n1.unreachable).toEqual([]);
});

test("what is sent in one turn of the event loop leaves in one write", async () => {
  const [n1, n2] = [node("n1", { limits: { tickMs: 100_000 } }), node("n2")];
  await connected(n1, n2);
  const before = n1.transport.stats().writes;
  for (let id = 0; id < 200; id++) n1.transport.send("n2", request(id, 300));
  await eventually("all arrived", () => n2.heard.length === 200);
  expect(n1.transport.stats().writes - before).toBe(1);
  n1.transport.send("n2", request(200));
  await Promise.resolve();
  expect(n1.transport.stats().writes - before).toBe(2); // a lone frame has left with the turn that sent it
});

test("large frames pass through sockets that take them bit by bit", async () => {
  const [n1, n2] = [node("n1"), node("n2")];
  await connected(n1, n2);
  const bodies = [15_000_000, 1, 9_000_000, 0, 300_000].map((length, at) => new Uint8Array(length).fill(at + 1));
  bodies.forEach((body, id) => {
    n1.transport.send("n2", { type: "request", id, body });
  });
  await eventually("all arrived", () => n2.frames.length === bodies.length);
  n2.frames.forEach((frame, at) => {
    expect(frame.type === "request" && Buffer.compare(frame.body, bodies[at] ?? new Uint8Array(0))).toBe(0);
  });
});

test("a peer that does not read fills its queue and no more: the newest frames go, and the sender is told once", async () => {
  const n1 = node("n1", { limits: { queueBytesMax: FRAME_BYTES_MAX, silentTicks: 10_000 } });
  const got: number[] = [];
  const reader = new FrameReader({ from: "n1", to: "n2" });
  const { port, sockets } = acceptorAs("n2", (_socket, chunk) => {
    for (const frame of reader.read(chunk).frames) if (frame.type === "request") got.push(frame.id);
  });
  n1.transport.setPeers(new Map([["n2", at(port)]]));
  await eventually("connected", () => n1.transport.stats().peersConnected === 1);
  for (const socket of sockets) socket.pause();
  let sent = 0;
  while (n1.transport.stats().framesDropped < 3 && sent < 2000) {
    n1.transport.send("n2", request(sent++, 250_000));
    if (sent % 10 === 0) await Bun.sleep(0);
  }
  await Bun.sleep(0);
  expect(n1.transport.stats().framesDropped).toBe(3);
  expect(n1.transport.stats().writes).toBeLessThan(sent / 2); // a socket that is full is not tried again and again
  expect(n1.unreachable).toEqual(["n2"]);
  for (const socket of sockets) socket.resume();
  await eventually("the rest", () => got.length === sent - 3);
  expect(got).toEqual(Array.from({ length: sent - 3 }, (_, id) => id));
  n1.transport.send("n2", request(9999));
  await eventually("the way is free", () => got.at(-1) === 9999);
});

test("what waited for a connection that broke is not sent on the next one, not even the rest of a frame", async () => {
  const n1 = node("n1", { limits: { silentTicks: 10_000 } });
  const got: number[] = [];
  let reader = new FrameReader({ from: "n1", to: "n2" });
  const { port, sockets } = acceptorAs("n2", (_socket, chunk) => {
    const { frames, refusal } = reader.read(chunk);
    for (const frame of frames) if (frame.type === "request") got.push(frame.id);
    expect(refusal).toBeUndefined();
  });
  n1.transport.setPeers(new Map([["n2", at(port)]]));
  await eventually("connected", () => n1.transport.stats().peersConnected === 1);
  for (const socket of sockets) socket.pause();
  for (let id = 0; id < 12; id++) n1.transport.send("n2", request(id, 1_000_000));
  await Bun.sleep(0);
  expect(n1.transport.stats().bytesSent).toBeLessThan(12_000_000);
  got.length = 0;
  reader = new FrameReader({ from: "n1", to: "n2" });
  for (const socket of sockets) socket.terminate();
  await eventually("told", () => n1.unreachable.length > 0);
  await eventually("connected again", () => n1.transport.stats().peersConnected === 1);
  n1.transport.send("n2", request(99));
  await eventually("it arrived", () => got.length > 0);
  expect(got).toEqual([99]);
});

test("a frame that is too large for any is dropped, with an error in the log, and the others are not", async () => {
  const [n1, n2] = [node("n1"), node("n2")];
  await connected(n1, n2);
  n1.transport.send("n2", request(1, FRAME_BYTES_MAX));
  n1.transport.send("n2", request(2));
  await eventually("it arrived", () => n2.heard.length === 1);
  expect(n2.heard).toEqual(["n1:2"]);
  expect(n1.log.filter(({ level }) => level === "error").map(({ event }) => event)).toEqual([
    "transport.frame_too_large",
  ]);
});

test("when a peer goes, its others are told; when it is back, they are connected again by themselves", async () => {
  const [n1, n2] = [node("n1"), node("n2")];
  await connected(n1, n2);
  const { port } = n2.transport;
  await n2.transport.close();
  await eventually("told", () => n1.unreachable.length === 1);
  n1.transport.send("n2", request(1)); // lost, and that is told too
  await eventually("told again", () => n1.unreachable.length >= 2);
  const back = node("n2", { port });
  introduce(n1, back);
  await eventually("connected again", () => n1.transport.stats().peersConnected === 1);
  n1.transport.send("n2", request(2));
  await eventually("it arrived", () => back.heard.length === 1);
  expect(back.heard).toEqual(["n1:2"]);
});

test("a peer that nobody sends to is not reported again and again while it is away", async () => {
  const n1 = node("n1");
  n1.transport.setPeers(new Map([["n2", at(node("gone").transport.port)]])); // an address under which another answers
  await eventually("several attempts", () => n1.transport.stats().dials >= 5);
  expect(n1.unreachable).toEqual([]);
  expect(n1.log.filter(({ event }) => event === "transport.peer_unreachable").length).toBe(1);
});

test("what waited for an attempt that came to nothing is lost, and that is told", async () => {
  const n1 = node("n1", { limits: { retryMs: 600_000, retryMaxMs: 600_000 } });
  const gone = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  gone.stop(true);
  n1.transport.setPeers(new Map([["n2", at(gone.port)]]));
  n1.transport.send("n2", request(1));
  await eventually("told", () => n1.unreachable.length === 1);
});

test("what was sent in the pause before an attempt that succeeds is lost, and that is told", async () => {
  const n1 = node("n1", { limits: { retryMs: 300, retryMaxMs: 300 } });
  const n2 = node("n2");
  await connected(n1, n2);
  const { port } = n2.transport;
  await n2.transport.close();
  await eventually("told", () => n1.unreachable.length === 1);
  const back = node("n2", { port });
  n1.transport.send("n2", request(1));
  back.transport.setPeers(new Map([["n1", at(n1.transport.port)]]));
  await eventually("connected again", () => n1.transport.stats().peersConnected === 1);
  await eventually("it arrived, or is told", () => back.heard.length + n1.unreachable.length >= 2);
});

test("pauses between attempts grow to their bound", async () => {
  const n1 = node("n1", { limits: { retryMs: 10, retryMaxMs: 40 } });
  const gone = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  gone.stop(true);
  n1.transport.setPeers(new Map([["n2", at(gone.port)]]));
  await Bun.sleep(500);
  // The pauses are 10 to 20 ms, and from then on 20 to 40: at most 26 attempts, were the machine idle.
  expect(n1.transport.stats().dials).toBeLessThanOrEqual(26);
});

test("a peer that shows up is connected to at once, however long the pause would have been", async () => {
  const n1 = node("n1", { limits: { retryMs: 600_000, retryMaxMs: 600_000 } });
  const gone = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = gone;
  gone.stop(true);
  n1.transport.setPeers(new Map([["n2", at(port)]]));
  await eventually("it is away", () => n1.log.some(({ event }) => event === "transport.peer_unreachable"));
  await connected(n1, node("n2", { port }));
});

test("a peer that moves is reached under its new address, and one that is no longer named is left alone", async () => {
  const [n1, before, after] = [node("n1"), node("n2"), node("n2")];
  await connected(n1, before);
  n1.transport.setPeers(new Map([["n2", at(after.transport.port)]]));
  after.transport.setPeers(new Map([["n1", at(n1.transport.port)]]));
  await eventually("connected to the new one", () => after.transport.stats().inbound === 1);
  n1.transport.send("n2", request(1));
  await eventually("it arrived", () => after.heard.length === 1);
  n1.transport.setPeers(new Map());
  await eventually("both ways are closed", () => after.transport.stats().inbound === 0);
  expect(n1.transport.stats()).toMatchObject({ peersConnected: 0, inbound: 0 });
  expect(before.heard).toEqual([]);
});

test("a node does not connect to itself, though it is in its own address book", async () => {
  const n1 = node("n1");
  introduce(n1);
  n1.transport.send("n1", request(1));
  await Bun.sleep(20);
  expect(n1.transport.stats()).toMatchObject({ dials: 0, framesDropped: 1 });
});

test("a node that proved itself under an id that is not in the address book is refused, unless it is admitted", async () => {
  const [n1, joining] = [node("n1"), node("n9")];
  joining.transport.setPeers(new Map([["n1", at(n1.transport.port)]]));
  await eventually("refused", () => n1.transport.stats().refused.stranger > 0);
  expect(joining.transport.stats().peersConnected).toBe(0);
  const open = node("n1", { admit: (id) => id === "n9" });
  joining.transport.setPeers(new Map([["n1", at(open.transport.port)]]));
  await eventually("admitted", () => joining.transport.stats().peersConnected === 1);
  joining.transport.send("n1", request(1));
  await eventually("it arrived", () => open.heard.length === 1);
});

const foreigners: [string, string, Partial<TcpTransportOptions>][] = [
  ["proof", "another secret", { self: identity("n2", { secret: new Uint8Array(32).fill(1) }) }],
  ["cluster", "another cluster's id", { self: identity("n2", { clusterId: "c2" }) }],
];
test.each(foreigners)(
  "`%s`: a node with %s is refused, counted and logged; the others go on",
  async (reason, _, change) => {
    const [n1, n3] = [node("n1"), node("n3")];
    await connected(n1, n3);
    const foreigner = node("n2", change);
    foreigner.transport.setPeers(new Map([["n1", at(n1.transport.port)]]));
    n1.transport.setPeers(
      new Map([...[n1, n3, foreigner].map(({ id, transport }) => [id, at(transport.port)] as const)]),
    );
    await eventually("refused", () => n1.transport.stats().refused[reason as "proof"] > 0);
    foreigner.transport.send("n1", request(1));
    n3.transport.send("n1", request(2));
    await eventually("the others go on", () => n1.heard.length > 0);
    expect(n1.heard).toEqual(["n3:2"]);
    expect(n1.transport.stats().peersConnected).toBe(1);
    const lines = n1.log.filter(({ event, fields }) => event === "transport.refused" && fields.reason === reason);
    expect(lines.length).toBeGreaterThan(0);
  },
);

test("a node that comes under this node's own id is refused", async () => {
  const n1 = node("n1", { admit: () => true });
  introduce(n1);
  const self = await member("n1", n1);
  await eventually("closed", () => self.isClosed);
  expect(n1.transport.stats().refused.stranger).toBe(1);
});

test("whoever answers under a peer's address without being it gets no frames", async () => {
  const [n1, n3] = [node("n1"), node("n3")];
  n1.transport.setPeers(new Map([["n2", at(n3.transport.port)]]));
  n3.transport.setPeers(new Map([["n1", at(n1.transport.port)]]));
  await eventually("refused", () => n3.transport.stats().refused.addressee > 0);
  n1.transport.send("n2", request(1));
  await Bun.sleep(20);
  expect(n3.heard).toEqual([]);
  expect(n1.transport.stats().refused.addressee).toBeGreaterThan(0);
});

const nonsense: [string, string, Uint8Array<ArrayBuffer>][] = [
  ["garbage", "an HTTP request", new Uint8Array(Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))],
  ["garbage", "a megabyte of zeros", new Uint8Array(1_000_000)],
  ["garbage", "a frame before any handshake", encodeFrame(request(1), { from: "n2", to: "n1" })],
  ["garbage", "the magic and then too much", new Uint8Array([...Buffer.from("HIVENODE"), 255, 255, 1, 0])],
  [
    "version",
    "only versions that do not exist yet",
    dial(identity("n2"), "n1", seededRandom(1), { oldest: 8, newest: 9 }).hello,
  ],
  ["addressee", "a wish for another node", dial(identity("n2"), "n7", seededRandom(1)).hello],
];
test.each(nonsense)("`%s`: a connection that brings %s is closed", async (reason, _, bytes) => {
  const n1 = node("n1");
  const self = await raw(n1.transport.port, bytes);
  await eventually("closed", () => self.isClosed);
  expect(n1.transport.stats().refused[reason as "garbage"]).toBe(1);
  expect(n1.transport.stats()).toMatchObject({ inbound: 0, pending: 0 });
});

test("a connection that does not prove itself in time is closed, however busily it dawdles", async () => {
  const n1 = node("n1", { limits: { tickMs: 20, handshakeTicks: 3 } });
  const silent = await raw(n1.transport.port);
  const { hello } = dial(identity("n2"), "n1", systemRandom);
  const slow = await raw(n1.transport.port);
  let sent = 0;
  const drip = setInterval(() => slow.socket.write(hello.subarray(sent, ++sent)), 5);
  cleanups.push(() => clearInterval(drip));
  await eventually("both closed", () => silent.isClosed && slow.isClosed);
  expect(n1.transport.stats().refused.timeout).toBe(2);
  expect(sent).toBeLessThan(hello.length);
});

test("of connections that did not prove themselves there is a bounded number, and an honest one still comes in", async () => {
  const n1 = node("n1", { limits: { pendingMax: 8, handshakeTicks: 10_000 } });
  await Promise.all(Array.from({ length: 40 }, () => raw(n1.transport.port)));
  await eventually("crowded out", () => n1.transport.stats().refused.crowded === 32);
  expect(n1.transport.stats().pending).toBe(8);
  await connected(n1, node("n2"));
});

test("of connections of members there is a bounded number too", async () => {
  const n1 = node("n1", { admit: () => true, limits: { inboundMax: 2 } });
  const members = [await member("m1", n1), await member("m2", n1), await member("m3", n1)];
  expect(n1.transport.stats().refused.full).toBe(1);
  expect(members.map(({ isClosed }) => isClosed)).toEqual([false, false, true]);
  // A member that comes again takes its own place.
  const again = await member("m2", n1);
  await eventually("the former is closed", () => members[1]?.isClosed === true);
  expect(again.isClosed).toBe(false);
  expect(n1.transport.stats().inbound).toBe(2);
});

test("many refusals make few lines, which say how many more there were", async () => {
  const n1 = node("n1");
  for (let count = 0; count < 30; count++) {
    const self = await raw(n1.transport.port, new Uint8Array([count]));
    await eventually("closed", () => self.isClosed);
  }
  expect(n1.transport.stats().refused.garbage).toBe(30);
  expect(n1.log.filter(({ event }) => event === "transport.refused").length).toBeLessThanOrEqual(5);
});

const defects: [string, string, (good: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>][] = [
  ["damaged", "does not pass its checksum", (good) => good.fill(1, 12, 13)],
  ["oversized", "is longer than any may be", (good) => good.fill(0xff, 4, 8)],
  ["malformed", "makes no sense", (good) => sealed(good.fill(7, 10, 11))],
];
function sealed(frame: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  new DataView(frame.buffer, frame.byteOffset).setUint32(0, Bun.hash.crc32(frame.subarray(4)), true);
  return frame;
}
test.each(defects)("`%s`: a member whose frame %s is hung up on; what came before counts", async (reason, _, spoil) => {
  const n1 = node("n1", { admit: () => true });
  const self = await member("m1", n1);
  const link = { from: "m1", to: "n1" };
  self.socket.write(encodeFrame(request(1), link));
  self.socket.write(spoil(encodeFrame(request(2), link)));
  await eventually("closed", () => self.isClosed);
  expect(n1.heard).toEqual(["m1:1"]);
  expect(n1.transport.stats().refused[reason as "damaged"]).toBe(1);
});

test("a frame of a kind that is not known is stepped over and logged by its name; the connection stays", async () => {
  const n1 = node("n1", { admit: () => true });
  const self = await member("m1", n1);
  const link = { from: "m1", to: "n1" };
  self.socket.write(sealed(encodeFrame(request(1), link).fill(99, 9, 10)));
  self.socket.write(encodeFrame(request(2), link));
  await eventually("it arrived", () => n1.heard.length === 1);
  expect(n1.heard).toEqual(["m1:2"]);
  expect(n1.transport.stats().framesSkipped).toBe(1);
  expect(n1.log.find(({ event }) => event === "transport.frames_skipped")?.fields.reason).toBe("type 99 of format 1");
});

test("whatever bytes come, before the proof or after it, the node lives and its others are served", async () => {
  const n1 = node("n1", { admit: () => true });
  const n2 = node("n2");
  await connected(n1, n2);
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 300 });
  await fc.assert(
    fc.asyncProperty(fc.boolean(), bytes, async (isMember, chunk) => {
      const self = isMember ? await member("m1", n1) : await raw(n1.transport.port);
      self.socket.write(new Uint8Array(chunk));
      self.socket.end();
    }),
    { numRuns: 60 },
  );
  n2.transport.send("n1", request(1));
  await eventually("it arrived", () => n1.heard.includes("n2:1"));
  expect(n1.log.filter(({ level }) => level === "error")).toEqual([]);
});

test("a handler that throws costs the connection, and is logged as the error that it is", async () => {
  const n1 = node("n1");
  const n2 = node("n2", {}, (frame) => {
    if (frame.type === "request" && frame.id === 1) throw new Error("a defect");
  });
  await connected(n1, n2);
  n1.transport.send("n2", request(1));
  await eventually("logged", () => n2.log.some(({ level }) => level === "error"));
  await eventually("connected again", () => n1.unreachable.length === 1 && n1.transport.stats().peersConnected === 1);
  n1.transport.send("n2", request(2));
  await eventually("it arrived", () => n2.heard.includes("n1:2"));
});

test("a peer that is gone without a word is found out from its silence, on both of its connections", async () => {
  const proxy = faultyProxy();
  cleanups.push(() => proxy.close());
  const [n1, n2] = [node("n1"), node("n2")];
  const [to2, to1] = [await proxy.link("n1", "n2"), await proxy.link("n2", "n1")];
  proxy.target("n1", at(n1.transport.port));
  proxy.target("n2", at(n2.transport.port));
  n1.transport.setPeers(new Map([["n2", at(to2)]]));
  n2.transport.setPeers(new Map([["n1", at(to1)]]));
  const areConnected = () => [n1, n2].every(({ transport }) => transport.stats().peersConnected === 1);
  await eventually("connected", areConnected);
  await Bun.sleep(800); // a quiet connection is no silent one: pings pass
  expect([n1.unreachable, n2.unreachable]).toEqual([[], []]);
  proxy.cut("n1", "n2");
  await eventually("found out", () => n1.unreachable.length > 0 && n2.unreachable.length > 0);
  await eventually("nothing is held for it", () => n1.transport.stats().inbound === 0);
  proxy.heal();
  await eventually("connected again", areConnected);
  n1.transport.send("n2", request(5));
  await eventually("it arrived", () => n2.heard.includes("n1:5"));
});

test("a link that fails in one direction only is found out as well", async () => {
  const proxy = faultyProxy();
  cleanups.push(() => proxy.close());
  const [n1, n2] = [node("n1"), node("n2", { admit: () => true })];
  proxy.target("n2", at(n2.transport.port));
  n1.transport.setPeers(new Map([["n2", at(await proxy.link("n1", "n2"))]]));
  await eventually("connected", () => n1.transport.stats().peersConnected === 1);
  proxy.cut("n2", "n1", "one-way"); // frames pass, pongs don't
  n1.transport.send("n2", request(1));
  await eventually("it arrived", () => n2.heard.length === 1);
  await eventually("found out", () => n1.unreachable.length > 0);
});

test("a slow link brings everything later, and a broken one is made again", async () => {
  const proxy = faultyProxy();
  cleanups.push(() => proxy.close());
  const [n1, n2] = [node("n1"), node("n2", { admit: () => true })];
  proxy.target("n2", at(n2.transport.port));
  n1.transport.setPeers(new Map([["n2", at(await proxy.link("n1", "n2"))]]));
  await eventually("connected", () => n1.transport.stats().peersConnected === 1);
  proxy.delay("n1", "n2", 100);
  const start = performance.now();
  for (let id = 0; id < 20; id++) n1.transport.send("n2", request(id, 100_000));
  await eventually("all arrived", () => n2.heard.length === 20);
  expect(performance.now() - start).toBeGreaterThan(95);
  expect(n2.heard).toEqual(Array.from({ length: 20 }, (_, id) => `n1:${id}`));
  proxy.delay("n1", "n2", 0);
  proxy.reset("n1", "n2");
  await eventually("told", () => n1.unreachable.length === 1);
  await eventually("connected again", () => n1.transport.stats().peersConnected === 1);
});

test("TLS: nodes with certificates of the cluster's authority talk", async () => {
  const [n1, n2] = [node("n1", { tls: nodeTls }), node("n2", { tls: nodeTls })];
  await connected(n1, n2);
  for (let id = 0; id < 50; id++) n1.transport.send("n2", request(id, 100_000));
  await eventually("all arrived", () => n2.heard.length === 50);
  expect(n2.heard).toEqual(Array.from({ length: 50 }, (_, id) => `n1:${id}`));
});

const impostors: [string, Partial<TcpTransportOptions>][] = [
  ["of another authority", { tls: foreignTls }],
  ["of the authority, but not for a node", { tls: otherNameTls }],
  ["at all", {}],
];
test.each(impostors)("TLS: without a certificate, none %s helps, though it knows the secret", async (_, change) => {
  const n1 = node("n1", { tls: nodeTls });
  const n2 = node("n2", change);
  introduce(n1, n2);
  await eventually("both tried", () => n1.transport.stats().dials >= 3 && n2.transport.stats().dials >= 3);
  await eventually("refused", () => {
    const { tls, garbage } = n1.transport.stats().refused;
    return tls + garbage > 0;
  });
  n1.transport.send("n2", request(1));
  n2.transport.send("n1", request(1));
  await Bun.sleep(50);
  expect([n1.heard, n2.heard]).toEqual([[], []]);
  expect([n1, n2].map(({ transport }) => transport.stats().peersConnected)).toEqual([0, 0]);
});

test("TLS: a certificate for something else than a node opens nothing, even if its bearer checks nobody's", async () => {
  const n1 = node("n1", { tls: nodeTls, admit: () => true });
  for (const { key, cert, ca } of [otherNameTls, foreignTls]) {
    let isClosed = false;
    const heard: Buffer[] = [];
    const socket = await Bun.connect({
      ...{ hostname: "127.0.0.1", port: n1.transport.port },
      tls: { key, cert, ca, serverName: TLS_SERVER_NAME, rejectUnauthorized: false },
      socket: {
        handshake: (socket) => void socket.write(dial(identity("m1"), "n1", systemRandom).hello),
        data: (_socket, chunk) => void heard.push(chunk),
        close() {
          isClosed = true;
        },
        error() {},
      },
    });
    cleanups.push(() => socket.terminate());
    await eventually("closed", () => isClosed);
    expect(heard).toEqual([]);
  }
  expect(n1.transport.stats().refused.tls).toBe(2);
});

test("TLS: an acceptor whose certificate does not count hears no word of the handshake", async () => {
  const n1 = node("n1", { tls: nodeTls });
  for (const { key, cert, ca } of [foreignTls, otherNameTls]) {
    const heard: Buffer[] = [];
    const listener = Bun.listen({
      ...{ hostname: "127.0.0.1", port: 0, tls: { key, cert, ca } },
      socket: { data: (_socket, chunk) => void heard.push(chunk), error() {} },
    });
    cleanups.push(() => listener.stop(true));
    const { tls } = n1.transport.stats().refused;
    n1.transport.setPeers(new Map([["n2", at(listener.port)]]));
    await eventually("refused", () => n1.transport.stats().refused.tls > tls + 2);
    expect(heard).toEqual([]);
  }
});

test("TLS: who begins it and stops in the middle is closed in time", async () => {
  const n1 = node("n1", { tls: nodeTls, limits: { tickMs: 20, handshakeTicks: 3 } });
  const self = await raw(n1.transport.port, new Uint8Array([0x16, 3, 1, 2, 0, 1]));
  await eventually("closed", () => self.isClosed);
  expect(n1.transport.stats().refused.timeout).toBe(1);
});

test("to listen for other hosts without TLS is possible, and said out loud", () => {
  const warned = (hostname: string, change: Partial<TcpTransportOptions> = {}) =>
    node("n1", { hostname, ...change }).log.some(({ event }) => event === "transport.not_encrypted");
  expect(warned("0.0.0.0")).toBe(true);
  expect(warned("0.0.0.0", { tls: nodeTls })).toBe(false);
  expect(warned("127.0.0.1")).toBe(false);
});

test("a port that is taken is an error with its name", async () => {
  const n1 = node("n1");
  const { port } = n1.transport;
  const options = { self: identity("n2"), hostname: "127.0.0.1", port };
  const world = { clock: systemClock, random: systemRandom, log: silentLog };
  const opened = openTcpTransport({ ...options, ...world });
  expect(opened.ok ? "" : opened.error).toContain(`port ${port}`);
});

test("after it is closed, a transport says and hears nothing, and its port is free", async () => {
  const [n1, n2] = [node("n1"), node("n2")];
  await connected(n1, n2);
  n1.transport.send("n2", request(1)); // said before
  await n1.transport.close();
  n1.transport.send("n2", request(2));
  n2.transport.send("n1", request(3));
  await eventually("n2 noticed", () => n2.unreachable.length > 0);
  expect(n1.heard).toEqual([]);
  expect(n2.heard).toEqual(["n1:1"]);
  expect(n1.unreachable).toEqual([]);
  node("n1", { port: n1.transport.port });
});
