import { expect, test } from "bun:test";
import fc from "fast-check";
import { formatMaskedPort, portRangeMasks } from "./plan-port-ranges.ts";

test("a range becomes blocks that cover exactly its ports, in order and without overlap", () => {
  const port = fc.integer({ min: 0, max: 65535 });
  fc.assert(
    fc.property(port, port, port, (a, b, probe) => {
      const [from, to] = a <= b ? [a, b] : [b, a];
      const blocks = portRangeMasks(from, to);
      const hits = blocks.filter(({ value, mask }) => (probe & mask) === value).length;
      expect(hits).toBe(probe >= from && probe <= to ? 1 : 0);
      expect(blocks.reduce((sum, { mask }) => sum + 0x10000 - mask, 0)).toBe(to - from + 1);
      expect(blocks.length).toBeLessThanOrEqual(30);
      expect(blocks.map((block) => block.value)).toEqual(blocks.map((block) => block.value).sort((x, y) => x - y));
    }),
  );
});

test.each<[number, number, (string | undefined)[]]>([
  [22, 22, ["22"]],
  [0, 65535, [undefined]],
  [
    1000,
    1999,
    ["0x3e8/0xfff8", "0x3f0/0xfff0", "0x400/0xfe00", "0x600/0xff00", "0x700/0xff80", "0x780/0xffc0", "0x7c0/0xfff0"],
  ],
  [5, 4, []],
])("%i to %i as ovs-ofctl writes it", (from, to, expected) => {
  expect(portRangeMasks(from, to).map(formatMaskedPort)).toEqual(expected);
});
