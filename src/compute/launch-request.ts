/** What a RunInstances request asks for, apart from volumes and network: read and checked against one snapshot of state. */
import { fail, ok, type Result } from "../lib/result.ts";
import { zonesOf } from "../model/config.ts";
import {
  type AwsError,
  awsError,
  invalidParameterCombination,
  invalidParameterValue,
  invalidValueFor,
  missingParameter,
} from "../model/errors.ts";
import { idNotFound, parseId } from "../model/ids.ts";
import type { ImageRecord } from "../model/image.ts";
import type { InstanceRecord } from "../model/instance.ts";
import type { Call } from "../model/operation.ts";
import { images, inAccount, keyPairs } from "../model/tables.ts";
import { type Tags, tagsFor } from "../model/tags.ts";
import { zoneId } from "../model/zones.ts";
import type { Placement, RunInstancesRequest } from "../schema/ec2/types.ts";
import { invalidInstanceType, keyPairNotFound, notYet } from "./errors.ts";
import { mayLaunch } from "./image-access.ts";
import {
  changeMetadataOptions,
  cpuOptions,
  defaultMetadataOptions,
  oneOf,
  parseUserData,
  privateDnsNameOptions,
} from "./instance-options.ts";
import { DEFAULT_INSTANCE_TYPE, type InstanceType, instanceType } from "./instance-types.ts";

/** Instances of one request: what fits one transaction with room to spare. */
export const INSTANCES_PER_LAUNCH_MAX = 1000;
/** User data of one request's instances together, in characters: the store takes transactions of at most 8 MiB. */
const USER_DATA_TOTAL_MAX = 4 * 1024 * 1024;

/** The fields of every instance record of the launch, as the request decides them. */
export type InstanceOptions = Pick<
  InstanceRecord,
  | "keyName"
  | "publicKey"
  | "clientToken"
  | "userData"
  | "shutdownBehavior"
  | "disableApiTermination"
  | "disableApiStop"
  | "ebsOptimized"
  | "monitoring"
  | "metadataOptions"
  | "privateDnsNameOptions"
  | "cpuOptions"
  | "placement"
  | "maintenanceAutoRecovery"
>;

export interface LaunchRequest {
  readonly minCount: number;
  readonly maxCount: number;
  readonly image: ImageRecord;
  readonly type: InstanceType;
  /** The zone that is asked for, if any. */
  readonly zone: string | undefined;
  readonly options: InstanceOptions;
  readonly tags: { readonly instance: Tags; readonly volume: Tags; readonly networkInterface: Tags };
}

const TAGGED = ["instance", "volume", "network-interface"] as const;

export function readLaunchRequest(input: RunInstancesRequest, call: Call): Result<LaunchRequest, AwsError> {
  const refused = unsupportedPart(input);
  if (refused) return fail(refused);
  const counts = readCounts(input);
  if (!counts.ok) return counts;
  if (!input.ImageId) return fail(missingParameter("ImageId"));
  const image = findImage(input.ImageId, call);
  if (!image.ok) return image;
  const typeText = input.InstanceType ?? DEFAULT_INSTANCE_TYPE;
  const type = instanceType(call.config, typeText);
  if (!type) return fail(invalidInstanceType(typeText));
  if (image.value.architecture === "arm64")
    return fail(
      invalidParameterValue(
        `The architecture 'x86_64' of the specified instance type does not match the architecture 'arm64' of the specified AMI.`,
      ),
    );
  const zone = readZone(input.Placement, call);
  if (!zone.ok) return zone;
  const options = readOptions(input, image.value, type, call);
  if (!options.ok) return options;
  if ((options.value.userData?.length ?? 0) * counts.value.maxCount > USER_DATA_TOTAL_MAX)
    return fail(
      awsError(
        "InstanceLimitExceeded",
        "The user data of this many instances is too much for one request; ask for fewer.",
      ),
    );

  const tags = { instance: {}, volume: {}, networkInterface: {} } as {
    -readonly [K in keyof LaunchRequest["tags"]]: Tags;
  };
  for (const [kind, resourceType] of [
    ["instance", "instance"],
    ["volume", "volume"],
    ["networkInterface", "network-interface"],
  ] as const) {
    const found = tagsFor(input.TagSpecifications, resourceType, TAGGED);
    if (!found.ok) return found;
    tags[kind] = found.value;
  }
  return ok({ ...counts.value, image: image.value, type, zone: zone.value, options: options.value, tags });
}

