/**
 * Clients of the store as services are: they read, write, compare and swap through whatever node they are at, go elsewhere
 * when that one fails them, and write down what they were told. Values are never written twice, so that a value tells who
 * wrote it. Keys come in small groups that a transaction may span, and new groups take over after a while, so that the
 * checker's searches stay short.
 */
import { fail, ok } from "../../../src/lib/result.ts";
import {
  defineTable,
  type LeaseId,
  put,
  type Reader,
  remove,
  type Store,
  type StoreError,
  type Write,
} from "../../../src/model/store.ts";
import type { Prng } from "../base/prng.ts";
import { Violation } from "../base/simulation.ts";
import type { Pairs } from "../check/linearizability.ts";
import type { Asked, Recorder } from "./history.ts";

export type Register = { readonly id: string; readonly value: number; readonly padding: string };
export const registers = defineTable({
  name: "registers",
  version: 1,
  key: (record: Register) => record.id,
  indexes: { byParity: (record) => String(record.value % 2) },
});
export type Leased = { readonly id: string; readonly lease: string };
export const leased = defineTable({ name: "leased", version: 1, key: (record: Leased) => record.id });
export const TABLES = [registers, leased];

/** A node as a client sees it; `ended` resolves when it dies. */
export type Server = { readonly id: string; readonly store: Store; readonly ended: Promise<void> };

export type World = {
  now(): number;
  sleep(ms: number): Promise<void>;
  isOver(): boolean;
  servers(): readonly Server[];
  readonly recorder: Recorder;
  readonly plan: { readonly thinkMs: number; readonly valueBytesMax: number };
  /** A client was told that `value` was written, while the node was at `revision`, and it shows another value. */
  acknowledged(server: Server, value: number, revision: number): void;
  fails(violation: Violation): void;
  leases: LeaseBook;
};

const GROUP_KEYS = 3;
/** Operations after which a group of keys is left alone. */
const GROUP_OPERATIONS = 60;
const GROUPS = 3;
/** Longer than the store itself lets anyone wait. */
const PATIENCE_MS = 15_000;

export class Keys {
  readonly #prng: Prng;
  readonly #groups: { name: number; used: number }[] = [];
  #next = 0;
  readonly all = new Set<string>();

  constructor(prng: Prng) {
    this.#prng = prng;
    for (let i = 0; i < GROUPS; i++) this.#groups.push({ name: this.#next++, used: 0 });
  }

  /** `count` keys that may be used together. */
  take(count: number): string[] {
    const at = this.#prng.below(this.#groups.length);
    const group = this.#groups[at]!;
    if (++group.used >= GROUP_OPERATIONS) this.#groups[at] = { name: this.#next++, used: 0 };
    const keys = this.#prng
      .shuffled(Array.from({ length: GROUP_KEYS }, (_, i) => `g${group.name}k${i}`))
      .slice(0, count);
    for (const key of keys) this.all.add(key);
    return keys.sort();
  }
}

const GONE = Symbol("the node is gone");
const LATE = Symbol("it takes too long");
type Told<T> = T | typeof GONE | typeof LATE;

const valuesOf = (reader: Reader, keys: readonly string[]): Pairs =>
  keys.map((key) => [key, reader.get(registers, key)?.value ?? 0]);

/** Whether the store says that nothing was written, and never will be. */
const isRefusal = ({ reason, message }: StoreError): boolean =>
  ["busy", "too-large", "no-lease"].includes(reason) ||
  (reason === "full" && !message.includes("unknown")) ||
  (reason === "unavailable" && message.startsWith("The transaction was not made"));

export class Client {
  readonly #name: string;
  readonly #world: World;
  readonly #prng: Prng;
  readonly #keys: Keys;
  readonly #nextValue: () => number;
  /** One that never writes is never kept waiting for what a cut-off leader can't commit, and looks on. */
  readonly #onlyReads: boolean;
  #server: Server | undefined;

  constructor(name: string, world: World, prng: Prng, keys: Keys, nextValue: () => number) {
    this.#name = name;
    this.#world = world;
    this.#prng = prng;
    this.#keys = keys;
    this.#nextValue = nextValue;
    this.#onlyReads = prng.chance(0.3);
  }

  async run(): Promise<void> {
    while (!this.#world.isOver()) {
      await this.#world.sleep(this.#prng.wait(this.#world.plan.thinkMs));
      const servers = this.#world.servers();
      if (servers.length === 0) continue;
      if (!this.#server || !servers.includes(this.#server) || this.#prng.chance(0.1))
        this.#server = this.#prng.pick(servers);
      await this.#act(this.#server);
    }
  }

  async #act(server: Server): Promise<void> {
    const keys = this.#keys.take(this.#prng.pick([1, 1, 1, 2, 3]));
    switch (this.#onlyReads ? this.#prng.pick([0, 6, 6]) : this.#prng.below(7)) {
      case 0:
      case 1:
        return this.read(server, keys);
      case 2:
        return this.#write(server, keys);
      case 3:
      case 4:
        return this.#swap(server, keys);
      case 5:
        return this.#compareAndSet(server, keys[0]!);
      default:
        return this.#look(server, keys);
    }
  }

