import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { LeaseId, Revision, StoreError } from "../../model/store.ts";
import { History } from "../kv/history.ts";
import type { Schema } from "../kv/schema.ts";
import type { EtcdClient, EtcdRevision } from "./etcd-client.ts";
import { afterPrefix, bytes } from "./gateway-json.ts";
import { brokenBy, type Health, restored } from "./health.ts";
import { HEAD_KEY, WAITING } from "./layout.ts";
import { readAll } from "./read-all.ts";
import { type Delta, follow, load, type Replica, type RevisionChanges } from "./replica.ts";
import type { Trouble } from "./trouble.ts";

/** After so much silence etcd is asked whether it's there, and whether the watch has missed something. */
const BEAT_MS = 5000;
/** A watch that lags behind what is known to be committed for so long is begun anew. */
const LAG_MS = 1000;
export const BACKOFF_MS_MIN = 50;
export const BACKOFF_MS_MAX = 1000;

/** What the parts of one store share. */
export type EtcdParts = {
  readonly etcd: EtcdClient;
  readonly schema: Schema;
  readonly prefix: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly health: Health;
  /** Names this store among those that write. */
  readonly writer: string;
};

/** Who wants to hear what the watch tells beside the state. */
export type Listener = {
  /** A lease was granted or kept alive; or it is gone. */
  lease(lease: LeaseId, ttlMs: number | undefined): void;
  ticket(ticket: string, isThere: boolean): void;
  /** What was told before may be out of date. */
  reloaded(): void;
};

/** Keeps the replica up to date by a watch, and knows how far it is. */
export class Follower {
  readonly #parts: EtcdParts;
  readonly #listener: Listener;
  readonly history: History;
  #replica: Replica;
  /** Etcd's revision up to which the watch has told everything. */
  #followed: number;
  #reloads = 0;
  #loadedRevision: Revision;
  #committed = 0;
  #unsettledSinceMs = Number.NEGATIVE_INFINITY;
  #moved = Promise.withResolvers<void>();
  #restartWatch = new AbortController();
  readonly #ended = new AbortController();
  readonly #running: Promise<unknown>;

  constructor(
    parts: EtcdParts,
    start: { readonly replica: Replica; readonly followed: number; readonly historyChangesMax?: number },
    listener: Listener,
  ) {
    this.#parts = parts;
    this.#listener = listener;
    this.#replica = start.replica;
    this.#followed = start.followed;
    this.#loadedRevision = start.replica.state.revision;
    this.history = new History(start.replica.state.revision, start.historyChangesMax);
    for (const [lease, ttlMs] of start.replica.state.leases) listener.lease(lease, ttlMs);
    parts.health.onBreak = () => {
      this.#restartWatch.abort();
      this.announce();
    };
    this.#running = Promise.all([this.#follow(), this.#beat()]).catch((cause) => parts.health.foundDefect(cause));
  }

