/** RebootInstances: the same machine, the same boot generation, started anew by its node. */
import { fail, ok } from "../lib/result.ts";
import type { Mutation } from "../model/operation.ts";
import { put } from "../model/store.ts";
import { instances } from "../model/tables.ts";
import type { RebootInstancesRequest, Unit } from "../schema/ec2/types.ts";
import { notInStateFor } from "./errors.ts";
import { findInstances, stateOf } from "./owned.ts";

export const rebootInstances: Mutation<RebootInstancesRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    const found = findInstances(call, input.InstanceIds ?? []);
    if (!found.ok) return found;
    const off = found.value.find((instance) => stateOf(call.state, instance) !== "running");
    if (off) return fail(notInStateFor(off.id, "rebooted"));
    const writes = found.value.map((instance) =>
      put(instances, { ...instance, rebootGeneration: instance.rebootGeneration + 1 }),
    );
    return ok({ writes, output: {} });
  },
};