  /** The newest there is: waits until this node has caught up, and reads. */
  async read(server: Server, keys: readonly string[]): Promise<void> {
    const asked = this.#world.recorder.asks(this.#name, `read ${keys} at ${server.id}`, []);
    const ready = await this.#told(server, server.store.barrier());
    if (ready === GONE || ready === LATE) this.#world.recorder.unknown(asked, "no answer");
    else if (!ready.ok) this.#refused(asked, ready.error);
    else this.#world.recorder.told(asked, valuesOf(server.store.read(), keys), []);
  }

  /** Puts or removes without looking. */
  async #write(server: Server, keys: readonly string[]): Promise<void> {
    const effects: Pairs = keys.map((key) => [key, this.#prng.chance(0.2) ? 0 : this.#nextValue()]);
    const asked = this.#world.recorder.asks(this.#name, `write ${textOf(effects)} at ${server.id}`, effects);
    const writes = this.#writesOf(effects);
    const done = await this.#told(
      server,
      server.store.transact(() => ok({ writes, value: undefined })),
    );
    if (done === GONE || done === LATE) this.#world.recorder.unknown(asked, "no answer");
    else if (done.ok) this.#wrote(asked, server, [], effects);
    else this.#failed(asked, done.error, effects);
  }

  /** Reads and writes the same keys in one transaction. */
  async #swap(server: Server, keys: readonly string[]): Promise<void> {
    const effects: Pairs = keys.map((key) => [key, this.#nextValue()]);
    const asked = this.#world.recorder.asks(this.#name, `swap ${textOf(effects)} at ${server.id}`, effects);
    const writes = this.#writesOf(effects);
    const done = await this.#told(
      server,
      server.store.transact((state) => ok({ writes, value: valuesOf(state, keys) })),
    );
    if (done === GONE || done === LATE) this.#world.recorder.unknown(asked, "no answer");
    else if (done.ok) this.#wrote(asked, server, done.value, effects);
    else this.#failed(asked, done.error, effects);
  }

  /** Writes only if it finds what it saw before; otherwise its decision refuses, and that is an answer, too. */
  async #compareAndSet(server: Server, key: string): Promise<void> {
    const expected = server.store.read().get(registers, key)?.value ?? 0;
    const effects: Pairs = [[key, this.#nextValue()]];
    const what = `set ${textOf(effects)} if ${expected} at ${server.id}`;
    const asked = this.#world.recorder.asks(this.#name, what, effects);
    const writes = this.#writesOf(effects);
    const done = await this.#told(
      server,
      server.store.transact<void, { readonly found: number }>((state) => {
        const found = state.get(registers, key)?.value ?? 0;
        return found === expected ? ok({ writes, value: undefined }) : fail({ found });
      }),
    );
    if (done === GONE || done === LATE) this.#world.recorder.unknown(asked, "no answer", [[key, expected]]);
    else if (done.ok) this.#wrote(asked, server, [[key, expected]], effects);
    else if ("found" in done.error) this.#world.recorder.told(asked, [[key, done.error.found]], []);
    else this.#failed(asked, done.error, effects, [[key, expected]]);
  }

  /** A transaction that writes nothing. */
  async #look(server: Server, keys: readonly string[]): Promise<void> {
    const asked = this.#world.recorder.asks(this.#name, `look at ${keys} at ${server.id}`, []);
    const done = await this.#told(
      server,
      server.store.transact((state) => ok({ writes: [], value: valuesOf(state, keys) })),
    );
    if (done === GONE || done === LATE) this.#world.recorder.unknown(asked, "no answer");
    else if (done.ok) this.#world.recorder.told(asked, done.value, []);
    else this.#refused(asked, done.error);
  }

  #writesOf(effects: Pairs): Write[] {
    const padding = "x".repeat(this.#prng.below(this.#world.plan.valueBytesMax));
    return effects.map(([id, value]) => (value === 0 ? remove(registers, id) : put(registers, { id, value, padding })));
  }

  /** The node that said so shows it, or what came after. */
  #wrote(asked: Asked, server: Server, requires: Pairs, effects: Pairs): void {
    this.#world.recorder.told(asked, requires, effects);
    const reader = server.store.read();
    for (const [key, value] of effects) {
      const shown = reader.get(registers, key)?.value ?? 0;
      if (value !== 0 && shown !== value) this.#world.acknowledged(server, value, reader.revision);
    }
  }

  #failed(asked: Asked, error: StoreError, effects: Pairs, requires: Pairs = []): void {
    // It says that it was made, though this node can't show it yet.
    if (error.message.startsWith("The transaction was made")) this.#world.recorder.told(asked, requires, effects);
    else if (isRefusal(error)) this.#refused(asked, error);
    else this.#world.recorder.unknown(asked, error.message, requires);
    this.#server = undefined;
  }

  #refused(asked: Asked, error: StoreError): void {
    this.#world.recorder.refused(asked, `${error.reason}: ${error.message}`);
    this.#server = undefined;
  }

  /** What the store answers, if it does before it dies or takes too long. */
  async #told<T>(server: Server, answer: Promise<T>): Promise<Told<T>> {
    const patience = this.#world.sleep(PATIENCE_MS).then((): typeof LATE => LATE);
    const told = await Promise.race([answer, server.ended.then((): typeof GONE => GONE), patience]);
    if (told === LATE && this.#world.servers().includes(server)) {
      this.#world.fails(new Violation("every call is answered in time", `${this.#name} at ${server.id}`));
    }
    return told;
  }
}

