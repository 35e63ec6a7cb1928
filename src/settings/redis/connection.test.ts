import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type Answer,
  encodeCommand,
  SECRET,
  SettingsWorld,
  type TestClient,
  USER,
} from "../../../test/support/settings-world.ts";
import { fail, ok } from "../../lib/result.ts";
import { MIB } from "../../lib/units.ts";
import type { Store, StoreError } from "../../model/store.ts";
import { setSetting } from "../views.ts";
import { KEYS_MAX } from "./operations.ts";

let world: SettingsWorld;
let client: TestClient;
beforeEach(async () => {
  world = await SettingsWorld.open();
  client = await world.client();
});
afterEach(() => world.close());

/** Runs `GET k` and the like, words apart by spaces. */
const ask = (line: string) => client.ask(...line.split(" "));
const settled = () => Bun.sleep(2);

describe("a stranger", () => {
  test.each(["GET k", "PING", "INFO", "MULTI", "SUBSCRIBE c", "FLUSHALL", "COMMAND"])(
    "may not say %s",
    async (line) => {
      expect(await world.stranger().ask(...line.split(" "))).toBe("-NOAUTH Authentication required.");
    },
  );
  test.each([
    [["AUTH", USER, "wrong"]],
    [["AUTH", USER, ""]],
    [["AUTH", "nobody", SECRET]],
    [["AUTH", "nobody", ""]],
    [["HELLO", "3", "AUTH", USER, "wrong"]],
  ])("who says %j gets nowhere", async (words) => {
    const stranger = world.stranger();
    expect(await stranger.ask(...words)).toMatch(/^-WRONGPASS/);
    expect(await stranger.ask("GET", "k")).toMatch(/^-NOAUTH/);
  });
  test("is sent away after the fifth wrong secret", async () => {
    const stranger = world.stranger();
    for (let n = 0; n < 5; n++) {
      expect(stranger.isClosed).toBe(false);
      await stranger.ask("AUTH", USER, String(n));
    }
    await settled();
    expect(stranger.isClosed).toBe(true);
  });
  test("says who he is by HELLO, too, and chooses the version", async () => {
    const stranger = world.stranger();
    expect(await stranger.ask("HELLO")).toMatch(/^-NOAUTH/);
    expect(await stranger.ask("HELLO", "4")).toMatch(/^-NOPROTO/);
    const hello = await stranger.ask("HELLO", "3", "AUTH", USER, SECRET, "SETNAME", "me");
    expect(hello).toEqual([
      "server",
      "hive",
      "version",
      "0.0.0",
      "proto",
      3,
      "id",
      2,
      "mode",
      "standalone",
      "role",
      "master",
      "modules",
      [],
    ]);
    expect(await stranger.ask("CLIENT", "GETNAME")).toBe("me");
    expect(await stranger.ask("GET", "k")).toBeNull();
  });
  test("may say no more than AUTH needs", async () => {
    const stranger = world.stranger();
    stranger.send("*1000\r\n");
    expect(await stranger.next()).toBe("-ERR Protocol error: invalid multibulk length");
    await settled();
    expect(stranger.isClosed).toBe(true);
  });
  test("is what a client is again after RESET", async () => {
    expect(await ask("RESET")).toBe("RESET");
    expect(await ask("GET k")).toMatch(/^-NOAUTH/);
  });
});

test("a client whose key is made inactive is answered no more", async () => {
  expect(await ask("SET k v")).toBe("OK");
  world.secret = undefined;
  await world.pass(1001);
  expect(await ask("GET k")).toMatch(/^-NOAUTH/);
  await settled();
  expect(client.isClosed).toBe(true);
});

test("a client whose key is made inactive is told of nothing more, and may not ask to be", async () => {
  const listener = await world.client();
  await listener.ask("PSUBSCRIBE", "*");
  const other = await world.client();
  world.secret = undefined;
  await world.pass(1001);
  await setSetting(world.settings, USER, { key: "k", value: { value: "v" } });
  await settled();
  expect([listener.unread, listener.isClosed]).toEqual(["", true]);
  expect(await other.ask("SUBSCRIBE", "c")).toMatch(/^-NOAUTH/);
  await settled();
  expect(other.isClosed).toBe(true);
});

