/** DescribeSecurityGroupRules, ModifySecurityGroupRules and UpdateSecurityGroupRuleDescriptions…. */
import { all, fail, ok, type Result } from "../../lib/result.ts";
import {
  type AwsError,
  invalidParameterCombination,
  invalidParameterValue,
  missingParameter,
} from "../../model/errors.ts";
import { idNotFound } from "../../model/ids.ts";
import type { SecurityGroupRecord, SecurityGroupRuleRecord } from "../../model/network.ts";
import type { Describe, Mutation } from "../../model/operation.ts";
import { put } from "../../model/store.ts";
import { securityGroupRules, tags } from "../../model/tables.ts";
import type {
  DescribeSecurityGroupRulesRequest,
  DescribeSecurityGroupRulesResult,
  ModifySecurityGroupRulesRequest,
  ModifySecurityGroupRulesResult,
  SecurityGroupRule,
  SecurityGroupRuleRequest,
  UpdateSecurityGroupRuleDescriptionsEgressRequest,
  UpdateSecurityGroupRuleDescriptionsIngressRequest,
  UpdateSecurityGroupRuleDescriptionsIngressResult,
} from "../../schema/ec2/types.ts";
import { allOwned, getOwned, type Scope } from "../owned.ts";
import * as refuse from "./errors.ts";
import { findGroup, findRule, rulesOf } from "./find-group.ts";
import {
  parseDescription,
  parseGroupPeer,
  parseIpv4Peer,
  parseIpv6Peer,
  parsePermissions,
  parsePorts,
} from "./parse-permissions.ts";
import { exceedsRuleLimit, type RulePeer, type RuleSpec, ruleKey, ruleText, viewRule } from "./rule.ts";

const view = (rule: SecurityGroupRuleRecord, { state }: Scope): SecurityGroupRule =>
  viewRule(rule, state.get(tags, rule.id));

export const describeSecurityGroupRules: Describe<
  DescribeSecurityGroupRulesRequest,
  DescribeSecurityGroupRulesResult,
  SecurityGroupRule
