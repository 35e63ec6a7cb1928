/**
 * The few things that the log asks of a file system, so that a test can be the disk: lose what was not synced, tear a
 * write, fill up, rot. Every method rejects with an Error that has the system's `code` (ENOSPC, EIO, ENOENT …); the log
 * and the snapshots turn it into a value, once, at their edge.
 */
export interface Disk {
  /** Names in the directory, in no order. */
  list(directory: string): Promise<readonly string[]>;
  /** Creates the directory with its parents (mode 0700) unless it is there. */
  makeDirectory(path: string): Promise<void>;
  /** `create` fails when the file is there (mode 0600). */
  open(path: string, mode: "create" | "write" | "read"): Promise<DiskFile>;
  /** Atomic; replaces `to`. Durable after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  /** Takes the lock of a directory for this process, until `release` or the process's end, however it ends. */
  lock(path: string): Promise<Lock | { readonly heldBy: number | undefined }>;
}

export interface DiskFile {
  /** Up to `length` bytes from `offset`; fewer at the end of the file. They may be put into `reuse`. */
  read(offset: number, length: number, reuse?: Uint8Array): Promise<Uint8Array>;
  /** Writes all of `bytes` at `offset`. Not durable yet. */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /**
   * Writes all of `bytes` at `offset`, inside of the file, and makes them durable: like `write` and then `datasync`, in one
   * go. When it rejects, any part of them may be there, durable or not. Must not block the event loop.
   */
  writeDurable(offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes what was written durable, and the file's size. Must not block the event loop. */
  datasync(): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

export interface Lock {
  release(): Promise<void>;
}

/** The system's error code of a rejection (`ENOSPC`), if it has one. */
export function errorCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : undefined;
}
export const isDiskFull = (error: unknown): boolean => ["ENOSPC", "EDQUOT"].includes(errorCode(error) ?? "");
