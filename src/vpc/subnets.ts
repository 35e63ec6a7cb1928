/** DescribeSubnets. */
import { ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import { zonesOf } from "../model/config.ts";
import { assignableCount, trustedCidr } from "../model/ipv4.ts";
import type { SubnetRecord } from "../model/network.ts";
import type { Call, Describe } from "../model/operation.ts";
import type { Reader } from "../model/store.ts";
import { networkInterfaces, subnets, tags } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import { zoneId } from "../model/zones.ts";
import type { DescribeSubnetsRequest, DescribeSubnetsResult, Subnet } from "../schema/ec2/types.ts";
import { allOwned, ec2Arn, getOwned } from "./owned.ts";

/** How many addresses of the subnet an interface can still get. */
export function availableAddresses(state: Reader, subnet: SubnetRecord): number {
  let taken = 0;
  for (const eni of state.lookup(networkInterfaces, "bySubnet", subnet.id)) taken += eni.privateIpAddresses.length;
  return Math.max(0, assignableCount(trustedCidr(subnet.cidrBlock)) - taken);
}

export const viewSubnet = memoView(
  (subnet: SubnetRecord, tagsOf: TagsRecord | undefined, available: number, zone: string): Subnet => ({
    AvailabilityZoneId: zone,
    MapCustomerOwnedIpOnLaunch: false,
    OwnerId: subnet.accountId,
    AssignIpv6AddressOnCreation: false,
    Ipv6CidrBlockAssociationSet: [],
    Tags: tagList(tagsOf),
    SubnetArn: ec2Arn(subnet, "subnet", subnet.id),
    EnableDns64: false,
    Ipv6Native: false,
    PrivateDnsNameOptionsOnLaunch: {
      HostnameType: "ip-name",
      EnableResourceNameDnsARecord: false,
      EnableResourceNameDnsAAAARecord: false,
    },
    BlockPublicAccessStates: { InternetGatewayBlockMode: "off" },
    SubnetId: subnet.id,
    State: "available",
    VpcId: subnet.vpcId,
    CidrBlock: subnet.cidrBlock,
    AvailableIpAddressCount: available,
    AvailabilityZone: subnet.zone,
    DefaultForAz: subnet.defaultForAz,
    MapPublicIpOnLaunch: subnet.mapPublicIpOnLaunch,
  }),
);

const view = (subnet: SubnetRecord, { state, region, config }: Call): Subnet =>
  viewSubnet(
    subnet,
    state.get(tags, subnet.id),
    availableAddresses(state, subnet),
    zoneId(region, zonesOf(config), subnet.zone),
  );

export const describeSubnets: Describe<DescribeSubnetsRequest, DescribeSubnetsResult, Subnet> = {
  kind: "describe",
  ids: {
    kind: "Subnet",
    of: (input) => input.SubnetIds,
    idOf: (subnet) => subnet.SubnetId!,
    get(id, _input, call) {
      const subnet = getOwned(call, subnets, id);
      return subnet && view(subnet, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, subnets).map((subnet) => view(subnet, call))),
  filters: {
    "ipv6-cidr-block-association.ipv6-cidr-block": (subnet) =>
      subnet.Ipv6CidrBlockAssociationSet?.map((block) => block.Ipv6CidrBlock),
    "ipv6-cidr-block-association.association-id": (subnet) =>
      subnet.Ipv6CidrBlockAssociationSet?.map((block) => block.AssociationId),
    "ipv6-cidr-block-association.state": (subnet) =>
      subnet.Ipv6CidrBlockAssociationSet?.map((block) => block.Ipv6CidrBlockState?.State),
    "private-dns-name-options-on-launch.hostname-type": (subnet) => subnet.PrivateDnsNameOptionsOnLaunch?.HostnameType,
    "private-dns-name-options-on-launch.enable-resource-name-dns-a-record": (subnet) =>
      subnet.PrivateDnsNameOptionsOnLaunch?.EnableResourceNameDnsARecord,
    "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": (subnet) =>
      subnet.PrivateDnsNameOptionsOnLaunch?.EnableResourceNameDnsAAAARecord,
    "enable-dns64": (subnet) => subnet.EnableDns64,
    "enable-lni-at-device-index": (subnet) => subnet.EnableLniAtDeviceIndex,
    // Older spellings that AWS still takes.
    availabilityZone: (subnet) => subnet.AvailabilityZone,
    cidr: (subnet) => subnet.CidrBlock,
    cidrBlock: (subnet) => subnet.CidrBlock,
    defaultForAz: (subnet) => subnet.DefaultForAz,
  },
  page: { min: 5, max: 1000, key: (subnet) => subnet.SubnetId! },
  answer: (items) => ({ Subnets: items }),
};
