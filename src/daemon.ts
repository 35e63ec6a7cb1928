/**
 * The composition root: builds every part in order, joins ports to adapters, and stops them in reverse. No logic of its
 * own. The endpoint answers before the agents have looked at the host: what they find changes states, not answers.
 */
import { hostname } from "node:os";
import { join } from "node:path";
import { realDisk } from "./cluster/kv/real-disk.ts";
import { openEmbeddedStore } from "./cluster/open-embedded-store.ts";
import { openEtcdStore } from "./cluster/open-etcd-store.ts";
import { computeHandlers } from "./compute/handlers.ts";
import { instanceType } from "./compute/instance-types.ts";
import { listenAddress } from "./config/load-config.ts";
import { type Agents, startAgents } from "./daemon/agents.ts";
import { importPorts } from "./daemon/images.ts";
import { createGateway } from "./gateway/gateway.ts";
import { loadNodeId, writeAwsProfile } from "./host/data-dir.ts";
import { createCredentials } from "./iam/credentials.ts";
import { ensureRootKey, rootKeyFromEnvironment } from "./iam/root-key.ts";
import { loadSealingKey } from "./iam/sealing-key.ts";
import { stsHandlers } from "./iam/sts-handlers.ts";
import { systemClock } from "./lib/clock.ts";
import type { Log, LogThreshold } from "./lib/log.ts";
import { Metrics } from "./lib/metrics.ts";
import { systemRandom } from "./lib/random.ts";
import { fail, ok, type Result } from "./lib/result.ts";
import { VERSION } from "./lib/version.ts";
import { type Config, zonesOf } from "./model/config.ts";
import { type AccountId, type NodeId, trustedId } from "./model/ids.ts";
import type { Role } from "./model/roles.ts";
import { allTables, snapshots } from "./model/tables.ts";
import { consoleWebSocket } from "./operator/console-socket.ts";
import { operatorRoutes } from "./operator/routes.ts";
import { reportStatus } from "./operator/status.ts";
import { ClusterSettings, gracefulShutdownSeconds, logLevel } from "./settings/cluster-settings.ts";
import { SettingsFeed } from "./settings/feed.ts";
import { Notifications } from "./settings/redis/notifications.ts";
import { ScanCursors } from "./settings/redis/scan-cursors.ts";
import { type RedisServer, startRedisServer } from "./settings/redis/server.ts";
import { Settings } from "./settings/settings.ts";
import { ImageFiles } from "./storage/image-files.ts";
import { decideDefaultVpc } from "./vpc/default-vpc.ts";
import { vpcHandlers } from "./vpc/handlers.ts";

export interface DaemonOptions {
  readonly config: Config;
  readonly roles: ReadonlySet<Role>;
  /** Absolute. */
  readonly dataDir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Log;
  /** The log's, for the cluster's setting to move. */
  readonly logThreshold: LogThreshold;
}

export interface Daemon {
  /** `http://host:port`, with the port that was taken. */
  readonly endpoint: string;
  /** `redis://host:port` of the configuration store, with the port that was taken; absent where it is not served. */
  readonly configAddress: string | undefined;
  /** The folder of the AWS profile that reaches it. */
  readonly awsFolder: string;
  /** Stops answering, then the agents, then closes the store. The machines go on unless `stopInstances`. */
  stop(options: { readonly stopInstances: boolean }): Promise<void>;
}

