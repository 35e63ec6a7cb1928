/** Sets IP's time to live on one socket, which the runtime has no call for: setsockopt(2) through its foreign functions. */
import { dlopen, ptr } from "bun:ffi";

const IPPROTO_IP = 0;
const IP_TTL = 2;
/** -1 gives the socket the host's default back (Linux 3.x and later). */
export const DEFAULT_TTL = -1;

/**
 * A function that sets the TTL (1 to 255, or DEFAULT_TTL) of what an IPv4 socket sends from now on, and says whether it did.
 * Undefined where the C library cannot be reached.
 */
export function openSetTtl(): ((fd: number, ttl: number) => boolean) | undefined {
  for (const name of ["libc.so.6", "libc.so"]) {
    try {
      const { symbols } = dlopen(name, {
        setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
      });
      return (fd, ttl) => {
        const value = new Int32Array([ttl]);
        return symbols.setsockopt(fd, IPPROTO_IP, IP_TTL, ptr(value), value.byteLength) === 0;
      };
    } catch {
      // The next name.
    }
  }
  return undefined;
}
