import { expect, test } from "bun:test";
import type { Clock } from "../../lib/clock.ts";
import { silentLog } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { defineTable, put, type Store } from "../../model/store.ts";
import type { Consensus, ConsensusError, ConsensusStatus } from "../consensus.ts";
import { configurationOf, membersOf } from "../raft/configuration.ts";
import type { Configuration, Entry, PeerId, Role, Term } from "../raft/types.ts";
import {
  encodeDo,
  encodeRegister,
  encodeTransaction,
  numbered,
  parseAnswer,
  type Transaction,
} from "./forward-message.ts";
import { History } from "./history.ts";
import { Ledger } from "./ledger.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { emptyReplicated } from "./replicated.ts";
import { ReplicatedStore } from "./replicated-store.ts";
import { schemaOf } from "./schema.ts";
import { typedStore } from "./typed-store.ts";
import { View } from "./view.ts";

type Row = { readonly id: string; readonly n: number };
const rows = defineTable({
  name: "rows",
  version: 1,
  key: (row: Row) => row.id,
  indexes: { byN: (r) => r.n.toFixed() },
});
const schema = schemaOf([rows]);

/** A clock that stands still until it is told. */
class TestClock implements Clock {
  #now = 0;
  #sleepers: { readonly until: number; readonly wake: () => void }[] = [];
  now = () => this.#now;
  monotonicMs = () => this.#now;
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((wake) => {
      this.#sleepers.push({ until: this.#now + ms, wake });
      signal?.addEventListener("abort", () => wake());
    });
  }
  /** In small steps, so that whoever sleeps again is woken again. */
  async advance(ms: number): Promise<void> {
    for (const end = this.#now + ms; this.#now < end; ) {
      this.#now = Math.min(end, this.#now + 25);
      const due = this.#sleepers.filter(({ until }) => until <= this.#now);
      this.#sleepers = this.#sleepers.filter(({ until }) => until > this.#now);
      for (const { wake } of due) wake();
      await settle();
    }
  }
}

/** Lets everything that can go on go on. */
const settle = async () => {
  for (let i = 0; i < 3; i++) await new Promise(setImmediate);
};

/** Consensus by the test's own hand: it commits what was proposed when it is told, or never. */
class Hand implements Consensus {
  readonly id: PeerId;
  readonly store: ReplicatedStore;
  readonly typed: Store;
  readonly clock = new TestClock();
  proposed: { readonly term: Term; readonly data: Uint8Array }[] = [];
  index = 0;
  term: Term = 0;
  role: Role = "follower";
  leader: PeerId | undefined;
  health: ConsensusStatus["health"] = "ok";
  configuration: Configuration;
  reads: ((index: Result<number, ConsensusError>) => void)[] = [];
  /** How the other nodes answer; by default, never in time. */
  remote: (to: PeerId, body: Uint8Array) => Promise<Result<Uint8Array, ConsensusError>> = async () =>
    fail({ reason: "unavailable", message: "no answer" });

  constructor(voters = ["me", "you", "them"], disk = new MemoryDisk(), id = "me") {
    this.id = id;
    this.configuration = configurationOf(voters);
    this.store = new ReplicatedStore({
      schema,
      disk,
      directory: "/store",
      ledger: Ledger.empty(emptyReplicated(schema)),
      history: new History(0),
      snapshotRevision: 0,
      electionMs: 250,
      clock: this.clock,
      random: seededRandom(1),
      log: silentLog,
    });
    this.store.attach(this, async () => {});
    this.typed = typedStore(this.store, schema);
  }

