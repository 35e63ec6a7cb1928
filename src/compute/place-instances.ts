/**
 * Placement: which node runs an instance. A node is filled to what it said it can hold, and never above: memory is
 * real, and vCPUs are shared only by the factor that the operator set (it is in the allocatable figures already).
 */
import { fail, ok, type Result } from "../lib/result.ts";
import type { NodeRecord } from "../model/common-records.ts";
import type { Config } from "../model/config.ts";
import { type AwsError, insufficientInstanceCapacity } from "../model/errors.ts";
import type { NodeId } from "../model/ids.ts";
import type { InstanceRecord } from "../model/instance.ts";
import { instanceState } from "../model/instance-state.ts";
import type { Reader } from "../model/store.ts";
import { instances, instancesObserved, nodes } from "../model/tables.ts";
import { instanceType } from "./instance-types.ts";

export interface Load {
  readonly vcpus: number;
  readonly memoryMib: number;
}

/** What one instance takes of its node. A type that the operator has removed since counts by its vCPUs alone. */
export const loadOf = (config: Config, instance: Pick<InstanceRecord, "instanceType" | "cpuOptions">): Load => ({
  vcpus: instance.cpuOptions.coreCount * instance.cpuOptions.threadsPerCore,
  memoryMib: instanceType(config, instance.instanceType)?.memoryMib ?? 0,
});

/** What a node has left: its machines that are on or still stopping hold their share. */
export function freeOn(state: Reader, config: Config, node: NodeRecord): Load {
  let vcpus = node.allocatableVcpus;
  let memoryMib = node.allocatableMemoryMib;
  for (const instance of state.lookup(instances, "byNode", node.id)) {
    if (instance.power !== "on") {
      const shown = instanceState(instance, state.get(instancesObserved, instance.id));
      if (shown === "stopped" || shown === "terminated") continue;
    }
    const load = loadOf(config, instance);
    vcpus -= load.vcpus;
    memoryMib -= load.memoryMib;
  }
  return { vcpus, memoryMib };
}

/** Whether the node runs machines at all. */
const runsMachines = (node: NodeRecord): boolean => node.roles.includes("compute") || node.roles.includes("all");

/**
 * A node for each of at most `wanted` instances, spread by free memory; fewer when the nodes have no room for more.
 * @param holds whether a node has the bytes of every snapshot that the instance starts from
 */
export function placeInstances(
  state: Reader,
  config: Config,
  region: string,
  zone: string,
  load: Load,
  wanted: number,
  holds: (node: NodeId) => boolean,
): NodeId[] {
  const open = state
    .all(nodes)
    .filter((node) => node.region === region && node.zone === zone && runsMachines(node) && holds(node.id))
    .map((node) => ({ id: node.id, ...freeOn(state, config, node) }));
  const placed: NodeId[] = [];
  while (placed.length < wanted) {
    const best = open
      .filter((node) => node.vcpus >= load.vcpus && node.memoryMib >= load.memoryMib)
      .sort((a, b) => b.memoryMib - a.memoryMib)[0];
    if (!best) break;
    best.vcpus -= load.vcpus;
    best.memoryMib -= load.memoryMib;
    placed.push(best.id);
  }
  return placed;
}

/** Room on its own node for an instance that is to start again. Errors: InsufficientInstanceCapacity. */
export function roomFor(state: Reader, config: Config, instance: InstanceRecord, taken: Load): Result<Load, AwsError> {
  const node = state.get(nodes, instance.nodeId);
  const load = loadOf(config, instance);
  const free = node && freeOn(state, config, node);
  if (!free || free.vcpus - taken.vcpus < load.vcpus || free.memoryMib - taken.memoryMib < load.memoryMib)
    return fail(noCapacity(instance.instanceType, instance.zone));
  return ok({ vcpus: taken.vcpus + load.vcpus, memoryMib: taken.memoryMib + load.memoryMib });
}

export const noCapacity = (type: string, zone: string): AwsError =>
  insufficientInstanceCapacity(
    `We currently do not have sufficient ${type} capacity in the Availability Zone you requested (${zone}). ` +
      "Stop or terminate instances, choose a smaller instance type, or add a node.",
  );
