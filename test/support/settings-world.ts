/** The configuration store over a store in memory, on a clock that stands still until it is told, and clients without sockets. */
import { openMemoryStore } from "../../src/cluster/open-memory-store.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { type Log, silentLog } from "../../src/lib/log.ts";
import { type Config, configSchema } from "../../src/model/config.ts";
import type { Store } from "../../src/model/store.ts";
import { settings as settingsTable } from "../../src/model/tables.ts";
import { ClusterSettings } from "../../src/settings/cluster-settings.ts";
import { SettingsFeed } from "../../src/settings/feed.ts";
import { Connection, type Transport } from "../../src/settings/redis/connection.ts";
import { Notifications } from "../../src/settings/redis/notifications.ts";
import { ScanCursors } from "../../src/settings/redis/scan-cursors.ts";
import type { Shared } from "../../src/settings/redis/session.ts";
import { Settings } from "../../src/settings/settings.ts";

export class ManualClock implements Clock {
  #now = Date.parse("2026-01-01T00:00:00Z");
  readonly #sleepers = new Set<{ readonly until: number; readonly wake: () => void }>();

  now = (): number => this.#now;
  monotonicMs = (): number => this.#now;
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const sleeper = { until: this.#now + ms, wake: resolve };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", () => {
        this.#sleepers.delete(sleeper);
        resolve();
      });
    });
  }
  advance(ms: number): void {
    this.#now += ms;
    for (const sleeper of [...this.#sleepers]) {
      if (sleeper.until > this.#now) continue;
      this.#sleepers.delete(sleeper);
      sleeper.wake();
    }
  }
}

export const USER = "AKIATEST000000000000";
export const SECRET = "a secret that nobody guesses";
export const CONFIG: Config = configSchema.parse({});

export class SettingsWorld {
  readonly clock = new ManualClock();
  readonly store: Store;
  readonly settings: Settings;
  readonly cluster: ClusterSettings;
  readonly feed: SettingsFeed;
  readonly shared: Shared;
  /** What the user's secret is now; undefined: the key is inactive. */
  secret: string | undefined = SECRET;
  #lastId = 0;

  private constructor(store: Store, clock: ManualClock, log: Log) {
    this.clock = clock;
    this.store = store;
    this.settings = new Settings(store, clock);
    this.cluster = new ClusterSettings(CONFIG, store.read(), log);
    this.feed = new SettingsFeed({ settings: this.settings, cluster: this.cluster, log });
    this.shared = {
      settings: this.settings,
      notifications: new Notifications(this.feed),
      cursors: new ScanCursors(),
      clock,
      log,
      secretOf: (accessKeyId) => (accessKeyId === USER ? this.secret : undefined),
      facts: () => ({
        version: "0.0.0",
        port: 6379,
        connections: 1,
        uptimeMs: 0,
        role: "single",
        memoryBytes: 0,
        revision: store.read().revision,
        keys: this.settings.count(),
        leases: 0,
      }),
    };
  }

  /** `wrap`: a store in between, that a test makes fail. */
  static async open(log: Log = silentLog, wrap: (store: Store) => Store = (store) => store): Promise<SettingsWorld> {
    const clock = new ManualClock();
    const store = await openMemoryStore([settingsTable], clock);
    return new SettingsWorld(wrap(store), clock, log);
  }

  /** A client that has not said who it is. */
  stranger(): TestClient {
    return new TestClient(this.shared, ++this.#lastId);
  }

  async client(): Promise<TestClient> {
    const client = this.stranger();
    await client.ask("AUTH", USER, SECRET);
    return client;
  }

  /** Lets time go by, and what hangs on it happen. */
  async pass(ms: number): Promise<void> {
    this.clock.advance(ms);
    await Bun.sleep(1);
  }

  async close(): Promise<void> {
    await this.feed.stop();
    await this.store.close();
  }
}

/** An answer as it came: text for lines and bulk strings, `ERR …` with a minus before it. */
export type Answer = string | number | null | Answer[];

/** A client whose socket is a list of chunks. */
export class TestClient implements Transport {
  readonly remoteAddress = "192.0.2.1";
  readonly connection: Connection;
  /** How many bytes the socket takes until it is drained. */
  room = Number.POSITIVE_INFINITY;
  isPaused = false;
  isClosed = false;
  writes = 0;
  #received = Buffer.alloc(0);
  #onWrite: () => void = () => {};

  constructor(shared: Shared, id: number) {
    this.connection = new Connection(id, shared, this);
  }

  write(bytes: Uint8Array): number {
    this.writes++;
    const taken = Math.min(bytes.length, this.room);
    this.room -= taken;
    this.#received = Buffer.concat([this.#received, bytes.subarray(0, taken)]);
    this.#onWrite();
    return taken;
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  end(): void {
    this.isClosed = true;
    this.connection.closed();
  }
  terminate(): void {
    this.isClosed = true;
  }
  /** Reads what waits. */
  drain(room = Number.POSITIVE_INFINITY): void {
    this.room = room;
    this.connection.drained();
  }

  /** Sends bytes as they are: one character a byte. */
  send(text: string): void {
    this.connection.receive(Buffer.from(text, "latin1"));
  }

  /** Sends a command and gives its answer. */
  async ask(...words: readonly string[]): Promise<Answer> {
    this.send(encodeCommand(words));
    return this.next();
  }

  /** Sends commands in one piece, and gives their answers. */
  async pipeline(commands: readonly (readonly string[])[]): Promise<Answer[]> {
    this.send(commands.map(encodeCommand).join(""));
    const answers: Answer[] = [];
    while (answers.length < commands.length) answers.push(await this.next());
    return answers;
  }

  /** The next answer or message. */
  async next(): Promise<Answer> {
    for (;;) {
      const found = decodeAnswer(this.#received, 0);
      if (found) {
        this.#received = Buffer.from(this.#received.subarray(found.end));
        return found.answer;
      }
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no answer comes; ${JSON.stringify(this.unread)}`)), 5000);
        this.#onWrite = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Bytes that came and were not looked at. */
  get unread(): string {
    return this.#received.toString("latin1");
  }
}

export const encodeCommand = (words: readonly string[]): string => {
  const parts = words.map((word) => {
    const bytes = Buffer.from(word).toString("latin1");
    return `$${bytes.length}\r\n${bytes}\r\n`;
  });
  return `*${words.length}\r\n${parts.join("")}`;
};

/** Reads one answer of either version; undefined when it is not there whole. */
export function decodeAnswer(
  bytes: Buffer,
  from: number,
): { readonly answer: Answer; readonly end: number } | undefined {
  const lineEnd = bytes.indexOf("\r\n", from);
  if (lineEnd < 0) return undefined;
  const kind = String.fromCharCode(bytes[from]!);
  const text = bytes.toString("utf8", from + 1, lineEnd);
  const end = lineEnd + 2;
  switch (kind) {
    case "+":
      return { answer: text, end };
    case "-":
      return { answer: `-${text}`, end };
    case ":":
      return { answer: Number(text), end };
    case "_":
      return { answer: null, end };
    case "$": {
      if (text === "-1") return { answer: null, end };
      const length = Number(text);
      if (bytes.length < end + length + 2) return undefined;
      const content = bytes.subarray(end, end + length);
      return { answer: content.toString("utf8"), end: end + length + 2 };
    }
    case "*":
    case ">":
    case "%": {
      const answers: Answer[] = [];
      let at = end;
      for (let left = Number(text) * (kind === "%" ? 2 : 1); left > 0; left--) {
        const element = decodeAnswer(bytes, at);
        if (!element) return undefined;
        answers.push(element.answer);
        at = element.end;
      }
      return { answer: answers, end: at };
    }
    default:
      throw new Error(`${JSON.stringify(bytes.toString("latin1", from, from + 40))} is no answer`);
  }
}
