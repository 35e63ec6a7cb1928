import { ok, type Result } from "../lib/result.ts";
import type { Store, StoreError } from "../model/store.ts";
import { openRaftStore, type RaftStoreOptions } from "./open-raft-store.ts";

export type EmbeddedStoreOptions = Omit<RaftStoreOptions, "cluster">;

/** Opens the store of a directory as a cluster of one; see `openRaftStore`. */
export async function openEmbeddedStore(options: EmbeddedStoreOptions): Promise<Result<Store, StoreError>> {
  const opened = await openRaftStore(options);
  return opened.ok ? ok(opened.value.store) : opened;
}
