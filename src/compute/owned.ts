/** Finding an account's own resources, and the records around an instance, in one snapshot of state. */
import { fail, ok, type Result } from "../lib/result.ts";
import type { AwsError } from "../model/errors.ts";
import { type IdKind, type InstanceId, idNotFound, parseId } from "../model/ids.ts";
import type { InstanceRecord } from "../model/instance.ts";
import { type InstanceStateName, instanceState } from "../model/instance-state.ts";
import type { NetworkInterfaceRecord } from "../model/network.ts";
import type { Reader, Table } from "../model/store.ts";
import { inAccount, instances, instancesObserved, networkInterfaces } from "../model/tables.ts";

/** Who asks, and in which region; a `Call` is one. */
export interface Scope {
  readonly accountId: string;
  readonly region: string;
  readonly state: Reader;
}
type Owned = { readonly accountId: string; readonly region: string };

/** The record, if it belongs to the caller's account and region. */
export function getOwned<R extends Owned>(scope: Scope, table: Table<R>, id: string): R | undefined {
  const record = scope.state.get(table, id);
  return record && record.accountId === scope.accountId && record.region === scope.region ? record : undefined;
}

/** All records of the caller's account and region, in key order. */
export const allOwned = <R extends Owned>(scope: Scope, table: Table<R, "byAccount">): readonly R[] =>
  scope.state.lookup(table, "byAccount", inAccount(scope.accountId, scope.region));

/** The record with this id. Errors: `Invalid….Malformed`, `Invalid….NotFound`. */
export function findOwned<R extends Owned>(
  scope: Scope,
  kind: IdKind,
  table: Table<R>,
  id: string,
): Result<R, AwsError> {
  const parsed = parseId(kind, id);
  if (!parsed.ok) return parsed;
  const record = getOwned(scope, table, id);
  return record ? ok(record) : fail(idNotFound(kind, id));
}

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

/** The instance's network interfaces by device index: the primary is first. */
export function interfacesOf(state: Reader, id: InstanceId): readonly NetworkInterfaceRecord[] {
  const attached = state.lookup(networkInterfaces, "byInstance", id);
  return attached.length < 2
    ? attached
    : [...attached].sort((a, b) => a.attachment!.deviceIndex - b.attachment!.deviceIndex);
}
