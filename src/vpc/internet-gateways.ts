/** DescribeInternetGateways. */
import { ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import type { InternetGatewayRecord } from "../model/network.ts";
import type { Describe } from "../model/operation.ts";
import { internetGateways, tags } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type {
  DescribeInternetGatewaysRequest,
  DescribeInternetGatewaysResult,
  InternetGateway,
} from "../schema/ec2/types.ts";
import { allOwned, getOwned, type Scope } from "./owned.ts";

export const viewInternetGateway = memoView(
  (gateway: InternetGatewayRecord, tagsOf: TagsRecord | undefined): InternetGateway => ({
    // EC2 says `available` here, not `attached`, though its model does not list the word.
    Attachments: gateway.vpcId ? [{ State: "available" as "attached", VpcId: gateway.vpcId }] : [],
    InternetGatewayId: gateway.id,
    OwnerId: gateway.accountId,
    Tags: tagList(tagsOf),
  }),
);

const view = (gateway: InternetGatewayRecord, { state }: Scope): InternetGateway =>
  viewInternetGateway(gateway, state.get(tags, gateway.id));

export const describeInternetGateways: Describe<
  DescribeInternetGatewaysRequest,
  DescribeInternetGatewaysResult,
  InternetGateway
> = {
  kind: "describe",
  ids: {
    kind: "InternetGateway",
    of: (input) => input.InternetGatewayIds,
    idOf: (gateway) => gateway.InternetGatewayId!,
    get(id, _input, call) {
      const gateway = getOwned(call, internetGateways, id);
      return gateway && view(gateway, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, internetGateways).map((gateway) => view(gateway, call))),
  filters: {
    "attachment.state": (gateway) => gateway.Attachments?.map((attachment) => attachment.State),
    "attachment.vpc-id": (gateway) => gateway.Attachments?.map((attachment) => attachment.VpcId),
  },
  page: { min: 5, max: 1000, key: (gateway) => gateway.InternetGatewayId! },
  answer: (items) => ({ InternetGateways: items }),
};
