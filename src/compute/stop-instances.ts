/** StopInstances: asks the guest to shut down, or with Force pulls the plug. */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import type { InstanceRecord } from "../model/instance.ts";
import type { Call, Decision, Mutation } from "../model/operation.ts";
import type { StopInstancesRequest, StopInstancesResult } from "../schema/ec2/types.ts";
import { powerChange } from "./change-power.ts";
import { notInStateFor, protectedFrom } from "./errors.ts";
import { USER_INITIATED } from "./instance-view.ts";
import { findInstances, stateOf } from "./owned.ts";

export function decideStopInstances(
  input: StopInstancesRequest,
  call: Call,
): Result<Decision<StopInstancesResult>, AwsError> {
  const found = findInstances(call, input.InstanceIds ?? []);
  if (!found.ok) return found;
  const forced = input.Force === true || input.SkipOsShutdown === true;
  const changes = [];
  for (const instance of found.value) {
    const state = stateOf(call.state, instance);
    if (state !== "running" && state !== "stopping" && state !== "stopped")
      return fail(notInStateFor(instance.id, "stopped"));
    if (state === "running" && instance.disableApiStop) return fail(protectedFrom(instance.id, "stopped"));
    if (input.Hibernate) return fail(notHibernatable(instance.id));
    changes.push(powerChange(instance, stopped(instance, forced, call.now), call));
  }
  return ok({
    writes: changes.flatMap((one) => one.writes),
    output: { StoppingInstances: changes.map((one) => one.change) },
  });
}

function stopped(instance: InstanceRecord, forced: boolean, now: number): InstanceRecord {
  // A second call changes nothing, unless it loses patience with a guest that is still stopping.
  if (instance.power === "off") return forced && !instance.forced ? { ...instance, forced } : instance;
  return { ...instance, power: "off", forced, transition: USER_INITIATED, powerChangedAt: now };
}

const notHibernatable = (id: string): AwsError =>
  awsError(
    "UnsupportedHibernationConfiguration",
    `The instance '${id}' is not configured for hibernation: hibernation is not supported by this version of Hive.`,
  );

export const stopInstances: Mutation<StopInstancesRequest, StopInstancesResult> = {
  kind: "mutation",
  decide: decideStopInstances,
};
