import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { CONFIG, SettingsWorld, USER } from "../../test/support/settings-world.ts";
import { MemoryDisk } from "../cluster/kv/memory-disk.ts";
import { memoryNetwork } from "../cluster/node/memory-transport.ts";
import { openRaftStore } from "../cluster/open-raft-store.ts";
import { configurationOf } from "../cluster/raft/configuration.ts";
import { systemClock } from "../lib/clock.ts";
import { jsonLog, silentLog } from "../lib/log.ts";
import { systemRandom } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { ABSENT_KEYS_MAX, VERSIONS_KEPT } from "../model/settings.ts";
import type { Store, StoreError } from "../model/store.ts";
import { put } from "../model/store.ts";
import { settings } from "../model/tables.ts";
import { connectionsMax, describeClusterSettings, logLevel } from "./cluster-settings.ts";
import { countGone } from "./current.ts";
import type { Draft } from "./draft.ts";
import type { SettingEvent } from "./events.ts";
import { differences } from "./feed.ts";
import { LEASES_MAX, Settings, SharedBarrier } from "./settings.ts";
import { deleteSetting, getSetting, historyOf, listSettings, setSetting, watchSettings } from "./views.ts";

let world: SettingsWorld;
beforeEach(async () => {
  world = await SettingsWorld.open();
});
afterEach(() => world.close());

const set = (key: string, value: string, more: { ttlSeconds?: number; ifVersion?: number; ifRevision?: number } = {}) =>
  setSetting(world.settings, USER, { key, value: { value }, ...more });
const del = (key: string, condition: { ifVersion?: number; ifRevision?: number } = {}) =>
  deleteSetting(world.settings, USER, key, condition);
const get = (key: string) => getSetting(world.store.read(), key);
/** The past in short: `3=c 2! 1=a`, an exclamation mark for a removal. */
const past = (key: string) =>
  historyOf(world.store.read(), key)
    .map((version) => ("removed" in version ? `${version.version}!` : `${version.version}=${version.value}`))
    .join(" ");
const message = (result: Result<unknown, { readonly message: string }>) =>
  result.ok ? undefined : result.error.message;

describe("versions", () => {
  test("count a key's writes, its removals included, and go on when it is made anew", async () => {
    await set("k", "a");
    await set("k", "b");
    await del("k");
    expect(get("k")).toBeUndefined();
    await set("k", "d");
    expect(get("k")).toMatchObject({ version: 4, value: "d", by: USER, at: "2026-01-01T00:00:00.000Z" });
    expect(past("k")).toBe("4=d 3! 2=b 1=a");
  });

  test(`of the last ${VERSIONS_KEPT} writes are kept, and no more`, async () => {
    for (let n = 1; n <= 25; n++) await set("k", String(n));
    expect(past("k")).toBe("25=25 24=24 23=23 22=22 21=21 20=20 19=19 18=18 17=17 16=16");
    expect(world.store.read().past(settings, "k")).toHaveLength(VERSIONS_KEPT - 1);
  });

  test("are pushed out by no end that is given to a key and taken from it again", async () => {
    for (const value of ["a", "b", "c"]) await set("k", value);
    const expire = (draft: Draft) => draft.expire("k", { ttlMs: 60_000 });
    const persist = (draft: Draft) => draft.expire("k", "never");
    for (let n = 0; n < 9; n++) {
      await world.settings.write(USER, expire, [60_000]);
      await world.settings.write(USER, persist);
      await world.settings.write(USER, (draft) => [expire(draft), persist(draft)], [60_000]);
    }
    expect(past("k")).toBe("3=c 2=b 1=a");
    expect(world.store.read().past(settings, "k")).toHaveLength(2);
    expect(get("k")).not.toHaveProperty("expiresAt");
    // One that was never without an end has none before it.
    await set("k", "d", { ttlSeconds: 60 });
    await world.settings.write(USER, persist);
    expect(past("k")).toBe("4=d 3=c 2=b 1=a");
    expect(world.store.read().past(settings, "k")).toHaveLength(3);
  });

  test("of keys whose names begin alike are told apart", async () => {
    await set("a", "1");
    await set("a!", "2");
    await set("ab", "3");
    expect([past("a"), past("a!"), past("ab")]).toEqual(["1=1", "1=2", "1=3"]);
  });

  test("come with the revisions that wrote them", async () => {
    await set("other", "");
    await set("k", "a");
    await set("k", "b");
    const revision = world.store.read().revision;
    expect(get("k")).toMatchObject({ modRevision: revision });
    expect(historyOf(world.store.read(), "k").map(({ modRevision }) => modRevision)).toEqual([revision, revision - 1]);
    await del("k");
    await set("k", "c");
    // What was known of the removal stays true when the key is there again.
    expect(historyOf(world.store.read(), "k").map(({ modRevision }) => modRevision)).toEqual([
      revision + 2,
      revision + 1,
      revision,
      revision - 1,
    ]);
  });

  test("a write is one record, whatever came before", async () => {
    const writes: number[] = [];
    const counting = await SettingsWorld.open(undefined, (store) => ({
      ...store,
      transact: (decide) =>
        store.transact((state) => {
          const decided = decide(state);
          if (decided.ok) writes.push(decided.value.writes.length);
          return decided;
        }),
    }));
    for (let n = 0; n < 12; n++) await setSetting(counting.settings, USER, { key: "k", value: { value: "v" } });
    await deleteSetting(counting.settings, USER, "k", {});
    await setSetting(counting.settings, USER, { key: "k", value: { value: "v" }, ttlSeconds: 60 });
    expect(new Set(writes)).toEqual(new Set([1]));
    await counting.close();
  });
});

