/** STS. GetCallerIdentity is what every tool asks first. */
import { ok } from "../lib/result.ts";
import type { HandlerTable, Query } from "../model/operation.ts";
import type { GetCallerIdentityRequest, GetCallerIdentityResponse, StsOperations } from "../schema/sts/types.ts";

/** GetCallerIdentity needs no permission: whoever signed may know who they are. */
const getCallerIdentity: Query<GetCallerIdentityRequest, GetCallerIdentityResponse> = {
  kind: "query",
  answer: (_input, { principal }) => ok({ UserId: principal.userId, Account: principal.accountId, Arn: principal.arn }),
};

export const stsHandlers: HandlerTable<StsOperations> = { GetCallerIdentity: getCallerIdentity };
