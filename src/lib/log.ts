/** Structured logs: one JSON event a line. ERROR means Hive failed; a caller's mistake is INFO. */
export interface Log {
  debug(event: string, fields?: Fields): void;
  info(event: string, fields?: Fields): void;
  warn(event: string, fields?: Fields): void;
  error(event: string, fields?: Fields): void;
  /** The same log with `fields` in every event. */
  with(fields: Fields): Log;
}
export type Fields = { readonly [name: string]: unknown };
export type Level = "debug" | "info" | "warn" | "error";

const RANK: Record<Level, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** Marks a value that must never reach a log or an answer by accident. `reveal` is the one way to the text. */
export class Secret {
  readonly #text: string;
  constructor(text: string) {
    this.#text = text;
  }
  reveal(): string {
    return this.#text;
  }
  toString(): string {
    return "[redacted]";
  }
  toJSON(): string {
    return "[redacted]";
  }
}

/**
 * A log that writes each event at or above `level` as one line through `write`.
 * An Error among the fields is written as its message and stack.
 */
export function jsonLog(write: (line: string) => void, level: Level, now: () => number, base: Fields = {}): Log {
  const at = (rank: Level) => (event: string, fields?: Fields) => {
    if (RANK[rank] < RANK[level]) return;
    const line = { time: new Date(now()).toISOString(), level: rank, event, ...base, ...fields };
    // A replacer is called for every member and triples the cost: only where something needs it.
    write(`${Object.values(line).some(needsCare) ? JSON.stringify(line, plainErrors) : JSON.stringify(line)}\n`);
  };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (fields) => jsonLog(write, level, now, { ...base, ...fields }),
  };
}

const needsCare = (value: unknown): boolean =>
  typeof value === "bigint" || (typeof value === "object" && value !== null);

function plainErrors(_name: string, value: unknown): unknown {
  if (value instanceof Error) {
    return { message: value.message, stack: value.stack, ...(value.cause === undefined ? {} : { cause: value.cause }) };
  }
  return typeof value === "bigint" ? value.toString() : value;
}

export interface LineBuffer {
  write(line: string): void;
  /** Writes what waits, now. Before the process ends. */
  flush(): void;
}

/** Gathers the lines of one turn of the event loop into one write: a system call a line costs more than the line. */
export function lineBuffer(write: (text: string) => void): LineBuffer {
  let waiting = "";
  const flush = () => {
    if (waiting === "") return;
    const text = waiting;
    waiting = "";
    write(text);
  };
  return {
    write(line) {
      if (waiting === "") setImmediate(flush);
      waiting += line;
    },
    flush,
  };
}

export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {}, with: () => silentLog };
