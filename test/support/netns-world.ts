/** Records of a small network for tests of the network agent, and the agent itself on a node in a namespace. */
import { openMemoryStore } from "../../src/cluster/open-memory-store.ts";
import type { HostError } from "../../src/host/host-error.ts";
import type { RunCommand } from "../../src/host/net/tap.ts";
import { openNetworkHost } from "../../src/host/ovs/network-host.ts";
import { run } from "../../src/host/run.ts";
import { present } from "../../src/lib/assert.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { jsonLog } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { fail, ok } from "../../src/lib/result.ts";
import { type Config, configSchema } from "../../src/model/config.ts";
import { type AccountId, type IdKind, newId, trustedId } from "../../src/model/ids.ts";
import type { InstanceRecord } from "../../src/model/instance.ts";
import { formatIpv4, routerOf, trustedCidr } from "../../src/model/ipv4.ts";
import type {
  NetworkInterfaceRecord,
  RouteTableRecord,
  SecurityGroupRecord,
  SecurityGroupRuleRecord,
  SubnetRecord,
  VpcRecord,
} from "../../src/model/network.ts";
import { tapName } from "../../src/model/network-names.ts";
import { put, remove, type Store, type Write } from "../../src/model/store.ts";
import {
  allTables,
  instances,
  internetGateways,
  networkInterfaces,
  routeTables,
  securityGroupRules,
  securityGroups,
  subnets,
  vpcs,
} from "../../src/model/tables.ts";
import { createNetworkAgent, type NetworkAgent } from "../../src/vpc/reconcile-network.ts";
import type { Namespace, Spawned, TestNode } from "./netns.ts";

const OWNED = { accountId: trustedId<"Account">("000000000000") as AccountId, region: "us-east-1", createdAt: 0 };
export const NODE_ID = "node-1";
const id = <K extends IdKind>(kind: K) => newId(kind, systemRandom);

export interface TestVpc {
  readonly vpc: VpcRecord;
  readonly subnet: SubnetRecord;
  readonly table: RouteTableRecord;
}
type Rule = Partial<Pick<SecurityGroupRuleRecord, "egress" | "protocol" | "fromPort" | "toPort">> & {
  readonly from: string | SecurityGroupRecord;
};

/** Tables of a world, written step by step. */
export class World {
  readonly store: Store;
  #vpcs = 0;
  #octet = 10;
  private constructor(store: Store) {
    this.store = store;
  }
  static async open(): Promise<World> {
    return new World(await openMemoryStore(allTables));
  }

  async write(...writes: Write[]): Promise<void> {
    const done = await this.store.transact(() => ok({ writes, value: undefined }));
    present(done.ok ? true : undefined, "the memory store takes writes");
  }

  /** A VPC with one subnet; with an internet gateway and a route to it unless `isolated`. */
  async vpc(cidrBlock: string, subnetCidr: string, options: { isolated?: boolean } = {}): Promise<TestVpc> {
    const gateway = { id: id("InternetGateway"), ...OWNED };
    const vpc: VpcRecord = {
      ...OWNED,
      id: id("Vpc"),
      cidrBlock,
      cidrAssociationId: id("VpcCidrAssociation"),
      isDefault: this.#vpcs === 0,
      instanceTenancy: "default",
      enableDnsSupport: true,
      enableDnsHostnames: true,
      dhcpOptionsId: id("DhcpOptions"),
      networkKey: ++this.#vpcs,
    };
    const subnet = await this.#subnet(vpc, subnetCidr);
    const table: RouteTableRecord = {
      ...OWNED,
      id: id("RouteTable"),
      vpcId: vpc.id,
      routes: [
        { destinationCidrBlock: cidrBlock, target: { kind: "local" }, origin: "CreateRouteTable" },
        ...(options.isolated
          ? []
          : [
              {
                destinationCidrBlock: "0.0.0.0/0",
                target: { kind: "internet-gateway" as const, id: gateway.id },
                origin: "CreateRoute" as const,
              },
            ]),
      ],
      associations: [{ id: id("RouteTableAssociation"), main: true }],
    };
    await this.write(put(vpcs, vpc), put(internetGateways, { ...gateway, vpcId: vpc.id }), put(routeTables, table));
    return { vpc, subnet, table };
  }

