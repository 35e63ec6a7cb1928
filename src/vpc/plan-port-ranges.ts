/** OpenFlow matches a port exactly or under a mask, never a range: a range becomes a few aligned blocks. */
export interface MaskedPort {
  readonly value: number;
  /** 0 to 0xffff; 0xffff matches one port, 0 every one. */
  readonly mask: number;
}

/**
 * The fewest aligned blocks that cover `from` to `to`, both included, and no other port; in ascending order. At most 30.
 * Empty when `from` is above `to`.
 */
export function portRangeMasks(from: number, to: number): readonly MaskedPort[] {
  const blocks: MaskedPort[] = [];
  let next = from;
  while (next <= to) {
    let size = 1;
    while (size < 0x10000 && next % (size * 2) === 0 && next + size * 2 - 1 <= to) size *= 2;
    blocks.push({ value: next, mask: 0x10000 - size });
    next += size;
  }
  return blocks;
}

/** One block as ovs-ofctl writes it after `tp_dst=`; undefined for every port. */
export function formatMaskedPort({ value, mask }: MaskedPort): string | undefined {
  if (mask === 0) return undefined;
  return mask === 0xffff ? String(value) : `0x${value.toString(16)}/0x${mask.toString(16)}`;
}
