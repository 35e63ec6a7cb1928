/** The difference between the ports that are wanted and those that are there, as the commands of one ovs-vsctl transaction. */
import { fail, ok, type Result } from "../../lib/result.ts";
import type { DesiredNetwork, DesiredPort } from "../../vpc/plan-network.ts";
import { type HostError, unsupported } from "../host-error.ts";
import type { OvsBridge, OvsPort, OvsView } from "./ovsdb-watch.ts";

/** What marks a bridge or port as Hive's own. What lacks it is left alone. */
const MARK = "hive";
const NEXT_OFPORT = "hive-next-ofport";

/**
 * The device that the switch opened, by the kernel's number. The userspace datapath keeps a device open by its number: one that was
 * removed and made again under its name stays deaf (seen with 3.1) until its port is removed, and added by the next pass.
 */
const IFINDEX = "hive-ifindex";

/** The number that the bridge remembers for the next new port. */
export function nextOfportOf(bridge: OvsBridge | undefined): number | undefined {
  const text = bridge?.externalIds.get(NEXT_OFPORT);
  return text !== undefined && /^\d{1,5}$/.test(text) ? Number(text) : undefined;
}

/**
 * @param datapath for a bridge that is not there yet, or whose datapath the configuration names
 * @returns the commands, joined by `--`; empty when all is as wanted. Refuses a bridge that is not Hive's (`unsupported`)
 */
export function planVsctl(
  desired: DesiredNetwork,
  view: OvsView,
  datapath: "system" | "netdev",
): Result<readonly string[], HostError> {
  const bridge = view.get(desired.bridge);
  if (bridge && !bridge.externalIds.has(MARK)) {
    return fail(
      unsupported(
        `the bridge ${desired.bridge} is there and is not Hive's: name another one (network.bridge) or remove it`,
      ),
    );
  }
  const commands: string[][] = [];
  const settings = [
    ...(bridge && (desired.datapath === "auto" || bridge.datapathType === datapath)
      ? []
      : [`datapath_type=${datapath}`]),
    ...(bridge?.failMode === "secure" ? [] : ["fail_mode=secure"]),
    ...(bridge ? [] : [`external_ids:${MARK}=1`]),
    ...(nextOfportOf(bridge) === desired.nextOfport ? [] : [`external_ids:${NEXT_OFPORT}=${desired.nextOfport}`]),
  ];
  if (!bridge) commands.push(["add-br", desired.bridge]);
  if (settings.length > 0) commands.push(["set", "Bridge", desired.bridge, ...settings]);

  const wanted = new Set(desired.ports.map((port) => port.name));
  for (const port of bridge?.ports.values() ?? []) {
    if (port.externalIds.has(MARK) && !wanted.has(port.name)) {
      commands.push(["--if-exists", "del-port", desired.bridge, port.name]);
    }
  }
  for (const port of desired.ports) {
    const seen = bridge?.ports.get(port.name);
    const opened = openedDevice(port, seen);
    if (seen && opened && (seen.externalIds.get(IFINDEX) ?? opened) !== opened) {
      commands.push(["--if-exists", "del-port", desired.bridge, port.name]);
      continue;
    }
    const wantedColumns = [...portColumns(port), ...(opened ? [[`external_ids:${IFINDEX}`, opened] as const] : [])];
    const columns = wantedColumns.filter(([column, value]) => !seen || columnOf(seen, column) !== value);
    if (columns.length === 0) continue;
    if (!seen) commands.push(["add-port", desired.bridge, port.name]);
    commands.push(["set", "Interface", port.name, ...columns.map(([column, value]) => `${column}=${quote(value)}`)]);
  }
  return ok(commands.flatMap((command, i) => (i === 0 ? command : ["--", ...command])));
}

function portColumns(port: DesiredPort): readonly (readonly [string, string])[] {
  return [
    ["ofport_request", String(port.ofport)],
    [`external_ids:${MARK}`, "1"],
    ...(port.kind === "internal" ? [["type", "internal"] as const] : []),
    ...(port.mac ? [["mac", port.mac] as const] : []),
    ...(port.interfaceId ? [["external_ids:iface-id", port.interfaceId] as const] : []),
  ];
}

function openedDevice(port: DesiredPort, seen: OvsPort | undefined): string | undefined {
  const { ofport = 0, ifindex = 0 } = seen ?? {};
  return port.kind === "tap" && ofport > 0 && ifindex > 0 ? String(ifindex) : undefined;
}

function columnOf(port: OvsPort, column: string): string | undefined {
  if (column.startsWith("external_ids:")) return port.externalIds.get(column.slice("external_ids:".length));
  if (column === "ofport_request") return port.ofportRequest?.toString();
  if (column === "type") return port.type;
  return column === "mac" ? port.mac : undefined;
}

/** ovs-vsctl reads a colon in a value as a separator unless it is in quotes. */
const quote = (value: string): string => (/^[\w.-]+$/.test(value) ? value : `"${value}"`);
