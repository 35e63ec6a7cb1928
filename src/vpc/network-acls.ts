/** DescribeNetworkAcls. */
import { ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import type { NetworkAclRecord } from "../model/network.ts";
import type { Describe } from "../model/operation.ts";
import { networkAcls, tags } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type { DescribeNetworkAclsRequest, DescribeNetworkAclsResult, NetworkAcl } from "../schema/ec2/types.ts";
import { allOwned, getOwned, type Scope } from "./owned.ts";

export const viewNetworkAcl = memoView(
  (acl: NetworkAclRecord, tagsOf: TagsRecord | undefined): NetworkAcl => ({
    Associations: acl.associations.map((association) => ({
      NetworkAclAssociationId: association.id,
      NetworkAclId: acl.id,
      SubnetId: association.subnetId,
    })),
    Entries: acl.entries.map((entry) => ({
      CidrBlock: entry.cidrBlock,
      Egress: entry.egress,
      ...(entry.icmp && { IcmpTypeCode: { Code: entry.icmp.code, Type: entry.icmp.type } }),
      ...(entry.portRange && { PortRange: { From: entry.portRange.from, To: entry.portRange.to } }),
      Protocol: entry.protocol,
      RuleAction: entry.action,
      RuleNumber: entry.ruleNumber,
    })),
    IsDefault: acl.isDefault,
    NetworkAclId: acl.id,
    Tags: tagList(tagsOf),
    VpcId: acl.vpcId,
    OwnerId: acl.accountId,
  }),
);

const view = (acl: NetworkAclRecord, { state }: Scope): NetworkAcl => viewNetworkAcl(acl, state.get(tags, acl.id));

/** A filter takes names where an entry has IANA's numbers. */
const PROTOCOL_NAMES: { readonly [number: string]: string } = { "1": "icmp", "6": "tcp", "17": "udp" };
const protocolSpellings = (protocol: string | undefined) => {
  const name = PROTOCOL_NAMES[protocol ?? ""];
  return name ? [protocol, name] : [protocol];
};

export const describeNetworkAcls: Describe<DescribeNetworkAclsRequest, DescribeNetworkAclsResult, NetworkAcl> = {
  kind: "describe",
  ids: {
    kind: "NetworkAcl",
    of: (input) => input.NetworkAclIds,
    idOf: (acl) => acl.NetworkAclId!,
    get(id, _input, call) {
      const acl = getOwned(call, networkAcls, id);
      return acl && view(acl, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, networkAcls).map((acl) => view(acl, call))),
  filters: {
    default: (acl) => acl.IsDefault,
    "association.association-id": (acl) => acl.Associations?.map((association) => association.NetworkAclAssociationId),
    "association.network-acl-id": (acl) => acl.Associations?.map((association) => association.NetworkAclId),
    "association.subnet-id": (acl) => acl.Associations?.map((association) => association.SubnetId),
    "entry.cidr": (acl) => acl.Entries?.map((entry) => entry.CidrBlock),
    "entry.icmp.code": (acl) => acl.Entries?.map((entry) => entry.IcmpTypeCode?.Code),
    "entry.icmp.type": (acl) => acl.Entries?.map((entry) => entry.IcmpTypeCode?.Type),
    "entry.ipv6-cidr": (acl) => acl.Entries?.map((entry) => entry.Ipv6CidrBlock),
    "entry.port-range.from": (acl) => acl.Entries?.map((entry) => entry.PortRange?.From),
    "entry.port-range.to": (acl) => acl.Entries?.map((entry) => entry.PortRange?.To),
    "entry.protocol": (acl) => acl.Entries?.flatMap((entry) => protocolSpellings(entry.Protocol)),
    "entry.rule-action": (acl) => acl.Entries?.map((entry) => entry.RuleAction),
    "entry.egress": (acl) => acl.Entries?.map((entry) => entry.Egress),
    "entry.rule-number": (acl) => acl.Entries?.map((entry) => entry.RuleNumber),
  },
  page: { min: 5, max: 1000, key: (acl) => acl.NetworkAclId! },
  answer: (items) => ({ NetworkAcls: items }),
};
