/** A plain client of the Redis protocol for tests of faults: it hides nothing, tries nothing again, and waits a bounded time. */
import type { Socket } from "bun";
import { RespParser } from "./resp-parser.ts";

export type Reply = string | number | null | Error | readonly Reply[];

type Waiting = { readonly resolve: (reply: Reply) => void; readonly reject: (error: Error) => void };

export class RedisClient {
  readonly #socket: Socket;
  readonly #waiting: Waiting[];

  private constructor(socket: Socket, waiting: Waiting[]) {
    this.#socket = socket;
    this.#waiting = waiting;
  }

  static async connect(port: number, timeoutMs = 1000): Promise<RedisClient> {
    const waiting: Waiting[] = [];
    const parser = new RespParser((reply) => waiting.shift()?.resolve(reply));
    const lost = () => {
      for (const { reject } of waiting.splice(0)) reject(new Error("the connection was lost"));
    };
    const connecting = Bun.connect({
      hostname: "127.0.0.1",
      port,
      socket: { data: (_socket, bytes) => parser.take(bytes), close: lost, error: lost, end: lost },
    });
    const socket = await withTimeout(connecting, timeoutMs);
    return new RedisClient(socket, waiting);
  }

  /** @throws when the connection breaks or no answer comes in time: the outcome is then unknown */
  ask(words: readonly string[], timeoutMs = 5000): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.#waiting.push({ resolve, reject });
    this.#socket.write(
      `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`,
    );
    return withTimeout(promise, timeoutMs);
  }

  close(): void {
    this.#socket.end();
  }
}

async function withTimeout<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in time")), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
