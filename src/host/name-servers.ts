/** The host's own name servers, which guests are told of while Hive has no resolver of its own. */
import { readFile } from "node:fs/promises";
import { parseIpv4 } from "../model/ipv4.ts";

/** The IPv4 name servers in resolv.conf(5) that a guest can ask: loopback is the host's alone. At most three, as libc's. */
export function parseNameServers(resolvConf: string): readonly string[] {
  const found: string[] = [];
  for (const line of resolvConf.split("\n")) {
    const server = /^\s*nameserver\s+(\S+)/.exec(line)?.[1];
    const address = server === undefined ? undefined : parseIpv4(server);
    if (server === undefined || address === undefined || address >>> 24 === 127 || address === 0) continue;
    if (!found.includes(server)) found.push(server);
  }
  return found.slice(0, 3);
}

/** systemd-resolved keeps the real servers in the second file when the first names only its stub. */
const FILES = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/** Empty when the host has none that a guest could reach. */
export async function hostNameServers(files: readonly string[] = FILES): Promise<readonly string[]> {
  for (const file of files) {
    const servers = parseNameServers(await readFile(file, "utf8").catch(() => ""));
    if (servers.length > 0) return servers;
  }
  return [];
}
