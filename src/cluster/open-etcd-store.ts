import { readFile } from "node:fs/promises";
import type { Clock } from "../lib/clock.ts";
import { type Log, Secret } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { AnyTable, Store, StoreError } from "../model/store.ts";
import { EtcdClient, type EtcdError } from "./etcd/etcd-client.ts";
import { EtcdKeyValueStore } from "./etcd/etcd-store.ts";
import { bytes, compareValue, type EtcdKeyValue } from "./etcd/gateway-json.ts";
import { brokenBy } from "./etcd/health.ts";
import { LAYOUT, LAYOUT_KEY } from "./etcd/layout.ts";
import { readAll } from "./etcd/read-all.ts";
import { load, type Replica } from "./etcd/replica.ts";
import { type EtcdFile, type EtcdUrl, parseEtcdUrl } from "./etcd/store-url.ts";
import { type Disk, errorCode, isDiskFull, type Lock } from "./kv/disk.ts";
import { type Schema, schemaOf } from "./kv/schema.ts";
import { typedStore } from "./kv/typed-store.ts";

export type EtcdStoreOptions = {
  /** As `parseEtcdUrl` reads it. */
  readonly url: string;
  /** Every table of this version of Hive. Records of others, left by another version, are kept and not shown. */
  readonly tables: readonly AnyTable[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** A directory that one daemon may use at a time; nothing of the store is in it. */
  readonly lock?: { readonly disk: Disk; readonly directory: string };
  readonly historyChangesMax?: number;
};

/** How long an etcd that is just starting, or electing, is waited for. */
const OPENING_MS = 5000;
const RETRY_MS = 250;

/**
 * Opens the store of a cloud in an etcd: reads everything that it holds, and follows it from there. Refuses
 * (`unavailable`, `corrupt`, `newer`, `locked`) with a sentence that says what is wrong and what to do; what etcd holds is
 * left as it was. See etcd/etcd-store.ts for how it works.
 *
 * What it asks of etcd: version 3.4 or later, with its JSON gateway (which is on unless switched off); readwrite
 * permission on the prefix, where etcd has users; and that somebody has it compacted (`--auto-compaction-retention`), as
 * any etcd must be, or its history fills its quota. Its default limits of 128 operations and 1.5 MiB suffice.
 */
export async function openEtcdStore(options: EtcdStoreOptions): Promise<Result<Store, StoreError>> {
  const parsed = parseEtcdUrl(options.url);
  if (!parsed.ok) return fail(unavailable(`${capitalised(parsed.error)}.`));
  const files = await readFiles(parsed.value);
  if (!files.ok) return fail(unavailable(files.error));
  const locked = await takeLock(options.lock);
  if (!locked.ok) return locked;
  const opened = await open(options, parsed.value, files.value);
  if (!opened.ok) {
    await locked.value?.release();
    return opened;
  }
  const store = opened.value;
  return ok({
    ...store,
    async close() {
      await store.close();
      await locked.value?.release();
    },
  });
}

type Files = { readonly [name in EtcdFile]?: string };

async function open(options: EtcdStoreOptions, url: EtcdUrl, files: Files): Promise<Result<Store, StoreError>> {
  const { clock, random, log } = options;
  const { endpoints, prefix, user } = url;
  const password = url.password ?? new Secret((files["password-file"] ?? "").trimEnd());
  const { ca, cert, key } = files;
  const etcd = new EtcdClient({
    endpoints,
    user: user === undefined ? undefined : { name: user, password },
    tls: { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) },
    clock,
  });
  const schema = schemaOf(options.tables);
  const started = clock.monotonicMs();
  const begun = await begin(etcd, prefix, schema, clock);
  if (!begun.ok) {
    etcd.close();
    return begun;
  }
  const { state } = begun.value.replica;
  log.info("store.opened", {
    etcd: endpoints,
    prefix,
    revision: state.revision,
    records: state.keys.count,
    wallMs: Math.round(clock.monotonicMs() - started),
  });
  const { historyChangesMax } = options;
  const parts = { etcd, schema, prefix, clock, random, log, ...begun.value };
  return ok(typedStore(new EtcdKeyValueStore({ ...parts, ...(historyChangesMax && { historyChangesMax }) }), schema));
}

