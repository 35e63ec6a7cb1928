/** An instance as AWS shows it, made from its record, what its node saw, its network interfaces, groups and tags. */
import type { TagsRecord } from "../model/common-records.ts";
import { type Config, zonesOf } from "../model/config.ts";
import { privateDnsName, publicDnsName } from "../model/dns-names.ts";
import type { InstanceId } from "../model/ids.ts";
import type { ImageRecord } from "../model/image.ts";
import type { InstanceObserved, InstanceRecord } from "../model/instance.ts";
import { INSTANCE_STATE_CODES, type InstanceStateName, instanceState, stateReason } from "../model/instance-state.ts";
import type { NetworkInterfaceRecord, SecurityGroupRecord, VpcRecord } from "../model/network.ts";
import type { Reader } from "../model/store.ts";
import {
  images,
  instances,
  instancesObserved,
  networkInterfaces,
  securityGroups,
  tags,
  vpcs,
} from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import { zoneId } from "../model/zones.ts";
import type {
  GroupIdentifier,
  Instance,
  InstanceMetadataOptionsResponse,
  InstanceNetworkInterface,
  InstanceNetworkInterfaceAssociation,
  InstanceState,
  StateReason,
  Tag,
} from "../schema/ec2/types.ts";
import { typeName } from "./describe-instance-types.ts";
import { interfacesOf } from "./owned.ts";

/** What DescribeInstances lists: AWS's structure, with what AWS keeps in the reservation around it. */
export interface InstanceItem extends Instance {
  readonly ReservationId: string;
  readonly OwnerId: string;
  readonly RequesterId?: string;
  /** Tags of the network interfaces, for the filters that ask for them. */
  readonly InterfaceTags: readonly Tag[];
}

/** The records that an instance's view is made from. */
export interface InstanceRecords {
  readonly instance: InstanceRecord;
  readonly observed: InstanceObserved | undefined;
  readonly tags: TagsRecord | undefined;
  readonly interfaces: readonly NetworkInterfaceRecord[];
  /** Of each interface in turn, in its order; undefined where a group is gone. */
  readonly groups: readonly (SecurityGroupRecord | undefined)[];
  readonly interfaceTags: readonly (TagsRecord | undefined)[];
  readonly image: ImageRecord | undefined;
  /** Whether the VPC gives public addresses a name. */
  readonly dnsHostnames: boolean;
}

export const stateOnWire = (name: InstanceStateName): InstanceState => ({
  Code: INSTANCE_STATE_CODES[name],
  Name: name,
});

export const groupsOf = (
  state: Reader,
  interfaces: readonly NetworkInterfaceRecord[],
): readonly (SecurityGroupRecord | undefined)[] =>
  interfaces.flatMap((eni) => eni.groupIds.map((id) => state.get(securityGroups, id)));

/** Where the records around an instance are read from. */
interface Surroundings {
  observed(id: string): InstanceObserved | undefined;
  tags(id: string): TagsRecord | undefined;
  interfaces(id: InstanceId): readonly NetworkInterfaceRecord[];
  group(id: string): SecurityGroupRecord | undefined;
  image(id: string): ImageRecord | undefined;
  vpc(id: string): VpcRecord | undefined;
}

/** One look-up for each record: right for a few instances. */
const lookedUp = (state: Reader): Surroundings => ({
  observed: (id) => state.get(instancesObserved, id),
  tags: (id) => state.get(tags, id),
  interfaces: (id) => interfacesOf(state, id),
  group: (id) => state.get(securityGroups, id),
  image: (id) => state.get(images, id),
  vpc: (id) => state.get(vpcs, id),
});

/** One pass over each table: right for all instances of an account, and several times as fast then. */
function gathered(state: Reader, account: string): Surroundings {
  const observed = new Map(state.all(instancesObserved).map((record) => [record.instanceId as string, record]));
  const tagsById = new Map(state.lookup(tags, "byAccount", account).map((record) => [record.resourceId, record]));
  const interfaces = new Map<string, NetworkInterfaceRecord[]>();
  for (const eni of state.lookup(networkInterfaces, "byAccount", account)) {
    if (!eni.attachment) continue;
    const others = interfaces.get(eni.attachment.instanceId);
    if (!others) interfaces.set(eni.attachment.instanceId, [eni]);
    else {
      others.push(eni);
      others.sort((a, b) => a.attachment!.deviceIndex - b.attachment!.deviceIndex);
    }
  }
  const once = <R>(get: (id: string) => R | undefined) => {
    const known = new Map<string, R | undefined>();
    return (id: string): R | undefined => {
      if (!known.has(id)) known.set(id, get(id));
      return known.get(id);
    };
  };
  return {
    observed: (id) => observed.get(id),
    tags: (id) => tagsById.get(id),
    interfaces: (id) => interfaces.get(id) ?? [],
    group: once((id) => state.get(securityGroups, id)),
    image: once((id) => state.get(images, id)),
    vpc: once((id) => state.get(vpcs, id)),
  };
}