  async #subnet(vpc: VpcRecord, cidrBlock: string): Promise<SubnetRecord> {
    const subnet: SubnetRecord = {
      ...OWNED,
      id: id("Subnet"),
      vpcId: vpc.id,
      zone: "us-east-1a",
      cidrBlock,
      defaultForAz: vpc.isDefault,
      mapPublicIpOnLaunch: true,
    };
    await this.write(put(subnets, subnet));
    return subnet;
  }

  /** A group with egress to anywhere (as CreateSecurityGroup makes it) and these ingress rules. */
  async group({ vpc }: TestVpc, ...rules: Rule[]): Promise<SecurityGroupRecord> {
    const groupId = id("SecurityGroup");
    const group: SecurityGroupRecord = { ...OWNED, id: groupId, vpcId: vpc.id, name: groupId, description: "test" };
    await this.write(put(securityGroups, group));
    await this.allow(group, { egress: true, protocol: "-1", from: "0.0.0.0/0" });
    for (const rule of rules) await this.allow(group, rule);
    return group;
  }

  async allow(group: SecurityGroupRecord, rule: Rule): Promise<SecurityGroupRuleRecord> {
    const { from, ...rest } = rule;
    const record: SecurityGroupRuleRecord = {
      id: id("SecurityGroupRule"),
      accountId: OWNED.accountId,
      region: OWNED.region,
      groupId: group.id,
      egress: false,
      protocol: "tcp",
      fromPort: -1,
      toPort: -1,
      peer:
        typeof from === "string"
          ? { kind: "ipv4", cidr: from }
          : { kind: "group", groupId: from.id, accountId: OWNED.accountId },
      ...rest,
    };
    await this.write(put(securityGroupRules, record));
    return record;
  }

  revoke = (rule: SecurityGroupRuleRecord): Promise<void> => this.write(remove(securityGroupRules, rule.id));

  /** An instance that is on, with one interface. */
  async eni(
    { vpc, subnet }: TestVpc,
    groups: readonly SecurityGroupRecord[],
    fields: Partial<NetworkInterfaceRecord> & { address?: string; alsoAddress?: string } = {},
  ): Promise<NetworkInterfaceRecord> {
    const { address, alsoAddress, ...rest } = fields;
    const octet = this.#octet++;
    const base = trustedCidr(subnet.cidrBlock).base;
    const instanceId = id("Instance");
    const eni: NetworkInterfaceRecord = {
      ...OWNED,
      id: id("NetworkInterface"),
      vpcId: vpc.id,
      subnetId: subnet.id,
      zone: subnet.zone,
      description: "",
      macAddress: `0a:11:22:33:44:${octet.toString(16).padStart(2, "0")}`,
      privateIpAddresses: [
        { address: address ?? formatIpv4(base + octet), primary: true },
        ...(alsoAddress ? [{ address: alsoAddress, primary: false }] : []),
      ],
      ipv6Addresses: [],
      groupIds: groups.map((group) => group.id),
      sourceDestCheck: true,
      interfaceType: "interface",
      requesterManaged: false,
      associatePublicIp: false,
      attachment: {
        id: id("NetworkInterfaceAttachment"),
        instanceId,
        instanceOwnerId: OWNED.accountId,
        deviceIndex: 0,
        networkCardIndex: 0,
        deleteOnTermination: true,
        attachTime: 0,
      },
      ...rest,
    };
    // Of an instance the agent reads no more than this.
    const instance = {
      id: instanceId,
      nodeId: NODE_ID,
      power: "on",
      blockDevices: [],
      imageId: "ami-0",
      reservationId: "r-0",
      ...OWNED,
    };
    await this.write(put(networkInterfaces, eni), put(instances, instance as unknown as InstanceRecord));
    return eni;
  }

  /** Stops its instance. */
  async turnOff(eni: NetworkInterfaceRecord): Promise<void> {
    const instance = present(this.store.read().get(instances, eni.attachment!.instanceId), "it was made by eni()");
    await this.write(put(instances, { ...instance, power: "off" }));
  }
}