> = {
  kind: "describe",
  ids: {
    kind: "SecurityGroupRule",
    of: (input) => input.SecurityGroupRuleIds,
    idOf: (rule) => rule.SecurityGroupRuleId!,
    get(id, _input, call) {
      const rule = getOwned(call, securityGroupRules, id);
      return rule && view(rule, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, securityGroupRules).map((rule) => view(rule, call))),
  page: { min: 5, max: 1000, key: (rule) => rule.SecurityGroupRuleId! },
  answer: (items) => ({ SecurityGroupRules: items }),
};

/** The peer that a rule is given: exactly one of four members. */
function parsePeer(
  scope: Scope,
  group: SecurityGroupRecord,
  request: SecurityGroupRuleRequest,
): Result<RulePeer, AwsError> {
  const { CidrIpv4, CidrIpv6, PrefixListId, ReferencedGroupId: GroupId } = request;
  const given = [CidrIpv4, CidrIpv6, PrefixListId, GroupId].filter((value) => value !== undefined).length;
  if (given === 0) return fail(refuse.sourceMissing());
  if (given > 1)
    return fail(
      invalidParameterCombination(
        "Exactly one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupId may be given.",
      ),
    );
  if (CidrIpv4 !== undefined) return parseIpv4Peer(CidrIpv4);
  if (CidrIpv6 !== undefined) return parseIpv6Peer(CidrIpv6);
  if (PrefixListId !== undefined) return fail(refuse.prefixListNotFound(PrefixListId));
  return parseGroupPeer(scope, group, { GroupId });
}

function parseRule(
  scope: Scope,
  group: SecurityGroupRecord,
  request: SecurityGroupRuleRequest,
): Result<RuleSpec, AwsError> {
  const ports = parsePorts(request.IpProtocol, request.FromPort, request.ToPort);
  if (!ports.ok) return ports;
  const peer = parsePeer(scope, group, request);
  if (!peer.ok) return peer;
  const description = parseDescription(request.Description);
  if (!description.ok) return description;
  return ok({
    ...ports.value,
    peer: peer.value,
    ...(description.value !== undefined && { description: description.value }),
  });
}

/** Replaces what rules say, under their ids. All of the request's rules change, or none. */
export const modifySecurityGroupRules: Mutation<ModifySecurityGroupRulesRequest, ModifySecurityGroupRulesResult> = {
  kind: "mutation",
  decide(input, call) {
    const group = findGroup(call, input);
    if (!group.ok) return group;
    const after = new Map(
      call.state.lookup(securityGroupRules, "byGroup", group.value.id).map((rule) => [rule.id, rule]),
    );
    const changed = new Set<SecurityGroupRuleRecord>();
    const seen = new Set<string>();
    for (const { SecurityGroupRuleId: id, SecurityGroupRule: request } of input.SecurityGroupRules) {
      const rule = findRule(call, group.value, id);
      if (!rule.ok) return rule;
      if (seen.has(id))
        return fail(invalidParameterValue(`The security group rule ID '${id}' appears more than once.`));
      seen.add(id);
      if (!request) return fail(missingParameter("SecurityGroupRule"));
      const spec = parseRule(call, group.value, request);
      if (!spec.ok) return spec;
      const { description: _replaced, ...base } = rule.value;
      const next: SecurityGroupRuleRecord = { ...base, ...spec.value };
      after.set(next.id, next);
      changed.add(next);
    }
    for (const egress of [false, true]) {
      const rules = [...after.values()].filter((rule) => rule.egress === egress);
      if (exceedsRuleLimit(rules)) return fail(refuse.ruleLimitExceeded());
      const keys = new Set<string>();
      for (const rule of rules) {
        if (keys.has(ruleKey(rule))) return fail(refuse.ruleDuplicate(ruleText(rule)));
        keys.add(ruleKey(rule));
      }
    }
    return ok({ writes: [...changed].map((rule) => put(securityGroupRules, rule)), output: { Return: true } });
  },
};

type DescriptionsRequest =
  | UpdateSecurityGroupRuleDescriptionsIngressRequest
  | UpdateSecurityGroupRuleDescriptionsEgressRequest;
type Redescribed = { readonly rule: SecurityGroupRuleRecord; readonly description: string | undefined };

/** The rules that the request names, by id or by what they say, and the description that each is to have. */
function redescribed(
  scope: Scope,
  group: SecurityGroupRecord,
  egress: boolean,
  input: DescriptionsRequest,
): Result<readonly Redescribed[], AwsError> {
  const byId = input.SecurityGroupRuleDescriptions ?? [];
  const permissions = input.IpPermissions ?? [];
  if (byId.length > 0 && permissions.length > 0)
    return fail(
      invalidParameterCombination("Only one of IpPermissions and SecurityGroupRuleDescriptions may be given."),
    );
  if (byId.length > 0)
    return all(
      byId.map(({ SecurityGroupRuleId: id = "", Description: text }): Result<Redescribed, AwsError> => {
        const rule = findRule(scope, group, id);
        if (!rule.ok) return rule;
        if (rule.value.egress !== egress) return fail(idNotFound("SecurityGroupRule", id));
        const description = parseDescription(text);
        return description.ok ? ok({ rule: rule.value, description: description.value }) : description;
      }),
    );
  if (permissions.length === 0) return fail(missingParameter("ipPermissions or securityGroupRuleDescriptions"));
  const specs = parsePermissions(scope, group, { IpPermissions: permissions });
  if (!specs.ok) return specs;
  const present = new Map(rulesOf(scope, group.id, egress).map((rule) => [ruleKey(rule), rule]));
  return all(
    specs.value.map((spec): Result<Redescribed, AwsError> => {
      const rule = present.get(ruleKey(spec));
      return rule ? ok({ rule, description: spec.description }) : fail(refuse.ruleNotFound());
    }),
  );
}

/** A rule without a description in the request loses the one it has. */
const updateDescriptions = <I extends DescriptionsRequest>(
  egress: boolean,
): Mutation<I, UpdateSecurityGroupRuleDescriptionsIngressResult> => ({
  kind: "mutation",
  decide(input, call) {
    const group = findGroup(call, input);
    if (!group.ok) return group;
    const changes = redescribed(call, group.value, egress, input);
    if (!changes.ok) return changes;
    const writes = changes.value.map(({ rule: { description: _replaced, ...rule }, description }) =>
      put(securityGroupRules, description === undefined ? rule : { ...rule, description }),
    );
    return ok({ writes, output: { Return: true } });
  },
});

export const updateSecurityGroupRuleDescriptionsIngress =
  updateDescriptions<UpdateSecurityGroupRuleDescriptionsIngressRequest>(false);
export const updateSecurityGroupRuleDescriptionsEgress =
  updateDescriptions<UpdateSecurityGroupRuleDescriptionsEgressRequest>(true);
