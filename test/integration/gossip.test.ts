/** Real nodes on loopback, in this process: sockets, sealed frames, keys, clocks. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { createSocket } from "node:dgram";
import type { Status } from "../../src/cluster/gossip/types.ts";
import { newKey, newRing, type Ring } from "../../src/cluster/node/gossip-keyring.ts";
import { type Gossip, type GossipStart, startGossip } from "../../src/cluster/node/gossip-runtime.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { jsonLog, Secret, silentLog } from "../../src/lib/log.ts";
import { Metrics } from "../../src/lib/metrics.ts";
import { systemRandom } from "../../src/lib/random.ts";

setDefaultTimeout(60_000);

/** A tenth of what a network of machines would be given, so that the tests wait less. */
const QUICK = {
  probeMs: 100,
  probeTimeoutMs: 50,
  indirectTimeoutMs: 80,
  gossipMs: 40,
  suspicionMs: 500,
  suspicionDecadeMs: 100,
  syncMs: 1000,
  rejoinMs: 1000,
  factsMs: 100,
};
const joinSecret = new Secret("a secret that only this cluster knows");

const running: Gossip[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((gossip) => gossip.close()));
});

async function node(id: string, more: Partial<GossipStart> = {}): Promise<Gossip> {
  const started = await startGossip({
    clusterId: "test-cluster",
    id,
    host: "127.0.0.1",
    port: 0,
    seeds: [],
    joinSecret,
    facts: { zone: "us-east-1a", roles: "compute" },
    options: QUICK,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    ...more,
  });
  if (!started.ok) throw new Error(started.error);
  running.push(started.value);
  return started.value;
}

async function until(what: string, holds: () => boolean, ms = 20_000): Promise<void> {
  const end = performance.now() + ms;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await Bun.sleep(10);
  }
}

const sees = (observer: Gossip, id: string): Status | undefined =>
  observer.members().find((member) => member.id === id)?.status;
const allSee = (observers: readonly Gossip[], ids: readonly string[], status: Status): boolean =>
  observers.every((observer) => ids.every((id) => sees(observer, id) === status));

test("nodes find each other through one seed, and tell their facts", async () => {
  const a = await node("a", { ring: newRing(systemRandom) });
  const b = await node("b", { seeds: [a.address] });
  const c = await node("c", { seeds: [a.address], facts: { zone: "us-east-1c" } });
  await until("all are alive", () => allSee([a, b, c], ["a", "b", "c"], "alive"));
  const factsAt = (observer: Gossip, id: string) => observer.members().find((member) => member.id === id)?.facts;
  await until("facts of c at b", () => factsAt(b, "c")?.zone === "us-east-1c");
  expect(c.setFacts({ load: "7/2048/10" }).ok).toBe(true);
  await until("new fact of c at a and b", () => [a, b].every((gossip) => factsAt(gossip, "c")?.load === "7/2048/10"));
  expect(factsAt(a, "c")).toMatchObject({ zone: "us-east-1c", load: "7/2048/10" });
  expect(c.setFacts({ "not a name": "" }).ok).toBe(false);
});

test("a node that stops without a word is found dead; one that leaves has left; both may come back", async () => {
  const ring = newRing(systemRandom);
  const a = await node("a", { ring });
  const b = await node("b", { seeds: [a.address], ring });
  const c = await node("c", { seeds: [a.address], ring });
  await until("all are alive", () => allSee([a, b, c], ["a", "b", "c"], "alive"));
  const seen: string[] = [];
  a.onEvent((event) => {
    if (event.type === "status" && event.id === "c") seen.push(event.status);
  });
  await c.close();
  await until("c is dead", () => allSee([a, b], ["c"], "dead"));
  expect(seen.slice(-2)).toEqual(["suspect", "dead"]);
  await b.leave();
  expect(sees(a, "b")).toBe("left");
  // The clock of this life is an hour behind: old incarnations have to be outbid.
  const behind = { ...systemClock, now: () => systemClock.now() - 3_600_000 };
  const again = await node("c", { seeds: [a.address], ring, clock: behind });
  await until("c is alive again", () => sees(a, "c") === "alive" && sees(again, "a") === "alive");
  expect(sees(again, "b")).toBe("left");
});

