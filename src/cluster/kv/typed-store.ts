import { assert, present } from "../../lib/assert.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type {
  AnyTable,
  Change,
  Decision,
  Past,
  Range,
  Reader,
  Revision,
  Store,
  StoreError,
  Table,
  WatchEvent,
  Write,
} from "../../model/store.ts";
import { deepFreeze, type SealedOperation, sealPut, sealRemove } from "./command.ts";
import type { KeyEvent } from "./history.ts";
import type { KeyDecision, KeyValueStore } from "./key-value-store.ts";
import { type Schema, type Space, upgrade } from "./schema.ts";
import type { KeyChange, KeyValue, PastValue, State } from "./state.ts";
import { View } from "./view.ts";

/** Typed tables over a key/value store that was opened with the same schema. */
export function typedStore(kv: KeyValueStore, schema: Schema): Store {
  let latest: { readonly state: State; readonly reader: Reader } | undefined;
  return {
    read() {
      const state = kv.state();
      if (latest?.state !== state) latest = { state, reader: readerOf(schema, new View(state)) };
      return latest.reader;
    },
    transact<T, E>(decide: (state: Reader) => Result<Decision<T>, E>): Promise<Result<T, E | StoreError>> {
      return kv.propose<T, E | StoreError>((view): Result<KeyDecision<T>, E | StoreError> => {
        const decided = decide(readerOf(schema, view));
        if (!decided.ok) return decided;
        const operations = seal(schema, decided.value.writes);
        return operations.ok ? ok({ operations: operations.value, value: decided.value.value }) : operations;
      });
    },
    watch(tables, { fromRevision = kv.state().revision, signal, concerns } = {}) {
      for (const table of tables) spaceOf(schema, table);
      const names = new Set(tables.map(({ name }) => name));
      const isWanted = ({ key, after }: KeyChange): boolean => {
        const space = schema.spaceOfKey(key);
        if (!space || !names.has(space.table.name)) return false;
        return !concerns || concerns(key.slice(space.prefix.length), after?.value);
      };
      const events = kv.watch(fromRevision, { signal, concerns: (changes) => changes.some(isWanted) });
      return typedEvents(schema, names, events);
    },
    barrier: () => kv.barrier(),
    grantLease: (ttlMs) => kv.grantLease(ttlMs),
    keepAlive: (lease) => kv.keepAlive(lease),
    revokeLease: (lease) => kv.revokeLease(lease),
    status: () => kv.status(),
    close: () => kv.close(),
  };
}

function seal(schema: Schema, writes: readonly Write[]): Result<SealedOperation[], StoreError> {
  const sealed: SealedOperation[] = [];
  for (const [key, write] of lastOfEachKey(schema, writes)) {
    if (write.kind === "remove") {
      sealed.push(sealRemove(key));
      continue;
    }
    const { record, table, lease, successor, restores } = write;
    const put = sealPut(key, record, table.version, { lease, successor, pastMax: table.pastMax, restores });
    if (!put.ok) return fail(put.error);
    sealed.push(put.value);
  }
  return ok(sealed);
}

/** One operation a key: the last one wins. */
function lastOfEachKey(schema: Schema, writes: readonly Write[]): Iterable<[key: string, write: Write]> {
  const keyOf = (write: Write): string => {
    assert(write.key !== "", "a key is not empty");
    return spaceOf(schema, write.table).prefix + write.key;
  };
  if (writes.length === 1) return [[keyOf(writes[0]!), writes[0]!]];
  const byKey = new Map<string, Write>();
  for (const write of writes) byKey.set(keyOf(write), write);
  return byKey;
}

async function* typedEvents(
  schema: Schema,
  names: ReadonlySet<string>,
  events: AsyncIterable<KeyEvent>,
): AsyncGenerator<WatchEvent> {
  for await (const event of events) {
    if (event.kind === "compacted") {
      yield event;
      return;
    }
    const changes: Change[] = [];
    for (const { key, before, after } of event.changes) {
      const space = schema.spaceOfKey(key);
      if (!space || !names.has(space.table.name)) continue;
      changes.push({
        table: space.table,
        key: key.slice(space.prefix.length),
        ...(before && { before: before.value }),
        ...(after && { after: after.value, modRevision: after.modRevision }),
      });
    }
    yield { kind: "changes", revision: event.revision, changes };
  }
}

function readerOf(schema: Schema, view: View): Reader {
  return {
    revision: view.state.revision as Revision,
    stamp: (table, key) => view.get(spaceOf(schema, table).prefix + key),
    past<R extends object>(table: Table<R>, key: string): readonly Past<R>[] {
      const space = spaceOf(schema, table);
      const { past = NO_PAST } = view.get(space.prefix + key) ?? {};
      return past.map(({ text, format, modRevision }) => ({
        record: deepFreeze(upgrade(space, format, JSON.parse(text)).value as R),
        modRevision,
      }));
    },
    get<R extends object>(table: Table<R>, key: string): R | undefined {
      return view.get(spaceOf(schema, table).prefix + key)?.value as R | undefined;
    },
    lookup<R extends object>(table: Table<R>, index: string, value: string): readonly R[] {
      return records(view.lookup(slotOf(schema, table, index), value));
    },
    all<R extends object>(table: Table<R>): readonly R[] {
      return records(view.range(...wholeSpace(spaceOf(schema, table))));
    },
    range<R extends object>(table: Table<R>, range: Range): readonly R[] {
      return records(view.range(...boundsOf(spaceOf(schema, table), range), range.limit));
    },
    count: (table) => view.count(...wholeSpace(spaceOf(schema, table))),
    countOf: (table, index, value) => view.countOf(slotOf(schema, table as AnyTable, index), value),
  };
}

const NO_PAST: readonly PastValue[] = [];

const records = <R extends object>(entries: readonly KeyValue[]): readonly R[] =>
  entries.map(({ value }) => value as R);

/** From the first key of the table to the first that is beyond it: "0" follows "/". */
const wholeSpace = ({ table, prefix }: Space): [string, string] => [prefix, `${table.name}0`];

function boundsOf(space: Space, { from, after, to, prefix }: Range): [string, string] {
  const [first, end] = wholeSpace(space);
  const starts = [first];
  const ends = [end];
  if (from !== undefined) starts.push(space.prefix + from);
  if (after !== undefined) starts.push(`${space.prefix}${after}\0`);
  if (to !== undefined) ends.push(space.prefix + to);
  if (prefix) {
    starts.push(space.prefix + prefix);
    ends.push(space.prefix + afterPrefix(prefix));
  }
  // Sorted as keys are, by code unit: the latest start and the earliest end; a range that is inside out is empty.
  const start = starts.sort().at(-1)!;
  return [start, [start, ends.sort()[0]!].sort()[1]!];
}

/** The first string that is after everything with the prefix. */
function afterPrefix(prefix: string): string {
  const last = prefix.charCodeAt(prefix.length - 1);
  return last === 0xffff ? `${prefix}\uffff` : prefix.slice(0, -1) + String.fromCharCode(last + 1);
}

function spaceOf(schema: Schema, table: AnyTable): Space {
  return present(schema.spaces.get(table.name), `the store was opened with table "${table.name}"`);
}

function slotOf(schema: Schema, table: AnyTable, index: string): number {
  return present(spaceOf(schema, table).slotOf.get(index), `table "${table.name}" has the index "${index}"`);
}
