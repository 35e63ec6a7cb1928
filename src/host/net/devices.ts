/** Addresses and routes of the bridge's internal ports, and the host's switches that forwarding needs. */
import { all, fail, ok, type Result } from "../../lib/result.ts";
import type { DesiredDevice } from "../../vpc/plan-network.ts";
import { commandFailed, type HostError } from "../host-error.ts";
import type { RunCommand } from "./tap.ts";

/** What `ip -j` tells, as far as it is read here. */
export interface HostRoute {
  readonly dst: string;
  readonly dev?: string;
  readonly prefsrc?: string;
  readonly protocol?: string;
}
export interface HostLink {
  readonly ifname: string;
  readonly flags: readonly string[];
  readonly addr_info: readonly { readonly family: string; readonly local: string; readonly prefixlen: number }[];
}
export interface HostAddressing {
  readonly routes: readonly HostRoute[];
  readonly links: readonly HostLink[];
}

/** Reads the main routing table and every device's IPv4 addresses. */
export async function readAddressing(run: RunCommand): Promise<Result<HostAddressing, HostError>> {
  const answers = await Promise.all([
    run(["ip", "-4", "-j", "route", "show"]),
    run(["ip", "-4", "-j", "addr", "show"]),
  ]);
  const read = all(answers);
  if (!read.ok) return read;
  const refused = read.value.find((answer) => answer.code !== 0);
  if (refused) return fail(commandFailed("ip", refused.code, refused.stderr));
  const [routes, links] = read.value.map((answer) => JSON.parse(answer.stdout || "[]"));
  return ok({ routes, links });
}

/** Blocks with a route by another device than `own`; single addresses and the default route left out. */
export function foreignBlocks(seen: HostAddressing, own: readonly string[]): string[] {
  return seen.routes
    .filter((route) => !own.includes(route.dev ?? "") && route.dst !== "default")
    .map((route) => (route.dst.includes("/") ? route.dst : `${route.dst}/32`))
    .filter((block) => /^[\d.]+\/\d+$/.test(block));
}

/** The lines for `ip -batch` that make the devices as wanted: up, exactly these addresses, exactly these routes. Pure. */
export function planDevices(desired: readonly DesiredDevice[], seen: HostAddressing): string[] {
  return desired.flatMap(({ name, addresses, routes }) => {
    const link = seen.links.find((candidate) => candidate.ifname === name);
    const has = (link?.addr_info ?? []).filter((a) => a.family === "inet").map((a) => `${a.local}/${a.prefixlen}`);
    const ways = seen.routes.filter((route) => route.dev === name && route.protocol !== "kernel");
    return [
      ...(link?.flags.includes("UP") ? [] : [`link set dev ${name} up`]),
      ...has.filter((address) => !addresses.includes(address)).map((address) => `addr del ${address} dev ${name}`),
      ...addresses.filter((address) => !has.includes(address)).map((address) => `addr replace ${address} dev ${name}`),
      ...ways
        .filter((way) => !routes.some((route) => route.cidr === way.dst))
        .map((way) => `route del ${way.dst} dev ${name}`),
      ...routes
        .filter((route) => !ways.some((way) => way.dst === route.cidr && way.prefsrc === route.source))
        .map((route) => `route replace ${route.cidr} dev ${name} src ${route.source}`),
    ];
  });
}

/** Makes the devices as wanted. @returns how many things were changed */
export async function applyDevices(
  desired: readonly DesiredDevice[],
  run: RunCommand,
): Promise<Result<number, HostError>> {
  const seen = await readAddressing(run);
  if (!seen.ok) return seen;
  const lines = planDevices(desired, seen.value);
  if (lines.length === 0) return ok(0);
  const done = await run(["ip", "-batch", "-"], { stdin: `${lines.join("\n")}\n` });
  if (!done.ok) return done;
  return done.value.code === 0
    ? ok(lines.length)
    : fail(commandFailed("ip -batch", done.value.code, done.value.stderr));
}

/**
 * Lets the host forward, refuses sources on the bridge's ports that belong elsewhere (rp_filter), and keeps IPv6 off them, which
 * guests have none of yet. Written through /proc by `tee`: the sysctl program is not on every host.
 */
export async function applySysctls(devices: readonly string[], run: RunCommand): Promise<Result<void, HostError>> {
  const settings: [string, string, "needed" | "if-there"][] = [
    ["/proc/sys/net/ipv4/ip_forward", "1", "needed"],
    ...devices.flatMap((device): [string, string, "needed" | "if-there"][] => [
      [`/proc/sys/net/ipv4/conf/${device}/rp_filter`, "1", "needed"],
      [`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`, "1", "if-there"],
    ]),
  ];
  const done = await Promise.all(
    settings.map(async ([path, value, need]) => ({ need, result: await run(["tee", path], { stdin: value }) })),
  );
  for (const { need, result } of done) {
    if (need === "if-there") continue;
    if (!result.ok) return result;
    if (result.value.code !== 0) return fail(commandFailed("tee", result.value.code, result.value.stderr));
  }
  return ok(undefined);
}
