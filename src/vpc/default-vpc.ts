/**
 * The VPC that every account starts with, as AWS makes it: 172.31.0.0/16, one public subnet in each zone, an internet
 * gateway, a main route table that leads there, the default security group and network ACL, and DHCP options.
 * https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc-components.html
 */
import { assert } from "../lib/assert.ts";
import type { Random } from "../lib/random.ts";
import { fail, ok } from "../lib/result.ts";
import { zonesOf } from "../model/config.ts";
import { internalDomain } from "../model/dns-names.ts";
import { awsError } from "../model/errors.ts";
import { type AccountId, newId } from "../model/ids.ts";
import { type Cidr, formatIpv4, trustedCidr } from "../model/ipv4.ts";
import type {
  DhcpOptionsRecord,
  InternetGatewayRecord,
  NetworkAclRecord,
  RouteTableRecord,
  SecurityGroupRecord,
  SecurityGroupRuleRecord,
  SubnetRecord,
  VpcRecord,
} from "../model/network.ts";
import type { Mutation } from "../model/operation.ts";
import { put, type Reader, type Write } from "../model/store.ts";
import {
  dhcpOptions,
  internetGateways,
  networkAcls,
  routeTables,
  securityGroupRules,
  securityGroups,
  subnets,
  vpcs,
} from "../model/tables.ts";
import type { CreateDefaultVpcRequest, CreateDefaultVpcResult } from "../schema/ec2/types.ts";
import { allOwned, defaultVpcOf } from "./owned.ts";
import { viewVpc } from "./vpcs.ts";

export const DEFAULT_VPC_CIDR = "172.31.0.0/16";
/** The closing entry of every network ACL, shown as `*` in AWS's console. */
export const CLOSING_RULE_NUMBER = 32767;
/** Network keys are 16 bits: they have to fit a conntrack zone. */
export const NETWORK_KEY_MAX = 65535;

/** The lowest network key that no VPC of the cluster has; undefined when all are taken. */
export function freeNetworkKey(state: Reader): number | undefined {
  for (let key = 1; key <= NETWORK_KEY_MAX; key++)
    if (state.countOf(vpcs, "byNetworkKey", String(key)) === 0) return key;
  return undefined;
}

/** Who a new resource belongs to. */
interface Maker {
  readonly accountId: AccountId;
  readonly region: string;
  readonly now: number;
  readonly random: Random;
}
const stamp = ({ accountId, region, now }: Maker) => ({ accountId, region, createdAt: now });

/** DHCP options as a new account has them; an equal set that is there already serves every VPC. */
export function defaultDhcpOptions(state: Reader, maker: Maker): { record: DhcpOptionsRecord; writes: Write[] } {
  const options = [
    { key: "domain-name", values: [internalDomain(maker.region)] },
    { key: "domain-name-servers", values: ["AmazonProvidedDNS"] },
  ];
  const wanted = JSON.stringify(options);
  const present = allOwned({ ...maker, state }, dhcpOptions).find((set) => JSON.stringify(set.options) === wanted);
  if (present) return { record: present, writes: [] };
  const record: DhcpOptionsRecord = { ...stamp(maker), id: newId("DhcpOptions", maker.random), options };
  return { record, writes: [put(dhcpOptions, record)] };
}

/** The group that comes with a VPC: its members reach each other and everything else; nobody else reaches them. */
export function defaultSecurityGroup(vpc: VpcRecord, maker: Maker): Write[] {
  const { accountId, region, random } = maker;
  const group: SecurityGroupRecord = {
    ...stamp(maker),
    id: newId("SecurityGroup", random),
    vpcId: vpc.id,
    name: "default",
    description: "default VPC security group",
  };
  const members: SecurityGroupRuleRecord = {
    id: newId("SecurityGroupRule", random),
    accountId,
    region,
    groupId: group.id,
    egress: false,
    protocol: "-1",
    fromPort: -1,
    toPort: -1,
    peer: { kind: "group", groupId: group.id, accountId },
  };
  return [
    put(securityGroups, group),
    put(securityGroupRules, members),
    put(securityGroupRules, allowAllEgress(group, random)),
  ];
}

/** What every new group starts with: all traffic out. */
export const allowAllEgress = (group: SecurityGroupRecord, random: Random): SecurityGroupRuleRecord => ({
  id: newId("SecurityGroupRule", random),
  accountId: group.accountId,
  region: group.region,
  groupId: group.id,
  egress: true,
  protocol: "-1",
  fromPort: -1,
  toPort: -1,
  peer: { kind: "ipv4", cidr: "0.0.0.0/0" },
});

