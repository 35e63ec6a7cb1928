import { expect, test } from "bun:test";
import { seededRandom } from "../../lib/random.ts";
import { encodeMessage } from "./codec.ts";
import { findMember } from "./members.ts";
import { deadline, type GossipState, initialState, membersOf } from "./state.ts";
import { step } from "./step.ts";
import {
  DEAD_MAX,
  DEFAULT_OPTIONS,
  type GossipEvent,
  type Input,
  MEMBERS_MAX,
  type Message,
  type MessageBody,
  type Ms,
  type Options,
  type Rumor,
  type Status,
} from "./types.ts";

/** One node, `a`, with its own clock, and all that it sends and says. */
class Node {
  state: GossipState;
  now: Ms = 1000;
  sent: { to: string; message: Message }[] = [];
  events: GossipEvent[] = [];
  readonly random = seededRandom(1);

  constructor(options: Partial<Options> = {}, facts: { [name: string]: string } = { zone: "z" }) {
    const start = { id: "a", address: "10.0.0.1:1", incarnation: 100, facts, seeds: [], now: this.now };
    this.state = initialState({ ...start, options: { ...DEFAULT_OPTIONS, ...options } }, this.random);
    this.give({ type: "tick" });
  }

  give(input: Input): void {
    const { state, effects } = step(this.state, input, this.now, this.random);
    this.state = state;
    this.sent.push(...effects.send);
    this.events.push(...effects.events);
  }

  /** Time goes by; every timer is met to the millisecond. */
  run(ms: Ms): void {
    const end = this.now + ms;
    while (deadline(this.state) <= end) {
      this.now = Math.max(this.now, deadline(this.state));
      this.give({ type: "tick" });
    }
    this.now = end;
  }

  hear(from: string, body: MessageBody, ...rumors: Rumor[]): void {
    const incarnation = findMember(this.state.members, from)?.incarnation ?? 1;
    this.give({ type: "message", message: { from, address: addressOf(from), incarnation, ...body, rumors } });
  }

  /** Forgets what was sent so far. */
  clear(): void {
    this.sent = [];
    this.events = [];
  }

  sees(id: string): Status | undefined {
    return findMember(this.state.members, id)?.status;
  }

  sentTo(id: string, type?: Message["type"]): Message[] {
    const to = this.sent.filter((sent) => sent.to === addressOf(id) && (!type || sent.message.type === type));
    return to.map(({ message }) => message);
  }

  /** Answers whatever probes it sends, for so long, as those in `silent` don't. */
  runAmongLiving(ms: Ms, ...silent: string[]): void {
    for (const end = this.now + ms; this.now < end; ) {
      this.run(10);
      for (const { message } of this.sent.splice(0)) {
        if (message.type === "ping" && !silent.includes(message.to)) {
          this.hear(message.to, { type: "ack", seq: message.seq });
        }
      }
    }
  }
}

const addressOf = (id: string): string => `10.0.${id.length}.${id.charCodeAt(0)}:1`;
const rumor = (id: string, status: Status, incarnation: number, more: Partial<Rumor> = {}): Rumor => ({
  ...{ id, address: addressOf(id), incarnation, status, witnesses: [], ageSeconds: 0, facts: [] },
  ...more,
});
const GOSSIP: MessageBody = { type: "gossip" };
const RECORDS: MessageBody = { type: "records" };
const alive = (...ids: string[]): Rumor[] => ids.map((id) => rumor(id, "alive", 1));

/** A node that knows these to be alive. */
function among(ids: string, options: Partial<Options> = {}): Node {
  const node = new Node(options);
  node.hear(ids[0]!, GOSSIP, ...alive(...ids));
  node.clear();
  return node;
}

test("a ping is answered, unless it is for another node that had this address", () => {
  const node = among("bcd");
  node.hear("b", { type: "ping", seq: 7, to: "someone-else" });
  expect(node.sentTo("b", "ack")).toEqual([]);
  node.hear("b", { type: "ping", seq: 8, to: "a" });
  expect(node.sentTo("b", "ack")).toMatchObject([{ seq: 8, from: "a", incarnation: 100 }]);
});

