/**
 * A load generator over plain sockets: each connection sends its next request as soon as the answer is whole. It does as little
 * as can be, so that what is measured is the server: the head of the first answer is parsed, and every later one has to
 * begin with the same status and be as long. Its own processor time is reported, to see whether it was the limit.
 */
import type { Socket } from "bun";
import { processTime } from "./processor-time.ts";

export interface Load {
  readonly requestsPerSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly bytesPerAnswer: number;
  /** The generator's processor time by wall time; near 1 it was the limit and not the server. */
  readonly generatorBusy: number;
  /** The server's processor time for one call, in microseconds. */
  readonly serverUs: number;
}

export interface LoadOptions {
  readonly server: { readonly port: number; readonly pid: number };
  readonly connections: number;
  readonly durationMs: number;
  readonly warmUpMs: number;
}

interface Connection {
  startedAt: number;
  /** Bytes of the current answer so far. */
  received: number;
}

const TIMES_MAX = 2_000_000;
const STATUS = Buffer.from("HTTP/1.1 200");

/**
 * Sends `request` over and over.
 * @throws when an answer's status is not 200, its length is another than the first's, or a connection breaks
 */
export async function load(request: Uint8Array, options: LoadOptions): Promise<Load> {
  const { server, connections, durationMs, warmUpMs } = options;
  const { port, pid } = server;
  const times = new Float64Array(TIMES_MAX);
  let count = 0;
  let measuring = false;
  let stopped = false;
  const answer = await firstAnswer(port, request);
  const bytesPerAnswer = answer.byteLength;
  let failed: Error | undefined;

  const send = (socket: Socket<Connection>): void => {
    socket.data.startedAt = performance.now();
    socket.data.received = 0;
    if (socket.write(request) !== request.byteLength) failed ??= new Error("the request did not fit in the socket");
  };
  const receive = (socket: Socket<Connection>, chunk: Buffer): void => {
    const { data } = socket;
    if (data.received === 0 && STATUS.compare(chunk, 0, STATUS.length) !== 0)
      failed ??= new Error(`an answer was ${chunk.toString("latin1", 0, 500)}`);
    data.received += chunk.length;
    if (data.received < bytesPerAnswer || failed) return;
    if (data.received > bytesPerAnswer) failed ??= new Error("an answer is longer than the first");
    if (measuring && count < TIMES_MAX) times[count++] = performance.now() - data.startedAt;
    if (!stopped) send(socket);
  };

  const open = await Promise.all(
    Array.from({ length: connections }, () =>
      Bun.connect<Connection>({
        hostname: "127.0.0.1",
        port,
        data: { startedAt: 0, received: 0 },
        socket: {
          data: receive,
          error: (_socket, error) => {
            failed ??= error;
          },
          close: () => {
            if (!stopped) failed ??= new Error("the server closed a connection");
          },
        },
      }),
    ),
  );
  for (const socket of open) send(socket);
  await Bun.sleep(warmUpMs);
  measuring = true;
  const cpu = process.cpuUsage();
  const serverBefore = processTime(pid);
  const started = performance.now();
  await Bun.sleep(durationMs);
  const wallMs = performance.now() - started;
  const used = process.cpuUsage(cpu);
  const serverMs = processTime(pid) - serverBefore;
  measuring = false;
  stopped = true;
  for (const socket of open) socket.end();
  if (failed) throw failed;
  if (count === 0) throw new Error("no answer came within the time");
  const sorted = times.subarray(0, count).sort();
  return {
    requestsPerSecond: (count * 1000) / wallMs,
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    bytesPerAnswer,
    generatorBusy: (used.user + used.system) / 1000 / wallMs,
    serverUs: (serverMs * 1000) / count,
  };
}

/**
 * Sends each of `requests` once, over `connections` at a time, and gives the times to their answers, sorted, in milliseconds.
 * @throws when an answer's status is not 200
 */
export async function times(
  port: number,
  requests: readonly Uint8Array[],
  connections: number,
): Promise<readonly number[]> {
  const waiting = [...requests].reverse();
  const took: number[] = [];
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const exchange = await openExchange(port);
      for (let next = waiting.pop(); next; next = waiting.pop()) {
        const started = performance.now();
        checkStatus(await exchange.send(next));
        took.push(performance.now() - started);
      }
      exchange.close();
    }),
  );
  return took.sort((a, b) => a - b);
}

/** One request over a connection of its own. @returns the whole answer, head and all @throws as `load` */
export async function firstAnswer(port: number, request: Uint8Array): Promise<Buffer> {
  const exchange = await openExchange(port);
  try {
    return checkStatus(await exchange.send(request));
  } finally {
    exchange.close();
  }
}

/** What follows an answer's head. */
export const bodyOf = (answer: Buffer): Buffer => answer.subarray(answer.indexOf("\r\n\r\n") + 4);

function checkStatus(answer: Buffer): Buffer {
  if (STATUS.compare(answer, 0, STATUS.length) !== 0) throw new Error(`an answer was ${answer.toString()}`);
  return answer;
}

interface Exchange {
  send(request: Uint8Array): Promise<Buffer>;
  close(): void;
}

/** A connection that sends one request after another. Answers need a Content-Length. @throws when nobody listens */
export async function openExchange(port: number): Promise<Exchange> {
  let chunks: Buffer[] = [];
  let wanted = -1;
  let done: ((answer: Buffer) => void) | undefined;
  let broken: ((cause: Error) => void) | undefined;
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(_socket, chunk) {
        chunks.push(Buffer.from(chunk));
        let whole = chunks.length === 1 ? chunks[0]! : undefined;
        if (wanted < 0) {
          whole ??= Buffer.concat(chunks);
          const end = whole.indexOf("\r\n\r\n");
          const length = end < 0 ? undefined : /content-length: *(\d+)/i.exec(whole.toString("latin1", 0, end))?.[1];
          if (length === undefined) return;
          wanted = end + 4 + Number(length);
        }
        if (chunks.reduce((sum, part) => sum + part.length, 0) < wanted) return;
        done?.(whole ?? Buffer.concat(chunks));
      },
      error: (_socket, cause) => broken?.(cause),
      close: () => broken?.(new Error("the server closed the connection")),
    },
  });
  return {
    send: (request) =>
      new Promise((resolve, reject) => {
        chunks = [];
        wanted = -1;
        done = resolve;
        broken = reject;
        socket.write(request);
      }),
    close() {
      broken = undefined;
      socket.end();
    },
  };
}

/** The value below which a share of the sorted values lies; NaN of none. */
export const percentile = (sorted: ArrayLike<number>, share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;

export const median = (values: readonly number[]): number =>
  percentile(
    [...values].sort((a, b) => a - b),
    0.5,
  );
