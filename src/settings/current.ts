/** Reads of the settings that hold now. A key that is gone leaves a record behind, which others needn't know of. */
import { isRemoval, type SettingRecord, type SettingVersion, VERSIONS_KEPT } from "../model/settings.ts";
import type { Range, Reader, Revision } from "../model/store.ts";
import { settings } from "../model/tables.ts";

export function currentSetting(state: Reader, key: string): SettingRecord | undefined {
  const newest = state.get(settings, key);
  return newest && !isRemoval(newest) ? newest : undefined;
}

/** The revision that wrote what holds now; 0 when the key is not there. */
export function revisionOf(state: Reader, key: string): Revision {
  return currentSetting(state, key) ? state.stamp(settings, key)!.modRevision : 0;
}

/** Keys that are there. */
export const countSettings = (state: Reader): number => state.count(settings) - countGone(state);
/** Keys that are gone, whose past is remembered. */
export const countGone = (state: Reader): number => state.countOf(settings, "gone", "gone");

/** Settings in key order, as many as the range's limit where there are so many. */
export function settingsIn(state: Reader, range: Range & { readonly limit: number }): readonly SettingRecord[] {
  const found: SettingRecord[] = [];
  for (let after = range.after; ; ) {
    const page = state.range(settings, { ...range, ...(after !== undefined && { after }) });
    for (const one of page) if (!isRemoval(one) && found.length < range.limit) found.push(one);
    if (page.length < range.limit || found.length === range.limit) return found;
    after = page.at(-1)!.key;
  }
}

/** One of a key's versions, and the revision that wrote it. */
export type WrittenVersion = { readonly version: SettingVersion; readonly modRevision: Revision };

/** Everything that is remembered of a key, newest first. */
export function versionsOf(state: Reader, key: string): readonly WrittenVersion[] {
  const newest = state.get(settings, key);
  if (!newest) return [];
  const versions: WrittenVersion[] = [{ version: newest, modRevision: state.stamp(settings, key)!.modRevision }];
  for (const { record, modRevision } of state.past(settings, key)) {
    // A version is written again when only its end is another.
    if (record.version < versions.at(-1)!.version.version) versions.push({ version: record, modRevision });
  }
  return versions.slice(0, VERSIONS_KEPT);
}
