/**
 * The configuration store over HTTP, for `hive config`:
 *
 *   GET    /_hive/config?prefix=&after=&limit=                     one page of settings
 *   GET    /_hive/config/schema                                    the cluster's own settings
 *   GET    /_hive/config/setting?key=K[&version=N]                 one setting, or what it was
 *   PUT    /_hive/config/setting?key=K                             { value | base64, ttlSeconds?, ifVersion?, ifRevision? }
 *   DELETE /_hive/config/setting?key=K[&ifVersion=N][&ifRevision=R]
 *   GET    /_hive/config/history?key=K                             what is remembered of a key
 *   GET    /_hive/config/watch?prefix=&fromRevision=R              what happens after R: a JSON object a line, without an end
 *
 * Reads are linearizable, unless `local=true`.
 */
import type { Context, Env, Hono } from "hono";
import { z } from "zod";
import { unreachable } from "../lib/assert.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { MIB, SECOND_MS } from "../lib/units.ts";
import type { Config } from "../model/config.ts";
import { isSettingKey, SETTING_KEY_RULE, type StoredValue } from "../model/settings.ts";
import type { Reader, StoreError } from "../model/store.ts";
import { type DescribedSetting, describeClusterSettings } from "../settings/cluster-settings.ts";
import type { Refusal } from "../settings/draft.ts";
import type { Settings } from "../settings/settings.ts";
import { TTL_MS_MAX } from "../settings/settings.ts";
import { valueOfBase64, valueOfText } from "../settings/stored-value.ts";
import {
  deleteSetting,
  getSetting,
  historyOf,
  listSettings,
  type RemovalView,
  type SettingsPage,
  type SettingView,
  setSetting,
  type WatchLine,
  watchSettings,
} from "../settings/views.ts";
import { type AwsError, awsError, invalidParameterValue, unavailable } from "./route-errors.ts";

export type { DescribedSetting, RemovalView, SettingsPage, SettingView, WatchLine };

export interface ConfigPorts {
  readonly settings: Settings;
  /** This node's own configuration: what holds where the cluster's settings say nothing. */
  readonly configuration: Config;
}

/** Who signed the request; the answer when nobody did who may. */
export type Authenticate = (
  request: Request,
  body: Uint8Array,
) => Promise<Result<{ readonly accessKeyId: string }, AwsError>>;

/** The largest value in the longest JSON that says it. */
const BODY_BYTES_MAX = 8 * MIB;
const PAGE_MAX = 1000;
/** How often a watch says that it lives, so that nothing on the way takes it for dead. */
const HEARTBEAT_MS = 15 * SECOND_MS;

const count = z
  .string()
  .regex(/^\d{1,15}$/, "is a whole number")
  .transform(Number);
const key = z.string().refine(isSettingKey, SETTING_KEY_RULE);
const local = z.enum(["true", "false"]).optional();
const condition = { ifVersion: count.optional(), ifRevision: count.optional() };

const QUERIES = {
  list: z.strictObject({
    prefix: z.string().max(512).optional(),
    after: z.string().max(512).optional(),
    limit: count.pipe(z.int().min(1).max(PAGE_MAX)).default(PAGE_MAX),
    local,
  }),
  get: z.strictObject({ key, version: count.optional(), local }),
  history: z.strictObject({ key, local }),
  put: z.strictObject({ key }),
  delete: z.strictObject({ key, ...condition }),
  watch: z.strictObject({ prefix: z.string().max(512).optional(), fromRevision: count.optional() }),
};

const setBody = z
  .strictObject({
    value: z.string().optional(),
    base64: z.string().optional(),
    ttlSeconds: z
      .int()
      .min(1)
      .max(TTL_MS_MAX / SECOND_MS)
      .optional(),
    ifVersion: z.int().min(0).optional(),
    ifRevision: z.int().min(0).optional(),
  })
  .refine(({ value, base64 }) => (value === undefined) !== (base64 === undefined), "one of value and base64 is given");

