/** TAP devices of guests: made here, owned by the user that QEMU runs as; the network agent puts them on the bridge. */
import { chmodSync, chownSync, readFileSync, statSync } from "node:fs";
import type { Result } from "../../lib/result.ts";
import type { HostError } from "../host-error.ts";
import { ensureTap, removeTap } from "../net/tap.ts";
import type { GuestUser } from "../privilege.ts";

const TUN = "/dev/net/tun";

/** Makes the device, or keeps the one that is there when its owner is right, and brings it up. */
export async function ensureGuestTap(name: string, user: GuestUser | undefined): Promise<Result<void, HostError>> {
  const uid = user?.uid ?? process.getuid?.() ?? 0;
  const owner = ownerOf(name);
  if (owner !== undefined && owner !== uid) {
    const removed = await removeTap(name);
    if (!removed.ok) return removed;
  }
  return ensureTap({ name, uid });
}

function ownerOf(name: string): number | undefined {
  try {
    return Number(readFileSync(`/sys/class/net/${name}/owner`, "utf8"));
  } catch {
    return undefined;
  }
}

/**
 * Opening /dev/net/tun gives no power but over devices that one owns, so distributions let everybody open it; where the host
 * does not, the guests' group gets to. @returns true when that was needed
 */
export function letOpenTun(user: GuestUser | undefined): boolean {
  const stats = user && statSync(TUN, { throwIfNoEntry: false });
  if (!stats || (stats.mode & 0o006) === 0o006) return false;
  if (stats.gid === user.gid && (stats.mode & 0o060) === 0o060) return false;
  chownSync(TUN, stats.uid, user.gid);
  chmodSync(TUN, (stats.mode & 0o7777) | 0o060);
  return true;
}
