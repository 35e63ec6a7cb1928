/**
 * A rule of a security group: one protocol and port range, and one peer. What makes two rules the same, how EC2 writes
 * one in an error, and how it shows it.
 */
import { unreachable } from "../../lib/assert.ts";
import type { TagsRecord } from "../../model/common-records.ts";
import type { SecurityGroupRuleRecord } from "../../model/network.ts";
import { tagList } from "../../model/tags.ts";
import { memoView } from "../../model/view.ts";
import type {
  IpPermission,
  IpRange,
  Ipv6Range,
  PrefixListId,
  RevokedSecurityGroupRule,
  SecurityGroupRule,
  UserIdGroupPair,
} from "../../schema/ec2/types.ts";
import { ec2Arn } from "../owned.ts";

export type RulePeer = SecurityGroupRuleRecord["peer"];

/** A rule apart from the group that it stands in. */
export type RuleSpec = Pick<SecurityGroupRuleRecord, "protocol" | "fromPort" | "toPort" | "peer" | "description">;

/** AWS's default quotas: of each direction, and for IPv4 and IPv6 apart. */
export const RULES_PER_DIRECTION_MAX = 60;

/** The peer as text: a CIDR block, or the id of a group or prefix list. */
export function peerText(peer: RulePeer): string {
  switch (peer.kind) {
    case "ipv4":
    case "ipv6":
      return peer.cidr;
    case "group":
      return peer.groupId;
    case "prefix-list":
      return peer.prefixListId;
    default:
      return unreachable(peer);
  }
}

/** Equal for two rules of one group and direction that EC2 takes for the same; descriptions do not count. */
export const ruleKey = (rule: RuleSpec): string =>
  `${rule.protocol} ${rule.fromPort} ${rule.toPort} ${peerText(rule.peer)}`;

/** As in `peer: 0.0.0.0/0, TCP, from port: 22, to port: 22, ALLOW`. */
export function ruleText(rule: RuleSpec): string {
  const peer = `peer: ${peerText(rule.peer)}`;
  const every = (value: number) => (value === -1 ? "ALL" : String(value));
  switch (rule.protocol) {
    case "-1":
      return `${peer}, ALL, ALLOW`;
    case "tcp":
    case "udp":
      return `${peer}, ${rule.protocol.toUpperCase()}, from port: ${rule.fromPort}, to port: ${rule.toPort}, ALLOW`;
    case "icmp":
    case "icmpv6": {
      const [type, code] = [every(rule.fromPort), every(rule.toPort)];
      return `${peer}, ${rule.protocol.toUpperCase()}, type: ${type}, code: ${code}, ALLOW`;
    }
    default:
      return `${peer}, protocol: ${rule.protocol}, ALLOW`;
  }
}

/** True when the rules of one direction of a group are more than the quota allows. A group as peer counts for both. */
export function exceedsRuleLimit(rules: readonly { readonly peer: RulePeer }[]): boolean {
  const ipv4 = rules.filter((rule) => rule.peer.kind !== "ipv6").length;
  const ipv6 = rules.filter((rule) => rule.peer.kind !== "ipv4").length;
  return ipv4 > RULES_PER_DIRECTION_MAX || ipv6 > RULES_PER_DIRECTION_MAX;
}

const described = (rule: RuleSpec) => (rule.description === undefined ? {} : { Description: rule.description });

/** A rule as DescribeSecurityGroupRules shows it. */
export const viewRule = memoView((rule: SecurityGroupRuleRecord, tagsOf: TagsRecord | undefined): SecurityGroupRule => {
  const { peer } = rule;
  return {
    SecurityGroupRuleId: rule.id,
    GroupId: rule.groupId,
    GroupOwnerId: rule.accountId,
    IsEgress: rule.egress,
    IpProtocol: rule.protocol,
    FromPort: rule.fromPort,
    ToPort: rule.toPort,
    ...(peer.kind === "ipv4" && { CidrIpv4: peer.cidr }),
    ...(peer.kind === "ipv6" && { CidrIpv6: peer.cidr }),
    ...(peer.kind === "prefix-list" && { PrefixListId: peer.prefixListId }),
    ...(peer.kind === "group" && {
      ReferencedGroupInfo: {
        GroupId: peer.groupId,
        UserId: peer.accountId,
        ...(peer.vpcId && { VpcId: peer.vpcId }),
      },
    }),
    ...described(rule),
    Tags: tagList(tagsOf),
    SecurityGroupRuleArn: ec2Arn(rule, "security-group-rule", rule.id),
  };
});

/** A rule as Revoke answers it. */
export function viewRevokedRule(rule: SecurityGroupRuleRecord): RevokedSecurityGroupRule {
  const { peer } = rule;
  return {
    SecurityGroupRuleId: rule.id,
    GroupId: rule.groupId,
    IsEgress: rule.egress,
    IpProtocol: rule.protocol,
    FromPort: rule.fromPort,
    ToPort: rule.toPort,
    ...(peer.kind === "ipv4" && { CidrIpv4: peer.cidr }),
    ...(peer.kind === "ipv6" && { CidrIpv6: peer.cidr }),
    ...(peer.kind === "prefix-list" && { PrefixListId: peer.prefixListId }),
    ...(peer.kind === "group" && { ReferencedGroupId: peer.groupId }),
    ...described(rule),
  };
}

/** Rules as `IpPermissions`: those of one protocol and port range together, in the order in which they first come. */
export function toPermissions(rules: readonly RuleSpec[]): readonly IpPermission[] {
  const ranges = new Map<string, RuleSpec[]>();
  for (const rule of rules) {
    const range = `${rule.protocol} ${rule.fromPort} ${rule.toPort}`;
    const same = ranges.get(range);
    if (same) same.push(rule);
    else ranges.set(range, [rule]);
  }
  return [...ranges.values()].map(toPermission);
}

/** @param rules of one protocol and port range; not empty */
function toPermission(rules: readonly RuleSpec[]): IpPermission {
  const { protocol, fromPort, toPort } = rules[0]!;
  const UserIdGroupPairs: UserIdGroupPair[] = [];
  const IpRanges: IpRange[] = [];
  const Ipv6Ranges: Ipv6Range[] = [];
  const PrefixListIds: PrefixListId[] = [];
  for (const rule of rules) {
    const { peer } = rule;
    const text = described(rule);
    switch (peer.kind) {
      case "ipv4":
        IpRanges.push({ ...text, CidrIp: peer.cidr });
        break;
      case "ipv6":
        Ipv6Ranges.push({ ...text, CidrIpv6: peer.cidr });
        break;
      case "prefix-list":
        PrefixListIds.push({ ...text, PrefixListId: peer.prefixListId });
        break;
      case "group":
        UserIdGroupPairs.push({
          ...text,
          UserId: peer.accountId,
          GroupId: peer.groupId,
          ...(peer.vpcId && { VpcId: peer.vpcId }),
        });
        break;
      default:
        return unreachable(peer);
    }
  }
  // Only protocols that have ports or types show them.
  const ports = ["tcp", "udp", "icmp", "icmpv6"].includes(protocol) ? { FromPort: fromPort, ToPort: toPort } : {};
  return { IpProtocol: protocol, ...ports, UserIdGroupPairs, IpRanges, Ipv6Ranges, PrefixListIds };
}
