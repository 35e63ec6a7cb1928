/**
 * Every table of the cluster store: one kind of record each, with the indexes that handlers and agents ask for.
 * A key is unique in the cluster. An index answers `lookup(table, index, value)` with records in key order.
 */
import type { AccessKeyRecord, IdempotencyRecord, KeyPairRecord, NodeRecord, TagsRecord } from "./common-records.ts";
import type { ImageRecord, SnapshotRecord, VolumeRecord } from "./image.ts";
import type { InstanceObserved, InstanceRecord } from "./instance.ts";
import type {
  DhcpOptionsRecord,
  InternetGatewayRecord,
  NetworkAclRecord,
  NetworkInterfaceRecord,
  RouteTableRecord,
  SecurityGroupRecord,
  SecurityGroupRuleRecord,
  SubnetRecord,
  VpcRecord,
} from "./network.ts";
import { isRemoval, type SettingVersion, VERSIONS_KEPT } from "./settings.ts";
import { defineTable } from "./store.ts";

/** The value of every `byAccount` index: an account's resources in one region. */
export const inAccount = (accountId: string, region: string): string => `${accountId}/${region}`;
const owned = (r: { readonly accountId: string; readonly region: string }) => inAccount(r.accountId, r.region);

export const instances = defineTable({
  name: "instance",
  version: 1,
  key: (r: InstanceRecord) => r.id,
  indexes: {
    byAccount: owned,
    byNode: (r) => r.nodeId,
    byImage: (r) => r.imageId,
    byReservation: (r) => r.reservationId,
  },
});

export const instancesObserved = defineTable({
  name: "instance-observed",
  version: 1,
  key: (r: InstanceObserved) => r.instanceId,
  indexes: { byNode: (r) => r.nodeId },
});

export const images = defineTable({
  name: "image",
  version: 1,
  key: (r: ImageRecord) => r.id,
  indexes: {
    byRegion: (r) => r.region,
    byName: (r) => `${r.ownerId}/${r.region}/${r.name}`,
    bySnapshot: (r) => r.blockDevices.flatMap((d) => d.snapshotId ?? []),
  },
});

export const snapshots = defineTable({
  name: "snapshot",
  version: 1,
  key: (r: SnapshotRecord) => r.id,
  indexes: { byAccount: (r) => inAccount(r.ownerId, r.region), byNode: (r) => r.nodeId },
});

export const volumes = defineTable({
  name: "volume",
  version: 1,
  key: (r: VolumeRecord) => r.id,
  indexes: {
    byAccount: owned,
    byNode: (r) => r.nodeId,
    byInstance: (r) => r.attachment?.instanceId,
    bySnapshot: (r) => r.snapshotId,
  },
});

export const keyPairs = defineTable({
  name: "key-pair",
  version: 1,
  key: (r: KeyPairRecord) => r.id,
  indexes: { byAccount: owned, byName: (r) => `${owned(r)}/${r.name}` },
});

export const tags = defineTable({
  name: "tags",
  version: 1,
  key: (r: TagsRecord) => r.resourceId,
  indexes: { byAccount: owned },
});

export const vpcs = defineTable({
  name: "vpc",
  version: 1,
  key: (r: VpcRecord) => r.id,
  indexes: { byAccount: owned, byNetworkKey: (r) => String(r.networkKey) },
});

export const subnets = defineTable({
  name: "subnet",
  version: 1,
  key: (r: SubnetRecord) => r.id,
  indexes: { byAccount: owned, byVpc: (r) => r.vpcId },
});

export const dhcpOptions = defineTable({
  name: "dhcp-options",
  version: 1,
  key: (r: DhcpOptionsRecord) => r.id,
  indexes: { byAccount: owned },
});

export const internetGateways = defineTable({
  name: "internet-gateway",
  version: 1,
  key: (r: InternetGatewayRecord) => r.id,
  indexes: { byAccount: owned, byVpc: (r) => r.vpcId },
});

export const routeTables = defineTable({
  name: "route-table",
  version: 1,
  key: (r: RouteTableRecord) => r.id,
  indexes: { byAccount: owned, byVpc: (r) => r.vpcId },
});

export const networkAcls = defineTable({
  name: "network-acl",
  version: 1,
  key: (r: NetworkAclRecord) => r.id,
  indexes: { byAccount: owned, byVpc: (r) => r.vpcId },
});

export const securityGroups = defineTable({
  name: "security-group",
  version: 1,
  key: (r: SecurityGroupRecord) => r.id,
  indexes: { byAccount: owned, byVpc: (r) => r.vpcId, byName: (r) => `${r.vpcId}/${r.name}` },
});

export const securityGroupRules = defineTable({
  name: "security-group-rule",
  version: 1,
  key: (r: SecurityGroupRuleRecord) => r.id,
  indexes: {
    byAccount: owned,
    byGroup: (r) => r.groupId,
    byPeerGroup: (r) => (r.peer.kind === "group" ? r.peer.groupId : undefined),
  },
});

export const networkInterfaces = defineTable({
  name: "network-interface",
  version: 1,
  key: (r: NetworkInterfaceRecord) => r.id,
  indexes: {
    byAccount: owned,
    byVpc: (r) => r.vpcId,
    bySubnet: (r) => r.subnetId,
    byInstance: (r) => r.attachment?.instanceId,
    byGroup: (r) => r.groupIds,
    byPublicIp: (r) => r.publicIp,
    byMac: (r) => `${r.vpcId}/${r.macAddress}`,
    byPrivateIp: (r) => r.privateIpAddresses.map((a) => `${r.vpcId}/${a.address}`),
  },
});

export const nodes = defineTable({ name: "node", version: 1, key: (r: NodeRecord) => r.id, indexes: {} });

export const idempotency = defineTable({
  name: "idempotency",
  version: 1,
  key: (r: IdempotencyRecord) => `${owned(r)}/${r.operation}/${r.token}`,
  indexes: {},
});

export const accessKeys = defineTable({
  name: "access-key",
  version: 1,
  key: (r: AccessKeyRecord) => r.accessKeyId,
  indexes: { byAccount: (r) => r.accountId },
});

export const settings = defineTable({
  name: "setting",
  version: 1,
  key: (r: SettingVersion) => r.key,
  indexes: { gone: (r) => (isRemoval(r) ? "gone" : undefined) },
  pastMax: VERSIONS_KEPT - 1,
});

/** All of them, for opening the store. */
export const allTables = [
  instances,
  instancesObserved,
  images,
  snapshots,
  volumes,
  keyPairs,
  tags,
  vpcs,
  subnets,
  dhcpOptions,
  internetGateways,
  routeTables,
  networkAcls,
  securityGroups,
  securityGroupRules,
  networkInterfaces,
  nodes,
  idempotency,
  accessKeys,
  settings,
] as const;