/** Starts a daemon. Fails with a sentence on what is wrong, where, and what to do; nothing runs then. */
export async function startDaemon(options: DaemonOptions): Promise<Result<Daemon, string>> {
  const { dataDir, log, logThreshold, roles } = options;
  const clock = systemClock;
  const random = systemRandom;
  const startedAt = clock.now();
  const accountId: AccountId = trustedId(options.config.accountId);

  const given = rootKeyFromEnvironment(options.env);
  if (!given.ok) return fail(given.error.message);
  const node = await loadNodeId(dataDir, random);
  if (!node.ok) return fail(node.error.message);
  const nodeId: NodeId = trustedId(node.value);
  const place = { directory: join(dataDir, "store"), disk: realDisk };
  const storeParts = { tables: allTables, clock, random, log };
  const opened =
    options.config.store === "raft"
      ? await openEmbeddedStore({ ...place, ...storeParts })
      : await openEtcdStore({ url: options.config.store, lock: place, ...storeParts });
  if (!opened.ok) return fail(opened.error.message);
  const store = opened.value;
  const settings = new Settings(store, clock);
  const cluster = new ClusterSettings(options.config, store.read(), log);
  const config = cluster.configuration();
  cluster.follow(logLevel, (level) => {
    logThreshold.level = level;
  });
  const feed = new SettingsFeed({ settings, cluster, log });
  const abandon = async (message: string) => {
    await feed.stop();
    await store.close();
    return fail(message);
  };

  const sealingKey = await loadSealingKey(join(dataDir, "keys", "sealing"), random);
  if (!sealingKey.ok) return abandon(sealingKey.error.message);
  const rootKey = await ensureRootKey(store, accountId, given.value, {
    sealingKey: sealingKey.value,
    random,
    now: startedAt,
  });
  if (!rootKey.ok) return abandon(rootKey.error.message);
  const made = await store.transact((state) =>
    ok({ writes: decideDefaultVpc(state, accountId, config.region, zonesOf(config), random, startedAt), value: null }),
  );
  if (!made.ok) return abandon(made.error.message);

  const files = new ImageFiles(dataDir, random);
  const swept = await files.open(
    new Set(
      store
        .read()
        .lookup(snapshots, "byNode", nodeId)
        .map((s) => s.id as string),
    ),
  );
  if (swept.removed.length > 0) log.info("images.swept", { removed: swept.removed });

  const agents: Agents = startAgents({
    ...options,
    config,
    gracefulShutdownSeconds: () => cluster.get(gracefulShutdownSeconds),
    store,
    nodeId,
    sealingKey: sealingKey.value,
    startedAt,
    clock,
    random,
  });

  // Placement needs to know this node before the first request.
  await agents.announced;
  const memoryOf = (name: string) => instanceType(config, name)?.memoryMib;
  const routes = operatorRoutes({
    authenticate: (request, body) => gateway.authenticate(request, body),
    status: async () =>
      reportStatus(store.read(), {
        nodeId,
        version: VERSION,
        endpoint,
        region: config.region,
        accountId,
        uptimeMs: clock.now() - startedAt,
        memoryBytes: process.memoryUsage.rss(),
        store: store.status(),
        memoryOf,
      }),
    receive: (body, maxBytes) => files.receive(body, maxBytes),
    images: importPorts({ files, store, nodeId, accountId, region: config.region, clock, random }),
    consoles: agents.consoles,
    config: { settings, configuration: options.config },
    identityCertificate: () => agents.identityCertificate(),
    log,
  });
  const credentials = createCredentials(store, sealingKey.value);
  const gateway = createGateway({
    config,
    store,
    services: { ec2: { ...computeHandlers(agents.computePorts), ...vpcHandlers }, sts: stsHandlers },
    credentials,
    tokenKey: sealingKey.value.derive("page tokens"),
    clock,
    random,
    log,
    metrics: new Metrics(),
    hiveRoutes: (request, server) => routes.fetch(request, { server: server as never }),
  });

  let endpoint = "";
  let server: Bun.Server<never> | undefined;
  if (roles.has("gateway")) {
    const address = listenAddress(config.listen);
    try {
      server = Bun.serve({
        ...address,
        maxRequestBodySize: Number.MAX_SAFE_INTEGER,
        idleTimeout: 255,
        fetch: (request: Request, own: Bun.Server<never>) => gateway.fetch(request, own),
        websocket: consoleWebSocket as never,
      });
    } catch (cause) {
      await agents.stop();
      return abandon(cannotListen(config.listen, cause));
    }
    const host = address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname;
    endpoint = `http://${host === "0.0.0.0" ? "127.0.0.1" : host}:${server.port}`;
  }
  let redis: RedisServer | undefined;
  if (config.configListen !== undefined) {
    const started = startRedisServer({
      ...listenAddress(config.configListen),
      settings,
      cluster,
      notifications: new Notifications(feed),
      cursors: new ScanCursors(),
      secretOf: (accessKeyId) => credentials.lookup(accessKeyId)?.secret,
      version: VERSION,
      clock,
      log,
    });
    if (!started.ok) {
      await server?.stop(true);
      await agents.stop();
      return abandon(started.error);
    }
    redis = started.value;
  }
  const profile = await writeAwsProfile(dataDir, {
    endpoint,
    region: config.region,
    accessKeyId: rootKey.value.accessKeyId,
    secretAccessKey: rootKey.value.secretAccessKey.reveal(),
  });
  const stop: Daemon["stop"] = async (how) => {
    if (how.stopInstances) await agents.stopInstances();
    redis?.stop();
    await server?.stop(true);
    await agents.stop();
    await feed.stop();
    await store.close();
    log.info("daemon.stopped", { uptimeMs: clock.now() - startedAt });
  };
  if (!profile.ok) {
    await stop({ stopInstances: false });
    return fail(profile.error.message);
  }
  log.info("daemon.started", { version: VERSION, nodeId, host: hostname(), endpoint, tookMs: clock.now() - startedAt });
  return ok({ endpoint, configAddress: redis?.address, awsFolder: profile.value, stop });
}

function cannotListen(listen: string, cause: unknown): string {
  const code = (cause as { code?: unknown }).code;
  if (code === "EADDRINUSE") {
    return `${listen} is in use by another program (ss -ltnp shows which); choose another address with --listen`;
  }
  return `cannot listen on ${listen}: ${cause instanceof Error ? cause.message : String(cause)}`;
}
