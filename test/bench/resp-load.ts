/**
 * A load of SETs or GETs over the Redis protocol, on plain sockets: each connection sends its next command (or pipeline) as
 * soon as the answers to the last are whole. It does as little as can be, so that what is measured is the server: commands are
 * encoded before it begins, and answers have to be as long as they should and to begin with the right byte. Any server of the
 * protocol can be loaded: Hive's configuration store, or a Redis beside it.
 *
 *   bun test/bench/resp-load.ts set|get HOST:PORT CONNECTIONS SECONDS KEYS VALUE_BYTES [PIPELINE [PID]]
 *
 * prints a JSON line; HIVE_ROOT_ACCESS_KEY_ID and HIVE_ROOT_SECRET_ACCESS_KEY, where they are set, are sent with AUTH.
 */
import type { Socket } from "bun";
import { percentile } from "./http-load.ts";
import { processTime } from "./processor-time.ts";

export interface RespLoadOptions {
  readonly hostname: string;
  readonly port: number;
  readonly command: "set" | "get";
  readonly connections: number;
  readonly durationMs: number;
  readonly warmUpMs: number;
  /** Keys that are written or read, each about as often. A load of GETs writes them first. */
  readonly keys: number;
  readonly valueBytes: number;
  /** Commands that a connection sends at once; 1 unless given. */
  readonly pipeline?: number;
  readonly auth?: { readonly user: string; readonly password: string };
  /** Reads what the node has, without asking whether there is more (Hive's READONLY). */
  readonly readLocally?: boolean;
  /** The server's process, to tell its processor time. */
  readonly pid?: number;
}

export interface RespLoad {
  readonly commandsPerSecond: number;
  /** Milliseconds from sending a command (or pipeline) to its whole answer. */
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  /** The generator's processor time by wall time; near 1 it was the limit and not the server. */
  readonly generatorBusy: number;
  /** The server's processor time for one command, in microseconds. */
  readonly serverUs: number | undefined;
}

const TIMES_MAX = 4_000_000;

/** Loads a server. @throws when an answer is not what it should be, or a connection breaks */
export async function respLoad(options: RespLoadOptions): Promise<RespLoad> {
  const { command, connections, keys, valueBytes, pipeline = 1, pid } = options;
  const value = "v".repeat(valueBytes);
  const keyOf = (n: number) => `bench:${String(n % keys).padStart(8, "0")}`;
  const answer = command === "set" ? "+OK\r\n" : `$${valueBytes}\r\n${value}\r\n`;
  const answerBytes = answer.length * pipeline;
  const first = answer.charCodeAt(0);

  const conversations = await Promise.all(Array.from({ length: connections }, () => converse(options)));
  if (command === "get") {
    const writer = conversations[0]!;
    for (let n = 0; n < keys; n++) {
      const reply = await writer.ask(encode(["SET", keyOf(n), value]), 5);
      if (reply !== "+OK\r\n") throw new Error(`SET was answered ${reply}`);
    }
  }

  const times = new Float64Array(TIMES_MAX);
  let count = 0;
  let isMeasuring = false;
  let isStopped = false;
  let failed: Error | undefined;
  for (const [at, { socket, data }] of conversations.entries()) {
    // Each connection goes round its own share of the keys, in an order of its own.
    const requests = Array.from({ length: Math.max(1, Math.ceil(keys / connections / pipeline)) }, (_, round) =>
      Buffer.from(
        Array.from({ length: pipeline }, (_, n) => {
          const key = keyOf(at + connections * (round * pipeline + n));
          return encode(command === "set" ? ["SET", key, value] : ["GET", key]);
        }).join(""),
      ),
    );
    let next = 0;
    let sentAt = 0;
    let received = 0;
    const send = () => {
      received = 0;
      sentAt = performance.now();
      const request = requests[next++ % requests.length]!;
      if (socket.write(request) !== request.length) failed ??= new Error("a request did not fit in the socket");
    };
    data.receive = (chunk) => {
      if (received === 0 && chunk[0] !== first)
        failed ??= new Error(`an answer was ${chunk.toString("latin1", 0, 200)}`);
      received += chunk.length;
      if (received < answerBytes || failed) return;
      if (received > answerBytes) failed ??= new Error("an answer is too long");
      if (isMeasuring && count < TIMES_MAX) times[count++] = performance.now() - sentAt;
      if (!isStopped) send();
    };
    data.lost = () => {
      if (!isStopped) failed ??= new Error("the server closed a connection");
    };
    send();
  }

  await Bun.sleep(options.warmUpMs);
  isMeasuring = true;
  const used = process.cpuUsage();
  const serverBefore = pid === undefined ? undefined : processTime(pid);
  const started = performance.now();
  await Bun.sleep(options.durationMs);
  const wallMs = performance.now() - started;
  isMeasuring = false;
  const own = process.cpuUsage(used);
  const serverMs = pid === undefined || serverBefore === undefined ? undefined : processTime(pid) - serverBefore;
  isStopped = true;
  for (const { socket } of conversations) socket.end();
  if (failed) throw failed;
  if (count === 0) throw new Error("no answer came within the time");
  const sorted = times.subarray(0, count).sort();
  return {
    commandsPerSecond: (count * pipeline * 1000) / wallMs,
    p50: percentile(sorted, 0.5),
    p90: percentile(sorted, 0.9),
    p99: percentile(sorted, 0.99),
    max: sorted.at(-1)!,
    generatorBusy: (own.user + own.system) / 1000 / wallMs,
    serverUs: serverMs === undefined ? undefined : (serverMs * 1000) / (count * pipeline),
  };
}

