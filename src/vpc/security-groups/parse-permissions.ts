/**
 * Reads the permissions of an Authorize, Revoke or UpdateDescriptions call: `IpPermissions` with many ranges each, or the
 * older flat parameters. One RuleSpec for each peer.
 * https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AuthorizeSecurityGroupIngress.html
 */
import { fail, ok, type Result } from "../../lib/result.ts";
import {
  type AwsError,
  invalidParameterCombination,
  invalidParameterValue,
  unsupportedOperation,
} from "../../model/errors.ts";
import { idNotFound, parseId } from "../../model/ids.ts";
import { formatCidr, parseCidr } from "../../model/ipv4.ts";
import { canonicalIpv6Cidr } from "../../model/ipv6.ts";
import type { SecurityGroupRecord } from "../../model/network.ts";
import { securityGroups, vpcs } from "../../model/tables.ts";
import type { IpPermission, UserIdGroupPair } from "../../schema/ec2/types.ts";
import { differentNetworks } from "../network-interface-attributes.ts";
import { getOwned, type Scope } from "../owned.ts";
import * as refuse from "./errors.ts";
import { type RulePeer, type RuleSpec, ruleKey } from "./rule.ts";

/** The permissions of a request, in either form. */
export interface PermissionsInput {
  readonly IpPermissions?: readonly IpPermission[] | undefined;
  readonly IpProtocol?: string | undefined;
  readonly FromPort?: number | undefined;
  readonly ToPort?: number | undefined;
  readonly CidrIp?: string | undefined;
  readonly SourceSecurityGroupName?: string | undefined;
  readonly SourceSecurityGroupOwnerId?: string | undefined;
}

type Ports = { readonly protocol: string; readonly fromPort: number; readonly toPort: number };

const PROTOCOLS: { readonly [text: string]: string } = {
  all: "-1",
  "1": "icmp",
  "6": "tcp",
  "17": "udp",
  "58": "icmpv6",
};

/** `tcp`, `udp`, `icmp`, `icmpv6`, `-1`, or the number of another IP protocol. */
export function parseProtocol(text: string | undefined): Result<string, AwsError> {
  if (text === undefined || text === "")
    return fail(
      invalidParameterValue(
        "Invalid value 'null' for protocol. VPC security group rules must specify protocols explicitly.",
      ),
    );
  const name = text.toLowerCase();
  if (["tcp", "udp", "icmp", "icmpv6", "-1"].includes(name)) return ok(name);
  if (Object.hasOwn(PROTOCOLS, name)) return ok(PROTOCOLS[name]!);
  if (/^(0|[1-9]\d{0,2})$/.test(name) && Number(name) <= 255) return ok(name);
  return fail(invalidParameterValue(`Invalid value '${text}' for IP protocol. Unknown protocol.`));
}

/** Checks protocol and ports together. Protocols without ports ignore what is given for them, as on EC2. */
export function parsePorts(
  protocolText: string | undefined,
  from: number | undefined,
  to: number | undefined,
): Result<Ports, AwsError> {
  const parsed = parseProtocol(protocolText);
  if (!parsed.ok) return parsed;
  const protocol = parsed.value;
  switch (protocol) {
    case "tcp":
    case "udp": {
      if (from === undefined && to === undefined) return fail(portsMissing("TCP/UDP"));
      // A port that is left out counts as -1, which is no port.
      const [fromPort, toPort] = [from ?? -1, to ?? -1];
      for (const port of [fromPort, toPort])
        if (!(Number.isInteger(port) && port >= 0 && port <= 65535))
          return fail(refuse.ruleMalformed(`TCP/UDP port (${port}) out of range`));
      if (fromPort > toPort) return fail(invalidParameterValue(`Invalid TCP/UDP port range (${fromPort}:${toPort})`));
      return ok({ protocol, fromPort, toPort });
    }
    case "icmp":
    case "icmpv6": {
      if (protocol === "icmp" && (from === undefined || to === undefined)) return fail(portsMissing("ICMP"));
      const [fromPort, toPort] = [from ?? -1, to ?? -1];
      for (const [noun, value] of [
        ["type", fromPort],
        ["code", toPort],
      ] as const)
        if (!(Number.isInteger(value) && value >= -1 && value <= 255))
          return fail(refuse.ruleMalformed(`ICMP ${noun} (${value}) out of range`));
      if (fromPort === -1 && toPort !== -1)
        return fail(refuse.ruleMalformed("ICMP code must be -1 when the ICMP type is -1"));
      return ok({ protocol, fromPort, toPort });
    }
    default:
      return ok({ protocol, fromPort: -1, toPort: -1 });
  }
}

const portsMissing = (what: string): AwsError =>
  invalidParameterValue(`Invalid value 'Must specify both from and to ports with ${what}.' for portRange.`);

export function parseDescription(text: string | undefined): Result<string | undefined, AwsError> {
  if (text === undefined || text === "") return ok(undefined);
  return text.length <= refuse.TEXT_LENGTH_MAX && refuse.TEXT_CHARACTERS.test(text)
    ? ok(text)
    : fail(refuse.ruleDescriptionInvalid());
}

/** Host bits are cleared, as EC2 does. */
export function parseIpv4Peer(text: string | undefined): Result<RulePeer, AwsError> {
  const cidr = parseCidr(text ?? "");
  return cidr.ok ? ok({ kind: "ipv4", cidr: formatCidr(cidr.value) }) : fail(refuse.cidrMalformed(text ?? ""));
}

export function parseIpv6Peer(text: string | undefined): Result<RulePeer, AwsError> {
  const cidr = canonicalIpv6Cidr(text ?? "");
  return cidr === undefined ? fail(refuse.cidrMalformed(text ?? "")) : ok({ kind: "ipv6", cidr });
}

