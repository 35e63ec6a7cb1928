/** What this host can hold. */
import { readFileSync, statfsSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { GIB, MIB } from "../lib/units.ts";

export interface HostCapacity {
  readonly vcpus: number;
  readonly memoryMib: number;
  /** Of the file system that holds the data directory. */
  readonly diskGib: number;
}

/** Processors and memory as this process may use them: a container's limit counts, not the machine around it. */
export function hostCapacity(dataDir: string): HostCapacity {
  const { blocks, bsize } = statfsSync(dataDir);
  return {
    vcpus: availableParallelism(),
    memoryMib: Math.floor(Math.min(totalmem(), cgroupMemoryLimit()) / MIB),
    diskGib: Math.floor((Number(blocks) * Number(bsize)) / GIB),
  };
}

function cgroupMemoryLimit(): number {
  try {
    const text = readFileSync("/sys/fs/cgroup/memory.max", "utf8").trim();
    return text === "max" ? Number.POSITIVE_INFINITY : Number(text);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
