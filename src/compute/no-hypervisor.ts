/**
 * `--accel none`: instances change state with no machine behind them, for testing infrastructure code and at scale. The same port
 * as the real hypervisor, so that everything above it is the same code.
 */
import { unreachable } from "../lib/assert.ts";
import { ok, type Result } from "../lib/result.ts";
import type { InstanceId } from "../model/ids.ts";
import type { InstanceObserved } from "../model/instance.ts";
import type { Desired } from "./desired.ts";
import { type Hypervisor, type Machine, noMachine, type StepFailure } from "./hypervisor-port.ts";
import type { Step } from "./plan-instance.ts";

/** What a machine has plugged in, by id. */
type Devices = Pick<Machine, "disks" | "nics">;

/**
 * @param recalled what the node's earlier daemon observed: with no process to find again, that is all that is left of them
 * @param devicesOf what such a machine had plugged in
 */
export function noHypervisor(
  recalled: readonly InstanceObserved[],
  devicesOf: (id: InstanceId) => Devices = () => noMachine,
): Hypervisor {
  const machines = new Map<InstanceId, Machine>();
  for (const seen of recalled) {
    if (seen.accel !== "none" || seen.process === "absent" || seen.process === "failed") continue;
    const { disks, nics } = devicesOf(seen.instanceId);
    machines.set(seen.instanceId, {
      ...noMachine,
      disks,
      nics,
      process: "running",
      bootGeneration: seen.bootGeneration,
      rebootGeneration: seen.rebootGeneration,
      interruptGeneration: seen.interruptGeneration,
    });
  }

  const apply = (desired: Desired, step: Step): void => {
    const { id } = desired;
    const machine = machines.get(id) ?? noMachine;
    switch (step.do) {
      case "spawn":
        machines.set(id, {
          ...noMachine,
          process: "running",
          bootGeneration: desired.bootGeneration,
          rebootGeneration: desired.rebootGeneration,
          interruptGeneration: desired.interruptGeneration,
          disks: desired.disks.map((disk) => disk.volumeId),
          nics: desired.nics.map((nic) => nic.eniId),
        });
        return;
      case "powerdown": // a guest that obeys at once
        machines.set(id, { ...machine, process: "powered-off" });
        return;
      case "kill":
      case "reap":
      case "clean":
        machines.delete(id);
        return;
      case "reset":
        machines.set(id, { ...machine, process: "running", rebootGeneration: step.rebootGeneration });
        return;
      case "inject-nmi":
        machines.set(id, { ...machine, interruptGeneration: step.interruptGeneration });
        return;
      case "plug-disk":
        machines.set(id, { ...machine, disks: [...machine.disks, step.disk.volumeId] });
        return;
      case "unplug-disk":
        machines.set(id, { ...machine, disks: machine.disks.filter((disk) => disk !== step.volumeId) });
        return;
      case "plug-nic":
        machines.set(id, { ...machine, nics: [...machine.nics, step.nic.eniId] });
        return;
      case "unplug-nic":
        machines.set(id, { ...machine, nics: machine.nics.filter((nic) => nic !== step.eniId) });
        return;
      case "make-volume":
      case "resume":
        return;
      default:
        unreachable(step);
    }
  };

  return {
    accel: "none",
    observe: async () => machines,
    async apply(desired, step): Promise<Result<void, StepFailure>> {
      apply(desired, step);
      return ok(undefined);
    },
    bootSlots: () => Number.POSITIVE_INFINITY,
    sweep: async () => {},
    onChange: () => {},
  };
}
