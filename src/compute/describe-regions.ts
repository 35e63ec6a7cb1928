/** DescribeRegions, DescribeAvailabilityZones and DescribeAccountAttributes. */
import { fail, ok } from "../lib/result.ts";
import { type Config, zonesOf } from "../model/config.ts";
import { invalidParameterValue, invalidValueFor } from "../model/errors.ts";
import type { Describe, Query } from "../model/operation.ts";
import { vpcs } from "../model/tables.ts";
import { zoneId } from "../model/zones.ts";
import type {
  AccountAttribute,
  AvailabilityZone,
  DescribeAccountAttributesRequest,
  DescribeAccountAttributesResult,
  DescribeAvailabilityZonesRequest,
  DescribeAvailabilityZonesResult,
  DescribeRegionsRequest,
  DescribeRegionsResult,
  Region,
} from "../schema/ec2/types.ts";
import { GROUPS_PER_INTERFACE_MAX } from "./launch-network.ts";
import { INSTANCES_PER_LAUNCH_MAX } from "./launch-request.ts";
import { allOwned } from "./owned.ts";

const regionsOf = (config: Config): Region[] => [
  // The endpoint is Hive's own: AWS's name would lead a client away.
  { RegionName: config.region, Endpoint: config.listen, OptInStatus: "opt-in-not-required" },
];

export const describeRegions: Describe<DescribeRegionsRequest, DescribeRegionsResult, Region> = {
  kind: "describe",
  list(input, call) {
    const all = regionsOf(call.config);
    if (!input.RegionNames?.length) return ok(all);
    const unknown = input.RegionNames.filter((name) => !all.some((region) => region.RegionName === name));
    if (unknown.length > 0) return fail(invalidParameterValue(`Invalid region names: [${unknown.join(", ")}]`));
    return ok(all.filter((region) => input.RegionNames!.includes(region.RegionName!)));
  },
  answer: (items) => ({ Regions: items }),
};

const zoneViews = ({ config, region }: { config: Config; region: string }): AvailabilityZone[] =>
  zonesOf(config).map((zone, _, zones) => ({
    ZoneName: zone,
    ZoneId: zoneId(region, zones, zone),
    RegionName: region,
    State: "available",
    OptInStatus: "opt-in-not-required",
    GroupName: `${region}-zg-1`,
    NetworkBorderGroup: region,
    ZoneType: "availability-zone",
    Messages: [],
  }));

export const describeAvailabilityZones: Describe<
  DescribeAvailabilityZonesRequest,
  DescribeAvailabilityZonesResult,
  AvailabilityZone
> = {
  kind: "describe",
  list(input, call) {
    const all = zoneViews(call);
    const names = input.ZoneNames ?? [];
    const ids = input.ZoneIds ?? [];
    const unknown = [
      ...names.filter((name) => !all.some((zone) => zone.ZoneName === name)),
      ...ids.filter((id) => !all.some((zone) => zone.ZoneId === id)),
    ];
    if (unknown.length > 0) return fail(invalidParameterValue(`Invalid availability zone: [${unknown.join(", ")}]`));
    if (names.length + ids.length === 0) return ok(all);
    return ok(all.filter((zone) => names.includes(zone.ZoneName!) || ids.includes(zone.ZoneId!)));
  },
  answer: (items) => ({ AvailabilityZones: items }),
};

export const describeAccountAttributes: Query<DescribeAccountAttributesRequest, DescribeAccountAttributesResult> = {
  kind: "query",
  answer(input, call) {
    const defaultVpc = allOwned(call, vpcs).find((vpc) => vpc.isDefault)?.id ?? "none";
    const values: { readonly [name: string]: string } = {
      "supported-platforms": "VPC",
      "default-vpc": defaultVpc,
      // What one request can launch: there is no quota besides what the nodes can hold.
      "max-instances": String(INSTANCES_PER_LAUNCH_MAX),
      "vpc-max-security-groups-per-interface": String(GROUPS_PER_INTERFACE_MAX),
      // Elastic IPs are not there yet.
      "max-elastic-ips": "0",
      "vpc-max-elastic-ips": "0",
    };
    const names: readonly string[] = input.AttributeNames?.length ? input.AttributeNames : Object.keys(values);
    const unknown = names.find((name) => !Object.hasOwn(values, name));
    if (unknown !== undefined) return fail(invalidValueFor("attributeName", unknown));
    return ok({
      AccountAttributes: names.map(
        (name): AccountAttribute => ({
          AttributeName: name,
          AttributeValues: [{ AttributeValue: values[name]! }],
        }),
      ),
    });
  },
};
