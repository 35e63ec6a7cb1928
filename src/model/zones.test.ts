import { expect, test } from "bun:test";
import { internalDomain, ipName, publicDnsName } from "./dns-names.ts";
import { regionAbbreviation, zoneId } from "./zones.ts";

test.each([
  ["us-east-1", "use1"],
  ["eu-central-1", "euc1"],
  ["ap-southeast-2", "apse2"],
  ["us-gov-west-1", "usgw1"],
  ["il-central-1", "ilc1"],
])("AWS shortens %s to %s", (region, short) => {
  expect(regionAbbreviation(region)).toBe(short);
});

test("a zone's id is its place in the region, by its letter when it is not named there", () => {
  const zones = ["us-east-1b", "us-east-1a"];
  expect(zoneId("us-east-1", zones, "us-east-1a")).toBe("use1-az2");
  expect(zoneId("us-east-1", zones, "us-east-1d")).toBe("use1-az4");
});

test("names follow the region, us-east-1 with its older ones", () => {
  expect(internalDomain("us-east-1")).toBe("ec2.internal");
  expect(ipName("eu-west-1", "10.0.0.5")).toBe("ip-10-0-0-5.eu-west-1.compute.internal");
  expect(publicDnsName("us-east-1", "198.18.0.5")).toBe("ec2-198-18-0-5.compute-1.amazonaws.com");
});
