import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { ACCOUNT, type ComputeWorld, computeWorld, REGION } from "../../test/support/compute-world.ts";
import { unresolvedFilters } from "../gateway/filters.ts";
import { seededRandom } from "../lib/random.ts";
import type { AccountId } from "../model/ids.ts";
import type { Describe } from "../model/operation.ts";
import { networkInterfaces, vpcs } from "../model/tables.ts";
import { decideDefaultVpc, freeNetworkKey } from "./default-vpc.ts";
import { vpcHandlers } from "./handlers.ts";

let world: ComputeWorld;
beforeEach(async () => {
  world = await computeWorld({ config: { zones: ["us-east-1a", "us-east-1b", "us-east-1c"] } });
});
afterEach(() => world.close());

test("every documented filter of every Describe has a meaning", () => {
  const unresolved = Object.entries(vpcHandlers).flatMap(([name, operation]) =>
    operation.kind === "describe"
      ? unresolvedFilters(name, operation as unknown as Describe<object, object, object>).map((f) => `${name} ${f}`)
      : [],
  );
  expect(unresolved).toEqual([]);
});

describe("the default VPC", () => {
  test("is made once", () => {
    const again = decideDefaultVpc(world.store.read(), ACCOUNT, REGION, ["us-east-1a"], seededRandom(2), 0);
    expect(again).toEqual([]);
  });

  test("has a public subnet in each zone, and a gateway that its main route table leads to", async () => {
    const [vpc] = (await world.ok("DescribeVpcs", {})).Vpcs!;
    expect(vpc).toMatchObject({ CidrBlock: "172.31.0.0/16", IsDefault: true, State: "available", OwnerId: ACCOUNT });
    const subnets = (await world.ok("DescribeSubnets", {})).Subnets!;
    expect(subnets.map((s) => `${s.AvailabilityZone} ${s.AvailabilityZoneId} ${s.CidrBlock}`).sort()).toEqual([
      "us-east-1a use1-az1 172.31.0.0/20",
      "us-east-1b use1-az2 172.31.16.0/20",
      "us-east-1c use1-az3 172.31.32.0/20",
    ]);
    for (const subnet of subnets)
      expect(subnet).toMatchObject({ DefaultForAz: true, MapPublicIpOnLaunch: true, AvailableIpAddressCount: 4091 });
    const [gateway] = (await world.ok("DescribeInternetGateways", {})).InternetGateways!;
    expect(gateway!.Attachments).toEqual([{ State: "available" as "attached", VpcId: vpc!.VpcId! }]);
    const [table] = (await world.ok("DescribeRouteTables", {})).RouteTables!;
    expect(table!.Associations).toMatchObject([{ Main: true }]);
    expect(table!.Routes).toEqual([
      { DestinationCidrBlock: "172.31.0.0/16", GatewayId: "local", Origin: "CreateRouteTable", State: "active" },
      {
        DestinationCidrBlock: "0.0.0.0/0",
        GatewayId: gateway!.InternetGatewayId!,
        Origin: "CreateRoute",
        State: "active",
      },
    ]);
  });

  test("has a group whose members reach each other, an ACL that allows all, and AWS's DHCP options", async () => {
    const [group] = (await world.ok("DescribeSecurityGroups", {})).SecurityGroups!;
    expect(group).toMatchObject({
      GroupName: "default",
      Description: "default VPC security group",
      IpPermissions: [
        { IpProtocol: "-1", UserIdGroupPairs: [{ GroupId: group!.GroupId!, UserId: ACCOUNT }], IpRanges: [] },
      ],
      IpPermissionsEgress: [{ IpProtocol: "-1", IpRanges: [{ CidrIp: "0.0.0.0/0" }] }],
    });
    const [acl] = (await world.ok("DescribeNetworkAcls", {})).NetworkAcls!;
    expect(acl!.IsDefault).toBe(true);
    expect(acl!.Associations).toHaveLength(3);
    expect(acl!.Entries!.map((e) => `${e.Egress} ${e.RuleNumber} ${e.RuleAction}`)).toEqual([
      "true 100 allow",
      "true 32767 deny",
      "false 100 allow",
      "false 32767 deny",
    ]);
    const [set] = (await world.ok("DescribeDhcpOptions", {})).DhcpOptions!;
    expect(set!.DhcpConfigurations).toEqual([
      { Key: "domain-name", Values: [{ Value: "ec2.internal" }] },
      { Key: "domain-name-servers", Values: [{ Value: "AmazonProvidedDNS" }] },
    ]);
  });

  test("each VPC of the cluster has a network key of its own, the lowest that is free", async () => {
    const other = "999999999999" as AccountId;
    expect(freeNetworkKey(world.store.read())).toBe(2);
    await world.write(decideDefaultVpc(world.store.read(), other, REGION, ["us-east-1a"], seededRandom(3), 0));
    expect(
      world.store
        .read()
        .all(vpcs)
        .map((vpc) => vpc.networkKey)
        .sort(),
    ).toEqual([1, 2]);
  });

  test("more than sixteen zones share it in smaller subnets", async () => {
    const zones = Array.from({ length: 26 }, (_, i) => `us-east-1${String.fromCharCode(97 + i)}`);
    const wide = await computeWorld({ config: { zones } });
    const blocks = (await wide.ok("DescribeSubnets", {})).Subnets!.map((subnet) => subnet.CidrBlock!);
    expect(new Set(blocks).size).toBe(26);
    expect(blocks).toContain("172.31.200.0/21");
    await wide.close();
  });

  test("CreateDefaultVpc makes it for an account without one, and refuses a second", async () => {
    const other = "999999999999" as AccountId;
    const made = await world.ok("CreateDefaultVpc", {}, other);
    expect(made.Vpc).toMatchObject({ IsDefault: true, OwnerId: other });
    expect((await world.ok("DescribeSubnets", {}, other)).Subnets).toHaveLength(3);
    expect(await world.refusal("CreateDefaultVpc", {}, other)).toStartWith("DefaultVpcAlreadyExists: ");
  });
});

