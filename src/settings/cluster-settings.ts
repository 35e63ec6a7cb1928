/**
 * The cluster's own settings: the keys under `hive/`. Each is described here once, and that description is what a write is
 * checked with, what `hive config list --schema` shows, and what the daemon reads. Unknown keys under `hive/` are refused, so
 * that a typing mistake is not kept as a wish that nobody fulfils.
 *
 * A setting that is set wins over a node's own file and flags; deleting it gives the node its own back.
 */
import { z } from "zod";
import type { Level, Log } from "../lib/log.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { Config } from "../model/config.ts";
import type { StoredValue } from "../model/settings.ts";
import type { Reader } from "../model/store.ts";
import { currentSetting } from "./current.ts";
import { textOf } from "./stored-value.ts";

export const CLUSTER_PREFIX = "hive/";

export interface ClusterSetting<T> {
  readonly key: `hive/${string}`;
  /** What it does, as a phrase. */
  readonly about: string;
  /** When a change acts: `at once` on every daemon that runs, or when each is started next. */
  readonly effect: "at once" | "at restart";
  /** From the value's text. */
  readonly schema: z.ZodType<T, string>;
  /** What the schema takes, to follow "is". */
  readonly allowed: string;
  /** What holds while it is not set: the node's own configuration. */
  fallback(config: Config): T;
  /** As it is written, or a phrase for what cannot be written. */
  show(value: T): string;
}

const describe = <T>(setting: Omit<ClusterSetting<T>, "show"> & { show?(value: T): string }): ClusterSetting<T> => ({
  show: String,
  ...setting,
});

const LEVELS = ["debug", "info", "warn", "error"] as const satisfies readonly Level[];

const integer = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/)
    .transform(Number)
    .pipe(z.int().min(min).max(max));
const factor = (max: number) =>
  z
    .string()
    .regex(/^\d{1,6}(\.\d{1,6})?$/)
    .transform(Number)
    .pipe(z.number().positive().max(max));

export const logLevel = describe<Level>({
  key: "hive/log/level",
  about: "the least that daemons log",
  effect: "at once",
  schema: z.enum(LEVELS),
  allowed: "one of debug, info, warn, error",
  fallback: (config) => config.logLevel,
});

export const gracefulShutdownSeconds = describe<number>({
  key: "hive/compute/graceful-shutdown-seconds",
  about: "seconds a guest has for its own shutdown before it is forced",
  effect: "at once",
  schema: integer(1, 3600),
  allowed: "a whole number from 1 to 3600",
  fallback: (config) => config.gracefulShutdownSeconds,
});

export const overcommitCpu = describe<number>({
  key: "hive/compute/overcommit-cpu",
  about: "virtual processors for each physical one",
  effect: "at restart",
  schema: factor(100_000),
  allowed: "a number above 0, at most 100000",
  fallback: (config) => config.overcommit.cpu,
});

export const overcommitMemory = describe<number>({
  key: "hive/compute/overcommit-memory",
  about: "memory for guests, as a multiple of what the host can spare",
  effect: "at restart",
  schema: factor(100_000),
  allowed: "a number above 0, at most 100000",
  fallback: (config) => config.overcommit.memory,
});

export const reservedMemoryMib = describe<number>({
  key: "hive/compute/reserved-memory-mib",
  about: "MiB of memory kept for each host itself",
  effect: "at restart",
  schema: integer(0, 100_000_000),
  allowed: "a whole number from 0 to 100000000",
  fallback: (config) => config.reservedMemoryMib,
});

export const dnsServers = describe<readonly string[] | undefined>({
  key: "hive/network/dns-servers",
  about: "name servers that DHCP hands to guests",
  effect: "at restart",
  schema: z
    .string()
    .transform((text) => text.split(","))
    .pipe(z.array(z.ipv4()).min(1).max(8)),
  allowed: "1 to 8 IPv4 addresses with commas between",
  fallback: (config) => config.network.dnsServers,
  show: (servers) => servers?.join(",") ?? "the host's own",
});

export const connectionsMax = describe<number>({
  key: "hive/config/connections-max",
  about: "connections to a node's --config-listen address at one time",
  effect: "at once",
  schema: integer(1, 10_000),
  allowed: "a whole number from 1 to 10000",
  fallback: () => 1024,
});

