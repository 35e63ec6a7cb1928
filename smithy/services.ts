/** The AWS services whose model Hive carries. One line adds one; its SDK package is a development dependency. */
export type ServiceSource = {
  /** The folder beneath src/schema and the prefix of the generated names: `ec2` gives `Ec2Operations`. */
  readonly name: string;
  /** The SDK package that carries the schema. */
  readonly package: string;
};

export const SERVICES: readonly ServiceSource[] = [
  { name: "ec2", package: "@aws-sdk/client-ec2" },
  { name: "sts", package: "@aws-sdk/client-sts" },
];

/**
 * Input members whose number may have a fraction (Smithy `double` or `float`). The SDK's schema has one number type for all,
 * so that this is stated from the service's API reference; every other number of an input is an integer.
 */
export const FRACTIONAL: readonly string[] = [
  "ec2 ClientData.UploadSize",
  "ec2 FleetLaunchTemplateOverridesRequest.Priority",
  "ec2 FleetLaunchTemplateOverridesRequest.WeightedCapacity",
  "ec2 LaunchTemplateOverrides.Priority",
  "ec2 LaunchTemplateOverrides.WeightedCapacity",
  "ec2 MemoryGiBPerVCpu.Max",
  "ec2 MemoryGiBPerVCpu.Min",
  "ec2 MemoryGiBPerVCpuRequest.Max",
  "ec2 MemoryGiBPerVCpuRequest.Min",
  "ec2 NetworkBandwidthGbps.Max",
  "ec2 NetworkBandwidthGbps.Min",
  "ec2 NetworkBandwidthGbpsRequest.Max",
  "ec2 NetworkBandwidthGbpsRequest.Min",
  "ec2 PriceScheduleSpecification.Price",
  "ec2 ReservationFleetInstanceSpecification.Weight",
  "ec2 ReservedInstanceLimitPrice.Amount",
  "ec2 SpotFleetLaunchSpecification.WeightedCapacity",
  "ec2 SpotFleetRequestConfigData.FulfilledCapacity",
  "ec2 SpotFleetRequestConfigData.OnDemandFulfilledCapacity",
  "ec2 TotalLocalStorageGB.Max",
  "ec2 TotalLocalStorageGB.Min",
  "ec2 TotalLocalStorageGBRequest.Max",
  "ec2 TotalLocalStorageGBRequest.Min",
];

/** Enums that Hive's configuration may extend: open in the types (any string), and not checked on input. */
export const OPEN_ENUMS: readonly string[] = ["ec2 _InstanceType"];
