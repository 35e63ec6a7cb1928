/** The configuration store as strangers use it: Redis's own command line, ioredis, and `hive config`. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { present } from "../../src/lib/assert.ts";
import { type LightHive, ROOT_KEY, withLightHive } from "../support/light-hive.ts";
import { until } from "../support/netns.ts";

let shared: LightHive | undefined;
let finish: () => void = () => {};
let ended: Promise<unknown> = Promise.resolve();
beforeAll(async () => {
  const up = Promise.withResolvers<LightHive>();
  const done = Promise.withResolvers<void>();
  finish = done.resolve;
  ended = withLightHive(async (started) => {
    up.resolve(started);
    await done.promise;
  });
  ended.catch(up.reject);
  shared = await up.promise;
}, 60_000);
afterAll(async () => {
  finish();
  await ended;
}, 60_000);
const server = (): LightHive => present(shared, "the server is started before the first test");

/** A client, ended with the test. */
async function withRedis<T>(
  body: (redis: Redis) => Promise<T>,
  options: { readonly hive?: LightHive; readonly [name: string]: unknown } = {},
): Promise<T> {
  const { hive = server(), ...more } = options;
  const redis = new Redis({
    host: "127.0.0.1",
    port: hive.configPort,
    username: ROOT_KEY.id,
    password: ROOT_KEY.secret,
    maxRetriesPerRequest: 1,
    ...more,
  });
  redis.on("error", () => undefined);
  try {
    return await body(redis);
  } finally {
    redis.disconnect();
  }
}

/** Runs `hive config …`, which has to succeed, and gives what it printed. */
async function config(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await server().hive(["config", ...words]);
  expect([code, stderr]).toEqual([0, ""]);
  return stdout;
}

describe("redis-cli", () => {
  const cli = async (...words: string[]) => (await server().redisCli(words)).stdout.trim();

  test("sets, gets, counts and deletes", async () => {
    expect(await cli("SET", "cli:a", "hello world")).toBe("OK");
    expect(await cli("GET", "cli:a")).toBe("hello world");
    expect(await cli("INCRBY", "cli:n", "41")).toBe("41");
    expect(await cli("DEL", "cli:a", "cli:n")).toBe("2");
    expect(await cli("GET", "cli:a")).toBe("");
  });
  test("speaks the newer protocol", async () => {
    await cli("SET", "cli:3", "x");
    expect(await cli("-3", "GET", "cli:3")).toBe("x");
    expect(await cli("-3", "HELLO", "3")).toContain("server hive");
  });
  test("scans, by a pattern, everything once", async () => {
    const keys = Array.from({ length: 137 }, (_, n) => `cli:scan:${n}`);
    await cli("MSET", ...keys.flatMap((key) => [key, "v"]));
    const found = (await cli("--scan", "--pattern", "cli:scan:*")).split("\n");
    expect(found.sort()).toEqual(keys.sort());
  });
  test("sends a pipe of a thousand commands", async () => {
    const lines = Array.from({ length: 1000 }, (_, n) => `SET cli:pipe:${n % 50} ${n}\r\n`).join("");
    const { stdout } = await server().redisCli(["--pipe"], lines);
    expect(stdout).toContain("errors: 0, replies: 1000");
    expect(await cli("GET", "cli:pipe:49")).toBe("999");
  });
  test("reads commands from its input, as a person types them", async () => {
    const typed = 'MULTI\nSET cli:m "a b"\nGET cli:m\nEXEC\nNOPE\n';
    const { stdout } = await server().redisCli([], typed);
    expect(stdout.trim().split("\n")).toEqual([
      "OK",
      "QUEUED",
      "QUEUED",
      "OK",
      "a b",
      expect.stringContaining("unknown command 'NOPE'"),
    ]);
  });
  test("with a wrong secret gets nothing", async () => {
    const argv = [
      "-h",
      "127.0.0.1",
      "-p",
      String(server().configPort),
      "--user",
      ROOT_KEY.id,
      "--pass",
      "wrong",
      "GET",
      "k",
    ];
    const child = Bun.spawn(["redis-cli", ...argv], { stdout: "pipe", stderr: "pipe" });
    expect(await child.stdout.text()).toContain("NOAUTH");
    expect(await child.stderr.text()).toContain("WRONGPASS");
  });
});