test("no ack: once more and by proxies; still none: suspected, with the proxies' nacks as witnesses, and told so", () => {
  const node = among("bcdef");
  while (node.state.probes.length === 0) node.run(1);
  const { target, seq } = node.state.probes[0]!;
  node.run(DEFAULT_OPTIONS.probeTimeoutMs);
  const asked = node.sent.filter(({ message }) => message.type === "ping-request" && message.target === target);
  expect(asked.length).toBe(3);
  const [nacking] = asked.map(({ to }) => [..."bcdef"].find((id) => addressOf(id) === to)!);
  node.hear(nacking!, { type: "nack", seq });
  node.hear(nacking!, { type: "nack", seq });
  node.clear();
  node.run(DEFAULT_OPTIONS.indirectTimeoutMs);
  expect(node.sees(target)).toBe("suspect");
  expect(node.state.suspicions[0]?.witnesses).toEqual(["a", nacking!]);
  // Two proxies of three did not say a word: it may be this node that hears badly.
  expect(node.state.localHealth).toBe(2);
  const notice = node.sentTo(target, "ping").flatMap(({ rumors }) => rumors);
  expect(notice).toMatchObject([{ id: target, status: "suspect", witnesses: ["a", nacking!] }]);
});

test("an ack by proxy, too, says that the member is there", () => {
  const node = among("bcdef");
  while (node.state.probes.length === 0) node.run(1);
  const { target, seq } = node.state.probes[0]!;
  node.run(DEFAULT_OPTIONS.probeTimeoutMs + 50);
  node.hear("bcdef".replace(target, "")[0]!, { type: "ack", seq });
  node.run(DEFAULT_OPTIONS.indirectTimeoutMs);
  expect(node.state.suspicions.filter(({ id }) => id === target)).toEqual([]);
});

test("a proxy passes an ack on, and says so when there is none", () => {
  const node = among("bcd");
  node.hear("b", { type: "ping-request", seq: 5, target: "c", targetAddress: addressOf("c") });
  const ping = node.sentTo("c", "ping")[0] as Message & { type: "ping" };
  expect(ping.to).toBe("c");
  node.hear("c", { type: "ack", seq: ping.seq });
  expect(node.sentTo("b", "ack")).toMatchObject([{ seq: 5 }]);
  node.hear("b", { type: "ping-request", seq: 6, target: "d", targetAddress: addressOf("d") });
  node.run(DEFAULT_OPTIONS.probeTimeoutMs);
  expect(node.sentTo("b", "nack")).toMatchObject([{ seq: 6 }]);
});

/** Among ten, so that a decade is one: 2400 ms confirmed, four times that alone. */
const lifetimes: [string, string[], string | undefined, number][] = [
  ["one witness", ["b"], undefined, 9600],
  ["two witnesses", ["b", "c"], undefined, 9600 - 7200 * (Math.log(2) / Math.log(3))],
  ["three witnesses", ["b", "c", "d"], undefined, 2400],
  ["five witnesses", ["b", "c", "d", "e", "f"], undefined, 2400],
  ["three witnesses, of one that announced stalls", ["b", "c", "d"], "4000", 2400 + 6000],
];
test.each(lifetimes)("a suspicion with %s lives so long", (_, witnesses, stall, ms) => {
  const node = among("bcdefghij", { probeMs: 1e7 });
  const facts = stall ? [{ name: "stall", version: 1, value: stall }] : [];
  node.hear("b", GOSSIP, rumor("j", "suspect", 1, { witnesses, facts }));
  const expected = Math.round(ms);
  node.run(expected - 1);
  expect(node.sees("j")).toBe("suspect");
  node.run(1);
  expect(node.sees("j")).toBe("dead");
  expect(node.sentTo("j", "ping").length).toBeGreaterThan(0); // it was asked before
});

test("each further witness shortens a suspicion that is under way, and is passed on", () => {
  const node = among("bcdefghij", { probeMs: 1e7 });
  node.hear("b", GOSSIP, rumor("j", "suspect", 1, { witnesses: ["b"] }));
  node.run(1000);
  node.clear();
  node.hear("c", GOSSIP, rumor("j", "suspect", 1, { witnesses: ["c", "d"] }));
  expect(node.state.suspicions[0]).toMatchObject({ witnesses: ["b", "c", "d"] });
  node.run(300);
  const told = node.sent.flatMap(({ message }) => message.rumors).filter(({ id }) => id === "j");
  expect(told[0]?.witnesses).toEqual(["b", "c", "d"]);
  node.run(1100);
  expect(node.sees("j")).toBe("dead");
});

