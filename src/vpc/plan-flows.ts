/**
 * The life of a packet on a node's bridge, as OpenFlow 1.3 with Open vSwitch's extensions. Guests are hostile: a frame enters only
 * as what its port may send, and a guest never sees another's MAC, a broadcast, or a reply that it did not ask for.
 *
 *   table         what it decides                                                          goes on to
 *   ADMISSION  0  by port: MAC, address and ARP are the port's own (anti-spoofing)         ARP, EGRESS by conntrack
 *                 DHCP and metadata leave here, before the security groups                 (out of the metadata port)
 *                 answers of the metadata and DHCP servers                                 (out of the guest's port)
 *                 from the host's gateway port: sources it cannot have are dropped         FROM_HOST
 *   FROM_HOST  5  public address → private (1:1 NAT), or a private one as it is            LOCAL
 *   ARP       10  the router and every known address of the VPC                            ANSWER
 *   ANSWER    15  turns a request into the router's reply                                  (back)
 *   EGRESS    20  security groups of the source port; commits new connections              ROUTE
 *   ROUTE     30  VPC's own block, then the subnet's route table, longest prefix           LOCAL, GATEWAY, INGRESS
 *   GATEWAY   40  internet gateway: private address → its public one (1:1 NAT)             INTERNET
 *   INTERNET  50  public address of a guest here, else the host                            LOCAL (hairpin)
 *   LOCAL     60  (VPC, address) → port, MAC                                               INGRESS by conntrack
 *   INGRESS   70  security groups of the destination port                                  COMMIT, OUTPUT
 *   COMMIT    75  remembers the new connection                                             OUTPUT
 *   OUTPUT    80  out of the port in DESTINATION
 *
 *   reg0 VPC    networkKey: tells equal addresses of two VPCs apart
 *   reg1 SOURCE, reg3 DESTINATION  OpenFlow port numbers of this bridge; also the ports' conntrack zones
 *   reg2 SUBNET its network address: which route table applies
 *   reg5 DIRECT 1 when the host came in by a private address, so that the reply must not be translated
 *   reg6        scratch, in ANSWER
 *
 * Tracking is per port, as AWS's is per interface: a connection between two guests is in both zones. One zone a VPC would save
 * a lookup, but a guest that routes (sourceDestCheck off) would then carry packets past the last hop's groups, since the first
 * hop had made them "established".
 * A connection that is tracked goes on when its rule is revoked, until it ends or idles out: AWS documents the same
 * ("Security group connection tracking"). New ones are refused from the moment the bundle is in.
 *
 * The 1:1 NAT is stateless (it survives a restart of ovs-vswitchd), so the inner header of ICMP errors is not translated: the
 * host clamps TCP's segment size instead (host/net). TTL: decremented only where a packet leaves to or through the host.
 */
import {
  GATEWAY_MAC,
  METADATA_ADDRESS,
  METADATA_MAC,
  metadataAddress,
  ROUTER_MAC,
  unconfiguredMetadataAddress,
} from "../model/network-names.ts";
import { type GroupPolicy, planSecurityGroups } from "./plan-security-groups.ts";

export interface Flow {
  readonly table: number;
  readonly priority: number;
  /** As ovs-ofctl writes it; may be empty. Table, priority and match together are a flow's identity. */
  readonly match: string;
  readonly actions: string;
}

export const TABLE = {
  ADMISSION: 0,
  FROM_HOST: 5,
  ARP: 10,
  ANSWER: 15,
  EGRESS: 20,
  ROUTE: 30,
  GATEWAY: 40,
  INTERNET: 50,
  LOCAL: 60,
  INGRESS: 70,
  COMMIT: 75,
  OUTPUT: 80,
} as const;

/** OpenFlow numbers of the internal ports; guests' begin at GUEST_PORT_FIRST. */
export const METADATA_OFPORT = 1;
export const GATEWAY_OFPORT = 2;

/** A guest's port on this node. Addresses are dotted quads. */
export interface GuestPort {
  readonly ofport: number;
  readonly mac: string;
  readonly vpcKey: number;
  /** Network address and router of its subnet. */
  readonly subnet: string;
  readonly router: string;
  /** The first is the primary. */
  readonly addresses: readonly string[];
  readonly publicIp?: string;
  readonly sourceDestCheck: boolean;
}

