/** From an access key's id to its secret and whose it is. */
import type { AccessKeyRecord } from "../model/common-records.ts";
import type { AccountId } from "../model/ids.ts";
import type { Principal } from "../model/operation.ts";
import type { Reader } from "../model/store.ts";
import { accessKeys } from "../model/tables.ts";
import type { SealingKey } from "./sealing-key.ts";

export interface Credential {
  readonly secret: string;
  readonly principal: Principal;
}

export interface Credentials {
  /**
   * The key and who holds it; undefined when there is no such key, when it is inactive, or when its secret was sealed
   * under another key file. Long-lived keys come without a session token; with one, they are not found.
   */
  lookup(accessKeyId: string, sessionToken?: string): Credential | undefined;
}

/**
 * Looks keys up in the store. A secret is decrypted once for each record: records are immutable and shared, so the cache
 * hangs on the record itself, and a changed or removed key is another record.
 */
export function createCredentials(store: { read(): Reader }, sealingKey: SealingKey): Credentials {
  const opened = new WeakMap<AccessKeyRecord, Credential | null>();
  return {
    lookup(accessKeyId, sessionToken) {
      if (sessionToken !== undefined) return undefined;
      const record = store.read().get(accessKeys, accessKeyId);
      if (record?.status !== "Active") return undefined;
      let credential = opened.get(record);
      if (credential === undefined) {
        const secret = sealingKey.open(record.sealedSecret, record.accessKeyId);
        credential = secret === undefined ? null : { secret, principal: principalOf(record) };
        opened.set(record, credential);
      }
      return credential ?? undefined;
    },
  };
}

/** Whom a key stands for. So far that is the account's root user; users and roles are other values of `principal`. */
function principalOf(record: AccessKeyRecord): Principal {
  const { accountId, accessKeyId } = record;
  return { accountId, accessKeyId, arn: rootArn(accountId), userId: accountId };
}

export const rootArn = (accountId: AccountId): string => `arn:aws:iam::${accountId}:root`;
