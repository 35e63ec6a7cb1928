import type { NodeRecord } from "../model/common-records.ts";
import { type Config, zoneOf } from "../model/config.ts";
import type { NodeId } from "../model/ids.ts";

/** What a node knows of itself when it starts. */
export interface NodeFacts {
  readonly id: NodeId;
  readonly name: string;
  readonly version: string;
  readonly roles: readonly string[];
  readonly capacity: { readonly vcpus: number; readonly memoryMib: number; readonly diskGib: number };
  readonly accel: NodeRecord["accel"];
  readonly accelReason: string;
  readonly network: NodeRecord["network"];
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
}

/** The node's record: its facts, and what placement may hand out of them. Pure. */
export function nodeRecord(facts: NodeFacts, config: Config): NodeRecord {
  const { capacity, ...rest } = facts;
  const forMachines = Math.max(0, capacity.memoryMib - config.reservedMemoryMib);
  return {
    ...rest,
    region: config.region,
    zone: zoneOf(config),
    ...capacity,
    allocatableVcpus: Math.floor(capacity.vcpus * config.overcommit.cpu),
    allocatableMemoryMib: Math.floor(forMachines * config.overcommit.memory),
  };
}
