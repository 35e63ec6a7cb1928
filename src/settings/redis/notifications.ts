/**
 * Redis's keyspace notifications, from the feed: `__keyspace@0__:KEY` carries what happened to a key, `__keyevent@0__:EVENT` to
 * which key something happened. Events are `set`, `del`, `expired`, `expire` and `persist`.
 */
import type { Revision } from "../../model/store.ts";
import type { SettingEvent } from "../events.ts";
import type { SettingsFeed } from "../feed.ts";
import { compileGlob } from "./glob.ts";

export interface Subscriber {
  /** `pattern` is the one that matched, for a subscription by pattern. */
  notify(channel: string, message: string, pattern?: string): void;
}

/** Who is subscribed, and to what happens after which revision. */
type Subscribers = Map<Subscriber, Revision>;

const NAMES = { set: "set", expire: "expire", persist: "persist", deleted: "del", expired: "expired" } as const;

export class Notifications {
  readonly #feed: Pick<SettingsFeed, "listen">;
  readonly #channels = new Map<string, Subscribers>();
  readonly #patterns = new Map<string, { readonly matches: (channel: string) => boolean; readonly by: Subscribers }>();
  #stop: (() => void) | undefined;

  constructor(feed: Pick<SettingsFeed, "listen">) {
    this.#feed = feed;
  }

  /** `after`: the revision that the subscriber has seen everything of. */
  subscribe(subscriber: Subscriber, channel: string, after: Revision): void {
    const subscribers = this.#channels.get(channel) ?? new Map<Subscriber, Revision>();
    subscribers.set(subscriber, after);
    this.#channels.set(channel, subscribers);
    this.#listen();
  }

  subscribePattern(subscriber: Subscriber, pattern: string, after: Revision): void {
    const found = this.#patterns.get(pattern) ?? { matches: compileGlob(pattern), by: new Map<Subscriber, Revision>() };
    found.by.set(subscriber, after);
    this.#patterns.set(pattern, found);
    this.#listen();
  }

  unsubscribe(subscriber: Subscriber, channel: string): void {
    const subscribers = this.#channels.get(channel);
    subscribers?.delete(subscriber);
    if (subscribers?.size === 0) this.#channels.delete(channel);
    this.#rest();
  }

  unsubscribePattern(subscriber: Subscriber, pattern: string): void {
    const found = this.#patterns.get(pattern);
    found?.by.delete(subscriber);
    if (found?.by.size === 0) this.#patterns.delete(pattern);
    this.#rest();
  }

  /** With nobody there, an event costs nothing. */
  #listen(): void {
    this.#stop ??= this.#feed.listen((events) => {
      for (const event of events) this.#tell(event);
    });
  }

  #rest(): void {
    if (this.#channels.size > 0 || this.#patterns.size > 0) return;
    this.#stop?.();
    this.#stop = undefined;
  }

  #tell({ revision, key, event }: SettingEvent): void {
    const name = NAMES[event];
    this.#publish(`__keyspace@0__:${key}`, name, revision);
    this.#publish(`__keyevent@0__:${name}`, key, revision);
  }

  #publish(channel: string, message: string, revision: Revision): void {
    for (const [subscriber, after] of this.#channels.get(channel) ?? []) {
      if (revision > after) subscriber.notify(channel, message);
    }
    for (const [pattern, { matches, by }] of this.#patterns) {
      if (!matches(channel)) continue;
      for (const [subscriber, after] of by) if (revision > after) subscriber.notify(channel, message, pattern);
    }
  }
}
