/** Which interfaces a node carries, and what of the tables bears on them. Pure: one snapshot of the tables gives one answer. */
import type { InstanceObserved } from "../model/instance.ts";
import { formatIpv4, parseCidr, routerOf, trustedCidr } from "../model/ipv4.ts";
import type { NetworkInterfaceRecord, RouteTableRecord, SecurityGroupRuleRecord, VpcRecord } from "../model/network.ts";
import type { Reader } from "../model/store.ts";
import {
  instances,
  instancesObserved,
  internetGateways,
  networkInterfaces,
  routeTables,
  securityGroupRules,
  subnets,
  vpcs,
} from "../model/tables.ts";
import type { FlowInput, GuestPort, RouteTarget, SubnetRoutes } from "./plan-flows.ts";
import type { GroupPolicy, PeerSet } from "./plan-security-groups.ts";

const hasProcess = (seen: InstanceObserved | undefined): boolean =>
  seen?.process === "starting" || seen?.process === "running" || seen?.process === "stopping";

/** Interfaces of the node's instances that are on, or whose process is still there; in order of id. */
export function localInterfaces(state: Reader, nodeId: string): readonly NetworkInterfaceRecord[] {
  return state
    .lookup(instances, "byNode", nodeId)
    .filter((instance) => instance.power === "on" || hasProcess(state.get(instancesObserved, instance.id)))
    .flatMap((instance) => state.lookup(networkInterfaces, "byInstance", instance.id))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

/**
 * The part of the flows' input that the tables decide.
 * @param ofports the OpenFlow number of each local interface; one without is left out
 * @param routed the VPCs that the host reaches by private addresses
 */
export function flowInput(
  state: Reader,
  local: readonly NetworkInterfaceRecord[],
  ofports: ReadonlyMap<string, number>,
  routed: ReadonlySet<string>,
): Pick<FlowInput, "ports" | "vpcs" | "subnets" | "neighbours" | "policies"> {
  const placed = local.filter((eni) => ofports.has(eni.id));
  const homes = vpcsOf(state, placed);
  const keys = new Map(homes.map((vpc) => [vpc.id as string, vpc.networkKey]));
  const ports = placed.flatMap((eni) => guestPort(state, eni, ofports.get(eni.id)!, keys));
  return {
    ports,
    vpcs: homes.map((vpc) => ({ key: vpc.networkKey, cidr: vpc.cidrBlock, routed: routed.has(vpc.id) })),
    subnets: subnetRoutes(state, placed, ofports, keys),
    neighbours: homes.flatMap((vpc) =>
      state
        .lookup(networkInterfaces, "byVpc", vpc.id)
        .flatMap((eni) => eni.privateIpAddresses.map(({ address }) => ({ vpcKey: vpc.networkKey, address }))),
    ),
    policies: groupPolicies(state, placed, ofports),
  };
}

/** The VPCs of these interfaces: default ones first, then by networkKey, which is the order of their age. */
export function vpcsOf(state: Reader, enis: readonly NetworkInterfaceRecord[]): readonly VpcRecord[] {
  return [...new Set(enis.map((eni) => eni.vpcId))]
    .flatMap((id) => state.get(vpcs, id) ?? [])
    .sort((a, b) => Number(b.isDefault) - Number(a.isDefault) || a.networkKey - b.networkKey);
}

function guestPort(
  state: Reader,
  eni: NetworkInterfaceRecord,
  ofport: number,
  keys: ReadonlyMap<string, number>,
): GuestPort[] {
  const subnet = state.get(subnets, eni.subnetId);
  const vpcKey = keys.get(eni.vpcId);
  if (!subnet || vpcKey === undefined) return [];
  const cidr = trustedCidr(subnet.cidrBlock);
  return [
    {
      ofport,
      mac: eni.macAddress,
      vpcKey,
      subnet: formatIpv4(cidr.base),
      router: formatIpv4(routerOf(cidr)),
      addresses: [...eni.privateIpAddresses]
        .sort((a, b) => Number(b.primary) - Number(a.primary))
        .map((a) => a.address),
      sourceDestCheck: eni.sourceDestCheck,
      ...(eni.publicIp === undefined ? {} : { publicIp: eni.publicIp }),
    },
  ];
}

function subnetRoutes(
  state: Reader,
  local: readonly NetworkInterfaceRecord[],
  ofports: ReadonlyMap<string, number>,
  keys: ReadonlyMap<string, number>,
): SubnetRoutes[] {
  const macs = new Map(local.map((eni) => [eni.id as string, eni.macAddress]));
  return [...new Set(local.map((eni) => eni.subnetId))].sort().flatMap((id) => {
    const subnet = state.get(subnets, id);
    const vpcKey = subnet && keys.get(subnet.vpcId);
    const table = subnet && routeTableOf(state.lookup(routeTables, "byVpc", subnet.vpcId), id);
    if (!subnet || vpcKey === undefined || !table) return [];
    const target = (route: RouteTableRecord["routes"][number]): RouteTarget => {
      switch (route.target.kind) {
        case "internet-gateway":
          return state.get(internetGateways, route.target.id)?.vpcId === subnet.vpcId
            ? { kind: "internet" }
            : { kind: "blackhole" };
        case "network-interface": {
          const ofport = ofports.get(route.target.id);
          const mac = macs.get(route.target.id);
          return ofport !== undefined && mac ? { kind: "port", ofport, mac } : { kind: "blackhole" };
        }
        case "local":
          return { kind: "blackhole" };
      }
    };
    const routes = table.routes
      .filter((route) => route.target.kind !== "local")
      .flatMap((route) => {
        const cidr = parseCidr(route.destinationCidrBlock);
        return cidr.ok
          ? [
              {
                cidr: `${formatIpv4(cidr.value.base)}/${cidr.value.prefix}`,
                prefix: cidr.value.prefix,
                target: target(route),
              },
            ]
          : [];
      });
    return [{ vpcKey, subnet: formatIpv4(trustedCidr(subnet.cidrBlock).base), routes }];
  });
}

/** The table that a subnet is associated with, else the VPC's main one. */
export const routeTableOf = (tables: readonly RouteTableRecord[], subnetId: string): RouteTableRecord | undefined =>
  tables.find((table) => table.associations.some((a) => a.subnetId === subnetId)) ??
  tables.find((table) => table.associations.some((a) => a.main));

function groupPolicies(
  state: Reader,
  local: readonly NetworkInterfaceRecord[],
  ofports: ReadonlyMap<string, number>,
): GroupPolicy[] {
  const ports = new Map<string, number[]>();
  const vpcOf = new Map<string, string>();
  for (const eni of local) {
    for (const group of eni.groupIds) {
      ports.set(group, [...(ports.get(group) ?? []), ofports.get(eni.id)!]);
      vpcOf.set(group, eni.vpcId);
    }
  }
  const members = new Map<string, readonly string[]>();
  const blocks = (peer: SecurityGroupRuleRecord["peer"], vpcId: string): PeerSet | undefined => {
    switch (peer.kind) {
      case "ipv4":
        return { key: peer.cidr, blocks: [canonical(peer.cidr)] };
      case "group": {
        const key = `${peer.groupId}`;
        const found =
          members.get(key) ??
          state
            .lookup(networkInterfaces, "byGroup", peer.groupId)
            .filter((eni) => eni.vpcId === vpcId)
            .flatMap((eni) => eni.privateIpAddresses.map((a) => a.address));
        members.set(key, found);
        return { key, blocks: found };
      }
      case "ipv6":
      case "prefix-list":
        return undefined;
    }
  };
  return [...ports.keys()].sort().map((groupId) => ({
    groupId,
    ports: ports.get(groupId)!,
    rules: state.lookup(securityGroupRules, "byGroup", groupId).flatMap((rule) => {
      const peer = blocks(rule.peer, vpcOf.get(groupId)!);
      return peer ? [{ ...rule, peer }] : [];
    }),
  }));
}

/** Without host bits, and a single address without its `/32`, as ovs-ofctl prints it: the same match is the same text. */
function canonical(cidr: string): string {
  const parsed = trustedCidr(cidr);
  const base = formatIpv4(parsed.base);
  return parsed.prefix === 32 ? base : `${base}/${parsed.prefix}`;
}
