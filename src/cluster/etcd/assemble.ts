/**
 * Puts together what lies in several of etcd's rows: a record, what takes its place when its lease ends, and what it was
 * before. The entry is the same, member by member, as the one that the committing node has.
 */
import { fail, ok, type Result } from "../../lib/result.ts";
import type { Revision } from "../../model/store.ts";
import { deepFreeze } from "../kv/command.ts";
import { checkFormat, NewerFormat, type Schema, upgrade } from "../kv/schema.ts";
import { getFrom, type SortedMap } from "../kv/sorted-map.ts";
import type { KeyValue, PastValue } from "../kv/state.ts";
import { type Meaning, pastKey, recordKey, successorKey, type Versioned } from "./layout.ts";
import { damaged, type Trouble } from "./trouble.ts";

/** What a row says of a record, or of what is beside it. */
type MeaningOfRecord = Extract<Meaning, { readonly kind: "record" | "successor" | "past" }>;

/** What etcd holds of one key. */
type Parts = {
  /** Whether a row of the record's own was taken. */
  isWritten: boolean;
  record: KeyValue | undefined;
  successor: Versioned | undefined;
  readonly past: Map<Revision, PastValue>;
};

/** Takes rows, in any order, and gives the entries that they make. */
export class Assembly {
  readonly #schema: Schema;
  readonly #before: SortedMap<KeyValue>;
  readonly #known: SortedMap<KeyValue>;
  readonly #parts = new Map<string, Parts>();

  /**
   * @param before what the rows change
   * @param known entries of whatever revision: what they have is not made anew
   */
  constructor(schema: Schema, before: SortedMap<KeyValue>, known: SortedMap<KeyValue>) {
    this.#schema = schema;
    this.#before = before;
    this.#known = known;
  }

  /** Takes a row. Values of an earlier format are brought to their table's. @returns why it can't be taken, if so */
  take(meaning: MeaningOfRecord): Trouble | undefined {
    try {
      this.#take(meaning);
      return undefined;
    } catch (error) {
      if (error instanceof NewerFormat) return { kind: "newer", message: error.message };
      throw error;
    }
  }

  #take(meaning: MeaningOfRecord): void {
    const { key } = meaning;
    const parts = this.#partsOf(key);
    const known = getFrom(this.#known, key);
    switch (meaning.kind) {
      case "record": {
        const { entry } = meaning;
        parts.isWritten = true;
        if (!entry) parts.record = undefined;
        // A revision writes a key once: this is the entry that is known, with all that is beside it.
        else if (known?.modRevision === entry.modRevision) parts.record = known;
        else parts.record = { ...entry, ...this.#current(key, entry) };
        return;
      }
      case "successor":
        parts.successor = meaning.stored && this.#current(key, meaning.stored);
        return;
      case "past": {
        const { modRevision, stored } = meaning;
        if (!stored) {
          parts.past.delete(modRevision);
          return;
        }
        checkFormat(this.#schema.spaceOfKey(key), stored.format);
        const same = known?.past?.find((one) => one.modRevision === modRevision);
        parts.past.set(modRevision, same ?? { text: JSON.stringify(stored.value), format: stored.format, modRevision });
      }
    }
  }

  /** Every key that had a row, and its entry; undefined: it has none any more. */
  entries(): Result<ReadonlyMap<string, KeyValue | undefined>, Trouble> {
    const entries = new Map<string, KeyValue | undefined>();
    for (const [key, parts] of this.#parts) {
      const wrong = misplaced(key, parts) ?? (parts.isWritten ? undefined : recordKey(key));
      if (wrong !== undefined) return fail(damaged(wrong));
      entries.set(key, parts.record && whole(parts.record, parts));
    }
    return ok(entries);
  }

  #partsOf(key: string): Parts {
    const found = this.#parts.get(key);
    if (found) return found;
    const { format = 0, successor: value, past = [] } = getFrom(this.#before, key) ?? {};
    const parts: Parts = {
      isWritten: false,
      record: undefined,
      successor: value && { format, value },
      past: new Map(past.map((one) => [one.modRevision, one])),
    };
    this.#parts.set(key, parts);
    return parts;
  }

  /** @throws NewerFormat */
  #current(key: string, stored: Versioned): Versioned {
    const { format, value } = upgrade(this.#schema.spaceOfKey(key), stored.format, stored.value);
    return { format, value: deepFreeze(value) };
  }
}

/** The key of a row beside a record's own that this record can't have, if there is one. */
function misplaced(key: string, { record, successor, past }: Parts): string | undefined {
  if (successor && record?.lease === undefined) return successorKey(key);
  for (const modRevision of past.keys()) {
    const isOfRecord = record && modRevision >= record.createRevision && modRevision < record.modRevision;
    if (!isOfRecord) return pastKey(key, modRevision);
  }
  return undefined;
}

function whole(record: KeyValue, { successor, past }: Parts): KeyValue {
  // One that was known is whole already.
  if (record.successor || record.past || (!successor && past.size === 0)) return record;
  return {
    ...record,
    ...(successor && { successor: successor.value }),
    ...(past.size > 0 && { past: [...past.values()].sort((a, b) => b.modRevision - a.modRevision) }),
  };
}