  get replica(): Replica {
    return this.#replica;
  }
  /** The revision at which everything was last read. */
  get loadedRevision(): Revision {
    return this.#loadedRevision;
  }
  /** How often everything was read anew: then commits may have gone by unseen. */
  get reloads(): number {
    return this.#reloads;
  }
  /** The newest commit of this store's own writer that is in the replica. */
  get committed(): number {
    return this.#committed;
  }
  get unsettledSinceMs(): number {
    return this.#unsettledSinceMs;
  }
  /** Aborted when the store is closed. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  async close(): Promise<void> {
    this.#ended.abort();
    this.#restartWatch.abort();
    this.history.close();
    await this.#running;
  }

  /** Makes it what is shown here. Without events, all watchers have to begin anew. */
  install(replica: Replica, events: readonly RevisionChanges[] | undefined, delta?: Delta): void {
    const before = this.#replica;
    this.#replica = replica;
    const { head, state } = replica;
    if (replica.unsettled.length > 0) this.#unsettledSinceMs = this.#parts.clock.monotonicMs();
    if (head?.writer === this.#parts.writer) this.#committed = Math.max(this.#committed, head.sequence);
    if (events) for (const { revision, changes, bytes } of events) this.history.record(revision, changes, bytes);
    else {
      this.#loadedRevision = state.revision;
      if (state.revision > before.state.revision) this.history.restartAfter(state.revision);
    }
    for (const [lease, ttlMs] of delta?.renewed ?? (events ? [] : state.leases)) this.#listener.lease(lease, ttlMs);
    for (const lease of delta?.ended ?? before.state.leases.keys()) {
      if (!state.leases.has(lease)) this.#listener.lease(lease, undefined);
    }
    if (replica.position !== before.position) this.announce();
  }

  /** Wakes all that wait for a move. */
  announce(): void {
    const { resolve } = this.#moved;
    this.#moved = Promise.withResolvers<void>();
    resolve();
  }

  /** Waits for a move, for so long. @returns whether there was one */
  async moveWithin(ms: number): Promise<boolean> {
    const waited = new AbortController();
    const late = this.#parts.clock.sleep(ms, waited.signal).then(() => false);
    const moved = await Promise.race([this.#moved.promise.then(() => true), late]);
    waited.abort();
    return moved;
  }

  /** Waits until the replica is past a position. @returns whether it is; not when the time is up, nor when all ends */
  async past(position: number, deadlineMs: number): Promise<boolean> {
    while (this.#replica.position <= position) {
      const left = deadlineMs - this.#parts.clock.monotonicMs();
      if (left <= 0 || this.#parts.health.refusal) return false;
      const moved = await this.moveWithin(Math.min(left, LAG_MS));
      if (!moved && !this.#ended.signal.aborted) this.#restartWatch.abort();
    }
    return true;
  }

  /** The etcd revision of the newest head, by a linearizable read. */
  async newestHead(): Promise<Result<number, StoreError>> {
    const { etcd, prefix, health } = this.#parts;
    const known = this.#replica.position;
    const read = await etcd.range({ key: bytes(prefix + HEAD_KEY) });
    if (!read.ok) return fail(health.failed(read.error));
    health.heard(false);
    this.checkAge(known, read.value.revision);
    return health.refusal ? fail(health.refusal) : ok(read.value.entries[0]?.mod_revision ?? 0);
  }

  /** Etcd's revision never goes back, unless its data does. */
  checkAge(known: number, revision: number): void {
    if (revision < known) this.#parts.health.break(restored);
  }

  /** Keeps a watch, from where the last one ended, until the store is closed. */
  async #follow(): Promise<void> {
    const { etcd, prefix, clock, log, health } = this.#parts;
    const range = { key: bytes(prefix), range_end: bytes(afterPrefix(prefix)) };
    let wait = BACKOFF_MS_MIN;
    while (!this.#ended.signal.aborted && !health.isBroken) {
      this.#restartWatch = new AbortController();
      const { signal } = this.#restartWatch;
      for await (const told of etcd.watch({ ...range, start_revision: this.#followed + 1 }, signal)) {
        if (told.ok) {
          wait = BACKOFF_MS_MIN;
          const trouble = this.#take(told.value);
          if (!trouble) continue;
          log.warn("store.gap", { reason: trouble.message });
          await this.#reload();
          break;
        }
        if (told.error.kind === "compacted" || told.error.kind === "too-large") await this.#reload();
        else health.failed(told.error);
      }
      if (signal.aborted) continue;
      await clock.sleep(wait, this.#ended.signal);
      wait = Math.min(2 * wait, BACKOFF_MS_MAX);
    }
  }

  /** Takes what one etcd revision did. @returns why it can't be, if what is here does not lead to it */
  #take(told: EtcdRevision): Trouble | undefined {
    const { schema, prefix, health } = this.#parts;
    health.heard(false);
    const { revision } = told;
    const changes = told.changes.map(({ key, value }) => ({ key: key.slice(prefix.length), value }));
    const tickets = changes.filter(({ key }) => key.startsWith(WAITING));
    for (const { key, value } of tickets) this.#listener.ticket(key.slice(WAITING.length), value !== undefined);
    if (tickets.length > 0) this.announce();
    // What we have committed, or read, is known before the watch tells it.
    if (revision > this.#replica.position) {
      const followed = follow(schema, this.#replica, { revision, changes });
      if (!followed.ok) {
        if (followed.error.kind === "gap") return followed.error;
        health.break(brokenBy(followed.error));
        return undefined;
      }
      const { replica, events, delta } = followed.value;
      this.install(replica, events, delta);
    }
    this.#followed = Math.max(this.#followed, revision);
    return undefined;
  }

  /** Reads everything anew: what happened since is no longer told. Watchers hear `compacted`. */
  async #reload(): Promise<void> {
    const { etcd, schema, prefix, health, log } = this.#parts;
    const known = this.#replica.position;
    const read = await readAll(etcd, prefix);
    if (!read.ok) {
      health.failed(read.error);
      return;
    }
    const { revision, entries } = read.value;
    const before = this.#replica;
    if (revision < known) return health.break(restored);
    // We have committed while it was read: it is read again.
    if (revision < before.position) return;
    const loaded = load(schema, entries, before);
    if (!loaded.ok) return health.break(brokenBy(loaded.error));
    const { state, position } = loaded.value;
    if (position < before.position || state.revision < before.state.revision) return health.break(restored);
    this.#followed = revision;
    this.#reloads++;
    this.#listener.reloaded();
    log.info("store.reloaded", { from: before.state.revision, to: state.revision });
    if (position > before.position) this.install(loaded.value, undefined);
  }

  /** Notices an etcd that is gone, back, or not the same any more, also when nobody writes. */
  async #beat(): Promise<void> {
    const { clock, health } = this.#parts;
    while (!this.#ended.signal.aborted && !health.isBroken) {
      await clock.sleep(BEAT_MS, this.#ended.signal);
      if (this.#ended.signal.aborted || clock.monotonicMs() - health.lastHeardMs < BEAT_MS) continue;
      const newest = await this.newestHead();
      if (newest.ok) await this.past(newest.value - 1, clock.monotonicMs() + LAG_MS);
    }
  }
}