/** Commands one after another with their answers. */
const conversations: [string, [string, Answer | RegExp][]][] = [
  [
    "a value comes back",
    [
      ["SET k v", "OK"],
      ["GET k", "v"],
      ["STRLEN k", 1],
      ["TYPE k", "string"],
      ["EXISTS k k none", 2],
    ],
  ],
  [
    "what is not there is nothing",
    [
      ["GET k", null],
      ["TYPE k", "none"],
      ["DEL k", 0],
      ["TTL k", -2],
      ["STRLEN k", 0],
      ["GETDEL k", null],
    ],
  ],
  [
    "NX sets what is not there",
    [
      ["SET k 1 NX", "OK"],
      ["SET k 2 NX", null],
      ["GET k", "1"],
      ["SETNX k 3", 0],
      ["SETNX n 3", 1],
    ],
  ],
  [
    "XX sets what is there",
    [
      ["SET k 1 XX", null],
      ["SET k 1", "OK"],
      ["SET k 2 XX", "OK"],
      ["GET k", "2"],
    ],
  ],
  [
    "GET tells what was there",
    [
      ["SET k 1 GET", null],
      ["SET k 2 GET", "1"],
      ["GETSET k 3", "2"],
      ["SET k 9 NX GET", "3"],
      ["GET k", "3"],
    ],
  ],
  [
    "IFEQ compares and sets",
    [
      ["SET k 1 IFEQ 0", null],
      ["SET k 1", "OK"],
      ["SET k 2 IFEQ 0", null],
      ["SET k 2 IFEQ 1", "OK"],
      ["GET k", "2"],
    ],
  ],
  [
    "EX gives a time to live",
    [
      ["SET k v EX 100", "OK"],
      ["TTL k", 100],
      ["PTTL k", 100_000],
      ["SET k w KEEPTTL", "OK"],
      ["TTL k", 100],
      ["SET k x", "OK"],
      ["TTL k", -1],
    ],
  ],
  [
    "SETEX and PSETEX do",
    [
      ["SETEX k 9 v", "OK"],
      ["TTL k", 9],
      ["PSETEX k 9000 v", "OK"],
      ["PTTL k", 9000],
    ],
  ],
  [
    "EXPIRE and PERSIST",
    [
      ["EXPIRE k 9", 0],
      ["SET k v", "OK"],
      ["EXPIRE k 9", 1],
      ["TTL k", 9],
      ["PERSIST k", 1],
      ["PERSIST k", 0],
      ["TTL k", -1],
      ["PEXPIRE k 50", 1],
      ["PTTL k", 50],
      ["EXPIRE k 0", 1],
      ["GET k", null],
    ],
  ],
  [
    "numbers are counted",
    [
      ["INCR n", 1],
      ["INCRBY n 10", 11],
      ["DECR n", 10],
      ["DECRBY n 20", -10],
      ["GET n", "-10"],
    ],
  ],
  [
    "what is no number is not",
    [
      ["SET k 1.5", "OK"],
      ["INCR k", /^-ERR value is not an integer/],
      ["SET k 9223372036854775807", "OK"],
      ["INCR k", /overflow/],
      ["INCRBY k +1", /not an integer/],
      ["GET k", "9223372036854775807"],
    ],
  ],
  [
    "a count keeps its time to live",
    [
      ["SET n 1 EX 100", "OK"],
      ["INCR n", 2],
      ["TTL n", 100],
    ],
  ],
  [
    "many at once",
    [
      ["MSET a 1 b 2", "OK"],
      ["MGET a x b", ["1", null, "2"]],
      ["DBSIZE", 2],
      ["DEL a b x", 2],
      ["DBSIZE", 0],
    ],
  ],
  [
    "MSET is all or none",
    [
      ["MSET a 1 hive/log/level loud", /^-ERR hive\/log\/level is one of/],
      ["EXISTS a", 0],
      ["MSET a 1 b", /^-ERR wrong number/],
    ],
  ],
  [
    "KEYS and SCAN",
    [
      ["MSET user:1 a user:2 b other c", "OK"],
      ["KEYS user:*", ["user:1", "user:2"]],
      ["KEYS *1", ["user:1"]],
      ["SCAN 0 MATCH o* COUNT 5", ["0", ["other"]]],
      ["SCAN 0 TYPE hash", ["0", []]],
    ],
  ],
  [
    "wrong commands",
    [
      ["NOPE a b", "-ERR unknown command 'NOPE', with args beginning with: 'a' 'b' "],
      ["GET", "-ERR wrong number of arguments for 'get' command"],
      ["constructor", /^-ERR unknown command/],
      ["SET k v EX", "-ERR syntax error"],
      ["SET k v NX XX", "-ERR syntax error"],
      ["SET k v EX 1 PX 1", "-ERR syntax error"],
      ["SET k v EX 0", /invalid expire time in 'set'/],
      ["SET k v EX 99999999999", /invalid expire/],
      ["SET k v EX x", /not an integer/],
      ["SCAN x", "-ERR invalid cursor"],
      ["SCAN 7", /^-ERR invalid cursor: this node/],
      ["SCAN 0 COUNT 0", "-ERR syntax error"],
    ],
  ],
  [
    "small talk",
    [
      ["PING", "PONG"],
      ["PING hello", "hello"],
      ["ECHO x", "x"],
      ["SELECT 0", "OK"],
      ["SELECT 1", /one database/],
      ["CLIENT SETNAME n", "OK"],
      ["CLIENT GETNAME", "n"],
      ["CLIENT SETINFO LIB-NAME x", "OK"],
      ["CLIENT ID", 1],
      ["CLIENT KILL x", /unknown subcommand/],
      ["COMMAND COUNT", /^\d\d$/],
      ["CONFIG GET databases", ["databases", "1"]],
      ["CONFIG SET a b", /^-ERR CONFIG only has GET/],
      ["READONLY", "OK"],
      ["READWRITE", "OK"],
      ["PUBLISH c m", /^-ERR PUBLISH is not served/],
    ],
  ],
  [
    "MULTI",
    [
      ["MULTI", "OK"],
      ["SET k 1", "QUEUED"],
      ["INCR k", "QUEUED"],
      ["GET k", "QUEUED"],
      ["EXEC", ["OK", 2, "2"]],
      ["GET k", "2"],
    ],
  ],
  [
    "a command that fails in EXEC leaves the others",
    [
      ["MULTI", "OK"],
      ["SET k x", "QUEUED"],
      ["INCR k", "QUEUED"],
      ["SET l y", "QUEUED"],
      ["EXEC", ["OK", "-ERR value is not an integer or out of range", "OK"]],
      ["MGET k l", ["x", "y"]],
    ],
  ],
  [
    "one that cannot be queued breaks the transaction",
    [
      ["MULTI", "OK"],
      ["SET k 1", "QUEUED"],
      ["NOPE", /unknown/],
      ["SET k 2", "QUEUED"],
      ["EXEC", /^-EXECABORT/],
      ["GET k", null],
    ],
  ],
  [
    "so do a wrong arity, and what is not taken",
    [
      ["MULTI", "OK"],
      ["GET", /wrong number/],
      ["EXEC", /^-EXECABORT/],
      ["MULTI", "OK"],
      ["KEYS *", /not taken inside MULTI/],
      ["EXEC", /^-EXECABORT/],
      ["MULTI", "OK"],
      ["SUBSCRIBE c", /not taken/],
      ["EXEC", /^-EXECABORT/],
    ],
  ],
  [
    "DISCARD forgets",
    [
      ["MULTI", "OK"],
      ["SET k 1", "QUEUED"],
      ["DISCARD", "OK"],
      ["GET k", null],
      ["DISCARD", /without MULTI/],
      ["EXEC", /without MULTI/],
    ],
  ],
  [
    "MULTI is not nested, and WATCH comes before it",
    [
      ["MULTI", "OK"],
      ["MULTI", /nested/],
      ["WATCH k", /inside MULTI/],
      ["SET k 1", "QUEUED"],
      ["EXEC", ["OK"]],
    ],
  ],
  [
    "an empty transaction",
    [
      ["MULTI", "OK"],
      ["EXEC", []],
    ],
  ],
  [
    "a transaction may delete and make anew",
    [
      ["SET k 1", "OK"],
      ["MULTI", "OK"],
      ["DEL k", "QUEUED"],
      ["EXISTS k", "QUEUED"],
      ["SET k 2 NX EX 9", "QUEUED"],
      ["TTL k", "QUEUED"],
      ["EXEC", [1, 0, "OK", 9]],
      ["GET k", "2"],
    ],
  ],
];
test.each(conversations)("%s", async (_, lines) => {
  for (const [line, expected] of lines) {
    const answer = await ask(line);
    if (expected instanceof RegExp) expect(String(answer)).toMatch(expected);
    else expect([line, answer]).toEqual([line, expected]);
  }
});

