/** Finding the group that a request names. */
import { fail, ok, type Result } from "../../lib/result.ts";
import { type AwsError, awsError } from "../../model/errors.ts";
import { idNotFound, parseId } from "../../model/ids.ts";
import type { SecurityGroupRecord, SecurityGroupRuleRecord } from "../../model/network.ts";
import { securityGroupRules, securityGroups } from "../../model/tables.ts";
import { defaultVpcOf, getOwned, type Scope } from "../owned.ts";
import { groupNameNotFound, noDefaultVpcForName } from "./errors.ts";

/**
 * The group, by id, or by name in the default VPC.
 * Errors: MissingParameter, InvalidGroupId.Malformed, InvalidGroup.NotFound, VPCIdNotSpecified.
 */
export function findGroup(
  scope: Scope,
  { GroupId: id, GroupName: name }: { readonly GroupId?: string | undefined; readonly GroupName?: string | undefined },
): Result<SecurityGroupRecord, AwsError> {
  if (id !== undefined && id !== "") {
    const parsed = parseId("SecurityGroup", id);
    if (!parsed.ok) return parsed;
    const group = getOwned(scope, securityGroups, id);
    return group ? ok(group) : fail(idNotFound("SecurityGroup", id));
  }
  return name === undefined || name === "" ? fail(groupMissing()) : findGroupByName(scope, name);
}

const groupMissing = (): AwsError =>
  awsError("MissingParameter", "The request must contain the parameter groupName or groupId");

/** The group of the default VPC with this name. */
export function findGroupByName(scope: Scope, name: string): Result<SecurityGroupRecord, AwsError> {
  const vpc = defaultVpcOf(scope);
  if (!vpc) return fail(noDefaultVpcForName());
  const [group] = scope.state.lookup(securityGroups, "byName", `${vpc.id}/${name}`);
  return group ? ok(group) : fail(groupNameNotFound(name, vpc.id));
}

/** The group's rules of one direction. */
export const rulesOf = (scope: Scope, groupId: string, egress: boolean): readonly SecurityGroupRuleRecord[] =>
  scope.state.lookup(securityGroupRules, "byGroup", groupId).filter((rule) => rule.egress === egress);

/** The group's rule with this id. Errors: InvalidSecurityGroupRuleId.Malformed and .NotFound. */
export function findRule(
  scope: Scope,
  group: SecurityGroupRecord,
  id: string,
): Result<SecurityGroupRuleRecord, AwsError> {
  const parsed = parseId("SecurityGroupRule", id);
  if (!parsed.ok) return parsed;
  const rule = scope.state.get(securityGroupRules, id);
  return rule?.groupId === group.id ? ok(rule) : fail(idNotFound("SecurityGroupRule", id));
}
