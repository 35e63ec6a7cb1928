/** AuthorizeSecurityGroupIngress and AuthorizeSecurityGroupEgress. */
import { fail, ok } from "../../lib/result.ts";
import type { TagsRecord } from "../../model/common-records.ts";
import { newId } from "../../model/ids.ts";
import type { SecurityGroupRuleRecord } from "../../model/network.ts";
import type { Mutation } from "../../model/operation.ts";
import { put } from "../../model/store.ts";
import { securityGroupRules, tags } from "../../model/tables.ts";
import { tagsFor } from "../../model/tags.ts";
import type {
  AuthorizeSecurityGroupEgressRequest,
  AuthorizeSecurityGroupIngressRequest,
  AuthorizeSecurityGroupIngressResult,
} from "../../schema/ec2/types.ts";
import { ruleDuplicate, ruleLimitExceeded } from "./errors.ts";
import { findGroup, rulesOf } from "./find-group.ts";
import { parsePermissions } from "./parse-permissions.ts";
import { exceedsRuleLimit, ruleKey, ruleText, viewRule } from "./rule.ts";

type Request = AuthorizeSecurityGroupIngressRequest | AuthorizeSecurityGroupEgressRequest;

/** Adds every rule of the request, or none. */
const authorize = <I extends Request>(egress: boolean): Mutation<I, AuthorizeSecurityGroupIngressResult> => ({
  kind: "mutation",
  decide(input, call) {
    const found = findGroup(call, input);
    if (!found.ok) return found;
    const group = found.value;
    const wanted = parsePermissions(call, group, input);
    if (!wanted.ok) return wanted;
    const tagsOf = tagsFor(input.TagSpecifications, "security-group-rule");
    if (!tagsOf.ok) return tagsOf;

    const present = rulesOf(call, group.id, egress);
    const keys = new Set(present.map(ruleKey));
    const duplicate = wanted.value.find((rule) => keys.has(ruleKey(rule)));
    if (duplicate) return fail(ruleDuplicate(ruleText(duplicate)));
    if (exceedsRuleLimit([...present, ...wanted.value])) return fail(ruleLimitExceeded());

    const { accountId, region, random } = call;
    const rules = wanted.value.map(
      (spec): SecurityGroupRuleRecord => ({
        id: newId("SecurityGroupRule", random),
        accountId,
        region,
        groupId: group.id,
        egress,
        ...spec,
      }),
    );
    const isTagged = Object.keys(tagsOf.value).length > 0;
    const made = rules.map((rule) => {
      const tagged: TagsRecord = {
        resourceId: rule.id,
        resourceType: "security-group-rule",
        accountId,
        region,
        tags: tagsOf.value,
      };
      return { rule, tagged: isTagged ? tagged : undefined };
    });
    return ok({
      writes: made.flatMap(({ rule, tagged }) => [
        put(securityGroupRules, rule),
        ...(tagged ? [put(tags, tagged)] : []),
      ]),
      output: { Return: true, SecurityGroupRules: made.map(({ rule, tagged }) => viewRule(rule, tagged)) },
    });
  },
});

export const authorizeSecurityGroupIngress = authorize<AuthorizeSecurityGroupIngressRequest>(false);
export const authorizeSecurityGroupEgress = authorize<AuthorizeSecurityGroupEgressRequest>(true);