/** What etcd holds, once it answers. */
async function begin(
  etcd: EtcdClient,
  prefix: string,
  schema: Schema,
  clock: Clock,
): Promise<Result<{ readonly replica: Replica; readonly followed: number }, StoreError>> {
  const deadlineMs = clock.monotonicMs() + OPENING_MS;
  for (;;) {
    const read = await readAll(etcd, prefix);
    const layout = read.ok ? await checkLayout(etcd, prefix, read.value.entries) : read;
    if (!layout.ok) {
      const { error } = layout;
      if (error.kind === "store") return fail(error);
      const isPassing = error.kind === "unreachable" || error.kind === "compacted";
      if (!isPassing || clock.monotonicMs() >= deadlineMs) return fail(unavailable(error.message));
      await clock.sleep(RETRY_MS);
    } else if (read.ok) {
      const loaded = load(schema, read.value.entries);
      return loaded.ok ? ok({ replica: loaded.value, followed: read.value.revision }) : fail(brokenBy(loaded.error));
    }
  }
}

/** That what is there is Hive's, of a layout that this version knows; where nothing is there, says so from now on. */
async function checkLayout(
  etcd: EtcdClient,
  prefix: string,
  entries: readonly EtcdKeyValue[],
): Promise<Result<unknown, EtcdError | StoreError>> {
  const layout = entries.find(({ key }) => key === LAYOUT_KEY);
  if (layout) {
    const number = Number(layout.value);
    if (number === LAYOUT) return ok(undefined);
    const what = `its layout is ${JSON.stringify(layout.value.slice(0, 20))}, and this version of Hive knows ${LAYOUT}`;
    return fail(brokenBy({ kind: number > LAYOUT ? "newer" : "damaged", message: what }));
  }
  if (entries.length > 0) {
    const message = `Etcd holds keys under ${prefix} that are not Hive's (${JSON.stringify(entries[0]!.key.slice(0, 80))}). Name another prefix: etcd://host:2379/prefix.`;
    return fail({ kind: "store", reason: "corrupt", message });
  }
  const key = prefix + LAYOUT_KEY;
  return etcd.txn({
    compare: [compareValue(key, undefined)],
    success: [{ request_put: { key: bytes(key), value: bytes(String(LAYOUT)) } }],
  });
}

async function readFiles({ files }: EtcdUrl): Promise<Result<Files, string>> {
  const texts: { [name in EtcdFile]?: string } = {};
  for (const [name, path] of Object.entries(files) as [EtcdFile, string][]) {
    try {
      texts[name] = await readFile(path, "utf8");
    } catch (cause) {
      return fail(`The file ${path} (${name} of the store's URL) cannot be read: ${(cause as Error).message}.`);
    }
  }
  return ok(texts);
}

async function takeLock(place: EtcdStoreOptions["lock"]): Promise<Result<Lock | undefined, StoreError>> {
  if (!place) return ok(undefined);
  const { disk, directory } = place;
  try {
    await disk.makeDirectory(directory);
    const taken = await disk.lock(`${directory}/lock`);
    if (!("heldBy" in taken)) return ok(taken);
    const process = taken.heldBy === undefined ? "" : ` (process ${taken.heldBy})`;
    const message = `Another hive server${process} is using ${directory}. Stop it, or give this one another data directory.`;
    return fail({ kind: "store", reason: "locked", message });
  } catch (cause) {
    // Rejections of the disk have a code; anything else is a defect.
    if (errorCode(cause) === undefined) throw cause;
    const message = `The directory ${directory} cannot be used: ${(cause as Error).message}.`;
    return fail({ kind: "store", reason: isDiskFull(cause) ? "full" : "failed", message, cause });
  }
}

const unavailable = (message: string): StoreError => ({ kind: "store", reason: "unavailable", message });
const capitalised = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
