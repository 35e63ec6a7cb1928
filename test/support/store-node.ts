/**
 * One node of a replicated store as a process, for benchmarks and tests of real processes: the store, its peers over TCP, and
 * the configuration service on the Redis protocol in front. Asked over stdin, one JSON object a line; answers on stdout.
 *
 *   bun test/support/store-node.ts '{"id":"n1","directory":"…","port":0,"voters":["n1","n2","n3"],"secret":"…"}'
 *   → {"ready":true,"port":…,"redis":…}
 *   {"do":"peers","peers":{"n2":{"host":"127.0.0.1","port":…}}}    where the others are
 *   {"do":"status"}  {"do":"transfer","to":"n2"}  {"do":"change","change":{"n4":"voter"}}
 *   {"do":"hang"}    its disk finishes nothing from now on          {"do":"close"}
 */

import type { Disk, DiskFile } from "../../src/cluster/kv/disk.ts";
import { realDisk } from "../../src/cluster/kv/real-disk.ts";
import { openTcpTransport, type PeerAddress } from "../../src/cluster/node/tcp-transport.ts";
import { openRaftStore } from "../../src/cluster/open-raft-store.ts";
import { configurationOf } from "../../src/cluster/raft/configuration.ts";
import type { ConfigurationChange } from "../../src/cluster/raft/types.ts";
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
import { NODE_SECRET, NODE_USER } from "./store-node-login.ts";

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
};

type Request =
  | { readonly do: "peers"; readonly peers: Readonly<Record<string, PeerAddress>> }
  | { readonly do: "status" | "hang" | "close" }
  | { readonly do: "transfer"; readonly to?: string }
  | { readonly do: "change"; readonly change: ConfigurationChange };

const config = JSON.parse(process.argv[2]!) as NodeConfig;
let isHung = false;

/** The real disk, whose writes and syncs can be made to never end. */
function withFaults(disk: Disk): Disk {
  const never = new Promise<never>(() => {});
  const file = (inner: DiskFile): DiskFile => {
    let held: { offset: number; bytes: Uint8Array }[] = [];
    const flush = async () => {
      const writes = held;
      held = [];
      for (const { offset, bytes } of writes) await inner.write(offset, bytes);
    };
    return {
      ...inner,
      async read(offset, length, reuse) {
        await flush();
        return inner.read(offset, length, reuse);
      },
      async write(offset, bytes) {
        if (isHung) await never;
        if (config.losesUnsynced) held.push({ offset, bytes: Uint8Array.from(bytes) });
        else await inner.write(offset, bytes);
      },
      async writeDurable(offset, bytes) {
        if (isHung) await never;
        await flush();
        await inner.writeDurable(offset, bytes);
      },
      async datasync() {
        if (isHung) await never;
        await flush();
        await inner.datasync();
      },
    };
  };
  return { ...disk, open: async (path, mode) => file(await disk.open(path, mode)) };
}

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
const transport = demand(
  openTcpTransport({
    ...shared,
    self: { id: config.id, clusterId: "store-node-test", secret: Buffer.from(config.secret) },
    hostname: "127.0.0.1",
    port: config.port,
  }),
);
const opened = demand(
  await openRaftStore({
    ...shared,
    directory: config.directory,
    tables: allTables,
    disk: withFaults(realDisk),
    cluster: { id: config.id, configuration: configurationOf(config.voters), transport },
  }),
);
const { store, consensus } = opened;
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
console.log(JSON.stringify({ ready: true, port: transport.port, redis: redis.address }));

async function answer(request: Request): Promise<unknown> {
  switch (request.do) {
    case "peers":
      transport.setPeers(new Map(Object.entries(request.peers)));
      return {};
    case "status":
      return { consensus: consensus.status(), store: store.status(), memory: process.memoryUsage.rss() };
    case "transfer":
      return consensus.transferLeadership(request.to);
    case "change":
      return consensus.changeConfiguration(request.change);
    case "hang":
      isHung = true;
      return {};
    case "close":
      redis.stop();
      await feed.stop();
      await store.close();
      await transport.close();
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