/** What EC2 has and Hive has not: refused, never ignored. */
function unsupportedPart(input: RunInstancesRequest): AwsError | undefined {
  if (input.LaunchTemplate) return notYet("A launch template");
  if (input.InstanceMarketOptions) return notYet("A market option (Spot or Capacity Blocks)");
  if (input.HibernationOptions?.Configured) return notYet("Hibernation");
  if (input.EnclaveOptions?.Enabled) return notYet("AWS Nitro Enclaves");
  if (input.ElasticGpuSpecification?.length) return notYet("An Elastic GPU");
  if (input.ElasticInferenceAccelerators?.length) return notYet("An Elastic Inference accelerator");
  if (input.LicenseSpecifications?.length) return notYet("A license configuration");
  if (input.IamInstanceProfile) return notYet("An IAM instance profile");
  if (input.KernelId !== undefined || input.RamdiskId !== undefined) return notYet("A paravirtual kernel or RAM disk");
  if (input.EnablePrimaryIpv6) return notYet("An IPv6 address");
  if (input.SecondaryInterfaces?.length) return notYet("A secondary interface");
  if (input.Operator) return notYet("A service-managed instance");
  const bandwidth = input.NetworkPerformanceOptions?.BandwidthWeighting;
  if (bandwidth !== undefined && bandwidth !== "default") return notYet("A bandwidth weighting");
  const reservation = input.CapacityReservationSpecification;
  if (
    reservation?.CapacityReservationTarget ||
    reservation?.CapacityReservationPreference === "capacity-reservations-only"
  )
    return notYet("A Capacity Reservation");
  return undefined;
}

function readCounts(input: RunInstancesRequest): Result<{ minCount: number; maxCount: number }, AwsError> {
  const { MinCount: minCount, MaxCount: maxCount } = input;
  if (minCount === undefined) return fail(missingParameter("MinCount"));
  if (maxCount === undefined) return fail(missingParameter("MaxCount"));
  if (!Number.isInteger(minCount) || minCount < 1)
    return fail(invalidValueFor("minCount", String(minCount), "It must be greater than or equal to 1."));
  if (!Number.isInteger(maxCount) || maxCount < minCount)
    return fail(invalidValueFor("maxCount", String(maxCount), "It must be greater than or equal to minCount."));
  if (minCount > INSTANCES_PER_LAUNCH_MAX)
    return fail(
      awsError(
        "InstanceLimitExceeded",
        `You have requested more instances (${minCount}) than one request can launch (${INSTANCES_PER_LAUNCH_MAX}).`,
      ),
    );
  return ok({ minCount, maxCount: Math.min(maxCount, INSTANCES_PER_LAUNCH_MAX) });
}

function findImage(id: string, call: Call): Result<ImageRecord, AwsError> {
  const parsed = parseId("Image", id);
  if (!parsed.ok) return parsed;
  const image = call.state.get(images, id);
  if (!image || image.region !== call.region || !mayLaunch(image, call.accountId)) return fail(idNotFound("Image", id));
  if (image.state === "deregistered")
    return fail(awsError("InvalidAMIID.Unavailable", `The image ID '${id}' is no longer available`));
  return ok(image);
}

