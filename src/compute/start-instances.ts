/** StartInstances: a new boot generation, with a new public address where the instance had one by itself. */
import { fail, ok, type Result } from "../lib/result.ts";
import type { AwsError } from "../model/errors.ts";
import type { InstanceRecord } from "../model/instance.ts";
import type { Call, Decision, Mutation } from "../model/operation.ts";
import { put, type Write } from "../model/store.ts";
import { networkInterfaces } from "../model/tables.ts";
import type { InstanceStateChange, StartInstancesRequest, StartInstancesResult } from "../schema/ec2/types.ts";
import { Addresses } from "./addresses.ts";
import { powerChange } from "./change-power.ts";
import { notInStateFor } from "./errors.ts";
import { findInstances, interfacesOf, stateOf } from "./owned.ts";
import { type Load, roomFor } from "./place-instances.ts";

export function decideStartInstances(
  input: StartInstancesRequest,
  call: Call,
): Result<Decision<StartInstancesResult>, AwsError> {
  const found = findInstances(call, input.InstanceIds ?? []);
  if (!found.ok) return found;
  const addresses = new Addresses(call);
  const taken = new Map<string, Load>();
  const writes: Write[] = [];
  const changes: InstanceStateChange[] = [];
  for (const instance of found.value) {
    const state = stateOf(call.state, instance);
    if (state !== "stopped" && state !== "running" && state !== "pending")
      return fail(notInStateFor(instance.id, "started"));
    if (state !== "stopped") {
      changes.push(powerChange(instance, instance, call).change);
      continue;
    }
    const load = roomFor(call.state, call.config, instance, taken.get(instance.nodeId) ?? { vcpus: 0, memoryMib: 0 });
    if (!load.ok) return load;
    taken.set(instance.nodeId, load.value);
    const published = publicAddresses(instance, addresses, call);
    if (!published.ok) return published;
    const { transition: _, ...kept } = instance;
    const started: InstanceRecord = {
      ...kept,
      power: "on",
      forced: false,
      bootGeneration: instance.bootGeneration + 1,
      launchTime: call.now,
      powerChangedAt: call.now,
    };
    const { writes: own, change } = powerChange(instance, started, call);
    writes.push(...own, ...published.value);
    changes.push(change);
  }
  return ok({ writes, output: { StartingInstances: changes } });
}

/** Gives the instance's interfaces the public addresses that its last stop released. */
function publicAddresses(instance: InstanceRecord, addresses: Addresses, call: Call): Result<Write[], AwsError> {
  const writes: Write[] = [];
  if (call.config.network.mode === "user") return ok(writes);
  for (const eni of interfacesOf(call.state, instance.id)) {
    if (!eni.associatePublicIp || eni.publicIp !== undefined) continue;
    const address = addresses.publicAddress();
    if (!address.ok) return address;
    writes.push(put(networkInterfaces, { ...eni, publicIp: address.value }));
  }
  return ok(writes);
}

export const startInstances: Mutation<StartInstancesRequest, StartInstancesResult> = {
  kind: "mutation",
  decide: decideStartInstances,
};
