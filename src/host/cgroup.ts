/**
 * Limits on a guest's process, so that one that misbehaves takes no more of the host than its type says. Where systemd runs,
 * it gets a scope of its own; else a control group (v2) beneath the daemon's mount; else none, and the daemon says so.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MIB } from "../lib/units.ts";

export interface GuestLimits {
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly translationCacheMib: number;
}

export type Confinement =
  | { readonly kind: "systemd" }
  | { readonly kind: "cgroup"; readonly root: string; readonly controllers: readonly string[] }
  | { readonly kind: "none"; readonly reason: string };

/** QEMU's own memory beside the guest's: device models, block caches, I/O threads. Measured at 60 to 110 MiB; with room. */
const OVERHEAD_MIB = 512;
/** vCPU, I/O worker and helper threads. QEMU's pool has up to 64 workers a disk. */
const TASKS_MAX = 1024;
const WANTED = ["cpu", "memory", "pids"] as const;

export const memoryLimitMib = (limits: GuestLimits): number =>
  limits.memoryMib + limits.translationCacheMib + OVERHEAD_MIB;

/** What this host offers. Makes the parent group `hive` where it uses control groups itself. */
export function findConfinement(): Confinement {
  if (process.getuid?.() !== 0) return { kind: "none", reason: "the daemon is not root" };
  if (existsSync("/run/systemd/system")) return { kind: "systemd" };
  const root = cgroup2Mount();
  if (!root) return { kind: "none", reason: "no control group (v2) file system is mounted" };
  const offered = readFileSync(join(root, "cgroup.controllers"), "utf8").trim().split(" ");
  const controllers = WANTED.filter((name) => offered.includes(name));
  if (controllers.length === 0) return { kind: "none", reason: `${root} offers none of ${WANTED.join(", ")}` };
  try {
    const own = join(root, "hive");
    const enable = controllers.map((name) => `+${name}`).join(" ");
    writeFileSync(join(root, "cgroup.subtree_control"), enable);
    mkdirSync(own, { recursive: true });
    writeFileSync(join(own, "cgroup.subtree_control"), enable);
    return { kind: "cgroup", root: own, controllers };
  } catch (cause) {
    return { kind: "none", reason: `${root} cannot be written: ${cause instanceof Error ? cause.message : cause}` };
  }
}

function cgroup2Mount(): string | undefined {
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  return mounts.map((line) => line.split(" ")).find((fields) => fields[2] === "cgroup2")?.[1];
}

/** `argv`, wrapped so that the process starts in a scope; systemd-run replaces itself, so the pid stays. */
export function inScope(
  confinement: Confinement,
  id: string,
  limits: GuestLimits,
  argv: readonly string[],
): readonly string[] {
  if (confinement.kind !== "systemd") return argv;
  return [
    ...["systemd-run", "--scope", "--quiet", "--collect", `--unit=hive-${id}`, "--slice=hive.slice"],
    ...["-p", `MemoryMax=${memoryLimitMib(limits)}M`, "-p", `TasksMax=${TASKS_MAX}`],
    ...["-p", `CPUQuota=${(limits.vcpus + 1) * 100}%`, "--"],
    ...argv,
  ];
}

/** Moves a process that has just started into its own group. @returns why not, when it could not */
export function confine(confinement: Confinement, id: string, limits: GuestLimits, pid: number): string | undefined {
  if (confinement.kind !== "cgroup") return undefined;
  const group = join(confinement.root, id);
  const values: { readonly [controller: string]: readonly [file: string, value: string] } = {
    cpu: ["cpu.max", `${(limits.vcpus + 1) * 100_000} 100000`],
    memory: ["memory.max", String(memoryLimitMib(limits) * MIB)],
    pids: ["pids.max", String(TASKS_MAX)],
  };
  try {
    mkdirSync(group, { recursive: true });
    for (const controller of confinement.controllers) {
      const [file, value] = values[controller]!;
      writeFileSync(join(group, file), value);
    }
    writeFileSync(join(group, "cgroup.procs"), String(pid));
    return undefined;
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}

/** Removes the group of a process that has ended. */
export function unconfine(confinement: Confinement, id: string): void {
  if (confinement.kind !== "cgroup") return;
  try {
    rmdirSync(join(confinement.root, id));
  } catch {
    // Never made, or its last process is not reaped yet: an empty group costs nothing.
  }
}
