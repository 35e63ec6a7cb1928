/** DescribeRouteTables. */
import { unreachable } from "../lib/assert.ts";
import { ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import type { InternetGatewayRecord, NetworkInterfaceRecord, RouteRecord, RouteTableRecord } from "../model/network.ts";
import type { Describe } from "../model/operation.ts";
import { internetGateways, networkInterfaces, routeTables, tags } from "../model/tables.ts";
import { tagList } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type { DescribeRouteTablesRequest, DescribeRouteTablesResult, Route, RouteTable } from "../schema/ec2/types.ts";
import { allOwned, getOwned, type Scope } from "./owned.ts";

/** What a route's next hop is now; undefined for `local` and for a target that is gone. */
type Target = InternetGatewayRecord | NetworkInterfaceRecord | undefined;

/** A route whose target is gone, or leads nowhere, is a `blackhole`. */
function viewRoute(route: RouteRecord, vpcId: string, target: Target): Route {
  const base = { DestinationCidrBlock: route.destinationCidrBlock, Origin: route.origin };
  switch (route.target.kind) {
    case "local":
      return { ...base, GatewayId: "local", State: "active" };
    case "internet-gateway":
      return { ...base, GatewayId: route.target.id, State: target?.vpcId === vpcId ? "active" : "blackhole" };
    case "network-interface": {
      const attachment = target && "attachment" in target ? target.attachment : undefined;
      const hop = { ...base, NetworkInterfaceId: route.target.id };
      return attachment
        ? { ...hop, InstanceId: attachment.instanceId, InstanceOwnerId: attachment.instanceOwnerId, State: "active" }
        : { ...hop, State: "blackhole" };
    }
    default:
      return unreachable(route.target);
  }
}

export const viewRouteTable = memoView(
  (table: RouteTableRecord, tagsOf: TagsRecord | undefined, targets: readonly Target[]): RouteTable => ({
    Associations: table.associations.map((association) => ({
      Main: association.main,
      RouteTableAssociationId: association.id,
      RouteTableId: table.id,
      ...(association.subnetId && { SubnetId: association.subnetId }),
      AssociationState: { State: "associated" },
    })),
    PropagatingVgws: [],
    RouteTableId: table.id,
    Routes: table.routes.map((route, i) => viewRoute(route, table.vpcId, targets[i])),
    Tags: tagList(tagsOf),
    VpcId: table.vpcId,
    OwnerId: table.accountId,
  }),
);

function view(table: RouteTableRecord, { state }: Scope): RouteTable {
  const targets = table.routes.map(({ target }): Target => {
    if (target.kind === "internet-gateway") return state.get(internetGateways, target.id);
    return target.kind === "network-interface" ? state.get(networkInterfaces, target.id) : undefined;
  });
  return viewRouteTable(table, state.get(tags, table.id), targets);
}

export const describeRouteTables: Describe<DescribeRouteTablesRequest, DescribeRouteTablesResult, RouteTable> = {
  kind: "describe",
  ids: {
    kind: "RouteTable",
    of: (input) => input.RouteTableIds,
    idOf: (table) => table.RouteTableId!,
    get(id, _input, call) {
      const table = getOwned(call, routeTables, id);
      return table && view(table, call);
    },
  },
  list: (_input, call) => ok(allOwned(call, routeTables).map((table) => view(table, call))),
  filters: {
    "association.gateway-id": (table) => table.Associations?.map((association) => association.GatewayId),
    "association.route-table-association-id": (table) =>
      table.Associations?.map((association) => association.RouteTableAssociationId),
    "association.route-table-id": (table) => table.Associations?.map((association) => association.RouteTableId),
    "association.subnet-id": (table) => table.Associations?.map((association) => association.SubnetId),
    "association.main": (table) => table.Associations?.map((association) => association.Main),
    "route.destination-cidr-block": (table) => table.Routes?.map((route) => route.DestinationCidrBlock),
    "route.destination-ipv6-cidr-block": (table) => table.Routes?.map((route) => route.DestinationIpv6CidrBlock),
    "route.destination-prefix-list-id": (table) => table.Routes?.map((route) => route.DestinationPrefixListId),
    "route.egress-only-internet-gateway-id": (table) => table.Routes?.map((route) => route.EgressOnlyInternetGatewayId),
    "route.gateway-id": (table) => table.Routes?.map((route) => route.GatewayId),
    "route.instance-id": (table) => table.Routes?.map((route) => route.InstanceId),
    "route.nat-gateway-id": (table) => table.Routes?.map((route) => route.NatGatewayId),
    "route.transit-gateway-id": (table) => table.Routes?.map((route) => route.TransitGatewayId),
    "route.origin": (table) => table.Routes?.map((route) => route.Origin),
    "route.state": (table) => table.Routes?.map((route) => route.State),
    "route.vpc-peering-connection-id": (table) => table.Routes?.map((route) => route.VpcPeeringConnectionId),
  },
  page: { min: 5, max: 100, key: (table) => table.RouteTableId! },
  answer: (items) => ({ RouteTables: items }),
};
