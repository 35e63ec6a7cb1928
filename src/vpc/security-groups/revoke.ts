/** RevokeSecurityGroupIngress and RevokeSecurityGroupEgress. */
import { fail, ok, type Result } from "../../lib/result.ts";
import { type AwsError, invalidParameterCombination, missingParameter } from "../../model/errors.ts";
import { idNotFound } from "../../model/ids.ts";
import type { SecurityGroupRecord, SecurityGroupRuleRecord } from "../../model/network.ts";
import type { Mutation } from "../../model/operation.ts";
import { remove } from "../../model/store.ts";
import { securityGroupRules, tags, vpcs } from "../../model/tables.ts";
import type {
  RevokeSecurityGroupEgressRequest,
  RevokeSecurityGroupIngressRequest,
  RevokeSecurityGroupIngressResult,
} from "../../schema/ec2/types.ts";
import type { Scope } from "../owned.ts";
import { ruleNotFound } from "./errors.ts";
import { findGroup, findRule, rulesOf } from "./find-group.ts";
import { hasPermissions, parsePermissions } from "./parse-permissions.ts";
import { type RuleSpec, ruleKey, toPermissions, viewRevokedRule } from "./rule.ts";

type Request = RevokeSecurityGroupIngressRequest | RevokeSecurityGroupEgressRequest;
type Found = { readonly rules: readonly SecurityGroupRuleRecord[]; readonly unknown: readonly RuleSpec[] };

/** The rules that the request names, by id or by what they say. */
function namedRules(
  scope: Scope,
  group: SecurityGroupRecord,
  egress: boolean,
  input: Request,
): Result<Found, AwsError> {
  const ids = input.SecurityGroupRuleIds ?? [];
  if (ids.length > 0) {
    if (hasPermissions(input))
      return fail(invalidParameterCombination("Only one of IpPermissions and SecurityGroupRuleIds may be given."));
    const rules = new Set<SecurityGroupRuleRecord>();
    for (const id of ids) {
      const rule = findRule(scope, group, id);
      if (!rule.ok) return rule;
      if (rule.value.egress !== egress) return fail(idNotFound("SecurityGroupRule", id));
      rules.add(rule.value);
    }
    return ok({ rules: [...rules], unknown: [] });
  }
  if (!hasPermissions(input)) return fail(missingParameter("ipPermissions or securityGroupRuleIds"));
  const specs = parsePermissions(scope, group, input);
  if (!specs.ok) return specs;
  const present = new Map(rulesOf(scope, group.id, egress).map((rule) => [ruleKey(rule), rule]));
  return ok({
    rules: specs.value.flatMap((spec) => present.get(ruleKey(spec)) ?? []),
    unknown: specs.value.filter((spec) => !present.has(ruleKey(spec))),
  });
}

/**
 * Rules that are not there are an error, and nothing is revoked; in the default VPC they are only listed in the answer,
 * and the others are revoked.
 */
const revoke = <I extends Request>(egress: boolean): Mutation<I, RevokeSecurityGroupIngressResult> => ({
  kind: "mutation",
  decide(input, call) {
    const group = findGroup(call, input);
    if (!group.ok) return group;
    const named = namedRules(call, group.value, egress, input);
    if (!named.ok) return named;
    const { rules, unknown } = named.value;
    if (unknown.length > 0 && !call.state.get(vpcs, group.value.vpcId)?.isDefault) return fail(ruleNotFound());
    return ok({
      writes: rules.flatMap((rule) => [remove(securityGroupRules, rule.id), remove(tags, rule.id)]),
      output: {
        Return: true,
        ...(unknown.length > 0 && { UnknownIpPermissions: toPermissions(unknown) }),
        RevokedSecurityGroupRules: rules.map(viewRevokedRule),
      },
    });
  },
});

export const revokeSecurityGroupIngress = revoke<RevokeSecurityGroupIngressRequest>(false);
export const revokeSecurityGroupEgress = revoke<RevokeSecurityGroupEgressRequest>(true);
