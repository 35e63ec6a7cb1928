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

/** The least that is logged, for a log whose level changes while it is in use. */
export class LogThreshold {
  level: Level;
  constructor(level: Level) {
    this.level = level;
  }
}

/**
 * A log that writes each event at or above `level` as one line through `write`.
 * An Error among the fields is written as its message and stack.
 */
export function jsonLog(
  write: (line: string) => void,
  level: Level | LogThreshold,
  now: () => number,
  base: Fields = {},
): Log {
  const threshold = typeof level === "string" ? new LogThreshold(level) : level;
  const baseIsEmpty = Object.keys(base).length === 0;
  const at = (rank: Level) => {
    const head = `","level":"${rank}","event":`;
    return (event: string, fields?: Fields) => {
      if (RANK[rank] < RANK[threshold.level]) return;
      const all = baseIsEmpty ? (fields ?? base) : { ...base, ...fields };
      const text = stringify(all);
      write(`{"time":"${isoTime(now())}${head}${JSON.stringify(event)}${text === "{}" ? "" : ","}${text.slice(1)}\n`);
    };
  };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (fields) => jsonLog(write, threshold, now, { ...base, ...fields }),
  };
}

/** A replacer is called for every member and triples the cost: only where something needs it. */
function stringify(fields: Fields): string {
  for (const name in fields) {
    const value = fields[name];
    if (typeof value === "bigint" || (typeof value === "object" && value !== null)) {
      return JSON.stringify(fields, plainErrors);
    }
  }
  return JSON.stringify(fields);
}

let lastMs = Number.NaN;
let lastTime = "";
/** A busy daemon writes dozens of lines in a millisecond. */
function isoTime(ms: number): string {
  if (ms !== lastMs) {
    lastMs = ms;
    lastTime = new Date(ms).toISOString();
  }
  return lastTime;
}

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

const GATHER_MS = 5;
const GATHER_CHARS_MAX = 64 * 1024;

/** Gathers the lines of a few milliseconds into one write: a system call a line costs more than the line. */
export function lineBuffer(write: (text: string) => void): LineBuffer {
  let waiting = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = () => {
    clearTimeout(timer);
    timer = undefined;
    if (waiting === "") return;
    const text = waiting;
    waiting = "";
    write(text);
  };
  return {
    write(line) {
      waiting += line;
      if (waiting.length >= GATHER_CHARS_MAX) flush();
      else timer ??= setTimeout(flush, GATHER_MS);
    },
    flush,
  };
}

export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {}, with: () => silentLog };
