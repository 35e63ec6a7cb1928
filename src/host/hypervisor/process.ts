/** Processes of guests in /proc: found, told apart, ended. A pid alone names nothing: it may be reused; with its start time it does. */
import { readdirSync, readFileSync, type Stats, statSync } from "node:fs";
import { errnoOf } from "../host-error.ts";

export interface GuestProcess {
  readonly pid: number;
  /** Clock ticks from the host's start to the process's (field 22 of /proc/PID/stat). */
  readonly startTicks: number;
}

interface Stat {
  readonly state: string;
  readonly startTicks: number;
  /** Processor time used, user and system, in clock ticks. */
  readonly cpuTicks: number;
}

function statOf(pid: number): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" "); // from field 3 on; the name may hold anything
    return { state: fields[0]!, cpuTicks: Number(fields[11]) + Number(fields[12]), startTicks: Number(fields[19]) };
  } catch {
    return undefined;
  }
}

/** The process with this pid now; undefined when there is none, or only its exit status is left of it. */
export function processOf(pid: number): GuestProcess | undefined {
  const stat = statOf(pid);
  return stat && stat.state !== "Z" && stat.state !== "X" ? { pid, startTicks: stat.startTicks } : undefined;
}

export const isAlive = (process: GuestProcess): boolean => processOf(process.pid)?.startTicks === process.startTicks;

/** Processor time that it has used, in milliseconds (a clock tick is 10 ms on every Linux that Hive runs on). */
export const cpuMsOf = (process: GuestProcess): number => (statOf(process.pid)?.cpuTicks ?? 0) * 10;

/**
 * Every process of a guest of this data directory, by instance id: it was started in the directory, and its arguments hold
 * `-name guest=<id>,…` (also while setpriv or systemd-run are about to become QEMU).
 */
export function findGuests(dataDir: string): ReadonlyMap<string, readonly GuestProcess[]> {
  const guests = new Map<string, GuestProcess[]>();
  const folder = statSync(dataDir, { throwIfNoEntry: false });
  if (!folder) return guests;
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const pid = Number(name);
    const id = guestIdOf(pid, folder);
    const found = id ? processOf(pid) : undefined;
    if (id && found) guests.set(id, [...(guests.get(id) ?? []), found]);
  }
  return guests;
}

/** The folder is told by its inode: from another mount namespace or root its path reads differently. */
function guestIdOf(pid: number, folder: Stats): string | undefined {
  try {
    const argv = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    const name = argv[argv.indexOf("-name") + 1];
    const id = name?.match(/^guest=(i-[0-9a-f]+),/)?.[1];
    const cwd = id && statSync(`/proc/${pid}/cwd`);
    return cwd && cwd.ino === folder.ino && cwd.dev === folder.dev ? id : undefined;
  } catch {
    return undefined; // it has ended meanwhile, or is somebody else's
  }
}

/** Ends a process, and waits until it is gone. @returns false when it is still there at the limit (uninterruptible I/O) */
export async function endProcess(process: GuestProcess, limitMs: number): Promise<boolean> {
  if (isAlive(process)) signal(process.pid, "SIGKILL");
  return gone(process, limitMs);
}

/** Waits until a process is gone. @returns false when it is still there at the limit */
export async function gone(process: GuestProcess, limitMs: number): Promise<boolean> {
  const until = performance.now() + limitMs;
  while (isAlive(process)) {
    if (performance.now() > until) return false;
    await Bun.sleep(10);
  }
  return true;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (cause) {
    if (errnoOf(cause) !== "ESRCH") throw cause;
  }
}

/** Changes with each start of the host. */
export const hostBootId = (): string => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
