/**
 * One process's way to its disk: how long things take, and what becomes of them when the process ends in the middle. What a
 * killed process had begun is in the page cache or not by the time the next one starts; after a power cut, the disk decides.
 */
import type { Disk, DiskFile } from "../../../src/cluster/kv/disk.ts";
import { type DiskOperation, diskError, type MemoryDisk } from "../../../src/cluster/kv/memory-disk.ts";

export type Process = { readonly isOver: boolean };

export class ProcessDisk implements Disk {
  readonly #process: Process;
  readonly #disk: MemoryDisk;
  /** Operations under way, and what ends each. */
  readonly #waiting = new Set<() => void>();

  /** @param takes calls `done` when the operation is to end; or returns false for one that takes no time */
  constructor(process: Process, disk: MemoryDisk, takes: (operation: DiskOperation, done: () => void) => boolean) {
    this.#process = process;
    this.#disk = disk;
    disk.pause = (operation) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const done = () => {
        this.#waiting.delete(done);
        resolve();
      };
      if (!takes(operation, done)) return undefined;
      this.#waiting.add(done);
      return promise;
    };
  }

  /** The process was killed: what is under way ends now, unless it never began. The process must be over. */
  kill(chance: () => boolean): void {
    this.#disk.before = ({ kind }) => {
      const isWrite = kind === "write" || kind === "writeDurable";
      throw diskError(isWrite && chance() ? "ENOSPC" : "EKILLED");
    };
    for (const done of [...this.#waiting]) done();
  }

  list = (directory: string) => this.#alive(() => this.#disk.list(directory));
  makeDirectory = () => this.#alive(() => this.#disk.makeDirectory());
  rename = (from: string, to: string) => this.#alive(() => this.#disk.rename(from, to));
  remove = (path: string) => this.#alive(() => this.#disk.remove(path));
  syncDirectory = (path: string) => this.#alive(() => this.#disk.syncDirectory(path));
  lock = (path: string) => this.#alive(() => this.#disk.lock(path));

  open = (path: string, mode: "create" | "write" | "read") =>
    this.#alive(async (): Promise<DiskFile> => {
      const file = await this.#disk.open(path, mode);
      return {
        read: (offset, length) => this.#alive(() => file.read(offset, length)),
        write: (offset, bytes) => this.#alive(() => file.write(offset, bytes)),
        writeDurable: (offset, bytes) => this.#alive(() => file.writeDurable(offset, bytes)),
        datasync: () => this.#alive(() => file.datasync()),
        size: () => this.#alive(() => file.size()),
        close: () => this.#alive(() => file.close()),
      };
    });

  /** Code of a process that is over gets nothing done any more, though it still runs here. */
  #alive<T>(work: () => Promise<T>): Promise<T> {
    return this.#process.isOver ? new Promise(() => {}) : work();
  }
}