export function addConfigRoutes<E extends Env>(app: Hono<E>, ports: ConfigPorts, authenticate: Authenticate): void {
  const { settings, configuration } = ports;

  /** The state to read, once it is sure to be new enough. */
  const stateFor = async (isLocal: string | undefined): Promise<Result<Reader, AwsError>> => {
    if (isLocal === "true") return ok(settings.read());
    const passed = await settings.barrier();
    return passed.ok ? ok(settings.read()) : fail(errorOf(passed.error));
  };

  /** A request without a body: who asks, then what. */
  const asked = async <Q extends z.ZodType>(
    c: Context,
    query: Q,
  ): Promise<Result<z.infer<Q> & { readonly by: string }, AwsError>> => {
    const allowed = await authenticate(c.req.raw, NOTHING);
    if (!allowed.ok) return allowed;
    const parsed = parse(query, c.req.query());
    return parsed.ok
      ? ok({ ...(parsed.value as object), by: allowed.value.accessKeyId } as z.infer<Q> & { by: string })
      : parsed;
  };

  app.get("/_hive/config", async (c) => {
    const query = await asked(c, QUERIES.list);
    if (!query.ok) return refuse(query.error);
    const { limit, prefix, after } = query.value;
    const state = await stateFor(query.value.local);
    if (!state.ok) return refuse(state.error);
    return c.json(listSettings(state.value, { limit, ...(prefix && { prefix }), ...(after && { after }) }));
  });

  app.get("/_hive/config/schema", async (c) => {
    const allowed = await authenticate(c.req.raw, NOTHING);
    if (!allowed.ok) return refuse(allowed.error);
    const state = await stateFor(undefined);
    return state.ok ? c.json({ settings: describeClusterSettings(state.value, configuration) }) : refuse(state.error);
  });

  app.get("/_hive/config/setting", async (c) => {
    const query = await asked(c, QUERIES.get);
    if (!query.ok) return refuse(query.error);
    const { key, version } = query.value;
    const state = await stateFor(query.value.local);
    if (!state.ok) return refuse(state.error);
    const found =
      version === undefined
        ? getSetting(state.value, key)
        : historyOf(state.value, key).find((past) => past.version === version);
    return found ? c.json(found) : refuse(noSetting(key, version));
  });

  app.put("/_hive/config/setting", async (c) => {
    // Before it is known who asks, nothing is read whose length is not known to be small.
    const declared = Number(c.req.header("content-length") ?? Number.NaN);
    if (!(declared <= BODY_BYTES_MAX)) return refuse(invalidParameterValue("the request is too large"));
    const bytes = new Uint8Array(await c.req.raw.arrayBuffer());
    const allowed = await authenticate(c.req.raw, bytes);
    if (!allowed.ok) return refuse(allowed.error);
    const query = parse(QUERIES.put, c.req.query());
    if (!query.ok) return refuse(query.error);
    const body = parse(setBody, jsonOf(bytes));
    if (!body.ok) return refuse(body.error);
    const { value: text, base64, ttlSeconds, ifVersion, ifRevision } = body.value;
    const value: Result<StoredValue, string> = text === undefined ? valueOfBase64(base64!) : valueOfText(text);
    if (!value.ok) return refuse(invalidParameterValue(value.error));
    const done = await setSetting(settings, allowed.value.accessKeyId, {
      key: query.value.key,
      value: value.value,
      ...(ttlSeconds !== undefined && { ttlSeconds }),
      ...(ifVersion !== undefined && { ifVersion }),
      ...(ifRevision !== undefined && { ifRevision }),
    });
    return done.ok ? c.json(done.value) : refuse(errorOf(done.error));
  });

  app.delete("/_hive/config/setting", async (c) => {
    const query = await asked(c, QUERIES.delete);
    if (!query.ok) return refuse(query.error);
    const { key, by, ifVersion, ifRevision } = query.value;
    const done = await deleteSetting(settings, by, key, {
      ...(ifVersion !== undefined && { ifVersion }),
      ...(ifRevision !== undefined && { ifRevision }),
    });
    if (!done.ok) return refuse(errorOf(done.error));
    return done.value ? c.json(done.value) : refuse(noSetting(key));
  });

  app.get("/_hive/config/history", async (c) => {
    const query = await asked(c, QUERIES.history);
    if (!query.ok) return refuse(query.error);
    const state = await stateFor(query.value.local);
    if (!state.ok) return refuse(state.error);
    const versions = historyOf(state.value, query.value.key);
    return versions.length > 0 ? c.json({ versions }) : refuse(noSetting(query.value.key));
  });

  app.get("/_hive/config/watch", async (c) => {
    const query = await asked(c, QUERIES.watch);
    if (!query.ok) return refuse(query.error);
    const { prefix, fromRevision } = query.value;
    const range = { ...(prefix !== undefined && { prefix }), ...(fromRevision !== undefined && { fromRevision }) };
    return new Response(watchStream(settings, range, c.req.raw.signal), {
      headers: { "content-type": "application/x-ndjson", "cache-control": "no-store" },
    });
  });
}

