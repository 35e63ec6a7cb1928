/**
 * What a node's network should be, from one snapshot of the tables and what was seen of the host: bridge, ports, addresses,
 * routes, NAT, flows. Pure, and in a stable order: the same input gives the same text.
 */
import { assert } from "../lib/assert.ts";
import type { Config } from "../model/config.ts";
import type { NetworkInterfaceId } from "../model/ids.ts";
import { formatCidr, formatIpv4, overlaps, sizeOf, trustedCidr } from "../model/ipv4.ts";
import {
  GATEWAY_MAC,
  gatewayPort,
  METADATA_ADDRESS,
  METADATA_MAC,
  metadataAddress,
  metadataPort,
  tapName,
  unconfiguredMetadataAddress,
} from "../model/network-names.ts";
import type { Reader } from "../model/store.ts";
import { type Flow, GATEWAY_OFPORT, METADATA_OFPORT, planFlows } from "./plan-flows.ts";
import { flowInput, localInterfaces, vpcsOf } from "./plan-ports.ts";

/** What is there, as far as a plan depends on it. */
export interface ObservedNetwork {
  /** Ports of the bridge by device name. */
  readonly ports: ReadonlyMap<string, ObservedPort>;
  /** The number from which the next new port is to be numbered, as the bridge remembers it. */
  readonly nextOfport: number | undefined;
  /** Blocks that the host has routes to by devices other than the bridge's own; a default route isn't among them. */
  readonly hostRoutes: readonly string[];
}
export interface ObservedPort {
  /** What was asked for, and what Open vSwitch gave; -1 for a device that is not there. */
  readonly ofportRequest: number | undefined;
  readonly ofport: number | undefined;
  /** The interface that the port was made for. */
  readonly interfaceId: string | undefined;
}

export interface DesiredNetwork {
  readonly bridge: string;
  /** `auto`: the kernel's where its module is there, else userspace. */
  readonly datapath: "auto" | "system" | "netdev";
  readonly ports: readonly DesiredPort[];
  readonly nextOfport: number;
  readonly devices: readonly DesiredDevice[];
  readonly nat: DesiredNat;
  readonly flows: readonly Flow[];
  /** Metadata addresses of the local interfaces. */
  readonly directory: ReadonlyMap<string, NetworkInterfaceId>;
  /** What could not be as wanted, each a sentence for an operator. */
  readonly notes: readonly string[];
}
export interface DesiredPort {
  readonly name: string;
  readonly ofport: number;
  readonly kind: "internal" | "tap";
  readonly mac?: string;
  readonly interfaceId?: NetworkInterfaceId;
}
/** Addresses and routes of an internal port; it has no others. */
export interface DesiredDevice {
  readonly name: string;
  /** With prefix length. */
  readonly addresses: readonly string[];
  readonly routes: readonly { readonly cidr: string; readonly source: string }[];
}
export interface DesiredNat {
  readonly gatewayDevice: string;
  readonly publicPool: string;
  readonly masquerade: boolean;
}

export const GUEST_OFPORT_FIRST = 16;

