/**
 * One node's connection to one peer: made, made again when it breaks, and written to. Frames go out on it, only pongs come
 * back; the peer's own frames come on the connection that the peer makes. See tcp-transport.ts for the whole.
 */
import { assert } from "../../lib/assert.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import type { PeerId } from "../raft/types.ts";
import type { WireFrame } from "./frame-format.ts";
import { FrameReader } from "./frame-reader.ts";
import { FrameQueue } from "./frame-writer.ts";
import { dial, type Handshake, type Identity } from "./handshake.ts";
import type { PeerAddress, Tls, TransportLimits, TransportStats } from "./tcp-transport.ts";

/** The DNS name in every node's certificate: one for all, since nodes are reached under whatever address they have today. */
export const TLS_SERVER_NAME = "node.hive.internal";

/**
 * An attempt that hangs (nobody answers, not even with a refusal) can't be taken back; the kernel gives it up after two
 * minutes. Meanwhile others are made, up to this many.
 */
const ATTEMPTS_MAX = 8;
/** A turn that has this much to say says it before its end: the peer can begin, and the queue stays within one block. */
const WRITE_BYTES = 128 * 1024;

export type LinkOptions = {
  readonly self: Identity;
  readonly peer: PeerId;
  readonly address: PeerAddress;
  readonly tls: Tls | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limits: TransportLimits;
  readonly stats: TransportStats;
  /** What was sent to the peer may be lost. Not called from within `send`. */
  readonly unreachable: () => void;
};

type Socket = Bun.Socket<undefined>;

/** What one attempt came to. */
type Ended = { readonly wasOpenMs: number | undefined; readonly why: string };

/**
 *   waiting   no connection, and the next attempt is some time away: frames are dropped, since they would be stale
 *   dialing   an attempt is made: frames wait for it, at most `handshakeTicks`
 *   open      both sides proved themselves: frames go out
 */
type Phase = "waiting" | "dialing" | "open" | "closed";

