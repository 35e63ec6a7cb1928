/**
 * A client of QEMU's machine protocol over a Unix socket: JSON values, one a line; a greeting, `qmp_capabilities`, then
 * commands and their answers by `id`, and events at any time (docs/interop/qmp-spec.rst of QEMU).
 * A monitor serves one client: a second connection succeeds and hears nothing, so every wait here has a limit.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import { MIB, SECOND_MS } from "../lib/units.ts";
import { type HostError, ioFailed } from "./host-error.ts";
import { withSocketPath } from "./qemu/socket-path.ts";

export interface QmpEvent {
  readonly event: string;
  readonly data: { readonly [name: string]: unknown };
}

export interface Qmp {
  /** Errors: `command-failed` with QEMU's own words, `timeout`, or `io` when the connection is gone. */
  execute(command: string, args?: object, timeoutMs?: number): Promise<Result<unknown, HostError>>;
  /** Resolves once the connection is gone, whoever ended it. QEMU's end is seen here at once. */
  readonly closed: Promise<void>;
  close(): void;
}

/** The main loop of QEMU may stall behind translation and I/O for 100 ms and more on a busy host. */
const COMMAND_TIMEOUT_MS = 10 * SECOND_MS;
const LINE_BYTES_MAX = 16 * MIB;

const gone = (path: string): HostError => ({ kind: "io", message: `the monitor ${path} closed the connection` });
const silent = (path: string, what: string, ms: number): HostError => ({
  kind: "timeout",
  message: `the monitor ${path} did not answer ${what} within ${ms / 1000} s`,
});

/**
 * Connects and negotiates.
 * @param onEvent hears every event, also those during negotiation
 */
export async function connectQmp(
  path: string,
  onEvent: (event: QmpEvent) => void,
  timeoutMs: number = COMMAND_TIMEOUT_MS,
): Promise<Result<Qmp, HostError>> {
  const client = new QmpClient(path, onEvent);
  const connected = await client.connect();
  if (!connected.ok) return connected;
  const greeted = await within(client.greeting, timeoutMs, silent(path, "with its greeting", timeoutMs));
  const ready = greeted.ok ? await client.execute("qmp_capabilities", undefined, timeoutMs) : greeted;
  if (ready.ok) return ok(client);
  client.close();
  return ready;
}

type Answer = Result<unknown, HostError>;

class QmpClient implements Qmp {
  readonly closed: Promise<void>;
  readonly greeting: Promise<Answer>;
  readonly #path: string;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #pending = new Map<number, (answer: Answer) => void>();
  #greet: (answer: Answer) => void = () => {};
  #resolveClosed: () => void = () => {};
  #socket: Bun.Socket | undefined;
  #open = false;
  #nextId = 1;
  #partial: Buffer[] = [];
  #partialBytes = 0;
  /** What the socket has not taken yet. */
  #unsent = Buffer.alloc(0);

  constructor(path: string, onEvent: (event: QmpEvent) => void) {
    this.#path = path;
    this.#onEvent = onEvent;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.greeting = new Promise((resolve) => {
      this.#greet = resolve;
    });
  }

  async connect(): Promise<Result<void, HostError>> {
    try {
      this.#socket = await withSocketPath(this.#path, (unix) =>
        Bun.connect({
          unix,
          socket: {
            data: (_socket, chunk) => this.#receive(chunk),
            drain: () => this.#flush(),
            close: () => this.#end(),
            error: () => this.#end(),
          },
        }),
      );
      this.#open = true;
      return ok(undefined);
    } catch (cause) {
      return fail(ioFailed(`connect to the monitor ${this.#path}`, cause));
    }
  }

  async execute(command: string, args?: object, timeoutMs: number = COMMAND_TIMEOUT_MS): Promise<Answer> {
    if (!this.#open) return fail(gone(this.#path));
    const id = this.#nextId++;
    const answer = new Promise<Answer>((resolve) => this.#pending.set(id, resolve));
    this.#send(`${JSON.stringify({ execute: command, ...(args ? { arguments: args } : {}), id })}\n`);
    const result = await within(answer, timeoutMs, silent(this.#path, command, timeoutMs));
    this.#pending.delete(id);
    return result;
  }

  close(): void {
    this.#socket?.end();
    this.#end();
  }

  #send(text: string): void {
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(text)]);
    this.#flush();
  }

  #flush(): void {
    if (this.#unsent.length === 0 || !this.#socket) return;
    const sent = this.#socket.write(this.#unsent);
    if (sent > 0) this.#unsent = this.#unsent.subarray(sent);
  }

  #receive(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const line = Buffer.concat([...this.#partial, rest.subarray(0, end)]);
      this.#partial = [];
      this.#partialBytes = 0;
      rest = rest.subarray(end + 1);
      this.#receiveLine(line.toString("utf8"));
    }
    if (rest.length === 0) return;
    this.#partial.push(Buffer.from(rest));
    this.#partialBytes += rest.length;
    if (this.#partialBytes > LINE_BYTES_MAX) this.close();
  }

  #receiveLine(line: string): void {
    if (line.trim() === "") return;
    const message = parseObject(line);
    if (!message) {
      this.close(); // not a monitor
    } else if ("QMP" in message) {
      this.#greet(ok(message.QMP));
    } else if (typeof message.event === "string") {
      this.#onEvent({ event: message.event, data: asObject(message.data) ?? {} });
    } else if (typeof message.id === "number") {
      // No one may be waiting for the answer any more.
      const error = asObject(message.error);
      const refused = (desc: unknown): HostError => ({ kind: "command-failed", message: `QEMU refused: ${desc}` });
      this.#pending.get(message.id)?.(error ? fail(refused(error.desc)) : ok(message.return));
    }
  }

  #end(): void {
    this.#open = false;
    const answer = fail(gone(this.#path));
    this.#greet(answer);
    for (const resolve of this.#pending.values()) resolve(answer);
    this.#pending.clear();
    this.#resolveClosed();
  }
}

async function within(answer: Promise<Answer>, timeoutMs: number, late: HostError): Promise<Answer> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<Answer>((resolve) => {
    timer = setTimeout(() => resolve(fail(late)), timeoutMs);
  });
  const result = await Promise.race([answer, limit]);
  clearTimeout(timer);
  return result;
}

type JsonObject = { readonly [name: string]: unknown };
const asObject = (value: unknown): JsonObject | undefined =>
  typeof value === "object" && value !== null ? (value as JsonObject) : undefined;

function parseObject(line: string): JsonObject | undefined {
  try {
    return asObject(JSON.parse(line));
  } catch {
    return undefined;
  }
}
