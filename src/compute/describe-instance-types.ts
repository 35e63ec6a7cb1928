/** DescribeInstanceTypes and DescribeInstanceTypeOfferings. */
import { fail, ok, type Result } from "../lib/result.ts";
import { type Config, zonesOf } from "../model/config.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import type { Call, Describe } from "../model/operation.ts";
import { memoView } from "../model/view.ts";
import { zoneId } from "../model/zones.ts";
import type {
  _InstanceType,
  DescribeInstanceTypeOfferingsRequest,
  DescribeInstanceTypeOfferingsResult,
  DescribeInstanceTypesRequest,
  DescribeInstanceTypesResult,
  InstanceTypeInfo,
  InstanceTypeOffering,
} from "../schema/ec2/types.ts";
import { defaultCpuOptions, type InstanceType, instanceTypes, VOLUMES_PER_INSTANCE_MAX } from "./instance-types.ts";

/** The wire's enumeration is open: Hive and its operator add names of their own. */
export const typeName = (name: string): _InstanceType => name as _InstanceType;

const oneTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);
/** True of what runs here, whatever the type's name promises elsewhere. */
const NETWORK_PERFORMANCE = "Shared with the host";

const viewType = memoView((type: InstanceType): InstanceTypeInfo => {
  const { coreCount, threadsPerCore } = defaultCpuOptions(type);
  return {
    InstanceType: typeName(type.name),
    CurrentGeneration: type.currentGeneration,
    FreeTierEligible: false,
    SupportedUsageClasses: ["on-demand"],
    SupportedRootDeviceTypes: ["ebs"],
    SupportedVirtualizationTypes: ["hvm"],
    BareMetal: false,
    Hypervisor: type.hypervisor,
    ProcessorInfo: { SupportedArchitectures: ["x86_64"] },
    VCpuInfo: {
      DefaultVCpus: type.vcpus,
      DefaultCores: coreCount,
      DefaultThreadsPerCore: threadsPerCore,
      ...(type.hypervisor === "nitro" && {
        ValidCores: oneTo(coreCount),
        ValidThreadsPerCore: oneTo(threadsPerCore),
      }),
    },
    MemoryInfo: { SizeInMiB: type.memoryMib },
    InstanceStorageSupported: false,
    EbsInfo: {
      EbsOptimizedSupport: type.hypervisor === "nitro" ? "default" : "unsupported",
      EncryptionSupport: "unsupported",
      NvmeSupport: "unsupported",
      MaximumEbsAttachments: VOLUMES_PER_INSTANCE_MAX,
      AttachmentLimitType: "dedicated",
    },
    NetworkInfo: {
      NetworkPerformance: NETWORK_PERFORMANCE,
      MaximumNetworkInterfaces: type.maximumNetworkInterfaces,
      MaximumNetworkCards: 1,
      DefaultNetworkCardIndex: 0,
      NetworkCards: [
        {
          NetworkCardIndex: 0,
          NetworkPerformance: NETWORK_PERFORMANCE,
          MaximumNetworkInterfaces: type.maximumNetworkInterfaces,
        },
      ],
      Ipv4AddressesPerInterface: type.ipv4AddressesPerInterface,
      Ipv6AddressesPerInterface: 0,
      Ipv6Supported: false,
      EnaSupport: "unsupported",
      EfaSupported: false,
      EncryptionInTransitSupported: false,
      EnaSrdSupported: false,
    },
    PlacementGroupInfo: { SupportedStrategies: [] },
    HibernationSupported: false,
    BurstablePerformanceSupported: type.burstable,
    DedicatedHostsSupported: false,
    AutoRecoverySupported: true,
    SupportedBootModes: ["legacy-bios", "uefi"],
    NitroEnclavesSupport: "unsupported",
    NitroTpmSupport: "unsupported",
    PhcSupport: "unsupported",
  };
});

function namedTypes(config: Config, names: readonly string[] | undefined): Result<InstanceTypeInfo[], AwsError> {
  const types = instanceTypes(config);
  if (!names?.length) return ok([...types.values()].map((type) => viewType(type)));
  const missing = names.filter((name) => !types.has(name));
  if (missing.length > 0)
    return fail(
      awsError(
        "InvalidInstanceType",
        `The following supplied instance types do not exist: [${[...new Set(missing)].join(", ")}]`,
      ),
    );
  return ok([...new Set(names)].map((name) => viewType(types.get(name)!)));
}

export const describeInstanceTypes: Describe<
  DescribeInstanceTypesRequest,
  DescribeInstanceTypesResult,
  InstanceTypeInfo
> = {
  kind: "describe",
  list: (input, call) => namedTypes(call.config, input.InstanceTypes),
  filters: {
    "memory-info.size-in-mib": (type) => type.MemoryInfo?.SizeInMiB,
    "vcpu-info.default-vcpus": (type) => type.VCpuInfo?.DefaultVCpus,
    "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps": (type) =>
      type.EbsInfo?.EbsOptimizedInfo?.BaselineThroughputInMBps,
    "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps": (type) =>
      type.EbsInfo?.EbsOptimizedInfo?.MaximumThroughputInMBps,
  },
  page: { min: 5, max: 100, key: (type) => type.InstanceType! },
  answer: (items) => ({ InstanceTypes: items }),
};

const LOCATION_TYPES = ["region", "availability-zone", "availability-zone-id", "outpost"];

function offerings(input: DescribeInstanceTypeOfferingsRequest, call: Call): Result<InstanceTypeOffering[], AwsError> {
  const by = input.LocationType ?? "region";
  if (!LOCATION_TYPES.includes(by))
    return fail(awsError("InvalidParameterValue", `Value (${by}) for parameter LocationType is invalid.`));
  const zones = zonesOf(call.config);
  const locations =
    by === "region"
      ? [call.region]
      : by === "availability-zone"
        ? zones
        : by === "availability-zone-id"
          ? zones.map((zone) => zoneId(call.region, zones, zone))
          : [];
  return ok(
    [...instanceTypes(call.config).keys()].flatMap((name) =>
      locations.map((Location) => ({ InstanceType: typeName(name), LocationType: by, Location })),
    ),
  );
}

export const describeInstanceTypeOfferings: Describe<
  DescribeInstanceTypeOfferingsRequest,
  DescribeInstanceTypeOfferingsResult,
  InstanceTypeOffering
> = {
  kind: "describe",
  list: offerings,
  page: { min: 5, max: 1000, key: (offering) => `${offering.InstanceType}/${offering.Location}` },
  answer: (items) => ({ InstanceTypeOfferings: items }),
};
