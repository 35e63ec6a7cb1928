/**
 * A network between named processes that can be broken: each ordered pair talks through a port of its own on loopback, and
 * what goes from one name to another can be held up, delayed or cut off.
 *
 * A cut works as it does on a real network under TCP: nothing passes and nobody is told; what was sent meanwhile arrives
 * when the cut is healed, if both ends still hold the connection by then. New connections are made (the proxy takes them),
 * and nothing comes through them.
 */
import { createServer, connect as dial, type Server, type Socket } from "node:net";

export type Address = { readonly host: string; readonly port: number };

export interface FaultyProxy {
  /** Listens. @returns the port under which `from` reaches `to` */
  link(from: string, to: string): Promise<number>;
  /** Where `to` listens. Until it is known, who connects is hung up on; connections that are there stay. */
  target(to: string, address: Address): void;
  /** Nothing passes between the two, in either direction, or only none from `a` to `b`. */
  cut(a: string, b: string, direction?: "both" | "one-way"): void;
  /** Cuts `name` off from all others. */
  isolate(name: string): void;
  /** Undoes every cut; delays stay. */
  heal(): void;
  /** What goes between the two, either way, takes so much longer. */
  delay(a: string, b: string, ms: number): void;
  /** Breaks all connections between the two. New ones can be made. */
  reset(a: string, b: string): void;
  close(): Promise<void>;
}

/** What is held for a direction that is cut or slow, before its sender feels it. */
const HELD_BYTES_MAX = 1024 * 1024;

export function faultyProxy(): FaultyProxy {
  const servers: Server[] = [];
  const targets = new Map<string, Address>();
  const connections = new Set<Connection>();
  const isolated = new Set<string>();
  const cuts = new Set<string>();
  const delays = new Map<string, number>();

  const direction = (from: string, to: string): string => JSON.stringify([from, to]);
  const way = (from: string, to: string): Way => ({
    isCut: () => isolated.has(from) || isolated.has(to) || cuts.has(direction(from, to)),
    delayMs: () => delays.get(direction(from, to)) ?? 0,
  });
  const wakeAll = () => {
    for (const connection of connections) connection.wake();
  };

  return {
    async link(from, to) {
      const server = createServer({ allowHalfOpen: true }, (client) => {
        const connection = new Connection(from, to, client, () => targets.get(to), way(from, to), way(to, from));
        connections.add(connection);
        connection.closed.then(() => connections.delete(connection));
      });
      servers.push(server);
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(0, "127.0.0.1", resolve);
      });
      const address = server.address();
      if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
      return address.port;
    },
    target(to, address) {
      targets.set(to, address);
    },
    cut(a, b, which = "both") {
      cuts.add(direction(a, b));
      if (which === "both") cuts.add(direction(b, a));
      wakeAll();
    },
    isolate(name) {
      isolated.add(name);
      wakeAll();
    },
    heal() {
      cuts.clear();
      isolated.clear();
      wakeAll();
    },
    delay(a, b, ms) {
      delays.set(direction(a, b), ms);
      delays.set(direction(b, a), ms);
      wakeAll();
    },
    reset(a, b) {
      for (const connection of connections) if (connection.isBetween(a, b)) connection.end();
    },
    async close() {
      for (const connection of connections) connection.end();
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    },
  };
}

/** The state of what goes from one name to another. */
type Way = { readonly isCut: () => boolean; readonly delayMs: () => number };

class Connection {
  readonly closed: Promise<void>;
  readonly #from: string;
  readonly #to: string;
  readonly #client: Socket;
  readonly #target: () => Address | undefined;
  readonly #there: Way;
  readonly #back: Way;
  #resolveClosed: () => void = () => {};
  #upstream: Socket | undefined;
  #pipes: Pipe[] = [];

  constructor(from: string, to: string, client: Socket, target: () => Address | undefined, there: Way, back: Way) {
    this.#from = from;
    this.#to = to;
    this.#client = client;
    this.#target = target;
    this.#there = there;
    this.#back = back;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    client.setNoDelay(true);
    client.on("error", () => this.end());
    client.pause();
    this.wake();
  }

  isBetween(a: string, b: string): boolean {
    return (this.#from === a && this.#to === b) || (this.#from === b && this.#to === a);
  }

  wake(): void {
    if (!this.#upstream && !this.#there.isCut()) this.#open();
    for (const pipe of this.#pipes) pipe.wake();
  }

  end(): void {
    this.#client.destroy();
    this.#upstream?.destroy();
    for (const pipe of this.#pipes) pipe.stop();
    this.#resolveClosed();
  }

  #open(): void {
    const address = this.#target();
    if (!address || this.#client.destroyed) {
      this.end();
      return;
    }
    const upstream = dial({ host: address.host, port: address.port, allowHalfOpen: true });
    this.#upstream = upstream;
    upstream.setNoDelay(true);
    upstream.on("error", () => this.end());
    upstream.on("connect", () => {
      const done = () => {
        if (this.#pipes.every((pipe) => pipe.isDone)) this.end();
      };
      this.#pipes = [
        new Pipe(this.#client, upstream, this.#there, done),
        new Pipe(upstream, this.#client, this.#back, done),
      ];
    });
  }
}

/** Passes on what comes from one socket to another, when its time has come; `undefined` stands for the end. */
class Pipe {
  isDone = false;
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #way: Way;
  readonly #done: () => void;
  readonly #held: { readonly bytes: Buffer | undefined; readonly since: number }[] = [];
  #heldBytes = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(from: Socket, to: Socket, way: Way, done: () => void) {
    this.#from = from;
    this.#to = to;
    this.#way = way;
    this.#done = done;
    from.on("data", (bytes) => this.#hold(typeof bytes === "string" ? Buffer.from(bytes) : bytes));
    from.on("end", () => this.#hold(undefined));
    to.on("drain", () => this.wake());
    from.resume();
  }

  wake(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#held.length > 0 && !this.#way.isCut() && !this.#to.writableNeedDrain) {
      const [next] = this.#held;
      if (!next) break;
      const waitMs = next.since + this.#way.delayMs() - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.wake(), waitMs);
        break;
      }
      this.#held.shift();
      if (next.bytes) {
        this.#heldBytes -= next.bytes.length;
        this.#to.write(next.bytes);
      } else {
        this.#to.end();
        this.isDone = true;
        this.#done();
        return;
      }
    }
    if (this.#heldBytes > HELD_BYTES_MAX) this.#from.pause();
    else this.#from.resume();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.isDone = true;
  }

  #hold(bytes: Buffer | undefined): void {
    if (this.isDone) return;
    this.#held.push({ bytes, since: performance.now() });
    this.#heldBytes += bytes?.length ?? 0;
    this.wake();
  }
}
