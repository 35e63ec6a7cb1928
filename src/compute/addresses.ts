/** Addresses for network interfaces: private ones of a subnet, public ones of the pool, and MACs. */
import type { Random } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import { assignableCount, type Cidr, formatIpv4, freeAddress, sizeOf, trustedCidr } from "../model/ipv4.ts";
import type { SubnetRecord } from "../model/network.ts";
import type { Call } from "../model/operation.ts";
import { networkInterfaces } from "../model/tables.ts";

/** What the configuration allows an instance type at most. */
const ADDRESSES_PER_INTERFACE_MAX = 50;

const randomInteger = (random: Random): number => Buffer.from(random.bytes(6)).readUIntBE(0, 6);

/** Hands out addresses within one decision: what it gave is taken for the rest of it, before any write is made. */
export class Addresses {
  readonly #call: Call;
  readonly #private = new Set<string>();
  readonly #public = new Set<number>();
  readonly #macs = new Set<string>();

  constructor(call: Call) {
    this.#call = call;
  }

  /** Marks a private address as given that the request named. */
  take(subnet: SubnetRecord, address: number): void {
    this.#private.add(`${subnet.vpcId}/${formatIpv4(address)}`);
  }

  /** How many addresses the subnet has left, or any number of at least `wanted`. */
  freeIn(subnet: SubnetRecord, wanted: number): number {
    const block = trustedCidr(subnet.cidrBlock);
    // A count is enough while the subnet is far from full, which spares looking at every interface.
    const atMost = this.#call.state.countOf(networkInterfaces, "bySubnet", subnet.id) * ADDRESSES_PER_INTERFACE_MAX;
    if (assignableCount(block) - atMost >= wanted) return assignableCount(block) - atMost;
    let held = 0;
    for (const eni of this.#call.state.lookup(networkInterfaces, "bySubnet", subnet.id))
      held += eni.privateIpAddresses.length;
    return assignableCount(block) - held;
  }

  /** A free private address. Errors: InsufficientFreeAddressesInSubnet. */
  privateAddress(subnet: SubnetRecord): Result<number, AwsError> {
    const { state, random } = this.#call;
    const taken = (address: number) => {
      const key = `${subnet.vpcId}/${formatIpv4(address)}`;
      return this.#private.has(key) || state.countOf(networkInterfaces, "byPrivateIp", key) > 0;
    };
    const address = freeAddress(trustedCidr(subnet.cidrBlock), taken, randomInteger(random));
    if (address === undefined) return fail(insufficientFreeAddresses(subnet.id));
    this.take(subnet, address);
    return ok(address);
  }

  /** A free address of the public pool; its first usable one is the host's. Errors: InsufficientAddressCapacity. */
  publicAddress(): Result<string, AwsError> {
    const { state, random, config } = this.#call;
    const pool: Cidr = trustedCidr(config.network.publicPool);
    // Neither the network's own address, the host's, nor the broadcast address.
    const count = sizeOf(pool) - 3;
    const start = count > 0 ? randomInteger(random) % count : 0;
    for (let i = 0; i < count; i++) {
      const address = pool.base + 2 + ((start + i) % count);
      if (this.#public.has(address) || state.countOf(networkInterfaces, "byPublicIp", formatIpv4(address)) > 0)
        continue;
      this.#public.add(address);
      return ok(formatIpv4(address));
    }
    return fail(
      awsError("InsufficientAddressCapacity", "Not enough available addresses to satisfy your minimum request.", 500),
    );
  }

  /** A MAC of the locally administered range that no interface of the VPC has. */
  mac(vpcId: string): string {
    const { state, random } = this.#call;
    for (;;) {
      // 02: locally administered, for one station. Hive's own MACs (router, metadata) start with 0a.
      const mac = `02${Buffer.from(random.bytes(5)).toString("hex").replace(/../g, ":$&")}`;
      if (this.#macs.has(mac) || state.countOf(networkInterfaces, "byMac", `${vpcId}/${mac}`) > 0) continue;
      this.#macs.add(mac);
      return mac;
    }
  }
}

export const insufficientFreeAddresses = (subnetId: string): AwsError =>
  awsError(
    "InsufficientFreeAddressesInSubnet",
    `There are not enough free addresses in subnet '${subnetId}' to satisfy the requested number of instances.`,
  );
