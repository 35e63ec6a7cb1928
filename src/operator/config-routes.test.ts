import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Hono } from "hono";
import { CONFIG, SettingsWorld, USER } from "../../test/support/settings-world.ts";
import { fail, ok } from "../lib/result.ts";
import type { Store } from "../model/store.ts";
import { addConfigRoutes, type SettingsPage, type WatchLine } from "./config-routes.ts";

let world: SettingsWorld;
let app: Hono;
beforeEach(async () => {
  world = await SettingsWorld.open();
  app = routesOf(world);
});
afterEach(() => world.close());

function routesOf({ settings }: SettingsWorld): Hono {
  const made = new Hono();
  addConfigRoutes(made, { settings, configuration: CONFIG }, async () => ok({ accessKeyId: USER }));
  return made;
}

/** `GET list?prefix=a`, `PUT setting?key=k` with a body. @returns status and JSON */
async function ask(what: string, body?: unknown, to = app): Promise<[number, unknown]> {
  const [method = "", route = ""] = what.split(" ");
  const path = `/_hive/config${route.startsWith("?") || route === "" ? route : `/${route}`}`;
  const text = body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body);
  const headers: Record<string, string> = text === undefined ? {} : { "content-length": String(text.length) };
  const response = await to.fetch(new Request(`http://hive${path}`, { method, headers, ...(text && { body: text }) }));
  return [response.status, await response.json()];
}
const put = (key: string, body: unknown) => ask(`PUT setting?key=${encodeURIComponent(key)}`, body);

test("a setting is written, read, listed, remembered and removed", async () => {
  const set = {
    key: "app/a",
    value: "1",
    version: 1,
    modRevision: 1,
    by: USER,
    at: expect.any(String),
  };
  expect(await put("app/a", { value: "1" })).toEqual([200, set]);
  expect(await ask("GET setting?key=app/a")).toEqual([200, set]);
  await put("app/a", { value: "2" });
  await put("b", { value: "3" });
  expect(await ask("GET ?prefix=app/")).toMatchObject([200, { revision: 3, settings: [{ key: "app/a", value: "2" }] }]);
  expect(await ask("GET setting?key=app/a&version=1")).toMatchObject([200, { value: "1", version: 1 }]);
  expect(await ask("DELETE setting?key=app/a")).toMatchObject([200, { removed: "deleted", version: 3 }]);
  expect(await ask("GET history?key=app/a")).toMatchObject([
    200,
    { versions: [{ version: 3, removed: "deleted", modRevision: 4 }, { version: 2 }, { version: 1, value: "1" }] },
  ]);
  expect(await ask("GET setting?key=app/a")).toEqual([
    404,
    { code: "NoSuchSetting", message: "There is no setting app/a." },
  ]);
  expect(await ask("DELETE setting?key=app/a")).toMatchObject([404, { code: "NoSuchSetting" }]);
});

test("bytes that are no text go and come as base64, and text is text however it came", async () => {
  expect(await put("k", { base64: "/wA=" })).toMatchObject([200, { base64: "/wA=" }]);
  expect(await put("k", { base64: "w6k=" })).toMatchObject([200, { value: "é" }]);
});

test("pages follow one another", async () => {
  for (const key of ["a", "b", "c"]) await put(key, { value: key });
  const [, first] = (await ask("GET ?limit=2")) as [number, SettingsPage];
  expect([first.settings.length, first.next]).toEqual([2, "b"]);
  expect(await ask("GET ?limit=2&after=b")).toMatchObject([200, { settings: [{ key: "c" }] }]);
});

test("a time to live is given, and shown", async () => {
  expect(await put("k", { value: "v", ttlSeconds: 60 })).toMatchObject([
    200,
    { expiresAt: "2026-01-01T00:01:00.000Z" },
  ]);
});

