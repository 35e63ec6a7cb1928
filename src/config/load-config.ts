/** The configuration: the file, then the flags over it, checked as one. */
import { parse, YAMLParseError } from "yaml";
import { fail, ok, type Result } from "../lib/result.ts";
import { type Config, configSchema, zoneOf, zonesOf } from "../model/config.ts";
import { parseCidr } from "../model/ipv4.ts";

/** Flags of `hive server` that override the file; absent ones leave it alone. */
export interface ConfigFlags {
  readonly listen?: string | undefined;
  readonly configListen?: string | undefined;
  readonly store?: string | undefined;
  readonly accel?: string | undefined;
  readonly network?: string | undefined;
  readonly region?: string | undefined;
  readonly zone?: string | undefined;
  readonly accountId?: string | undefined;
  readonly logLevel?: string | undefined;
}

/**
 * Reads a configuration. Pure.
 * @param text the YAML file's content; empty for none
 * @param name what the messages call the file
 * @returns the whole configuration, or every complaint as one text, a line each
 */
export function readConfig(text: string, name: string, flags: ConfigFlags): Result<Config, string> {
  let document: unknown;
  try {
    document = parse(text) ?? {};
  } catch (cause) {
    if (!(cause instanceof YAMLParseError)) throw cause;
    return fail(`${name} is not YAML: ${cause.message}`);
  }
  if (typeof document !== "object" || Array.isArray(document)) return fail(`${name} is not a mapping of settings`);
  const parsed = configSchema.safeParse(withFlags(document as Record<string, unknown>, flags));
  if (!parsed.success) {
    return fail(parsed.error.issues.map((issue) => `${issue.path.join(".") || name}: ${issue.message}`).join("\n"));
  }
  const complaint = inconsistency(parsed.data);
  return complaint === undefined ? ok(parsed.data) : fail(complaint);
}

function withFlags(document: Record<string, unknown>, flags: ConfigFlags): Record<string, unknown> {
  const { network, ...rest } = flags;
  const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  const merged = { ...document, ...given };
  if (network === undefined) return merged;
  return { ...merged, network: { ...(document.network as object | undefined), mode: network } };
}

function inconsistency(config: Config): string | undefined {
  const zones = zonesOf(config);
  if (!zones.includes(zoneOf(config))) return `zone: ${zoneOf(config)} is not one of the zones ${zones.join(", ")}`;
  for (const pool of ["publicPool", "metadataPool"] as const) {
    const cidr = parseCidr(config.network[pool]);
    if (!cidr.ok) return `network.${pool}: ${cidr.error}`;
    if (cidr.value.prefix > 28) return `network.${pool}: ${config.network[pool]} is smaller than a /28`;
  }
  for (const [name, address] of Object.entries({ listen: config.listen, configListen: config.configListen })) {
    if (address === undefined || /^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/.test(address)) continue;
    return `${name}: ${address} is written host:port, as in 127.0.0.1:${name === "listen" ? 9999 : 6379}`;
  }
  return undefined;
}

/** Splits `host:port`; IPv6 in brackets. */
export function listenAddress(listen: string): { readonly hostname: string; readonly port: number } {
  const at = listen.lastIndexOf(":");
  return { hostname: listen.slice(0, at).replace(/^\[|\]$/g, ""), port: Number(listen.slice(at + 1)) };
}
