import { afterEach, expect, test } from "bun:test";
import { systemClock } from "../../lib/clock.ts";
import { silentLog } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { fail, ok } from "../../lib/result.ts";
import type { StoredSnapshot } from "../consensus.ts";
import { diskError, MemoryDisk } from "../kv/memory-disk.ts";
import { snapshotName } from "../kv/snapshot-format.ts";
import { configurationOf } from "../raft/configuration.ts";
import {
  incomingName,
  type SnapshotAck,
  type SnapshotChunk,
  SnapshotReceiver,
  SnapshotSender,
  TRANSFER_LIMITS,
} from "./snapshot-transfer.ts";
import { SNAPSHOT_CHUNK_BYTES } from "./transport.ts";

const QUICK = { ...TRANSFER_LIMITS, silenceMs: 20 };
/** Takes no busy machine for a silence. */
const PATIENT = { ...TRANSFER_LIMITS, silenceMs: 3000 };
const BYTES = 9 * SNAPSHOT_CHUNK_BYTES + 77;
const point = { index: 500, term: 3, configuration: configurationOf(["n1"]) };
const contents = [0, 1, 2].map((seed) => Buffer.alloc(BYTES, seededRandom(seed).bytes(9973)));
const content = (seed: number) => contents[seed % 3]!;

async function diskWith(path: string, bytes: Uint8Array): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const file = await disk.open(path, "create");
  await file.write(0, bytes);
  await file.datasync();
  await disk.syncDirectory("/to");
  return disk;
}

/** One end of a link, and the other; what is between them may lose, double and count. */
class Link {
  readonly snapshot: StoredSnapshot = { point, path: "/from/s", bytes: BYTES };
  readonly received: StoredSnapshot[] = [];
  readonly chunks: SnapshotChunk[] = [];
  /** How often what is sent arrives. */
  chunkArrives: (chunk: SnapshotChunk) => number = () => 1;
  ackArrives: (ack: SnapshotAck) => number = () => 1;
  verify: (path: string) => boolean = () => true;
  appliedIndex = 0;
  term = 3;
  receiver: SnapshotReceiver;
  sender: SnapshotSender | undefined;
  disk: MemoryDisk;

  constructor(disk = new MemoryDisk()) {
    this.disk = disk;
    this.receiver = this.#newReceiver();
  }

  async send(bytes: Uint8Array, limits = QUICK): Promise<SnapshotSender> {
    const disk = await diskWith(this.snapshot.path, bytes);
    return this.sendFrom(disk, limits);
  }

  sendFrom(disk: MemoryDisk, limits = QUICK): SnapshotSender {
    const send = (chunk: SnapshotChunk) => {
      this.chunks.push(chunk);
      for (let i = this.chunkArrives(chunk); i > 0; i--) setImmediate(() => this.receiver.chunk("n1", chunk));
    };
    this.sender = new SnapshotSender({ disk, clock: systemClock, snapshot: this.snapshot, term: 3, send, limits });
    return this.sender;
  }

  async restartReceiver(disk: MemoryDisk): Promise<void> {
    await this.receiver.close();
    this.disk = disk;
    this.receiver = this.#newReceiver();
  }

  bytesSent(): number {
    return this.chunks.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  #newReceiver(): SnapshotReceiver {
    return new SnapshotReceiver({
      disk: this.disk,
      directory: "/to",
      clock: systemClock,
      log: silentLog,
      send: (_, ack) => {
        for (let i = this.ackArrives(ack); i > 0; i--) setImmediate(() => this.sender?.ack(ack));
      },
      term: () => this.term,
      appliedIndex: () => this.appliedIndex,
      verify: async (path) => (this.verify(path) ? ok(point) : fail("damaged")),
      received: (_from, _term, snapshot) => {
        this.received.push(snapshot);
        return true;
      },
    });
  }

  expectReceived(bytes: Uint8Array): void {
    const path = `/to/${snapshotName(500)}`;
    expect(this.received).toEqual([{ point, path, bytes: BYTES }]);
    expect(this.disk.peek(path).equals(bytes)).toBe(true);
  }
}

const links: Link[] = [];
afterEach(async () => {
  for (const { sender, receiver } of links.splice(0)) {
    sender?.abort();
    await receiver.close();
  }
});
function link(disk?: MemoryDisk): Link {
  const made = new Link(disk);
  links.push(made);
  return made;
}
const partBytes = (disk: MemoryDisk) => disk.peek(`/to/${incomingName(500)}`).length;