describe("ioredis", () => {
  test("connects, is ready, sets and gets", () =>
    withRedis(async (redis) => {
      expect(await redis.set("io:a", "wert: ü")).toBe("OK");
      expect(await redis.get("io:a")).toBe("wert: ü");
      expect(await redis.getBuffer("io:a")).toEqual(Buffer.from("wert: ü"));
      expect(redis.status).toBe("ready");
      expect(await redis.get("io:none")).toBeNull();
    }));

  test("keeps bytes as they are", () =>
    withRedis(async (redis) => {
      const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
      await redis.set("io:bytes", bytes);
      expect(await redis.getBuffer("io:bytes")).toEqual(bytes);
    }));

  test("sets under conditions and for a time", () =>
    withRedis(async (redis) => {
      expect(await redis.set("io:lock", "me", "EX", 100, "NX")).toBe("OK");
      expect(await redis.set("io:lock", "you", "EX", 100, "NX")).toBeNull();
      expect(await redis.ttl("io:lock")).toBe(100);
      expect(await redis.set("io:lock", "me", "PX", 150)).toBe("OK");
      await until(async () => (await redis.get("io:lock")) === null, "the lock expires", 5000);
      expect(await redis.set("io:lock", "you", "EX", 100, "NX")).toBe("OK");
    }));

  test("sends what waits as one pipeline, answered in order", () =>
    withRedis(
      async (redis) => {
        const answers = await Promise.all(Array.from({ length: 500 }, (_, n) => redis.incr(`io:auto:${n % 10}`)));
        expect(answers.slice(-10)).toEqual(Array.from({ length: 10 }, () => 50));
      },
      { enableAutoPipelining: true },
    ));

  test("runs a transaction, and none on watched keys that were written", () =>
    withRedis(async (redis) => {
      expect(await redis.multi().set("io:t", "1").incr("io:t").get("io:t").exec()).toEqual([
        [null, "OK"],
        [null, 2],
        [null, "2"],
      ]);
      await redis.watch("io:t");
      await withRedis((other) => other.set("io:t", "theirs"));
      expect(await redis.multi().set("io:t", "mine").exec()).toBeNull();
      expect(await redis.get("io:t")).toBe("theirs");
      await expect(redis.multi().call("NOPE").exec()).rejects.toThrow("EXECABORT");
    }));

  test("streams a scan", () =>
    withRedis(async (redis) => {
      const keys = Array.from({ length: 250 }, (_, n) => `io:stream:${n}`);
      await redis.mset(Object.fromEntries(keys.map((key) => [key, "v"])));
      const found: string[] = [];
      for await (const page of redis.scanStream({ match: "io:stream:*", count: 33 })) found.push(...(page as string[]));
      expect(found.sort()).toEqual(keys.sort());
    }));

  test("hears of changes, and of what expires", () =>
    withRedis((listener) =>
      withRedis(async (redis) => {
        const heard: string[] = [];
        listener.on("message", (_, message) => heard.push(message));
        listener.on("pmessage", (_, channel, message) => heard.push(`${channel} ${message}`));
        await listener.subscribe("__keyspace@0__:io:k");
        await listener.psubscribe("__keyevent@0__:expired");
        await redis.set("io:k", "1");
        await redis.set("io:other", "1");
        await redis.del("io:k");
        await redis.set("io:gone", "1", "PX", 100);
        await until(() => heard.length >= 3, "the messages come", 5000);
        expect(heard).toEqual(["set", "del", "__keyevent@0__:expired io:gone"]);
        await expect(redis.publish("c", "m")).rejects.toThrow("PUBLISH is not served");
      }),
    ));

  test("reads what this node has, when it says so", () =>
    withRedis(
      async (redis) => {
        await redis.set("io:local", "1");
        expect(await redis.get("io:local")).toBe("1");
      },
      { readOnly: true },
    ));

  test("with a wrong secret is refused", async () => {
    await withRedis(
      async (redis) => {
        await expect(redis.get("io:a")).rejects.toThrow(/NOAUTH|WRONGPASS|retries|closed/);
      },
      { password: "wrong", retryStrategy: () => null },
    );
  });
});

