import { present } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import type { Disk, DiskFile } from "./disk.ts";

export type DiskOperation = {
  readonly kind: "list" | "create" | "open" | "read" | "write" | "datasync" | "rename" | "remove" | "syncDirectory";
  readonly path: string;
  /** Counts all operations from 1. */
  readonly number: number;
};

type Write = { readonly offset: number; readonly bytes: Uint8Array };
type Inode = { current: Bytes; durable: Bytes; unsynced: Write[] };
type DirectoryChange = (names: Map<string, Inode>) => void;

const SECTOR_BYTES = 512;

/**
 * A disk in memory that is as unkind as a real one may be. For tests, of the store and of what stands on it.
 * Writes, and changes of directories, are lost by a crash unless they were synced; `afterCrash` decides by chance what
 * of them is there. A failed sync drops what it should have made durable, though reads go on showing it.
 */
export class MemoryDisk implements Disk {
  /** Called before each operation; what it throws is the operation's outcome. A failing write gets half of itself in. */
  before: (operation: DiskOperation) => void = () => {};
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  /** Since the last sync of a directory; a journalling file system keeps their order. */
  #unsyncedNames: DirectoryChange[] = [];
  #locks = new Set<string>();
  #operations = 0;

  get operations(): number {
    return this.#operations;
  }

  /** What a machine finds when it comes up again: everything synced, and by chance some of the rest, sector by sector. */
  afterCrash(random: Random, keep: "nothing" | "everything" | "some"): MemoryDisk {
    const disk = new MemoryDisk();
    const chance = () => keep === "everything" || (keep === "some" && present(random.bytes(1)[0], "a byte") < 128);
    const kept =
      keep === "everything"
        ? this.#unsyncedNames.length
        : keep === "nothing"
          ? 0
          : random.bytes(1)[0]! % (this.#unsyncedNames.length + 1);
    const names = new Map(this.#durableNames);
    for (const change of this.#unsyncedNames.slice(0, kept)) change(names);
    for (const [path, inode] of names) {
      const bytes = inode.durable.copy();
      for (const { offset, bytes: written } of inode.unsynced) {
        for (let at = 0; at < written.length; ) {
          const end = Math.min(written.length, at + SECTOR_BYTES - ((offset + at) % SECTOR_BYTES));
          if (chance()) bytes.write(offset + at, written.subarray(at, end));
          at = end;
        }
      }
      disk.#names.set(path, { current: bytes, durable: bytes.copy(), unsynced: [] });
    }
    disk.#durableNames = new Map(disk.#names);
    return disk;
  }

  /** What the next process finds when this one is killed: all of it, though no more durable than it was. */
  afterKill(): MemoryDisk {
    const disk = new MemoryDisk();
    disk.#names = this.#names;
    disk.#durableNames = this.#durableNames;
    disk.#unsyncedNames = this.#unsyncedNames;
    return disk;
  }

  /** The bytes of a file, for a look or for damage that lasts. */
  peek(path: string): Buffer {
    return Buffer.from(this.#inode(path).current.view());
  }
  damage(path: string, offset: number, bytes: Uint8Array): void {
    const inode = this.#inode(path);
    inode.current.write(offset, bytes);
    inode.durable.write(offset, bytes);
  }

  async list(directory: string): Promise<readonly string[]> {
    await this.#do("list", directory);
    const prefix = `${directory}/`;
    return [...this.#names.keys()].filter((path) => path.startsWith(prefix)).map((path) => path.slice(prefix.length));
  }

  async makeDirectory(): Promise<void> {}

  async open(path: string, mode: "create" | "write" | "read"): Promise<DiskFile> {
    await this.#do(mode === "create" ? "create" : "open", path);
    if (mode === "create") {
      if (this.#names.has(path)) throw diskError("EEXIST");
      const inode: Inode = { current: new Bytes(), durable: new Bytes(), unsynced: [] };
      this.#change((names) => names.set(path, inode));
    }
    return this.#file(path, this.#inode(path));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#do("rename", from);
    const inode = this.#inode(from);
    this.#change((names) => {
      names.delete(from);
      names.set(to, inode);
    });
  }

  async remove(path: string): Promise<void> {
    await this.#do("remove", path);
    this.#inode(path);
    this.#change((names) => names.delete(path));
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#do("syncDirectory", path);
    this.#durableNames = new Map(this.#names);
    this.#unsyncedNames = [];
  }

  async lock(path: string) {
    if (this.#locks.has(path)) return { heldBy: process.pid };
    this.#locks.add(path);
    return {
      release: async () => {
        this.#locks.delete(path);
      },
    };
  }

  #file(path: string, inode: Inode): DiskFile {
    return {
      read: async (offset, length) => {
        await this.#do("read", path);
        return inode.current.view().slice(offset, offset + length);
      },
      write: async (offset, bytes) => {
        const written = Uint8Array.from(bytes);
        try {
          await this.#do("write", path);
        } catch (error) {
          writeTo(inode, offset, written.subarray(0, written.length >> 1));
          throw error;
        }
        writeTo(inode, offset, written);
      },
      datasync: async () => {
        const writes = inode.unsynced;
        inode.unsynced = [];
        await this.#do("datasync", path);
        for (const write of writes) inode.durable.write(write.offset, write.bytes);
      },
      size: async () => inode.current.length,
      close: async () => {},
    };
  }

  async #do(kind: DiskOperation["kind"], path: string): Promise<void> {
    await Promise.resolve();
    this.before({ kind, path, number: ++this.#operations });
  }

  #change(change: DirectoryChange): void {
    change(this.#names);
    this.#unsyncedNames.push(change);
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (!inode) throw diskError("ENOENT");
    return inode;
  }
}

export function diskError(code: string): Error {
  return Object.assign(new Error(`${code} (injected)`), { code });
}

function writeTo(inode: Inode, offset: number, bytes: Uint8Array): void {
  inode.current.write(offset, bytes);
  inode.unsynced.push({ offset, bytes });
}

/** Bytes that grow by being written to. */
class Bytes {
  #buffer = new Uint8Array(0);
  length = 0;

  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    if (end > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(end, this.#buffer.length * 2));
      larger.set(this.view());
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, offset);
    this.length = Math.max(this.length, end);
  }
  view(): Uint8Array {
    return this.#buffer.subarray(0, this.length);
  }
  copy(): Bytes {
    const copy = new Bytes();
    copy.write(0, this.view());
    return copy;
  }
}
