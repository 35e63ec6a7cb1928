import type { NetworkInterfaceId } from "./ids.ts";
import { formatIpv4, sizeOf, trustedCidr } from "./ipv4.ts";

/**
 * The TAP device of a network interface: `hv` and the last 12 digits of its id (Linux allows 15 characters). The same
 * name everywhere, so that the compute and the network agent agree without talking.
 */
export const tapName = (id: NetworkInterfaceId): string => `hv${id.slice(-12)}`;

/**
 * The address by which a node's metadata and DHCP servers see the port with this OpenFlow number; only flows can
 * produce it, so a guest cannot pretend to be another. Never leaves the node.
 * @param pool a CIDR block with room for `ofport` addresses, such as 100.64.0.0/16
 */
export const metadataAddress = (pool: string, ofport: number): string => formatIpv4(trustedCidr(pool).base + ofport);

/**
 * The same for a client that has no address yet (DHCP from 0.0.0.0), so that the answer can be told from one to a client that
 * renews: the upper half of the pool. Whoever answers just sends to the address that the request came from.
 */
export const unconfiguredMetadataAddress = (pool: string, ofport: number): string =>
  metadataAddress(pool, sizeOf(trustedCidr(pool)) / 2 + ofport);

/** The link-local address of the metadata service, and Hive's end of the port that carries it. */
export const METADATA_ADDRESS = "169.254.169.254";
export const METADATA_MAC = "0a:a9:fe:a9:fe:00";

/** The router's MAC, the same in every subnet: guests see only this and their own. */
export const ROUTER_MAC = "0a:00:00:00:00:01";

/** Finds a node's ports by what its servers see. Kept by the network agent. */
export interface PortDirectory {
  /** The interface that a metadata or DHCP request with this source address came from. */
  byMetadataAddress(address: string): NetworkInterfaceId | undefined;
}

/** The host's end of the public network: what instances' public traffic leaves the bridge through. */
export const GATEWAY_MAC = "0a:00:00:00:00:02";

/**
 * The internal ports of a bridge: where the metadata and DHCP servers listen, and the host's way to and from the guests.
 * Derived from the bridge's name, so that two nodes may share one network namespace.
 */
export const metadataPort = (bridge: string): string => (bridge === "br-int" ? "hive-imds" : `${bridge}-imds`);
export const gatewayPort = (bridge: string): string => (bridge === "br-int" ? "hive-gw" : `${bridge}-gw`);