describe("hive config", () => {
  test("sets, gets, lists and deletes, with versions", async () => {
    expect(await config("set", "app/greeting", "hello")).toBe("version 1\n");
    expect(await config("set", "app/greeting", "hello again")).toBe("version 2\n");
    expect(await config("get", "app/greeting")).toBe("hello again\n");
    expect(await config("get", "app/greeting", "--version", "1")).toBe("hello\n");
    expect(await config("set", "app/other", "line 1\nline 2")).toBe("version 1\n");
    expect(await config("list", "app/")).toBe(
      'KEY           VERSION  VALUE\napp/greeting  2        hello again\napp/other     1        "line 1\\nline 2"\n',
    );
    expect(await config("delete", "app/greeting")).toBe("version 3\n");
    const history = (await config("history", "app/greeting")).split("\n");
    expect(history[1]).toMatch(/^3 .* AKIALIGHTHIVE0000000 {2}deleted$/);
    expect(history[2]).toMatch(/^2 .* hello again$/);
    expect(await config("list", "app/g")).toBe("");
  });

  test("prints JSON, from every verb", async () => {
    const json = async (...words: string[]) => JSON.parse(await config(...words, "--output", "json"));
    expect(await json("set", "json/a", "1")).toMatchObject({ key: "json/a", value: "1", version: 1, by: ROOT_KEY.id });
    expect(await json("get", "json/a")).toMatchObject({ key: "json/a", value: "1", modRevision: expect.any(Number) });
    expect(await json("list", "json/")).toMatchObject({ revision: expect.any(Number), settings: [{ key: "json/a" }] });
    expect(await json("delete", "json/a")).toMatchObject({ removed: "deleted", version: 2 });
    expect(await json("history", "json/a")).toMatchObject({ versions: [{ removed: "deleted" }, { value: "1" }] });
    expect((await json("list", "--schema")).settings.length).toBeGreaterThan(3);
  });

  test("takes a value from its input to the last byte, and gives it back", async () => {
    const stdin = (bytes: string | Uint8Array) => server().hive(["config", "set", "app/stdin", "-"], bytes);
    expect(await stdin("with a line break\n")).toMatchObject({ code: 0 });
    expect(await config("get", "app/stdin")).toBe("with a line break\n\n");
    const bytes = Buffer.from([0, 255, 10, 200]);
    expect(await stdin(bytes)).toMatchObject({ code: 0 });
    await withRedis(async (redis) => expect(await redis.getBuffer("app/stdin")).toEqual(bytes));
    expect(await config("list", "app/stdin")).toContain("(4 bytes)");
    expect(await stdin("x".repeat(1_000_000))).toMatchObject({ code: 0 });
    expect(await stdin("x".repeat(1_100_000))).toMatchObject({ code: 1, stderr: expect.stringContaining("too large") });
  });

  test("compares and sets", async () => {
    await config("set", "cas/k", "1", "--if-version", "0");
    const again = await server().hive(["config", "set", "cas/k", "2", "--if-version", "0"]);
    expect(again).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^hive: cas\/k is there already, at version 1/),
    });
    await config("set", "cas/k", "2", "--if-version", "1");
    const { modRevision } = JSON.parse(await config("get", "cas/k", "--output", "json"));
    expect((await server().hive(["config", "delete", "cas/k", "--if-revision", "1"])).code).toBe(1);
    await config("delete", "cas/k", "--if-revision", String(modRevision));
  });

  test("gives a time to live", async () => {
    await config("set", "app/ttl", "x", "--ttl", "1");
    await until(async () => (await server().hive(["config", "get", "app/ttl"])).code === 1, "it expires", 10_000);
  });

  const wrong: [string, number, RegExp][] = [
    ["config", 2, /^Usage: hive config/],
    ["config get", 2, /missing required argument 'key'/],
    ["config get nothing/here", 1, /^hive: There is no setting nothing\/here\.\n$/],
    ["config set k", 2, /missing required argument 'value'/],
    ["config set k v --ttl 0", 2, /1 to 31536000 seconds/],
    ["config set k v --if-version x", 2, /It is a whole number/],
    ["config set é v", 1, /A key has 1 to 512 printable ASCII characters/],
    [
      "config set hive/log/level loud",
      1,
      /^hive: hive\/log\/level is one of debug, info, warn, error, not "loud"\.\n$/,
    ],
    [
      "config set hive/log/levle info",
      1,
      /^hive: There is no setting hive\/log\/levle: under hive\/ there are .*hive\/log\/level/,
    ],
    ["config delete nothing/here", 1, /There is no setting/],
    ["config history nothing/here", 1, /There is no setting/],
    ["config lsit", 2, /Did you mean list\?/],
  ];
  test.each(wrong)("hive %s ends with %d and a sentence", async (line, code, sentence) => {
    const ran = await server().hive(line.split(" "));
    expect(ran.stderr).toMatch(sentence);
    expect([ran.code, ran.stdout]).toEqual([code, ""]);
  });

  test("is one store with the Redis clients'", () =>
    withRedis(async (redis) => {
      await redis.set("both/k", "from redis");
      expect(await config("get", "both/k")).toBe("from redis\n");
      await config("set", "both/k", "from hive");
      expect(await redis.get("both/k")).toBe("from hive");
      await expect(redis.set("hive/log/level", "loud")).rejects.toThrow("is one of debug, info, warn, error");
      await expect(redis.set("hive/nope", "x")).rejects.toThrow("There is no setting hive/nope");
    }));
});