  propose(term: Term, commands: readonly Uint8Array[]): void {
    for (const data of commands) this.proposed.push({ term, data });
  }
  readIndex(): Promise<Result<number, ConsensusError>> {
    return new Promise((resolve) => this.reads.push(resolve));
  }
  async changeConfiguration() {
    return ok(undefined);
  }
  async transferLeadership() {
    return ok(undefined);
  }
  async request(to: PeerId, body: Uint8Array): Promise<Result<Uint8Array, ConsensusError>> {
    return to === this.id ? ok(await this.store.answer(to, body)) : this.remote(to, body);
  }
  async close(): Promise<void> {}
  status(): ConsensusStatus {
    return {
      id: this.id,
      role: this.role,
      term: this.term,
      leader: this.leader,
      commitIndex: this.index,
      appliedIndex: this.index,
      lastIndex: this.index,
      configuration: this.configuration,
      decidesAlone: membersOf(this.configuration).size === 1,
      logBytes: 0,
      snapshotIndex: 0,
      health: this.health,
      peers: [],
    };
  }

  apply(term: Term, data: Uint8Array): void {
    const entry: Entry = { index: ++this.index, term, data };
    this.store.apply([entry]);
  }
  /** The first `count` proposals come back. */
  commit(count = this.proposed.length): void {
    for (const { term, data } of this.proposed.splice(0, count)) this.apply(term, data);
  }
  lead(term: Term): void {
    this.term = term;
    this.role = "leader";
    this.leader = this.id;
    this.apply(term, new Uint8Array(0));
    this.store.gainedLeadership(term);
  }
  follow(leader: PeerId | undefined, term: Term): void {
    const wasLeading = this.role === "leader";
    this.term = term;
    this.role = "follower";
    this.leader = leader;
    if (wasLeading) this.store.lostLeadership();
    this.store.leaderChanged();
  }
  answerReads(): void {
    for (const resolve of this.reads.splice(0)) resolve(ok(this.index));
  }

  set(id: string, n: number) {
    return watched(this.typed.transact(() => ok({ writes: [put(rows, { id, n })], value: n })));
  }
  raise(id: string) {
    return watched(
      this.typed.transact((state) => {
        const n = (state.get(rows, id)?.n ?? 0) + 1;
        return ok({ writes: [put(rows, { id, n })], value: n });
      }),
    );
  }
  n(id: string): number | undefined {
    return this.typed.read().get(rows, id)?.n;
  }
}

/** A promise whose outcome can be looked at. */
function watched<T>(promise: Promise<T>): { value: T | undefined; readonly done: Promise<T> } {
  const seen: { value: T | undefined; done: Promise<T> } = { value: undefined, done: promise };
  void promise.then((value) => {
    seen.value = value;
  });
  return seen;
}

// --- The leader's own decisions

test("decisions run one after another, each on the writes of those before it, before any is committed", async () => {
  const hand = new Hand();
  hand.lead(1);
  const raised = Array.from({ length: 20 }, () => hand.raise("a"));
  await settle();
  expect(hand.proposed).toHaveLength(20);
  expect(hand.n("a")).toBeUndefined();
  hand.commit(7);
  await settle();
  expect(hand.n("a")).toBe(7);
  expect(raised.map(({ value }) => value)).toEqual([
    ...Array.from({ length: 7 }, (_, i) => ok(i + 1)),
    ...Array(13).fill(undefined),
  ]);
  hand.commit();
  await settle();
  expect(raised[19]!.value).toEqual(ok(20));
});

test("what comes back is adopted as it was decided: the very same records, applied once", async () => {
  const hand = new Hand();
  hand.lead(1);
  hand.set("a", 1);
  await settle();
  const tentative = hand.store.propose((view: View) => {
    const seen = view.get("rows/a");
    return ok({ operations: [], value: seen });
  });
  hand.commit();
  hand.answerReads();
  await settle();
  const seen = await tentative;
  expect(seen.ok && seen.value).toBe(new View(hand.store.state()).get("rows/a") as never);
});

