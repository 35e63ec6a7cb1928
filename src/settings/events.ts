/** What happened to settings, told from the records before and after a commit. */
import { isRemoval, type SettingRecord, type SettingVersion } from "../model/settings.ts";
import { type Change, changesOf, type Revision } from "../model/store.ts";
import { settings, settingVersions } from "../model/tables.ts";

/**
 * `set`: a value was written. `expire`, `persist`: it stayed, and when it ends is another. `deleted`, `expired`: it is gone;
 * whoever deletes a key says so in its past, and so what is gone without a word has expired.
 */
export type SettingEvent = { readonly revision: Revision; readonly key: string } & (
  | { readonly event: "set" | "expire" | "persist"; readonly setting: SettingRecord }
  | { readonly event: "deleted" | "expired"; readonly before: SettingRecord }
);

/** The tables to watch. */
export const EVENT_TABLES = [settings, settingVersions] as const;

/** The events of one commit, in key order. Pure. */
export function eventsOf(revision: Revision, changes: readonly Change[]): readonly SettingEvent[] {
  const events: SettingEvent[] = [];
  let deleted: ReadonlySet<string> | undefined;
  for (const { key, before, after } of changesOf(changes, settings)) {
    if (after) {
      events.push({ revision, key, event: whatChanged(before, after), setting: after });
    } else if (before) {
      deleted ??= new Set(
        changesOf(changes, settingVersions).flatMap((c) => (isDeletion(c.after) ? [c.after.key] : [])),
      );
      events.push({ revision, key, event: deleted.has(key) ? "deleted" : "expired", before });
    }
  }
  return events;
}

function whatChanged(before: SettingRecord | undefined, after: SettingRecord): "set" | "expire" | "persist" {
  if (before?.version !== after.version) return "set";
  return after.expires ? "expire" : "persist";
}

const isDeletion = (version: SettingVersion | undefined): version is SettingVersion =>
  version !== undefined && isRemoval(version) && version.removed === "deleted";
