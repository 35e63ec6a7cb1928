/** What happened to settings, told from the records before and after a commit. */
import { isRemoval, type SettingRecord, type SettingVersion } from "../model/settings.ts";
import { type Change, changesOf, type Revision } from "../model/store.ts";
import { settings } from "../model/tables.ts";

/**
 * `set`: a value was written. `expire`, `persist`: it stayed, and when it ends is another. `deleted`, `expired`: it is gone. What
 * is gone without a word has expired: whoever deletes a key leaves its removal.
 */
export type SettingEvent = { readonly revision: Revision; readonly key: string } & (
  | { readonly event: "set" | "expire" | "persist"; readonly setting: SettingRecord; readonly modRevision: Revision }
  | { readonly event: "deleted" | "expired"; readonly before: SettingRecord }
);

/** The events of one commit, in key order. Pure. */
export function eventsOf(revision: Revision, changes: readonly Change[]): readonly SettingEvent[] {
  const events: SettingEvent[] = [];
  for (const { key, before, after, modRevision = revision } of changesOf(changes, settings)) {
    if (after && !isRemoval(after)) {
      events.push({ revision, key, event: whatChanged(before, after), setting: after, modRevision });
    } else if (before && !isRemoval(before)) events.push({ revision, key, event: after?.removed ?? "expired", before });
  }
  return events;
}

function whatChanged(before: SettingVersion | undefined, after: SettingRecord): "set" | "expire" | "persist" {
  if (before?.version !== after.version) return "set";
  return after.expires ? "expire" : "persist";
}
