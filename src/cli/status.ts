import type { StatusReport } from "../operator/status.ts";
import { type Connection, hiveRequest } from "./connection.ts";
import { bold, green, type OutputFormat, print, red, table } from "./output.ts";

/** Prints what the daemon is and holds. @returns the exit code: 1 when a part of it doesn't work */
export async function printStatus(connection: Connection, format: OutputFormat): Promise<number> {
  const report = (await (await hiveRequest(connection, "GET", "/_hive/status")).json()) as StatusReport;
  const healthy = report.network.ok && report.store.writable;
  if (format === "json") print(JSON.stringify(report, null, 2));
  else print(statusText(report));
  return healthy ? 0 : 1;
}

/** The report as a person reads it. */
export function statusText(report: StatusReport): string {
  const { node, network, store } = report;
  const states = Object.entries(report.instances)
    .filter(([, count]) => count > 0)
    .map(([state, count]) => `${count} ${state}`);
  const mark = (good: boolean) => (good ? green("●") : red("●"));
  const used = (part: { physical: number; allocatable: number; used: number }, unit: string) =>
    `${part.used} of ${part.allocatable}${unit} in use (${part.physical}${unit} physical)`;
  const rows: [string, string][] = [
    ["endpoint", report.endpoint],
    ["region", `${report.region}, zone ${node.zone}, account ${report.accountId}`],
    ["uptime", `${duration(report.uptimeMs)}, ${Math.round(report.memoryBytes / 1048576)} MiB resident`],
    ["node", `${node.id}, roles ${node.roles.join(", ")}`],
    ["accelerator", `${node.accel}: ${node.accelReason}`],
    ["network", `${mark(network.ok)} ${network.mode}: ${network.reason}`],
    ["store", `${mark(store.writable)} revision ${store.revision}${store.reason ? `: ${store.reason}` : ""}`],
    ["vCPUs", used(node.vcpus, "")],
    ["memory", used(node.memoryMib, " MiB")],
    ["instances", states.join(", ") || "none"],
  ];
  return `${bold(`Hive ${report.version}`)}\n${table(rows)}`;
}

/** A duration in its two largest units: `3 d 4 h`, `12 s`. */
export function duration(ms: number): string {
  const units: [string, number][] = [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["min", 60_000],
    ["s", 1000],
  ];
  const first = units.findIndex(([, size]) => ms >= size);
  if (first < 0) return `${Math.round(ms)} ms`;
  const parts: string[] = [];
  let rest = ms;
  for (const [name, size] of units.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count} ${name}`);
  }
  return parts.join(" ");
}
