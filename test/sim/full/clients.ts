/**
 * Clients of the store as services are: they read, write, compare and swap through whatever node they are at, go elsewhere
 * when that one fails them, and write down what they were told. Values are never written twice, so that a value tells who
 * wrote it. Keys come in small groups that a transaction may span, and new groups take over after a while, so that the
 * checker's searches stay short.
 */
import { fail, ok } from "../../../src/lib/result.ts";
import { put, type Reader, remove, type StoreError, type Write } from "../../../src/model/store.ts";
import type { Prng } from "../base/prng.ts";
import type { Pairs } from "../check/linearizability.ts";
import type { Calls, Server } from "./calls.ts";
import type { Asked, Recorder } from "./history.ts";
import { registers } from "./tables.ts";

/** What clients are given of the world. */
export type World = {
  now(): number;
  sleep(ms: number): Promise<void>;
  isOver(): boolean;
  servers(): readonly Server[];
  readonly recorder: Recorder;
  readonly calls: Calls;
  readonly plan: { readonly thinkMs: number; readonly valueBytesMax: number };
  /** A client was told that `value` was written, while the node was at `revision`, and it shows another value. */
  acknowledged(server: Server, value: number, revision: number): void;
  /** One that nobody has written yet. */
  nextValue(): number;
};

const GROUP_KEYS = 3;
/** Operations after which a group of keys is left alone. */
const GROUP_OPERATIONS = 60;
const GROUPS = 3;

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
  /** One that never writes is never kept waiting for what a cut-off leader can't commit, and looks on. */
  readonly #onlyReads: boolean;
  #server: Server | undefined;

  constructor(name: string, world: World, prng: Prng, keys: Keys) {
    this.#name = name;
    this.#world = world;
    this.#prng = prng;
    this.#keys = keys;
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
    if (!ready) this.#world.recorder.unknown(asked, "no answer");
    else if (!ready.ok) this.#refused(asked, ready.error);
    else this.#world.recorder.told(asked, valuesOf(server.store.read(), keys), []);
  }

  /** Puts or removes without looking. */
  async #write(server: Server, keys: readonly string[]): Promise<void> {
    const effects: Pairs = keys.map((key) => [key, this.#prng.chance(0.2) ? 0 : this.#world.nextValue()]);
    const asked = this.#world.recorder.asks(this.#name, `write ${textOf(effects)} at ${server.id}`, effects);
    const writes = this.#writesOf(effects);
    const done = await this.#told(
      server,
      server.store.transact(() => ok({ writes, value: undefined })),
    );
    if (!done) this.#world.recorder.unknown(asked, "no answer");
    else if (done.ok) this.#wrote(asked, server, [], effects);
    else this.#failed(asked, done.error, effects);
  }

  /** Reads and writes the same keys in one transaction. */
  async #swap(server: Server, keys: readonly string[]): Promise<void> {
    const effects: Pairs = keys.map((key) => [key, this.#world.nextValue()]);
    const asked = this.#world.recorder.asks(this.#name, `swap ${textOf(effects)} at ${server.id}`, effects);
    const writes = this.#writesOf(effects);
    const done = await this.#told(
      server,
      server.store.transact((state) => ok({ writes, value: valuesOf(state, keys) })),
    );
    if (!done) this.#world.recorder.unknown(asked, "no answer");
    else if (done.ok) this.#wrote(asked, server, done.value, effects);
    else this.#failed(asked, done.error, effects);
  }

  /** Writes only if it finds what it saw before; otherwise its decision refuses, and that is an answer, too. */
  async #compareAndSet(server: Server, key: string): Promise<void> {
    const expected = server.store.read().get(registers, key)?.value ?? 0;
    const effects: Pairs = [[key, this.#world.nextValue()]];
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
    if (!done) this.#world.recorder.unknown(asked, "no answer", [[key, expected]]);
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
    if (!done) this.#world.recorder.unknown(asked, "no answer");
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

  #told<T>(server: Server, answer: Promise<T>): Promise<T | undefined> {
    return this.#world.calls.told(this.#name, server, answer);
  }
}

const textOf = (pairs: Pairs): string => pairs.map(([key, value]) => `${key}=${value}`).join(" ");