describe("accounts", () => {
  test("do not see each other's networks", async () => {
    const other = "999999999999" as AccountId;
    const VpcId = world.store.read().all(vpcs)[0]!.id;
    expect((await world.ok("DescribeVpcs", {}, other)).Vpcs).toEqual([]);
    expect(await world.refusal("DescribeVpcs", { VpcIds: [VpcId] }, other)).toBe(
      `InvalidVpcID.NotFound: The vpc ID '${VpcId}' does not exist`,
    );
    expect(await world.refusal("DescribeVpcAttribute", { VpcId, Attribute: "enableDnsSupport" }, other)).toStartWith(
      "InvalidVpcID.NotFound: ",
    );
  });
});

test("DescribeVpcAttribute answers the attribute that is asked for", async () => {
  const VpcId = world.store.read().all(vpcs)[0]!.id;
  expect(await world.ok("DescribeVpcAttribute", { VpcId, Attribute: "enableDnsHostnames" })).toEqual({
    VpcId,
    EnableDnsHostnames: { Value: true },
  });
});

describe("network interfaces", () => {
  test("an instance's interface is in use, and takes an address of its subnet", async () => {
    const [instanceId] = await world.launch();
    const [eni] = (await world.ok("DescribeNetworkInterfaces", {})).NetworkInterfaces!;
    expect(eni).toMatchObject({
      Status: "in-use",
      Attachment: { InstanceId: instanceId!, DeviceIndex: 0, Status: "attached" },
      InterfaceType: "interface",
      SourceDestCheck: true,
      Groups: [{ GroupName: "default" }],
    });
    expect(eni!.PrivateDnsName).toBe(`ip-${eni!.PrivateIpAddress!.replaceAll(".", "-")}.ec2.internal`);
    const [subnet] = (await world.ok("DescribeSubnets", { SubnetIds: [eni!.SubnetId!] })).Subnets!;
    expect(subnet!.AvailableIpAddressCount).toBe(4090);
    for (const [Name, value] of [
      ["attachment.instance-id", instanceId!],
      ["attachment.device-index", "0"],
      ["addresses.private-ip-address", eni!.PrivateIpAddress!],
      ["private-ip-address", eni!.PrivateIpAddress!],
      ["mac-address", eni!.MacAddress!],
      ["group-id", eni!.Groups![0]!.GroupId!],
      ["subnet-id", eni!.SubnetId!],
      ["availability-zone", "us-east-1a"],
      ["status", "in-use"],
      ["association.public-ip", eni!.Association!.PublicIp!],
    ] as const)
      expect(
        (await world.ok("DescribeNetworkInterfaces", { Filters: [{ Name, Values: [value] }] })).NetworkInterfaces,
      ).toEqual([eni!]);
  });

  test("attributes change one at a time, and are read back", async () => {
    await world.launch();
    const NetworkInterfaceId = world.store.read().all(networkInterfaces)[0]!.id;
    const modify = (input: object) => world.ok("ModifyNetworkInterfaceAttribute", { NetworkInterfaceId, ...input });
    await modify({ SourceDestCheck: { Value: false } });
    await modify({ Description: { Value: "mine" } });
    const AttachmentId = world.store.read().all(networkInterfaces)[0]!.attachment!.id;
    await modify({ Attachment: { AttachmentId, DeleteOnTermination: false } });
    const read = (Attribute: "sourceDestCheck" | "description" | "attachment" | "groupSet") =>
      world.ok("DescribeNetworkInterfaceAttribute", { NetworkInterfaceId, Attribute });
    expect((await read("sourceDestCheck")).SourceDestCheck).toEqual({ Value: false });
    expect((await read("description")).Description).toEqual({ Value: "mine" });
    expect((await read("attachment")).Attachment).toMatchObject({ DeleteOnTermination: false });
    expect((await read("groupSet")).Groups).toMatchObject([{ GroupName: "default" }]);
    const refuse = (input: object) =>
      world.refusal("ModifyNetworkInterfaceAttribute", { NetworkInterfaceId, ...input });
    expect(await refuse({ Description: { Value: "" }, SourceDestCheck: { Value: true } })).toStartWith(
      "InvalidParameterCombination: ",
    );
    expect(await refuse({})).toStartWith("MissingParameter: ");
    expect(await refuse({ Groups: ["sg-00000000"] })).toStartWith("InvalidGroup.NotFound: ");
    expect(await refuse({ EnablePrimaryIpv6: true })).toStartWith("UnsupportedOperation: ");
  });
});
