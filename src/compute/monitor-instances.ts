/** MonitorInstances and UnmonitorInstances: the flag of detailed monitoring. */
import { ok } from "../lib/result.ts";
import type { Call, Mutation } from "../model/operation.ts";
import { put } from "../model/store.ts";
import { instances } from "../model/tables.ts";
import type {
  MonitorInstancesRequest,
  MonitorInstancesResult,
  UnmonitorInstancesRequest,
  UnmonitorInstancesResult,
} from "../schema/ec2/types.ts";
import { findInstances } from "./owned.ts";

function decide(ids: readonly string[] | undefined, monitoring: boolean, call: Call) {
  const found = findInstances(call, ids ?? []);
  if (!found.ok) return found;
  const changed = found.value.filter((instance) => instance.monitoring !== monitoring);
  return ok({
    writes: changed.map((instance) => put(instances, { ...instance, monitoring })),
    output: {
      InstanceMonitorings: found.value.map((instance) => ({
        InstanceId: instance.id,
        Monitoring: { State: monitoring ? ("enabled" as const) : ("disabled" as const) },
      })),
    },
  });
}

export const monitorInstances: Mutation<MonitorInstancesRequest, MonitorInstancesResult> = {
  kind: "mutation",
  decide: (input, call) => decide(input.InstanceIds, true, call),
};
export const unmonitorInstances: Mutation<UnmonitorInstancesRequest, UnmonitorInstancesResult> = {
  kind: "mutation",
  decide: (input, call) => decide(input.InstanceIds, false, call),
};