/** Reads what is around an instance, and gives its view. The same object for as long as none of the records changes. */
export const viewInstance = (instance: InstanceRecord, state: Reader, config: Config): InstanceItem =>
  viewWithin(instance, lookedUp(state), config);

/** The views of all instances of an account (`inAccount`), in the order of their ids. */
export function viewInstances(account: string, state: Reader, config: Config): InstanceItem[] {
  const around = gathered(state, account);
  return state.lookup(instances, "byAccount", account).map((instance) => viewWithin(instance, around, config));
}

function viewWithin(instance: InstanceRecord, around: Surroundings, config: Config): InstanceItem {
  const interfaces = around.interfaces(instance.id);
  const vpcId = interfaces[0]?.vpcId;
  return viewRecords(
    {
      instance,
      observed: around.observed(instance.id),
      tags: around.tags(instance.id),
      interfaces,
      groups: interfaces.flatMap((eni) => eni.groupIds.map(around.group)),
      interfaceTags: interfaces.map((eni) => around.tags(eni.id)),
      image: around.image(instance.imageId),
      dnsHostnames: vpcId !== undefined && (around.vpc(vpcId)?.enableDnsHostnames ?? false),
    },
    config,
  );
}

/** The view of records that may not be in the store yet. */
export const viewRecords = (records: InstanceRecords, config: Config): InstanceItem =>
  memoized(
    records.instance,
    records.observed,
    records.tags,
    records.interfaces,
    records.groups,
    records.interfaceTags,
    records.image,
    records.dnsHostnames,
    zoneId(records.instance.region, zonesOf(config), records.instance.zone),
  );

const memoized = memoView(
  (
    instance: InstanceRecord,
    observed: InstanceObserved | undefined,
    tagsOf: TagsRecord | undefined,
    interfaces: readonly NetworkInterfaceRecord[],
    groups: readonly (SecurityGroupRecord | undefined)[],
    interfaceTags: readonly (TagsRecord | undefined)[],
    image: ImageRecord | undefined,
    dnsHostnames: boolean,
    zone: string,
  ): InstanceItem => {
    const state = instanceState(instance, observed);
    const gone = state === "terminated";
    const names = new Map(groups.flatMap((group) => (group ? [[group.id as string, group.name] as const] : [])));
    const shown = gone ? [] : interfaces.map((eni) => viewInterface(eni, instance, names, dnsHostnames));
    const primary = shown[0];
    const reason = stateReasonOf(instance, observed);
    return {
      ReservationId: instance.reservationId,
      OwnerId: instance.accountId,
      InterfaceTags: gone ? [] : interfaceTags.flatMap(tagList),
      InstanceId: instance.id,
      ImageId: instance.imageId,
      State: stateOnWire(state),
      PrivateDnsName: primary?.PrivateDnsName ?? "",
      PublicDnsName: primary?.Association?.PublicDnsName ?? "",
      StateTransitionReason: transitionReason(instance),
      ...(reason && { StateReason: reason }),
      ...(instance.keyName !== undefined && { KeyName: instance.keyName }),
      AmiLaunchIndex: instance.launchIndex,
      ProductCodes: [],
      InstanceType: typeName(instance.instanceType),
      LaunchTime: new Date(instance.launchTime),
      Placement: {
        AvailabilityZone: instance.zone,
        AvailabilityZoneId: zone,
        GroupName: instance.placement.groupName ?? "",
        Tenancy: instance.placement.tenancy,
        ...(instance.placement.partitionNumber !== undefined && {
          PartitionNumber: instance.placement.partitionNumber,
        }),
        ...(instance.placement.affinity !== undefined && { Affinity: instance.placement.affinity }),
      },
      Monitoring: { State: instance.monitoring ? "enabled" : "disabled" },
      ...(primary && {
        SubnetId: primary.SubnetId,
        VpcId: primary.VpcId,
        PrivateIpAddress: primary.PrivateIpAddress,
        SourceDestCheck: primary.SourceDestCheck,
      }),
      ...(primary?.Association && { PublicIpAddress: primary.Association.PublicIp }),
      Architecture: image?.architecture ?? "x86_64",
      BlockDeviceMappings: gone ? [] : instance.blockDevices.map(viewBlockDevice),
      ClientToken: instance.clientToken ?? "",
      EbsOptimized: instance.ebsOptimized,
      EnaSupport: image?.enaSupport ?? true,
      Hypervisor: "xen",
      NetworkInterfaces: shown,
      RootDeviceName: instance.rootDeviceName,
      RootDeviceType: "ebs",
      SecurityGroups: primary?.Groups ?? [],
      Tags: tagList(tagsOf),
      VirtualizationType: "hvm",
      CpuOptions: { CoreCount: instance.cpuOptions.coreCount, ThreadsPerCore: instance.cpuOptions.threadsPerCore },
      CapacityReservationSpecification: { CapacityReservationPreference: "open" },
      HibernationOptions: { Configured: false },
      MetadataOptions: viewMetadataOptions(instance),
      EnclaveOptions: { Enabled: false },
      ...(image?.bootMode && { BootMode: image.bootMode }),
      PlatformDetails: image?.platformDetails ?? "Linux/UNIX",
      UsageOperation: "RunInstances",
      UsageOperationUpdateTime: new Date(instance.createdAt),
      PrivateDnsNameOptions: {
        HostnameType: instance.privateDnsNameOptions.hostnameType,
        EnableResourceNameDnsARecord: instance.privateDnsNameOptions.enableResourceNameDnsARecord,
        EnableResourceNameDnsAAAARecord: instance.privateDnsNameOptions.enableResourceNameDnsAAAARecord,
      },
      MaintenanceOptions: { AutoRecovery: instance.maintenanceAutoRecovery },
      CurrentInstanceBootMode: image?.bootMode?.startsWith("uefi") ? "uefi" : "legacy-bios",
      NetworkPerformanceOptions: { BandwidthWeighting: "default" },
      Operator: { Managed: false },
    };
  },
);