const accusations: [Status, number, number][] = [
  ["suspect", 100, 101],
  ["dead", 100, 101],
  ["dead", 5000, 5001],
  ["left", 100, 101],
  ["alive", 5000, 5001], // of a former life, whose clock was ahead
];
test.each(accusations)("%s in incarnation %d is refuted", (status, incarnation, own) => {
  const node = among("bcd");
  node.hear("b", GOSSIP, rumor("a", status, incarnation, { address: "10.0.0.1:1" }));
  expect(node.state.self).toMatchObject({ status: "alive", incarnation: own });
  expect(node.events).toContainEqual({ type: "refuted", accusation: status, incarnation: own });
  node.run(DEFAULT_OPTIONS.gossipMs);
  const told = node.sent.flatMap(({ message }) => message.rumors).filter(({ id }) => id === "a");
  expect(told[0]).toMatchObject({ status: "alive", incarnation: own });
});

test("what is older than this life is not refuted, and an incarnation that can't be outbid does no harm", () => {
  const node = among("bcd");
  node.hear("b", GOSSIP, rumor("a", "dead", 99), rumor("a", "alive", 100, { address: "10.0.0.1:1" }));
  node.hear("b", GOSSIP, rumor("a", "dead", 2 ** 48 - 1));
  expect(node.state.self).toMatchObject({ status: "alive", incarnation: 100 });
  expect(node.events).toEqual([]);
});

test("facts of a former life that would shadow this life's are told anew, and those that it lacks are withdrawn", () => {
  const node = among("bcd");
  const facts = [
    { name: "old", version: 7, value: "x" },
    { name: "zone", version: 900, value: "former" },
  ];
  node.hear("b", GOSSIP, rumor("a", "alive", 100, { address: "10.0.0.1:1", facts }));
  expect(node.state.self.facts).toMatchObject([
    { name: "old", value: "" },
    { name: "zone", value: "z" },
  ]);
  expect(node.state.self.facts.every(({ version }) => version > 900)).toBe(true);
  expect(membersOf(node.state)[0]?.facts).toEqual({ zone: "z" });
});

test("whoever is held for less than alive, or for younger than known, is told so when it shows itself", () => {
  for (const [held, contact] of [
    [rumor("d", "dead", 50), 50],
    [rumor("d", "left", 50), 50],
    [rumor("d", "alive", 50), 3],
  ] as const) {
    const node = among("bc");
    node.hear("b", GOSSIP, held);
    node.clear();
    const message = { from: "d", address: addressOf("d"), incarnation: contact, rumors: [] };
    node.give({ type: "message", message: { ...message, type: "sync", hash: 0 } });
    const told = node.sentTo("d").flatMap(({ rumors }) => rumors);
    expect(told[0]).toMatchObject({ id: "d", status: held.status, incarnation: 50 });
    // Once it has outbid that, it is back.
    node.give({ type: "message", message: { ...message, incarnation: 51, type: "gossip" } });
    expect(node.sees("d")).toBe("alive");
  }
});

test("every incarnation heard of counts: late news of an earlier one brings nobody back", () => {
  const node = among("bcd");
  node.hear("b", GOSSIP, rumor("d", "suspect", 1, { witnesses: ["b", "c", "e"] }));
  node.run(4000);
  expect(node.sees("d")).toBe("dead");
  node.hear("b", GOSSIP, rumor("d", "dead", 10));
  node.hear("b", GOSSIP, rumor("d", "alive", 2));
  expect(node.sees("d")).toBe("dead");
  node.hear("b", GOSSIP, rumor("d", "alive", 11));
  expect(node.sees("d")).toBe("alive");
});

test("a verdict counts where its suspicion was heard; otherwise, and in anti-entropy, it is a doubt that can be refuted", () => {
  const untold = among("bcd");
  untold.hear("b", GOSSIP, rumor("d", "suspect", 1, { witnesses: ["b"] }));
  untold.hear("b", RECORDS, rumor("d", "dead", 1));
  expect(untold.sees("d")).toBe("suspect");

  const believed = among("bcd");
  believed.hear("b", GOSSIP, rumor("d", "suspect", 1, { witnesses: ["b"] }));
  believed.hear("b", GOSSIP, rumor("d", "dead", 1));
  expect(believed.sees("d")).toBe("dead");

  for (const kind of [GOSSIP, RECORDS]) {
    const node = among("bcd");
    node.hear("b", kind, rumor("d", "dead", 1));
    expect(node.sees("d")).toBe("suspect");
    expect(node.sentTo("d", "ping")[0]?.rumors[0]).toMatchObject({ id: "d", status: "suspect" });
    node.hear("c", kind, rumor("d", "dead", 1));
    expect(node.sees("d")).toBe("suspect");
    // The others are not alarmed.
    node.run(DEFAULT_OPTIONS.gossipMs);
    const toldC = node.sentTo("c").flatMap(({ rumors }) => rumors);
    expect(toldC.filter(({ id }) => id === "d").every(({ status }) => status === "alive")).toBe(true);
    node.hear("d", { type: "ack", seq: 1 }, rumor("d", "alive", 2));
    expect(node.sees("d")).toBe("alive");
    node.hear("b", kind, rumor("d", "dead", 2));
    node.run(4000);
    expect(node.sees("d")).toBe("dead");
  }
});

