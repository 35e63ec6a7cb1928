import { afterEach, expect, test } from "bun:test";
import { WarpClock } from "../../../test/support/warp-clock.ts";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { Secret } from "../../lib/log.ts";
import { EtcdClient, type EtcdClientOptions, errorOf } from "./etcd-client.ts";
import { bytes } from "./gateway-json.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Answer = (request: Request) => Response | Promise<Response>;
function serve(answer: Answer): string {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch: answer });
  cleanups.push(() => server.stop(true));
  return `http://127.0.0.1:${server.port}`;
}
function client(endpoints: readonly string[], more: Partial<EtcdClientOptions> = {}, clock: Clock = systemClock) {
  const made = new EtcdClient({ endpoints, user: undefined, tls: {}, clock, answerBytesMax: 100_000, ...more });
  cleanups.push(() => made.close());
  return made;
}

const HEADER = { cluster_id: "7", revision: "5" };
const good = () => Response.json({ header: HEADER, kvs: [{ key: bytes("/a"), value: bytes("1"), mod_revision: "4" }] });
const key = { key: bytes("/a") };
const lines = (...all: unknown[]) => new Response(all.map((line) => `${JSON.stringify(line)}\n`).join(""));

test.each<[string, Answer]>([
  ["a page", () => new Response("<html>hello</html>")],
  ["nothing", () => new Response("")],
  ["half an answer", () => new Response('{"header":{"cluster_id":"7"')],
  ["another shape", () => Response.json({ header: HEADER, kvs: [{ key: 5 }] })],
  ["a number that is none", () => Response.json({ header: { ...HEADER, revision: "99999999999999999999" } })],
  ["no header", () => Response.json({ kvs: [] })],
  ["a list", () => Response.json([])],
  ["a redirection", () => new Response(null, { status: 302, headers: { location: "http://127.0.0.1:1/" } })],
  ["an error that is none of etcd's", () => new Response("busy", { status: 503 })],
])("%s instead of an answer is named, and may have been carried out", async (_, answer) => {
  const read = await client([serve(answer)]).range(key);
  expect(read).toMatchObject({ ok: false, error: { kind: "unreachable" } });
  expect(!read.ok && read.error.message).toContain("does not answer as etcd's JSON gateway does");
});

test("an answer that never ends is cut off at its limit", async () => {
  const endless = () =>
    new Response(new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(10_000).fill(32)) }));
  expect(await client([serve(endless)]).range(key)).toMatchObject({ error: { kind: "too-large" } });
  const watched = client([serve(endless)]).watch({ ...key, range_end: "", start_revision: 1 }, never);
  expect((await watched.next()).value).toMatchObject({ ok: false, error: { kind: "too-large" } });
  expect((await watched.next()).done).toBe(true);
});

test("who does not answer at all is waited for no longer than the time limit", async () => {
  const clock = new WarpClock();
  const asked = Promise.withResolvers<void>();
  const silent = serve(() => {
    asked.resolve();
    return new Promise<Response>(() => undefined);
  });
  const reading = client([silent], {}, clock).range(key);
  await asked.promise;
  await clock.advance(5000);
  expect(await reading).toMatchObject({
    error: { kind: "unreachable", message: expect.stringContaining("within 5 s") },
  });
});

test("a member that is down is passed over, and not asked first again", async () => {
  let asked = 0;
  const broken = serve(() => {
    asked++;
    return new Response("", { status: 500 });
  });
  const etcd = client([broken, "http://127.0.0.1:1", serve(good)]);
  expect(await etcd.range(key)).toMatchObject({
    ok: true,
    value: { revision: 5, entries: [{ key: "/a", value: "1" }] },
  });
  expect(await etcd.range(key)).toMatchObject({ ok: true });
  expect(asked).toBe(1);
});

test("when no member answers, each one's reason is told", async () => {
  const read = await client(["http://127.0.0.1:1", serve(() => new Response("no", { status: 500 }))]).range(key);
  const message = read.ok ? "" : read.error.message;
  expect(message).toContain("127.0.0.1:1 cannot be reached: nothing listens there.");
  expect(message).toContain('status 500, "no"');
});

test("a member of another cluster is not taken for one of this", async () => {
  const other = serve(() => Response.json({ header: { cluster_id: "8", revision: "1" } }));
  let isDown = false;
  const first = serve(() => (isDown ? new Response("", { status: 500 }) : good()));
  const etcd = client([first, other]);
  await etcd.range(key);
  isDown = true;
  expect(await etcd.range(key)).toMatchObject({
    error: { kind: "unreachable", message: expect.stringContaining("another etcd cluster (8)") },
  });
});