describe("a condition", () => {
  const table: [string, { ifVersion?: number; ifRevision?: number }, boolean][] = [
    ["the version that it is at holds", { ifVersion: 2 }, true],
    ["an earlier version does not", { ifVersion: 1 }, false],
    ["absence does not", { ifVersion: 0 }, false],
    ["the revision that wrote it holds", { ifRevision: 2 }, true],
    ["an earlier revision does not", { ifRevision: 1 }, false],
    ["both hold together", { ifVersion: 2, ifRevision: 2 }, true],
    ["one of two does not", { ifVersion: 2, ifRevision: 1 }, false],
  ];
  for (const [claim, condition, holds] of table) {
    test(claim, async () => {
      await set("k", "a");
      await set("k", "b");
      expect((await set("k", "c", condition)).ok).toBe(holds);
      expect(get("k")?.value).toBe(holds ? "c" : "b");
    });
    test(`${claim}, when it is deleted`, async () => {
      await set("k", "a");
      await set("k", "b");
      expect((await del("k", condition)).ok).toBe(holds);
      expect(get("k") === undefined).toBe(holds);
    });
  }

  test("that fails says what is there", async () => {
    expect(message(await set("k", "a", { ifVersion: 3 }))).toBe("k is not there; it was expected at version 3.");
    await set("k", "a", { ifVersion: 0 });
    expect(message(await set("k", "b", { ifVersion: 0 }))).toBe("k is there already, at version 1, revision 1.");
    expect(message(await set("k", "b", { ifVersion: 7 }))).toBe("k is at version 1, revision 1, not at version 7.");
  });

  test("of many at once, one wins", async () => {
    await set("k", "0");
    const all = await Promise.all(Array.from({ length: 20 }, (_, n) => set("k", String(n), { ifVersion: 1 })));
    expect(all.filter((done) => done.ok)).toHaveLength(1);
    expect(get("k")?.version).toBe(2);
  });
});

