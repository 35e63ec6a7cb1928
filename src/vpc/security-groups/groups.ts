/** CreateSecurityGroup, DeleteSecurityGroup and DescribeSecurityGroups. */
import { all, fail, ok } from "../../lib/result.ts";
import type { TagsRecord } from "../../model/common-records.ts";
import { newId } from "../../model/ids.ts";
import type { SecurityGroupRecord, SecurityGroupRuleRecord } from "../../model/network.ts";
import type { Describe, FilterAccessor, Mutation } from "../../model/operation.ts";
import { put, remove } from "../../model/store.ts";
import { inAccount, networkInterfaces, securityGroupRules, securityGroups, tags, vpcs } from "../../model/tables.ts";
import { tagList, tagsFor } from "../../model/tags.ts";
import { memoView } from "../../model/view.ts";
import type {
  CreateSecurityGroupRequest,
  CreateSecurityGroupResult,
  DeleteSecurityGroupRequest,
  DeleteSecurityGroupResult,
  DescribeSecurityGroupsRequest,
  DescribeSecurityGroupsResult,
  IpPermission,
  SecurityGroup,
} from "../../schema/ec2/types.ts";
import { allowAllEgress } from "../default-vpc.ts";
import { allOwned, defaultVpcOf, ec2Arn, findOwned, getOwned, type Scope } from "../owned.ts";
import * as refuse from "./errors.ts";
import { findGroup, findGroupByName } from "./find-group.ts";
import { toPermissions } from "./rule.ts";

/** AWS's default quota in a region. */
export const GROUPS_PER_REGION_MAX = 2500;

export const viewSecurityGroup = memoView(
  (
    group: SecurityGroupRecord,
    tagsOf: TagsRecord | undefined,
    rules: readonly SecurityGroupRuleRecord[],
  ): SecurityGroup => ({
    GroupId: group.id,
    IpPermissionsEgress: toPermissions(rules.filter((rule) => rule.egress)),
    Tags: tagList(tagsOf),
    VpcId: group.vpcId,
    SecurityGroupArn: ec2Arn(group, "security-group", group.id),
    OwnerId: group.accountId,
    GroupName: group.name,
    Description: group.description,
    IpPermissions: toPermissions(rules.filter((rule) => !rule.egress)),
  }),
);

/** Names of the groups that a view's rules refer to: filters ask for them, and the view itself has only ids. */
const peerNames = new WeakMap<SecurityGroup, ReadonlyMap<string, string>>();

function view(group: SecurityGroupRecord, { state }: Scope): SecurityGroup {
  const rules = state.lookup(securityGroupRules, "byGroup", group.id);
  const made = viewSecurityGroup(group, state.get(tags, group.id), rules);
  if (!peerNames.has(made)) {
    // A group's name never changes, so what is found once stays true.
    const ids = rules.flatMap((rule) => (rule.peer.kind === "group" ? [rule.peer.groupId] : []));
    peerNames.set(made, new Map(ids.map((id) => [id, state.get(securityGroups, id)?.name ?? ""])));
  }
  return made;
}

/** The filters over one direction's permissions, under their documented prefix. */
function permissionFilters(
  prefix: string,
  of: (group: SecurityGroup) => readonly IpPermission[] | undefined,
): { readonly [name: string]: FilterAccessor<SecurityGroup> } {
  const pairs = (group: SecurityGroup) => of(group)?.flatMap((p) => p.UserIdGroupPairs ?? []);
  return {
    [`${prefix}.cidr`]: (group) => of(group)?.flatMap((p) => p.IpRanges?.map((range) => range.CidrIp)),
    [`${prefix}.ipv6-cidr`]: (group) => of(group)?.flatMap((p) => p.Ipv6Ranges?.map((range) => range.CidrIpv6)),
    [`${prefix}.prefix-list-id`]: (group) =>
      of(group)?.flatMap((p) => p.PrefixListIds?.map((list) => list.PrefixListId)),
    [`${prefix}.from-port`]: (group) => of(group)?.map((p) => p.FromPort),
    [`${prefix}.to-port`]: (group) => of(group)?.map((p) => p.ToPort),
    [`${prefix}.protocol`]: (group) => of(group)?.map((p) => p.IpProtocol),
    [`${prefix}.group-id`]: (group) => pairs(group)?.map((pair) => pair.GroupId),
    [`${prefix}.group-name`]: (group) => pairs(group)?.map((pair) => peerNames.get(group)?.get(pair.GroupId ?? "")),
    [`${prefix}.user-id`]: (group) => pairs(group)?.map((pair) => pair.UserId),
  };
}