export interface FlowInput {
  readonly ports: readonly GuestPort[];
  /** `routed`: the host reaches this block by its private addresses. */
  readonly vpcs: readonly { readonly key: number; readonly cidr: string; readonly routed: boolean }[];
  readonly subnets: readonly SubnetRoutes[];
  /** Every address that a guest may resolve, its own node's or not. */
  readonly neighbours: readonly { readonly vpcKey: number; readonly address: string }[];
  readonly policies: readonly GroupPolicy[];
  readonly publicPool: string;
  /** The host's own address in the public pool. */
  readonly gateway: string;
  readonly metadataPool: string;
}
export interface SubnetRoutes {
  readonly vpcKey: number;
  readonly subnet: string;
  readonly routes: readonly { readonly cidr: string; readonly prefix: number; readonly target: RouteTarget }[];
}
export type RouteTarget =
  | { readonly kind: "internet" }
  | { readonly kind: "port"; readonly ofport: number; readonly mac: string }
  | { readonly kind: "blackhole" };

const hex = (value: number): string => `0x${value.toString(16)}`;
const load = (value: number, register: 0 | 1 | 3 | 5): string => `set_field:${hex(value)}->reg${register}`;
const goto = (table: number): string => `goto_table:${table}`;
const flow = (table: number, priority: number, match: string, ...actions: string[]): Flow => ({
  table,
  priority,
  match,
  actions: actions.join(","),
});
const OUT_OF_GATEWAY = [
  `set_field:${ROUTER_MAC}->eth_src`,
  `set_field:${GATEWAY_MAC}->eth_dst`,
  `output:${GATEWAY_OFPORT}`,
] as const;
const LINK_LOCAL = "169.254.0.0/16";

/** Every flow of the bridge, in a stable order and each match once. Pure. */
export function planFlows(input: FlowInput): Flow[] {
  const flows = [
    ...input.ports.flatMap((port) => admission(port, input)),
    ...fromHost(input),
    ...addressResolution(input),
    ...tracked(TABLE.EGRESS, goto(TABLE.ROUTE)),
    ...planSecurityGroups(input.policies, {
      name: "egress",
      table: TABLE.EGRESS,
      portField: "reg1",
      peerField: "nw_dst",
      allow: `ct(commit,zone=NXM_NX_REG1[0..15]),${goto(TABLE.ROUTE)}`,
    }),
    ...routing(input),
    ...internet(input),
    ...delivery(input),
    ...tracked(TABLE.INGRESS, goto(TABLE.OUTPUT)),
    ...planSecurityGroups(input.policies, {
      name: "ingress",
      table: TABLE.INGRESS,
      portField: "reg3",
      peerField: "nw_src",
      allow: goto(TABLE.COMMIT),
    }),
    flow(
      TABLE.COMMIT,
      100,
      "ip,reg5=0x1",
      "ct(commit,zone=NXM_NX_REG3[0..15],exec(set_field:1->ct_mark))",
      goto(TABLE.OUTPUT),
    ),
    flow(TABLE.COMMIT, 50, "ip", "ct(commit,zone=NXM_NX_REG3[0..15])", goto(TABLE.OUTPUT)),
    // A guest may reach itself by its public address; a switch does not send out of the port of arrival, unless it forgets it.
    flow(TABLE.OUTPUT, 100, "ip", "set_field:0->in_port", "output:NXM_NX_REG3[0..15]"),
    ...Object.values(TABLE).map((table) => flow(table, 0, "", "drop")),
  ];
  return flows.sort(order);
}

const order = (a: Flow, b: Flow): number =>
  a.table - b.table || b.priority - a.priority || (a.match < b.match ? -1 : a.match > b.match ? 1 : 0);