describe("what is refused", () => {
  const table: [string, string, unknown, number, RegExp][] = [
    ["a key with a space", "PUT setting?key=a%20b", { value: "" }, 400, /^key: A key has 1 to 512/],
    ["no key", "PUT setting", { value: "" }, 400, /^key: /],
    ["no value", "PUT setting?key=k", {}, 400, /one of value and base64/],
    ["two values", "PUT setting?key=k", { value: "", base64: "" }, 400, /one of value and base64/],
    ["what is no JSON", "PUT setting?key=k", "{", 400, /./],
    ["an unknown member", "PUT setting?key=k", { value: "", colour: "red" }, 400, /colour/],
    ["what is no base64", "PUT setting?key=k", { base64: "?" }, 400, /not base64/],
    ["half a character", "PUT setting?key=k", '{"value":"\\ud800"}', 400, /no text/],
    ["a time to live of nothing", "PUT setting?key=k", { value: "", ttlSeconds: 0 }, 400, /^ttlSeconds/],
    ["a setting that there is not", "PUT setting?key=hive/x", { value: "" }, 400, /There is no setting hive\/x/],
    [
      "a value that a setting does not take",
      "PUT setting?key=hive/log/level",
      { value: "x" },
      400,
      /one of debug, info/,
    ],
    ["another version", "PUT setting?key=k", { value: "", ifVersion: 3 }, 409, /expected at version 3/],
    ["another version, to be deleted", "DELETE setting?key=k&ifVersion=3", undefined, 409, /expected at version 3/],
    [
      "a version that is no number",
      "DELETE setting?key=k&ifVersion=x",
      undefined,
      400,
      /^ifVersion: is a whole number/,
    ],
    ["a version that is not remembered", "GET setting?key=k&version=9", undefined, 404, /Version 9 of k/],
    ["an unknown word in the query", "GET ?perfix=a", undefined, 400, /perfix/],
    ["a page that is too large", "GET ?limit=1001", undefined, 400, /^limit/],
    ["a history of nothing", "GET history?key=k", undefined, 404, /no setting k/],
  ];
  test.each(table)("%s", async (_, what, body, status, message) => {
    const [answered, answer] = await ask(what, body);
    expect((answer as { message: string }).message).toMatch(message);
    expect(answered).toBe(status);
    expect(world.store.read().revision).toBe(0);
  });

  test("a body that does not say how long it is, before it is read", async () => {
    const body = new ReadableStream({ start: (controller) => controller.close() });
    const response = await app.fetch(new Request("http://hive/_hive/config/setting?key=k", { method: "PUT", body }));
    expect(response.status).toBe(400);
  });
});

test("a store that cannot write says why, and reads on where it is told to read locally", async () => {
  const error = { kind: "store", reason: "unavailable", message: "There is no leader." } as const;
  const failing = await SettingsWorld.open(
    undefined,
    (store): Store => ({
      ...store,
      transact: async () => fail(error),
      barrier: async () => fail(error),
    }),
  );
  const to = routesOf(failing);
  expect(await ask("PUT setting?key=k", { value: "" }, to)).toEqual([
    503,
    { code: "Unavailable", message: error.message },
  ]);
  expect(await ask("GET ", undefined, to)).toMatchObject([503, { code: "Unavailable" }]);
  expect(await ask("GET ?local=true", undefined, to)).toEqual([200, { revision: 0, settings: [] }]);
  await failing.close();
});

describe("a watch", () => {
  /** Opens a watch, and gives its lines as they come. */
  async function watching(query: string) {
    const leaving = new AbortController();
    const response = await app.fetch(
      new Request(`http://hive/_hive/config/watch?${query}`, { signal: leaving.signal }),
    );
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    const reader = response.body!.getReader();
    let text = "";
    const next = async (): Promise<WatchLine> => {
      while (!text.includes("\n")) {
        const { value, done } = await reader.read();
        if (done) throw new Error("the watch has ended");
        text += new TextDecoder().decode(value);
      }
      const [line = ""] = text.split("\n", 1);
      text = text.slice(line.length + 1);
      return JSON.parse(line) as WatchLine;
    };
    return { next, leave: () => leaving.abort(), reader };
  }

  test("tells what happened since, and what happens", async () => {
    await put("a", { value: "1" });
    await put("a", { value: "2" });
    const { next, leave } = await watching("prefix=a&fromRevision=1");
    expect(await next()).toEqual({ event: "at", revision: 1 });
    expect(await next()).toMatchObject({ event: "set", revision: 2, key: "a", value: "2", version: 2 });
    await ask("DELETE setting?key=a");
    expect(await next()).toEqual({ event: "deleted", revision: 3, key: "a", version: 3 });
    leave();
  });

  test("holds nothing once the reader has left", async () => {
    const first = await watching("");
    await first.next();
    const second = await watching("");
    await second.next();
    const during = world.store.status().watchers;
    first.leave();
    await second.reader.cancel();
    await Bun.sleep(5);
    expect([during, world.store.status().watchers]).toEqual([3, 1]);
  });

  test("that is not read costs no memory: what it missed comes when it is", async () => {
    const { next, leave } = await watching("");
    await next();
    for (let n = 0; n < 300; n++) await put("k", { value: "x".repeat(1000) });
    let last = 0;
    for (let n = 0; n < 300; n++) last = (await next()).revision;
    expect(last).toBe(300);
    leave();
  });
});
