/** A gateway on loopback with a real store in memory, for tests. */
import { openMemoryStore } from "../../src/cluster/open-memory-store.ts";
import { createGateway, type Gateway, type GatewayOptions } from "../../src/gateway/gateway.ts";
import { createCredentials } from "../../src/iam/credentials.ts";
import { ensureRootKey } from "../../src/iam/root-key.ts";
import { SealingKey } from "../../src/iam/sealing-key.ts";
import { stsHandlers } from "../../src/iam/sts-handlers.ts";
import { assert } from "../../src/lib/assert.ts";
import { type Clock, systemClock } from "../../src/lib/clock.ts";
import { jsonLog } from "../../src/lib/log.ts";
import { Metrics } from "../../src/lib/metrics.ts";
import { seededRandom, systemRandom } from "../../src/lib/random.ts";
import { configSchema } from "../../src/model/config.ts";
import type { AccountId } from "../../src/model/ids.ts";
import type { HandlerTable } from "../../src/model/operation.ts";
import type { Store } from "../../src/model/store.ts";
import { allTables } from "../../src/model/tables.ts";
import { signRequest } from "../../src/protocol/sigv4-sign.ts";
import type { Ec2Operations } from "../../src/schema/ec2/types.ts";

export interface TestGateway {
  readonly url: string;
  readonly gateway: Gateway;
  readonly store: Store;
  readonly metrics: Metrics;
  /** Every log event so far. */
  readonly events: readonly { readonly [field: string]: unknown }[];
  readonly keys: { readonly accessKeyId: string; readonly secretAccessKey: string };
  /** A signed call by its wire parameters: status, headers, text. */
  call(action: string, parameters?: Readonly<Record<string, string>>, options?: CallOptions): Promise<Answered>;
  stop(): Promise<void>;
}
export interface CallOptions {
  readonly service?: string;
  readonly version?: string;
  readonly region?: string;
}
export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The error's code and message; undefined when it is none. */
  readonly code: string | undefined;
  readonly message: string | undefined;
}

export const TEST_ACCOUNT = "123456789012" as AccountId;

/** Starts one on a free port. `over` replaces parts of its options. */
export async function startTestGateway(
  ec2: HandlerTable<Ec2Operations>,
  over: Partial<GatewayOptions> & { readonly rootKey?: TestGateway["keys"] } = {},
): Promise<TestGateway> {
  const clock = over.clock ?? systemClock;
  const store = over.store ?? (await openMemoryStore(allTables, clock));
  const sealingKey = new SealingKey(seededRandom(7).bytes(32));
  const keys = over.rootKey ?? (await rootKeyIn(store, sealingKey, clock));
  const events: { [field: string]: unknown }[] = [];
  const metrics = new Metrics();
  const gateway = createGateway({
    config: configSchema.parse({ accountId: TEST_ACCOUNT }),
    services: { ec2, sts: stsHandlers },
    credentials: createCredentials(store, sealingKey),
    tokenKey: sealingKey.derive("page tokens"),
    random: systemRandom,
    log: jsonLog(
      (line) => void events.push(JSON.parse(line)),
      "info",
      () => clock.now(),
    ),
    metrics,
    ...over,
    store,
    clock,
  });
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request, server) => gateway.fetch(request, server),
  });
  const url = `http://127.0.0.1:${server.port}`;
  return {
    url,
    gateway,
    store,
    metrics,
    events,
    keys,
    async call(action, parameters = {}, { service = "ec2", version, region = "us-east-1" } = {}) {
      const body = new URLSearchParams({
        Action: action,
        Version: version ?? (service === "sts" ? "2011-06-15" : "2016-11-15"),
        ...parameters,
      }).toString();
      const headers = signRequest(
        {
          method: "POST",
          url: new URL(`${url}/`),
          service,
          region,
          headers: { "content-type": "application/x-www-form-urlencoded; charset=utf-8" },
          body,
          now: clock.now(),
        },
        keys,
      );
      return answered(await fetch(`${url}/`, { method: "POST", headers, body }));
    },
    async stop() {
      await server.stop(true);
      await store.close();
    },
  };
}

async function rootKeyIn(store: Store, sealingKey: SealingKey, clock: Clock): Promise<TestGateway["keys"]> {
  const using = { sealingKey, random: systemRandom, now: clock.now() };
  const root = await ensureRootKey(store, TEST_ACCOUNT, undefined, using);
  assert(root.ok, "a root key is made");
  return { accessKeyId: root.value.accessKeyId, secretAccessKey: root.value.secretAccessKey.reveal() };
}

export async function answered(response: Response): Promise<Answered> {
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    text,
    code: /<Code>([^<]*)<\/Code>/.exec(text)?.[1],
    message: /<Message>([^<]*)<\/Message>/.exec(text)?.[1],
  };
}
