/**
 * Compares the machine that is wanted with the one that is there. The order of the cases is the machine's life backwards: what
 * must end comes before what may begin. Every step may be repeated, and after a crash at any point the same comparison
 * leads to the same end.
 *
 * A guest that shuts itself down leaves its process waiting (QEMU's `-no-shutdown`), so that nobody mistakes it for a
 * machine that died, not even a daemon that was not there to see it. What follows from it (stop or terminate) is decided
 * in the tables (`plan-observed.ts`); until then the planner leaves it alone.
 */
import { unreachable } from "../lib/assert.ts";
import { SECOND_MS } from "../lib/units.ts";
import type { Desired, DesiredDisk, DesiredNic } from "./desired.ts";
import type { Machine } from "./hypervisor-port.ts";

export type Step =
  | { readonly do: "make-volume"; readonly disk: DesiredDisk }
  | { readonly do: "spawn" }
  /** Presses the power button. */
  | { readonly do: "powerdown" }
  /** Ends the process, whatever the guest does. */
  | { readonly do: "kill" }
  /** Forgets a process that has ended: its sockets, its TAPs, its launch record. Volumes and console output stay. */
  | { readonly do: "reap" }
  | { readonly do: "reset"; readonly rebootGeneration: number }
  | { readonly do: "inject-nmi"; readonly interruptGeneration: number }
  | { readonly do: "resume" }
  | { readonly do: "plug-disk"; readonly disk: DesiredDisk }
  | { readonly do: "unplug-disk"; readonly volumeId: string }
  | { readonly do: "plug-nic"; readonly nic: DesiredNic }
  | { readonly do: "unplug-nic"; readonly eniId: string }
  /** Removes everything of a terminated instance but its console output, which can be read for as long as its record is. */
  | { readonly do: "clean" };

export interface Plan {
  /** In order; `[]` with no `wakeAt` means converged. */
  readonly steps: readonly Step[];
  /** When to look again though nothing happens; milliseconds since the epoch. */
  readonly wakeAt?: number;
}

export interface PlanContext {
  readonly now: number;
  /** How long a guest has for its own shutdown. */
  readonly gracefulMs: number;
  /** The machine may begin to boot now. */
  readonly mayBoot: boolean;
  /** Everything of a terminated instance was removed. */
  readonly cleaned: boolean;
}

/** A guest that is still booting misses the power button, so it's pressed again. */
export const POWERDOWN_AGAIN_MS = 5 * SECOND_MS;
/** A guest that was halted by a full disk is asked to go on this often. */
export const RESUME_AGAIN_MS = 15 * SECOND_MS;

const converged: Plan = { steps: [] };

/** The steps that take one instance from `have` to `want`. Pure. */
export function planInstance(want: Desired, have: Machine, context: PlanContext): Plan {
  switch (want.power) {
    case "off":
      return end(want, have, context);
    case "terminated": {
      const ending = end(want, have, context);
      if (have.process !== "absent" || context.cleaned) return ending;
      return { steps: [...ending.steps, { do: "clean" }] };
    }
    case "on":
      if (have.process !== "absent" && have.bootGeneration !== want.bootGeneration) return replaceStale(have);
      return keepOn(want, have, context);
    default:
      return unreachable(want.power);
  }
}

/** A process of another start is not the machine that is wanted; its own end was asked for when that start was ended. */
function replaceStale(have: Machine): Plan {
  return { steps: have.process === "dead" ? [{ do: "reap" }] : [{ do: "kill" }, { do: "reap" }] };
}

function end(want: Desired, have: Machine, context: PlanContext): Plan {
  switch (have.process) {
    case "absent":
      return converged;
    case "dead":
      return { steps: [{ do: "reap" }] };
    case "powered-off":
    case "starting":
      return { steps: [{ do: "kill" }, { do: "reap" }] };
    case "running": {
      const deadline = want.powerChangedAt + context.gracefulMs;
      if (want.forced || context.now >= deadline || have.halted) return { steps: [{ do: "kill" }, { do: "reap" }] };
      return pressPowerButton(have, context.now, deadline);
    }
    default:
      return unreachable(have.process);
  }
}

function pressPowerButton(have: Machine, now: number, deadline: number): Plan {
  const again = have.powerdown === undefined ? now : have.powerdown.lastAt + POWERDOWN_AGAIN_MS;
  if (now < again) return { steps: [], wakeAt: Math.min(again, deadline) };
  return { steps: [{ do: "powerdown" }], wakeAt: Math.min(now + POWERDOWN_AGAIN_MS, deadline) };
}

function keepOn(want: Desired, have: Machine, context: PlanContext): Plan {
  switch (have.process) {
    case "absent":
      return start(want, context);
    case "dead":
      return recovers(want, have) ? { steps: [{ do: "reap" }] } : converged;
    case "starting":
      return converged;
    case "powered-off":
      return want.rebootGeneration > have.rebootGeneration ? reset(want) : converged;
    case "running":
      if (want.rebootGeneration > have.rebootGeneration) return reboot(want, have, context);
      if (have.halted) return { steps: [{ do: "resume" }], wakeAt: context.now + RESUME_AGAIN_MS };
      return { steps: [...interrupt(want, have), ...plugging(want, have)] };
    default:
      return unreachable(have.process);
  }
}

function start(want: Desired, context: PlanContext): Plan {
  if (want.blocked || !context.mayBoot) return converged; // what it waits for will wake the loop
  return { steps: [...want.disks.map((disk): Step => ({ do: "make-volume", disk })), { do: "spawn" }] };
}

/** True when a dead machine is to be started again without being asked: it went with its host, as after a power failure. */
export const recovers = (want: Desired, have: Machine): boolean =>
  have.exit?.cause === "host-restarted" && want.autoRecovery;

const reset = (want: Desired): Plan => ({ steps: [{ do: "reset", rebootGeneration: want.rebootGeneration }] });

/** As on EC2: the guest is asked to shut down, and reset hard when it has not after some time. */
function reboot(want: Desired, have: Machine, context: PlanContext): Plan {
  const deadline = (have.powerdown?.firstAt ?? context.now) + context.gracefulMs;
  if (have.halted || context.now >= deadline) return reset(want);
  return pressPowerButton(have, context.now, deadline);
}

const interrupt = (want: Desired, have: Machine): readonly Step[] =>
  want.interruptGeneration > have.interruptGeneration
    ? [{ do: "inject-nmi", interruptGeneration: want.interruptGeneration }]
    : [];

function plugging(want: Desired, have: Machine): readonly Step[] {
  const disks = new Set(want.disks.map((disk) => disk.volumeId as string));
  const nics = new Set(want.nics.map((nic) => nic.eniId as string));
  return [
    ...have.disks.filter((id) => !disks.has(id)).map((volumeId): Step => ({ do: "unplug-disk", volumeId })),
    ...have.nics.filter((id) => !nics.has(id)).map((eniId): Step => ({ do: "unplug-nic", eniId })),
    ...want.disks
      .filter((disk) => !have.disks.includes(disk.volumeId))
      .flatMap((disk): Step[] => [
        { do: "make-volume", disk },
        { do: "plug-disk", disk },
      ]),
    ...want.nics.filter((nic) => !have.nics.includes(nic.eniId)).map((nic): Step => ({ do: "plug-nic", nic })),
  ];
}
