/** The resources that can have tags, by the kind that their id names. */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import { type IdKind, idNotFound, kindOfId } from "../model/ids.ts";
import type { Call } from "../model/operation.ts";
import type { AnyTable } from "../model/store.ts";
import {
  dhcpOptions,
  images,
  instances,
  internetGateways,
  keyPairs,
  networkAcls,
  networkInterfaces,
  routeTables,
  securityGroupRules,
  securityGroups,
  snapshots,
  subnets,
  volumes,
  vpcs,
} from "../model/tables.ts";

interface Taggable {
  /** EC2's word, as in TagSpecifications. */
  readonly resourceType: string;
  readonly table: AnyTable;
}

const TAGGABLE: { readonly [kind in IdKind]?: Taggable } = {
  Image: { resourceType: "image", table: images },
  Instance: { resourceType: "instance", table: instances },
  Volume: { resourceType: "volume", table: volumes },
  Snapshot: { resourceType: "snapshot", table: snapshots },
  KeyPair: { resourceType: "key-pair", table: keyPairs },
  Vpc: { resourceType: "vpc", table: vpcs },
  Subnet: { resourceType: "subnet", table: subnets },
  NetworkInterface: { resourceType: "network-interface", table: networkInterfaces },
  SecurityGroup: { resourceType: "security-group", table: securityGroups },
  SecurityGroupRule: { resourceType: "security-group-rule", table: securityGroupRules },
  RouteTable: { resourceType: "route-table", table: routeTables },
  InternetGateway: { resourceType: "internet-gateway", table: internetGateways },
  NetworkAcl: { resourceType: "network-acl", table: networkAcls },
  DhcpOptions: { resourceType: "dhcp-options", table: dhcpOptions },
};

type OwnedRecord = { readonly accountId?: string; readonly ownerId?: string; readonly region?: string };

/** EC2's word for the kind of an existing resource of the caller. Errors: InvalidID, `Invalid….NotFound`. */
export function resourceTypeOf(id: string, call: Call): Result<string, AwsError> {
  const kind = kindOfId(id);
  const taggable = kind && TAGGABLE[kind];
  if (!kind || !taggable) return fail(awsError("InvalidID", `The ID '${id.slice(0, 255)}' is not valid`));
  const record = call.state.get(taggable.table, id) as OwnedRecord | undefined;
  const mine = record && (record.accountId ?? record.ownerId) === call.accountId && record.region === call.region;
  return mine ? ok(taggable.resourceType) : fail(idNotFound(kind, id));
}
