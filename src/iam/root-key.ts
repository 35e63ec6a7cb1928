/** The root user's access key: made at the first start, or given by the operator. */
import { Secret } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { AccessKeyRecord } from "../model/common-records.ts";
import type { AccountId } from "../model/ids.ts";
import { put, type Reader, type Store, type Write } from "../model/store.ts";
import { accessKeys } from "../model/tables.ts";
import type { SealingKey } from "./sealing-key.ts";

export interface RootKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: Secret;
}

/** Why there is no root key, as a whole sentence for an operator. */
export type RootKeyError = { readonly kind: "root-key"; readonly message: string };

const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** A key as AWS forms it: `AKIA` and 16 characters of base32; the secret is 240 random bits in base64, 40 characters. */
export function newAccessKey(random: Random): RootKey {
  let id = "AKIA";
  for (const byte of random.bytes(16)) id += BASE32[byte & 31];
  return { accessKeyId: id, secretAccessKey: new Secret(Buffer.from(random.bytes(30)).toString("base64")) };
}

/**
 * Reads HIVE_ROOT_ACCESS_KEY_ID and HIVE_ROOT_SECRET_ACCESS_KEY; undefined when neither is set.
 * Errors: one without the other, or a form that clients could not send.
 */
export function rootKeyFromEnvironment(env: {
  readonly [name: string]: string | undefined;
}): Result<RootKey | undefined, RootKeyError> {
  const id = env.HIVE_ROOT_ACCESS_KEY_ID || undefined;
  const secret = env.HIVE_ROOT_SECRET_ACCESS_KEY || undefined;
  if (id === undefined && secret === undefined) return ok(undefined);
  if (id === undefined || secret === undefined) {
    return fail(rootKeyError("Set both HIVE_ROOT_ACCESS_KEY_ID and HIVE_ROOT_SECRET_ACCESS_KEY, or neither."));
  }
  if (!/^\w{3,128}$/.test(id)) {
    return fail(rootKeyError("HIVE_ROOT_ACCESS_KEY_ID must be 3 to 128 letters, digits or underscores."));
  }
  if (!/^[!-~]{8,128}$/.test(secret)) {
    return fail(
      rootKeyError("HIVE_ROOT_SECRET_ACCESS_KEY must be 8 to 128 printable ASCII characters without spaces."),
    );
  }
  return ok({ accessKeyId: id, secretAccessKey: new Secret(secret) });
}

/**
 * The root key, decided on one state. `given` becomes the only active one: those before it are made inactive, so that
 * changing the environment is a rotation. Without `given` the newest active one stays, or a new one is made.
 */
export function decideRootKey(
  state: Reader,
  accountId: AccountId,
  given: RootKey | undefined,
  using: { readonly sealingKey: SealingKey; readonly random: Random; readonly now: number },
): Result<{ readonly writes: readonly Write[]; readonly value: RootKey }, RootKeyError> {
  const { sealingKey, random, now } = using;
  const record = (key: RootKey): AccessKeyRecord => ({
    accessKeyId: key.accessKeyId,
    accountId,
    principal: "root",
    sealedSecret: sealingKey.seal(key.secretAccessKey.reveal(), key.accessKeyId, random),
    status: "Active",
    createdAt: now,
  });
  const active = state
    .lookup(accessKeys, "byAccount", accountId)
    .filter((key) => key.principal === "root" && key.status === "Active")
    .sort((a, b) => b.createdAt - a.createdAt);

  if (given) {
    const held = state.get(accessKeys, given.accessKeyId);
    if (held && (held.accountId !== accountId || held.principal !== "root")) {
      return fail(rootKeyError(`The access key ${given.accessKeyId} already belongs to someone else.`));
    }
    const same =
      held?.status === "Active" &&
      sealingKey.open(held.sealedSecret, held.accessKeyId) === given.secretAccessKey.reveal();
    const retired = active
      .filter((key) => key.accessKeyId !== given.accessKeyId)
      .map((key) => put(accessKeys, { ...key, status: "Inactive" }));
    return ok({ writes: same ? retired : [...retired, put(accessKeys, record(given))], value: given });
  }

  const [newest] = active;
  if (newest) {
    const secret = sealingKey.open(newest.sealedSecret, newest.accessKeyId);
    if (secret === undefined) {
      return fail(
        rootKeyError(
          `The secret of the root key ${newest.accessKeyId} was sealed under another key file. Restore that file, or ` +
            "give new keys in HIVE_ROOT_ACCESS_KEY_ID and HIVE_ROOT_SECRET_ACCESS_KEY.",
        ),
      );
    }
    return ok({ writes: [], value: { accessKeyId: newest.accessKeyId, secretAccessKey: new Secret(secret) } });
  }
  const made = newAccessKey(random);
  return ok({ writes: [put(accessKeys, record(made))], value: made });
}

/** Makes sure that the account has a root key, and returns it. Commits at most one transaction. */
export function ensureRootKey<F>(
  store: Store<F>,
  accountId: AccountId,
  given: RootKey | undefined,
  using: { readonly sealingKey: SealingKey; readonly random: Random; readonly now: number },
): Promise<Result<RootKey, RootKeyError | F>> {
  return store.transact((state) => decideRootKey(state, accountId, given, using));
}

const rootKeyError = (message: string): RootKeyError => ({ kind: "root-key", message });