test("keys are rotated while joiners come with the join secret alone, an older key, or a key that is gone", async () => {
  const rings = new Map<string, Ring>();
  const keep = (id: string) => ({ ringChanged: (ring: Ring) => void rings.set(id, ring) });
  const first = newRing(systemRandom);
  const a = await node("a", { ring: first });
  const b = await node("b", { seeds: [a.address], ...keep("b") });
  await until("b joined by the secret", () => allSee([a, b], ["a", "b"], "alive"));
  expect(rings.get("b")).toEqual(first);

  const key = newKey(systemRandom);
  expect(a.keyring.install(key).ok).toBe(true);
  expect(a.keyring.use(key.id).ok).toBe(true);
  // It has the first key alone, which still is in the ring, and no secret.
  const { joinSecret: _none, ...withoutSecret } = { joinSecret: undefined };
  const late = await node("late", { seeds: [b.address], ring: first, ...withoutSecret, ...keep("late") });
  await until("late is in", () => allSee([a, b, late], ["a", "b", "late"], "alive"));
  await until("all use the new key", () => [a, b, late].every((gossip) => gossip.keyring.ring()?.primary === key.id));

  expect(b.keyring.remove(first.primary).ok).toBe(true);
  await until("the old key is gone", () => [a, late].every((gossip) => gossip.keyring.ring()?.keys.length === 1));
  // It slept through all of it, and has nothing but the key that is gone, and the secret.
  const later = await node("later", { seeds: [late.address, a.address], ring: first });
  await until("later is in", () => allSee([a, b, late, later], ["a", "b", "late", "later"], "alive"));
  expect(later.keyring.ring()).toEqual(a.keyring.ring()!);
  expect(JSON.stringify(later.keyring.ring())).not.toContain(key.secret.reveal());
});

test("a key that leaked is replaced at once, and its thief learns nothing and is not heard", async () => {
  const stolen = newRing(systemRandom);
  const a = await node("a", { ring: stolen });
  const b = await node("b", { seeds: [a.address] });
  const c = await node("c", { seeds: [a.address] });
  await until("all are alive", () => allSee([a, b, c], ["a", "b", "c"], "alive"));
  const dead: string[] = [];
  for (const gossip of [a, b, c]) {
    gossip.onEvent((event) => {
      if (event.type === "status" && event.status === "dead") dead.push(event.id);
    });
  }
  const key = newKey(systemRandom);
  expect(c.keyring.replace(key).ok).toBe(true);
  await until("all have the new ring", () => [a, b].every((gossip) => gossip.keyring.ring()?.primary === key.id));
  const thief = await startGossip({
    ...{ clusterId: "test-cluster", id: "thief", host: "127.0.0.1", port: 0, facts: {}, options: QUICK },
    ...{ clock: systemClock, random: systemRandom, log: silentLog, seeds: [a.address, b.address, c.address] },
    ring: stolen,
  });
  if (!thief.ok) throw new Error(thief.error);
  running.push(thief.value);
  await until("the thief was refused", () => (c.refusals()["unknown-key"] ?? 0) > 3);
  expect(allSee([a, b, c], ["a", "b", "c"], "alive")).toBe(true);
  expect(thief.value.keyring.ring()).toEqual(stolen);
  expect(c.members().map((member) => member.id)).toEqual(["a", "b", "c"]);
  expect(dead).toEqual([]);
});