test("time during which the process did not run counts for nobody's death, and is announced", () => {
  const node = among("bcd");
  node.hear("b", GOSSIP, rumor("d", "suspect", 1, { witnesses: ["b", "c", "e"] }));
  while (node.state.probes.length === 0) node.run(1);
  node.clear();
  const [{ deadAt, startedAt }, { seq }] = [node.state.suspicions[0]!, node.state.probes[0]!];
  const { now } = node.state;
  node.now += 3000;
  node.give({ type: "tick" });
  expect(node.sees("d")).toBe("suspect");
  // It was away for what came after its timer was due; the suspicion starts over all the same, and the probe is forgotten.
  expect(node.state.lostMs).toBeGreaterThan(2000);
  expect(node.state.now - now).toBeLessThan(1000);
  expect(node.state.suspicions[0]!.deadAt).toBe(node.state.now + deadAt - startedAt);
  expect(node.state.probes.map((probe) => probe.seq)).not.toContain(seq);
  expect(node.state.localHealth).toBeGreaterThan(0);
  expect(node.events).toMatchObject([{ type: "stalled" }]);
  const told = node.sent.flatMap(({ message }) => message.rumors).filter(({ id }) => id === "a");
  expect(told.some(({ facts }) => facts.some(({ name, value }) => name === "stall" && value === "4000"))).toBe(true);
  node.hear("d", GOSSIP, rumor("d", "alive", 2)); // it was in the socket all along
  node.run(5000);
  expect(node.sees("d")).not.toBe("dead");
  node.runAmongLiving(10 * DEFAULT_OPTIONS.stallMemoryMs);
  expect(membersOf(node.state)[0]?.facts.stall).toBeUndefined();
});

test("every member is probed, and the next neighbour every other time", () => {
  const node = among("bcdefghij");
  const probes: string[] = [];
  for (let i = 0; i < 60_000; i += 10) {
    node.run(10);
    for (const { message } of node.sent.splice(0)) {
      if (message.type !== "ping") continue;
      probes.push(message.to);
      node.hear(message.to, { type: "ack", seq: message.seq });
    }
  }
  const counts = [..."bcdefghij"].map((id) => probes.filter((probed) => probed === id).length);
  expect(Math.min(...counts)).toBeGreaterThanOrEqual(5);
  expect(counts[0]! / probes.length).toBeGreaterThan(0.5);
  expect(probes.length).toBeGreaterThan(100);
});

test("the dead are forgotten in the end; in the second half of that time nobody is told of them", () => {
  const node = among("bc", { deadMemoryMs: 100_000 });
  node.hear("b", GOSSIP, rumor("d", "left", 1));
  node.runAmongLiving(40_000);
  const digestsOf = () => {
    node.clear();
    node.hear("b", { type: "sync", hash: 1 });
    return node.sentTo("b", "digest").flatMap((m) => (m.type === "digest" ? m.entries.map(({ id }) => id) : []));
  };
  expect(digestsOf()).toEqual(["a", "b", "c", "d"]);
  node.runAmongLiving(30_000);
  expect(digestsOf()).toEqual(["a", "b", "c"]);
  expect(node.sees("d")).toBe("left");
  node.events = [];
  node.runAmongLiving(50_000);
  expect(node.sees("d")).toBeUndefined();
  expect(node.events).toContainEqual({ type: "forgotten", id: "d" });
  // Who still tells of it tells of something long ago.
  node.hear("b", RECORDS, rumor("d", "left", 1, { ageSeconds: 99 }));
  expect(node.sees("d")).toBeUndefined();
});

