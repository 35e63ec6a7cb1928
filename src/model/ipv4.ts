import { fail, ok, type Result } from "../lib/result.ts";

/** IPv4 addresses as unsigned 32-bit numbers, and CIDR blocks of them. Pure arithmetic. */
export interface Cidr {
  /** Network address; host bits are zero. */
  readonly base: number;
  /** 0 to 32. */
  readonly prefix: number;
}

/** Reads a dotted quad of four decimal numbers without leading zeros. */
export function parseIpv4(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return undefined;
  let value = 0;
  for (let i = 1; i <= 4; i++) {
    const octet = match[i]!;
    if (Number(octet) > 255 || (octet.length > 1 && octet[0] === "0")) return undefined;
    value = value * 256 + Number(octet);
  }
  return value;
}

export const formatIpv4 = (address: number): string =>
  `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;

/**
 * Reads `a.b.c.d/n`. Host bits are cleared, as EC2 does (`10.0.0.5/16` is `10.0.0.0/16`).
 * Fails with a sentence on what is wrong.
 */
export function parseCidr(text: string): Result<Cidr, string> {
  const slash = text.indexOf("/");
  const address = slash < 0 ? undefined : parseIpv4(text.slice(0, slash));
  const length = text.slice(slash + 1);
  if (address === undefined || !/^\d{1,2}$/.test(length) || Number(length) > 32) {
    return fail(`${text} is not an IPv4 CIDR block`);
  }
  const prefix = Number(length);
  return ok({ base: (address & maskOf(prefix)) >>> 0, prefix });
}

/** The block, which is known to be well formed. @throws RangeError when it is not */
export function trustedCidr(text: string): Cidr {
  const parsed = parseCidr(text);
  if (!parsed.ok) throw new RangeError(parsed.error);
  return parsed.value;
}

export const formatCidr = (cidr: Cidr): string => `${formatIpv4(cidr.base)}/${cidr.prefix}`;

/** Netmask of a prefix length, as an unsigned number. */
export const maskOf = (prefix: number): number => (prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0);

export const sizeOf = (cidr: Cidr): number => 2 ** (32 - cidr.prefix);

export const contains = (cidr: Cidr, address: number): boolean => (address & maskOf(cidr.prefix)) >>> 0 === cidr.base;

export const containsBlock = (outer: Cidr, inner: Cidr): boolean =>
  inner.prefix >= outer.prefix && contains(outer, inner.base);

export const overlaps = (a: Cidr, b: Cidr): boolean => containsBlock(a, b) || containsBlock(b, a);

/** AWS keeps the first four addresses of a subnet and the last: network, router, DNS, future use, broadcast. */
export const RESERVED_FIRST = 4;
export const RESERVED_LAST = 1;

/** True for an address that a network interface in this subnet may have. */
export const assignable = (subnet: Cidr, address: number): boolean =>
  contains(subnet, address) &&
  address - subnet.base >= RESERVED_FIRST &&
  address - subnet.base < sizeOf(subnet) - RESERVED_LAST;

/** The subnet's router: its first address after the network's own. */
export const routerOf = (subnet: Cidr): number => subnet.base + 1;

/** How many addresses a subnet can hand out at all. */
export const assignableCount = (subnet: Cidr): number => sizeOf(subnet) - RESERVED_FIRST - RESERVED_LAST;

/**
 * A free address of the subnet, or undefined when all are taken. Starts the search at `hint` (any number, such as a
 * random one), so that a stopped and deleted interface's address is not handed out again at once.
 */
export function freeAddress(subnet: Cidr, taken: (address: number) => boolean, hint: number): number | undefined {
  const count = assignableCount(subnet);
  const start = ((hint % count) + count) % count;
  for (let i = 0; i < count; i++) {
    const address = subnet.base + RESERVED_FIRST + ((start + i) % count);
    if (!taken(address)) return address;
  }
  return undefined;
}