export const describeSecurityGroups: Describe<
  DescribeSecurityGroupsRequest,
  DescribeSecurityGroupsResult,
  SecurityGroup
> = {
  kind: "describe",
  ids: {
    kind: "SecurityGroup",
    // With names beside them, `list` takes care of the ids as well.
    of: (input) => (input.GroupNames?.length ? undefined : input.GroupIds),
    idOf: (group) => group.GroupId!,
    get(id, _input, call) {
      const group = getOwned(call, securityGroups, id);
      return group && view(group, call);
    },
  },
  list(input, call) {
    if (!input.GroupNames?.length) return ok(allOwned(call, securityGroups).map((group) => view(group, call)));
    const named = all([
      ...input.GroupNames.map((name) => findGroupByName(call, name)),
      ...(input.GroupIds ?? []).map((GroupId) => findGroup(call, { GroupId })),
    ]);
    return named.ok ? ok([...new Set(named.value)].map((group) => view(group, call))) : named;
  },
  filters: {
    ...permissionFilters("ip-permission", (group) => group.IpPermissions),
    ...permissionFilters("egress.ip-permission", (group) => group.IpPermissionsEgress),
  },
  page: { min: 5, max: 1000, key: (group) => group.GroupId! },
  answer: (items) => ({ SecurityGroups: items }),
};

export const createSecurityGroup: Mutation<CreateSecurityGroupRequest, CreateSecurityGroupResult> = {
  kind: "mutation",
  decide(input, call) {
    const { accountId, region, now, random, state } = call;
    const { GroupName: name, Description: description } = input;
    const invalid =
      refuse.groupTextInvalid("GroupName", name) ?? refuse.groupTextInvalid("GroupDescription", description);
    if (invalid) return fail(invalid);
    if (/^sg-/i.test(name)) return fail(refuse.groupNameLikeId(name));
    if (name === "default") return fail(refuse.groupNameReserved(name));
    const tagsOf = tagsFor(input.TagSpecifications, "security-group");
    if (!tagsOf.ok) return tagsOf;

    const inDefault = input.VpcId === undefined ? defaultVpcOf(call) : undefined;
    if (input.VpcId === undefined && !inDefault) return fail(refuse.noDefaultVpc());
    const vpc = inDefault ? ok(inDefault) : findOwned(call, "Vpc", vpcs, input.VpcId ?? "");
    if (!vpc.ok) return vpc;
    if (state.countOf(securityGroups, "byName", `${vpc.value.id}/${name}`) > 0)
      return fail(refuse.groupDuplicate(name, vpc.value.id));
    if (state.countOf(securityGroups, "byAccount", inAccount(accountId, region)) >= GROUPS_PER_REGION_MAX)
      return fail(refuse.groupLimitExceeded());

    const group: SecurityGroupRecord = {
      id: newId("SecurityGroup", random),
      accountId,
      region,
      createdAt: now,
      vpcId: vpc.value.id,
      name,
      description,
    };
    const tagged: TagsRecord = {
      resourceId: group.id,
      resourceType: "security-group",
      accountId,
      region,
      tags: tagsOf.value,
    };
    const isTagged = Object.keys(tagged.tags).length > 0;
    return ok({
      writes: [
        put(securityGroups, group),
        put(securityGroupRules, allowAllEgress(group, random)),
        ...(isTagged ? [put(tags, tagged)] : []),
      ],
      output: {
        GroupId: group.id,
        ...(isTagged && { Tags: tagList(tagged) }),
        SecurityGroupArn: ec2Arn(group, "security-group", group.id),
      },
    });
  },
};

export const deleteSecurityGroup: Mutation<DeleteSecurityGroupRequest, DeleteSecurityGroupResult> = {
  kind: "mutation",
  decide(input, call) {
    const found = findGroup(call, input);
    if (!found.ok) return found;
    const group = found.value;
    if (group.name === "default") return fail(refuse.groupCannotDelete(group.id, group.name));
    const { state } = call;
    const referring = state.lookup(securityGroupRules, "byPeerGroup", group.id);
    if (
      state.countOf(networkInterfaces, "byGroup", group.id) > 0 ||
      referring.some((rule) => rule.groupId !== group.id)
    )
      return fail(refuse.groupInUse(group.id));
    const rules = state.lookup(securityGroupRules, "byGroup", group.id);
    return ok({
      writes: [
        remove(securityGroups, group.id),
        remove(tags, group.id),
        ...rules.flatMap((rule) => [remove(securityGroupRules, rule.id), remove(tags, rule.id)]),
      ],
      output: { Return: true, GroupId: group.id },
    });
  },
};