test("a decision that writes nothing waits for what it saw, and for word that nobody else leads", async () => {
  const hand = new Hand();
  hand.lead(1);
  const write = hand.set("a", 1);
  const read = watched(hand.typed.transact((state) => ok({ writes: [], value: state.get(rows, "a")?.n })));
  const refused = watched(hand.typed.transact(() => fail("no" as const)));
  await settle();
  hand.answerReads();
  await settle();
  expect([read.value, refused.value]).toEqual([undefined, undefined]);
  hand.commit();
  await settle();
  expect([write.value, read.value, refused.value]).toEqual([ok(1), ok(1), fail("no")] as never);

  const late = watched(hand.typed.transact((state) => ok({ writes: [], value: state.get(rows, "a")?.n })));
  await settle();
  expect(late.value).toBeUndefined();
  hand.answerReads();
  await settle();
  expect(late.value).toEqual(ok(1));
});

test("a node that is alone asks nobody", async () => {
  const hand = new Hand(["me"]);
  hand.lead(1);
  expect(await hand.typed.transact((state) => ok({ writes: [], value: state.count(rows) }))).toEqual(ok(0));
  expect(await hand.typed.barrier()).toEqual(ok(undefined));
  expect(hand.reads).toEqual([]);
  expect(hand.typed.status()).toMatchObject({ role: "single", health: "ok", term: 1, leader: "me" });
});

test("a decision that throws rejects, and harms nobody", async () => {
  const hand = new Hand();
  hand.lead(1);
  await expect(
    hand.typed.transact(() => {
      throw new Error("mine");
    }),
  ).rejects.toThrow("mine");
  const after = hand.set("a", 1);
  await settle();
  hand.commit();
  await settle();
  expect(after.value).toEqual(ok(1));
});

test("what a lost leader proposed is committed if it still comes back, and decided anew if a later term does", async () => {
  const hand = new Hand();
  hand.lead(1);
  const raised = Array.from({ length: 5 }, () => hand.raise("a"));
  await settle();
  const lost = hand.proposed.splice(0);
  hand.follow("you", 2);
  await settle();
  expect(raised.map(({ value }) => value)).toEqual(Array(5).fill(undefined));
  // Two of them had reached a majority: they come back with the term in which they were proposed.
  for (const { term, data } of lost.slice(0, 2)) hand.apply(term, data);
  await settle();
  expect(raised.slice(0, 3).map(({ value }) => value)).toEqual([ok(1), ok(2), undefined]);
  // The next leader's first entry: the other three are lost, and go on as a follower's do. Then this node leads again.
  const asked: PeerId[] = [];
  hand.remote = async (to) => {
    asked.push(to);
    return fail({ reason: "unavailable", message: "no answer" });
  };
  await settle();
  expect(asked).toEqual([]);
  hand.apply(2, new Uint8Array(0));
  await settle();
  expect(asked).toEqual(["you"]);
  hand.lead(3);
  await hand.clock.advance(100);
  // Each was decided on its own; all but the first of a round are in conflict, and are decided anew.
  for (let round = 0; round < 5; round++) {
    hand.commit();
    hand.answerReads();
    await settle();
  }
  expect(raised.map(({ value }) => value)).toEqual([1, 2, 3, 4, 5].map(ok) as never);
  expect(hand.n("a")).toBe(5);
});

test("what was decided but not yet proposed when leadership was lost is decided anew at once", async () => {
  const hand = new Hand();
  hand.lead(1);
  const raised = hand.raise("a");
  hand.follow(undefined, 2);
  await settle();
  expect(hand.proposed).toEqual([]);
  hand.lead(2);
  await hand.clock.advance(100);
  hand.commit();
  await settle();
  hand.commit();
  await settle();
  expect(raised.value).toEqual(ok(1));
});