test("any bytes are a value", () =>
  fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 60 }), async (array) => {
      const bytes = Buffer.from(array).toString("latin1");
      client.send(`*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$${bytes.length}\r\n${bytes}\r\n`);
      expect(await client.next()).toBe("OK");
      client.send(encodeCommand(["GET", "k"]));
      while (client.unread.length < bytes.length + 5) await Bun.sleep(0);
      expect(client.unread).toBe(`$${bytes.length}\r\n${bytes}\r\n`);
      await client.next();
    }),
    { numRuns: 50 },
  ));

test("a scan sees every key that is there all the time exactly once, whatever comes and goes", async () => {
  const lasting = Array.from({ length: 50 }, (_, n) => `k${String(n * 2).padStart(3, "0")}`);
  await client.ask("MSET", ...lasting.flatMap((key) => [key, "v"]));
  const seen: string[] = [];
  let cursor = "0";
  let round = 0;
  do {
    const [next, keys] = (await client.ask("SCAN", cursor, "COUNT", "7")) as [string, string[]];
    seen.push(...keys);
    cursor = next;
    await ask(`SET k${String(round * 14 + 1).padStart(3, "0")} passing`);
    await ask(`DEL k${String(round * 14 - 13).padStart(3, "0")}`);
    round++;
  } while (cursor !== "0");
  expect(seen.filter((key) => lasting.includes(key)).sort()).toEqual(lasting);
});

