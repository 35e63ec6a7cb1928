/**
 * What an API operation is to Hive. A handler is a value of one of three kinds, and the gateway runs all of a kind in
 * the same way, so that DryRun, ClientToken, Filters, MaxResults and NextToken work alike for every operation:
 *
 *   mutation   decides on one snapshot of state which records to write; one transaction; starts nothing on a host
 *   describe   lists items; the gateway picks by id, filters and pages them
 *   query      answers anything else that changes nothing
 */
import type { Random } from "../lib/random.ts";
import type { Result } from "../lib/result.ts";
import type { Config } from "./config.ts";
import type { AwsError } from "./errors.ts";
import type { AccountId, IdKind } from "./ids.ts";
import type { Reader, Write } from "./store.ts";

/** Who signed the request. */
export interface Principal {
  readonly accountId: AccountId;
  /** `arn:aws:iam::123456789012:root`, … */
  readonly arn: string;
  /** What GetCallerIdentity shows as UserId. */
  readonly userId: string;
  readonly accessKeyId: string;
}

/** One request, as a handler sees it: who, where, when, and one snapshot of state. */
export interface Call {
  readonly requestId: string;
  readonly accountId: AccountId;
  readonly region: string;
  readonly principal: Principal;
  /** Milliseconds since the epoch; one moment for the whole request. */
  readonly now: number;
  readonly random: Random;
  readonly config: Config;
  readonly state: Reader;
}

export interface Decision<O> {
  readonly writes: readonly Write[];
  readonly output: O;
}

/** Changes state. `decide` is pure but for `call.random`, and may run again on newer state when it lost a race. */
export interface Mutation<I, O, P = unknown> {
  readonly kind: "mutation";
  /** Slow work without state (making a key), done once before `decide`. */
  readonly prepare?: (input: I, call: Call) => Promise<Result<P, AwsError>>;
  readonly decide: (input: I, call: Call, prepared: P) => Result<Decision<O>, AwsError>;
}

/** Values that a filter compares with; any of them may match. */
export type FilterValue = string | number | boolean | Date | undefined;
export type FilterAccessor<Item> = (item: Item) => FilterValue | readonly FilterValue[];

/** Lists items of one kind. `Item` is AWS's own output structure, so that most filters follow from its member names. */
export interface Describe<I, O, Item extends object> {
  readonly kind: "describe";
  readonly ids?: {
    readonly kind: IdKind;
    /** The ids that the request names; the list is then exactly these, and a missing one is an error. */
    readonly of: (input: I) => readonly string[] | undefined;
    readonly idOf: (item: Item) => string;
    /** One item by id, if the caller may see it. Without it the whole list is searched. */
    readonly get?: (id: string, input: I, call: Call) => Item | undefined;
  };
  /** Every item that the caller may see, in a stable order. */
  readonly list: (input: I, call: Call) => Result<readonly Item[], AwsError>;
  /** Filters whose value does not stand where the filter's name says. The rest are derived: see gateway/filters.ts. */
  readonly filters?: { readonly [name: string]: FilterAccessor<Item> };
  /** Bounds of MaxResults; absent where AWS does not page the operation. `key` orders and resumes: unique and stable. */
  readonly page?: { readonly min: number; readonly max: number; readonly key: (item: Item) => string };
  /** Wraps one page of items in the output structure, without NextToken. */
  readonly answer: (items: readonly Item[], input: I, call: Call) => O;
}

/** Answers without changing anything, from state or from a host. */
export interface Query<I, O> {
  readonly kind: "query";
  readonly answer: (input: I, call: Call) => Result<O, AwsError> | Promise<Result<O, AwsError>>;
}

// biome-ignore lint/suspicious/noExplicitAny: a table holds operations of every prepared and item type
export type Operation<I, O> = Mutation<I, O, any> | Describe<I, O, any> | Query<I, O>;

/** The handlers of a service, by operation; `Operations` is the generated map, such as `Ec2Operations`. */
export type HandlerTable<Operations extends { [Name in keyof Operations]: { input: unknown; output: unknown } }> = {
  readonly [Name in keyof Operations]?: Operation<Operations[Name]["input"], Operations[Name]["output"]>;
};
