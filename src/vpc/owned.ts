/** Finding an account's own network resources in one snapshot of state. */
import type { VpcRecord } from "../model/network.ts";
import { allOwned, type Owned, type Scope } from "../model/owned.ts";
import { vpcs } from "../model/tables.ts";

export { allOwned, findOwned, getOwned, type Scope } from "../model/owned.ts";

/** The account's default VPC in the region, if it has one. */
export const defaultVpcOf = (scope: Scope): VpcRecord | undefined => allOwned(scope, vpcs).find((vpc) => vpc.isDefault);

/** `arn:aws:ec2:us-east-1:000000000000:subnet/subnet-…` */
export const ec2Arn = (record: Owned, type: string, id: string): string =>
  `arn:aws:ec2:${record.region}:${record.accountId}:${type}/${id}`;
