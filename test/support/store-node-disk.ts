import type { Disk, DiskFile } from "../../src/cluster/kv/disk.ts";

export type FaultyDisk = {
  readonly disk: Disk;
  /** It finishes nothing from now on. */
  hang(): void;
};

/**
 * A disk whose writes and syncs can be made to never end. @param losesUnsynced keeps writes in memory until they are synced, so
 * that a kill loses the others as a power cut would
 */
export function faultyDisk(disk: Disk, losesUnsynced: boolean): FaultyDisk {
  let isHung = false;
  const never = new Promise<never>(() => {});
  const file = (inner: DiskFile): DiskFile => {
    let held: { offset: number; bytes: Uint8Array }[] = [];
    const flush = async () => {
      const writes = held;
      held = [];
      for (const { offset, bytes } of writes) await inner.write(offset, bytes);
    };
    return {
      ...inner,
      async read(offset, length, reuse) {
        await flush();
        return inner.read(offset, length, reuse);
      },
      async write(offset, bytes) {
        if (isHung) await never;
        if (losesUnsynced) held.push({ offset, bytes: Uint8Array.from(bytes) });
        else await inner.write(offset, bytes);
      },
      async writeDurable(offset, bytes) {
        if (isHung) await never;
        await flush();
        await inner.writeDurable(offset, bytes);
      },
      async datasync() {
        if (isHung) await never;
        await flush();
        await inner.datasync();
      },
    };
  };
  return {
    disk: { ...disk, open: async (path, mode) => file(await disk.open(path, mode)) },
    hang: () => {
      isHung = true;
    },
  };
}
