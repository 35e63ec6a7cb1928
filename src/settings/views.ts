/** Settings as they are shown and asked for in JSON, by Hive's own routes and commands. */
import { fail, ok, type Result } from "../lib/result.ts";
import { MIB, SECOND_MS } from "../lib/units.ts";
import { isRemoval, type SettingRecord, type StoredValue } from "../model/settings.ts";
import type { Reader, Revision, StoreError } from "../model/store.ts";
import { settings as settingsTable } from "../model/tables.ts";
import { currentSetting, revisionOf, settingsIn, versionsOf } from "./current.ts";
import { type Draft, type Refusal, refusal } from "./draft.ts";
import { eventsOf, type SettingEvent } from "./events.ts";
import type { Settings } from "./settings.ts";
import { textOf } from "./stored-value.ts";

export interface SettingView {
  readonly key: string;
  /** The value, where it is text. */
  readonly value?: string;
  /** Its bytes, where it is not. */
  readonly base64?: string;
  readonly version: number;
  /** The store's revision that wrote this version; left out where it is not known. */
  readonly modRevision?: Revision;
  /** ISO 8601. */
  readonly at: string;
  /** The access key that wrote it. */
  readonly by: string;
  readonly expiresAt?: string;
}

/** A version at which the key was gone. */
export interface RemovalView {
  readonly key: string;
  readonly removed: "deleted" | "expired";
  readonly version: number;
  readonly modRevision?: Revision;
  readonly at: string;
  readonly by: string;
}

export interface SettingsPage {
  readonly revision: Revision;
  readonly settings: readonly SettingView[];
  /** There are more, after this key. */
  readonly next?: string;
}

/** One line of a watch. `at`: everything up to this revision was told. `compacted`: what came before is not known; all settings follow. */
export type WatchLine =
  | ({ readonly event: "set" | "expire" | "persist"; readonly revision: Revision } & SettingView)
  | {
      readonly event: "deleted" | "expired";
      readonly revision: Revision;
      readonly key: string;
      readonly version: number;
    }
  | { readonly event: "at"; readonly revision: Revision }
  | { readonly event: "compacted"; readonly revision: Revision };

/** What must hold of a key for a write to be done. Version or revision 0: it must not be there. */
export interface Condition {
  readonly ifVersion?: number;
  readonly ifRevision?: Revision;
}

export interface Page {
  readonly prefix?: string;
  readonly after?: string;
  readonly limit: number;
}
/** Revisions that a watch keeps to itself at most. */
const TOLD_EVERY = 1000;
/** Bytes of values on one page; the first setting is always on it. */
const PAGE_BYTES = MIB;

const time = (ms: number): string => new Date(ms).toISOString();

function viewOf(record: SettingRecord, modRevision: Revision | undefined): SettingView {
  const text = textOf(record);
  const { key, version, at, by, expires } = record;
  return {
    key,
    ...(text === undefined ? { base64: record.value } : { value: text }),
    version,
    ...(modRevision !== undefined && { modRevision }),
    at: time(at),
    by,
    ...(expires && { expiresAt: time(expires.at) }),
  };
}

export function getSetting(state: Reader, key: string): SettingView | undefined {
  const record = currentSetting(state, key);
  return record && viewOf(record, revisionOf(state, key));
}

/** Everything that is remembered of a key, newest first; it begins with what holds now, if it is there. */
export function historyOf(state: Reader, key: string): readonly (SettingView | RemovalView)[] {
  return versionsOf(state, key).map(({ version, modRevision }) =>
    isRemoval(version) ? { ...version, modRevision, at: time(version.at) } : viewOf(version, modRevision),
  );
}

export function listSettings(state: Reader, { prefix, after, limit }: Page): SettingsPage {
  const range = { ...(prefix !== undefined && { prefix }), ...(after !== undefined && { after }), limit: limit + 1 };
  const found = settingsIn(state, range);
  let bytes = 0;
  let count = 0;
  while (count < Math.min(limit, found.length)) {
    bytes += found[count]!.value.length;
    if (count > 0 && bytes > PAGE_BYTES) break;
    count++;
  }
  const page = found.slice(0, count);
  return {
    revision: state.revision,
    settings: page.map((record) => viewOf(record, revisionOf(state, record.key))),
    ...(count < found.length && page.length > 0 && { next: page.at(-1)!.key }),
  };
}

export interface SetRequest extends Condition {
  readonly key: string;
  readonly value: StoredValue;
  readonly ttlSeconds?: number;
}

