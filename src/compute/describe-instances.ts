/** DescribeInstances: instances are listed, filtered and paged; each page's instances are then put in reservations. */
import { ok } from "../lib/result.ts";
import type { Config } from "../model/config.ts";
import type { Describe } from "../model/operation.ts";
import type { Reader } from "../model/store.ts";
import { inAccount, instances } from "../model/tables.ts";
import { memoView } from "../model/view.ts";
import type {
  DescribeInstancesRequest,
  DescribeInstancesResult,
  InstanceNetworkInterface,
  InstancePrivateIpAddress,
  Reservation,
} from "../schema/ec2/types.ts";
import { type InstanceItem, viewInstance, viewInstances } from "./instance-view.ts";
import { getOwned } from "./owned.ts";
import { revisionMemo } from "./revision-memo.ts";

const keyOf = (item: InstanceItem): string =>
  `${item.ReservationId}/${String(item.AmiLaunchIndex).padStart(6, "0")}/${item.InstanceId}`;

/** One reservation with those of its instances that a page shows, found again by the first of them. */
const viewReservation = memoView(
  (first: InstanceItem, items: readonly InstanceItem[]): Reservation => ({
    ReservationId: first.ReservationId,
    OwnerId: first.OwnerId,
    Groups: [],
    Instances: items,
  }),
);

/** Reservations in the order of their first instance. */
export function inReservations(items: readonly InstanceItem[]): Reservation[] {
  const grouped = new Map<string, InstanceItem[]>();
  for (const item of items) {
    const group = grouped.get(item.ReservationId);
    if (group) group.push(item);
    else grouped.set(item.ReservationId, [item]);
  }
  return [...grouped.values()].map((group) => viewReservation(group[0]!, group));
}

const interfaces = (i: InstanceItem): readonly InstanceNetworkInterface[] => i.NetworkInterfaces ?? [];
const addresses = (i: InstanceItem): InstancePrivateIpAddress[] =>
  interfaces(i).flatMap((n) => n.PrivateIpAddresses ?? []);
const never = () => undefined;

/** Where a filter's name does not lead to the member that it compares with. */
export const instanceFilters: NonNullable<Describe<unknown, unknown, InstanceItem>["filters"]> = {
  "dns-name": (i) => i.PublicDnsName,
  "instance.group-id": (i) => i.SecurityGroups?.map((g) => g.GroupId),
  "instance.group-name": (i) => i.SecurityGroups?.map((g) => g.GroupName),
  "ip-address": (i) => i.PublicIpAddress,
  "ipv6-address": (i) => interfaces(i).flatMap((n) => n.Ipv6Addresses?.map((a) => a.Ipv6Address)),
  "launch-index": (i) => i.AmiLaunchIndex,
  "metadata-options.http-protocol-ipv4": (i) => i.MetadataOptions?.HttpEndpoint,
  "network-interface.addresses.association.allocation-id": never,
  "network-interface.addresses.association.association-id": never,
  "network-interface.addresses.association.carrier-ip": (i) => addresses(i).map((a) => a.Association?.CarrierIp),
  "network-interface.addresses.association.customer-owned-ip": (i) =>
    addresses(i).map((a) => a.Association?.CustomerOwnedIp),
  "network-interface.addresses.association.ip-owner-id": (i) => addresses(i).map((a) => a.Association?.IpOwnerId),
  "network-interface.addresses.association.public-dns-name": (i) =>
    addresses(i).map((a) => a.Association?.PublicDnsName),
  "network-interface.addresses.association.public-ip": (i) => addresses(i).map((a) => a.Association?.PublicIp),
  "network-interface.addresses.primary": (i) => addresses(i).map((a) => a.Primary),
  "network-interface.addresses.private-dns-name": (i) => addresses(i).map((a) => a.PrivateDnsName),
  "network-interface.addresses.private-ip-address": (i) => addresses(i).map((a) => a.PrivateIpAddress),
  "network-interface.association.allocation-id": never,
  "network-interface.association.association-id": never,
  "network-interface.attachment.instance-id": (i) => (interfaces(i).length > 0 ? i.InstanceId : undefined),
  "network-interface.attachment.instance-owner-id": (i) => (interfaces(i).length > 0 ? i.OwnerId : undefined),
  "network-interface.availability-zone": (i) => (interfaces(i).length > 0 ? i.Placement?.AvailabilityZone : undefined),
  "network-interface.deny-all-igw-traffic": never,
  "network-interface.ipv6-native": never,
  "network-interface.outpost-arn": never,
  "network-interface.requester-id": never,
  "network-interface.requester-managed": (i) => interfaces(i).map(() => false),
  "network-interface.tag-key": (i) => i.InterfaceTags.map((tag) => tag.Key),
  "network-interface.tag-value": (i) => i.InterfaceTags.map((tag) => tag.Value),
  "owner-id": (i) => i.OwnerId,
  "product-code": (i) => i.ProductCodes?.map((p) => p.ProductCodeId),
  "product-code.type": (i) => i.ProductCodes?.map((p) => p.ProductCodeType),
  reason: (i) => i.StateTransitionReason,
  "requester-id": (i) => i.RequesterId,
  "reservation-id": (i) => i.ReservationId,
};

/** A handler with a memory of the last list: one for each store. */
export function describeInstances(): Describe<DescribeInstancesRequest, DescribeInstancesResult, InstanceItem> {
  const memos = new WeakMap<Config, (account: string, state: Reader) => readonly InstanceItem[]>();
  const listOf = (config: Config) => {
    const known = memos.get(config);
    if (known) return known;
    const list = revisionMemo((account, state) =>
      viewInstances(account, state, config)
        .map((item) => ({ item, key: keyOf(item) }))
        .sort((a, b) => (a.key < b.key ? -1 : 1))
        .map(({ item }) => item),
    );
    memos.set(config, list);
    return list;
  };
  return {
    kind: "describe",
    ids: {
      kind: "Instance",
      of: (input) => input.InstanceIds,
      idOf: (item) => item.InstanceId!,
      get(id, _input, call) {
        const instance = getOwned(call, instances, id);
        return instance && viewInstance(instance, call.state, call.config);
      },
    },
    list: (_input, call) => ok(listOf(call.config)(inAccount(call.accountId, call.region), call.state)),
    filters: instanceFilters,
    page: { min: 5, max: 1000, key: keyOf },
    answer: (items) => ({ Reservations: inReservations(items) }),
  };
}
