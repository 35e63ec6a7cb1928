import type { Random } from "../lib/random.ts";

/** How many ids are made of one draw: asking the system's source for each costs more than all else about them. */
const DRAWN = 256;

/** A source of request ids: random (version 4) UUIDs, as AWS's are. */
export function requestIds(random: Random): () => string {
  let hex = "";
  let at = 0;
  return () => {
    if (at === hex.length) {
      hex = Buffer.from(random.bytes(16 * DRAWN)).toString("hex");
      at = 0;
    }
    const from = at;
    at += 32;
    const variant = "89ab"[Number.parseInt(hex[from + 16]!, 16) & 3];
    return `${hex.slice(from, from + 8)}-${hex.slice(from + 8, from + 12)}-4${hex.slice(from + 13, from + 16)}-${variant}${hex.slice(from + 17, from + 20)}-${hex.slice(from + 20, from + 32)}`;
  };
}