test("KEYS does not stop the daemon: where there are too many it is refused", async () => {
  for (let n = 0; n < KEYS_MAX + 1; n += 2000) {
    await client.ask("MSET", ...Array.from({ length: 2000 }, (_, i) => [`k${n + i}`, ""]).flat());
  }
  expect(await ask("KEYS *")).toMatch(/^-ERR KEYS would look at more than 10000 keys/);
  expect(await ask("KEYS k777")).toEqual(["k777"]);
});

describe("a transaction on watched keys", () => {
  test("is done when they are as they were", async () => {
    await ask("SET k 1");
    expect(await ask("WATCH k none")).toBe("OK");
    await ask("MULTI");
    await ask("SET k 2");
    expect(await ask("EXEC")).toEqual(["OK"]);
  });
  const others: [string, string][] = [
    ["was written", "SET k 2"],
    ["was written with the same value", "SET k 1"],
    ["was deleted", "DEL k"],
    ["got a time to live", "EXPIRE k 100"],
    ["was made", "SET none 1"],
    ["was made, and deleted again", "SET none 1; DEL none"],
  ];
  test.each(others)("is not done when one %s, and changes nothing", async (_, lines) => {
    await ask("SET k 1");
    await ask("WATCH k none");
    const other = await world.client();
    for (const line of lines.split("; ")) await other.ask(...line.split(" "));
    await ask("MULTI");
    await ask("SET k mine");
    await ask("SET other mine");
    expect(await ask("EXEC")).toBeNull();
    expect(await ask("MGET k other")).not.toContain("mine");
    // The watch is over with the transaction.
    await ask("MULTI");
    await ask("SET k mine");
    expect(await ask("EXEC")).toEqual(["OK"]);
  });
  test("is done when the client no longer watches", async () => {
    await ask("WATCH k");
    await (await world.client()).ask("SET", "k", "2");
    await ask("UNWATCH");
    await ask("MULTI");
    await ask("SET k 3");
    expect(await ask("EXEC")).toEqual(["OK"]);
  });
  test("counts right, however many do it", async () => {
    const clients = await Promise.all(Array.from({ length: 8 }, () => world.client()));
    await Promise.all(
      clients.map(async (one) => {
        for (let done = 0; done < 5; ) {
          await one.ask("WATCH", "n");
          const next = Number((await one.ask("GET", "n")) ?? 0) + 1;
          await one.ask("MULTI");
          await one.ask("SET", "n", String(next));
          if ((await one.ask("EXEC")) !== null) done++;
        }
      }),
    );
    expect(await ask("GET n")).toBe("40");
  });
});