test("who learned of strangers compares with others soon, and asks those who have told nothing of themselves", () => {
  const node = among("b", { probeMs: 1e8 });
  node.run(60_000);
  node.clear();
  node.hear("b", RECORDS, rumor("c", "alive", 1));
  node.run(7000);
  expect(node.sent.filter(({ message }) => message.type === "sync").length).toBeGreaterThanOrEqual(3);
  node.run(5000);
  expect(node.sentTo("c", "want")).toContainEqual(expect.objectContaining({ ids: ["c"] }));
});

test("when one comes back from the dead, the other dead are asked soon", () => {
  const node = among("bcdefghij", { probeMs: 1e8, syncMs: 1e8, rejoinMs: 1e8 });
  for (const id of "ij") node.hear("b", GOSSIP, rumor(id, "suspect", 1, { witnesses: ["b", "c", "d"] }));
  node.run(5000);
  expect([node.sees("i"), node.sees("j")]).toEqual(["dead", "dead"]);
  node.clear();
  node.hear("b", GOSSIP, rumor("i", "alive", 2));
  node.run(2000);
  expect(node.sentTo("j", "sync")[0]?.rumors[0]).toMatchObject({ id: "j", status: "dead" });
});

test("a good-bye is told, and then it is over", () => {
  const node = among("bcd");
  node.give({ type: "leave" });
  node.run(3000);
  const told = node.sent.flatMap(({ message }) => message.rumors).filter(({ id }) => id === "a");
  expect(told.every(({ status }) => status === "left")).toBe(true);
  expect(new Set(node.sent.map(({ to }) => to)).size).toBe(3);
  expect(node.events).toContainEqual({ type: "left" });
  expect(deadline(node.state)).toBe(Number.POSITIVE_INFINITY);
  node.clear();
  node.hear("b", { type: "ping", seq: 1, to: "a" });
  expect(node.sent).toEqual([]);
});

test("own facts are told at most every so often, the last value only", () => {
  const node = among("bcd");
  for (let i = 0; i < 100; i++) {
    node.give({ type: "facts", values: { load: String(i) } });
    node.runAmongLiving(100);
  }
  const load = () => node.state.self.facts.find(({ name }) => name === "load");
  expect(load()!.version - 100).toBeLessThanOrEqual(2);
  node.runAmongLiving(DEFAULT_OPTIONS.factsMs);
  expect(load()?.value).toBe("99");
});

test("somebody else with this node's id is noticed", () => {
  const node = among("bcd");
  node.hear("b", GOSSIP, rumor("a", "alive", 100, { address: "10.9.9.9:9" }));
  expect(node.events).toContainEqual({ type: "conflict", address: "10.9.9.9:9" });
  expect(node.state.self.incarnation).toBe(101);
});

test("members, the dead among them, relays and answers have bounds", () => {
  const node = among("b", { probeMs: 1e9, gossipMs: 1e9, syncMs: 1e9 });
  for (let i = 0; i < DEAD_MAX + 100; i += 20) {
    const dead = Array.from({ length: 20 }, (_, k) => rumor(`dead-${i + k}`, "dead", 1, { ageSeconds: i }));
    node.hear("b", RECORDS, ...dead);
  }
  expect(node.state.members.length).toBe(DEAD_MAX + 2);
  for (let i = 0; i < MEMBERS_MAX + 100; i += 100) {
    node.hear("b", RECORDS, ...Array.from({ length: 100 }, (_, k) => rumor(`n-${i + k}`, "alive", 1)));
  }
  expect(node.state.members.length).toBe(MEMBERS_MAX);
  expect(node.state.presentCount).toBe(MEMBERS_MAX); // the dead made room
  expect(node.events.filter(({ type }) => type === "full").length).toBeGreaterThan(0);

  const few = among("bc");
  for (let seq = 0; seq < 500; seq++) {
    few.hear("b", { type: "ping-request", seq, target: "c", targetAddress: addressOf("c") });
    few.hear("b", { type: "sync", hash: seq });
  }
  expect(few.sentTo("c", "ping").length).toBeLessThanOrEqual(64);
  expect(few.sentTo("b", "digest").length).toBeLessThanOrEqual(100);
});

