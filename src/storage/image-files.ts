/**
 * The files beneath images on one node. An upload lands in `incoming/`; `place` moves a finished set, whole or not at
 * all, to `snapshots/<snap-id>/`, where volumes refer to it as their backing file and QEMU finds its kernel.
 *
 *   DIR/incoming/<upload id>            bytes as they came; everything here is swept at start
 *   DIR/snapshots/<snap-id>/disk.qcow2  read-only from then on
 *   DIR/snapshots/<snap-id>/{kernel,initrd}
 */
import { chmod, type FileHandle, link, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Random } from "../lib/random.ts";
import { randomHex } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { MIB } from "../lib/units.ts";

export interface StorageError {
  readonly kind: "no-space" | "not-found" | "too-large" | "aborted" | "io";
  readonly message: string;
}

export interface Upload {
  readonly uploadId: string;
  readonly bytes: number;
}

/** Names of a placed set, relative to its snapshot's folder. */
export const DISK_FILE = "disk.qcow2";
export const KERNEL_FILE = "kernel";
export const INITRD_FILE = "initrd";

/** How much is written between two waits for the disk, so that a large upload doesn't fill memory with dirty pages. */
const SYNC_EVERY_BYTES = 64 * MIB;

export class ImageFiles {
  readonly #incoming: string;
  readonly #snapshots: string;
  readonly #random: Random;

  /** @param dataDir the node's data directory, absolute */
  constructor(dataDir: string, random: Random) {
    this.#incoming = join(dataDir, "incoming");
    this.#snapshots = join(dataDir, "snapshots");
    this.#random = random;
  }

  /** Makes the folders and removes what an earlier run left half done. `wanted`: the snapshots that have a record. */
  async open(wanted: ReadonlySet<string>): Promise<{ readonly removed: readonly string[] }> {
    await rm(this.#incoming, { recursive: true, force: true });
    await mkdir(this.#incoming, { recursive: true, mode: 0o700 });
    // QEMU runs as a user of its own and must pass through to its snapshot's files.
    await mkdir(this.#snapshots, { recursive: true, mode: 0o711 });
    const removed: string[] = [];
    for (const name of await readdir(this.#snapshots)) {
      if (wanted.has(name)) continue;
      await rm(join(this.#snapshots, name), { recursive: true, force: true });
      removed.push(name);
    }
    return { removed };
  }

  uploadFile(uploadId: string): string {
    return join(this.#incoming, uploadId);
  }

  snapshotFolder(snapshotId: string): string {
    return join(this.#snapshots, snapshotId);
  }

  /**
   * Receives a body into `incoming/`, with back-pressure, synced when it ends. Nothing is left of a body that fails.
   * @param maxBytes refused beyond (`too-large`)
   */
  async receive(body: ReadableStream<Uint8Array>, maxBytes: number): Promise<Result<Upload, StorageError>> {
    const uploadId = randomHex(this.#random, 32);
    const file = this.uploadFile(uploadId);
    let bytes = 0;
    let unsynced = 0;
    let handle: FileHandle | undefined;
    try {
      handle = await open(file, "wx", 0o600);
      for await (const chunk of body) {
        bytes += chunk.byteLength;
        if (bytes > maxBytes) {
          await rm(file, { force: true });
          return fail({ kind: "too-large", message: `the upload is larger than ${maxBytes} bytes` });
        }
        for (let at = 0; at < chunk.byteLength; ) at += (await handle.write(chunk, at)).bytesWritten;
        unsynced += chunk.byteLength;
        if (unsynced >= SYNC_EVERY_BYTES) {
          await handle.datasync();
          unsynced = 0;
        }
      }
      await handle.sync();
      return ok({ uploadId, bytes });
    } catch (cause) {
      await rm(file, { force: true });
      return fail(storageError("receive the upload", cause));
    } finally {
      await handle?.close();
    }
  }

  /** Forgets an upload, or does nothing when it is gone. */
  async forget(uploadId: string): Promise<void> {
    await rm(this.uploadFile(uploadId), { force: true });
  }

  /** Moves files into place as a snapshot's, atomically: either the folder is whole or it is not there. */
  async place(
    snapshotId: string,
    files: { readonly disk: string; readonly kernel?: string | undefined; readonly initrd?: string | undefined },
  ): Promise<Result<void, StorageError>> {
    const temporary = join(this.#snapshots, `.${snapshotId}`);
    try {
      await mkdir(temporary, { mode: 0o711 });
      const moves: [string | undefined, string][] = [
        [files.disk, DISK_FILE],
        [files.kernel, KERNEL_FILE],
        [files.initrd, INITRD_FILE],
      ];
      for (const [from, name] of moves) {
        if (from === undefined) continue;
        await chmod(from, 0o444);
        // What qemu-img converted is not on the disk yet.
        await sync(from);
        await link(from, join(temporary, name));
      }
      await sync(temporary);
      await rename(temporary, this.snapshotFolder(snapshotId));
      await sync(this.#snapshots);
      return ok(undefined);
    } catch (cause) {
      return fail(storageError("put the image in place", cause));
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  }

  /** Removes a snapshot's files; nothing happens when there are none. */
  async remove(snapshotId: string): Promise<void> {
    await rm(this.snapshotFolder(snapshotId), { recursive: true, force: true });
  }
}

/** Waits until a file or a folder is on the disk. */
async function sync(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function storageError(doing: string, cause: unknown): StorageError {
  const code = (cause as { code?: unknown }).code;
  const why = cause instanceof Error ? cause.message : String(cause);
  if (code === "ENOSPC" || code === "EDQUOT")
    return { kind: "no-space", message: `no space left on the disk to ${doing}` };
  if (code === "ENOENT") return { kind: "not-found", message: `cannot ${doing}: ${why}` };
  return { kind: "io", message: `cannot ${doing}: ${why}` };
}