const viewBlockDevice = (device: InstanceRecord["blockDevices"][number]) => ({
  DeviceName: device.deviceName,
  Ebs: {
    AttachTime: new Date(device.attachTime),
    DeleteOnTermination: device.deleteOnTermination,
    Status: "attached" as const,
    VolumeId: device.volumeId,
  },
});

export const viewBlockDevices = (instance: InstanceRecord) => instance.blockDevices.map(viewBlockDevice);

/** Options take effect with the transaction that changes them, so none is ever pending. */
export const viewMetadataOptions = ({ metadataOptions: m }: InstanceRecord): InstanceMetadataOptionsResponse => ({
  State: "applied",
  HttpTokens: m.httpTokens,
  HttpPutResponseHopLimit: m.httpPutResponseHopLimit,
  HttpEndpoint: m.httpEndpoint,
  HttpProtocolIpv6: m.httpProtocolIpv6,
  InstanceMetadataTags: m.instanceMetadataTags,
});

export const groupIdentifier = (id: string, name: string | undefined): GroupIdentifier => ({
  GroupId: id,
  ...(name !== undefined && { GroupName: name }),
});

function viewInterface(
  eni: NetworkInterfaceRecord,
  instance: InstanceRecord,
  groupNames: ReadonlyMap<string, string>,
  dnsHostnames: boolean,
): InstanceNetworkInterface {
  const association: InstanceNetworkInterfaceAssociation | undefined =
    eni.publicIp === undefined
      ? undefined
      : {
          IpOwnerId: "amazon",
          PublicDnsName: dnsHostnames ? publicDnsName(eni.region, eni.publicIp) : "",
          PublicIp: eni.publicIp,
        };
  const attachment = eni.attachment;
  const primary = eni.privateIpAddresses[0]!.address;
  return {
    ...(association && { Association: association }),
    ...(attachment && {
      Attachment: {
        AttachTime: new Date(attachment.attachTime),
        AttachmentId: attachment.id,
        DeleteOnTermination: attachment.deleteOnTermination,
        DeviceIndex: attachment.deviceIndex,
        Status: "attached",
        NetworkCardIndex: attachment.networkCardIndex,
      },
    }),
    Description: eni.description,
    Groups: eni.groupIds.map((id) => groupIdentifier(id, groupNames.get(id))),
    Ipv6Addresses: eni.ipv6Addresses.map((Ipv6Address) => ({ Ipv6Address })),
    MacAddress: eni.macAddress,
    NetworkInterfaceId: eni.id,
    OwnerId: eni.accountId,
    PrivateDnsName: privateDnsName(eni.region, primary, instance),
    PrivateIpAddress: primary,
    PrivateIpAddresses: eni.privateIpAddresses.map((address) => ({
      ...(address.primary && association && { Association: association }),
      Primary: address.primary,
      PrivateDnsName: privateDnsName(eni.region, address.address, address.primary ? instance : undefined),
      PrivateIpAddress: address.address,
    })),
    SourceDestCheck: eni.sourceDestCheck,
    Status: "in-use",
    SubnetId: eni.subnetId,
    VpcId: eni.vpcId,
    InterfaceType: eni.interfaceType,
    Operator: { Managed: false },
  };
}

function stateReasonOf(instance: InstanceRecord, observed: InstanceObserved | undefined): StateReason | undefined {
  const reason = stateReason(instance, observed);
  if (!reason) return undefined;
  // EC2 repeats the code in the message of all but `pending`.
  const told = reason.code === reason.message || reason.message.startsWith(reason.code);
  return { Code: reason.code, Message: told ? reason.message : `${reason.code}: ${reason.message}` };
}

/** `User initiated (2026-01-01 00:00:00 GMT)` after a call; the server's code when Hive did it; else empty. */
export function transitionReason({ power, transition, powerChangedAt }: InstanceRecord): string {
  if (power === "on" || !transition) return "";
  if (transition.code === USER_INITIATED.code)
    return `User initiated (${new Date(powerChangedAt).toISOString().slice(0, 19).replace("T", " ")} GMT)`;
  return transition.code.startsWith("Server.") ? transition.code : "";
}

/** Why an instance is off after StopInstances or TerminateInstances. */
export const USER_INITIATED = { code: "Client.UserInitiatedShutdown", message: "User initiated shutdown" } as const;
