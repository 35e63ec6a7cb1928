import { present } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import { type Disk, type DiskFile, errorCode, isDiskFull } from "./disk.ts";

export type DiskOperation = {
  readonly kind:
    | "list"
    | "create"
    | "open"
    | "read"
    | "write"
    | "writeDurable"
    | "datasync"
    | "rename"
    | "remove"
    | "syncDirectory";
  readonly path: string;
  /** Of a read or a write; 0 otherwise. */
  readonly offset: number;
  readonly length: number;
  /** Counts all operations from 1. */
  readonly number: number;
};

type Write = { readonly offset: number; readonly bytes: Uint8Array };
type Inode = {
  current: Bytes;
  durable: Bytes;
  /** Seen by readers, and not durable yet. */
  unsynced: Write[];
  /** Under way: nobody sees them, and a crash may keep some. */
  inFlight: Write[];
  /** Whether it has a name, so that its bytes are used. */
  isLinked: boolean;
};
type DirectoryChange = (names: Map<string, Inode>) => void;
/** What outlives the process that uses the disk. */
type Files = {
  readonly names: Map<string, Inode>;
  readonly durableNames: Map<string, Inode>;
  /** Since the last sync of a directory; a journalling file system keeps their order. */
  readonly unsyncedNames: DirectoryChange[];
  usedBytes: number;
};

const SECTOR_BYTES = 512;

/**
 * A disk in memory that is as unkind as a real one may be. For tests, of the store and of what stands on it.
 * Writes, and changes of directories, are lost by a crash unless they were synced; `afterCrash` decides by chance what
 * of them is there. A sync that fails with EIO drops what it should have made durable, though reads go on showing it.
 *
 * Nothing here depends on real time or on chance of its own: the same calls in the same order have the same outcomes.
 */
export class MemoryDisk implements Disk {
  /**
   * Called as each operation is about to complete; what it throws is the operation's outcome. A write that is refused for
   * want of space gets half of itself in; one that fails otherwise, all of it, though not durably.
   */
  before: (operation: DiskOperation) => void = () => {};
  /** Called before that: the operation takes until this resolves, or never ends, or rejects with it. */
  pause: (operation: DiskOperation) => Promise<void> | undefined = () => undefined;
  /** What all files may have together; a write beyond it gets in as far as there is space, and fails with ENOSPC. */
  capacityBytes = Number.POSITIVE_INFINITY;
  #files: Files = { names: new Map(), durableNames: new Map(), unsyncedNames: [], usedBytes: 0 };
  #locks = new Set<string>();
  #operations = 0;

  get operations(): number {
    return this.#operations;
  }
  get usedBytes(): number {
    return this.#files.usedBytes;
  }

  /** What a machine finds when it comes up again: everything synced, and by chance some of the rest, sector by sector. */
  afterCrash(random: Random, keep: "nothing" | "everything" | "some"): MemoryDisk {
    const disk = new MemoryDisk();
    disk.capacityBytes = this.capacityBytes;
    const chance = () => keep === "everything" || (keep === "some" && present(random.bytes(1)[0], "a byte") < 128);
    const { durableNames, unsyncedNames } = this.#files;
    const kept =
      keep === "everything"
        ? unsyncedNames.length
        : keep === "nothing"
          ? 0
          : random.bytes(1)[0]! % (unsyncedNames.length + 1);
    const names = new Map(durableNames);
    for (const change of unsyncedNames.slice(0, kept)) change(names);
    for (const [path, inode] of names) {
      const bytes = inode.durable.copy();
      for (const { offset, bytes: written } of [...inode.unsynced, ...inode.inFlight]) {
        for (let at = 0; at < written.length; ) {
          const end = Math.min(written.length, at + SECTOR_BYTES - ((offset + at) % SECTOR_BYTES));
          if (chance()) bytes.write(offset + at, written.subarray(at, end));
          at = end;
        }
      }
      const found = { current: bytes, durable: bytes.copy(), unsynced: [], inFlight: [], isLinked: true };
      disk.#files.names.set(path, found);
      disk.#files.durableNames.set(path, found);
      disk.#files.usedBytes += bytes.length;
    }
    return disk;
  }

  /** What the next process finds when this one is killed: all of it, though no more durable than it was. */
  afterKill(): MemoryDisk {
    const disk = new MemoryDisk();
    disk.capacityBytes = this.capacityBytes;
    disk.#files = this.#files;
    return disk;
  }

