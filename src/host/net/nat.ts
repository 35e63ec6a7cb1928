/**
 * The host's part in NAT: the public pool leaves behind the host's own addresses, TCP's segment size is held to what the
 * path carries (the guests' 1:1 NAT does not translate ICMP errors), and the metadata address answers only guests.
 *
 * Hive has one nftables table of its own, replaced whole in one transaction; other tables are never touched. Where nft is missing,
 * iptables chains of Hive's own do the same. A forward policy of `drop` elsewhere still drops: see `forwardBlocked`.
 */
import { fail, ok, type Result } from "../../lib/result.ts";
import { METADATA_ADDRESS } from "../../model/network-names.ts";
import type { DesiredNat } from "../../vpc/plan-network.ts";
import { commandFailed, type HostError, unsupported } from "../host-error.ts";
import type { RunCommand } from "./tap.ts";

/** The name of the table: `hive`, or one that goes with a bridge of another name. */
const tableName = (bridge: string): string => (bridge === "br-int" ? "hive" : `hive-${bridge}`);

/** nft's script that puts the table in place of the one that may be there. */
export function nftScript(bridge: string, nat: DesiredNat, metadataDevice: string): string {
  const table = `table ip ${tableName(bridge)}`;
  const out = `oifname "${nat.gatewayDevice}"`;
  const clamp = "tcp flags syn tcp option maxseg size set rt mtu";
  const masquerade = `ip saddr ${nat.publicPool} oifname != "${nat.gatewayDevice}" masquerade`;
  return [
    table,
    `delete ${table}`,
    `${table} {`,
    "  chain postrouting {",
    "    type nat hook postrouting priority 100; policy accept;",
    ...(nat.masquerade ? [`    ${masquerade}`] : []),
    "  }",
    "  chain forward {",
    "    type filter hook forward priority -150; policy accept;",
    `    ${out} ${clamp}`,
    `    iifname "${nat.gatewayDevice}" ${clamp}`,
    "  }",
    "  chain input {",
    "    type filter hook input priority -150; policy accept;",
    `    ip daddr ${METADATA_ADDRESS} iifname != { "${metadataDevice}", "lo" } drop`,
    "  }",
    "}",
    "",
  ].join("\n");
}

/** The same for iptables-restore --noflush: chains named after the bridge, emptied and filled in one go. */
export function iptablesScript(bridge: string, nat: DesiredNat): string {
  const chain = iptablesChain(bridge);
  return [
    "*nat",
    `:${chain} - [0:0]`,
    ...(nat.masquerade ? [`-A ${chain} -s ${nat.publicPool} ! -o ${nat.gatewayDevice} -j MASQUERADE`] : []),
    "COMMIT",
    "*mangle",
    `:${chain} - [0:0]`,
    `-A ${chain} -o ${nat.gatewayDevice} -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu`,
    `-A ${chain} -i ${nat.gatewayDevice} -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu`,
    "COMMIT",
    "",
  ].join("\n");
}
const iptablesChain = (bridge: string): string => `HIVE-${bridge.toUpperCase()}`;

/** Puts the rules in place, whatever was there. @returns which program did it. `unsupported` when the host has neither */
export async function applyNat(
  bridge: string,
  nat: DesiredNat,
  metadataDevice: string,
  run: RunCommand,
): Promise<Result<"nft" | "iptables", HostError>> {
  const byNft = await run(["nft", "-f", "-"], { stdin: nftScript(bridge, nat, metadataDevice) });
  if (byNft.ok && byNft.value.code === 0) return ok("nft");
  if (byNft.ok) return fail(commandFailed("nft", byNft.value.code, byNft.value.stderr));
  if (byNft.error.kind !== "missing-program") return byNft;
  const filled = await run(["iptables-restore", "--noflush"], { stdin: iptablesScript(bridge, nat) });
  if (!filled.ok) {
    if (filled.error.kind !== "missing-program") return filled;
    return fail(unsupported("guests cannot reach beyond this host: install nftables (apt-get install nftables)"));
  }
  if (filled.value.code !== 0) return fail(commandFailed("iptables-restore", filled.value.code, filled.value.stderr));
  for (const [table, hook] of [
    ["nat", "POSTROUTING"],
    ["mangle", "FORWARD"],
  ] as const) {
    const jump = [hook, "-j", iptablesChain(bridge)];
    const there = await run(["iptables", "-t", table, "-C", ...jump]);
    if (there.ok && there.value.code === 0) continue;
    const added = await run(["iptables", "-t", table, "-I", ...jump]);
    if (!added.ok) return added;
    if (added.value.code !== 0) return fail(commandFailed("iptables", added.value.code, added.value.stderr));
  }
  return ok("iptables");
}

/** A sentence when the host's own firewall drops what is forwarded unless a rule of it says otherwise (Docker sets this). */
export async function forwardBlocked(gatewayDevice: string, run: RunCommand): Promise<string | undefined> {
  const shown = await run(["iptables", "-S", "FORWARD"]);
  if (!shown.ok || shown.value.code !== 0 || !/^-P FORWARD DROP/m.test(shown.value.stdout)) return undefined;
  if (shown.value.stdout.includes(` ${gatewayDevice} `)) return undefined;
  return `the host's firewall drops forwarded packets, so guests reach this host only: iptables -I FORWARD -i ${gatewayDevice} -j ACCEPT; iptables -I FORWARD -o ${gatewayDevice} -j ACCEPT`;
}
