/**
 * ClientToken. The token, a hash of the parameters and the answer are written in the same transaction as the effect, so a
 * retry finds either both or neither; and since decisions are made one after another, of several callers with one token
 * exactly one decides, and the others get its answer.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import { KIB } from "../lib/units.ts";
import type { IdempotencyRecord } from "../model/common-records.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import { CLIENT_TOKEN_CHARS_MAX, CLIENT_TOKEN_TTL_MS } from "../model/limits.ts";
import type { Call } from "../model/operation.ts";
import { put, type Reader, remove, type Store, type Write } from "../model/store.ts";
import { idempotency, inAccount } from "../model/tables.ts";
import { sha256Hex } from "../protocol/sigv4-canonical.ts";
import { canonicalJson, fromPlain, toPlain } from "./plain-json.ts";

/** An answer above this is kept compressed: a record is a MiB at most, and 1,000 instances describe themselves in three. */
const PLAIN_CHARS_MAX = 128 * KIB;
/** Tokens forgotten in one transaction, so that it stays small. */
const PRUNED_AT_ONCE = 500;
const PRUNE_INTERVAL_MS = 10 * 60 * 1000;

/** One use of a token: what is looked for, and what is written when it is not there. */
export interface TokenUse {
  readonly operation: string;
  readonly token: string;
  readonly parametersHash: string;
}

type Scope = Pick<Call, "accountId" | "region" | "now">;

/** The request's use of a token; undefined when it carries none. Errors: InvalidParameterValue for a token's form. */
export function tokenUse(
  operation: string,
  input: { readonly [name: string]: unknown },
): Result<TokenUse | undefined, AwsError> {
  const { ClientToken: token, DryRun: _, ...parameters } = input;
  if (typeof token !== "string" || token === "") return ok(undefined);
  if (token.length > CLIENT_TOKEN_CHARS_MAX || !/^[!-~]+$/.test(token)) return fail(tokenInvalid(token));
  return ok({ operation, token, parametersHash: sha256Hex(canonicalJson(parameters)) });
}

/**
 * The answer that this token already has; `{ output: undefined }` does not occur, undefined means that it is new.
 * Errors: IdempotentParameterMismatch.
 */
export function replay(
  state: Reader,
  scope: Scope,
  use: TokenUse,
): Result<{ readonly output: object } | undefined, AwsError> {
  const record = state.get(idempotency, keyOf(scope, use));
  if (!record || record.createdAt + CLIENT_TOKEN_TTL_MS <= scope.now) return ok(undefined);
  if (record.parametersHash !== use.parametersHash) return fail(parameterMismatch());
  return ok({ output: restored(record.output) });
}

/** Remembers the token and its answer. */
export function remember(scope: Scope & Pick<Call, "accountId">, use: TokenUse, output: object): Write {
  const record: IdempotencyRecord = {
    accountId: scope.accountId,
    region: scope.region,
    operation: use.operation,
    token: use.token,
    parametersHash: use.parametersHash,
    output: kept(output),
    createdAt: scope.now,
  };
  return put(idempotency, record);
}

const keyOf = ({ accountId, region }: Scope, { operation, token }: TokenUse): string =>
  `${inAccount(accountId, region)}/${operation}/${token}`;

function kept(output: object): unknown {
  const plain = toPlain(output);
  const text = JSON.stringify(plain);
  if (text.length <= PLAIN_CHARS_MAX) return { plain };
  return { gzip: Buffer.from(Bun.gzipSync(Buffer.from(text))).toString("base64") };
}

function restored(stored: unknown): object {
  const { plain, gzip } = stored as { readonly plain?: unknown; readonly gzip?: string };
  if (gzip === undefined) return fromPlain(plain) as object;
  return fromPlain(JSON.parse(Buffer.from(Bun.gunzipSync(Buffer.from(gzip, "base64"))).toString("utf8"))) as object;
}

/**
 * Forgets tokens that are older than a day, now and then, when tokens are used: an idle gateway has nothing to do and
 * does nothing. A token past its day is not replayed even while its record is still there.
 */
export class TokenPruner<F> {
  readonly #store: Store<F>;
  readonly #failed: (why: unknown) => void;
  #next = 0;

  /** @param failed is told the store's failure, or what was thrown; the next attempt is ten minutes later */
  constructor(store: Store<F>, failed: (why: unknown) => void) {
    this.#store = store;
    this.#failed = failed;
  }

  /** Called after each use of a token. Returns at once unless it is time. Never rejects. */
  async tick(now: number): Promise<void> {
    if (now < this.#next) return;
    this.#next = now + PRUNE_INTERVAL_MS;
    try {
      await this.#prune(now);
    } catch (thrown) {
      this.#failed(thrown);
    }
  }

  async #prune(now: number): Promise<void> {
    for (;;) {
      const expired = this.#store
        .read()
        .all(idempotency)
        .filter((record) => record.createdAt + CLIENT_TOKEN_TTL_MS <= now)
        .slice(0, PRUNED_AT_ONCE)
        .map((record) => idempotency.key(record));
      if (expired.length === 0) return;
      const done = await this.#store.transact((state) => {
        // A token may have been used anew since.
        const still = expired.filter((key) => {
          const record = state.get(idempotency, key);
          return record !== undefined && record.createdAt + CLIENT_TOKEN_TTL_MS <= now;
        });
        return ok({ writes: still.map((key) => remove(idempotency, key)), value: undefined });
      });
      if (!done.ok) return this.#failed(done.error);
      if (expired.length < PRUNED_AT_ONCE) return;
    }
  }
}

const tokenInvalid = (token: string): AwsError =>
  awsError(
    "InvalidParameterValue",
    `Value (${token.slice(0, CLIENT_TOKEN_CHARS_MAX)}) for parameter ClientToken is invalid. It must be at most ${CLIENT_TOKEN_CHARS_MAX} printable ASCII characters.`,
  );
const parameterMismatch = (): AwsError =>
  awsError(
    "IdempotentParameterMismatch",
    "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
  );
