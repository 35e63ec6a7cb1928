/**
 * One node of a replicated store as a process, for benchmarks and tests of real processes: the store, its peers over TCP, and
 * the configuration service on the Redis protocol in front. Asked over stdin, one JSON object a line; answers on stdout.
 *
 *   bun test/support/store-node.ts '{"id":"n1","directory":"…","port":0,"voters":["n1","n2","n3"],"secret":"…"}'
 *   → {"ready":true,"port":…,"redis":…}
 *   {"do":"peers","peers":{"n2":{"host":"127.0.0.1","port":…}}}    where the others are
 *   {"do":"status"}  {"do":"transfer","to":"n2"}  {"do":"change","change":{"n4":"voter"}}
 *   {"do":"hang"}    its disk finishes nothing from now on          {"do":"close"}
 *   {"do":"block","ms":…}  its main thread does nothing else for so long
 */
import { realDisk } from "../../src/cluster/kv/real-disk.ts";
import { openTcpTransport, type PeerAddress } from "../../src/cluster/node/tcp-transport.ts";
import { openRaftStore } from "../../src/cluster/open-raft-store.ts";
import { configurationOf } from "../../src/cluster/raft/configuration.ts";
import type { ConfigurationChange } from "../../src/cluster/raft/types.ts";
import { present } from "../../src/lib/assert.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { jsonLog, silentLog } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import type { Result } from "../../src/lib/result.ts";
import { configSchema } from "../../src/model/config.ts";
import { allTables } from "../../src/model/tables.ts";
import { ClusterSettings } from "../../src/settings/cluster-settings.ts";
import { SettingsFeed } from "../../src/settings/feed.ts";
import { Notifications } from "../../src/settings/redis/notifications.ts";
import { ScanCursors } from "../../src/settings/redis/scan-cursors.ts";
import { startRedisServer } from "../../src/settings/redis/server.ts";
import { Settings } from "../../src/settings/settings.ts";
import { faultyDisk } from "./store-node-disk.ts";
import { NODE_SECRET, NODE_USER } from "./store-node-login.ts";
import { FAULTS, LOSES_UNSYNCED } from "./store-node-worker.ts";

export type NodeConfig = {
  readonly id: string;
  readonly directory: string;
  /** Where peers connect; 0 for any. */
  readonly port: number;
  /** What a new directory begins with; one voter is a cluster of its own, none waits to be added. */
  readonly voters: readonly string[];
  readonly secret: string;
  /** Keeps writes in memory until they are synced, so that a kill loses the others as a power cut would. */
  readonly losesUnsynced?: boolean;
  /** Consensus lives beside the store, and not in a Worker. */
  readonly inProcess?: boolean;
};

type Request =
  | { readonly do: "peers"; readonly peers: Readonly<Record<string, PeerAddress>> }
  | { readonly do: "status" | "hang" | "close" }
  | { readonly do: "block"; readonly ms: number }
  | { readonly do: "transfer"; readonly to?: string }
  | { readonly do: "change"; readonly change: ConfigurationChange };

const config = JSON.parse(process.argv[2]!) as NodeConfig;
const faulty = faultyDisk(realDisk, config.losesUnsynced ?? false);

function demand<T>(result: Result<T, unknown>): T {
  if (result.ok) return result.value;
  console.log(JSON.stringify({ failed: result.error }));
  process.exit(1);
}

const log =
  process.env.HIVE_LOG === undefined
    ? silentLog
    : jsonLog(
        (line) => process.stderr.write(line),
        "debug",
        () => systemClock.now(),
      );
const shared = { clock: systemClock, random: systemRandom, log };
const listen = {
  hostname: "127.0.0.1",
  port: config.port,
  clusterId: "store-node-test",
  secret: Buffer.from(config.secret),
  program: new URL("./store-node-worker.ts", import.meta.url),
};
process.env[LOSES_UNSYNCED] = config.losesUnsynced ? "1" : "0";
const faults = new BroadcastChannel(FAULTS);
const transport = config.inProcess
  ? demand(
      openTcpTransport({
        ...shared,
        self: { id: config.id, clusterId: listen.clusterId, secret: listen.secret },
        hostname: listen.hostname,
        port: listen.port,
      }),
    )
  : undefined;
const opened = demand(
  await openRaftStore({
    ...shared,
    directory: config.directory,
    tables: allTables,
    disk: faulty.disk,
    cluster: { id: config.id, configuration: configurationOf(config.voters), transport: transport ?? listen },
  }),
);
const { store, consensus } = opened;
const listener = present(transport ?? opened.listener, "a node listens for the others");
const settings = new Settings(store, systemClock);
const cluster = new ClusterSettings(configSchema.parse({}), store.read(), log);
const feed = new SettingsFeed({ settings, cluster, log });
const redis = demand(
  startRedisServer({
    settings,
    cluster,
    notifications: new Notifications(feed),
    cursors: new ScanCursors(),
    clock: systemClock,
    log,
    secretOf: (user) => (user === NODE_USER ? NODE_SECRET : undefined),
    hostname: "127.0.0.1",
    port: 0,
    version: "0",
  }),
);
console.log(JSON.stringify({ ready: true, port: listener.port, redis: redis.address }));

async function answer(request: Request): Promise<unknown> {
  switch (request.do) {
    case "peers":
      listener.setPeers(new Map(Object.entries(request.peers)));
      return {};
    case "status":
      return { consensus: consensus.status(), store: store.status(), memory: process.memoryUsage.rss() };
    case "transfer":
      return consensus.transferLeadership(request.to);
    case "change":
      return consensus.changeConfiguration(request.change);
    case "hang":
      faulty.hang();
      faults.postMessage("hang");
      return {};
    case "block":
      for (const until = performance.now() + request.ms; performance.now() < until; );
      return {};
    case "close":
      redis.stop();
      await feed.stop();
      await store.close();
      await transport?.close();
      return {};
  }
}

for await (const line of console) {
  if (line === "") continue;
  const request = JSON.parse(line) as Request;
  console.log(JSON.stringify(await answer(request)));
  if (request.do === "close") process.exit(0);
}
// Whoever asked is gone.
process.exit(1);
