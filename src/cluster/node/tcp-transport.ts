/**
 * Frames between nodes over TCP.
 *
 * Every node listens, and keeps one connection to every peer in its address book, made anew when it breaks. A connection
 * carries frames one way, from the node that made it; so two nodes have two, and neither has to decide whose counts.
 * If a peer connects again, its new connection takes the place of the old one.
 *
 * Nothing is taken before both ends proved that they hold the cluster's secret (handshake.ts): until then a connection has
 * a bounded time and 1 KiB, and of such connections there is a bounded number, the oldest of which gives way. After it,
 * a peer is trusted to be a member, yet not to be without defects: frames are bounded and checked (frame-reader.ts).
 * TLS on both sides, with certificates of the cluster's own authority, keeps what is said from being read or altered on
 * the way. Without it, the proof holds for the opening of a connection only, so TLS is required where packets leave the
 * host; plain TCP is for nodes on one machine, and for tests.
 *
 * Sending: what is sent within one turn of the event loop leaves in one write, at its end. Measured against `setImmediate`
 * (the end of the loop's round), the microtask gave the same throughput, and a lone frame its earliest departure. What
 * the socket does not take waits in memory up to a bound, and then the newest frames are dropped: Raft sends again what
 * was lost, and is told (`unreachable`). While there is no connection, frames are dropped at once: to hold back a vote
 * or a request that nobody waits for any more is worse than to lose it.
 *
 * A peer that is gone without a word (power cut, cable) is found out by pings: every tick, each connection carries one, and the
 * other end answers on the same connection. Raft's heartbeats alone would not do, since their answers come on the other
 * connection: one whose far end forgot it would swallow frames until the kernel gives up, after up to 15 minutes.
 * Ticks are counted, not time, so that a process that was stopped for a while does not take its own sleep for silence.
 */
import { assert } from "../../lib/assert.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { PeerId } from "../raft/types.ts";
import { FrameReader, type FrameRefusal } from "./frame-reader.ts";
import { encodeFrame } from "./frame-writer.ts";
import { accept, type Handshake, type Identity, REFUSALS, type Refusal } from "./handshake.ts";
import { PeerLink, TLS_SERVER_NAME } from "./peer-link.ts";
import { FRAME_BYTES_MAX, type Transport } from "./transport.ts";

export type PeerAddress = { readonly host: string; readonly port: number };

/**
 * PEM texts: this node's key and certificate, and the authority that signs those of all nodes. A node's certificate names
 * TLS_SERVER_NAME; which node it is, the handshake says.
 */
export type Tls = { readonly key: string; readonly cert: string; readonly ca: string };

export type TransportLimits = {
  /** Bytes that may wait for one peer. At least FRAME_BYTES_MAX. */
  readonly queueBytesMax: number;
  /** Connections that have not proved themselves yet. */
  readonly pendingMax: number;
  /** Connections of members; one for each id. */
  readonly inboundMax: number;
  readonly tickMs: number;
  /** A connection has this many ticks to be made and prove itself, */
  readonly handshakeTicks: number;
  /** and is given up after this many without a sign of life. */
  readonly silentTicks: number;
  /** The pause before a connection is made again: the first, and the longest. */
  readonly retryMs: number;
  readonly retryMaxMs: number;
};

export const TRANSPORT_LIMITS: TransportLimits = {
  queueBytesMax: 2 * FRAME_BYTES_MAX,
  pendingMax: 64,
  inboundMax: 256,
  tickMs: 1000,
  handshakeTicks: 3,
  silentTicks: 3,
  retryMs: 10,
  retryMaxMs: 1000,
};

export type TcpTransportOptions = {
  readonly self: Identity;
  /** Where to listen; port 0 for any. */
  readonly hostname: string;
  readonly port: number;
  readonly tls?: Tls;
  /** Whether a node that proved itself may speak, though it is not in the address book (one that joins). */
  readonly admit?: (id: PeerId) => boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limits?: Partial<TransportLimits>;
};

/** `timeout`: no proof in time. `crowded`: the oldest of too many without one. `tls`: no certificate that counts. */
export type ConnectionRefusal = Refusal | FrameRefusal | "timeout" | "crowded" | "tls";
const CONNECTION_REFUSALS = [
  ...REFUSALS,
  "oversized",
  "damaged",
  "malformed",
  "timeout",
  "crowded",
  "tls",
] as const satisfies readonly ConnectionRefusal[];