describe("a time to live", () => {
  test("ends the setting, and its past says so", async () => {
    await set("k", "lasting");
    await set("k", "passing", { ttlSeconds: 10 });
    expect(get("k")).toMatchObject({ version: 2, expiresAt: "2026-01-01T00:00:10.000Z" });
    expect(past("k")).toBe("2=passing 1=lasting");
    await world.pass(9_000);
    expect(get("k")?.value).toBe("passing");
    await world.pass(1_001);
    expect(get("k")).toBeUndefined();
    await Bun.sleep(5);
    expect(past("k")).toBe("3! 1=lasting");
    expect(historyOf(world.store.read(), "k")[0]).toMatchObject({ removed: "expired", by: "hive" });
    await set("k", "again");
    expect(past("k")).toBe("4=again 3! 1=lasting");
  });

  test("of a key without a past leaves nothing behind", async () => {
    await set("lock", "me", { ttlSeconds: 1 });
    await world.pass(1_001);
    await Bun.sleep(5);
    expect(world.store.status()).toMatchObject({ records: 0, leases: 0 });
  });

  test("is over once a later write has none, and its lease is given back", async () => {
    await set("k", "a", { ttlSeconds: 1 });
    await set("k", "b");
    await Bun.sleep(1);
    expect(world.store.status().leases).toBe(0);
    await world.pass(2_000);
    expect(get("k")?.value).toBe("b");
  });

  test("that is set again and again holds one lease", async () => {
    for (let n = 0; n < 20; n++) await set("heartbeat", String(n), { ttlSeconds: 60 });
    await Bun.sleep(1);
    expect(world.store.status().leases).toBe(1);
  });

  test("of a write that is refused gives its lease back", async () => {
    await set("k", "a");
    expect((await set("k", "b", { ttlSeconds: 60, ifVersion: 9 })).ok).toBe(false);
    expect((await set("no key", "b", { ttlSeconds: 60 })).ok).toBe(false);
    await Bun.sleep(1);
    expect(world.store.status().leases).toBe(0);
    expect(get("k")?.value).toBe("a");
  });
});

test("a write that may have been made, as far as its store knows, lasts as long as it says", async () => {
  let isUnsure = false;
  const unsure = await SettingsWorld.open(
    undefined,
    (store): Store => ({
      ...store,
      async transact(decide) {
        const done = await store.transact(decide);
        if (!done.ok || !isUnsure) return done;
        return fail({ kind: "store", reason: "unavailable", message: "Outcome unknown." });
      },
    }),
  );
  isUnsure = true;
  const lock = { key: "lock", value: { value: "mine" }, ttlSeconds: 60 };
  expect(message(await setSetting(unsure.settings, USER, lock))).toBe("Outcome unknown.");
  await Bun.sleep(1);
  expect(getSetting(unsure.store.read(), "lock")?.value).toBe("mine");
  await unsure.pass(60_001);
  while (getSetting(unsure.store.read(), "lock")) await Bun.sleep(1);
  await unsure.close();
});

test("no more leases are granted than the bound, however many ask at once", async () => {
  const nearlyFull = await SettingsWorld.open(
    undefined,
    (store): Store => ({
      ...store,
      status: () => ({ ...store.status(), leases: store.status().leases + LEASES_MAX - 10 }),
    }),
  );
  const ttls = Array.from({ length: 4 }, () => 60_000);
  const writing = (_: unknown, n: number) =>
    nearlyFull.settings.write(
      USER,
      (draft) => {
        for (const [i, ttlMs] of ttls.entries()) draft.set(`k${n}-${i}`, { value: "" }, { ttlMs });
      },
      ttls,
    );
  const done = await Promise.all(Array.from({ length: 5 }, writing));
  expect(done.map((one) => (one.ok ? "ok" : one.error.reason))).toEqual(["ok", "ok", "busy", "busy", "busy"]);
  expect(nearlyFull.store.status().leases).toBe(LEASES_MAX - 2);
  // What was asked for and is granted counts once.
  expect((await nearlyFull.settings.write(USER, () => undefined, [60_000, 60_000])).ok).toBe(true);
  await nearlyFull.close();
});