  /** The bytes of a file, for a look or for damage that lasts. */
  peek(path: string): Buffer {
    return Buffer.from(this.#inode(path).current.view());
  }
  /** Puts bytes into a file, there to stay: rot, a write that was meant for another place, one that never arrived. */
  damage(path: string, offset: number, bytes: Uint8Array): void {
    const inode = this.#inode(path);
    this.#put(inode, { offset, bytes });
    inode.durable.write(offset, bytes);
  }

  async list(directory: string): Promise<readonly string[]> {
    await this.#do("list", directory);
    const prefix = `${directory}/`;
    const names: string[] = [];
    for (const path of this.#files.names.keys()) if (path.startsWith(prefix)) names.push(path.slice(prefix.length));
    return names;
  }

  async makeDirectory(): Promise<void> {}

  async open(path: string, mode: "create" | "write" | "read"): Promise<DiskFile> {
    await this.#do(mode === "create" ? "create" : "open", path);
    if (mode === "create") {
      if (this.#files.names.has(path)) throw diskError("EEXIST");
      const inode = { current: new Bytes(), durable: new Bytes(), unsynced: [], inFlight: [], isLinked: true };
      this.#change((names) => names.set(path, inode));
    }
    return this.#file(path, this.#inode(path));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#do("rename", from);
    const inode = this.#inode(from);
    const replaced = this.#files.names.get(to);
    if (replaced && replaced !== inode) this.#unlink(replaced);
    this.#change((names) => {
      names.delete(from);
      names.set(to, inode);
    });
  }

  async remove(path: string): Promise<void> {
    await this.#do("remove", path);
    this.#unlink(this.#inode(path));
    this.#change((names) => names.delete(path));
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#do("syncDirectory", path);
    for (const change of this.#files.unsyncedNames) change(this.#files.durableNames);
    this.#files.unsyncedNames.length = 0;
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
        await this.#do("read", path, offset, length);
        return inode.current.view().slice(offset, offset + length);
      },
      write: async (offset, bytes) => {
        const write = { offset, bytes: new Uint8Array(bytes) };
        await this.#turnOf("write", path, inode, write);
        this.#put(inode, write);
        inode.unsynced.push(write);
      },
      writeDurable: async (offset, bytes) => {
        const write = { offset, bytes: new Uint8Array(bytes) };
        await this.#turnOf("writeDurable", path, inode, write);
        this.#put(inode, write);
        inode.durable.write(offset, write.bytes);
        if (inode.unsynced.length > 0) inode.unsynced = inode.unsynced.flatMap((earlier) => without(earlier, write));
      },
      datasync: async () => {
        const count = inode.unsynced.length;
        try {
          await this.#do("datasync", path);
        } catch (error) {
          if (errorCode(error) === "EIO") inode.unsynced.splice(0, count);
          throw error;
        }
        for (const { offset, bytes } of inode.unsynced.splice(0, count)) inode.durable.write(offset, bytes);
      },
      size: async () => inode.current.length,
      close: async () => {},
    };
  }

  async #do(kind: DiskOperation["kind"], path: string, offset = 0, length = 0): Promise<void> {
    await undefined;
    const operation = { kind, path, offset, length, number: ++this.#operations };
    const paused = this.pause(operation);
    if (paused) await paused;
    this.before(operation);
  }

  /** Waits for a write's turn and for its space. Rejects with what got in of it already there. */
  async #turnOf(kind: "write" | "writeDurable", path: string, inode: Inode, write: Write): Promise<void> {
    const { offset, bytes } = write;
    inode.inFlight.push(write);
    try {
      await this.#do(kind, path, offset, bytes.length);
    } catch (error) {
      const part = { offset, bytes: isDiskFull(error) ? bytes.subarray(0, bytes.length >> 1) : bytes };
      this.#put(inode, part);
      if (kind === "write" || errorCode(error) !== "EIO") inode.unsynced.push(part);
      throw error;
    } finally {
      inode.inFlight.splice(inode.inFlight.indexOf(write), 1);
    }
    const growth = inode.isLinked ? Math.max(0, offset + bytes.length - inode.current.length) : 0;
    const excess = Math.min(growth, this.#files.usedBytes + growth - this.capacityBytes);
    if (growth === 0 || excess <= 0) return;
    const part = { offset, bytes: bytes.subarray(0, Math.max(0, bytes.length - excess)) };
    this.#put(inode, part);
    inode.unsynced.push(part);
    throw diskError("ENOSPC");
  }

  #put(inode: Inode, { offset, bytes }: Write): void {
    const before = inode.current.length;
    inode.current.write(offset, bytes);
    if (inode.isLinked) this.#files.usedBytes += inode.current.length - before;
  }

  #unlink(inode: Inode): void {
    inode.isLinked = false;
    this.#files.usedBytes -= inode.current.length;
  }

  #change(change: DirectoryChange): void {
    change(this.#files.names);
    this.#files.unsyncedNames.push(change);
  }

  #inode(path: string): Inode {
    const inode = this.#files.names.get(path);
    if (!inode) throw diskError("ENOENT");
    return inode;
  }
}

export function diskError(code: string): Error {
  return Object.assign(new Error(`${code} (injected)`), { code });
}

/** What a later write leaves of an earlier one. */
function without({ offset, bytes }: Write, later: Write): Write[] {
  const before = later.offset - offset;
  const after = later.offset + later.bytes.length - offset;
  if (before >= bytes.length || after <= 0) return [{ offset, bytes }];
  const parts = [];
  if (before > 0) parts.push({ offset, bytes: bytes.subarray(0, before) });
  if (after < bytes.length) parts.push({ offset: offset + after, bytes: bytes.subarray(after) });
  return parts;
}

/** Bytes that grow by being written to. */
class Bytes {
  #buffer = new Uint8Array(0);
  length = 0;

  write(offset: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
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