const textOf = (pairs: Pairs): string => pairs.map(([key, value]) => `${key}=${value}`).join(" ");

type Lease = {
  readonly ttlMs: number;
  /** When the last call that certainly renewed it was made. */
  renewedAt: number;
  /** Somebody asked to end it, or its own client's record was to be removed. */
  isGivenUp: boolean;
  /** Nobody keeps it alive from then on. */
  leftAt: number | undefined;
  goneAt: number | undefined;
};

/** What is known of leases: which records may vanish, and when they have to. */
export class LeaseBook {
  readonly #leases = new Map<string, Lease>();
  readonly #slowest: number;

  /** @param drift how much faster a clock may run than the fastest true time, as a share */
  constructor(drift: number) {
    this.#slowest = 1 - 2 * drift;
  }

  granted(id: LeaseId, ttlMs: number, askedAt: number): void {
    this.#leases.set(id, { ttlMs, renewedAt: askedAt, isGivenUp: false, leftAt: undefined, goneAt: undefined });
  }
  renewed(id: LeaseId, askedAt: number): void {
    const lease = this.#leases.get(id);
    if (lease) lease.renewedAt = Math.max(lease.renewedAt, askedAt);
  }
  givenUp(id: LeaseId): void {
    const lease = this.#leases.get(id);
    if (lease) lease.isGivenUp = true;
  }
  left(id: LeaseId, now: number): void {
    const lease = this.#leases.get(id);
    if (lease) lease.leftAt = now;
  }

  /** A record that hung on it was removed, as some node sees now. */
  vanished(id: string, now: number): void {
    const lease = this.#leases.get(id);
    if (!lease || lease.goneAt !== undefined) return;
    lease.goneAt = now;
    if (lease.isGivenUp || now >= lease.renewedAt + lease.ttlMs * this.#slowest) return;
    const lived = now - lease.renewedAt;
    throw new Violation(
      "a lease lasts its time",
      `${id} ended ${lived.toFixed(1)} ms after it was renewed, of ${lease.ttlMs}`,
    );
  }

  /** Nobody keeps it alive any more. */
  isLeft(id: string): boolean {
    return this.#leases.get(id)?.leftAt !== undefined;
  }

  /** It has had its time, counted from when it was left, or from `since` if that is later. */
  isOverdue(id: string, now: number, since: number): boolean {
    const lease = this.#leases.get(id);
    return lease?.leftAt !== undefined && now - Math.max(lease.leftAt, since) > lease.ttlMs;
  }
}

/** Holds leases with a record on each, keeps them alive for a while, lets them go in one way or another. */
export class LeaseClient {
  readonly #name: string;
  readonly #world: World;
  readonly #prng: Prng;

  constructor(name: string, world: World, prng: Prng) {
    this.#name = name;
    this.#world = world;
    this.#prng = prng;
  }

  async run(): Promise<void> {
    for (let count = 0; !this.#world.isOver(); count++) {
      await this.#world.sleep(this.#prng.wait(200));
      const servers = this.#world.servers();
      if (servers.length > 0) await this.#hold(this.#prng.pick(servers), count);
    }
  }

  async #hold(server: Server, count: number): Promise<void> {
    const { leases: book } = this.#world;
    const ttlMs = this.#prng.between(200, 1500);
    const askedAt = this.#world.now();
    const granted = await this.#or(server, server.store.grantLease(ttlMs));
    if (!granted?.ok) return;
    const lease = granted.value;
    const record: Leased = { id: `${this.#name}-${count}`, lease };
    const wrote = await this.#or(
      server,
      server.store.transact(() => ok({ writes: [put(leased, record, { lease })], value: undefined })),
    );
    // A lease is seen by its record only.
    if (!wrote?.ok) return;
    book.granted(lease, ttlMs, askedAt);
    for (let i = this.#prng.below(6); i > 0; i--) {
      await this.#world.sleep((ttlMs / 3) * this.#prng.share());
      const servers = this.#world.servers();
      const at = servers.includes(server) && this.#prng.chance(0.7) ? server : servers[0];
      if (!at) break;
      const calledAt = this.#world.now();
      const kept = await this.#or(at, at.store.keepAlive(lease));
      if (kept?.ok) book.renewed(lease, calledAt);
      else break;
    }
    if (this.#prng.chance(0.3)) {
      book.givenUp(lease);
      if (this.#world.servers().includes(server)) await this.#or(server, server.store.revokeLease(lease));
    }
    book.left(lease, this.#world.now());
  }

  async #or<T>(server: Server, answer: Promise<T>): Promise<T | undefined> {
    return Promise.race([
      answer,
      server.ended.then(() => undefined),
      this.#world.sleep(PATIENCE_MS).then(() => undefined),
    ]);
  }
}
