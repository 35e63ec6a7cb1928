/**
 * Processor time, from /proc: of one process, and of everybody else while something is measured. A figure that was taken
 * while others used the machine says little, so it gets no verdict.
 */
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

/** A clock tick is 10 ms on every Linux that Hive runs on. */
const TICK_MS = 10;
/** Of one processor. */
export const FOREIGN_SHARE_MAX = 0.15;

interface Stat {
  readonly parent: number;
  readonly ownMs: number;
  /** With that of children which have ended. */
  readonly withChildrenMs: number;
}

function statOf(pid: number | string): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" "); // from field 3 on; the name may hold anything
    const ms = (from: number, to: number) =>
      fields.slice(from, to).reduce((sum, field) => sum + Number(field), 0) * TICK_MS;
    return { parent: Number(fields[1]), ownMs: ms(11, 13), withChildrenMs: ms(11, 15) };
  } catch {
    return undefined;
  }
}

/** What a process has used, user and system, in milliseconds. */
export const processTime = (pid: number): number => statOf(pid)?.ownMs ?? Number.NaN;

/** What the whole machine has used, without waiting for disks and without idling. Milliseconds of processors. */
function machineTime(): number {
  const [, user, nice, system, , , irq, softirq, steal] = readFileSync("/proc/stat", "utf8")
    .split("\n")[0]!
    .split(/\s+/);
  return [user, nice, system, irq, softirq, steal].reduce((sum, field) => sum + Number(field), 0) * TICK_MS;
}

/** What this process, all its descendants, and the machines (which are nobody's children) in our directories have used. */
function ownTime(): number {
  const stats = new Map<number, Stat>();
  for (const name of readdirSync("/proc")) {
    const stat = /^\d+$/.test(name) ? statOf(name) : undefined;
    if (stat) stats.set(Number(name), stat);
  }
  const isOurs = (pid: number): boolean => {
    for (let at = pid, depth = 0; at > 1 && depth < 64; at = stats.get(at)?.parent ?? 0, depth++) {
      if (at === process.pid) return true;
    }
    return false;
  };
  let sum = 0;
  for (const [pid, stat] of stats) if (isOurs(pid) || extra.has(pid)) sum += stat.withChildrenMs;
  return sum;
}

const extra = new Set<number>();
/** Counts a process as ours that is not a descendant: a machine, a daemon that has detached itself. */
export const countAsOurs = (pid: number): void => void extra.add(pid);

export interface ForeignLoad {
  /** Processors that others kept busy on average. */
  readonly processors: number;
  readonly tooBusy: boolean;
}

/** Measures what others use until the returned function is called. */
export function watchForeignLoad(): () => ForeignLoad {
  const started = performance.now();
  const machine = machineTime();
  const own = ownTime();
  return () => {
    const wallMs = performance.now() - started;
    const foreign = Math.max(0, machineTime() - machine - (ownTime() - own)) / wallMs;
    const processors = Math.min(foreign, availableParallelism());
    return { processors, tooBusy: processors > FOREIGN_SHARE_MAX };
  };
}
