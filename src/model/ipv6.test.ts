import { describe, expect, test } from "bun:test";
import { isIPv6 } from "node:net";
import fc from "fast-check";
import { canonicalIpv6Cidr, formatIpv6, parseIpv6 } from "./ipv6.ts";

describe("IPv6 addresses", () => {
  test("what is written is read back the same, in the one form that URLs have too", () => {
    const group = fc.oneof(fc.constant(0), fc.nat(0xffff));
    fc.assert(
      fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
        const text = formatIpv6(groups);
        expect(parseIpv6(text)).toEqual(groups);
        expect(new URL(`http://[${groups.map((g) => g.toString(16)).join(":")}]/`).hostname).toBe(`[${text}]`);
      }),
    );
  });

  test("is read exactly when the runtime takes it for one", () => {
    const piece = fc.constantFrom(":", "::", "0", "f", "12", "abcd", "12345", "g", ".", "1.2.3.4", "%1");
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 16 }), (pieces) => {
        const text = pieces.join("");
        expect(parseIpv6(text) !== undefined).toBe(isIPv6(text) && !text.includes("%"));
      }),
      { numRuns: 2000 },
    );
  });
});

test.each([
  ["::/0", "::/0"],
  ["2001:DB8::1/32", "2001:db8::/32"],
  ["2001:db8:0:0:1:0:0:1/128", "2001:db8::1:0:0:1/128"],
  ["fe80::ffff/113", "fe80::8000/113"],
  ["::ffff:192.0.2.1/128", "::ffff:c000:201/128"],
  ["::01.2.3.4/128", undefined],
  ["::/129", undefined],
  ["::", undefined],
  ["1::2::3/64", undefined],
  ["/64", undefined],
])("the block %s is %s", (text, canonical) => {
  expect(canonicalIpv6Cidr(text)).toBe(canonical as string);
});