const ALL: readonly ClusterSetting<unknown>[] = [
  logLevel,
  gracefulShutdownSeconds,
  overcommitCpu,
  overcommitMemory,
  reservedMemoryMib,
  dnsServers,
  connectionsMax,
];
const byKey: ReadonlyMap<string, ClusterSetting<unknown>> = new Map(ALL.map((setting) => [setting.key, setting]));

/** Why this value may not be written under this key, as a sentence; undefined when it may. Keys elsewhere take anything. */
export function clusterRefusal(key: string, value: StoredValue): string | undefined {
  if (!key.startsWith(CLUSTER_PREFIX)) return undefined;
  const setting = byKey.get(key);
  if (!setting) return `There is no setting ${key}: under hive/ there are ${[...byKey.keys()].join(", ")}.`;
  const read = readAs(setting, value);
  return read.ok ? undefined : `${key} is ${setting.allowed}, not ${shown(textOf(value))}.`;
}

const shown = (text: string | undefined): string =>
  text === undefined ? "bytes" : JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text);

function readAs<T>(setting: ClusterSetting<T>, value: StoredValue): Result<T, void> {
  const text = textOf(value);
  if (text === undefined) return fail(undefined);
  const parsed = setting.schema.safeParse(text);
  return parsed.success ? ok(parsed.data) : fail(undefined);
}

/** One of the cluster's settings, as an operator reads it. */
export interface DescribedSetting {
  readonly key: string;
  readonly about: string;
  readonly allowed: string;
  readonly effect: "at once" | "at restart";
  readonly default: string;
  /** As it is set; absent when it is not. */
  readonly value?: string;
}

export function describeClusterSettings(state: Reader, config: Config): readonly DescribedSetting[] {
  return ALL.map((setting) => {
    const { key, about, allowed, effect } = setting;
    const record = currentSetting(state, key);
    const value = record && textOf(record);
    const fallback = setting.show(setting.fallback(config));
    return { key, about, allowed, effect, default: fallback, ...(value !== undefined && { value }) };
  });
}

/**
 * What the cluster's settings say on this node. Those that act at once follow `refresh`; the others stay as they were when
 * this was made, which is when the daemon was started.
 */
export class ClusterSettings {
  readonly #config: Config;
  readonly #log: Log;
  readonly #values = new Map<string, unknown>();
  readonly #listeners = new Map<string, (value: unknown) => void>();

  constructor(config: Config, state: Reader, log: Log) {
    this.#config = config;
    this.#log = log;
    for (const setting of ALL) this.#values.set(setting.key, this.#read(setting, state));
  }

  get<T>(setting: ClusterSetting<T>): T {
    return this.#values.get(setting.key) as T;
  }

  /** Calls `listener` with the value now, and with each that follows. One listener a setting. */
  follow<T>(setting: ClusterSetting<T>, listener: (value: T) => void): void {
    this.#listeners.set(setting.key, listener as (value: unknown) => void);
    listener(this.get(setting));
  }

  /** Takes over what the state says: of these keys, or of all. */
  refresh(state: Reader, keys: Iterable<string> = byKey.keys()): void {
    for (const key of keys) {
      const setting = byKey.get(key);
      if (setting?.effect !== "at once") continue;
      const value = this.#read(setting, state);
      if (value === this.#values.get(key)) continue;
      this.#values.set(key, value);
      this.#listeners.get(key)?.(value);
      this.#log.info("settings.applied", { key, value });
    }
  }

  /** The node's configuration with the cluster's settings over it. */
  configuration(): Config {
    const servers = this.get(dnsServers);
    return {
      ...this.#config,
      overcommit: { cpu: this.get(overcommitCpu), memory: this.get(overcommitMemory) },
      reservedMemoryMib: this.get(reservedMemoryMib),
      network: { ...this.#config.network, ...(servers && { dnsServers: [...servers] }) },
    };
  }

  #read<T>(setting: ClusterSetting<T>, state: Reader): T {
    const record = currentSetting(state, setting.key);
    if (!record) return setting.fallback(this.#config);
    const read = readAs(setting, record);
    if (read.ok) return read.value;
    // Written by another version of Hive, which allowed it.
    this.#log.warn("settings.not-understood", { key: setting.key, allowed: setting.allowed });
    return setting.fallback(this.#config);
  }
}