describe("a pipeline", () => {
  test("is answered in order, and its effects are in order", async () => {
    const answers = await client.pipeline([
      ["SET", "k", "1"],
      ["GET", "k"],
      ["SET", "k", "2"],
      ["GET", "k"],
      ["PING"],
      ["INCR", "k"],
      ["NOPE"],
      ["MGET", "k", "x"],
      ["SCAN", "0"],
      ["DEL", "k"],
      ["GET", "k"],
    ]);
    expect(answers.slice(0, 6)).toEqual(["OK", "1", "OK", "2", "PONG", 3]);
    expect(answers.slice(7)).toEqual([["3", null], ["0", ["k"]], 1, null]);
  });

  test("of writes to different keys is one commit, and each write to one key is a revision of its own", async () => {
    const before = world.store.read().revision;
    await client.pipeline(Array.from({ length: 100 }, (_, n) => ["SET", `k${n}`, "v"]));
    expect(world.store.read().revision).toBe(before + 1);
    await client.pipeline(Array.from({ length: 5 }, () => ["INCR", "n"]));
    expect(world.store.read().revision).toBe(before + 6);
  });

  test("says the same as its commands one after another", () => {
    const key = fc.constantFrom("a", "b", "c");
    const command = fc.oneof(
      fc.tuple(fc.constant("SET"), key, fc.constantFrom("1", "x")),
      fc.tuple(fc.constantFrom("GET", "DEL", "INCR", "EXISTS", "TTL", "PERSIST", "GETDEL"), key),
      fc.tuple(fc.constant("MSET"), key, fc.constant("5"), key, fc.constant("6")),
      fc.tuple(fc.constant("EXPIRE"), key, fc.constant("100")),
      fc.tuple(fc.constant("SET"), key, fc.constant("9"), fc.constantFrom("NX", "XX", "GET", "KEEPTTL")),
      fc.tuple(fc.constantFrom("PING", "DBSIZE", "MULTI", "EXEC", "DISCARD")),
      fc.tuple(fc.constant("WATCH"), key),
    );
    return fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 20 }), async (commands) => {
        const run = async (how: (one: TestClient) => Promise<Answer[]>) => {
          const fresh = await SettingsWorld.open();
          const answers = await how(await fresh.client());
          await fresh.close();
          return answers;
        };
        const apart = await run(async (one) => {
          const answers: Answer[] = [];
          for (const words of commands) answers.push(await one.ask(...words));
          return answers;
        });
        expect(await run((one) => one.pipeline(commands))).toEqual(apart);
      }),
      { numRuns: 60 },
    );
  });

  test("of ten thousand commands comes in one piece and is answered whole", async () => {
    const answers = await client.pipeline(Array.from({ length: 10_000 }, (_, n) => ["SET", `k${n % 3000}`, "v"]));
    expect(answers.every((answer) => answer === "OK")).toBe(true);
  });
});