export class PeerLink {
  readonly #options: LinkOptions;
  readonly #queue: FrameQueue;
  #phase: Phase = "waiting";
  #socket: Socket | undefined;
  /** Ends the current attempt or connection. */
  #end: (why: string) => void = () => {};
  #attempts = 0;
  #nap = new AbortController();
  /** Ticks since the peer gave a sign of life, or since the attempt began. */
  #ticks = 0;
  #pings = 0;
  /** The socket took less than it was given: `drain` comes. */
  #isBlocked = false;
  #isFlushDue = false;
  /** Frames were dropped, and nobody was told yet. */
  #hasLost = false;
  #isOverflowing = false;
  /** One line for each time that the peer goes away, not for each attempt. */
  #isGoneLogged = false;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#queue = new FrameQueue({ from: options.self.id, to: options.peer }, options.limits.queueBytesMax);
    void this.#stayConnected();
  }

  get address(): PeerAddress {
    return this.#options.address;
  }

  get isOpen(): boolean {
    return this.#phase === "open";
  }

  send(frame: WireFrame): void {
    const { stats } = this.#options;
    if (this.#phase === "waiting" || this.#phase === "closed") {
      stats.framesDropped++;
      this.#hasLost = true;
      return;
    }
    const pushed = this.#queue.push(frame);
    if (pushed === "ok") {
      stats.framesSent++;
      if (this.#phase !== "open" || this.#isBlocked) return;
      if (this.#queue.length >= WRITE_BYTES) this.#flush();
      else this.#flushSoon();
      return;
    }
    stats.framesDropped++;
    if (pushed === "too-large") {
      this.#options.log.error("transport.frame_too_large", { peer: this.#options.peer, type: frame.type });
    } else if (!this.#isOverflowing) {
      this.#isOverflowing = true;
      queueMicrotask(this.#options.unreachable);
    }
  }

  /** There is reason to believe that the peer is there: tries at once, if it would have waited or waits for an answer. */
  poke(): void {
    this.#nap.abort();
    if (this.#phase === "dialing" && this.#ticks > 0) this.#end("an attempt took long, while the peer is there");
  }

  /** To be called at a steady pace: it asks the peer for a sign of life, and gives up what gave none. */
  tick(): void {
    if (this.#phase !== "dialing" && this.#phase !== "open") return;
    const { limits } = this.#options;
    this.#ticks++;
    if (this.#phase === "dialing") {
      if (this.#ticks > limits.handshakeTicks) this.#end("the peer did not answer in time");
    } else if (this.#ticks > limits.silentTicks) this.#end("the peer gives no sign of life");
    else this.send({ type: "ping", number: ++this.#pings });
  }

  /** For good. What was sent in this turn of the event loop still goes out, as far as the socket takes it. */
  close(): void {
    if (this.#phase === "open") this.#flush();
    this.#phase = "closed";
    this.#nap.abort();
    this.#end("closed");
  }

  async #stayConnected(): Promise<void> {
    const { clock, limits, log, peer, address, stats } = this.#options;
    let failures = 0;
    for (;;) {
      this.#nap = new AbortController();
      const { wasOpenMs, why } = await this.#connect();
      if (this.#isClosed()) return;
      this.#phase = "waiting";
      if (this.#queue.length > 0) this.#hasLost = true;
      this.#queue.clear();
      this.#isBlocked = this.#isOverflowing = false;
      if (wasOpenMs !== undefined) stats.connectionsBroken++;
      if (wasOpenMs !== undefined || !this.#isGoneLogged) {
        log.info("transport.peer_unreachable", { peer, host: address.host, port: address.port, why });
      }
      this.#isGoneLogged = true;
      // A connection that lasts no longer than a pause is one more failure: two nodes under one id would take turns.
      failures = wasOpenMs !== undefined && wasOpenMs > limits.retryMaxMs ? 0 : failures + 1;
      if (wasOpenMs !== undefined || this.#hasLost) {
        this.#hasLost = false;
        this.#options.unreachable();
        if (this.#isClosed()) return;
      }
      await clock.sleep(this.#pauseMs(failures), this.#nap.signal);
      if (this.#isClosed()) return;
      // What was sent during the pause is lost, even if the next attempt succeeds.
      if (this.#hasLost) {
        this.#hasLost = false;
        this.#options.unreachable();
        if (this.#isClosed()) return;
      }
    }
  }

  #isClosed(): boolean {
    return this.#phase === "closed";
  }

  /** Doubles from retryMs to retryMaxMs, and of that between half and all, by chance: nodes don't fall into step. */
  #pauseMs(failures: number): number {
    const { retryMs, retryMaxMs } = this.#options.limits;
    const ms = Math.min(retryMaxMs, retryMs * 2 ** Math.min(failures, 20));
    return ms / 2 + (ms / 2) * (this.#options.random.bytes(1)[0]! / 255);
  }

  /** One connection from the first packet to its end. */
  #connect(): Promise<Ended> {
    const { self, peer, address, tls, clock, random, stats } = this.#options;
    if (this.#attempts >= ATTEMPTS_MAX) {
      return Promise.resolve({ wasOpenMs: undefined, why: "earlier attempts hang" });
    }
    return new Promise((resolve) => {
      let isOver = false;
      let openedAt: number | undefined;
      let own: Socket | undefined;
      const end = (why: string) => {
        if (isOver) return;
        isOver = true;
        this.#socket = undefined;
        own?.close(); // with a FIN: what the socket took before still arrives
        resolve({ wasOpenMs: openedAt === undefined ? undefined : clock.monotonicMs() - openedAt, why });
      };
      this.#end = end;
      this.#phase = "dialing";
      this.#ticks = 0;
      this.#attempts++;
      stats.dials++;
      let isPending = true;
      const settled = () => {
        if (isPending) this.#attempts--;
        isPending = false;
      };

      const { hello, handshake } = dial(self, peer, random);
      const reader = new FrameReader({ from: peer, to: self.id });
      const greet = (socket: Socket) => {
        if (socket.write(hello) !== hello.length) end("the hello did not go out");
      };
      const receive = (socket: Socket, chunk: Uint8Array) => {
        if (openedAt !== undefined) return this.#hear(reader, chunk);
        if (!this.#shakeHands(handshake, socket, chunk)) return;
        openedAt = clock.monotonicMs();
        this.#opened(socket);
      };

      Bun.connect<undefined>({
        hostname: address.host,
        port: address.port,
        ...(tls && {
          tls: { key: tls.key, cert: tls.cert, ca: tls.ca, serverName: TLS_SERVER_NAME, rejectUnauthorized: true },
        }),
        socket: {
          binaryType: "uint8array",
          open: (socket) => {
            settled();
            if (isOver) {
              socket.close();
              this.poke(); // late, but the peer is there
              return;
            }
            own = socket;
            socket.setNoDelay(true);
            if (!tls) greet(socket);
          },
          handshake: (socket, success, error) => {
            if (isOver) return;
            if (success && !error && socket.authorized) greet(socket);
            else {
              stats.refused.tls++;
              end(`TLS: ${error?.message ?? "the peer's certificate is not accepted"}`);
            }
          },
          data: (socket, chunk: Uint8Array) => {
            if (!isOver) receive(socket, chunk);
          },
          drain: () => {
            if (isOver || openedAt === undefined) return;
            this.#ticks = 0; // the peer took something
            this.#isBlocked = false;
            this.#flush();
          },
          close: () => end("the connection was closed"),
          error: (_socket, error) => end(error.message),
          connectError: (_socket, error) => {
            settled();
            end(error.message);
          },
        },
      }).catch((cause: unknown) => {
        settled();
        end(cause instanceof Error ? cause.message : String(cause));
      });
    });
  }

  /** @returns whether it is complete with this chunk */
  #shakeHands(handshake: Handshake, socket: Socket, chunk: Uint8Array): boolean {
    const step = handshake.receive(chunk);
    if (step.send && socket.write(step.send) !== step.send.length) this.#end("the handshake did not go out");
    if (step.state === "refused") {
      this.#options.stats.refused[step.reason]++;
      this.#end(step.message);
    }
    return step.state === "done";
  }

  #opened(socket: Socket): void {
    const { log, peer, address } = this.#options;
    assert(this.#phase === "dialing", "a connection opens once");
    this.#phase = "open";
    this.#socket = socket;
    this.#nap = new AbortController(); // to have been poked is of the past
    this.#ticks = 0;
    this.#isGoneLogged = false;
    log.info("transport.connected", { peer, host: address.host, port: address.port });
    this.#flush();
  }

  /** The peer says nothing here but pongs; what a newer one adds is passed over. */
  #hear(reader: FrameReader, chunk: Uint8Array): void {
    const { frames, refusal } = reader.read(chunk);
    if (frames.length > 0) this.#ticks = 0;
    if (refusal) {
      this.#options.stats.refused[refusal]++;
      this.#end(`the peer's answer is ${refusal}`);
    }
  }

  #flushSoon(): void {
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    queueMicrotask(this.#flush);
  }

  readonly #flush = (): void => {
    this.#isFlushDue = false;
    if (this.#phase !== "open" || this.#isBlocked) return;
    this.#isBlocked = !this.#queue.drain(this.#write);
    if (!this.#isBlocked) this.#isOverflowing = false;
  };

  readonly #write = (bytes: Uint8Array<ArrayBuffer>, offset: number, length: number): number => {
    const written = this.#socket?.write(bytes, offset, length) ?? -1;
    if (written > 0) this.#options.stats.bytesSent += written;
    this.#options.stats.writes++;
    return written;
  };
}
