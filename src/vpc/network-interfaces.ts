/** DescribeNetworkInterfaces: an ENI as AWS shows it. */
import { ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import { zonesOf } from "../model/config.ts";
import { privateDnsName, publicDnsName } from "../model/dns-names.ts";
import type { InstanceRecord } from "../model/instance.ts";
import type { NetworkInterfaceRecord, SecurityGroupRecord } from "../model/network.ts";
import type { Call, Describe } from "../model/operation.ts";
import { instances, networkInterfaces, securityGroups, tags, vpcs } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import { zoneId } from "../model/zones.ts";
import type {
  DescribeNetworkInterfacesRequest,
  DescribeNetworkInterfacesResult,
  GroupIdentifier,
  NetworkInterface,
  NetworkInterfaceAssociation,
  NetworkInterfaceAttachment,
} from "../schema/ec2/types.ts";
import { allOwned, getOwned } from "./owned.ts";

export const groupIdentifiers = (
  eni: NetworkInterfaceRecord,
  groups: readonly (SecurityGroupRecord | undefined)[],
): readonly GroupIdentifier[] =>
  eni.groupIds.map((GroupId, i) => {
    const name = groups[i]?.name;
    return name === undefined ? { GroupId } : { GroupId, GroupName: name };
  });

export function viewAttachment(eni: NetworkInterfaceRecord): NetworkInterfaceAttachment | undefined {
  const { attachment } = eni;
  return (
    attachment && {
      AttachTime: new Date(attachment.attachTime),
      AttachmentId: attachment.id,
      DeleteOnTermination: attachment.deleteOnTermination,
      DeviceIndex: attachment.deviceIndex,
      NetworkCardIndex: attachment.networkCardIndex,
      InstanceId: attachment.instanceId,
      InstanceOwnerId: attachment.instanceOwnerId,
      Status: "attached",
    }
  );
}

/** `dnsHostnames`: whether the VPC gives public addresses a name. */
export const viewNetworkInterface = memoView(
  (
    eni: NetworkInterfaceRecord,
    tagsOf: TagsRecord | undefined,
    groups: readonly (SecurityGroupRecord | undefined)[],
    instance: InstanceRecord | undefined,
    dnsHostnames: boolean,
    zone: string,
  ): NetworkInterface => {
    const association: NetworkInterfaceAssociation | undefined =
      eni.publicIp === undefined
        ? undefined
        : {
            IpOwnerId: "amazon",
            PublicDnsName: dnsHostnames ? publicDnsName(eni.region, eni.publicIp) : "",
            PublicIp: eni.publicIp,
          };
    const primary = eni.privateIpAddresses[0]!.address;
    const attachment = viewAttachment(eni);
    return {
      ...(association && { Association: association }),
      ...(attachment && { Attachment: attachment }),
      AvailabilityZone: eni.zone,
      AvailabilityZoneId: zone,
      Description: eni.description,
      Groups: groupIdentifiers(eni, groups),
      InterfaceType: eni.interfaceType,
      Ipv6Addresses: eni.ipv6Addresses.map((Ipv6Address) => ({ Ipv6Address })),
      MacAddress: eni.macAddress,
      NetworkInterfaceId: eni.id,
      OwnerId: eni.accountId,
      PrivateDnsName: privateDnsName(eni.region, primary, instance),
      PrivateIpAddress: primary,
      PrivateIpAddresses: eni.privateIpAddresses.map(({ address, primary: isPrimary }) => ({
        ...(isPrimary && association && { Association: association }),
        Primary: isPrimary,
        PrivateDnsName: privateDnsName(eni.region, address, isPrimary ? instance : undefined),
        PrivateIpAddress: address,
      })),
      RequesterManaged: eni.requesterManaged,
      SourceDestCheck: eni.sourceDestCheck,
      Status: eni.attachment ? "in-use" : "available",
      SubnetId: eni.subnetId,
      TagSet: tagList(tagsOf),
      VpcId: eni.vpcId,
      Operator: { Managed: false },
    };
  },
);

function view(eni: NetworkInterfaceRecord, { state, config, region }: Call): NetworkInterface {
  return viewNetworkInterface(
    eni,
    state.get(tags, eni.id),
    eni.groupIds.map((id) => state.get(securityGroups, id)),
    eni.attachment && state.get(instances, eni.attachment.instanceId),
    state.get(vpcs, eni.vpcId)?.enableDnsHostnames ?? false,
    zoneId(region, zonesOf(config), eni.zone),
  );
}

export const describeNetworkInterfaces: Describe<
  DescribeNetworkInterfacesRequest,
  DescribeNetworkInterfacesResult,
  NetworkInterface
> = {
  kind: "describe",
  ids: {
    kind: "NetworkInterface",
    of: (input) => input.NetworkInterfaceIds,
    idOf: (eni) => eni.NetworkInterfaceId!,
    get(id, _input, call) {
      const eni = getOwned(call, networkInterfaces, id);
      return eni && view(eni, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, networkInterfaces).map((eni) => view(eni, call))),
  filters: {
    "association.allocation-id": (eni) => eni.Association?.AllocationId,
    "association.association-id": (eni) => eni.Association?.AssociationId,
    "association.ip-owner-id": (eni) => eni.Association?.IpOwnerId,
    "association.public-ip": (eni) => eni.Association?.PublicIp,
    "association.public-dns-name": (eni) => eni.Association?.PublicDnsName,
    "addresses.association.owner-id": (eni) => eni.PrivateIpAddresses?.map((a) => a.Association?.IpOwnerId),
    "addresses.association.public-ip": (eni) => eni.PrivateIpAddresses?.map((a) => a.Association?.PublicIp),
    "addresses.primary": (eni) => eni.PrivateIpAddresses?.map((a) => a.Primary),
    "addresses.private-ip-address": (eni) => eni.PrivateIpAddresses?.map((a) => a.PrivateIpAddress),
    "attachment.attach-time": (eni) => eni.Attachment?.AttachTime,
    "attachment.attachment-id": (eni) => eni.Attachment?.AttachmentId,
    "attachment.delete-on-termination": (eni) => eni.Attachment?.DeleteOnTermination,
    "attachment.device-index": (eni) => eni.Attachment?.DeviceIndex,
    "attachment.instance-id": (eni) => eni.Attachment?.InstanceId,
    "attachment.instance-owner-id": (eni) => eni.Attachment?.InstanceOwnerId,
    "attachment.status": (eni) => eni.Attachment?.Status,
    "group-id": (eni) => eni.Groups?.map((group) => group.GroupId),
    "group-name": (eni) => eni.Groups?.map((group) => group.GroupName),
    "ipv6-addresses.ipv6-address": (eni) => eni.Ipv6Addresses?.map((a) => a.Ipv6Address),
    "operator.managed": (eni) => eni.Operator?.Managed,
    "operator.principal": (eni) => eni.Operator?.Principal,
  },
  page: { min: 5, max: 1000, key: (eni) => eni.NetworkInterfaceId! },
  answer: (items) => ({ NetworkInterfaces: items }),
};
