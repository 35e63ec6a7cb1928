/**
 * The serial console of a guest: any number of watchers and writers, and the output from the last start on.
 *
 * QEMU's serial socket takes one client, and a client that does not read stalls the guest once the socket is full. So the
 * daemon is that client, always drains it, and hands on what comes. QEMU itself also appends all output to a log file,
 * which goes on while no daemon runs. The file is cut when it has grown past its limit: its last part is kept aside, and
 * as QEMU appends, what it writes next begins the file anew. While no daemon runs nobody cuts it; the next one does.
 */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, writeFileSync } from "node:fs";
import { KIB, MIB } from "../lib/units.ts";
import { withSocketPath } from "./qemu/socket-path.ts";

/** What GetConsoleOutput answers at most, on EC2 too. */
export const CONSOLE_OUTPUT_BYTES_MAX = 64 * KIB;
const LOG_BYTES_MAX = MIB;
/** Input that the guest has not taken: a person types little, and a paste that is longer than this is refused. */
const INPUT_BYTES_MAX = 64 * KIB;

export interface ConsoleFiles {
  readonly socket: string;
  /** Written by QEMU, in a folder that the guest's process can write: links in it are not followed. */
  readonly log: string;
  /** The end of what was cut off, in a folder that only the daemon writes. */
  readonly earlier: string;
}

export type ConsoleWatcher = (chunk: Uint8Array) => void;

export class Console {
  readonly #files: ConsoleFiles;
  readonly #watchers = new Set<{ readonly data: ConsoleWatcher; readonly end: () => void }>();
  readonly #ended: () => void;
  #socket: Bun.Socket | undefined;
  #unsent = Buffer.alloc(0);
  #sinceCheck = 0;

  /** @param ended hears that the connection is gone, once */
  constructor(files: ConsoleFiles, ended: () => void = () => {}) {
    this.#files = files;
    this.#ended = ended;
  }

  /** Connects to the socket and begins to drain it. @throws the system's error when there is none */
  async connect(): Promise<void> {
    this.#cutLog();
    this.#socket = await withSocketPath(this.#files.socket, (unix) =>
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
  }

  get connected(): boolean {
    return this.#socket !== undefined;
  }

  /**
   * Hands every later byte to `data`; `end` hears when the machine is gone. What came before is `output()`: read it in the same turn
   * of the event loop, and nothing is missing.
   * @returns stops watching
   */
  watch(data: ConsoleWatcher, end: () => void = () => {}): () => void {
    const watcher = { data, end };
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /** Types into the console. @returns false when nothing can be typed now: no machine, or one that does not read */
  write(bytes: Uint8Array): boolean {
    if (!this.#socket || this.#unsent.length + bytes.length > INPUT_BYTES_MAX) return false;
    this.#unsent = Buffer.concat([this.#unsent, bytes]);
    this.#flush();
    return true;
  }

  close(): void {
    this.#socket?.end();
    this.#end();
  }

  #flush(): void {
    if (!this.#socket || this.#unsent.length === 0) return;
    const sent = this.#socket.write(this.#unsent);
    if (sent > 0) this.#unsent = this.#unsent.subarray(sent);
  }

  #receive(chunk: Buffer): void {
    const copy = new Uint8Array(chunk);
    for (const watcher of this.#watchers) watcher.data(copy);
    this.#sinceCheck += chunk.length;
    if (this.#sinceCheck < LOG_BYTES_MAX / 4) return;
    this.#sinceCheck = 0;
    this.#cutLog();
  }

  #cutLog(): void {
    try {
      cutLog(this.#files);
    } catch {
      // Not there yet, or not a file: nothing to bound.
    }
  }

  #end(): void {
    if (!this.#socket) return;
    this.#socket = undefined;
    for (const watcher of [...this.#watchers]) watcher.end();
    this.#watchers.clear();
    this.#ended();
  }
}

/** The last 64 KiB of a console's output since the last start, and when the last of it came. Undefined when there is none. */
export function consoleOutput(files: ConsoleFiles): { readonly bytes: Uint8Array; readonly at: number } | undefined {
  const now = readTail(files.log, CONSOLE_OUTPUT_BYTES_MAX);
  const earlier = readTail(files.earlier, CONSOLE_OUTPUT_BYTES_MAX);
  if (!now && !earlier) return undefined;
  const bytes = Buffer.concat([earlier?.bytes ?? Buffer.alloc(0), now?.bytes ?? Buffer.alloc(0)]);
  return { bytes: bytes.subarray(-CONSOLE_OUTPUT_BYTES_MAX), at: Math.max(now?.at ?? 0, earlier?.at ?? 0) };
}

/** Neither a link nor a pipe that a guest's process may have put there is followed or waited for. */
function openHostile(path: string, flags: number): number {
  const file = openSync(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  if (fstatSync(file).isFile()) return file;
  closeSync(file);
  throw new Error(`${path} is not a regular file`);
}

function readTail(path: string, most: number): { bytes: Buffer; at: number } | undefined {
  try {
    const file = openHostile(path, constants.O_RDONLY);
    try {
      return { bytes: tailOf(file, most), at: Math.round(fstatSync(file).mtimeMs) };
    } finally {
      closeSync(file);
    }
  } catch {
    return undefined;
  }
}

function tailOf(file: number, most: number): Buffer {
  const { size } = fstatSync(file);
  const bytes = Buffer.alloc(Math.min(size, most));
  const read = readSync(file, bytes, 0, bytes.length, size - bytes.length);
  return bytes.subarray(0, read);
}

/** Bytes that QEMU appends between the reading and the cutting are lost to the log (watchers have them): a few at most. */
function cutLog({ log, earlier }: ConsoleFiles): void {
  const file = openHostile(log, constants.O_RDWR);
  try {
    if (fstatSync(file).size <= LOG_BYTES_MAX) return;
    const tail = tailOf(file, CONSOLE_OUTPUT_BYTES_MAX);
    ftruncateSync(file, 0);
    writeFileSync(earlier, tail, { mode: 0o600 });
  } finally {
    closeSync(file);
  }
}

/** Reads a whole file that a guest's process wrote. @throws when it is no regular file, or larger than `most` bytes */
export function readHostileFile(path: string, most: number): Buffer {
  const file = openHostile(path, constants.O_RDONLY);
  try {
    if (fstatSync(file).size > most) throw new Error(`${path} is larger than ${most} bytes`);
    return tailOf(file, most);
  } finally {
    closeSync(file);
  }
}