/** The zone by name or id. Errors: InvalidParameterValue, UnsupportedOperation. */
function readZone(placement: Placement | undefined, call: Call): Result<string | undefined, AwsError> {
  if (!placement) return ok(undefined);
  if (placement.GroupName || placement.GroupId || placement.PartitionNumber !== undefined || placement.SpreadDomain)
    return fail(notYet("A placement group"));
  if (placement.HostId || placement.HostResourceGroupArn || placement.Affinity) return fail(notYet("A Dedicated Host"));
  const zones = zonesOf(call.config);
  const byId = placement.AvailabilityZoneId;
  const named = placement.AvailabilityZone || zones.find((zone) => byId && zoneId(call.region, zones, zone) === byId);
  if (placement.AvailabilityZone && byId && zoneId(call.region, zones, placement.AvailabilityZone) !== byId)
    return fail(
      invalidParameterCombination("The parameters AvailabilityZone and AvailabilityZoneId name different zones."),
    );
  const asked = placement.AvailabilityZone || byId;
  if (asked && (!named || !zones.includes(named)))
    return fail(invalidParameterValue(`Invalid availability zone: [${asked}]`));
  return ok(named || undefined);
}

function readOptions(
  input: RunInstancesRequest,
  image: ImageRecord,
  type: InstanceType,
  call: Call,
): Result<InstanceOptions, AwsError> {
  const [pair] =
    input.KeyName === undefined
      ? []
      : call.state.lookup(keyPairs, "byName", `${inAccount(call.accountId, call.region)}/${input.KeyName}`);
  if (input.KeyName !== undefined && !pair) return fail(keyPairNotFound(input.KeyName));
  const userData = parseUserData(input.UserData);
  if (!userData.ok) return userData;
  const shutdownBehavior = oneOf(
    "InstanceInitiatedShutdownBehavior",
    input.InstanceInitiatedShutdownBehavior ?? "stop",
    ["stop", "terminate"],
  );
  if (!shutdownBehavior.ok) return shutdownBehavior;
  const tenancy = oneOf("Tenancy", input.Placement?.Tenancy ?? "default", ["default", "dedicated", "host"]);
  if (!tenancy.ok) return tenancy;
  if (tenancy.value !== "default") return fail(notYet(`Tenancy '${tenancy.value}'`));
  if (input.EbsOptimized && type.hypervisor === "xen")
    return fail(
      invalidParameterCombination(`EBS-optimized instances are not supported for instance type ${type.name}.`),
    );
  const credits = readCredits(input, type);
  if (!credits.ok) return credits;
  const metadataOptions = changeMetadataOptions(defaultMetadataOptions(image.imdsSupport), input.MetadataOptions ?? {});
  if (!metadataOptions.ok) return metadataOptions;
  const cpu = cpuOptions(type, input.CpuOptions);
  if (!cpu.ok) return cpu;
  const names = privateDnsNameOptions(
    { hostnameType: "ip-name", enableResourceNameDnsARecord: false, enableResourceNameDnsAAAARecord: false },
    input.PrivateDnsNameOptions,
  );
  if (!names.ok) return names;
  const recovery = oneOf("AutoRecovery", input.MaintenanceOptions?.AutoRecovery ?? "default", ["default", "disabled"]);
  if (!recovery.ok) return recovery;
  return ok({
    ...(pair && { keyName: pair.name, publicKey: pair.publicKey }),
    ...(input.ClientToken !== undefined && { clientToken: input.ClientToken }),
    ...(userData.value !== undefined && { userData: userData.value }),
    shutdownBehavior: shutdownBehavior.value,
    disableApiTermination: input.DisableApiTermination ?? false,
    disableApiStop: input.DisableApiStop ?? false,
    ebsOptimized: input.EbsOptimized ?? false,
    monitoring: input.Monitoring?.Enabled ?? false,
    metadataOptions: metadataOptions.value,
    privateDnsNameOptions: names.value,
    cpuOptions: cpu.value,
    placement: { tenancy: "default" },
    maintenanceAutoRecovery: recovery.value,
  });
}

/** Credits are accepted where AWS accepts them. Hive's vCPUs never slow down for want of any, so none are counted. */
function readCredits(input: RunInstancesRequest, type: InstanceType): Result<undefined, AwsError> {
  const asked = input.CreditSpecification?.CpuCredits;
  if (asked === undefined) return ok(undefined);
  const known = oneOf("CpuCredits", asked, ["standard", "unlimited"]);
  if (!known.ok) return known;
  return type.burstable
    ? ok(undefined)
    : fail(invalidParameterCombination(`The ${type.name} instance type does not support CreditSpecification.`));
}