/** What one guest may send, and what the node's servers answer to it. */
function admission(port: GuestPort, { metadataPool }: FlowInput): Flow[] {
  const from = `in_port=${port.ofport},dl_src=${port.mac}`;
  const known = [load(port.vpcKey, 0), load(port.ofport, 1), `set_field:${addressHex(port.subnet)}->reg2`];
  const primary = port.addresses[0]!;
  const seenAs = metadataAddress(metadataPool, port.ofport);
  const seenUnconfigured = unconfiguredMetadataAddress(metadataPool, port.ofport);
  const toServer = (source: string) => [
    `set_field:${source}->ip_src`,
    `set_field:${METADATA_ADDRESS}->ip_dst`,
    `set_field:${METADATA_MAC}->eth_dst`,
    `output:${METADATA_OFPORT}`,
  ];
  const fromServer = (source: string, destination: string) => [
    `set_field:${source}->ip_src`,
    `set_field:${destination}->ip_dst`,
    `set_field:${ROUTER_MAC}->eth_src`,
    `set_field:${port.mac}->eth_dst`,
    `output:${port.ofport}`,
  ];
  const server = `in_port=${METADATA_OFPORT},nw_src=${METADATA_ADDRESS}`;
  const sources = port.sourceDestCheck ? port.addresses.map((address) => `,nw_src=${address}`) : [""];
  const asks = `arp,${from},arp_op=1,arp_sha=${port.mac}`;
  const track = `ct(table=${TABLE.EGRESS},zone=${port.ofport})`;
  return [
    // Who asks for its own address looks for a second owner: there is none, so there's no answer.
    ...port.addresses.map((address) => flow(0, 210, `${asks},arp_tpa=${address}`, "drop")),
    // Who routes for others may ask in their name; the answer tells nothing but the router's MAC.
    ...(port.sourceDestCheck ? port.addresses.map((address) => `,arp_spa=${address}`) : [""]).map((sender) =>
      flow(0, 200, `${asks}${sender}`, ...known, goto(TABLE.ARP)),
    ),
    flow(0, 200, `udp,${from},nw_src=0.0.0.0,tp_src=68,tp_dst=67`, ...toServer(seenUnconfigured)),
    flow(0, 200, `udp,${from},nw_src=${primary},tp_src=68,tp_dst=67`, ...toServer(seenAs)),
    flow(0, 200, `tcp,${from},nw_src=${primary},nw_dst=${METADATA_ADDRESS},tp_dst=80`, ...toServer(seenAs)),
    ...sources.map((source) => flow(0, 100, `ip,${from},dl_dst=${ROUTER_MAC}${source}`, ...known, track)),
    // A client without an address hears only a broadcast for certain; one with an address may listen to nothing else.
    flow(0, 200, `udp,${server},nw_dst=${seenUnconfigured},tp_src=67`, ...fromServer(port.router, "255.255.255.255")),
    flow(0, 200, `udp,${server},nw_dst=${seenAs},tp_src=67`, ...fromServer(port.router, primary)),
    flow(0, 200, `tcp,${server},nw_dst=${seenAs},tp_src=80`, ...fromServer(METADATA_ADDRESS, primary)),
  ];
}

/** What the host may send to guests. */
function fromHost({ ports, vpcs, publicPool, gateway, metadataPool }: FlowInput): Flow[] {
  const host = `in_port=${GATEWAY_OFPORT}`;
  const asks = (port: number, cidr: string) =>
    flow(0, 200, `arp,in_port=${port},arp_op=1,arp_tpa=${cidr}`, goto(TABLE.ANSWER));
  return [
    asks(METADATA_OFPORT, metadataPool),
    asks(GATEWAY_OFPORT, publicPool),
    flow(0, 200, `ip,${host},nw_src=${gateway}`, goto(TABLE.FROM_HOST)),
    flow(0, 190, `ip,${host},nw_src=${publicPool}`, "drop"),
    flow(0, 100, `ip,${host}`, goto(TABLE.FROM_HOST)),
    ...ports.flatMap(({ publicIp, vpcKey, addresses }) =>
      publicIp
        ? [
            flow(
              TABLE.FROM_HOST,
              200,
              `ip,nw_dst=${publicIp}`,
              `set_field:${addresses[0]}->ip_dst`,
              load(vpcKey, 0),
              goto(TABLE.LOCAL),
            ),
          ]
        : [],
    ),
    ...vpcs.flatMap(({ key, cidr, routed }) => [
      ...(routed
        ? [
            asks(GATEWAY_OFPORT, cidr),
            flow(TABLE.FROM_HOST, 100, `ip,nw_dst=${cidr}`, load(key, 0), load(1, 5), goto(TABLE.LOCAL)),
          ]
        : []),
      // From outside, nobody has an address of the VPC: rules that refer to a group may trust it.
      flow(TABLE.LOCAL, 200, `ip,${host},reg0=${hex(key)},nw_src=${cidr}`, "drop"),
    ]),
  ];
}

