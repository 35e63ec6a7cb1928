/** Runs one operation of any kind, so that DryRun, ClientToken, ids, Filters and pages work alike for every one. */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError, invalidParameterCombination } from "../model/errors.ts";
import { idNotFound, parseId } from "../model/ids.ts";
import { DESCRIBED_IDS_MAX } from "../model/limits.ts";
import type { Call, Describe, Mutation, Operation } from "../model/operation.ts";
import type { Store } from "../model/store.ts";
import { compileFilters, type RequestedFilter } from "./filters.ts";
import { remember, replay, type TokenPruner, tokenUse } from "./idempotency.ts";
import { cutPage } from "./pages.ts";

/** An input of any operation. Every one that has these members has them with these types. */
export interface AnyInput {
  readonly DryRun?: boolean | undefined;
  readonly ClientToken?: string | undefined;
  readonly Filters?: readonly RequestedFilter[] | undefined;
  readonly MaxResults?: number | undefined;
  readonly NextToken?: string | undefined;
  readonly [name: string]: unknown;
}
export type AnyOperation = Operation<AnyInput, object>;
type Answer = Result<object, AwsError>;

export interface Running {
  readonly store: Store<AwsError>;
  /** Authenticates page tokens; the same on every gateway of the cluster. */
  readonly tokenKey: Uint8Array;
  readonly pruner: Pick<TokenPruner<AwsError>, "tick">;
}

/** Runs it. Synchronous where nothing has to be waited for, since a promise costs as much as a small Describe. */
export function runOperation(
  name: string,
  operation: AnyOperation,
  input: AnyInput,
  call: Call,
  using: Running,
): Answer | Promise<Answer> {
  switch (operation.kind) {
    case "describe":
      return unlessDryRun(input, describe(name, operation as Describe<AnyInput, object, object>, input, call, using));
    case "query": {
      const answer = operation.answer(input, call);
      return answer instanceof Promise
        ? answer.then((settled) => unlessDryRun(input, settled))
        : unlessDryRun(input, answer);
    }
    case "mutation":
      return mutate(name, operation, input, call, using);
  }
}

const unlessDryRun = (input: AnyInput, answer: Answer): Answer =>
  answer.ok && input.DryRun === true ? fail(dryRunSucceeded()) : answer;

async function mutate(
  name: string,
  operation: Mutation<AnyInput, object, unknown>,
  input: AnyInput,
  call: Call,
  { store, pruner }: Running,
): Promise<Answer> {
  const use = tokenUse(name, input);
  if (!use.ok) return use;
  const token = use.value;
  if (token) {
    // A retry costs no preparation and no transaction. The transaction looks again: this state may be old.
    const before = replay(call.state, call, token);
    if (!before.ok) return before;
    if (before.value) return input.DryRun === true ? fail(dryRunSucceeded()) : ok(before.value.output);
  }
  let prepared: unknown;
  if (operation.prepare) {
    const done = await operation.prepare(input, call);
    if (!done.ok) return done;
    prepared = done.value;
  }
  if (input.DryRun === true) {
    const decided = operation.decide(input, call, prepared);
    return decided.ok ? fail(dryRunSucceeded()) : decided;
  }
  const committed = await store.transact<object, AwsError>((state) => {
    if (token) {
      const earlier = replay(state, call, token);
      if (!earlier.ok) return earlier;
      if (earlier.value) return ok({ writes: [], value: earlier.value.output });
    }
    const decided = operation.decide(input, { ...call, state }, prepared);
    if (!decided.ok) return decided;
    const { writes, output } = decided.value;
    return ok({ writes: token ? [...writes, remember(call, token, output)] : writes, value: output });
  });
  if (token) void pruner.tick(call.now);
  return committed;
}

function describe(
  name: string,
  operation: Describe<AnyInput, object, object>,
  input: AnyInput,
  call: Call,
  { tokenKey }: Running,
): Answer {
  const wanted = operation.ids?.of(input);
  const byId = wanted !== undefined && wanted.length > 0;
  if (byId && input.MaxResults !== undefined && IDS_EXCLUDE_PAGES.has(name)) {
    return fail(idsWithMaxResults(IDS_EXCLUDE_PAGES.get(name)!));
  }
  const found = byId ? pickById(operation, wanted, input, call) : operation.list(input, call);
  if (!found.ok) return found;
  let items = found.value;

  const filters = input.Filters;
  if (filters !== undefined && filters.length > 0) {
    const passes = compileFilters(name, operation, filters);
    if (!passes.ok) return passes;
    items = items.filter(passes.value);
  }
  if (!operation.page || (input.MaxResults === undefined && input.NextToken === undefined)) {
    return ok(operation.answer(items, input, call));
  }
  const page = cutPage(
    items,
    operation.page,
    {
      operation: name,
      accountId: call.accountId,
      region: call.region,
      input,
      maxResults: input.MaxResults,
      // An empty token is what some tools send for the first page.
      nextToken: input.NextToken || undefined,
    },
    tokenKey,
  );
  if (!page.ok) return page;
  const answer = operation.answer(page.value.items, input, call);
  return ok(page.value.nextToken === undefined ? answer : { ...answer, NextToken: page.value.nextToken });
}

/** The items with these ids, each once. Errors: Malformed for the first that is no id, NotFound with all that are missing. */
function pickById(
  { ids, list }: Describe<AnyInput, object, object>,
  wanted: readonly string[],
  input: AnyInput,
  call: Call,
): Result<readonly object[], AwsError> {
  const { kind, idOf, get } = ids!;
  if (wanted.length > DESCRIBED_IDS_MAX) return fail(tooManyIds(wanted.length));
  const distinct = new Set(wanted);
  for (const id of distinct) {
    const parsed = parseId(kind, id);
    if (!parsed.ok) return parsed;
  }
  let find = get && ((id: string) => get(id, input, call));
  if (!find) {
    const all = list(input, call);
    if (!all.ok) return all;
    const byId = new Map(all.value.map((item) => [idOf(item), item]));
    find = (id) => byId.get(id);
  }
  const items: object[] = [];
  const missing: string[] = [];
  for (const id of distinct) {
    const item = find(id);
    if (item) items.push(item);
    else missing.push(id);
  }
  return missing.length > 0 ? fail(idNotFound(kind, missing)) : ok(items);
}

/** Operations that AWS documents as taking either ids or MaxResults, with the name that EC2's sentence gives the ids. */
const IDS_EXCLUDE_PAGES: ReadonlyMap<string, string> = new Map([
  ["DescribeHosts", "hostIdSet"],
  ["DescribeInstanceCreditSpecifications", "instanceIdSet"],
  ["DescribeInstances", "instancesSet"],
  ["DescribeInstanceStatus", "instancesSet"],
  ["DescribeNetworkInterfaces", "networkInterfaceIdSet"],
]);

const dryRunSucceeded = (): AwsError =>
  awsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412);
const idsWithMaxResults = (ids: string): AwsError =>
  invalidParameterCombination(`The parameter ${ids} cannot be used with the parameter maxResults`);
const tooManyIds = (count: number): AwsError =>
  awsError("InvalidParameterValue", `The request names ${count} resources; the maximum is ${DESCRIBED_IDS_MAX}.`);