test("new keys that are made at once, through a follower, do not stand in each other's way", async () => {
  const network = memoryNetwork();
  const ids = ["a", "b", "c"];
  const nodes = await Promise.all(
    ids.map(async (id) => {
      const cluster = { id, configuration: configurationOf(ids), transport: network.transport(id) };
      const common = { clock: systemClock, random: systemRandom, log: silentLog, cluster };
      const opened = await openRaftStore({ directory: "/s", tables: [settings], disk: new MemoryDisk(), ...common });
      if (!opened.ok) throw new Error(opened.error.message);
      return opened.value.store;
    }),
  );
  const leads = (store: Store) => store.status().role === "leader";
  while (!nodes.some(leads)) await Bun.sleep(5);
  const service = new Settings(nodes.find((store) => !leads(store))!, systemClock);
  const keys = Array.from({ length: 150 }, (_, n) => `k${n}`);
  const done = await Promise.all(
    keys.map((key) => setSetting(service, USER, { key, value: { value: "v" }, ifVersion: 0 })),
  );
  expect(done.filter(({ ok }) => !ok)).toEqual([]);
  expect(service.count()).toBe(keys.length);
  await Promise.all(nodes.map((store) => store.close()));
});

describe("what is refused", () => {
  test.each([
    ["a key with a space", "a b"],
    ["a key beyond ASCII", "é"],
    ["an empty key", ""],
    ["a key that is too long", "k".repeat(513)],
  ])("%s", async (_, key) => {
    expect(message(await set(key, "v"))).toBe("A key has 1 to 512 printable ASCII characters and no space.");
  });
  test("a setting of the cluster's that there is not, by a sentence that names those there are", async () => {
    expect(message(await set("hive/log/levle", "debug"))).toMatch(
      /^There is no setting hive\/log\/levle: .*hive\/log\/level/,
    );
  });
  test.each([
    ["hive/log/level", "loud", 'hive/log/level is one of debug, info, warn, error, not "loud".'],
    ["hive/config/connections-max", "0", 'hive/config/connections-max is a whole number from 1 to 10000, not "0".'],
    ["hive/config/connections-max", "1e3", 'hive/config/connections-max is a whole number from 1 to 10000, not "1e3".'],
    ["hive/compute/overcommit-cpu", "-1", 'hive/compute/overcommit-cpu is a number above 0, at most 100000, not "-1".'],
    ["hive/network/dns-servers", "8.8.8.8, x", /^hive\/network\/dns-servers is 1 to 8 IPv4 addresses/],
  ])("%s = %s", async (key, value, sentence) => {
    expect(message(await set(key, value))).toMatch(sentence);
    expect(get(key)).toBeUndefined();
  });
});

/** As over etcd. */
const allAlike = (store: Store): Store => ({
  ...store,
  status: () => {
    const { term: _, leader: __, ...status } = store.status();
    return { ...status, role: "follower" };
  },
});
test.each<[string, (store: Store) => Store]>([
  ["by the node that leads", (store) => store],
  ["by any, where all are alike", allAlike],
])("the past of keys that are gone is forgotten, the longest gone first, %s", async (_, wrap) => {
  await world.close();
  world = await SettingsWorld.open(undefined, wrap);
  await set("early", "x");
  await del("early");
  // As if so many had been deleted after it.
  const gone = Array.from({ length: ABSENT_KEYS_MAX * 1.1 }, (_, n) => ({
    key: `gone${n}`,
    version: 2,
    at: world.clock.now() + n,
    by: USER,
    removed: "deleted" as const,
  }));
  await world.store.transact(() => ok({ writes: gone.map((removal) => put(settings, removal)), value: undefined }));
  world.clock.advance(1);
  await set("late", "y");
  await del("late");
  for (let waited = 0; countGone(world.store.read()) > ABSENT_KEYS_MAX && waited < 2000; waited++) await Bun.sleep(1);
  expect(countGone(world.store.read())).toBe(ABSENT_KEYS_MAX);
  expect(past("early")).toBe("");
  // It went after the first thousand of the others.
  expect(past("late")).toBe("");
  await set("early", "z");
  expect(get("early")?.version).toBe(1);
});

