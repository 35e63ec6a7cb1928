/**
 * TerminateInstances. All or none: EC2 terminates the instances of other zones when one is protected and answers with an
 * error all the same; here an answer that is an error means that nothing changed.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import type { AwsError } from "../model/errors.ts";
import type { InstanceRecord } from "../model/instance.ts";
import type { Call, Decision, Mutation } from "../model/operation.ts";
import type { TerminateInstancesRequest, TerminateInstancesResult } from "../schema/ec2/types.ts";
import { powerChange } from "./change-power.ts";
import { protectedFrom } from "./errors.ts";
import { USER_INITIATED } from "./instance-view.ts";
import { findInstances } from "./owned.ts";

export function decideTerminateInstances(
  input: TerminateInstancesRequest,
  call: Call,
): Result<Decision<TerminateInstancesResult>, AwsError> {
  const found = findInstances(call, input.InstanceIds ?? []);
  if (!found.ok) return found;
  const guarded = found.value.find((instance) => instance.power !== "terminated" && instance.disableApiTermination);
  if (guarded) return fail(protectedFrom(guarded.id, "terminated"));
  const forced = input.Force === true || input.SkipOsShutdown === true;
  const changes = found.value.map((instance) => powerChange(instance, terminated(instance, forced, call.now), call));
  return ok({
    writes: changes.flatMap((one) => one.writes),
    output: { TerminatingInstances: changes.map((one) => one.change) },
  });
}

function terminated(instance: InstanceRecord, forced: boolean, now: number): InstanceRecord {
  if (instance.power === "terminated") return forced && !instance.forced ? { ...instance, forced } : instance;
  return {
    ...instance,
    power: "terminated",
    // A stop that was forced does not become gentle again.
    forced: forced || (instance.power === "off" && instance.forced),
    transition: USER_INITIATED,
    powerChangedAt: now,
  };
}

export const terminateInstances: Mutation<TerminateInstancesRequest, TerminateInstancesResult> = {
  kind: "mutation",
  decide: decideTerminateInstances,
};