describe("the cluster's settings act without a restart", () => {
  test("the log's level", () =>
    withRedis(async (redis) => {
      const lines = () =>
        server()
          .output()
          .split("\n")
          .filter((line) => line.includes('"level":"debug"')).length;
      expect(lines()).toBe(0);
      await config("set", "hive/log/level", "debug");
      await until(async () => {
        await withRedis((one) => one.ping());
        return lines() > 0;
      }, "something is logged at the level debug");
      await redis.del("hive/log/level");
      await until(async () => server().output().includes('"key":"hive/log/level","value":"info"'), "it is info again");
      const before = lines();
      await withRedis((one) => one.ping());
      expect(lines()).toBe(before);
    }));

  test("how many may connect", () =>
    withRedis(async (redis) => {
      await redis.set("hive/config/connections-max", "1");
      await until(async () => {
        const refused = await server().redisCli(["PING"]);
        return (refused.stdout + refused.stderr).includes("max number of clients reached");
      }, "another client is refused");
      await redis.del("hive/config/connections-max");
      await until(async () => (await server().redisCli(["PING"])).stdout.trim() === "PONG", "another client is served");
    }));

  test("are shown with their defaults and what they are set to", async () => {
    await config("set", "hive/compute/graceful-shutdown-seconds", "33");
    const listed = await config("list", "--schema", "hive/compute/");
    expect(listed).toMatch(/^hive\/compute\/graceful-shutdown-seconds +33 +120 +at once/m);
    expect(listed).toMatch(/^hive\/compute\/overcommit-cpu +32 +at restart/m);
    expect(listed).not.toContain("hive/log");
  });
});

describe("hive config watch", () => {
  test("prints what happens until it is interrupted", async () => {
    const watch = server().start(["config", "watch", "watched/"]);
    // It is listening once it shows something; what came before is not its affair.
    await until(async () => {
      await config("set", "watched/first", "x");
      return watch.output().includes("watched/first");
    }, "the watch shows something");
    await config("set", "watched/a", "1");
    await config("set", "elsewhere", "1");
    await config("set", "watched/t", "1", "--ttl", "1");
    await config("delete", "watched/a");
    await until(() => watch.output().includes("expired watched/t"), "the watch shows what expired");
    expect(await watch.end("SIGINT")).toBe(0);
    const shown = watch
      .output()
      .split("\n")
      .filter((line) => !line.includes("first"));
    expect(shown.map((line) => line.replace(/^\d+ /, ""))).toEqual([
      "set watched/a 1",
      "set watched/t 1",
      "deleted watched/a",
      "expired watched/t",
      "",
    ]);
    expect(watch.errors()).toBe("");
  });

  test(
    "goes on where it was when the server comes back, and misses nothing",
    () =>
      withLightHive(async (hive) => {
        const set = async (value: string) => expect((await hive.hive(["config", "set", "k", value])).code).toBe(0);
        await set("0");
        const watch = hive.start(["config", "watch", "--from-revision", "1", "--output", "json"]);
        await until(() => watch.output().includes('"value":"0"'), "the watch has begun");
        await set("1");
        await hive.restart("SIGKILL");
        await set("2");
        await set("3");
        await hive.restart("SIGTERM");
        await set("4");
        await until(() => watch.output().includes('"value":"4"'), "the watch shows the last", 30_000);
        expect(await watch.end("SIGINT")).toBe(0);
        const lines = watch
          .output()
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line));
        expect(lines.map(({ value }) => value)).toEqual(["0", "1", "2", "3", "4"]);
        expect(watch.errors()).toContain("trying again");
      }),
    60_000,
  );
});

