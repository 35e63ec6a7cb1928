import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  assignable,
  assignableCount,
  contains,
  containsBlock,
  formatCidr,
  formatIpv4,
  freeAddress,
  overlaps,
  parseCidr,
  parseIpv4,
  routerOf,
  trustedCidr,
} from "./ipv4.ts";

const address = fc.integer({ min: 0, max: 0xffffffff });
const block = fc.record({ base: address, prefix: fc.integer({ min: 0, max: 32 }) });

describe("addresses", () => {
  test("every address survives writing and reading", () => {
    fc.assert(fc.property(address, (value) => parseIpv4(formatIpv4(value)) === value));
  });
  test.each(["", "1.2.3", "1.2.3.4.5", "256.0.0.1", "01.2.3.4", "1.2.3.-4", "a.b.c.d", " 1.2.3.4"])(
    "%p is no address",
    (text) => {
      expect(parseIpv4(text)).toBeUndefined();
    },
  );
});

describe("blocks", () => {
  test("host bits are cleared, as EC2 does", () => {
    const parsed = parseCidr("10.0.0.5/16");
    expect(parsed.ok && formatCidr(parsed.value)).toBe("10.0.0.0/16");
  });
  test.each(["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "/8", "10.0.0.0/8x"])("%p is no block", (text) => {
    expect(parseCidr(text).ok).toBe(false);
  });
  test("a block contains its own addresses and no neighbour's", () => {
    fc.assert(
      fc.property(block, ({ base, prefix }) => {
        const cidr = trustedCidr(`${formatIpv4(base)}/${prefix}`);
        const size = 2 ** (32 - prefix);
        const inside = contains(cidr, cidr.base) && contains(cidr, cidr.base + size - 1);
        const before = cidr.base === 0 || !contains(cidr, cidr.base - 1);
        const after = cidr.base + size > 0xffffffff || !contains(cidr, cidr.base + size);
        return inside && before && after;
      }),
    );
  });
  test("two blocks overlap only when one contains the other", () => {
    fc.assert(
      fc.property(block, block, (a, b) => {
        const [x, y] = [a, b].map((c) => trustedCidr(`${formatIpv4(c.base)}/${c.prefix}`)) as [typeof a, typeof b];
        const apart = x.base + 2 ** (32 - x.prefix) <= y.base || y.base + 2 ** (32 - y.prefix) <= x.base;
        return overlaps(x, y) === !apart && overlaps(x, y) === (containsBlock(x, y) || containsBlock(y, x));
      }),
    );
  });
});

describe("a subnet's addresses", () => {
  const subnet = trustedCidr("10.0.0.0/28");
  test("the first four and the last are AWS's", () => {
    const usable = Array.from({ length: 16 }, (_, i) => assignable(subnet, subnet.base + i));
    expect(usable).toEqual([...Array(4).fill(false), ...Array(11).fill(true), false]);
    expect(assignableCount(subnet)).toBe(11);
    expect(formatIpv4(routerOf(subnet))).toBe("10.0.0.1");
  });
  test("all free addresses are handed out, each once, from any start", () => {
    fc.assert(
      fc.property(fc.integer(), (hint) => {
        const taken = new Set<number>();
        for (let i = 0; i < assignableCount(subnet); i++) {
          const free = freeAddress(subnet, (a) => taken.has(a), hint);
          if (free === undefined || taken.has(free) || !assignable(subnet, free)) return false;
          taken.add(free);
        }
        return freeAddress(subnet, (a) => taken.has(a), hint) === undefined;
      }),
    );
  });
});