function addressResolution({ ports, neighbours }: FlowInput): Flow[] {
  const routers = new Map(ports.map((port) => [`${port.vpcKey}/${port.router}`, port]));
  const known = [
    ...[...routers.values()].map((port) => ({ vpcKey: port.vpcKey, address: port.router })),
    ...neighbours.filter(({ vpcKey, address }) => !routers.has(`${vpcKey}/${address}`)),
  ];
  return [
    ...known.map(({ vpcKey, address }) =>
      flow(TABLE.ARP, 100, `arp,reg0=${hex(vpcKey)},arp_tpa=${address}`, goto(TABLE.ANSWER)),
    ),
    // Some images keep a route to the metadata address on the link.
    flow(TABLE.ARP, 100, `arp,arp_tpa=${METADATA_ADDRESS}`, goto(TABLE.ANSWER)),
    flow(
      TABLE.ANSWER,
      100,
      "arp,arp_op=1",
      "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]",
      `set_field:${ROUTER_MAC}->eth_src`,
      "set_field:2->arp_op",
      "move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[]",
      `set_field:${ROUTER_MAC}->arp_sha`,
      "move:NXM_OF_ARP_TPA[]->NXM_NX_REG6[]",
      "move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[]",
      "move:NXM_NX_REG6[]->NXM_OF_ARP_SPA[]",
      "in_port",
    ),
  ];
}

/** What comes before the rules in both tables of groups: packets of connections that are let through already. */
const tracked = (table: number, on: string): Flow[] => [
  flow(table, 1000, "ct_state=+inv+trk,ip", "drop"),
  flow(table, 900, "ct_state=+est+trk,ip", on),
  flow(table, 900, "ct_state=+rel+trk,ip", on),
];

function routing({ vpcs, subnets }: FlowInput): Flow[] {
  return [
    ...[LINK_LOCAL, "224.0.0.0/4", "240.0.0.0/4"].map((block) => flow(TABLE.ROUTE, 400, `ip,nw_dst=${block}`, "drop")),
    ...vpcs.map(({ key, cidr }) => flow(TABLE.ROUTE, 300, `ip,reg0=${hex(key)},nw_dst=${cidr}`, goto(TABLE.LOCAL))),
    flow(TABLE.ROUTE, 250, "ct_state=+rpl+trk,ct_mark=0x1,ip", ...OUT_OF_GATEWAY),
    ...subnets.flatMap(({ vpcKey, subnet, routes }) =>
      routes.map(({ cidr, prefix, target }) =>
        flow(
          TABLE.ROUTE,
          100 + prefix,
          `ip,reg0=${hex(vpcKey)},reg2=${addressHex(subnet)}${prefix === 0 ? "" : `,nw_dst=${cidr}`}`,
          ...towards(target),
        ),
      ),
    ),
  ];
}

function towards(target: RouteTarget): string[] {
  switch (target.kind) {
    case "internet":
      return [goto(TABLE.GATEWAY)];
    case "port":
      return deliverTo(target.ofport, target.mac);
    case "blackhole":
      return ["drop"];
  }
}

const deliverTo = (ofport: number, mac: string): string[] => [
  load(ofport, 3),
  `set_field:${ROUTER_MAC}->eth_src`,
  `set_field:${mac}->eth_dst`,
  `ct(table=${TABLE.INGRESS},zone=${ofport})`,
];

function internet({ ports, publicPool, gateway, metadataPool }: FlowInput): Flow[] {
  const out = ["dec_ttl", ...OUT_OF_GATEWAY];
  return [
    ...ports.flatMap(({ publicIp, vpcKey, addresses }) =>
      publicIp
        ? [
            flow(
              TABLE.GATEWAY,
              100,
              `ip,reg0=${hex(vpcKey)},nw_src=${addresses[0]}`,
              `set_field:${publicIp}->ip_src`,
              goto(TABLE.INTERNET),
            ),
            flow(
              TABLE.INTERNET,
              200,
              `ip,nw_dst=${publicIp}`,
              `set_field:${addresses[0]}->ip_dst`,
              load(vpcKey, 0),
              goto(TABLE.LOCAL),
            ),
          ]
        : [],
    ),
    flow(TABLE.INTERNET, 200, `ip,nw_dst=${gateway}`, ...out),
    flow(TABLE.INTERNET, 100, `ip,nw_dst=${publicPool}`, "drop"),
    flow(TABLE.INTERNET, 100, `ip,nw_dst=${metadataPool}`, "drop"),
    flow(TABLE.INTERNET, 50, "ip", ...out),
  ];
}

const delivery = ({ ports }: FlowInput): Flow[] =>
  ports.flatMap((port) =>
    port.addresses.map((address) =>
      flow(TABLE.LOCAL, 100, `ip,reg0=${hex(port.vpcKey)},nw_dst=${address}`, ...deliverTo(port.ofport, port.mac)),
    ),
  );

const addressHex = (address: string): string =>
  hex(address.split(".").reduce((value, octet) => value * 256 + Number(octet), 0));
