import { beforeEach, describe, expect, test } from "bun:test";
import { silentLog } from "../lib/log.ts";
import { fail, ok } from "../lib/result.ts";
import type { Config } from "../model/config.ts";
import { awsError } from "../model/errors.ts";
import type { ImageId, SnapshotId } from "../model/ids.ts";
import type { Settings } from "../settings/settings.ts";
import { type OperatorPorts, operatorRoutes } from "./routes.ts";

const INSTANCE = "i-0123456789abcdef0";
const UPLOAD = "0".repeat(32);
/** Every call that reached something behind the routes. */
let reached: string[] = [];
/** What was authenticated: the body's length, or that it goes unread. */
let authenticated: (number | "unsigned")[] = [];
beforeEach(() => {
  reached = [];
  authenticated = [];
});

const did = <T>(what: string, value: T): T => {
  reached.push(what);
  return value;
};

function routes(over: Partial<OperatorPorts> = {}) {
  const app = operatorRoutes({
    authenticate: async (request, body) => {
      authenticated.push(body === "unsigned" ? body : body.byteLength);
      return request.headers.has("authorization")
        ? ok({ accessKeyId: "AKIATEST" })
        : fail(awsError("MissingAuthenticationToken", "sign", 403));
    },
    status: async () => did("status", {} as never),
    identityCertificate: () => undefined,
    receive: async (body) => did("receive", ok({ uploadId: UPLOAD, bytes: (await new Response(body).bytes()).length })),
    images: {
      newSnapshotId: () => "snap-0123456789abcdef0" as SnapshotId,
      uploadFile: (upload) => `/incoming/${upload}`,
      inspect: async () => did("inspect", ok({ format: "qcow2", virtualBytes: 1024 })),
      toQcow2: async () => ok(undefined),
      place: async () => did("place", ok(undefined)),
      remove: async () => {},
      forget: async () => {},
      register: async () => did("register", ok("ami-0123456789abcdef0" as ImageId)),
    },
    consoles: {
      output: (id) => (id === INSTANCE ? did("output", new TextEncoder().encode("said\n")) : undefined),
      watch: () => did("watch", () => {}),
      write: () => did("write", true),
    },
    config: { settings: {} as Settings, configuration: {} as Config },
    log: silentLog,
    ...over,
  });
  const server = { upgrade: () => did("upgrade", true) };
  return (path: string, init: RequestInit = {}, signed = true) => {
    const headers = new Headers(init.headers);
    if (signed) headers.set("authorization", "by the test");
    if (typeof init.body === "string") headers.set("content-length", String(init.body.length));
    return Promise.resolve(app.fetch(new Request(`http://hive${path}`, { ...init, headers }), { server }));
  };
}

const image = JSON.stringify({ name: "mine", disk: UPLOAD });
const all: [string, RequestInit][] = [
  ["/_hive/status", {}],
  ["/_hive/uploads", { method: "POST", body: "bytes" }],
  ["/_hive/images", { method: "POST", body: image }],
  [`/_hive/console/${INSTANCE}`, {}],
  [`/_hive/logs/${INSTANCE}`, {}],
];

/** What they do is in a test of their own. */
const config: [string, RequestInit][] = [
  ["/_hive/config", {}],
  ["/_hive/config/schema", {}],
  ["/_hive/config/setting", {}],
  ["/_hive/config/setting", { method: "PUT", body: "{}" }],
  ["/_hive/config/setting", { method: "DELETE" }],
  ["/_hive/config/history", {}],
  ["/_hive/config/watch", {}],
];

describe("every route but the certificate's, which proves documents and opens nothing", () => {
  test.each([...all, ...config])("%s does nothing for a request that is not signed", async (path, init) => {
    const answer = await routes()(path, init, false);
    expect([answer.status, await answer.json()]).toEqual([
      403,
      { code: "MissingAuthenticationToken", message: "sign" },
    ]);
    expect(reached).toEqual([]);
    expect(authenticated).toHaveLength(1);
  });
  test.each(all)("%s serves one that is", async (path, init) => {
    const answer = await routes()(path, init);
    expect(answer.status).toBeLessThan(300);
    expect(reached.length).toBeGreaterThan(0);
  });
  test("the routes tested here are all there are", () => {
    const known = operatorRoutes({ config: {} } as OperatorPorts).routes.map((route) =>
      route.path.replace(":instanceId", INSTANCE),
    );
    const tested = ["/_hive/identity.pem", ...[...all, ...config].map(([path]) => path)];
    expect([...new Set(known)].sort()).toEqual([...new Set(tested)].sort());
  });
});

test.each([
  [undefined, 503],
  ["-----BEGIN CERTIFICATE-----\n", 200],
])("the certificate %p is answered with %d, to anybody", async (pem, status) => {
  const answer = await routes({ identityCertificate: () => pem })("/_hive/identity.pem", {}, false);
  expect(answer.status).toBe(status);
  if (pem !== undefined) expect(await answer.text()).toBe(pem);
});

describe("bad requests", () => {
  test("one that is too large is refused before it is read", async () => {
    const large = { method: "POST", body: "x".repeat(64 * 1024 + 1) };
    const answer = await routes()("/_hive/images", large);
    expect([answer.status, reached, authenticated]).toEqual([400, [], []]);
  });
  test("one that doesn't tell its length is refused", async () => {
    const body = new ReadableStream({ start: (controller) => controller.close() });
    expect((await routes()("/_hive/images", { method: "POST", body })).status).toBe(400);
  });
  test.each(["", "{", "[]", "null", "\xff", '{"name":"mine"}', '{"name":"mine","disk":"../etc/passwd"}'])(
    "%p is no image",
    async (body) => {
      const answer = await routes()("/_hive/images", { method: "POST", body });
      expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([400, "InvalidParameterValue"]);
      expect(reached).toEqual([]);
    },
  );
  test("an upload without a body is refused", async () => {
    expect((await routes()("/_hive/uploads", { method: "POST" })).status).toBe(400);
  });
  test.each([
    ["no-space", 507],
    ["too-large", 413],
    ["io", 500],
  ])("an upload that ends in %s answers %d", async (kind, status) => {
    const ask = routes({ receive: async () => fail({ kind, message: "a sentence" }) });
    const answer = await ask("/_hive/uploads", { method: "POST", body: "bytes" });
    expect([answer.status, await answer.json()]).toEqual([status, { code: kind, message: "a sentence" }]);
  });
  test.each(["console", "logs"])("the %s of an instance that is not here is not found", async (verb) => {
    const answer = await routes()(`/_hive/${verb}/i-00000000000000000`);
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([
      404,
      "InvalidInstanceID.NotFound",
    ]);
  });
  test("another path is not found, and a broken invariant is an internal error that tells nothing", async () => {
    expect((await routes()("/_hive/secrets")).status).toBe(404);
    const broken = routes({ status: () => Promise.reject(new Error("the password is swordfish")) });
    const answer = await broken("/_hive/status");
    expect([answer.status, await answer.text()]).toEqual([500, expect.not.stringContaining("swordfish")]);
  });
});
