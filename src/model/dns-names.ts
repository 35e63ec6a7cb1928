/** The DNS names that EC2 derives from addresses and instance ids. Pure text: nothing here says that a name resolves. */
import type { PrivateDnsNameOptions } from "./instance.ts";

/** The domain of private names: `ec2.internal` in us-east-1, else `<region>.compute.internal`. */
export const internalDomain = (region: string): string =>
  region === "us-east-1" ? "ec2.internal" : `${region}.compute.internal`;

const dashed = (address: string): string => address.replaceAll(".", "-");

/** `ip-172-31-0-5.ec2.internal`, the IP name of an address. */
export const ipName = (region: string, address: string): string => `ip-${dashed(address)}.${internalDomain(region)}`;

/** The private DNS name of an instance by its options: its IP name, or `i-….ec2.internal`. */
export const privateDnsName = (
  region: string,
  address: string,
  instance?: { readonly id: string; readonly privateDnsNameOptions: PrivateDnsNameOptions },
): string =>
  instance?.privateDnsNameOptions.hostnameType === "resource-name"
    ? `${instance.id}.${internalDomain(region)}`
    : ipName(region, address);

/** `ec2-198-18-0-5.compute-1.amazonaws.com`, AWS's name of a public address. */
export const publicDnsName = (region: string, address: string): string =>
  `ec2-${dashed(address)}.${region === "us-east-1" ? "compute-1" : `${region}.compute`}.amazonaws.com`;