/** A watch as bytes. It is read as fast as the reader reads; a slow one costs nothing, and may be told `compacted`. */
export function watchStream(
  settings: Settings,
  range: { readonly prefix?: string; readonly fromRevision?: number },
  left: AbortSignal,
): ReadableStream<Uint8Array> {
  const stopping = new AbortController();
  const lines = watchSettings(settings, { ...range, signal: AbortSignal.any([stopping.signal, left]) });
  const encoder = new TextEncoder();
  const encoded = (line: WatchLine) => encoder.encode(`${JSON.stringify(line)}\n`);
  let told = 0;
  /** The watch has said all that it knows. */
  let isWaiting = false;
  let heartbeat: ReturnType<typeof setInterval> | undefined;
  const stop = () => {
    clearInterval(heartbeat);
    stopping.abort();
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        left.addEventListener("abort", stop, { once: true });
        heartbeat = setInterval(() => {
          if (isWaiting) controller.enqueue(encoded({ event: "at", revision: told }));
        }, HEARTBEAT_MS);
      },
      async pull(controller) {
        isWaiting = true;
        const next = await lines.next();
        isWaiting = false;
        if (next.done) {
          stop();
          controller.close();
          return;
        }
        told = next.value.revision;
        controller.enqueue(encoded(next.value));
      },
      cancel: stop,
    },
    new ByteLengthQueuingStrategy({ highWaterMark: 64 * 1024 }),
  );
}

const NOTHING = new Uint8Array();

const refuse = (error: AwsError): Response =>
  Response.json({ code: error.code, message: error.message }, { status: error.status });

function parse<Q extends z.ZodType>(schema: Q, input: unknown): Result<z.infer<Q>, AwsError> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return ok(parsed.data);
  const issue = parsed.error.issues[0]!;
  const where = issue.path.join(".");
  return fail(invalidParameterValue(where === "" ? issue.message : `${where}: ${issue.message}`));
}

function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return undefined;
  }
}

const noSetting = (key: string, version?: number): AwsError =>
  awsError(
    "NoSuchSetting",
    version === undefined ? `There is no setting ${key}.` : `Version ${version} of ${key} is not, or no longer, known.`,
    404,
  );

function errorOf(error: Refusal | StoreError): AwsError {
  switch (error.kind) {
    case "conflict":
      return awsError("VersionConflict", error.message, 409);
    case "invalid":
      return invalidParameterValue(error.message);
    case "full":
      return awsError("TooManySettings", error.message, 507);
    case "store":
      return error.reason === "too-large" ? invalidParameterValue(error.message) : unavailable(error);
    case "lacks-lease":
      return unavailable({ kind: "store", reason: "busy", message: error.message });
    default:
      return unreachable(error);
  }
}
