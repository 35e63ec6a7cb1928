/**
 * Filters of the Describe operations. An item passes when it passes every filter, and a filter when any of its values
 * matches any value that the item has in that place. Names are those that AWS documents for the operation (and any that
 * the operation itself adds); what a name means is the operation's `filters`, else derived: see filter-paths.ts.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError, invalidParameterValue } from "../model/errors.ts";
import { FILTER_VALUE_CHARS_MAX, FILTER_VALUES_MAX, FILTERS_MAX } from "../model/limits.ts";
import type { Describe, FilterAccessor, FilterValue } from "../model/operation.ts";
import { ec2Service } from "../protocol/ec2-query.ts";
import type { Service } from "../protocol/shape.ts";
import { filtersOf } from "../schema/ec2/filters.ts";
import { deriveAccessor, itemShapeOf } from "./filter-paths.ts";
import { compilePattern, isPattern, type Pattern } from "./wildcard.ts";

/** What a request asks for: EC2's Filter structure. */
export interface RequestedFilter {
  readonly Name?: string | undefined;
  readonly Values?: readonly string[] | undefined;
}

type ErasedDescribe = Pick<Describe<object, object, object>, "filters">;

interface Condition {
  readonly accessor: FilterAccessor<object>;
  readonly exact: ReadonlySet<string>;
  readonly patterns: readonly Pattern[];
}

/**
 * Compiles a request's filters into one test for items.
 * Errors: InvalidParameterValue for a name that the operation does not have, FilterLimitExceeded.
 */
export function compileFilters(
  operation: string,
  handler: ErasedDescribe,
  requested: readonly RequestedFilter[],
): Result<(item: object) => boolean, AwsError> {
  if (requested.length > FILTERS_MAX) return fail(tooManyFilters());
  const conditions: Condition[] = [];
  let count = 0;
  for (const { Name: name, Values: values } of requested) {
    if (name === undefined || name === "") return fail(filterInvalid("null"));
    const accessor = accessorOf(operation, handler, name);
    if (!accessor) return fail(filterInvalid(name));
    if (!values || values.length === 0) return fail(filterWithoutValues(name));
    count += values.length;
    if (count > FILTER_VALUES_MAX) return fail(tooManyValues());
    const exact = new Set<string>();
    const patterns: Pattern[] = [];
    for (const value of values) {
      if (value.length > FILTER_VALUE_CHARS_MAX) return fail(valueTooLong(name));
      if (isPattern(value)) patterns.push(compilePattern(value));
      else exact.add(value);
    }
    conditions.push({ accessor, exact, patterns });
  }
  return ok((item) => conditions.every((condition) => passes(condition, item)));
}

function passes({ accessor, exact, patterns }: Condition, item: object): boolean {
  const found = accessor(item);
  if (!Array.isArray(found)) return matchesAny(found as FilterValue, exact, patterns);
  for (const value of found as readonly FilterValue[]) if (matchesAny(value, exact, patterns)) return true;
  return false;
}

function matchesAny(value: FilterValue, exact: ReadonlySet<string>, patterns: readonly Pattern[]): boolean {
  if (value === undefined || value === null) return false;
  const text = typeof value === "string" ? value : value instanceof Date ? value.toISOString() : String(value);
  if (exact.has(text)) return true;
  for (const pattern of patterns) if (pattern(text)) return true;
  return false;
}

/** Accessors by operation and name; the documented names are a closed set, and `tag:…` is not kept. */
const derived = new Map<string, FilterAccessor<object> | undefined>();

function accessorOf(operation: string, handler: ErasedDescribe, name: string): FilterAccessor<object> | undefined {
  const own = handler.filters;
  if (own && Object.hasOwn(own, name)) return own[name] as FilterAccessor<object>;
  const documented = filtersOf(operation);
  const tag = name.startsWith("tag:");
  if (tag ? !documented.includes("tag:<key>") : !documented.includes(name) && !isOlderName(documented, name)) {
    return undefined;
  }
  const key = `${operation} ${name}`;
  if (!tag && derived.has(key)) return derived.get(key);
  const shape = itemShapeOf(ec2Service(), operation);
  // Documented, but for something that Hive's items don't have: it is a valid filter, and nothing passes it.
  const accessor = (shape && deriveAccessor(shape, name)) ?? (() => undefined);
  if (!tag) derived.set(key, accessor);
  return accessor;
}

/** `tag-value` was documented beside `tag-key` until 2017, and still works. */
const isOlderName = (documented: readonly string[], name: string): boolean =>
  name === "tag-value" && documented.includes("tag-key");

/**
 * The documented filters of a Describe that neither the handler nor the rules give a meaning. A test holds this empty, so
 * that no filter is accepted and then silently matches nothing.
 */
export function unresolvedFilters(
  operation: string,
  handler: ErasedDescribe,
  service: Service = ec2Service(),
): readonly string[] {
  const shape = itemShapeOf(service, operation);
  const own = handler.filters ?? {};
  return filtersOf(operation).filter(
    (name) => !Object.hasOwn(own, name) && !(shape && deriveAccessor(shape, name.replace("<key>", "key"))),
  );
}

const shown = (text: string): string => (text.length > 128 ? `${text.slice(0, 128)}…` : text);
const filterInvalid = (name: string): AwsError => invalidParameterValue(`The filter '${shown(name)}' is invalid`);
const filterWithoutValues = (name: string): AwsError =>
  invalidParameterValue(`The filter '${shown(name)}' must have at least one value`);
const valueTooLong = (name: string): AwsError =>
  invalidParameterValue(`A value of the filter '${shown(name)}' is longer than ${FILTER_VALUE_CHARS_MAX} characters`);
const tooManyFilters = (): AwsError =>
  awsError("FilterLimitExceeded", `The maximum number of filters specified on a single call is ${FILTERS_MAX}`);
const tooManyValues = (): AwsError =>
  awsError(
    "FilterLimitExceeded",
    `The maximum number of filter values specified on a single call is ${FILTER_VALUES_MAX}`,
  );
