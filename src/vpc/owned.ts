/** Finding an account's own network resources in one snapshot of state. */
import { fail, ok, type Result } from "../lib/result.ts";
import type { AwsError } from "../model/errors.ts";
import { type IdKind, idNotFound, parseId } from "../model/ids.ts";
import type { VpcRecord } from "../model/network.ts";
import type { Reader, Table } from "../model/store.ts";
import { inAccount, vpcs } from "../model/tables.ts";

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

/** The account's default VPC in the region, if it has one. */
export const defaultVpcOf = (scope: Scope): VpcRecord | undefined => allOwned(scope, vpcs).find((vpc) => vpc.isDefault);

/** `arn:aws:ec2:us-east-1:000000000000:subnet/subnet-…` */
export const ec2Arn = (record: Owned, type: string, id: string): string =>
  `arn:aws:ec2:${record.region}:${record.accountId}:${type}/${id}`;