/** A group as peer: by id in the same VPC, or by name when the group is in the default VPC. */
export function parseGroupPeer(
  scope: Scope,
  group: SecurityGroupRecord,
  pair: UserIdGroupPair,
): Result<RulePeer, AwsError> {
  if (pair.VpcPeeringConnectionId !== undefined)
    return fail(unsupportedOperation("Hive has no VPC peering connections yet."));
  const peer = findPeer(scope, group, pair);
  if (!peer.ok) return peer;
  if (pair.UserId !== undefined && pair.UserId !== peer.value.accountId)
    return fail(idNotFound("SecurityGroup", peer.value.id));
  if (peer.value.vpcId !== group.vpcId) return fail(differentNetworks());
  return ok({ kind: "group", groupId: peer.value.id, accountId: peer.value.accountId });
}

function findPeer(
  scope: Scope,
  group: SecurityGroupRecord,
  { GroupId: id, GroupName: name }: UserIdGroupPair,
): Result<SecurityGroupRecord, AwsError> {
  if (id !== undefined) {
    const parsed = parseId("SecurityGroup", id);
    if (!parsed.ok) return parsed;
    const found = getOwned(scope, securityGroups, id);
    return found ? ok(found) : fail(idNotFound("SecurityGroup", id));
  }
  if (name === undefined) return fail(refuse.sourceMissing());
  const isDefault = scope.state.get(vpcs, group.vpcId)?.isDefault ?? false;
  const [found] = isDefault ? scope.state.lookup(securityGroups, "byName", `${group.vpcId}/${name}`) : [];
  return found ? ok(found) : fail(refuse.groupNameNotFound(name, isDefault ? group.vpcId : "none"));
}

/** The peers of one permission, with what each says of itself. */
function* peersOf(
  scope: Scope,
  group: SecurityGroupRecord,
  permission: IpPermission,
): Generator<{ readonly peer: Result<RulePeer, AwsError>; readonly description: string | undefined }> {
  for (const range of permission.IpRanges ?? [])
    yield { peer: parseIpv4Peer(range.CidrIp), description: range.Description };
  for (const range of permission.Ipv6Ranges ?? [])
    yield { peer: parseIpv6Peer(range.CidrIpv6), description: range.Description };
  for (const pair of permission.UserIdGroupPairs ?? [])
    yield { peer: parseGroupPeer(scope, group, pair), description: pair.Description };
  for (const list of permission.PrefixListIds ?? [])
    yield { peer: fail(refuse.prefixListNotFound(list.PrefixListId ?? "")), description: list.Description };
}

/** The flat parameters as permissions; undefined when none is given. */
function flatPermissions(input: PermissionsInput): readonly IpPermission[] | undefined {
  const { IpProtocol, FromPort, ToPort, CidrIp, SourceSecurityGroupName: name } = input;
  if (name !== undefined) {
    const UserIdGroupPairs = [{ GroupName: name, UserId: input.SourceSecurityGroupOwnerId }];
    if (IpProtocol !== undefined) return [{ IpProtocol, FromPort, ToPort, UserIdGroupPairs }];
    // A source group alone grants every port of TCP and UDP, and ICMP.
    return [
      { IpProtocol: "tcp", FromPort: 0, ToPort: 65535, UserIdGroupPairs },
      { IpProtocol: "udp", FromPort: 0, ToPort: 65535, UserIdGroupPairs },
      { IpProtocol: "icmp", FromPort: -1, ToPort: -1, UserIdGroupPairs },
    ];
  }
  if ([IpProtocol, FromPort, ToPort, CidrIp].every((value) => value === undefined)) return undefined;
  return [{ IpProtocol, FromPort, ToPort, IpRanges: CidrIp === undefined ? [] : [{ CidrIp }] }];
}

/** Whether the request names any permissions at all. */
export const hasPermissions = (input: PermissionsInput): boolean =>
  (input.IpPermissions?.length ?? 0) > 0 || flatPermissions(input) !== undefined;

/**
 * The rules that the request speaks of, at least one and each once, for `group`.
 * Errors: MissingParameter, InvalidParameterValue (protocol, ports, CIDR block, description, a rule that comes twice),
 * InvalidPermission.Malformed, InvalidGroup.NotFound, InvalidParameterCombination for both forms at once.
 */
export function parsePermissions(
  scope: Scope,
  group: SecurityGroupRecord,
  input: PermissionsInput,
): Result<RuleSpec[], AwsError> {
  const flat = flatPermissions(input);
  const listed = input.IpPermissions?.length ? input.IpPermissions : undefined;
  if (flat && listed)
    return fail(invalidParameterCombination("IpPermissions cannot be combined with the parameters of a single rule."));
  const permissions = listed ?? flat;
  if (!permissions) return fail(refuse.sourceMissing());
  const rules = new Map<string, RuleSpec>();
  for (const permission of permissions) {
    const ports = parsePorts(permission.IpProtocol, permission.FromPort, permission.ToPort);
    if (!ports.ok) return ports;
    let peers = 0;
    for (const { peer, description: text } of peersOf(scope, group, permission)) {
      peers++;
      if (!peer.ok) return peer;
      const description = parseDescription(text);
      if (!description.ok) return description;
      const rule: RuleSpec = {
        ...ports.value,
        peer: peer.value,
        ...(description.value !== undefined && { description: description.value }),
      };
      const key = ruleKey(rule);
      if (rules.has(key)) return fail(refuse.ruleRepeated());
      rules.set(key, rule);
    }
    if (peers === 0) return fail(refuse.sourceMissing());
  }
  return ok([...rules.values()]);
}