/** The ACL that comes with a VPC: everything is allowed both ways. */
export function defaultNetworkAcl(vpc: VpcRecord, members: readonly SubnetRecord[], maker: Maker): NetworkAclRecord {
  const entry = (egress: boolean, ruleNumber: number, action: "allow" | "deny") =>
    ({ ruleNumber, protocol: "-1", action, egress, cidrBlock: "0.0.0.0/0" }) as const;
  return {
    ...stamp(maker),
    id: newId("NetworkAcl", maker.random),
    vpcId: vpc.id,
    isDefault: true,
    entries: [true, false].flatMap((egress) => [
      entry(egress, 100, "allow"),
      entry(egress, CLOSING_RULE_NUMBER, "deny"),
    ]),
    associations: members.map((subnet) => ({
      id: newId("NetworkAclAssociation", maker.random),
      subnetId: subnet.id,
    })),
  };
}

/**
 * The writes that give an account its default VPC in a region; none when it has one.
 * @param zones names of the region's zones, at most 32: one default subnet each
 * @throws BrokenInvariant when 65535 VPCs exist
 */
export function decideDefaultVpc(
  state: Reader,
  accountId: AccountId,
  region: string,
  zones: readonly string[],
  random: Random,
  now: number,
): Write[] {
  if (defaultVpcOf({ accountId, region, state })) return [];
  const maker: Maker = { accountId, region, random, now };
  const networkKey = freeNetworkKey(state);
  assert(networkKey !== undefined, "a network key is free for the default VPC");

  const dhcp = defaultDhcpOptions(state, maker);
  const vpc: VpcRecord = {
    ...stamp(maker),
    id: newId("Vpc", random),
    cidrBlock: DEFAULT_VPC_CIDR,
    cidrAssociationId: newId("VpcCidrAssociation", random),
    isDefault: true,
    instanceTenancy: "default",
    enableDnsSupport: true,
    enableDnsHostnames: true,
    dhcpOptionsId: dhcp.record.id,
    networkKey,
  };
  const gateway: InternetGatewayRecord = {
    ...stamp(maker),
    id: newId("InternetGateway", random),
    vpcId: vpc.id,
  };
  const routes: RouteTableRecord = {
    ...stamp(maker),
    id: newId("RouteTable", random),
    vpcId: vpc.id,
    routes: [
      { destinationCidrBlock: vpc.cidrBlock, target: { kind: "local" }, origin: "CreateRouteTable" },
      {
        destinationCidrBlock: "0.0.0.0/0",
        target: { kind: "internet-gateway", id: gateway.id },
        origin: "CreateRoute",
      },
    ],
    associations: [{ id: newId("RouteTableAssociation", random), main: true }],
  };
  const members = defaultSubnetBlocks(trustedCidr(vpc.cidrBlock), zones.length).map(
    (cidrBlock, i): SubnetRecord => ({
      ...stamp(maker),
      id: newId("Subnet", random),
      vpcId: vpc.id,
      zone: zones[i]!,
      cidrBlock,
      defaultForAz: true,
      mapPublicIpOnLaunch: true,
    }),
  );
  return [
    ...dhcp.writes,
    put(vpcs, vpc),
    put(internetGateways, gateway),
    put(routeTables, routes),
    ...members.map((subnet) => put(subnets, subnet)),
    put(networkAcls, defaultNetworkAcl(vpc, members, maker)),
    ...defaultSecurityGroup(vpc, maker),
  ];
}

/** One block a zone: /20 as on AWS, or /21 where more than 16 zones share the VPC. */
function defaultSubnetBlocks(vpc: Cidr, count: number): string[] {
  assert(count <= 32, "a region has at most 32 zones");
  const prefix = count > 16 ? 21 : 20;
  return Array.from({ length: count }, (_, i) => `${formatIpv4(vpc.base + i * 2 ** (32 - prefix))}/${prefix}`);
}

export const createDefaultVpc: Mutation<CreateDefaultVpcRequest, CreateDefaultVpcResult> = {
  kind: "mutation",
  decide(_input, call) {
    if (defaultVpcOf(call))
      return fail(awsError("DefaultVpcAlreadyExists", "A Default VPC already exists for this account in this region."));
    if (freeNetworkKey(call.state) === undefined)
      return fail(awsError("VpcLimitExceeded", "The maximum number of VPCs has been reached."));
    const { accountId, region, random, now } = call;
    const writes = decideDefaultVpc(call.state, accountId, region, zonesOf(call.config), random, now);
    const made = writes.find((write) => write.kind === "put" && write.table.name === vpcs.name);
    assert(made?.kind === "put", "a default VPC is among its own writes");
    return ok({ writes, output: { Vpc: viewVpc(made.record as VpcRecord, undefined) } });
  },
};
