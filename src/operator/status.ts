import type { NodeRecord } from "../model/common-records.ts";
import type { NodeId } from "../model/ids.ts";
import { INSTANCE_STATE_CODES, instanceState } from "../model/instance-state.ts";
import type { Reader, StoreStatus } from "../model/store.ts";
import { instances, instancesObserved, nodes } from "../model/tables.ts";

/** What `hive status` shows. */
export interface StatusReport {
  readonly version: string;
  readonly endpoint: string;
  readonly region: string;
  readonly accountId: string;
  readonly uptimeMs: number;
  readonly node: {
    readonly id: string;
    readonly zone: string;
    readonly roles: readonly string[];
    readonly accel: string;
    readonly accelReason: string;
    readonly vcpus: Share;
    readonly memoryMib: Share;
  };
  readonly network: NodeRecord["network"];
  readonly store: { readonly writable: boolean; readonly revision: number; readonly reason?: string };
  /** Instances by the state that AWS shows. */
  readonly instances: Readonly<Record<string, number>>;
  readonly memoryBytes: number;
}

export interface Share {
  readonly physical: number;
  /** After the overcommit factor. */
  readonly allocatable: number;
  /** Held by instances that are on. */
  readonly used: number;
}

export interface StatusFacts {
  readonly nodeId: NodeId;
  readonly version: string;
  readonly endpoint: string;
  readonly region: string;
  readonly accountId: string;
  readonly uptimeMs: number;
  readonly memoryBytes: number;
  readonly store: StoreStatus;
  /** MiB of an instance type; undefined of one that is configured no more. */
  readonly memoryOf: (instanceType: string) => number | undefined;
}

/** One node's status, from one snapshot of state. Pure. */
export function reportStatus(state: Reader, facts: StatusFacts): StatusReport {
  const { nodeId, store, memoryOf, ...rest } = facts;
  const node = state.get(nodes, nodeId);
  const counts: Record<string, number> = Object.fromEntries(Object.keys(INSTANCE_STATE_CODES).map((name) => [name, 0]));
  let [vcpus, memoryMib] = [0, 0];
  for (const instance of state.lookup(instances, "byNode", nodeId)) {
    const shown = instanceState(instance, state.get(instancesObserved, instance.id));
    counts[shown] = (counts[shown] ?? 0) + 1;
    if (instance.power !== "on") continue;
    vcpus += instance.cpuOptions.coreCount * instance.cpuOptions.threadsPerCore;
    memoryMib += memoryOf(instance.instanceType) ?? 0;
  }
  return {
    ...rest,
    node: {
      id: nodeId,
      zone: node?.zone ?? "",
      roles: node?.roles ?? [],
      accel: node?.accel ?? "none",
      accelReason: node?.accelReason ?? "not looked at yet",
      vcpus: { physical: node?.vcpus ?? 0, allocatable: node?.allocatableVcpus ?? 0, used: vcpus },
      memoryMib: { physical: node?.memoryMib ?? 0, allocatable: node?.allocatableMemoryMib ?? 0, used: memoryMib },
    },
    network: node?.network ?? { mode: "none", ok: false, reason: "not looked at yet" },
    store: {
      writable: store.health === "ok",
      revision: store.revision,
      ...(store.message === undefined ? {} : { reason: store.message }),
    },
    instances: counts,
  };
}
