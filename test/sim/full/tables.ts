/** What clients write: registers, whose values are never written twice, and records that hang on a lease. */
import { defineTable } from "../../../src/model/store.ts";

export type Register = { readonly id: string; readonly value: number; readonly padding: string };
export const registers = defineTable({
  name: "registers",
  version: 1,
  key: (record: Register) => record.id,
  indexes: { byParity: (record) => String(record.value % 2) },
});
export type Leased = { readonly id: string; readonly lease: string };
export const leased = defineTable({ name: "leased", version: 1, key: (record: Leased) => record.id });
export const TABLES = [registers, leased];