test("a snapshot that takes the place of entries says what of a lost leader's proposals is in it", async () => {
  const disk = new MemoryDisk();
  const hand = new Hand(undefined, disk);
  hand.lead(4);
  const raised = Array.from({ length: 4 }, () => hand.raise("a"));
  await settle();
  const [first, ...others] = hand.proposed.splice(0);
  hand.apply(first!.term, first!.data);

  // Another node has applied the next two, and more of the next leader's; this one is sent its snapshot.
  const other = new Hand(undefined, disk);
  other.apply(4, new Uint8Array(0));
  for (const { term, data } of [first!, ...others.slice(0, 2)]) other.apply(term, data);
  other.apply(5, new Uint8Array(0));
  other.apply(5, Buffer.from('["w",[["p","rows/b",1,null,{"id":"b","n":9}]]]'));
  const point = { index: other.index, term: 5, configuration: hand.configuration };
  const written = await other.store.snapshot(point);
  if (!written.ok) throw new Error(written.error);
  expect(await hand.store.verify(written.value.path)).toEqual(ok(point));

  hand.follow("you", 5);
  const watch = hand.typed.watch([rows], { fromRevision: 0 })[Symbol.asyncIterator]();
  const old = hand.typed.watch([rows], { fromRevision: 1 })[Symbol.asyncIterator]();
  expect((await watch.next()).value).toMatchObject({ kind: "changes", revision: 1 });
  const waiting = watch.next();
  expect(await hand.store.install(written.value)).toEqual(ok(undefined));
  expect((await waiting).value).toEqual({ kind: "compacted", revision: 4 });
  expect((await old.next()).value).toEqual({ kind: "compacted", revision: 4 });
  await settle();
  expect(await hand.store.digest()).toBe(await other.store.digest());
  expect(hand.n("a")).toBe(3);
  expect(hand.typed.read().lookup(rows, "byN", "9")).toEqual([{ id: "b", n: 9 }]);
  expect(raised.map(({ value }) => value)).toEqual([ok(1), ok(2), ok(3), undefined]);
  hand.index = point.index;
  hand.lead(6);
  await hand.clock.advance(100);
  hand.commit();
  await settle();
  hand.commit();
  await settle();
  expect(raised[3]!.value).toEqual(ok(4));
});

test("when nobody can tell, the answer comes in time, and says so", async () => {
  const hand = new Hand();
  hand.lead(1);
  const proposed = hand.raise("a");
  await settle();
  hand.follow(undefined, 2);
  await hand.clock.advance(12_000);
  expect(proposed.value).toMatchObject({ ok: false, error: { reason: "unavailable" } });
  expect(JSON.stringify(proposed.value)).toContain("Outcome unknown");
  const never = hand.raise("a");
  await hand.clock.advance(6000);
  expect(never.value).toMatchObject({ ok: false, error: { reason: "unavailable" } });
  expect(JSON.stringify(never.value)).toContain("was not made");
  // Late, but it was committed after all: whoever looks sees it.
  hand.commit();
  expect(hand.n("a")).toBe(1);
});

test("a disk that is full, of a node that is alone, refuses what was pending and what comes, until there is space", async () => {
  const hand = new Hand(["me"]);
  hand.lead(1);
  const pending = hand.raise("a");
  await settle();
  hand.proposed = [];
  hand.health = "full";
  hand.follow(undefined, 1);
  await settle();
  expect(pending.value).toMatchObject({ ok: false, error: { reason: "full" } });
  const waits = hand.raise("a");
  await hand.clock.advance(1000);
  expect(waits.value).toMatchObject({ ok: false, error: { reason: "full" } });
  const patient = hand.raise("a");
  await hand.clock.advance(300);
  hand.health = "ok";
  hand.lead(2);
  await hand.clock.advance(100);
  hand.commit();
  await settle();
  hand.commit();
  await settle();
  expect(patient.value).toEqual(ok(1));
});

test("what was durable before the disk was full is committed, though it is applied after the office was lost", async () => {
  const hand = new Hand(["me"]);
  hand.lead(1);
  const raised = Array.from({ length: 3 }, () => hand.raise("a"));
  await settle();
  hand.health = "full";
  const status = hand.status();
  hand.status = () => ({ ...status, role: "follower", leader: undefined, health: "full", commitIndex: hand.index + 2 });
  hand.follow(undefined, 1);
  const [first, second] = hand.proposed.splice(0);
  hand.apply(1, first!.data);
  await settle();
  expect(raised.map(({ value }) => value)).toEqual([ok(1), undefined, undefined]);
  hand.status = () => ({ ...status, role: "follower", leader: undefined, health: "full", commitIndex: hand.index });
  hand.apply(1, second!.data);
  await settle();
  expect(raised[1]!.value).toEqual(ok(2));
  expect(raised[2]!.value).toMatchObject({ ok: false, error: { reason: "full" } });
});

