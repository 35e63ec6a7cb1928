/** DescribeVpcs and DescribeVpcAttribute. */
import { fail, ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import { invalidValueFor } from "../model/errors.ts";
import type { VpcRecord } from "../model/network.ts";
import type { Describe, Query } from "../model/operation.ts";
import { tags, vpcs } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type {
  DescribeVpcAttributeRequest,
  DescribeVpcAttributeResult,
  DescribeVpcsRequest,
  DescribeVpcsResult,
  Vpc,
} from "../schema/ec2/types.ts";
import { allOwned, findOwned, getOwned, type Scope } from "./owned.ts";

export const viewVpc = memoView(
  (vpc: VpcRecord, tagsOf: TagsRecord | undefined): Vpc => ({
    OwnerId: vpc.accountId,
    InstanceTenancy: vpc.instanceTenancy,
    Ipv6CidrBlockAssociationSet: [],
    CidrBlockAssociationSet: [
      { AssociationId: vpc.cidrAssociationId, CidrBlock: vpc.cidrBlock, CidrBlockState: { State: "associated" } },
    ],
    IsDefault: vpc.isDefault,
    BlockPublicAccessStates: { InternetGatewayBlockMode: "off" },
    Tags: tagList(tagsOf),
    VpcId: vpc.id,
    State: "available",
    CidrBlock: vpc.cidrBlock,
    DhcpOptionsId: vpc.dhcpOptionsId,
  }),
);

const view = (vpc: VpcRecord, { state }: Scope): Vpc => viewVpc(vpc, state.get(tags, vpc.id));

export const describeVpcs: Describe<DescribeVpcsRequest, DescribeVpcsResult, Vpc> = {
  kind: "describe",
  ids: {
    kind: "Vpc",
    of: (input) => input.VpcIds,
    idOf: (vpc) => vpc.VpcId!,
    get(id, _input, call) {
      const vpc = getOwned(call, vpcs, id);
      return vpc && view(vpc, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, vpcs).map((vpc) => view(vpc, call))),
  filters: {
    cidr: (vpc) => vpc.CidrBlock,
    "cidr-block-association.cidr-block": (vpc) => vpc.CidrBlockAssociationSet?.map((block) => block.CidrBlock),
    "cidr-block-association.association-id": (vpc) => vpc.CidrBlockAssociationSet?.map((block) => block.AssociationId),
    "cidr-block-association.state": (vpc) => vpc.CidrBlockAssociationSet?.map((block) => block.CidrBlockState?.State),
    "ipv6-cidr-block-association.ipv6-cidr-block": (vpc) =>
      vpc.Ipv6CidrBlockAssociationSet?.map((block) => block.Ipv6CidrBlock),
    "ipv6-cidr-block-association.ipv6-pool": (vpc) => vpc.Ipv6CidrBlockAssociationSet?.map((block) => block.Ipv6Pool),
    "ipv6-cidr-block-association.association-id": (vpc) =>
      vpc.Ipv6CidrBlockAssociationSet?.map((block) => block.AssociationId),
    "ipv6-cidr-block-association.state": (vpc) =>
      vpc.Ipv6CidrBlockAssociationSet?.map((block) => block.Ipv6CidrBlockState?.State),
    // AWS takes both spellings, though it documents one.
    isDefault: (vpc) => vpc.IsDefault,
  },
  page: { min: 5, max: 1000, key: (vpc) => vpc.VpcId! },
  answer: (items) => ({ Vpcs: items }),
};

export const describeVpcAttribute: Query<DescribeVpcAttributeRequest, DescribeVpcAttributeResult> = {
  kind: "query",
  answer(input, call) {
    const vpc = findOwned(call, "Vpc", vpcs, input.VpcId);
    if (!vpc.ok) return vpc;
    const VpcId = vpc.value.id;
    switch (input.Attribute) {
      case "enableDnsSupport":
        return ok({ VpcId, EnableDnsSupport: { Value: vpc.value.enableDnsSupport } });
      case "enableDnsHostnames":
        return ok({ VpcId, EnableDnsHostnames: { Value: vpc.value.enableDnsHostnames } });
      case "enableNetworkAddressUsageMetrics":
        return ok({ VpcId, EnableNetworkAddressUsageMetrics: { Value: false } });
      default:
        return fail(invalidValueFor("attribute", String(input.Attribute), "Unknown attribute."));
    }
  },
};
