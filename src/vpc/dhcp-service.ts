/** The DHCP server's answers: which interface asks, what the tables say of it, and the message for it. No sockets. */
import type { Log } from "../lib/log.ts";
import { privateDnsName } from "../model/dns-names.ts";
import { formatIpv4, parseIpv4, routerOf, sizeOf, trustedCidr } from "../model/ipv4.ts";
import type { NetworkInterfaceRecord } from "../model/network.ts";
import type { PortDirectory } from "../model/network-names.ts";
import type { Reader } from "../model/store.ts";
import { dhcpOptions, instances, networkInterfaces, subnets, vpcs } from "../model/tables.ts";
import { answerDhcp, DHCP_MESSAGE, decodeDhcp, encodeDhcp, LEASE_SECONDS, type LeaseFacts, maskText } from "./dhcp.ts";

export interface DhcpSettings {
  /** Stands for AmazonProvidedDNS. Empty: guests are told of no name server. */
  readonly nameServers: readonly string[];
  /** Of every interface, in bytes. */
  readonly mtu: number;
}

/** What an interface is told; undefined when its subnet or VPC is gone. */
export function leaseFacts(state: Reader, eni: NetworkInterfaceRecord, settings: DhcpSettings): LeaseFacts | undefined {
  const subnet = state.get(subnets, eni.subnetId);
  const vpc = state.get(vpcs, eni.vpcId);
  const own = eni.privateIpAddresses[0]?.address;
  if (!subnet || !vpc || own === undefined) return undefined;
  const block = trustedCidr(subnet.cidrBlock);
  const set = state.get(dhcpOptions, vpc.dhcpOptionsId)?.options ?? [];
  const valuesOf = (key: string): readonly string[] => set.find((option) => option.key === key)?.values ?? [];
  const nodeType = Number(valuesOf("netbios-node-type")[0]);
  const domainName = valuesOf("domain-name").join(" ");
  const instance = eni.attachment?.deviceIndex === 0 ? state.get(instances, eni.attachment.instanceId) : undefined;
  return {
    macAddress: eni.macAddress,
    address: own,
    subnetMask: maskText(block.prefix),
    broadcast: formatIpv4(block.base + sizeOf(block) - 1),
    router: formatIpv4(routerOf(block)),
    hostName: privateDnsName(eni.region, own, instance).split(".", 1)[0]!,
    ...(domainName !== "" && { domainName }),
    nameServers: valuesOf("domain-name-servers").flatMap((server) => {
      if (server === "AmazonProvidedDNS") return vpc.enableDnsSupport ? settings.nameServers : [];
      return parseIpv4(server) === undefined ? [] : [server];
    }),
    ntpServers: valuesOf("ntp-servers").filter((server) => parseIpv4(server) !== undefined),
    netbiosNameServers: valuesOf("netbios-name-servers"),
    ...(Number.isInteger(nodeType) && nodeType > 0 && { netbiosNodeType: nodeType }),
    mtu: settings.mtu,
    leaseSeconds: LEASE_SECONDS,
  };
}

export interface DhcpService {
  /** The message that answers `packet`, for whoever sent it; undefined when it gets none. Never throws on any bytes. */
  answer(source: string, packet: Uint8Array): Uint8Array | undefined;
}

/** @param settings asked anew for each message */
export function dhcpService(dependencies: {
  readonly read: () => Reader;
  readonly directory: PortDirectory;
  readonly settings: () => DhcpSettings;
  readonly log: Log;
}): DhcpService {
  const { read, directory, settings, log } = dependencies;
  return {
    answer(source, packet) {
      const eniId = directory.byMetadataAddress(source);
      const request = eniId && decodeDhcp(packet);
      if (!request) return undefined;
      const state = read();
      const eni = state.get(networkInterfaces, eniId);
      const facts = eni && leaseFacts(state, eni, settings());
      const reply = facts && answerDhcp(request, facts);
      if (request.type === DHCP_MESSAGE.DECLINE)
        log.warn("dhcp.declined", { networkInterfaceId: eniId, address: facts?.address });
      if (!reply) return undefined;
      log.debug("dhcp.answered", { networkInterfaceId: eniId, asked: request.type, answered: reply.type });
      return encodeDhcp(reply, facts.router);
    },
  };
}