/** Counted since the start, but for the first three, which are as of now. */
export type TransportStats = {
  /** Peers that can be sent to. */
  peersConnected: number;
  /** Members that are connected to this node. */
  inbound: number;
  /** Connections that have not proved themselves yet. */
  pending: number;
  framesSent: number;
  framesReceived: number;
  /** Frames that were not sent: no connection, too many, or too large. */
  framesDropped: number;
  /** Frames of kinds that are not known here. */
  framesSkipped: number;
  writes: number;
  bytesSent: number;
  bytesReceived: number;
  dials: number;
  connectionsBroken: number;
  /** Connections that came to nothing or were closed, whichever side made them, by the reason given here or there. */
  readonly refused: Record<ConnectionRefusal, number>;
};

export interface TcpTransport extends Transport {
  /** The port that it listens on. */
  readonly port: number;
  /** Where the peers are, from now on. Connections to and from those that are no longer named are closed. */
  setPeers(peers: ReadonlyMap<PeerId, PeerAddress>): void;
  stats(): Readonly<TransportStats>;
}

/** Listens. Connections are made, and frames are handed on, once `listen` and `setPeers` were called. */
export function openTcpTransport(options: TcpTransportOptions): Result<TcpTransport, string> {
  const transport = new Sockets(options);
  const opened = transport.open();
  return opened.ok ? ok(transport) : opened;
}

type Handlers = Parameters<Transport["listen"]>[0];
type Socket = Bun.Socket<Inbound>;

type Proven = { readonly peer: PeerId; readonly reader: FrameReader };

/** A connection that another node made. */
type Inbound = {
  readonly socket: Socket;
  readonly handshake: Handshake;
  /** Once it proved itself. */
  proven: Proven | undefined;
  /** TLS is up, and the certificate counts. */
  isEncrypted: boolean;
  /** Ticks since it was made, or since something came. */
  ticks: number;
  isClosed: boolean;
};

