/**
 * The serial console of a guest: any number of watchers and writers, and the output from the last start on.
 *
 * QEMU's serial socket takes one client, and a client that does not read stalls the guest once the socket is full. So the
 * daemon is that client, always drains it, hands on what comes and keeps it in a file of its own. QEMU logs all output as
 * well, which goes on while no daemon runs; but it logs a byte again whenever the socket was busy (7.2), so its log stands in only
 * for what the daemon has not received: from the *seam* on, the log's size when the last bytes came, which is kept beside it.
 * A daemon that is killed between receiving and noting leaves a few bytes doubled or out, at the seam, and no more.
 */
import {
  appendFileSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
} from "node:fs";
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
  /** What the daemon received, the last part of it; in a folder that only the daemon writes. */
  readonly kept: string;
  /** The size of `log` up to which `kept` has it, in decimal. */
  readonly seam: string;
}

export type ConsoleWatcher = (chunk: Uint8Array) => void;

export class Console {
  readonly #files: ConsoleFiles;
  readonly #watchers = new Set<{ readonly data: ConsoleWatcher; readonly end: () => void }>();
  readonly #ended: () => void;
  #socket: Bun.Socket | undefined;
  #unsent = Buffer.alloc(0);

  /** @param ended hears that the connection is gone, once */
  constructor(files: ConsoleFiles, ended: () => void = () => {}) {
    this.#files = files;
    this.#ended = ended;
  }

  /** Connects to the socket and begins to drain it. @throws the system's error when there is none */
  async connect(): Promise<void> {
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
    // What was logged while nobody listened stands before what comes now.
    keep(this.#files, logSinceSeam(this.#files)?.bytes ?? Buffer.alloc(0));
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
    keep(this.#files, copy);
    for (const watcher of this.#watchers) watcher.data(copy);
  }

  #end(): void {
    if (!this.#socket) return;
    this.#socket = undefined;
    for (const watcher of [...this.#watchers]) watcher.end();
    this.#watchers.clear();
    this.#ended();
  }
}

/**
 * The last 64 KiB of a console's output since the last start, and when the last of it came. Undefined when there is none.
 * @param live a console is connected to it: what is still on its way there is left out, and comes to its watchers
 */
export function consoleOutput(
  files: ConsoleFiles,
  live: boolean,
): { readonly bytes: Uint8Array; readonly at: number } | undefined {
  const kept = readTail(files.kept, CONSOLE_OUTPUT_BYTES_MAX);
  const since = live ? undefined : logSinceSeam(files);
  if (!kept && !since) return undefined;
  const bytes = Buffer.concat([kept?.bytes ?? Buffer.alloc(0), since?.bytes ?? Buffer.alloc(0)]);
  const at = Math.max(kept?.at ?? 0, since && since.bytes.length > 0 ? since.at : 0);
  return { bytes: bytes.subarray(-CONSOLE_OUTPUT_BYTES_MAX), at };
}

/** Forgets a console's output: before a new start. */
export function forgetConsole(files: ConsoleFiles): void {
  for (const file of [files.log, files.kept, files.seam]) rmSync(file, { force: true });
}

/** Adds to what is kept, and moves the seam to the end of QEMU's log. Both files are bounded. Output is never worth a failure. */
function keep(files: ConsoleFiles, bytes: Uint8Array): void {
  try {
    appendFileSync(files.kept, bytes, { mode: 0o600 }); // also of none: a console that was silent so far is one
    if ((lstatSync(files.kept, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES_MAX) {
      const tail = readTail(files.kept, CONSOLE_OUTPUT_BYTES_MAX);
      if (tail) writeFileSync(files.kept, tail.bytes, { mode: 0o600 });
    }
    writeFileSync(files.seam, String(cutLog(files.log)), { mode: 0o600 });
  } catch {
    // A full disk: watchers have it all the same.
  }
}

/** What QEMU logged after the seam, the last part of it. */
function logSinceSeam(files: ConsoleFiles): { bytes: Buffer; at: number } | undefined {
  const size = lstatSync(files.log, { throwIfNoEntry: false })?.size ?? 0;
  const seam = Number(readTail(files.seam, 20)?.bytes.toString() ?? 0);
  // A log that is shorter than the seam was begun anew.
  const unseen = seam <= size ? size - seam : size;
  return readTail(files.log, Math.min(unseen, CONSOLE_OUTPUT_BYTES_MAX));
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

/** Empties QEMU's log when it has grown past its limit: it appends, so what it writes next begins the file anew. @returns its size */
function cutLog(log: string): number {
  const size = lstatSync(log, { throwIfNoEntry: false })?.size ?? 0;
  if (size <= LOG_BYTES_MAX) return size;
  const file = openHostile(log, constants.O_RDWR);
  try {
    ftruncateSync(file, 0);
    return 0;
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