describe("a key that is gone", () => {
  test("is not there for anyone, though its past is", async () => {
    for (const key of ["a", "b", "c", "d"]) await set(key, key);
    await del("b");
    await del("c");
    expect(world.settings.count()).toBe(2);
    expect(get("b")).toBeUndefined();
    const page = listSettings(world.store.read(), { limit: 1 });
    expect([page.settings.map(({ key }) => key), page.next]).toEqual([["a"], "a"]);
    expect(listSettings(world.store.read(), { limit: 1, after: "a" }).settings.map(({ key }) => key)).toEqual(["d"]);
    expect((await set("b", "again", { ifRevision: 0 })).ok).toBe(true);
    expect(past("b")).toBe("3=again 2! 1=b");
  });

  test("that was meant to expire, over one that was not, comes back to its past", async () => {
    await set("k", "a");
    await set("k", "b", { ttlSeconds: 10 });
    await set("k", "c", { ttlSeconds: 10 });
    expect(past("k")).toBe("3=c 1=a");
    await world.pass(10_001);
    while (get("k")) await Bun.sleep(1);
    expect(past("k")).toBe("4! 1=a");
    await set("k", "d", { ttlSeconds: 10 });
    await world.pass(10_001);
    while (get("k")) await Bun.sleep(1);
    expect(past("k")).toBe("6! 4! 1=a");
    const expired = historyOf(world.store.read(), "k")[0];
    expect(expired).toMatchObject({ removed: "expired", by: "hive", at: "2026-01-01T00:00:20.001Z" });
  });
});

describe("a listing", () => {
  test("is in key order, by prefix, a page at a time", async () => {
    for (const key of ["b", "a/2", "a/1", "a/3", "c"]) await set(key, key.toUpperCase());
    const first = listSettings(world.store.read(), { prefix: "a/", limit: 2 });
    expect([first.settings.map(({ key }) => key), first.next]).toEqual([["a/1", "a/2"], "a/2"]);
    const second = listSettings(world.store.read(), { prefix: "a/", limit: 2, after: "a/2" });
    expect([second.settings.map(({ key }) => key), second.next]).toEqual([["a/3"], undefined]);
  });
  test("has a page that ends before it is too large", async () => {
    for (const key of ["1", "2", "3"]) await set(key, "x".repeat(500_000));
    const page = listSettings(world.store.read(), { limit: 100 });
    expect([page.settings.length, page.next]).toEqual([2, "2"]);
  });
});

describe("the feed", () => {
  const events: SettingEvent[] = [];
  const told = () => events.map(({ event, key }) => `${event} ${key}`);
  beforeEach(() => {
    events.length = 0;
    world.feed.listen((batch) => events.push(...batch));
  });

  test("tells what happened, in order, and expiry from deletion", async () => {
    await set("a", "1");
    await set("a", "2", { ttlSeconds: 5 });
    await del("a");
    await set("b", "1", { ttlSeconds: 5 });
    await world.pass(5_001);
    await Bun.sleep(1);
    expect(told()).toEqual(["set a", "set a", "deleted a", "set b", "expired b"]);
  });

  test("bridges a gap in what the store can tell", async () => {
    let isCut = false;
    const forgetful = await SettingsWorld.open(undefined, (store) => ({
      ...store,
      watch: async function* (tables, options) {
        for await (const event of store.watch(tables, options)) {
          yield isCut ? { kind: "compacted", revision: event.revision } : event;
          if (isCut) return;
        }
      },
    }));
    const write = (key: string) => setSetting(forgetful.settings, USER, { key, value: { value: "v" } });
    const heard: string[] = [];
    forgetful.feed.listen((batch) => heard.push(...batch.map(({ event, key }) => `${event} ${key}`)));
    await write("a");
    await Bun.sleep(1);
    isCut = true;
    await Promise.all([write("b"), write("c"), deleteSetting(forgetful.settings, USER, "a", {})]);
    await Bun.sleep(1);
    isCut = false;
    await write("d");
    await Bun.sleep(1);
    expect(heard).toEqual(["set a", "set b", "set c", "deleted a", "set d"]);
    await forgetful.close();
  });

  test("after a gap tells each key that differs", async () => {
    await set("same", "1");
    await set("gone", "1");
    await set("changed", "1");
    const before = world.store.read();
    await del("gone");
    await set("changed", "2");
    await set("new", "1");
    const after = world.store.read();
    expect(differences(before, after).map(({ event, key }) => `${event} ${key}`)).toEqual([
      "set changed",
      "set new",
      "deleted gone",
    ]);
    expect(differences(after, after)).toEqual([]);
  });
});

