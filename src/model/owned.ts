/** Finding an account's own records, and those that belong together, in one snapshot of state. */
import { fail, ok, type Result } from "../lib/result.ts";
import type { AwsError } from "./errors.ts";
import { type IdKind, idNotFound, parseId } from "./ids.ts";
import type { NetworkInterfaceRecord } from "./network.ts";
import type { Reader, Table } from "./store.ts";
import { inAccount, networkInterfaces } from "./tables.ts";

/** Who asks, and in which region; a `Call` is one. */
export interface Scope {
  readonly accountId: string;
  readonly region: string;
  readonly state: Reader;
}
export type Owned = { readonly accountId: string; readonly region: string };

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

/** The instance's network interfaces by device index: the primary is first. */
export function interfacesOf(state: Reader, id: string): readonly NetworkInterfaceRecord[] {
  const attached = state.lookup(networkInterfaces, "byInstance", id);
  return attached.length < 2
    ? attached
    : [...attached].sort((a, b) => a.attachment!.deviceIndex - b.attachment!.deviceIndex);
}