/** Writes a setting if its condition holds. The view has no revision where another write has already followed. */
export async function setSetting(
  settings: Settings,
  by: string,
  { key, value, ttlSeconds, ...condition }: SetRequest,
): Promise<Result<SettingView, Refusal | StoreError>> {
  const ttlMs = ttlSeconds === undefined ? undefined : ttlSeconds * SECOND_MS;
  const done = await settings.write(
    by,
    (draft) => {
      const unmet = conflictIn(draft, key, condition);
      return unmet ? fail(unmet) : draft.set(key, value, ttlMs === undefined ? "never" : { ttlMs });
    },
    ttlMs === undefined ? [] : [ttlMs],
  );
  if (!done.ok) return done;
  if (!done.value.ok) return done.value;
  const record = done.value.value;
  const state = settings.read();
  const now = currentSetting(state, key);
  const isStill = now?.version === record.version && now.at === record.at && now.by === record.by;
  return ok(viewOf(record, isStill ? revisionOf(state, key) : undefined));
}

/** Removes a setting if its condition holds. Undefined when there is none. */
export async function deleteSetting(
  settings: Settings,
  by: string,
  key: string,
  condition: Condition,
): Promise<Result<RemovalView | undefined, Refusal | StoreError>> {
  const done = await settings.write(by, (draft) => {
    const unmet = conflictIn(draft, key, condition);
    if (unmet) return fail(unmet);
    const before = draft.delete(key);
    return ok(before && { key, removed: "deleted" as const, version: before.version + 1, at: time(draft.now), by });
  });
  return done.ok ? done.value : done;
}

function conflictIn(draft: Draft, key: string, { ifVersion, ifRevision }: Condition): Refusal | undefined {
  const current = draft.get(key);
  const version = current?.version ?? 0;
  const revision = revisionOf(draft.state, key);
  const isAsWanted =
    (ifVersion === undefined || ifVersion === version) && (ifRevision === undefined || ifRevision === revision);
  if (isAsWanted) return undefined;
  const wanted = [
    ...(ifVersion === undefined ? [] : [`version ${ifVersion}`]),
    ...(ifRevision === undefined ? [] : [`revision ${ifRevision}`]),
  ].join(" and ");
  if (!current) return refusal("conflict", `${key} is not there; it was expected at ${wanted}.`);
  const isWantedAbsent = ifVersion === 0 || ifRevision === 0;
  const found = `version ${version}, revision ${revision}`;
  return refusal(
    "conflict",
    isWantedAbsent ? `${key} is there already, at ${found}.` : `${key} is at ${found}, not at ${wanted}.`,
  );
}

/**
 * What happens to settings whose key has the prefix, after a revision (by default: from now on), without gaps. Begins with
 * `at`, and goes on until `signal` is aborted or the store closes.
 */
export async function* watchSettings(
  settings: Settings,
  { prefix = "", fromRevision, signal }: { prefix?: string; fromRevision?: Revision; signal: AbortSignal },
): AsyncGenerator<WatchLine> {
  const { store } = settings;
  let position = fromRevision ?? store.read().revision;
  // The store was put back to an earlier state: what it tells from there on would have a gap.
  let isKnown = position <= store.read().revision;
  let told = position;
  if (isKnown) yield { event: "at", revision: position };
  while (!signal.aborted) {
    if (!isKnown) {
      const state = store.read();
      position = state.revision;
      yield { event: "compacted", revision: position };
      for (let page = listSettings(state, { prefix, limit: 100 }); ; ) {
        for (const view of page.settings) yield { event: "set", revision: position, ...view };
        if (page.next === undefined) break;
        page = listSettings(state, { prefix, limit: 100, after: page.next });
      }
      yield { event: "at", revision: position };
      isKnown = true;
      told = position;
    }
    for await (const event of store.watch([settingsTable], { fromRevision: position, signal })) {
      isKnown = event.kind === "changes";
      if (event.kind !== "changes") break;
      for (const one of eventsOf(event.revision, event.changes)) {
        if (!one.key.startsWith(prefix)) continue;
        yield lineOf(one);
        told = event.revision;
      }
      position = event.revision;
      // So that who comes back after a break need not begin with what happened elsewhere.
      if (position - told < TOLD_EVERY) continue;
      yield { event: "at", revision: position };
      told = position;
    }
    if (isKnown) return; // aborted, or the store is closed
  }
}

function lineOf(event: SettingEvent): WatchLine {
  const { revision, key } = event;
  return "setting" in event
    ? { event: event.event, revision, ...viewOf(event.setting, event.modRevision) }
    : { event: event.event, revision, key, version: event.before.version + 1 };
}
