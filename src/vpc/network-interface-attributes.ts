/** DescribeNetworkInterfaceAttribute and ModifyNetworkInterfaceAttribute. */
import { fail, ok, type Result } from "../lib/result.ts";
import {
  type AwsError,
  awsError,
  invalidParameterCombination,
  invalidValueFor,
  missingParameter,
  unsupportedOperation,
} from "../model/errors.ts";
import { idNotFound, parseId } from "../model/ids.ts";
import type { NetworkInterfaceRecord, SecurityGroupRecord } from "../model/network.ts";
import type { Mutation, Query } from "../model/operation.ts";
import { put } from "../model/store.ts";
import { networkInterfaces, securityGroups } from "../model/tables.ts";
import type {
  DescribeNetworkInterfaceAttributeRequest,
  DescribeNetworkInterfaceAttributeResult,
  ModifyNetworkInterfaceAttributeRequest,
  Unit,
} from "../schema/ec2/types.ts";
import { groupIdentifiers, viewAttachment } from "./network-interfaces.ts";
import { findOwned, getOwned, type Scope } from "./owned.ts";

/** AWS's default quota. */
export const GROUPS_PER_INTERFACE_MAX = 5;

/**
 * The groups that an interface in this VPC may have, each once, in the order given.
 * Errors: InvalidGroupId.Malformed, InvalidGroup.NotFound, SecurityGroupsPerInterfaceLimitExceeded, MissingParameter.
 */
export function findGroupsFor(
  scope: Scope,
  vpcId: string,
  groupIds: readonly string[],
): Result<SecurityGroupRecord[], AwsError> {
  const groups: SecurityGroupRecord[] = [];
  for (const id of new Set(groupIds)) {
    const parsed = parseId("SecurityGroup", id);
    if (!parsed.ok) return parsed;
    const group = getOwned(scope, securityGroups, id);
    if (!group) return fail(idNotFound("SecurityGroup", id));
    if (group.vpcId !== vpcId) return fail(differentNetworks());
    groups.push(group);
  }
  if (groups.length === 0) return fail(missingParameter("SecurityGroupId"));
  if (groups.length > GROUPS_PER_INTERFACE_MAX) return fail(tooManyGroups());
  return ok(groups);
}

export const differentNetworks = (): AwsError =>
  awsError("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.");

const tooManyGroups = (): AwsError =>
  awsError(
    "SecurityGroupsPerInterfaceLimitExceeded",
    "The maximum number of security groups per interface has been reached.",
  );

export const describeNetworkInterfaceAttribute: Query<
  DescribeNetworkInterfaceAttributeRequest,
  DescribeNetworkInterfaceAttributeResult
> = {
  kind: "query",
  answer(input, call) {
    const found = findOwned(call, "NetworkInterface", networkInterfaces, input.NetworkInterfaceId);
    if (!found.ok) return found;
    const eni = found.value;
    const NetworkInterfaceId = eni.id;
    switch (input.Attribute) {
      case "description":
        return ok({ NetworkInterfaceId, Description: { Value: eni.description } });
      case "groupSet": {
        const groups = eni.groupIds.map((id) => call.state.get(securityGroups, id));
        return ok({ NetworkInterfaceId, Groups: groupIdentifiers(eni, groups) });
      }
      case "sourceDestCheck":
        return ok({ NetworkInterfaceId, SourceDestCheck: { Value: eni.sourceDestCheck } });
      case "attachment":
        return ok({ NetworkInterfaceId, Attachment: viewAttachment(eni) });
      case "associatePublicIpAddress":
        return ok({ NetworkInterfaceId, AssociatePublicIpAddress: eni.associatePublicIp });
      case undefined:
        return fail(missingParameter("attribute"));
      default:
        return fail(invalidValueFor("attribute", String(input.Attribute), "Unknown attribute."));
    }
  },
};

/** The members of the request that name an attribute; a call changes exactly one. */
const ATTRIBUTES = [
  "Description",
  "SourceDestCheck",
  "Groups",
  "Attachment",
  "EnaSrdSpecification",
  "EnablePrimaryIpv6",
  "ConnectionTrackingSpecification",
  "AssociatePublicIpAddress",
  "AssociatedSubnetIds",
] as const;

/** The interface as the request wants it. Pure. */
function changed(
  scope: Scope,
  eni: NetworkInterfaceRecord,
  input: ModifyNetworkInterfaceAttributeRequest,
): Result<NetworkInterfaceRecord, AwsError> {
  const given = ATTRIBUTES.filter((name) => input[name] !== undefined);
  const [attribute] = given;
  if (attribute === undefined) return fail(missingParameter("attribute"));
  if (given.length > 1)
    return fail(invalidParameterCombination(`Fields for multiple attribute types specified: ${given.join(", ")}`));
  switch (attribute) {
    case "Description":
      return ok({ ...eni, description: input.Description?.Value ?? "" });
    case "SourceDestCheck": {
      const value = input.SourceDestCheck?.Value;
      return value === undefined
        ? fail(missingParameter("SourceDestCheck.Value"))
        : ok({ ...eni, sourceDestCheck: value });
    }
    case "Groups": {
      const groups = findGroupsFor(scope, eni.vpcId, input.Groups ?? []);
      return groups.ok ? ok({ ...eni, groupIds: groups.value.map((group) => group.id) }) : groups;
    }
    case "Attachment": {
      const { AttachmentId: id, DeleteOnTermination: deleteOnTermination } = input.Attachment ?? {};
      if (id === undefined) return fail(missingParameter("attachment.attachmentId"));
      const parsed = parseId("NetworkInterfaceAttachment", id);
      if (!parsed.ok) return parsed;
      if (eni.attachment?.id !== id) return fail(idNotFound("NetworkInterfaceAttachment", id));
      if (deleteOnTermination === undefined) return fail(missingParameter("attachment.deleteOnTermination"));
      return ok({ ...eni, attachment: { ...eni.attachment, deleteOnTermination } });
    }
    default:
      return fail(unsupportedOperation(`Hive does not change the attribute ${attribute} of a network interface.`));
  }
}

export const modifyNetworkInterfaceAttribute: Mutation<ModifyNetworkInterfaceAttributeRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    const found = findOwned(call, "NetworkInterface", networkInterfaces, input.NetworkInterfaceId);
    if (!found.ok) return found;
    const wanted = changed(call, found.value, input);
    return wanted.ok ? ok({ writes: [put(networkInterfaces, wanted.value)], output: {} }) : wanted;
  },
};