describe("a real socket", () => {
  /** Sends bytes and gives everything that comes until the server ends the connection. */
  const exchange = (bytes: string, half = true) =>
    new Promise<string>((resolve, reject) => {
      const socket = connectSocket({ port: server().configPort, host: "127.0.0.1", allowHalfOpen: true });
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString("latin1");
      });
      socket.on("end", () => resolve(text));
      socket.on("close", () => resolve(text));
      // Ended with much of what was sent unread, TCP may say so before it has handed over the answer.
      socket.on("error", (error: Error & { code?: string }) =>
        error.code === "ECONNRESET" ? resolve(text) : reject(error),
      );
      socket.write(bytes);
      if (half) socket.end();
      socket.setTimeout(10_000, () => reject(new Error(`nothing comes after ${text}`)));
    });
  const auth = `AUTH ${ROOT_KEY.id} ${ROOT_KEY.secret}\r\n`;

  test("that is closed to one side is still answered", async () => {
    expect(await exchange(`${auth}SET sock:k v\r\nGET sock:k\r\n`)).toBe("+OK\r\n+OK\r\n$1\r\nv\r\n");
  });
  test.each([
    ["garbage", "*1\r\ngarbage\r\n", /Protocol error: expected '\$', got 'g'/],
    ["an absurd length", "*2\r\n$3\r\nGET\r\n$999999999\r\n", /invalid bulk length/],
    ["HTTP", "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", /not an HTTP server/],
    ["zeros", "\0".repeat(70_000), /Protocol error|^$/],
  ])("with %s is ended, and the server goes on", async (_, bytes, answer) => {
    expect(await exchange(bytes, false)).toMatch(answer);
    expect((await server().redisCli(["PING"])).stdout.trim()).toBe("PONG");
  });
  test("that vanishes in the middle of a value leaves nothing", async () => {
    await new Promise<void>((resolve) => {
      const socket = connectSocket({ port: server().configPort, host: "127.0.0.1" });
      socket.write(`${auth}*3\r\n$3\r\nSET\r\n$10\r\nsock:half\0\r\n$1000\r\nhalf`, () => {
        socket.destroy();
        resolve();
      });
    });
    expect((await server().redisCli(["EXISTS", "sock:half"])).stdout.trim()).toBe("0");
  });
  test("whose client reads nothing does not grow the server", () =>
    withRedis(async (redis) => {
      await redis.set("sock:large", "x".repeat(1_000_000));
      const socket = connectSocket({ port: server().configPort, host: "127.0.0.1" });
      try {
        socket.pause();
        socket.write(auth + "GET sock:large\r\n".repeat(3000));
        await Bun.sleep(300);
        const status = await Bun.file(`/proc/${server().pid}/status`).text();
        const residentMib = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
        expect(await redis.ping()).toBe("PONG");
        // 3 GB of answers were asked for.
        expect(residentMib).toBeLessThan(1000);
      } finally {
        socket.destroy();
      }
    }));
});

test(
  "everything that was answered is there after a power cut",
  () =>
    withLightHive(async (hive) => {
      await withRedis(
        async (redis) => {
          await Promise.all(Array.from({ length: 200 }, (_, n) => redis.set(`kept:${n}`, String(n))));
          await redis.set("kept:ttl", "x", "EX", 1000);
          await redis.del("kept:0");
        },
        { hive },
      );
      await hive.restart("SIGKILL");
      await withRedis(
        async (redis) => {
          expect(await redis.dbsize()).toBe(200);
          expect(await redis.get("kept:199")).toBe("199");
          expect(await redis.ttl("kept:ttl")).toBeGreaterThan(900);
        },
        { hive },
      );
      const history = await hive.hive(["config", "history", "kept:0", "--output", "json"]);
      expect(JSON.parse(history.stdout).versions.map(({ version }: { version: number }) => version)).toEqual([2, 1]);
      expect(await hive.stop("SIGTERM")).toBe(0);
    }),
  60_000,
);

test("a port that is taken, or an address that is none, is said in a sentence", async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "hive-config-"));
  try {
    const listen = (address: string) =>
      server().hive([
        ...["server", "--data-dir", dataDir, "--accel", "none", "--listen", "127.0.0.1:0"],
        ...["--config-listen", address],
      ]);
    const taken = await listen(`127.0.0.1:${server().configPort}`);
    expect(taken.stderr).toMatch(/--config-listen 127\.0\.0\.1:\d+ cannot be had: another program uses it/);
    expect(taken.code).toBe(1);
    const nowhere = await listen("nowhere");
    expect(nowhere.stderr).toContain("configListen: nowhere is written host:port");
    expect(nowhere.code).toBe(2);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});