test.each([
  [400, 3, "etcdserver: too many operations in txn request", "too-large", "--max-txn-ops"],
  [400, 3, "etcdserver: request is too large", "too-large", "--max-request-bytes"],
  [429, 8, "grpc: received message larger than max (3 vs. 2)", "too-large", "--max-request-bytes"],
  [429, 8, "etcdserver: mvcc: database space exceeded", "full", "--quota-backend-bytes"],
  [400, 11, "etcdserver: mvcc: required revision has been compacted", "compacted", "compacted"],
  [403, 7, "etcdserver: permission denied", "refused", "said: permission denied."],
  [503, 14, "etcdserver: request timed out", "unreachable", "timed out"],
  [503, 14, "etcdserver: leader changed", "unreachable", "leader changed"],
  [429, 8, "etcdserver: too many requests", "unreachable", "too many requests"],
  [500, 2, "something new", "unreachable", "something new"],
])("status %d, code %d, %s", (status, code, message, kind, part) => {
  const error = errorOf("http://h:1", status, JSON.stringify({ error: message, message, code }));
  expect(error.kind as string).toBe(kind);
  expect(error.message).toContain(part);
});

test("an etcd without its gateway is told what it takes", () => {
  expect(errorOf("http://h:1", 404, "404 page not found\n")).toMatchObject({
    kind: "refused",
    message: expect.stringContaining("etcd 3.4 or later"),
  });
});

test("a token that is no longer good is replaced once, without the caller's noticing", async () => {
  let logins = 0;
  const server = serve(async (request) => {
    if (request.url.endsWith("/auth/authenticate")) return Response.json({ token: `t${++logins}` });
    if (request.headers.get("authorization") === "t2") return good();
    return Response.json({ code: 16, message: "etcdserver: invalid auth token" }, { status: 401 });
  });
  const etcd = client([server], { user: { name: "u", password: new Secret("p") } });
  const both = await Promise.all([etcd.range(key), etcd.range(key)]);
  expect(both.every(({ ok }) => ok)).toBe(true);
  expect(logins).toBe(2);
});

test("a login that fails names the user, and not the password", async () => {
  const server = serve(() =>
    Response.json(
      { code: 3, message: "etcdserver: authentication failed, invalid user ID or password" },
      { status: 400 },
    ),
  );
  const read = await client([server], { user: { name: "hive", password: new Secret("hunter2") } }).range(key);
  expect(read).toMatchObject({ error: { kind: "refused" } });
  expect(!read.ok && read.error.message).toContain("user hive failed");
  expect(!read.ok && read.error.message).not.toContain("hunter2");
});

const never = new AbortController().signal;
const put = (key: string, revision: number) => ({
  kv: { key: bytes(key), value: bytes("v"), mod_revision: `${revision}` },
});

test("a watch gives each revision once and whole, however they come; then why it ended", async () => {
  const events = [put("a", 5), put("b", 5), { type: "DELETE", kv: { key: bytes("a"), mod_revision: "6" } }];
  const server = serve(() =>
    lines(
      { result: { header: HEADER, created: true } },
      { result: { header: HEADER, events } },
      { result: { header: HEADER, events: [put("c", 6), put("c", 7)] } },
      { result: { header: { ...HEADER, revision: "9" } } },
    ),
  );
  const told = await Array.fromAsync(client([server]).watch({ ...key, range_end: "", start_revision: 5 }, never));
  expect(told).toMatchObject([
    { value: { revision: 4, changes: [] } },
    { value: { revision: 5, changes: [{ key: "a", value: "v" }, { key: "b" }] } },
    { value: { revision: 6, changes: [{ key: "a", value: undefined }] } },
    { value: { revision: 7, changes: [{ key: "c" }] } },
    { value: { revision: 9, changes: [] } },
    { ok: false, error: { kind: "unreachable" } },
  ]);
});

test.each<[string, unknown, string]>([
  ["a compaction", { result: { header: HEADER, canceled: true, compact_revision: "40" } }, "compacted"],
  ["a cancellation", { result: { header: HEADER, canceled: true, cancel_reason: "permission denied" } }, "unreachable"],
  ["an error", { error: { message: "no leader" } }, "unreachable"],
  ["rubbish", "rubbish", "unreachable"],
])("a watch ends with %s", async (_, line, kind) => {
  const watched = client([serve(() => lines(line))]).watch({ ...key, range_end: "", start_revision: 5 }, never);
  expect(await Array.fromAsync(watched)).toMatchObject([{ ok: false, error: { kind } }]);
});

test("a watch that is aborted ends without a word", async () => {
  const controller = new AbortController();
  const server = serve(() => new Response(new ReadableStream({ start: (stream) => stream.enqueue("\n") })));
  const watched = client([server]).watch({ ...key, range_end: "", start_revision: 5 }, controller.signal);
  const next = watched.next();
  setTimeout(() => controller.abort(), 20);
  expect((await next).done).toBe(true);
});