describe("the cluster's own settings", () => {
  test("act at once, and fall back when they are deleted or expire", async () => {
    const levels: string[] = [];
    world.cluster.follow(logLevel, (level) => levels.push(level));
    await set("hive/log/level", "debug");
    await set("hive/log/level", "debug");
    await set("hive/log/level", "warn", { ttlSeconds: 60 });
    await world.pass(60_001);
    await Bun.sleep(1);
    await set("hive/log/level", "error");
    await del("hive/log/level");
    await Bun.sleep(1);
    expect(levels).toEqual(["info", "debug", "warn", "info", "error", "info"]);
    await set("hive/config/connections-max", "7");
    await Bun.sleep(1);
    expect(world.cluster.get(connectionsMax)).toBe(7);
  });

  test("that act at a restart stay as they were, and are in the next configuration", async () => {
    await set("hive/compute/overcommit-cpu", "2.5");
    await set("hive/network/dns-servers", "192.0.2.1,192.0.2.2");
    await Bun.sleep(1);
    expect(world.cluster.configuration()).toEqual(CONFIG);
    const { ClusterSettings } = await import("./cluster-settings.ts");
    const next = new ClusterSettings(
      CONFIG,
      world.store.read(),
      jsonLog(() => {}, "error", Date.now),
    ).configuration();
    expect([next.overcommit.cpu, next.network.dnsServers]).toEqual([2.5, ["192.0.2.1", "192.0.2.2"]]);
    expect(next.listen).toBe(CONFIG.listen);
  });

  test("are described with what is allowed, what holds without them, and what is set", async () => {
    await set("hive/log/level", "warn");
    const described = describeClusterSettings(world.store.read(), CONFIG);
    expect(described.find(({ key }) => key === "hive/log/level")).toEqual({
      key: "hive/log/level",
      about: "the least that daemons log",
      allowed: "one of debug, info, warn, error",
      effect: "at once",
      default: "info",
      value: "warn",
    });
    for (const { key, default: fallback } of described) {
      // What is shown as the default could be written, where there is one to write.
      if (key !== "hive/network/dns-servers") expect((await set(key, fallback)).ok).toBe(true);
    }
  });
});