/** Plans one node's network. Pure. */
export function planNetwork(
  state: Reader,
  nodeId: string,
  config: Config["network"],
  observed: ObservedNetwork,
): DesiredNetwork {
  const { bridge, publicPool, metadataPool } = config;
  const pool = trustedCidr(publicPool);
  const gateway = formatIpv4(pool.base + 1);
  const local = localInterfaces(state, nodeId);
  const numbers = numberPorts(local, observed, sizeOf(trustedCidr(metadataPool)) / 2 - 1);

  const notes: string[] = [];
  const foreign = observed.hostRoutes.map(trustedCidr);
  const routed: { readonly id: string; readonly cidr: string }[] = [];
  for (const vpc of vpcsOf(state, local)) {
    const cidr = trustedCidr(vpc.cidrBlock);
    const clash = [...foreign, pool, trustedCidr(metadataPool), ...routed.map((r) => trustedCidr(r.cidr))].find(
      (other) => overlaps(other, cidr),
    );
    if (!clash) routed.push({ id: vpc.id, cidr: vpc.cidrBlock });
    else
      notes.push(
        `the host cannot reach ${vpc.id} by private addresses: ${vpc.cidrBlock} overlaps ${formatCidr(clash)}`,
      );
  }
  const taken = foreign.find((other) => overlaps(other, pool));
  if (taken)
    notes.push(
      `the public pool ${publicPool} overlaps the host's route to ${formatCidr(taken)}: set network.publicPool`,
    );

  return {
    bridge,
    datapath: config.datapath,
    ports: [
      { name: metadataPort(bridge), ofport: METADATA_OFPORT, kind: "internal", mac: METADATA_MAC },
      { name: gatewayPort(bridge), ofport: GATEWAY_OFPORT, kind: "internal", mac: GATEWAY_MAC },
      ...local.flatMap((eni): DesiredPort[] => {
        const ofport = numbers.requests.get(eni.id);
        return ofport === undefined ? [] : [{ name: tapName(eni.id), ofport, kind: "tap", interfaceId: eni.id }];
      }),
    ],
    nextOfport: numbers.next,
    devices: [
      {
        name: metadataPort(bridge),
        addresses: [`${METADATA_ADDRESS}/32`],
        routes: [{ cidr: metadataPool, source: METADATA_ADDRESS }],
      },
      {
        name: gatewayPort(bridge),
        addresses: [`${gateway}/${pool.prefix}`],
        routes: routed.map(({ cidr }) => ({ cidr, source: gateway })),
      },
    ],
    nat: { gatewayDevice: gatewayPort(bridge), publicPool, masquerade: config.masquerade },
    flows: planFlows({
      ...flowInput(state, local, numbers.actual, new Set(routed.map((r) => r.id))),
      publicPool,
      gateway,
      metadataPool,
    }),
    directory: new Map(
      local.flatMap((eni): [string, NetworkInterfaceId][] => {
        const ofport = numbers.actual.get(eni.id);
        if (ofport === undefined) return [];
        return [
          [metadataAddress(metadataPool, ofport), eni.id],
          [unconfiguredMetadataAddress(metadataPool, ofport), eni.id],
        ];
      }),
    ),
    notes,
  };
}

/**
 * A number for each interface: the one that it has, else the next that no port has and, until all have been used, none had: the
 * number is also its conntrack zone, where connections of an earlier port may linger.
 */
function numberPorts(
  local: readonly { readonly id: NetworkInterfaceId }[],
  observed: ObservedNetwork,
  last: number,
): { requests: Map<string, number>; actual: Map<string, number>; next: number } {
  assert(last > GUEST_OFPORT_FIRST, "the metadata pool has room for ports");
  const requests = new Map<string, number>();
  const actual = new Map<string, number>();
  const used = new Set<number>();
  for (const port of observed.ports.values()) {
    for (const n of [port.ofport, port.ofportRequest]) if (n !== undefined) used.add(n);
  }
  for (const { id } of local) {
    const seen = observed.ports.get(tapName(id));
    if (seen?.interfaceId !== id || seen.ofportRequest === undefined) continue;
    requests.set(id, seen.ofportRequest);
    // What was given counts, but a device that is not there yet is expected to get what was asked for.
    const given =
      seen.ofport !== undefined && seen.ofport > 0 && seen.ofport <= last ? seen.ofport : seen.ofportRequest;
    actual.set(id, given);
  }
  let next = Math.max(observed.nextOfport ?? GUEST_OFPORT_FIRST, GUEST_OFPORT_FIRST);
  for (const { id } of local) {
    if (requests.has(id)) continue;
    for (let tries = 0; tries <= last && (next > last || used.has(next)); tries++) {
      next = next >= last ? GUEST_OFPORT_FIRST : next + 1;
    }
    if (next > last || used.has(next)) continue;
    used.add(next);
    requests.set(id, next);
    actual.set(id, next);
    next++;
  }
  return { requests, actual, next };
}