/** A command as an array of bulk strings; words are ASCII. */
export const encode = (words: readonly string[]): string =>
  `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;

interface Handlers {
  receive: (chunk: Buffer) => void;
  lost: () => void;
}

/** A connection that has said who it is, and can be asked one thing at a time. */
async function converse({ hostname, port, auth, readLocally }: RespLoadOptions) {
  const data: Handlers = { receive: () => {}, lost: () => {} };
  const socket: Socket<Handlers> = await Bun.connect<Handlers>({
    hostname,
    port,
    data,
    socket: {
      data: (_, chunk) => data.receive(chunk),
      close: () => data.lost(),
      error: () => data.lost(),
    },
  });
  const ask = (request: string, bytes: number) =>
    new Promise<string>((resolve, reject) => {
      let reply = "";
      data.lost = () => reject(new Error("the server closed a connection"));
      data.receive = (chunk) => {
        reply += chunk.toString("latin1");
        if (reply.length >= bytes || reply.startsWith("-")) resolve(reply);
      };
      socket.write(request);
    });
  const agreed = [...(auth ? [["AUTH", auth.user, auth.password]] : []), ...(readLocally ? [["READONLY"]] : [])];
  for (const words of agreed) {
    const reply = await ask(encode(words), 5);
    if (reply !== "+OK\r\n") throw new Error(`${words[0]} was answered ${reply}`);
  }
  return { socket, data, ask };
}

if (import.meta.main) {
  const [command, address = "", connections, seconds, keys, valueBytes, pipeline = "1", pid] = process.argv.slice(2);
  const { HIVE_ROOT_ACCESS_KEY_ID: user, HIVE_ROOT_SECRET_ACCESS_KEY: password } = process.env;
  const at = address.lastIndexOf(":");
  const load = await respLoad({
    hostname: address.slice(0, at),
    port: Number(address.slice(at + 1)),
    command: command === "get" || command === "get-local" ? "get" : "set",
    readLocally: command === "get-local",
    connections: Number(connections),
    durationMs: Number(seconds) * 1000,
    warmUpMs: 1000,
    keys: Number(keys),
    valueBytes: Number(valueBytes),
    pipeline: Number(pipeline),
    ...(user && password && { auth: { user, password } }),
    ...(pid && { pid: Number(pid) }),
  });
  console.log(JSON.stringify(load));
}
