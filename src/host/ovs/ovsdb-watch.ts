/**
 * What Open vSwitch's database says, kept current by its own notifications (RFC 7047, `monitor`): bridges, ports, and the
 * OpenFlow numbers that the switch gave them. Reading it costs nothing; nobody polls. Changes are made by ovs-vsctl.
 */
import type { Clock } from "../../lib/clock.ts";
import { JsonStream } from "./json-stream.ts";
import { keepConnected } from "./keep-connected.ts";

export interface OvsBridge {
  readonly name: string;
  readonly datapathType: string;
  readonly failMode: string | undefined;
  readonly externalIds: ReadonlyMap<string, string>;
  readonly ports: ReadonlyMap<string, OvsPort>;
}
export interface OvsPort {
  readonly name: string;
  readonly type: string;
  readonly ofportRequest: number | undefined;
  readonly ofport: number | undefined;
  readonly mac: string | undefined;
  /** The kernel's number of the device of this name now; 0 when there is none. */
  readonly ifindex: number | undefined;
  /** Why the switch could not open the device. */
  readonly error: string | undefined;
  readonly externalIds: ReadonlyMap<string, string>;
}
export type OvsView = ReadonlyMap<string, OvsBridge>;

export interface OvsdbWatch {
  /** Every bridge by name; undefined while there is no connection. */
  view(): OvsView | undefined;
  /** Why there is none. */
  reason(): string;
  /** Resolves when the first connection was made or has failed. */
  readonly settled: Promise<void>;
  close(): void;
}

const COLUMNS = {
  Bridge: ["name", "ports", "datapath_type", "fail_mode", "external_ids"],
  Port: ["name", "interfaces"],
  Interface: ["name", "type", "ofport", "ofport_request", "mac", "error", "ifindex", "external_ids"],
} as const;
type Row = { readonly [column: string]: unknown };
type Tables = Map<string, Map<string, Row>>;

/** Connects to the database at a unix socket. `changed` is called after every change, and when the connection comes or goes. */
export function watchOvsdb(path: string, clock: Clock, changed: () => void): OvsdbWatch {
  let tables: Tables | undefined;
  let view: OvsView | undefined;
  let reason = "not connected yet";
  let stream = new JsonStream();
  const settled = Promise.withResolvers<void>();
  const close = keepConnected(
    path,
    {
      open(send) {
        stream = new JsonStream();
        const requests = Object.fromEntries(Object.entries(COLUMNS).map(([table, columns]) => [table, { columns }]));
        send(JSON.stringify({ method: "monitor", params: ["Open_vSwitch", "hive", requests], id: "monitor" }));
      },
      data(bytes, send) {
        for (const message of stream.push(bytes) as Row[]) {
          if (message.method === "echo") send(JSON.stringify({ result: message.params, error: null, id: message.id }));
          else if (message.id === "monitor") {
            if (message.error) throw new Error(JSON.stringify(message.error));
            tables = new Map();
            merge(tables, message.result);
          } else if (message.method === "update" && tables) merge(tables, (message.params as unknown[])[1]);
          else continue;
          if (!tables) continue;
          view = undefined;
          settled.resolve();
          changed();
        }
      },
      lost(why) {
        const had = tables !== undefined;
        tables = undefined;
        view = undefined;
        reason = why;
        settled.resolve();
        if (had) changed();
      },
    },
    clock,
  );
  return {
    view: () => {
      if (tables) view ??= viewOf(tables);
      return tables && view;
    },
    reason: () => reason,
    settled: settled.promise,
    close,
  };
}

function merge(tables: Tables, updates: unknown): void {
  for (const [table, rows] of Object.entries(updates as Row)) {
    const held = tables.get(table) ?? new Map<string, Row>();
    tables.set(table, held);
    for (const [uuid, change] of Object.entries(rows as Row)) {
      const after = (change as { new?: Row }).new;
      if (after) held.set(uuid, after);
      else held.delete(uuid);
    }
  }
}

function viewOf(tables: Tables): OvsView {
  const rows = (table: string) => tables.get(table) ?? new Map<string, Row>();
  const ports = rows("Port");
  const interfaces = rows("Interface");
  return new Map(
    [...rows("Bridge").values()].map((bridge) => {
      const name = String(bridge.name);
      const members = uuids(bridge.ports).flatMap((id): [string, OvsPort][] => {
        const port = ports.get(id);
        const device = port && interfaces.get(uuids(port.interfaces)[0] ?? "");
        return port && device ? [[String(port.name), portOf(device)]] : [];
      });
      return [
        name,
        {
          name,
          datapathType: String(bridge.datapath_type),
          failMode: optional(bridge.fail_mode)?.toString(),
          externalIds: mapOf(bridge.external_ids),
          ports: new Map(members),
        },
      ];
    }),
  );
}

const portOf = (row: Row): OvsPort => ({
  name: String(row.name),
  type: String(row.type),
  ofport: numberOf(row.ofport),
  ofportRequest: numberOf(row.ofport_request),
  mac: optional(row.mac)?.toString(),
  ifindex: numberOf(row.ifindex),
  error: optional(row.error)?.toString(),
  externalIds: mapOf(row.external_ids),
});

/** A set as RFC 7047 writes it: one value alone, or `["set", [...]]`. */
function setOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) && value[0] === "set" ? (value[1] as unknown[]) : [value];
}
const optional = (value: unknown): string | number | undefined => setOf(value)[0] as string | number | undefined;
const numberOf = (value: unknown): number | undefined => {
  const found = optional(value);
  return typeof found === "number" ? found : undefined;
};
const uuids = (value: unknown): readonly string[] => setOf(value).map((v) => String((v as readonly unknown[])[1]));
const mapOf = (value: unknown): ReadonlyMap<string, string> =>
  new Map(Array.isArray(value) && value[0] === "map" ? (value[1] as [string, string][]) : []);
