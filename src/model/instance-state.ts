import { unreachable } from "../lib/assert.ts";
import type { InstanceObserved, InstanceRecord, StateTransition } from "./instance.ts";

/** The states and codes of EC2's `InstanceState`. */
export const INSTANCE_STATE_CODES = {
  pending: 0,
  running: 16,
  "shutting-down": 32,
  terminated: 48,
  stopping: 64,
  stopped: 80,
} as const;
export type InstanceStateName = keyof typeof INSTANCE_STATE_CODES;

/** True when the node's agent has seen the process of the current start to its end. */
const ended = (instance: InstanceRecord, seen: InstanceObserved | undefined): boolean =>
  seen === undefined ? instance.power !== "on" : seen.process === "absent" || seen.process === "failed";

/**
 * The state that AWS shows, from what was asked and what was seen. Nothing stores it.
 * An instance that was never started on its node and is asked to be off is off.
 */
export function instanceState(instance: InstanceRecord, seen: InstanceObserved | undefined): InstanceStateName {
  switch (instance.power) {
    case "on":
      return seen?.process === "running" && seen.bootGeneration === instance.bootGeneration ? "running" : "pending";
    case "off":
      return ended(instance, seen) ? "stopped" : "stopping";
    case "terminated":
      return ended(instance, seen) ? "terminated" : "shutting-down";
    default:
      return unreachable(instance.power);
  }
}

/** Nobody shall take a record for a machine. */
const NO_MACHINE: StateTransition = {
  code: "Server.NoMachine",
  message: "Server.NoMachine: No machine runs behind this instance (hive server --accel none)",
};

/** `StateReason` of a Describe: why it stopped, or why it could not start. AWS has none for what runs; nor has Hive where a machine does. */
export function stateReason(instance: InstanceRecord, seen: InstanceObserved | undefined): StateTransition | undefined {
  if (instance.power !== "on") return instance.transition;
  if (seen?.process === "failed") return seen.reason;
  if (instanceState(instance, seen) === "pending") return { code: "pending", message: "pending" };
  return seen?.accel === "none" ? NO_MACHINE : undefined;
}
