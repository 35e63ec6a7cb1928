/** IPv6 CIDR blocks as text: read, checked, and written in the one canonical form of RFC 5952. */

/** Reads an address into eight 16-bit groups. Takes `::` and a dotted quad at the end. */
export function parseIpv6(text: string): readonly number[] | undefined {
  if (text.length > 45) return undefined;
  let body = text;
  const quad = /^(.*:)(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(body);
  if (quad) {
    const octets = quad.slice(2, 6).map(Number);
    if (octets.some((octet) => octet > 255)) return undefined;
    const [a, b, c, d] = octets as [number, number, number, number];
    body = `${quad[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const halves = body.split("::");
  if (halves.length > 2) return undefined;
  const sides = halves.map((half) => (half === "" ? [] : half.split(":")));
  if (!sides.flat().every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  const [head = [], tail = []] = sides.map((side) => side.map((group) => Number.parseInt(group, 16)));
  if (halves.length === 1) return head.length === 8 ? head : undefined;
  if (head.length + tail.length > 7) return undefined;
  return [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail];
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two zero groups or more as `::`. */
export function formatIpv6(groups: readonly number[]): string {
  let [start, length] = [-1, 1];
  for (let at = 0; at < 8; at++) {
    let run = 0;
    while (at + run < 8 && groups[at + run] === 0) run++;
    if (run > length) [start, length] = [at, run];
    at += run;
  }
  const hex = groups.map((group) => group.toString(16));
  if (start < 0) return hex.join(":");
  return `${hex.slice(0, start).join(":")}::${hex.slice(start + length).join(":")}`;
}

/** Reads `address/prefix` and writes it canonically, host bits cleared; undefined when it is no IPv6 CIDR block. */
export function canonicalIpv6Cidr(text: string): string | undefined {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
  const groups = match && parseIpv6(match[1]!);
  const prefix = match ? Number(match[2]) : 129;
  if (!groups || prefix > 128) return undefined;
  const masked = groups.map((group, i) => {
    const kept = Math.min(16, Math.max(0, prefix - i * 16));
    return group & (0xffff << (16 - kept)) & 0xffff;
  });
  return `${formatIpv6(masked)}/${prefix}`;
}
