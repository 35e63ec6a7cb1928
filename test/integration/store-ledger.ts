import { defineTable } from "../../src/model/store.ts";

export type LedgerRow = { readonly id: string; readonly units: number; readonly pad: string };
export const ledger = defineTable({ name: "ledger", version: 1, key: (row: LedgerRow) => row.id });