test("the largest names, facts and lists there can be still go out in frames", () => {
  const long = (i: number) => `${"x".repeat(60)}${i.toString().padStart(4, "0")}`;
  const address = "[aaaa:bbbb:cccc:dddd:eeee:ffff:1111:2222]:65535";
  const facts = (lives: number) =>
    Array.from({ length: 2 * lives }, (_, i) => ({ name: `fact-${i}`, version: 2 ** 47, value: "v".repeat(430) }));
  const node = new Node({ suspicionMs: 1e8 });
  node.hear("b", GOSSIP, ...alive("b"));
  for (let i = 0; i < 200; i++) {
    const witnesses = [1, 2, 3, 4, 5].map((k) => long(5000 + k));
    const one = rumor(long(i), i % 2 === 0 ? "alive" : "suspect", 2 ** 47, { address, witnesses, facts: facts(1) });
    node.hear("b", RECORDS, one);
    if (i % 5 === 0) node.hear("b", RECORDS, { ...one, facts: facts(4).slice(i % 8) });
  }
  const ids = node.state.members.map(({ id }) => id);
  for (let i = 0; i < ids.length; i += 20) {
    node.now += 200;
    const message = { from: ids[i + 1] ?? "b", address, incarnation: 2 ** 47, rumors: [] };
    node.give({ type: "message", message: { ...message, type: "want", ids: ids.slice(i, i + 20) } });
    node.give({ type: "message", message: { ...message, type: "sync", hash: 1 } });
    const digest = { type: "digest", after: "", through: "", entries: [] } as const;
    node.give({ type: "message", message: { ...message, ...digest } });
  }
  node.run(5000);
  expect(node.sent.length).toBeGreaterThan(500);
  for (const { message } of node.sent) encodeMessage(message); // asserts the bound
});

test("an age that can't be is no trouble to those who are told of it", () => {
  const node = among("bcd");
  node.hear("b", GOSSIP, rumor("d", "suspect", 1, { witnesses: ["b"] }));
  node.hear("b", GOSSIP, rumor("d", "dead", 1, { ageSeconds: 2 ** 32 - 1 }));
  node.run(200);
  expect(node.sent.some(({ message }) => message.rumors.some(({ status }) => status === "dead"))).toBe(true);
  for (const { message } of node.sent) encodeMessage(message);
});

test("an untruthful digest, out of order or out of its range, is not answered", () => {
  const node = among("bcd");
  const entries = ["c", "b"].map((id) => ({ id, incarnation: 9, status: "alive", factsHash: 0 }) as const);
  node.hear("b", { type: "digest", after: "", through: "", entries });
  node.hear("b", { type: "digest", after: "", through: "a", entries: entries.slice(1) });
  node.hear("b", { type: "digest", after: "x", through: "", entries: entries.slice(1) });
  expect(node.sentTo("b", "want")).toEqual([]);
  node.hear("b", { type: "digest", after: "a", through: "b", entries: entries.slice(1) });
  expect(node.sentTo("b", "want")).toMatchObject([{ ids: ["b"] }]);
});

test("a step changes nothing of the state that it was given, and the same step gives the same", () => {
  const node = new Node();
  const frozen = <T>(value: T): T => {
    if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
      Object.freeze(value);
      Object.values(value).forEach(frozen);
    }
    return value;
  };
  const inputs: Input[] = [
    { type: "tick" },
    { type: "facts", values: { load: "1" } },
    { type: "join", seeds: ["10.0.0.9:1"] },
  ];
  const bodies: MessageBody[] = [
    GOSSIP,
    RECORDS,
    { type: "ping", seq: 1, to: "a" },
    { type: "ping-request", seq: 2, target: "c", targetAddress: addressOf("c") },
    { type: "sync", hash: 5 },
    { type: "digest", after: "", through: "", entries: [] },
    { type: "want", ids: ["a", "b"] },
  ];
  const random = seededRandom(3);
  for (let i = 0; i < 5000; i++) {
    const draw = random.bytes(6);
    const id = "abcdefgh"[draw[0]! % 8]!;
    const status = (["alive", "suspect", "dead", "left"] as const)[draw[1]! % 4]!;
    const told = rumor(id, status, draw[2]! % 40, { witnesses: status === "suspect" ? ["b"] : [] });
    const from = "bcdefgh"[draw[3]! % 7]!;
    const message = { from, address: addressOf(from), incarnation: draw[4]! % 40, rumors: [told] };
    const body = bodies[draw[5]! % bodies.length]!;
    const input: Input = i % 3 === 0 ? inputs[draw[5]! % 3]! : { type: "message", message: { ...message, ...body } };
    node.now += draw[0]! * (draw[1]! < 5 ? 20 : 1);
    const before = frozen(node.state);
    const once = step(before, input, node.now, seededRandom(i));
    const again = step(before, input, node.now, seededRandom(i));
    expect(JSON.stringify(again)).toBe(JSON.stringify(once));
    node.state = once.state;
  }
});
