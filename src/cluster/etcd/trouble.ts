import { fail } from "../../lib/result.ts";

/**
 * Why a follower can't go on.
 *   gap      it has missed something; read everything anew
 *   damaged  etcd holds what no version of Hive writes
 *   newer    a later version of Hive wrote it
 *   restored etcd was put back, and has gone on from there: what is here is not what it holds
 */
export type Trouble = { readonly kind: "gap" | "damaged" | "newer" | "restored"; readonly message: string };

export const gap = (message: string) => fail<Trouble>({ kind: "gap", message });
export const damaged = (key: string): Trouble => ({
  kind: "damaged",
  message: `the key ${key} does not hold what Hive writes there`,
});
export const noSuchLease = ({ key, lease }: { readonly key: string; readonly lease?: string }): Trouble => ({
  kind: "damaged",
  message: `the record ${key} hangs on the lease ${lease}, which does not exist`,
});
