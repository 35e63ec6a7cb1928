/**
 * A load generator over plain sockets: each connection sends the same bytes again as soon as the answer is whole. It does as little
 * as can be, so that what is measured is the server.
 */
import type { Socket } from "bun";

export interface Load {
  readonly requestsPerSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly bytesPerAnswer: number;
}

interface Connection {
  socket: Socket<Connection>;
  startedAt: number;
  /** Bytes of the current answer still to come; -1 while its head is incomplete. */
  rest: number;
  head: Buffer;
}

/**
 * Sends `request` over `connections` connections for `durationMs` after `warmUpMs`.
 * @throws when an answer's status is not 200, or a connection breaks
 */
export async function load(
  port: number,
  request: Uint8Array,
  options: { readonly connections: number; readonly durationMs: number; readonly warmUpMs: number },
): Promise<Load> {
  const times: number[] = [];
  let measuring = false;
  let stopped = false;
  let bytesPerAnswer = 0;
  let failed: Error | undefined;

  const send = (connection: Connection) => {
    connection.startedAt = performance.now();
    connection.rest = -1;
    connection.head = Buffer.alloc(0);
    const written = connection.socket.write(request);
    if (written !== request.byteLength) failed ??= new Error("the request did not fit in the socket's buffer");
  };
  const receive = (connection: Connection, chunk: Buffer) => {
    if (connection.rest < 0) {
      const head = connection.head.length === 0 ? chunk : Buffer.concat([connection.head, chunk]);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) {
        connection.head = Buffer.from(head);
        return;
      }
      const text = head.toString("latin1", 0, end);
      if (!text.startsWith("HTTP/1.1 200"))
        failed ??= new Error(`an answer was ${text.split("\r\n")[0]}: ${head.toString("latin1", end)}`);
      const length = Number(/content-length: *(\d+)/i.exec(text)?.[1]);
      if (!Number.isInteger(length)) failed ??= new Error("an answer has no Content-Length");
      bytesPerAnswer = length;
      connection.rest = length - (head.length - end - 4);
    } else connection.rest -= chunk.length;
    if (connection.rest > 0 || failed) return;
    if (measuring) times.push(performance.now() - connection.startedAt);
    if (!stopped) send(connection);
  };

  const open: Connection[] = [];
  for (let i = 0; i < options.connections; i++) {
    const connection = { startedAt: 0, rest: -1, head: Buffer.alloc(0) } as unknown as Connection;
    connection.socket = await Bun.connect<Connection>({
      hostname: "127.0.0.1",
      port,
      data: connection,
      socket: {
        data: (socket, chunk) => receive(socket.data, chunk),
        error: (_socket, error) => {
          failed ??= error;
        },
        close: () => {
          if (!stopped) failed ??= new Error("the server closed a connection");
        },
      },
    });
    open.push(connection);
  }
  for (const connection of open) send(connection);
  await Bun.sleep(options.warmUpMs);
  measuring = true;
  const started = performance.now();
  await Bun.sleep(options.durationMs);
  const seconds = (performance.now() - started) / 1000;
  measuring = false;
  stopped = true;
  for (const connection of open) connection.socket.end();
  if (failed) throw failed;
  times.sort((a, b) => a - b);
  return {
    requestsPerSecond: times.length / seconds,
    p50: percentile(times, 0.5),
    p99: percentile(times, 0.99),
    bytesPerAnswer,
  };
}

/** The value below which a share of the sorted values lies; NaN of none. */
export const percentile = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;

/** An HTTP/1.1 request as bytes. */
export function httpRequest(method: string, path: string, headers: Record<string, string>, body: string): Uint8Array {
  const lines = Object.entries({ ...headers, "content-length": String(Buffer.byteLength(body)) }).map(
    ([k, v]) => `${k}: ${v}`,
  );
  return Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n${body}`);
}
