/** DescribeImageAttribute, ModifyImageAttribute and ResetImageAttribute. */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError, invalidParameterCombination, invalidValueFor } from "../model/errors.ts";
import type { AccountId } from "../model/ids.ts";
import type { ImageRecord } from "../model/image.ts";
import type { Mutation, Query } from "../model/operation.ts";
import { put } from "../model/store.ts";
import { images } from "../model/tables.ts";
import type {
  DescribeImageAttributeRequest,
  ImageAttribute,
  LaunchPermission,
  ModifyImageAttributeRequest,
  ResetImageAttributeRequest,
  Unit,
} from "../schema/ec2/types.ts";
import { notYet } from "./errors.ts";
import { findOwnImage, viewImageDevice } from "./image-view.ts";

function readAttribute(name: string, image: ImageRecord): Result<ImageAttribute, AwsError> {
  switch (name) {
    case "description":
      return ok({ Description: { Value: image.description ?? "" } });
    case "launchPermission":
      return ok({
        LaunchPermissions: [
          ...(image.public ? [{ Group: "all" as const }] : []),
          ...image.launchAccounts.map((UserId) => ({ UserId })),
        ],
      });
    case "blockDeviceMapping":
      return ok({ BlockDeviceMappings: image.blockDevices.map(viewImageDevice) });
    case "productCodes":
      return ok({ ProductCodes: [] });
    case "kernel":
      return ok({ KernelId: {} });
    case "ramdisk":
      return ok({ RamdiskId: {} });
    case "sriovNetSupport":
      return ok({ SriovNetSupport: image.sriovNetSupport === undefined ? {} : { Value: image.sriovNetSupport } });
    case "bootMode":
      return ok({ BootMode: image.bootMode === undefined ? {} : { Value: image.bootMode } });
    case "imdsSupport":
      return ok({ ImdsSupport: image.imdsSupport === undefined ? {} : { Value: image.imdsSupport } });
    case "deregistrationProtection":
      return ok({ DeregistrationProtection: { Value: "disabled" } });
    case "tpmSupport":
      return ok({ TpmSupport: {} });
    case "uefiData":
      return ok({ UefiData: {} });
    case "lastLaunchedTime":
      return ok({ LastLaunchedTime: {} });
    default:
      return fail(invalidValueFor("attribute", name, "Unknown attribute."));
  }
}

export const describeImageAttribute: Query<DescribeImageAttributeRequest, ImageAttribute> = {
  kind: "query",
  answer(input, call) {
    const image = findOwnImage(input.ImageId, call);
    if (!image.ok) return image;
    const attribute = readAttribute(input.Attribute, image.value);
    return attribute.ok ? ok({ ...attribute.value, ImageId: image.value.id }) : attribute;
  },
};

/** Accounts in one change, and that an image is shared with. */
const LAUNCH_PERMISSIONS_MAX = 1000;

/** The image with permissions added and removed. Errors: InvalidAMIAttributeItemValue, AMILaunchPermissionsLimitExceeded. */
function changePermissions(
  image: ImageRecord,
  add: readonly LaunchPermission[],
  removed: readonly LaunchPermission[],
): Result<ImageRecord, AwsError> {
  let isPublic = image.public;
  const accounts = new Set<AccountId>(image.launchAccounts);
  for (const [permissions, grant] of [
    [add, true],
    [removed, false],
  ] as const)
    for (const permission of permissions) {
      if (permission.OrganizationArn !== undefined || permission.OrganizationalUnitArn !== undefined)
        return fail(notYet("Sharing an image with an organization"));
      if (permission.Group !== undefined) {
        if (permission.Group !== "all") return fail(invalidItem(permission.Group, "userGroup"));
        isPublic = grant;
      }
      if (permission.UserId !== undefined) {
        if (!/^\d{12}$/.test(permission.UserId)) return fail(invalidItem(permission.UserId, "userId"));
        if (grant) accounts.add(permission.UserId as AccountId);
        else accounts.delete(permission.UserId as AccountId);
      }
    }
  if (accounts.size > LAUNCH_PERMISSIONS_MAX)
    return fail(
      awsError(
        "AMILaunchPermissionsLimitExceeded",
        `An image can be shared with at most ${LAUNCH_PERMISSIONS_MAX} accounts.`,
      ),
    );
  return ok({ ...image, public: isPublic, launchAccounts: [...accounts] });
}

const invalidItem = (value: string, type: string): AwsError =>
  awsError("InvalidAMIAttributeItemValue", `Invalid attribute item value "${value}" for ${type} item type.`);

function withDescription(image: ImageRecord, description: string): Result<ImageRecord, AwsError> {
  return description.length > 255
    ? fail(invalidValueFor("Description", "", "It can have up to 255 characters."))
    : ok({ ...image, description });
}

/** The image as the request wants it; one attribute a call. */
export function modifiedImage(image: ImageRecord, input: ModifyImageAttributeRequest): Result<ImageRecord, AwsError> {
  if (input.ProductCodes?.length) return fail(notYet("A product code"));
  if (input.OrganizationArns?.length || input.OrganizationalUnitArns?.length)
    return fail(notYet("Sharing an image with an organization"));
  const named = input.Attribute;
  const listed = (input.UserIds?.length ?? 0) + (input.UserGroups?.length ?? 0) > 0;
  const asked = [
    input.Description !== undefined || named === "description",
    input.LaunchPermission !== undefined || named === "launchPermission" || (named === undefined && listed),
    input.ImdsSupport !== undefined || named === "imdsSupport",
  ];
  if (asked.filter(Boolean).length > 1)
    return fail(invalidParameterCombination("Fields for multiple attribute types specified"));
  if (asked[0]) return withDescription(image, input.Description?.Value ?? input.Value ?? "");
  if (asked[1]) {
    if (input.LaunchPermission)
      return changePermissions(image, input.LaunchPermission.Add ?? [], input.LaunchPermission.Remove ?? []);
    const permissions: LaunchPermission[] = [
      ...(input.UserIds ?? []).map((UserId) => ({ UserId })),
      ...(input.UserGroups ?? []).map((Group) => ({ Group: Group as "all" })),
    ];
    switch (input.OperationType) {
      case "add":
        return changePermissions(image, permissions, []);
      case "remove":
        return changePermissions(image, [], permissions);
      default:
        return fail(invalidValueFor("operationType", input.OperationType ?? "", "It must be add or remove."));
    }
  }
  if (asked[2]) {
    const value = input.ImdsSupport?.Value ?? input.Value;
    return value === "v2.0" ? ok({ ...image, imdsSupport: value }) : fail(invalidValueFor("imdsSupport", value ?? ""));
  }
  return named === undefined
    ? fail(invalidParameterCombination("No attributes specified."))
    : fail(invalidValueFor("attribute", named, "This attribute cannot be modified."));
}

export const modifyImageAttribute: Mutation<ModifyImageAttributeRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    const image = findOwnImage(input.ImageId, call);
    if (!image.ok) return image;
    const modified = modifiedImage(image.value, input);
    return modified.ok ? ok({ writes: [put(images, modified.value)], output: {} }) : modified;
  },
};

export const resetImageAttribute: Mutation<ResetImageAttributeRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    const image = findOwnImage(input.ImageId, call);
    if (!image.ok) return image;
    if (input.Attribute !== "launchPermission")
      return fail(invalidValueFor("attribute", input.Attribute, "It can be launchPermission."));
    return ok({ writes: [put(images, { ...image.value, public: false, launchAccounts: [] })], output: {} });
  },
};
