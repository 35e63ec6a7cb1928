/** INFO: what clients look at before they send anything (`loading:0`), and what an operator looks for. */

/** Redis's own version whose behaviour this server follows; libraries refuse what looks too old. */
const REDIS_VERSION = "7.2.0";

export interface ServerFacts {
  /** Hive's. */
  readonly version: string;
  readonly port: number;
  readonly connections: number;
  readonly uptimeMs: number;
  readonly role: "leader" | "follower" | "single";
  readonly memoryBytes: number;
  readonly revision: number;
  readonly keys: number;
  readonly leases: number;
}

/** As Redis writes it: sections of `name:value`. Every section is given, whichever was asked for. */
export function describeServer(facts: ServerFacts): string {
  const sections: Readonly<Record<string, Readonly<Record<string, string | number>>>> = {
    Server: {
      redis_version: REDIS_VERSION,
      redis_mode: "standalone",
      hive_version: facts.version,
      process_id: process.pid,
      tcp_port: facts.port,
      uptime_in_seconds: Math.floor(facts.uptimeMs / 1000),
    },
    Clients: { connected_clients: facts.connections },
    Memory: { used_memory: facts.memoryBytes },
    Persistence: { loading: 0 },
    // Every node takes writes, so none is a replica to its clients.
    Replication: { role: "master", connected_slaves: 0, hive_role: facts.role, hive_revision: facts.revision },
    Keyspace: facts.keys > 0 ? { db0: `keys=${facts.keys},expires=${facts.leases},avg_ttl=0` } : {},
  };
  return Object.entries(sections)
    .map(([title, values]) => {
      const lines = Object.entries(values).map(([name, value]) => `${name}:${value}\r\n`);
      return `# ${title}\r\n${lines.join("")}`;
    })
    .join("\r\n");
}
