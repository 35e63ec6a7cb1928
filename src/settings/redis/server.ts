/** The listener of the Redis protocol: takes connections up to a bound, and sees off strangers who never say who they are. */
import type { Socket } from "bun";
import { fail, ok, type Result } from "../../lib/result.ts";
import { MINUTE_MS, SECOND_MS } from "../../lib/units.ts";
import type { ClusterSettings } from "../cluster-settings.ts";
import { connectionsMax } from "../cluster-settings.ts";
import { Connection } from "./connection.ts";
import type { ServerFacts } from "./server-info.ts";
import type { Shared } from "./session.ts";

/** How long one may be connected without having proven an access key; the most, as it is looked at now and then. */
const STRANGER_MS = MINUTE_MS;
const SWEEP_MS = 10 * SECOND_MS;
/** A peer that has vanished without a word is noticed by TCP. */
const KEEP_ALIVE_MS = MINUTE_MS;

export interface RedisServerOptions extends Omit<Shared, "facts"> {
  readonly hostname: string;
  /** 0: any. */
  readonly port: number;
  readonly cluster: ClusterSettings;
  /** Hive's. */
  readonly version: string;
}

export interface RedisServer {
  /** `redis://host:port`, with the port that was taken. */
  readonly address: string;
  /** Ends the listener and its connections. */
  stop(): void;
}

/** Each socket's connection, and since when it has been a stranger's. */
interface SocketData {
  connection: Connection | undefined;
  strangerSinceMs: number;
}

/** Listens. Fails with a sentence when the address cannot be had. */
export function startRedisServer(options: RedisServerOptions): Result<RedisServer, string> {
  const { settings, cluster, clock, hostname, log } = options;
  const startedMs = clock.monotonicMs();
  const open = new Set<Socket<SocketData>>();
  let lastId = 0;
  const facts = (): ServerFacts => {
    const { role, revision, leases } = settings.store.status();
    return {
      version: options.version,
      port: listener.port,
      connections: open.size,
      uptimeMs: clock.monotonicMs() - startedMs,
      role,
      memoryBytes: process.memoryUsage.rss(),
      revision,
      keys: settings.count(),
      leases,
    };
  };
  const shared: Shared = { ...options, facts };

  let listener: Bun.TCPSocketListener<SocketData>;
  try {
    listener = Bun.listen<SocketData>({
      hostname,
      port: options.port,
      exclusive: true,
      // Who has said all (`printf … | nc`) is still answered.
      allowHalfOpen: true,
      socket: {
        open(socket) {
          socket.data = { connection: undefined, strangerSinceMs: clock.monotonicMs() };
          if (open.size >= cluster.get(connectionsMax)) {
            socket.write("-ERR max number of clients reached\r\n");
            socket.end();
            return;
          }
          open.add(socket);
          socket.setNoDelay(true);
          socket.setKeepAlive(true, KEEP_ALIVE_MS);
          socket.data.connection = new Connection(++lastId, shared, socket);
        },
        data: (socket, chunk) => socket.data.connection?.receive(chunk),
        drain: (socket) => socket.data.connection?.drained(),
        end: (socket) => socket.data.connection?.ended(),
        close(socket) {
          open.delete(socket);
          socket.data?.connection?.closed();
        },
        error(socket, cause) {
          log.info("config.connection-failed", { remoteAddress: socket.remoteAddress, reason: cause.message });
          socket.data?.connection?.close();
        },
      },
    });
  } catch (cause) {
    const isTaken = (cause as { code?: unknown }).code === "EADDRINUSE";
    const why = isTaken ? "another program uses it (ss -ltnp shows which)" : String((cause as Error).message ?? cause);
    return fail(`--config-listen ${hostname}:${options.port} cannot be had: ${why}`);
  }

  const sweep = setInterval(() => {
    const now = clock.monotonicMs();
    for (const { data } of open) {
      if (!data.connection?.isStranger) data.strangerSinceMs = now;
      else if (now - data.strangerSinceMs > STRANGER_MS) data.connection.close();
    }
  }, SWEEP_MS);
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  const address = `redis://${host}:${listener.port}`;
  log.info("config.listening", { address });
  return ok({
    address,
    stop() {
      clearInterval(sweep);
      listener.stop(true);
    },
  });
}
