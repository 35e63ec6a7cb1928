/** Leases: what is known of each, and a client that holds them. */
import { ok } from "../../../src/lib/result.ts";
import { type LeaseId, put } from "../../../src/model/store.ts";
import type { Prng } from "../base/prng.ts";
import { Violation } from "../base/simulation.ts";
import type { Server } from "./calls.ts";
import type { World } from "./clients.ts";
import { type Leased, leased } from "./tables.ts";

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
  readonly #book: LeaseBook;

  constructor(name: string, world: World, prng: Prng, book: LeaseBook) {
    this.#name = name;
    this.#world = world;
    this.#prng = prng;
    this.#book = book;
  }

  async run(): Promise<void> {
    for (let count = 0; !this.#world.isOver(); count++) {
      await this.#world.sleep(this.#prng.wait(200));
      const servers = this.#world.servers();
      if (servers.length > 0) await this.#hold(this.#prng.pick(servers), count);
    }
  }

  async #hold(server: Server, count: number): Promise<void> {
    const ttlMs = this.#prng.between(200, 1500);
    const askedAt = this.#world.now();
    const granted = await this.#told(server, server.store.grantLease(ttlMs));
    if (!granted?.ok) return;
    const lease = granted.value;
    const record: Leased = { id: `${this.#name}-${count}`, lease };
    const wrote = await this.#told(
      server,
      server.store.transact(() => ok({ writes: [put(leased, record, { lease })], value: undefined })),
    );
    // A lease is seen by its record only.
    if (!wrote?.ok) return;
    this.#book.granted(lease, ttlMs, askedAt);
    for (let i = this.#prng.below(6); i > 0; i--) {
      await this.#world.sleep((ttlMs / 3) * this.#prng.share());
      const servers = this.#world.servers();
      const at = servers.includes(server) && this.#prng.chance(0.7) ? server : servers[0];
      if (!at) break;
      const calledAt = this.#world.now();
      const kept = await this.#told(at, at.store.keepAlive(lease));
      if (kept?.ok) this.#book.renewed(lease, calledAt);
      else break;
    }
    if (this.#prng.chance(0.3)) {
      this.#book.givenUp(lease);
      if (this.#world.servers().includes(server)) await this.#told(server, server.store.revokeLease(lease));
    }
    this.#book.left(lease, this.#world.now());
  }

  #told<T>(server: Server, answer: Promise<T>): Promise<T | undefined> {
    return this.#world.calls.told(this.#name, server, answer);
  }
}