describe("messages", () => {
  test("tell what happens to a key, in both versions of the protocol", async () => {
    const listener = await world.client();
    const modern = await world.client();
    await modern.ask("HELLO", "3");
    expect(await listener.ask("SUBSCRIBE", "__keyspace@0__:k")).toEqual(["subscribe", "__keyspace@0__:k", 1]);
    expect(await modern.ask("PSUBSCRIBE", "__keyevent@0__:*")).toEqual(["psubscribe", "__keyevent@0__:*", 1]);
    for (const line of ["SET k 1", "SET other 1", "EXPIRE k 10", "PERSIST k", "DEL k", "SET k 1 PX 1000"])
      await ask(line);
    await world.pass(1001);
    const heard: Answer[] = [];
    for (let n = 0; n < 6; n++) heard.push(((await listener.next()) as Answer[])[2]!);
    expect(heard).toEqual(["set", "expire", "persist", "del", "set", "expired"]);
    const events: Answer[] = [];
    for (let n = 0; n < 7; n++) events.push((await modern.next()) as Answer[]);
    expect(events[0]).toEqual(["pmessage", "__keyevent@0__:*", "__keyevent@0__:set", "k"]);
    expect(events.map((event) => (event as Answer[])[2])).toEqual(
      ["set", "set", "expire", "persist", "del", "set", "expired"].map((name) => `__keyevent@0__:${name}`),
    );
    // The other still does what it likes: in version 3 answers and messages are told apart.
    expect(await modern.ask("GET", "other")).toBe("1");
  });

  test("miss none of many writes by many", async () => {
    const listener = await world.client();
    await listener.ask("SUBSCRIBE", "__keyevent@0__:set");
    const writers = await Promise.all(Array.from({ length: 10 }, () => world.client()));
    await Promise.all(
      writers.map((writer, w) => writer.pipeline(Array.from({ length: 50 }, (_, n) => ["SET", `k${w}-${n}`, "v"]))),
    );
    const heard = new Set<Answer>();
    for (let n = 0; n < 500; n++) heard.add(((await listener.next()) as Answer[])[2]!);
    expect(heard.size).toBe(500);
  });

  test("end with the subscription, and a client of version 2 may meanwhile say little else", async () => {
    const listener = await world.client();
    await listener.ask("SUBSCRIBE", "a");
    expect(await listener.ask("GET", "k")).toMatch(/^-ERR Can't execute 'get'/);
    expect(await listener.ask("PING")).toEqual(["pong", ""]);
    expect(await listener.ask("PSUBSCRIBE", "__key*")).toEqual(["psubscribe", "__key*", 2]);
    expect(await listener.ask("UNSUBSCRIBE")).toEqual(["unsubscribe", "a", 1]);
    expect(await listener.ask("PUNSUBSCRIBE", "__key*")).toEqual(["punsubscribe", "__key*", 0]);
    expect(await listener.ask("UNSUBSCRIBE")).toEqual(["unsubscribe", null, 0]);
    await ask("SET k 1");
    await settled();
    expect(listener.unread).toBe("");
    expect(await listener.ask("GET", "k")).toBe("1");
  });

  test("do not tell what was there before", async () => {
    await ask("SET k 1");
    const listener = await world.client();
    await listener.ask("SUBSCRIBE", "__keyspace@0__:k");
    await settled();
    expect(listener.unread).toBe("");
  });

  test("to a client that does not read them end the connection, and no other", async () => {
    const slow = await world.client();
    await slow.ask("PSUBSCRIBE", "*");
    slow.room = 1000;
    for (let n = 0; n < 100_000 && !slow.isClosed; n++) {
      slow.connection.notify("__keyspace@0__:k", "x".repeat(1000), "*");
      if (n % 1000 === 0) await settled();
    }
    expect(slow.isClosed).toBe(true);
    expect(await ask("PING")).toBe("PONG");
  });
});

describe("a client that does not read", () => {
  test("is not read from, and gets everything once it does", async () => {
    await client.ask("SET", "large", "x".repeat(100_000));
    const talk = "y".repeat(600_000);
    client.room = 0;
    client.send(encodeCommand(["GET", "large"]).repeat(40) + encodeCommand(["ECHO", talk]).repeat(3));
    await settled();
    client.send(encodeCommand(["PING"]));
    expect(client.isPaused).toBe(true);
    const answers: Answer[] = [];
    while (answers.length < 44) {
      client.drain();
      answers.push(await client.next());
    }
    expect(answers.slice(0, 40).every((answer) => (answer as string).length === 100_000)).toBe(true);
    expect(answers.slice(40)).toEqual([talk, talk, talk, "PONG"]);
    expect(client.isPaused).toBe(false);
  });

  test("many small answers is not read from either", async () => {
    await client.ask("SET", "k", "x".repeat(60_000));
    client.room = 0;
    for (let n = 0; n < 100; n++) {
      client.send(encodeCommand(["GET", "k"]));
      await Bun.sleep(0);
    }
    client.drain(100_000_000);
    // What waited for the socket.
    expect(client.unread.length).toBeLessThan(2 * MIB);
    for (let n = 0; n < 100; n++) expect(await client.next()).toHaveLength(60_000);
  });

  test("that he is to say who he is, is not read from", async () => {
    const stranger = world.stranger();
    stranger.room = 0;
    for (let n = 0; n < 30 && !stranger.isPaused; n++) {
      stranger.send("x\r\n".repeat(20_000));
      await Bun.sleep(0);
    }
    expect(stranger.isPaused).toBe(true);
    stranger.connection.closed();
  });

  test("large answers has one of them made at a time", async () => {
    const keys = Array.from({ length: 16 }, () => "k");
    await client.ask("SET", "k", "a".repeat(100_000));
    client.room = 0;
    client.send(encodeCommand(["MGET", ...keys]).repeat(3));
    await settled();
    await (await world.client()).ask("SET", "k", "b".repeat(100_000));
    client.drain();
    const answers: string[] = [];
    for (let n = 0; n < 3; n++) answers.push(((await client.next()) as string[]).map((value) => value[0]).join(""));
    expect(answers).toEqual(["a".repeat(16), "b".repeat(16), "b".repeat(16)]);
  });

  test("a byte at a time still gets its answers right", async () => {
    client.room = 1;
    client.send(encodeCommand(["ECHO", "hello"]) + encodeCommand(["PING"]));
    for (let n = 0; n < 30; n++) {
      await Bun.sleep(0);
      client.drain(1);
    }
    expect([await client.next(), await client.next()]).toEqual(["hello", "PONG"]);
  });
});

describe("the end", () => {
  test("of what a client says is not the end of what it is answered", async () => {
    client.send(encodeCommand(["SET", "k", "v"]) + encodeCommand(["GET", "k"]));
    client.connection.ended();
    expect([await client.next(), await client.next()]).toEqual(["OK", "v"]);
    await settled();
    expect(client.isClosed).toBe(true);
  });
  test("comes with QUIT, and what follows it is not done", async () => {
    client.send(encodeCommand(["QUIT"]) + encodeCommand(["SET", "k", "v"]));
    expect(await client.next()).toBe("OK");
    await settled();
    expect([client.isClosed, world.settings.count()]).toEqual([true, 0]);
  });
  test("comes with garbage, after an answer to what was right", async () => {
    client.send(`${encodeCommand(["SET", "k", "v"])}*1\r\nGARBAGE`);
    expect(await client.next()).toBe("OK");
    expect(await client.next()).toBe("-ERR Protocol error: expected '$', got 'G'");
    await settled();
    expect(client.isClosed).toBe(true);
  });
  test("comes to a browser that was led here", async () => {
    client.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n");
    expect(await client.next()).toBe("-ERR this is not an HTTP server");
    await settled();
    expect([client.isClosed, world.settings.count()]).toEqual([true, 0]);
  });
  test("no bytes break the server, whoever sends them", () => {
    const garbage = fc.oneof(
      fc.uint8Array({ maxLength: 100 }).map((array) => Buffer.from(array).toString("latin1")),
      fc
        .array(
          fc.constantFrom(
            "*2\r\n",
            "$3\r\n",
            "SET",
            "\r\n",
            "k",
            "*-1\r\n",
            "MULTI\r\n",
            "EXEC\r\n",
            '"',
            "HELLO 3\r\n",
            "RESET\r\n",
            "SUBSCRIBE a\r\n",
          ),
        )
        .map((parts) => parts.join("")),
    );
    return fc.assert(
      fc.asyncProperty(garbage, fc.boolean(), async (text, isKnown) => {
        const one = isKnown ? await world.client() : world.stranger();
        one.send(text);
        await Bun.sleep(0);
        one.connection.closed();
        expect(await ask("PING")).toBe("PONG");
      }),
      { numRuns: 200 },
    );
  });
});

describe("limits", () => {
  test("a MULTI of too many commands is discarded", async () => {
    await ask("MULTI");
    const answers = await client.pipeline(Array.from({ length: 1025 }, (_, n) => ["SET", `k${n}`, "v"]));
    expect(answers.at(-2)).toBe("QUEUED");
    expect(answers.at(-1)).toMatch(/at most 1024 commands/);
    expect(await ask("EXEC")).toMatch(/^-EXECABORT/);
    expect(await ask("DBSIZE")).toBe(0);
  });
  test("a value that is too large is refused, and the client goes on", async () => {
    expect(await client.ask("SET", "k", "x".repeat(1024 * 1024))).toMatch(
      /^-ERR The value is too large: text may take 1020 KiB/,
    );
    expect(await ask("PING")).toBe("PONG");
  });
  test.each(["SUBSCRIBE", "WATCH"])("%s takes so many names", async (name) => {
    expect(await client.ask(name, ...Array.from({ length: 1025 }, (_, n) => `c${n}`))).toMatch(/^-ERR at most 1024/);
  });
});

describe("names", () => {
  test.each([
    ["KEYS", ["?".repeat(1025)]],
    ["SCAN", ["0", "MATCH", "?".repeat(1025)]],
    ["PSUBSCRIBE", ["?".repeat(1025)]],
  ])("of patterns have a length, for %s", async (command, words) => {
    expect(await client.ask(command, ...words)).toBe("-ERR a pattern has at most 1024 characters");
    expect(await ask("PING")).toBe("PONG");
  });
  test.each([
    ["WATCH", "k", 512],
    ["SUBSCRIBE", "c", 512],
    ["PSUBSCRIBE", "?", 32],
  ])("that %s takes have so many characters in all", async (command, letter, kib) => {
    const words = Array.from({ length: kib - 1 }, (_, n) => letter.repeat(1024 - 6) + String(n).padStart(6, "0"));
    client.send(encodeCommand([command, ...words]));
    for (let n = command === "WATCH" ? 1 : words.length; n > 0; n--)
      expect(String(await client.next())).not.toMatch(/^-/);
    expect(await client.ask(command, letter.repeat(1024), letter)).toMatch(/^-ERR one connection's names have at most/);
  });
});

describe("a store that does not do it", () => {
  const error = (reason: StoreError["reason"]): StoreError => ({ kind: "store", reason, message: "The sentence." });
  const failing = async (reason: StoreError["reason"]) => {
    let fails = false;
    const other = await SettingsWorld.open(
      undefined,
      (store): Store => ({
        ...store,
        transact: (decide) => (fails ? Promise.resolve(fail(error(reason))) : store.transact(decide)),
        barrier: async () => (fails ? fail(error(reason)) : ok(undefined)),
      }),
    );
    const one = await other.client();
    await one.ask("SET", "k", "v");
    fails = true;
    return { one, close: () => other.close() };
  };
  test.each([
    ["busy", "-TRYAGAIN The sentence."],
    ["unavailable", "-CLUSTERDOWN The sentence."],
    ["full", "-MISCONF The sentence."],
    ["failed", "-MISCONF The sentence."],
  ] as const)("for the reason %s is told so in a code that clients know", async (reason, answer) => {
    const { one, close } = await failing(reason);
    expect(await one.ask("SET", "k", "w")).toBe(answer);
    expect(
      await one.pipeline([
        ["SET", "a", "1"],
        ["DEL", "b"],
      ]),
    ).toEqual([answer, answer]);
    await close();
  });
  test("because it is too much at once does it one by one, unless it was to be one", async () => {
    const other = await SettingsWorld.open(
      undefined,
      (store): Store => ({
        ...store,
        async transact(decide) {
          const decided = decide(store.read());
          return decided.ok && decided.value.writes.length > 1 ? fail(error("too-large")) : store.transact(decide);
        },
      }),
    );
    const one = await other.client();
    const before = other.store.read().revision;
    const answers = await one.pipeline([
      ["SET", "a", "1"],
      ["GET", "a"],
      ["SET", "b", "1"],
      ["MSET", "c", "1", "d", "1"],
    ]);
    expect(answers).toEqual(["OK", "1", "OK", "-ERR The sentence."]);
    expect(other.store.read().revision).toBe(before + 2);
    await other.close();
  });
  test("is read from only by who says READONLY", async () => {
    const { one, close } = await failing("unavailable");
    expect(await one.ask("GET", "k")).toMatch(/^-CLUSTERDOWN The sentence\. After READONLY/);
    await one.ask("READONLY");
    expect(await one.ask("GET", "k")).toBe("v");
    await one.ask("READWRITE");
    expect(await one.ask("GET", "k")).toMatch(/^-CLUSTERDOWN/);
    await close();
  });
});

test("reads that come together share a barrier", async () => {
  let barriers = 0;
  const other = await SettingsWorld.open(
    undefined,
    (store): Store => ({
      ...store,
      barrier: async () => {
        barriers++;
        await Bun.sleep(5);
        return ok(undefined);
      },
    }),
  );
  const clients = await Promise.all(Array.from({ length: 20 }, () => other.client()));
  await Promise.all(clients.map((one) => one.ask("GET", "k")));
  expect(barriers).toBe(1);
  await other.close();
});