test("garbage, truncated, foreign, forged and replayed datagrams are dropped and counted, and nobody dies of them", async () => {
  const metrics = new Metrics();
  const lines: string[] = [];
  const log = jsonLog((line) => void lines.push(line), "info", Date.now);
  const ring = newRing(systemRandom);
  const a = await node("a", { ring, metrics, log });
  const tapped: Uint8Array[] = [];
  const tap = createSocket("udp4");
  try {
    await new Promise<void>((resolve) => tap.bind(0, "127.0.0.1", resolve));
    // A node that takes the tap for a seed tells it frames of this cluster.
    tap.on("message", (frame) => void tapped.push(frame));
    const b = await node("b", { ring, seeds: [`127.0.0.1:${tap.address().port}`, a.address] });
    await until("b is in", () => allSee([a, b], ["a", "b"], "alive"));
    await until("the tap heard b", () => tapped.length > 0);
    const port = Number(a.address.split(":")[1]);
    let sent = 0;
    const send = async (bytes: Uint8Array) => {
      tap.send(bytes, port, "127.0.0.1");
      if (++sent % 20 === 0) await Bun.sleep(1); // or the socket's buffer overflows
    };
    const frame = tapped[0]!;
    for (let i = 0; i < 50; i++) await send(systemRandom.bytes(1 + i * 40));
    await send(new Uint8Array(60_000));
    await send(new Uint8Array(0));
    for (const length of [1, 35, 51, 52, frame.length - 1]) await send(frame.subarray(0, length));
    const changed = (at: number, value = 0xff) => {
      const copy = Uint8Array.from(frame);
      copy[at] = copy[at]! ^ value;
      return copy;
    };
    await send(changed(0)); // version
    await send(changed(5)); // cluster
    await send(changed(9)); // key
    for (let at = 12; at < frame.length; at++) await send(changed(at, 1));
    for (let i = 0; i < 20; i++) await send(frame);

    await until("all of it is refused", () => {
      const counts = a.refusals();
      const expected = ["oversized", "malformed", "version", "foreign", "unknown-key", "forged", "replayed"];
      return expected.every((reason) => (counts[reason] ?? 0) > 0) && counts.replayed! >= 19;
    });
    expect(allSee([a, b], ["a", "b"], "alive")).toBe(true);
    expect(a.members().map((member) => member.id)).toEqual(["a", "b"]);
    expect(metrics.render()).toContain('hive_gossip_frames_refused_total{reason="forged"}');
    // Hundreds were refused; the log says so in a sum, if at all by now.
    expect(lines.filter((line) => line.includes("refused")).length).toBeLessThan(3);
    expect(lines.join("")).not.toContain(ring.keys[0]!.secret.reveal());
  } finally {
    tap.close();
  }
});

test("another cluster's nodes are not heard, whatever their keys", async () => {
  const ring = newRing(systemRandom);
  const a = await node("a", { ring });
  const foreign = await node("foreign", { ring, clusterId: "another-cluster", seeds: [a.address] });
  await until("it tried", () => (a.refusals().foreign ?? 0) >= 2);
  expect(a.members().length).toBe(1);
  expect(foreign.members().length).toBe(1);
});

test("what can't be is refused with a sentence", async () => {
  const start: GossipStart = {
    ...{ clusterId: "c", id: "a", host: "127.0.0.1", port: 0, seeds: [], facts: {}, joinSecret },
    ...{ clock: systemClock, random: systemRandom, log: silentLog },
  };
  const { joinSecret: _none, ...secretless } = start;
  const a = await node("a", { ring: newRing(systemRandom) });
  const wrong: [string, GossipStart, string][] = [
    ["id", { ...start, id: "a b" }, "can't be a node's id"],
    ["host", { ...start, host: "localhost" }, "IP address"],
    ["advertise", { ...start, host: "0.0.0.0" }, "every address"],
    ["secret", { ...start, joinSecret: new Secret("short") }, "16 characters"],
    ["no keys", secretless, "join secret or a ring"],
    ["facts", { ...start, facts: { big: "x".repeat(1000) } }, "1000 bytes"],
    ["port", { ...start, port: Number(a.address.split(":")[1]) }, "can't listen"],
  ];
  for (const [what, arguments_, sentence] of wrong) {
    const started = await startGossip(arguments_);
    expect(started.ok ? `${what} was accepted` : started.error).toContain(sentence);
  }
});

test("seeds by name are looked up, and a node's own address among the seeds does no harm", async () => {
  const a = await node("a", { ring: newRing(systemRandom) });
  const port = a.address.split(":")[1];
  const b = await node("b", { seeds: ["no-such-host.invalid:1", `localhost:${port}`] });
  await until("b is in", () => allSee([a, b], ["a", "b"], "alive"));
  a.join([a.address, b.address]);
  await Bun.sleep(50);
  expect(a.members().length).toBe(2);
});