test("a disk that failed ends what was pending with that, and everything after it at once", async () => {
  const hand = new Hand();
  hand.lead(1);
  const pending = hand.raise("a");
  await settle();
  hand.health = "failed";
  hand.follow(undefined, 1);
  await settle();
  expect(pending.value).toMatchObject({ ok: false, error: { reason: "failed" } });
  expect(await hand.raise("a").done).toMatchObject({ ok: false, error: { reason: "failed" } });
  expect(hand.typed.status()).toMatchObject({ health: "failed", pending: 0 });
});

// --- What others ask of the leader

const writeOf = (n: number, modRevision?: number): Transaction => ({
  kind: "write",
  compares: modRevision === undefined ? [] : [{ kind: "key", key: "rows/a", modRevision }],
  operations: [
    {
      operation: { kind: "put", key: "rows/a", format: 1, value: { id: "a", n } },
      text: `["p","rows/a",1,null,{"id":"a","n":${n}}]`,
    },
  ],
});

/** A client of the leader, by hand. */
class Client {
  readonly #hand: Hand;
  session = 0;

  constructor(hand: Hand) {
    this.#hand = hand;
  }
  async register(): Promise<void> {
    const answered = this.#hand.store.answer("you", encodeRegister(this.#hand.term));
    await settle();
    this.#hand.commit();
    const answer = parseAnswer(await answered, 0);
    if (!answer.ok || answer.value.kind !== "session") throw new Error("no session");
    this.session = answer.value.session;
  }
  /** A request as bytes, so that it can come twice. */
  request(number: number, transaction: Transaction, low = number, term = this.#hand.term): Uint8Array {
    return encodeDo(term, this.session, low, [numbered(number, encodeTransaction(schema, transaction))]);
  }
  async ask(request: Uint8Array) {
    const answered = watched(this.#hand.store.answer("you", request).then((bytes) => parseAnswer(bytes, 1)));
    await settle();
    return answered;
  }
}

const done = (index: number, result: unknown) => ok({ kind: "done", index, results: [result] }) as never;

test("a forwarded transaction that is asked for again, before and after its commit, is carried out once", async () => {
  const hand = new Hand();
  hand.lead(1);
  const client = new Client(hand);
  await client.register();
  const request = client.request(1, writeOf(1));
  const first = await client.ask(request);
  const second = await client.ask(request);
  expect(hand.proposed).toHaveLength(1);
  hand.commit();
  await settle();
  const third = await client.ask(request);
  expect([first.value, second.value, third.value]).toEqual(Array(3).fill(done(hand.index, "committed")));
  expect(hand.typed.read().revision).toBe(1);

  // So it is by the next leader, who knows the client from the log only.
  const next = new Hand();
  next.apply(1, new Uint8Array(0));
  next.apply(1, Buffer.from('["s"]'));
  next.apply(1, Buffer.from(`["w",[["p","rows/a",1,null,{"id":"a","n":1}]],[${client.session},1,1]]`));
  expect(await next.store.digest()).toBe(await hand.store.digest());
  next.lead(2);
  const again = new Client(next);
  again.session = client.session;
  expect((await again.ask(again.request(1, writeOf(1)))).value).toEqual(done(next.index, "committed"));
  expect(next.proposed).toEqual([]);
});

test("a late copy does not carry out what its client was told is not made", async () => {
  const hand = new Hand();
  hand.lead(1);
  const client = new Client(hand);
  await client.register();
  // It compares with a key that is there, and then no longer: the compare would hold later.
  hand.set("a", 1);
  await settle();
  hand.commit();
  const absent = client.request(1, writeOf(2, 0));
  expect((await client.ask(absent)).value).toEqual(done(hand.index, "conflict"));
  const removed = watched(
    hand.store.txn([], [{ operation: { kind: "remove", key: "rows/a" }, text: '["r","rows/a"]' }]),
  );
  await settle();
  hand.commit();
  expect(await removed.done).toEqual(ok({ committed: true }));
  expect((await client.ask(absent)).value).toEqual(done(hand.index, "conflict"));
  // Its client went on: the answer is forgotten, and the late copy is still not carried out.
  expect(
    (await client.ask(client.request(2, { kind: "write", compares: [], operations: [] }, 2))).value,
  ).toBeUndefined();
  expect((await client.ask(absent)).value).toEqual(done(0, "unresolved"));
  expect(hand.proposed).toEqual([]);
});

test("a request for the leader of another term does nothing, whoever gets it", async () => {
  const hand = new Hand();
  hand.lead(1);
  const client = new Client(hand);
  await client.register();
  const request = client.request(1, writeOf(1));
  hand.follow("you", 2);
  expect((await client.ask(request)).value).toEqual(ok({ kind: "moved" }));
  hand.lead(3);
  expect((await client.ask(request)).value).toEqual(ok({ kind: "moved" }));
  expect(hand.proposed).toEqual([]);
});

test("a leader that loses its office tells those who forwarded to ask the next one, at once", async () => {
  const hand = new Hand();
  hand.lead(1);
  const client = new Client(hand);
  await client.register();
  const asked = await client.ask(client.request(1, writeOf(1)));
  hand.follow("you", 2);
  await settle();
  expect(asked.value).toEqual(done(0, "unresolved"));
  hand.commit();
  expect(hand.n("a")).toBe(1);
});

test("a session that nobody knows is expired, and nothing of the request is carried out", async () => {
  const hand = new Hand();
  hand.lead(1);
  const client = new Client(hand);
  client.session = 17;
  expect((await client.ask(client.request(1, writeOf(1)))).value).toEqual(ok({ kind: "expired" }));
  expect(hand.proposed).toEqual([]);
});

test("what is no request is refused, and so is a record that the leader's indexes make nothing of", async () => {
  const hand = new Hand();
  hand.lead(1);
  const client = new Client(hand);
  await client.register();
  expect((await client.ask(Buffer.from("{"))).value).toMatchObject({ value: { kind: "bad" } });
  const text = '[1,"w",[],[["p","rows/a",1,null,{"id":"a","n":null}]]]';
  expect((await client.ask(encodeDo(1, client.session, 1, [text]))).value).toMatchObject({ value: { kind: "bad" } });
  expect(hand.proposed).toEqual([]);
  const after = await client.ask(client.request(2, writeOf(2), 1));
  hand.commit();
  await settle();
  expect(after.value).toEqual(done(hand.index, "committed"));
});

// --- What a follower asks

/** A follower of `leader`, whose questions reach it as `way` lets them. */
function followerOf(leader: Hand, way: (ask: () => Promise<Uint8Array>) => Promise<Uint8Array | undefined>): Hand {
  const follower = new Hand(undefined, new MemoryDisk(), "you");
  follower.remote = async (_, body) => {
    const answer = await way(() => leader.store.answer("you", body));
    return answer ? ok(answer) : fail({ reason: "unavailable", message: "no answer" });
  };
  return follower;
}

/** Commits what the leader proposed, there and on the others. */
function replicate(leader: Hand, ...others: Hand[]): void {
  const proposed = [...leader.proposed];
  leader.commit();
  for (const other of others) for (const { term, data } of proposed) other.apply(term, data);
}

/** A leader of term 1 and a follower of it that has a session; what else it asks goes by `way`. */
async function pair(way: (ask: () => Promise<Uint8Array>) => Promise<Uint8Array | undefined>) {
  const leader = new Hand();
  const follower = followerOf(leader, (ask) => (isRegistered ? way(ask) : ask()));
  let isRegistered = false;
  leader.lead(1);
  follower.apply(1, new Uint8Array(0));
  follower.follow("me", 1);
  const first = follower.raise("first");
  await settle();
  replicate(leader, follower);
  await settle();
  isRegistered = true;
  // The transaction itself, once the session is there.
  await settle();
  replicate(leader, follower);
  await settle();
  expect(first.value).toEqual(ok(1));
  return { leader, follower };
}

test("a follower's transaction is answered once this node shows it, and not before", async () => {
  const { leader, follower } = await pair((ask) => ask());
  const raised = follower.raise("a");
  await settle();
  const proposed = [...leader.proposed];
  leader.commit();
  await settle();
  expect(leader.n("a")).toBe(1);
  expect(raised.value).toBeUndefined();
  for (const { term, data } of proposed) follower.apply(term, data);
  await settle();
  expect(raised.value).toEqual(ok(1));
  expect(await follower.store.digest()).toBe(await leader.store.digest());
});

test("a follower's decision that writes nothing needs only its leader's word: it was made on what this node shows", async () => {
  const { leader, follower } = await pair((ask) => ask());
  // Meanwhile the leader goes on, and this node hears nothing of it.
  const other = leader.set("b", 1);
  await settle();
  leader.commit();
  expect((await other.done).ok).toBe(true);
  const refused = watched(follower.typed.transact((state) => fail({ found: state.get(rows, "first")?.n })));
  const looked = watched(follower.typed.transact((state) => ok({ writes: [], value: state.get(rows, "first")?.n })));
  await settle();
  expect([refused.value, looked.value]).toEqual([undefined, undefined]);
  leader.answerReads();
  await settle();
  expect(refused.value).toEqual(fail({ found: 1 }));
  expect(looked.value).toEqual(ok(1));
  expect(follower.n("b")).toBeUndefined();
});

test("many at once share requests, and conflicts among them are decided anew on a state that shows what was in the way", async () => {
  let requests = 0;
  const { leader, follower } = await pair((ask) => {
    requests++;
    return ask();
  });
  const raised = Array.from({ length: 10 }, () => follower.raise("a"));
  for (let round = 0; round < 12; round++) {
    await settle();
    replicate(leader, follower);
  }
  await settle();
  expect(raised.map(({ value }) => (value?.ok ? value.value : 0)).sort((a, b) => a - b)).toEqual(
    Array.from({ length: 10 }, (_, i) => i + 1),
  );
  expect(requests).toBeLessThanOrEqual(10);
});

test("a transaction whose answer was lost is asked for again, and made once", async () => {
  let losing = 2;
  const { leader, follower } = await pair(async (ask) => {
    const answered = await ask();
    return losing-- > 0 ? undefined : answered;
  });
  const raised = follower.raise("a");
  for (let round = 0; round < 4; round++) {
    await settle();
    replicate(leader, follower);
    await follower.clock.advance(100);
  }
  expect(raised.value).toEqual(ok(1));
  expect(leader.n("a")).toBe(1);
  expect(losing).toBe(-1);
});

test("a transaction that a leader carried out and could not confirm is not made again by the next", async () => {
  const { leader, follower } = await pair(async (ask) => {
    void ask();
    return undefined;
  });
  const raised = follower.raise("a");
  await settle();
  const proposed = [...leader.proposed];
  expect(proposed).toHaveLength(1);
  // The next leader has it in its log, as the follower has.
  const next = new Hand(undefined, new MemoryDisk(), "them");
  for (const data of [new Uint8Array(0), Buffer.from('["s"]')]) next.apply(1, data);
  const before = follower.store.state().revision;
  next.apply(1, Buffer.from('["w",[["p","rows/first",1,null,{"id":"first","n":1}]],[1,1,1]]'));
  for (const { term, data } of proposed) for (const hand of [next, follower]) hand.apply(term, data);
  next.lead(2);
  follower.apply(2, new Uint8Array(0));
  follower.remote = async (to, body) =>
    to === "them" ? ok(await next.store.answer("you", body)) : fail({ reason: "unavailable", message: "" });
  follower.follow("them", 2);
  await follower.clock.advance(100);
  expect(raised.value).toEqual(ok(1));
  expect(next.proposed).toEqual([]);
  expect(follower.store.state().revision).toBe(before + 1);
  expect(await next.store.digest()).toBe(await follower.store.digest());
});

test("a follower that is elected carries out itself what it could not get done", async () => {
  const { follower } = await pair(async () => undefined);
  const raised = follower.raise("a");
  await settle();
  follower.follow(undefined, 2);
  await settle();
  follower.lead(2);
  await follower.clock.advance(100);
  follower.commit();
  await settle();
  expect(raised.value).toEqual(ok(1));
  expect(follower.n("a")).toBe(1);
});

test("without a leader a transaction is not made, and with one that is silent nobody knows; both are told in time", async () => {
  const { follower } = await pair(async () => undefined);
  const silent = follower.raise("a");
  await follower.clock.advance(8000);
  expect(JSON.stringify(silent.value)).toContain("Outcome unknown");
  expect(JSON.stringify(silent.value)).not.toContain("not made");
  follower.follow(undefined, 2);
  const none = follower.raise("a");
  await follower.clock.advance(6000);
  expect(none.value).toMatchObject({ ok: false, error: { reason: "unavailable" } });
  expect(JSON.stringify(none.value)).toContain("was not made");
});

test("a session that expired is told as an unknown outcome, once; the next transaction gets another session", async () => {
  const { leader, follower } = await pair((ask) => ask());
  leader.follow(undefined, 2);
  for (let i = 0; i < 1024; i++) for (const hand of [leader, follower]) hand.apply(1, Buffer.from('["s"]'));
  leader.lead(2);
  follower.apply(2, new Uint8Array(0));
  follower.follow("me", 2);
  const raised = follower.raise("a");
  await settle();
  expect(JSON.stringify(raised.value)).toContain("expired");
  const next = follower.raise("a");
  for (let round = 0; round < 3; round++) {
    await follower.clock.advance(60);
    replicate(leader, follower);
    await settle();
  }
  expect(next.value).toEqual(ok(1));
});

// --- Leases

test("a new leader gives every lease its whole time, and a leader that lost its office ends none", async () => {
  const hand = new Hand();
  hand.lead(1);
  const granting = watched(hand.typed.grantLease(1000));
  await settle();
  hand.commit();
  const granted = await granting.done;
  if (!granted.ok) throw new Error("no lease");
  await hand.clock.advance(900);
  hand.follow("you", 2);
  await hand.clock.advance(5000);
  expect(hand.proposed).toEqual([]);
  hand.apply(2, new Uint8Array(0));
  hand.lead(3);
  await hand.clock.advance(900);
  expect(hand.proposed).toEqual([]);
  await hand.clock.advance(200);
  expect(hand.proposed).toHaveLength(1);
  hand.commit();
  expect(hand.typed.status().leases).toBe(0);
});

test("a follower grants, keeps and ends leases by its leader", async () => {
  const { leader, follower } = await pair((ask) => ask());
  const both = async (ms: number) => {
    await Promise.all([leader.clock.advance(ms), follower.clock.advance(ms)]);
    leader.answerReads();
    await settle();
    replicate(leader, follower);
    await settle();
  };
  const granting = watched(follower.typed.grantLease(1000));
  await both(50);
  const granted = granting.value;
  if (!granted?.ok) throw new Error("no lease");
  await both(800);
  const kept = watched(follower.typed.keepAlive(granted.value));
  await both(50);
  expect(kept.value).toEqual(ok(undefined));
  await both(900);
  expect(follower.typed.status().leases).toBe(1);
  const ended = watched(follower.typed.revokeLease(granted.value));
  await both(50);
  expect(ended.value).toEqual(ok(undefined));
  expect(follower.typed.status().leases).toBe(0);
  const late = watched(follower.typed.keepAlive(granted.value));
  await both(50);
  expect(late.value).toMatchObject({ ok: false, error: { reason: "no-lease" } });
});