export interface Running {
  readonly agent: NetworkAgent;
  readonly config: Config;
}

/**
 * Runs `body` with an agent on the node, and stops the agent afterwards. HIVE_TEST_LOG=1 shows its log.
 * @param lacks the failure of a program that the host is to be without
 */
export async function withAgent<T>(
  node: TestNode,
  world: World,
  body: (running: Running) => Promise<T>,
  network: Partial<Config["network"]> = {},
  lacks: (argv: readonly string[]) => HostError | undefined = () => undefined,
): Promise<T> {
  const config = configSchema.parse({ network: { ovsdb: node.ovsdb, datapath: "netdev", ...network } });
  const exec: RunCommand = async (argv, options) => {
    const missing = lacks(argv);
    return missing ? fail(missing) : run([...node.prefix, ...argv], options);
  };
  const verbose = process.env.HIVE_TEST_LOG !== undefined;
  const log = jsonLog((line) => process.stderr.write(line), verbose ? "debug" : "error", Date.now);
  const host = openNetworkHost({ network: config.network, clock: systemClock, log, run: exec });
  const agent = createNetworkAgent({
    config,
    store: world.store,
    nodeId: NODE_ID,
    clock: systemClock,
    random: systemRandom,
    log,
    host,
  });
  try {
    return await body({ agent, config });
  } finally {
    await agent.stop();
  }
}

/** A guest in the place of the machine behind `eni`, configured by hand. */
export function guestOf(
  node: TestNode,
  name: string,
  eni: NetworkInterfaceRecord,
  subnet: SubnetRecord,
): Promise<Namespace> {
  const cidr = trustedCidr(subnet.cidrBlock);
  return node.guest(name, {
    device: tapName(eni.id),
    mac: eni.macAddress,
    address: `${eni.privateIpAddresses[0]!.address}/${cidr.prefix}`,
    gateway: formatIpv4(routerOf(cidr)),
  });
}

const TOOL = [process.execPath, new URL("./netns-tool.ts", import.meta.url).pathname];

/** A TCP server that greets with the address of who connects. */
export const serve = (where: Namespace, port: number, address = "0.0.0.0"): Promise<Spawned> =>
  listening(where, ["serve", String(port), address]);

async function listening(where: Namespace, command: readonly string[]): Promise<Spawned> {
  const server = where.spawn([...TOOL, ...command]);
  await server.waitFor(/listening/);
  return server;
}

/** Connects and gives the address that the server saw; undefined when it could not within the time. */
export async function connect(
  where: Namespace,
  host: string,
  port: number,
  timeoutMs = 700,
): Promise<string | undefined> {
  const done = await where.try([...TOOL, "connect", host, String(port), String(timeoutMs)]);
  return done.code === 0 ? /from (?:::ffff:)?(\S+)/.exec(done.stdout)?.[1] : undefined;
}

/** One connection that is kept. */
export const hold = (where: Namespace, host: string, port: number): Spawned =>
  where.spawn([...TOOL, "hold", host, String(port)]);

export const pings = async (where: Namespace, host: string): Promise<boolean> =>
  (await where.try(["ping", "-n", "-c", "1", "-W", "1", host])).code === 0;

/** A UDP server that answers with the address and port that it was asked from. */
export const serveUdp = (where: Namespace, address: string, port: number): Promise<Spawned> =>
  listening(where, ["udp-serve", address, String(port)]);

/** Sends one datagram from `sourcePort` and gives what the server saw as its source; undefined without an answer. */
export async function askUdp(
  where: Namespace,
  sourcePort: number,
  host: string,
  port: number,
): Promise<string | undefined> {
  const done = await where.try([...TOOL, "udp-ask", String(sourcePort), host, String(port), "700"]);
  return done.code === 0 ? /from (\S+)/.exec(done.stdout)?.[1] : undefined;
}