test("a file arrives whole, in small pieces, each sent once", async () => {
  const wire = link();
  const bytes = content(1);
  expect(await (await wire.send(bytes, PATIENT)).done).toMatchObject({ ok: true });
  wire.expectReceived(bytes);
  expect(wire.bytesSent()).toBe(BYTES);
  expect(Math.max(...wire.chunks.map(({ bytes: { length } }) => length))).toBe(SNAPSHOT_CHUNK_BYTES);
  expect((await wire.disk.list("/to")).length).toBe(1);
});

test("what is acknowledged as done is durable", async () => {
  const wire = link();
  const bytes = content(1);
  await (await wire.send(bytes)).done;
  const crashed = wire.disk.afterCrash(seededRandom(1), "nothing");
  expect(crashed.peek(`/to/${snapshotName(500)}`).equals(bytes)).toBe(true);
});

test("lost and doubled pieces and answers cost time only", async () => {
  for (let seed = 1; seed <= 5; seed++) {
    const random = seededRandom(seed);
    const times = () => {
      const chance = random.bytes(1)[0]!;
      return chance < 40 ? 0 : chance < 80 ? 2 : 1;
    };
    const wire = link();
    wire.chunkArrives = times;
    wire.ackArrives = times;
    const bytes = content(seed);
    expect(await (await wire.send(bytes, { ...QUICK, silenceMs: 5 })).done).toMatchObject({ ok: true });
    wire.expectReceived(bytes);
  }
});

test("after a broken connection it goes on from where the receiver is", async () => {
  const wire = link();
  const bytes = content(1);
  let isBroken = false;
  wire.chunkArrives = ({ offset }) => {
    if (offset > BYTES / 2) isBroken = true;
    return isBroken ? 0 : 1;
  };
  expect(await (await wire.send(bytes, { ...QUICK, silenceMs: 10, silencesMax: 2 })).done).toMatchObject({ ok: false });
  const before = partBytes(wire.disk);
  expect(before).toBeGreaterThan(BYTES / 2 - 2 * SNAPSHOT_CHUNK_BYTES);
  wire.chunks.length = 0;
  wire.chunkArrives = () => 1;
  expect(await (await wire.send(bytes, PATIENT)).done).toMatchObject({ ok: true });
  expect(wire.bytesSent()).toBe(BYTES - before);
  wire.expectReceived(bytes);
});

test("a receiver that restarts goes on from its part, and a sender notices", async () => {
  const wire = link();
  const bytes = content(1);
  let restarting: Promise<void> | undefined;
  wire.ackArrives = ({ offset }) => {
    if (offset > BYTES / 2) restarting ??= wire.restartReceiver(wire.disk.afterKill());
    return 1;
  };
  expect(await (await wire.send(bytes)).done).toMatchObject({ ok: true });
  expect(restarting).toBeDefined();
  wire.expectReceived(bytes);
  expect(wire.bytesSent()).toBeLessThan(BYTES + 6 * SNAPSHOT_CHUNK_BYTES);
});

test("a part with holes after a crash, of another file, or too long, is begun anew", async () => {
  const bytes = content(1);
  const holes = Buffer.from(bytes.subarray(0, 4 * SNAPSHOT_CHUNK_BYTES)).fill(0, 5000, 6000);
  const parts = [holes, content(2).subarray(0, 3 * SNAPSHOT_CHUNK_BYTES), Buffer.alloc(BYTES + 1)];
  for (const part of parts) {
    const wire = link(await diskWith(`/to/${incomingName(500)}`, part));
    expect(await (await wire.send(bytes)).done).toMatchObject({ ok: true });
    wire.expectReceived(bytes);
  }
});

test("a part of another snapshot is removed", async () => {
  const wire = link(await diskWith(`/to/${incomingName(400)}`, content(2)));
  const bytes = content(1);
  await (await wire.send(bytes)).done;
  wire.expectReceived(bytes);
  expect(await wire.disk.list("/to")).toEqual([snapshotName(500)]);
});

test("a part that has everything is verified without another byte, and if it is bad, begun anew", async () => {
  const bytes = content(1);
  for (const [part, sent] of [
    [bytes, 0],
    [content(2), BYTES],
  ] as const) {
    const wire = link(await diskWith(`/to/${incomingName(500)}`, part));
    wire.verify = (path) => wire.disk.peek(path).equals(bytes);
    expect(await (await wire.send(bytes, PATIENT)).done).toMatchObject({ ok: true });
    wire.expectReceived(bytes);
    expect(wire.bytesSent()).toBe(sent);
  }
});