class Sockets implements TcpTransport {
  readonly #options: TcpTransportOptions;
  readonly #limits: TransportLimits;
  readonly #stats: TransportStats = {
    peersConnected: 0,
    inbound: 0,
    pending: 0,
    framesSent: 0,
    framesReceived: 0,
    framesDropped: 0,
    framesSkipped: 0,
    writes: 0,
    bytesSent: 0,
    bytesReceived: 0,
    dials: 0,
    connectionsBroken: 0,
    refused: Object.fromEntries(CONNECTION_REFUSALS.map((reason) => [reason, 0])) as Record<ConnectionRefusal, number>,
  };
  readonly #stopping = new AbortController();
  readonly #quiet: QuietLog;
  #listener: Bun.TCPSocketListener<Inbound> | undefined;
  #handlers: Handlers | undefined;
  #peers: ReadonlyMap<PeerId, PeerAddress> = new Map();
  readonly #links = new Map<PeerId, PeerLink>();
  readonly #pending = new Set<Inbound>();
  readonly #inbound = new Map<PeerId, Inbound>();

  constructor(options: TcpTransportOptions) {
    this.#options = options;
    this.#limits = { ...TRANSPORT_LIMITS, ...options.limits };
    this.#quiet = new QuietLog(options.log, options.clock);
  }

  open(): Result<void, string> {
    const { hostname, port, tls, log, self } = this.#options;
    try {
      this.#listener = Bun.listen<Inbound>({
        hostname,
        port,
        ...(tls && {
          tls: { key: tls.key, cert: tls.cert, ca: tls.ca, requestCert: true, rejectUnauthorized: true },
        }),
        socket: {
          binaryType: "uint8array",
          open: (socket) => this.#opened(socket),
          handshake: (socket, success, error) => {
            const isNode = () => socket.getPeerX509Certificate().checkHost(TLS_SERVER_NAME) !== undefined;
            if (success && !error && socket.authorized && isNode()) socket.data.isEncrypted = true;
            else this.#refuse(socket.data, "tls", error?.message ?? "the certificate is not a node's");
          },
          data: (socket, chunk: Uint8Array) => this.#received(socket.data, chunk),
          close: (socket) => this.#closed(socket.data),
          error: (socket, error) => {
            this.#quiet.warn("transport.connection_failed", "error", { message: error.message });
            if (socket.data) this.#close(socket.data);
          },
        },
      });
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      return fail(`can't listen for other nodes on ${hostname} port ${port}: ${why}`);
    }
    if (!tls && !isLoopback(hostname)) log.warn("transport.not_encrypted", { hostname });
    log.info("transport.listening", { id: self.id, hostname, port: this.port, tls: tls !== undefined });
    void this.#keepTime();
    return ok(undefined);
  }

  get port(): number {
    assert(this.#listener, "the transport is open");
    return this.#listener.port;
  }

  listen(handlers: Handlers): void {
    assert(!this.#handlers, "handlers are set once");
    this.#handlers = handlers;
    this.setPeers(this.#peers);
  }

  send(to: PeerId, frame: Parameters<Transport["send"]>[1]): void {
    const link = this.#links.get(to);
    if (link) link.send(frame);
    else this.#stats.framesDropped++;
  }

  setPeers(peers: ReadonlyMap<PeerId, PeerAddress>): void {
    this.#peers = new Map(peers);
    if (!this.#handlers || this.#stopping.signal.aborted) return;
    for (const [id, link] of this.#links) {
      const address = this.#peers.get(id);
      if (address?.host === link.address.host && address.port === link.address.port) continue;
      link.close();
      this.#links.delete(id);
    }
    for (const [id, inbound] of this.#inbound) if (this.#admission(id) === "stranger") this.#close(inbound);
    const { self, tls, clock, random, log } = this.#options;
    for (const [peer, address] of this.#peers) {
      if (peer === self.id || this.#links.has(peer)) continue;
      const link = new PeerLink({
        ...{ self, peer, address, tls, clock, random, log, limits: this.#limits, stats: this.#stats },
        unreachable: () => {
          if (this.#links.get(peer) === link) this.#tell((handlers) => handlers.unreachable(peer));
        },
      });
      this.#links.set(peer, link);
    }
  }

  stats(): Readonly<TransportStats> {
    let peersConnected = 0;
    for (const link of this.#links.values()) if (link.isOpen) peersConnected++;
    return {
      ...this.#stats,
      refused: { ...this.#stats.refused },
      peersConnected,
      inbound: this.#inbound.size,
      pending: this.#pending.size,
    };
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    for (const link of this.#links.values()) link.close();
    this.#links.clear();
    this.#listener?.stop(true);
  }

  /** The one timer of all connections. */
  async #keepTime(): Promise<void> {
    const { signal } = this.#stopping;
    const { tickMs, handshakeTicks, silentTicks } = this.#limits;
    for (;;) {
      await this.#options.clock.sleep(tickMs, signal);
      if (signal.aborted) return;
      for (const link of this.#links.values()) link.tick();
      for (const inbound of this.#pending) {
        if (++inbound.ticks > handshakeTicks) this.#refuse(inbound, "timeout", "it did not prove itself in time");
      }
      for (const inbound of this.#inbound.values()) if (++inbound.ticks > silentTicks) this.#close(inbound);
    }
  }

  /** Whether a node that proved itself may speak. */
  #admission(id: PeerId): "stranger" | "full" | undefined {
    if (id === this.#options.self.id) return "stranger";
    if (!this.#peers.has(id) && !this.#options.admit?.(id)) return "stranger";
    return this.#inbound.has(id) || this.#inbound.size < this.#limits.inboundMax ? undefined : "full";
  }

  #opened(socket: Socket): void {
    const { self, random } = this.#options;
    const handshake = accept(self, (id) => this.#admission(id), random);
    const inbound: Inbound = { socket, handshake, proven: undefined, isEncrypted: false, ticks: 0, isClosed: false };
    socket.data = inbound;
    socket.setNoDelay(true);
    // An honest handshake takes two round trips: it is over long before as many others began as it takes to be pushed out.
    const [oldest] = this.#pending;
    if (oldest && this.#pending.size >= this.#limits.pendingMax) this.#refuse(oldest, "crowded", "too many beginners");
    this.#pending.add(inbound);
  }

  /** `Socket.close`: its `end` waits, under TLS, for the other side to close too, and with that undone `terminate` does nothing. */
  #close(inbound: Inbound): void {
    this.#closed(inbound);
    inbound.socket.close();
  }

  #closed(inbound: Inbound | undefined): void {
    if (!inbound || inbound.isClosed) return;
    inbound.isClosed = true;
    this.#pending.delete(inbound);
    if (inbound.proven && this.#inbound.get(inbound.proven.peer) === inbound) this.#inbound.delete(inbound.proven.peer);
  }

  /** Counts, says so (not too often), and closes. */
  #refuse(inbound: Inbound, reason: ConnectionRefusal, message: string, parting?: Uint8Array<ArrayBuffer>): void {
    if (inbound.isClosed) return;
    const { socket } = inbound;
    this.#stats.refused[reason]++;
    this.#quiet.warn("transport.refused", reason, { address: socket.remoteAddress, message });
    if (parting) socket.write(parting);
    this.#close(inbound);
  }

  #received(inbound: Inbound, chunk: Uint8Array): void {
    if (inbound.isClosed) return;
    this.#stats.bytesReceived += chunk.length;
    if (inbound.proven) this.#hear(inbound, inbound.proven, chunk);
    else this.#shakeHands(inbound, chunk);
  }

  #hear(inbound: Inbound, { peer, reader }: Proven, chunk: Uint8Array): void {
    inbound.ticks = 0;
    const { frames, skipped, lastSkipped, refusal } = reader.read(chunk);
    this.#stats.framesReceived += frames.length;
    for (const frame of frames) {
      if (inbound.isClosed) return;
      if (frame.type === "ping") this.#pong(inbound, peer, frame.number);
      else if (frame.type !== "pong" && !this.#tell((handlers) => handlers.frame(peer, frame))) this.#close(inbound);
    }
    if (skipped > 0) {
      this.#stats.framesSkipped += skipped;
      this.#quiet.warn("transport.frames_skipped", lastSkipped ?? "", { peer, count: skipped });
    }
    if (refusal) this.#refuse(inbound, refusal, `a frame of ${peer} is ${refusal}`);
  }

  /** @returns whether the handler did its work; a defect in it must not pass unseen, nor end the loop that found it */
  #tell(what: (handlers: Handlers) => void): boolean {
    try {
      if (this.#handlers) what(this.#handlers);
      return true;
    } catch (error) {
      this.#options.log.error("transport.handler_failed", { error });
      return false;
    }
  }

  #shakeHands(inbound: Inbound, chunk: Uint8Array): void {
    const { socket } = inbound;
    if (this.#options.tls && !inbound.isEncrypted) return; // it is on its way out
    const step = inbound.handshake.receive(chunk);
    if (step.state === "refused") this.#refuse(inbound, step.reason, step.message, step.send);
    else if (step.send && socket.write(step.send) !== step.send.length) {
      this.#refuse(inbound, "garbage", "it does not read its answers");
    } else if (step.state === "done") this.#proved(inbound, step.peer);
  }

  #proved(inbound: Inbound, peer: PeerId): void {
    this.#pending.delete(inbound);
    const former = this.#inbound.get(peer);
    inbound.proven = { peer, reader: new FrameReader({ from: peer, to: this.#options.self.id }) };
    inbound.ticks = 0;
    this.#inbound.set(peer, inbound);
    if (former) this.#close(former);
    this.#links.get(peer)?.poke();
  }

  /** A pong is smaller than any socket's buffer: who lets even that fill up is not reading. */
  #pong(inbound: Inbound, peer: PeerId, number: number): void {
    const pong = encodeFrame({ type: "pong", number }, { from: this.#options.self.id, to: peer });
    if (inbound.socket.write(pong) !== pong.length) this.#close(inbound);
  }
}

const isLoopback = (hostname: string): boolean => /^(localhost|127\.[0-9.]+|::1)$/.test(hostname);

const QUIET_MS = 1000;
const QUIET_KINDS_MAX = 64;

/** At most one line in QUIET_MS for each kind of event: who can make Hive log must not be able to flood the log. */
class QuietLog {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #kinds = new Map<string, { until: number; suppressed: number }>();

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  warn(event: string, reason: string, fields: { readonly [name: string]: unknown }): void {
    const now = this.#clock.monotonicMs();
    const key = this.#kinds.size < QUIET_KINDS_MAX || this.#kinds.has(reason) ? reason : "other";
    const last = this.#kinds.get(key);
    if (last && now < last.until) {
      last.suppressed++;
      return;
    }
    this.#kinds.set(key, { until: now + QUIET_MS, suppressed: 0 });
    this.#log.warn(event, { reason, ...fields, ...(last && last.suppressed > 0 && { suppressed: last.suppressed }) });
  }
}