describe("a watch", () => {
  /** Takes lines until there are `count`. */
  async function lines(count: number, options: { prefix?: string; fromRevision?: number }): Promise<string[]> {
    const stopping = new AbortController();
    const taken: string[] = [];
    for await (const line of watchSettings(world.settings, { ...options, signal: stopping.signal })) {
      taken.push(`${line.event} ${"key" in line ? line.key : ""}@${line.revision}`);
      if (taken.length >= count) stopping.abort();
    }
    return taken;
  }

  test("tells everything after a revision, and what is outside its prefix to nobody", async () => {
    await set("a/1", "x");
    await set("b/1", "x");
    await set("a/2", "x");
    await del("a/1");
    expect(await lines(3, { prefix: "a/", fromRevision: 1 })).toEqual(["at @1", "set a/2@3", "deleted a/1@4"]);
  });

  test("from a revision that the store has not reached begins with everything", async () => {
    await set("a", "x");
    expect(await lines(3, { fromRevision: 99 })).toEqual(["compacted @1", "set a@1", "at @1"]);
  });

  test("from a revision that is no longer held begins with everything, and goes on", async () => {
    // A store that holds nothing of what was before its third revision.
    const forgetful = await SettingsWorld.open(undefined, (store) => ({
      ...store,
      watch: (tables, options) =>
        (options?.fromRevision ?? 3) < Math.min(3, store.read().revision)
          ? (async function* () {
              yield { kind: "compacted", revision: 3 } as const;
            })()
          : store.watch(tables, options),
    }));
    const stopping = new AbortController();
    const taken: string[] = [];
    const write = (key: string) => setSetting(forgetful.settings, USER, { key, value: { value: "v" } });
    for (const key of ["a", "b", "c"]) await write(key);
    for await (const line of watchSettings(forgetful.settings, { fromRevision: 1, signal: stopping.signal })) {
      taken.push(`${line.event} ${"key" in line ? line.key : ""}@${line.revision}`);
      if (taken.length === 6) await write("b");
      if (taken.length === 7) stopping.abort();
    }
    expect(taken).toEqual(["at @1", "compacted @3", "set a@3", "set b@3", "set c@3", "at @3", "set b@4"]);
    await forgetful.close();
  });

  test("names the revision that wrote a setting, also where the store tells several at once", async () => {
    const behind = await SettingsWorld.open(undefined, (store) => ({
      ...store,
      watch: async function* (tables, options) {
        for await (const event of store.watch(tables, options)) yield { ...event, revision: event.revision + 7 };
      },
    }));
    const stopping = new AbortController();
    await setSetting(behind.settings, USER, { key: "a", value: { value: "v" } });
    for await (const line of watchSettings(behind.settings, { fromRevision: 0, signal: stopping.signal })) {
      if (line.event !== "set") continue;
      expect(line).toMatchObject({ revision: 8, key: "a", modRevision: 1 });
      stopping.abort();
    }
    expect(stopping.signal.aborted).toBe(true);
    await behind.close();
  });

  test("tells now and then how far it is, where nothing concerns it", async () => {
    const telling = lines(2, { prefix: "z", fromRevision: 0 });
    for (let n = 0; n < 2000; n += 500) await Promise.all(Array.from({ length: 500 }, () => set("k", "v")));
    expect(await telling).toEqual(["at @0", "at @1000"]);
  });
});

describe("a shared barrier", () => {
  test("serves all that came before it began, and nobody who came after", async () => {
    const begun: PromiseWithResolvers<Result<void, StoreError>>[] = [];
    const barrier = new SharedBarrier(() => {
      const made = Promise.withResolvers<Result<void, StoreError>>();
      begun.push(made);
      return made.promise;
    });
    const done: string[] = [];
    const wait = (name: string) => barrier.pass().then(() => done.push(name));
    const all = [wait("a"), wait("b")];
    await Bun.sleep(1);
    expect(begun).toHaveLength(1);
    all.push(wait("c"), wait("d"));
    begun[0]!.resolve(ok(undefined));
    await Bun.sleep(1);
    expect([done, begun.length]).toEqual([["a", "b"], 2]);
    begun[1]!.resolve(ok(undefined));
    await Promise.all(all);
    expect(done).toEqual(["a", "b", "c", "d"]);
  });
  test("that fails is begun anew for who comes next", async () => {
    let count = 0;
    const error: StoreError = { kind: "store", reason: "unavailable", message: "no leader" };
    const barrier = new SharedBarrier(async () => (count++ === 0 ? fail(error) : ok(undefined)));
    expect((await barrier.pass()).ok).toBe(false);
    expect((await barrier.pass()).ok).toBe(true);
  });
});

test("a store that cannot grant a lease refuses the write, and gives back those that it granted", async () => {
  let grants = 0;
  const failing = await SettingsWorld.open(
    undefined,
    (store): Store => ({
      ...store,
      grantLease: async (ttlMs) =>
        ++grants > 1 ? fail({ kind: "store", reason: "full", message: "no space" }) : store.grantLease(ttlMs),
    }),
  );
  const done = await failing.settings.write(USER, () => undefined, [1000, 1000]);
  expect(message(done)).toBe("no space");
  await Bun.sleep(1);
  expect(failing.store.status().leases).toBe(0);
  await failing.close();
});
