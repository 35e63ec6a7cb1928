import type { LeaseId, Revision } from "../../model/store.ts";
import type { Schema } from "./schema.ts";
import { fromSorted } from "./sorted-map.ts";
import { indexKey, type KeyValue, placements, type State } from "./state.ts";

/**
 * Builds a whole state from a snapshot's entries, in ascending key order. The indexes are computed here: they are never
 * stored, so a new version of Hive may define them anew.
 */
export function buildState(
  schema: Schema,
  revision: Revision,
  leases: ReadonlyMap<LeaseId, number>,
  entries: readonly KeyValue[],
): State {
  const placed: { at: string; entry: KeyValue }[][] = Array.from({ length: schema.slots }, () => []);
  for (const entry of entries) {
    for (const [slot, values] of placements(schema, entry.key, entry)) {
      for (const value of new Set(values)) placed[slot]!.push({ at: indexKey(value, entry.key), entry });
    }
  }
  const indexes = placed.map((list) => {
    list.sort((a, b) => (a.at < b.at ? -1 : 1));
    return fromSorted(
      list.map(({ at }) => at),
      list.map(({ entry }) => entry),
    );
  });
  return {
    revision,
    leases,
    indexes,
    keys: fromSorted(
      entries.map(({ key }) => key),
      entries,
    ),
  };
}
