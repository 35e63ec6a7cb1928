import { assert } from "../../lib/assert.ts";
import type { AnyTable, IndexValues } from "../../model/store.ts";

/** What the key/value layer has to know of a table: where its keys are, how its values look, what to index. */
export type Space = {
  readonly table: AnyTable;
  /** Every key of the table begins with it: the table's name and a slash. */
  readonly prefix: string;
  readonly indexes: readonly { readonly slot: number; of(value: object): IndexValues }[];
  readonly slotOf: ReadonlyMap<string, number>;
};

/** All tables of a store. Each index has a slot: its place in the state's list of index trees. */
export type Schema = {
  readonly spaces: ReadonlyMap<string, Space>;
  readonly slots: number;
  /** The space that a key belongs to; undefined for a table that this version of Hive doesn't know. */
  readonly spaceOfKey: (key: string) => Space | undefined;
};

/** The slot of the built-in index of keys by the lease they hang on. */
export const LEASE_SLOT = 0;

/** @throws BrokenInvariant when two tables have one name */
export function schemaOf(tables: readonly AnyTable[]): Schema {
  const spaces = new Map<string, Space>();
  let slots = LEASE_SLOT + 1;
  for (const table of tables) {
    assert(!spaces.has(table.name), `one table is named "${table.name}"`);
    const slotOf = new Map<string, number>();
    const indexes = Object.entries(table.indexes).map(([name, of]) => {
      slotOf.set(name, slots);
      return { slot: slots++, of };
    });
    spaces.set(table.name, { table, prefix: `${table.name}/`, indexes, slotOf });
  }
  return { spaces, slots, spaceOfKey: finderIn(spaces) };
}

/** The same tables, none of them indexed; what hangs on leases is. */
export function unindexed(schema: Schema): Schema {
  const spaces = new Map([...schema.spaces].map(([name, space]) => [name, { ...space, indexes: [] }]));
  return { ...schema, spaces, spaceOfKey: finderIn(spaces) };
}

/** One command's keys are mostly of one table, and each is asked for several times. */
function finderIn(spaces: ReadonlyMap<string, Space>): Schema["spaceOfKey"] {
  let last: Space | undefined;
  return (key) => {
    if (last && key.startsWith(last.prefix)) return last;
    const found = spaces.get(key.slice(0, key.indexOf("/")));
    last = found ?? last;
    return found;
  };
}

/** A value was stored by a later version of Hive than this one. */
export class NewerFormat extends Error {
  constructor(table: string, stored: number, known: number) {
    super(`records of "${table}" have version ${stored}, and this version of Hive knows only ${known}`);
  }
}

/** @throws NewerFormat when a stored value's format is of a later version of Hive than this one */
export function checkFormat(space: Space | undefined, format: number): void {
  if (space && format > space.table.version) throw new NewerFormat(space.table.name, format, space.table.version);
}

/**
 * Brings a stored value to the version of its table that this program has. Values of unknown tables stay as they are, so
 * that a step back to an earlier Hive loses nothing.
 * @throws NewerFormat
 */
export function upgrade(space: Space | undefined, format: number, value: object): { format: number; value: object } {
  if (space === undefined || format === space.table.version) return { format, value };
  const { name, version, migrate } = space.table;
  checkFormat(space, format);
  assert(migrate, `table "${name}" of version ${version} can migrate version ${format}`);
  return { format: version, value: migrate(value, format) };
}
