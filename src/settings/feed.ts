/**
 * The one watch that a daemon keeps on its settings. It tells listeners what happened, brings the cluster's own settings into
 * effect, and forgets the keys that are longest gone.
 */
import type { Log } from "../lib/log.ts";
import { ABSENT_KEYS_MAX, isRemoval } from "../model/settings.ts";
import type { Reader, Revision, StoreError } from "../model/store.ts";
import { settings as settingsTable } from "../model/tables.ts";
import { CLUSTER_PREFIX, type ClusterSettings } from "./cluster-settings.ts";
import { countGone, currentSetting } from "./current.ts";
import { eventsOf, type SettingEvent } from "./events.ts";
import type { Settings } from "./settings.ts";

/** What the daemon itself wrote. */
const OWN_NAME = "hive";
/** Some more than are kept, so that not every removal forgets one. */
const ABSENT_KEYS_SLACK = ABSENT_KEYS_MAX / 10;
const KEYS_AT_ONCE = 100;

export type SettingListener = (events: readonly SettingEvent[]) => void;

export class SettingsFeed {
  readonly #settings: Settings;
  readonly #cluster: ClusterSettings;
  readonly #log: Log;
  readonly #listeners = new Set<SettingListener>();
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  /** While somebody listens: a state that holds nothing that was not told, to tell the difference after a gap. */
  #told: Reader | undefined;
  #tidying: Promise<void> | undefined;

  constructor(parts: { readonly settings: Settings; readonly cluster: ClusterSettings; readonly log: Log }) {
    this.#settings = parts.settings;
    this.#cluster = parts.cluster;
    this.#log = parts.log;
    this.#running = this.#run();
    this.#tidy();
  }

  /**
   * Calls `listener` with every event from now on, in order and without gaps. Where the store can no longer tell what happened
   * in between (another state was installed), each key that differs has an event, and some may be told twice.
   */
  listen(listener: SettingListener): () => void {
    this.#listeners.add(listener);
    this.#told ??= this.#settings.read();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#told = undefined;
    };
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    await this.#tidying;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const { store } = this.#settings;
    let position = store.read().revision;
    while (!signal.aborted) {
      this.#cluster.refresh(store.read());
      let isGap = false;
      const concerns = (key: string, after: object | undefined) =>
        this.#listeners.size > 0 || concernsDaemon(key, after);
      for await (const event of store.watch([settingsTable], { fromRevision: position, signal, concerns })) {
        isGap = event.kind === "compacted";
        if (event.kind === "compacted") break;
        position = event.revision;
        this.#tell(eventsOf(event.revision, event.changes));
        if (this.#told && store.read().revision === event.revision) this.#told = store.read();
      }
      if (!isGap) return; // stopped, or the store is closed
      const now = store.read();
      if (this.#told) this.#tell(differences(this.#told, now));
      if (this.#told) this.#told = now;
      position = now.revision;
    }
  }

  #tell(events: readonly SettingEvent[]): void {
    if (events.length === 0) return;
    let removals = false;
    const own: string[] = [];
    for (const { key, event } of events) {
      if (key.startsWith(CLUSTER_PREFIX)) own.push(key);
      removals ||= event === "deleted" || event === "expired";
    }
    if (own.length > 0) this.#cluster.refresh(this.#settings.read(), own);
    if (removals) this.#tidy();
    for (const listener of this.#listeners) listener(events);
  }

  /** On one node, as its leader; where that changes meanwhile, done twice is done once. */
  #tidy(): void {
    const { role, term } = this.#settings.store.status();
    // Only where there are leaders: over etcd all nodes are alike.
    if (role === "follower" && term !== undefined) return;
    this.#tidying ??= this.#forgetLongestGone().finally(() => {
      this.#tidying = undefined;
    });
  }

  async #forgetLongestGone(): Promise<void> {
    const state = this.#settings.read();
    const surplus = countGone(state) - ABSENT_KEYS_MAX;
    if (surplus < ABSENT_KEYS_SLACK) return;
    const oldest = state
      .lookup(settingsTable, "gone", "gone")
      .filter(isRemoval)
      .toSorted((a, b) => a.at - b.at);
    for (let at = 0; at < surplus && !this.#stopping.signal.aborted; at += KEYS_AT_ONCE) {
      const forgotten = oldest.slice(at, Math.min(at + KEYS_AT_ONCE, surplus));
      const done = await this.#settings.write(OWN_NAME, (draft) => {
        for (const removal of forgotten) draft.forget(removal);
      });
      if (!done.ok) return this.#failed(done.error);
    }
  }

  #failed(error: StoreError): void {
    if (error.reason !== "closed") this.#log.warn("settings.not-tidied", { reason: error.message });
  }
}

/** What the daemon itself has to know of: its own settings, and what is gone. Most writes are neither. */
const concernsDaemon = (key: string, after: object | undefined): boolean =>
  after === undefined || "removed" in after || key.startsWith(CLUSTER_PREFIX);

/** What turns the settings of one state into those of another, as events of the later one. */
export function differences(before: Reader, after: Reader): readonly SettingEvent[] {
  const revision: Revision = after.revision;
  const events: SettingEvent[] = [];
  for (const setting of after.all(settingsTable)) {
    if (isRemoval(setting)) continue;
    const { key } = setting;
    const known = before.get(settingsTable, key);
    if (known === setting || (known && JSON.stringify(known) === JSON.stringify(setting))) continue;
    events.push({ revision, key, event: "set", setting, modRevision: after.stamp(settingsTable, key)!.modRevision });
  }
  for (const known of before.all(settingsTable)) {
    const { key } = known;
    if (isRemoval(known) || currentSetting(after, key)) continue;
    const newest = after.get(settingsTable, key);
    events.push({ revision, key, event: newest && isRemoval(newest) ? newest.removed : "expired", before: known });
  }
  return events;
}
