/** Finding the records around an instance in one snapshot of state. */
import { fail, ok, type Result } from "../lib/result.ts";
import type { AwsError } from "../model/errors.ts";
import { idNotFound, parseId } from "../model/ids.ts";
import type { InstanceRecord } from "../model/instance.ts";
import { type InstanceStateName, instanceState } from "../model/instance-state.ts";
import { findOwned, getOwned, type Scope } from "../model/owned.ts";
import type { Reader } from "../model/store.ts";
import { instances, instancesObserved } from "../model/tables.ts";

export { allOwned, findOwned, getOwned, interfacesOf, type Scope } from "../model/owned.ts";

export const findInstance = (scope: Scope, id: string): Result<InstanceRecord, AwsError> =>
  findOwned(scope, "Instance", instances, id);

/** Every instance that is named, each once, in the order named. The error of missing ones names them all. */
export function findInstances(scope: Scope, ids: readonly string[]): Result<InstanceRecord[], AwsError> {
  const found = new Map<string, InstanceRecord>();
  const missing = new Set<string>();
  for (const id of ids) {
    const parsed = parseId("Instance", id);
    if (!parsed.ok) return parsed;
    const record = getOwned(scope, instances, id);
    if (record) found.set(id, record);
    else missing.add(id);
  }
  return missing.size > 0 ? fail(idNotFound("Instance", [...missing])) : ok([...found.values()]);
}

/** What AWS shows as the instance's state. */
export const stateOf = (state: Reader, instance: InstanceRecord): InstanceStateName =>
  instanceState(instance, state.get(instancesObserved, instance.id));