test("a file that fails verification is not kept, and not sent for ever", async () => {
  const wire = link();
  wire.verify = () => false;
  expect(await (await wire.send(content(1))).done).toEqual({ ok: false, error: "the peer began anew too often" });
  await wire.receiver.close();
  expect(wire.received).toEqual([]);
  expect(await wire.disk.list("/to")).toEqual([]);
});

test("a peer that does not answer is given up", async () => {
  const wire = link();
  wire.chunkArrives = () => 0;
  const sent = await (await wire.send(content(1), { ...QUICK, silencesMax: 3 })).done;
  expect(sent).toEqual({ ok: false, error: "the peer does not answer" });
  expect(wire.chunks).toHaveLength(3);
});

test("a peer that verifies for long is waited for", async () => {
  const wire = link();
  const receiver = new SnapshotReceiver({
    disk: wire.disk,
    directory: "/to",
    clock: systemClock,
    log: silentLog,
    send: (_, ack) => wire.sender?.ack(ack),
    term: () => 3,
    appliedIndex: () => 0,
    verify: async () => {
      await Bun.sleep(100);
      return ok(point);
    },
    received: () => true,
  });
  await wire.receiver.close();
  wire.receiver = receiver;
  expect(await (await wire.send(content(1), { ...QUICK, silenceMs: 10, silencesMax: 3 })).done).toMatchObject({
    ok: true,
  });
});

test("a full disk is not filled again and again: the part goes, and the sender gives up", async () => {
  const wire = link();
  let writes = 0;
  wire.disk.before = ({ kind }) => {
    if (kind === "write" && ++writes > 3) throw diskError("ENOSPC");
  };
  const sent = await (await wire.send(content(1), { ...QUICK, silencesMax: 3 })).done;
  expect(sent).toEqual({ ok: false, error: "the peer does not answer" });
  expect(writes).toBe(4);
  expect(await wire.disk.list("/to")).toEqual([]);
});

test("the sender's file may be removed meanwhile", async () => {
  const wire = link();
  const bytes = content(1);
  const disk = await diskWith(wire.snapshot.path, bytes);
  wire.chunkArrives = ({ offset }) => {
    if (offset === 2 * SNAPSHOT_CHUNK_BYTES) void disk.remove(wire.snapshot.path);
    return 1;
  };
  expect(await wire.sendFrom(disk).done).toMatchObject({ ok: true });
  wire.expectReceived(bytes);
});

test("a transfer that is ended, or whose file is gone, says so", async () => {
  const wire = link();
  const sender = await wire.send(content(1));
  sender.abort();
  expect(await sender.done).toEqual({ ok: false, error: "the transfer was ended" });
  expect(await wire.sendFrom(new MemoryDisk()).done).toMatchObject({ ok: false });
});

test("a peer that holds as much needs not a byte, and one of a later term does not listen", async () => {
  const ahead = link();
  ahead.appliedIndex = 500;
  expect(await (await ahead.send(content(1))).done).toMatchObject({ ok: true });
  expect(ahead.bytesSent()).toBe(0);
  expect(ahead.received).toEqual([]);
  const later = link();
  later.term = 4;
  expect(await (await later.send(content(1), { ...QUICK, silencesMax: 2 })).done).toMatchObject({ ok: false });
  expect(await later.disk.list("/to")).toEqual([]);
});

test("pieces that can't be are not heard", async () => {
  const wire = link();
  const chunk = { type: "snapshot-chunk", term: 3, point, offset: 0, total: 100, crc: 0 } as const;
  const bytes = new Uint8Array(10);
  wire.receiver.chunk("n1", { ...chunk, bytes, offset: 95 });
  wire.receiver.chunk("n1", { ...chunk, bytes, offset: -1 });
  wire.receiver.chunk("n1", { ...chunk, bytes, total: Number.NaN });
  wire.receiver.chunk("n1", { ...chunk, bytes, total: 2 ** 50 });
  wire.receiver.chunk("n1", { ...chunk, bytes, point: { ...point, index: 0.5 } });
  wire.receiver.chunk("n1", { ...chunk, bytes: new Uint8Array(SNAPSHOT_CHUNK_BYTES + 1), total: 1e9 });
  await wire.receiver.close();
  expect(wire.disk.operations).toBe(0);
});
