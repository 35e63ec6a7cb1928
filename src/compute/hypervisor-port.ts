/** What the instance reconciler asks of whatever runs machines: QEMU (`host/hypervisor.ts`), or nothing (`no-hypervisor.ts`). */
import type { Result } from "../lib/result.ts";
import type { InstanceId } from "../model/ids.ts";
import type { StateTransition } from "../model/instance.ts";
import type { Desired } from "./desired.ts";
import type { Step } from "./plan-instance.ts";

/** A machine as the hypervisor sees it now. Of an instance it knows nothing of there is no `Machine`: see `noMachine`. */
export interface Machine {
  /**
   *   absent       no process
   *   starting     a process that does not run the guest yet
   *   running      the guest runs
   *   powered-off  the guest shut itself down; the process waits to be ended, or reset
   *   dead         the process ended and nobody had asked for it; `exit` says why
   */
  readonly process: "absent" | "starting" | "running" | "powered-off" | "dead";
  /** The boot generation of the process, and the reboots and interrupts that it has had. 0 when absent. */
  readonly bootGeneration: number;
  readonly rebootGeneration: number;
  readonly interruptGeneration: number;
  readonly pid?: number;
  /** When the guest was last asked to shut down, in milliseconds since the epoch, and when it was first asked. */
  readonly powerdown?: { readonly firstAt: number; readonly lastAt: number };
  /** Why it is dead. `host-restarted`: with the host, and not on its own account. */
  readonly exit?: { readonly cause: "died" | "host-restarted"; readonly reason: string };
  /** The guest is halted because the host could not write its disk; it continues by `resume`. */
  readonly halted?: string;
  /** Volumes and interfaces that are plugged in. */
  readonly disks: readonly string[];
  readonly nics: readonly string[];
  /** Something of it is on the host's disk. */
  readonly remains: boolean;
}

export const noMachine: Machine = {
  process: "absent",
  bootGeneration: 0,
  rebootGeneration: 0,
  interruptGeneration: 0,
  disks: [],
  nics: [],
  remains: false,
};

/** Why a step failed. */
export interface StepFailure {
  /** Trying again is pointless: a full disk, a program that is not installed, a bad image. */
  readonly permanent: boolean;
  /** As StateReason shows it. */
  readonly transition: StateTransition;
  readonly cause?: unknown;
}

export interface Hypervisor {
  readonly accel: "kvm" | "tcg" | "none";
  /**
   * Every machine that it knows of, from memory: it learns of changes as they happen and calls `changed`.
   * @param resync ask each machine again, and look for processes and files that it has lost sight of
   */
  observe(resync: boolean): Promise<ReadonlyMap<InstanceId, Machine>>;
  /** Carries out one step. A step whose work is done already succeeds. */
  apply(desired: Desired, step: Step): Promise<Result<void, StepFailure>>;
  /** How many machines may begin to boot now, so that those that do get enough of the processors. */
  bootSlots(): number;
  /** Removes what belongs to no instance or volume of this node. Called with complete lists, at each resync. */
  sweep(instances: ReadonlySet<string>, volumes: ReadonlySet<string>): Promise<void>;
  /** `listener` hears of each machine that changed without having been asked to, and of free boot slots (no id). */
  onChange(listener: (id?: InstanceId) => void): void;
}
