import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type ComputeWorld, computeWorld, REGION } from "../../../test/support/compute-world.ts";
import { seededRandom } from "../../lib/random.ts";
import type { AccountId, VpcId } from "../../model/ids.ts";
import { put } from "../../model/store.ts";
import { securityGroupRules, securityGroups, vpcs } from "../../model/tables.ts";
import type { IpPermission } from "../../schema/ec2/types.ts";
import { decideDefaultVpc } from "../default-vpc.ts";

let world: ComputeWorld;
let vpcId: string;
beforeEach(async () => {
  world = await computeWorld();
  vpcId = world.store.read().all(vpcs)[0]!.id;
});
afterEach(() => world.close());

const ssh = (...IpRanges: NonNullable<IpPermission["IpRanges"]>): IpPermission => ({
  IpProtocol: "tcp",
  FromPort: 22,
  ToPort: 22,
  IpRanges,
});
const create = async (GroupName: string, VpcId?: string) =>
  (await world.ok("CreateSecurityGroup", { GroupName, Description: "a group", VpcId })).GroupId!;
const shown = async (id: string) => (await world.ok("DescribeSecurityGroups", { GroupIds: [id] })).SecurityGroups![0]!;
const rulesOf = (id: string, egress: boolean) =>
  world.store
    .read()
    .lookup(securityGroupRules, "byGroup", id)
    .filter((rule) => rule.egress === egress);

/** A second VPC that is not the default one, with its own group named `default`. */
async function otherVpc(): Promise<string> {
  const random = seededRandom(99);
  const stranger = "999999999999" as AccountId;
  const writes = decideDefaultVpc(world.store.read(), stranger, REGION, ["us-east-1a"], random, 0);
  const owner = world.store.read().all(vpcs)[0]!.accountId;
  // Handed to the world's account, so that it owns two VPCs.
  await world.write(
    writes.map((write) =>
      write.kind === "put" ? { ...write, record: { ...write.record, accountId: owner, isDefault: false } } : write,
    ),
  );
  return world.store
    .read()
    .all(vpcs)
    .find((vpc) => vpc.id !== vpcId)!.id;
}

describe("CreateSecurityGroup", () => {
  test("a new group is in the default VPC, lets everything out and nothing in", async () => {
    const made = await world.ok("CreateSecurityGroup", {
      GroupName: "web",
      Description: "for the web",
      TagSpecifications: [{ ResourceType: "security-group", Tags: [{ Key: "Name", Value: "w" }] }],
    });
    expect(made.Tags).toEqual([{ Key: "Name", Value: "w" }]);
    expect(await shown(made.GroupId!)).toEqual({
      GroupId: made.GroupId!,
      GroupName: "web",
      Description: "for the web",
      VpcId: vpcId,
      OwnerId: "123456789012",
      SecurityGroupArn: `arn:aws:ec2:us-east-1:123456789012:security-group/${made.GroupId}`,
      Tags: [{ Key: "Name", Value: "w" }],
      IpPermissions: [],
      IpPermissionsEgress: [
        {
          IpProtocol: "-1",
          IpRanges: [{ CidrIp: "0.0.0.0/0" }],
          Ipv6Ranges: [],
          PrefixListIds: [],
          UserIdGroupPairs: [],
        },
      ],
    });
  });

  const wrong: [string, string, string, string][] = [
    [
      "a name like an id",
      "sg-mine",
      "d",
      "InvalidParameterValue: Value (sg-mine) for parameter GroupName is invalid. Group names may not be in the format sg-*.",
    ],
    ["the reserved name", "default", "d", "InvalidParameterValue: Cannot use reserved security group name: default"],
    [
      "a name beyond ASCII",
      "grün",
      "d",
      "InvalidParameterValue: Value (grün) for parameter GroupName is invalid. Character sets beyond ASCII are not supported.",
    ],
    [
      "a description beyond ASCII",
      "g",
      "a → b",
      "InvalidParameterValue: Value (a → b) for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.",
    ],
    [
      "a description with a quote",
      "g",
      "it's",
      "InvalidParameterValue: Invalid security group description. Valid descriptions are strings less than 256 characters from the following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
    ],
    [
      "a name of 256 characters",
      "n".repeat(256),
      "d",
      "InvalidParameterValue: Invalid security group name. Valid names are strings less than 256 characters from the following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
    ],
    ["an empty name", "", "d", "MissingParameter: The request must contain the parameter GroupName"],
  ];
  test.each(wrong)("%s is refused", async (_, GroupName, Description, refusal) => {
    expect(await world.refusal("CreateSecurityGroup", { GroupName, Description })).toBe(refusal);
  });

  test("a name is taken once in a VPC, and free in another", async () => {
    await create("web");
    expect(await world.refusal("CreateSecurityGroup", { GroupName: "web", Description: "d" })).toBe(
      `InvalidGroup.Duplicate: The security group 'web' already exists for VPC '${vpcId}'`,
    );
    expect(await create("web", await otherVpc())).toStartWith("sg-");
  });

  test("without a default VPC, one has to be named", async () => {
    const vpc = world.store.read().get(vpcs, vpcId)!;
    await world.write([put(vpcs, { ...vpc, isDefault: false })]);
    expect(await world.refusal("CreateSecurityGroup", { GroupName: "web", Description: "d" })).toBe(
      "VPCIdNotSpecified: No default VPC for this user",
    );
    expect(await world.refusal("DeleteSecurityGroup", { GroupName: "web" })).toStartWith("VPCIdNotSpecified: ");
    expect(await create("web", vpcId)).toStartWith("sg-");
  });

  test("an unknown and a malformed VPC are told apart", async () => {
    const ask = (VpcId: string) => world.refusal("CreateSecurityGroup", { GroupName: "g", Description: "d", VpcId });
    expect(await ask("vpc-00000000")).toStartWith("InvalidVpcID.NotFound: ");
    expect(await ask("vpc-nonsense")).toStartWith("InvalidVpcID.Malformed: ");
  });
});

describe("AuthorizeSecurityGroupIngress", () => {
  test("a permission with many ranges becomes as many rules, and is shown as one permission", async () => {
    const id = await create("web");
    const other = await create("lb");
    const done = await world.ok("AuthorizeSecurityGroupIngress", {
      GroupId: id,
      IpPermissions: [
        {
          IpProtocol: "6",
          FromPort: 80,
          ToPort: 443,
          IpRanges: [{ CidrIp: "10.1.2.3/8", Description: "inside" }, { CidrIp: "192.0.2.1/32" }],
          Ipv6Ranges: [{ CidrIpv6: "2001:DB8::1:0:0/64" }],
          UserIdGroupPairs: [{ GroupName: "lb", Description: "balancer" }],
        },
        { IpProtocol: "icmp", FromPort: 8, ToPort: -1, IpRanges: [{ CidrIp: "0.0.0.0/0" }] },
      ],
      TagSpecifications: [{ ResourceType: "security-group-rule", Tags: [{ Key: "by", Value: "test" }] }],
    });
    expect(done.Return).toBe(true);
    expect(done.SecurityGroupRules).toHaveLength(5);
    expect(done.SecurityGroupRules![0]).toMatchObject({
      GroupId: id,
      IsEgress: false,
      IpProtocol: "tcp",
      FromPort: 80,
      ToPort: 443,
      CidrIpv4: "10.0.0.0/8",
      Description: "inside",
      Tags: [{ Key: "by", Value: "test" }],
    });
    const pair = { GroupId: other, UserId: "123456789012" };
    expect(done.SecurityGroupRules![3]).toMatchObject({ ReferencedGroupInfo: pair, Description: "balancer" });
    const permissions = (await shown(id)).IpPermissions!;
    expect(permissions).toHaveLength(2);
    const web = permissions.find((permission) => permission.IpProtocol === "tcp")!;
    expect(web).toMatchObject({ FromPort: 80, ToPort: 443 });
    expect(web.IpRanges).toContainEqual({ CidrIp: "10.0.0.0/8", Description: "inside" });
    expect(web.Ipv6Ranges).toEqual([{ CidrIpv6: "2001:db8::/64" }]);
    expect(web.UserIdGroupPairs).toEqual([{ ...pair, Description: "balancer" }]);
  });

  test("the flat form, on a group named in the default VPC, makes one rule", async () => {
    const id = await create("web");
    await world.ok("AuthorizeSecurityGroupIngress", {
      GroupName: "web",
      IpProtocol: "tcp",
      FromPort: 22,
      ToPort: 22,
      CidrIp: "0.0.0.0/0",
    });
    expect(rulesOf(id, false)).toMatchObject([{ protocol: "tcp", fromPort: 22, peer: { cidr: "0.0.0.0/0" } }]);
  });

  test("a source group alone grants TCP, UDP and ICMP", async () => {
    const id = await create("web");
    await world.ok("AuthorizeSecurityGroupIngress", { GroupId: id, SourceSecurityGroupName: "default" });
    expect(
      rulesOf(id, false)
        .map((rule) => `${rule.protocol} ${rule.fromPort} ${rule.toPort}`)
        .sort(),
    ).toEqual(["icmp -1 -1", "tcp 0 65535", "udp 0 65535"]);
  });

  const wrong: [string, IpPermission, string][] = [
    [
      "no protocol",
      { FromPort: 1, ToPort: 2 },
      "InvalidParameterValue: Invalid value 'null' for protocol. VPC security group rules must specify protocols explicitly.",
    ],
    [
      "an unknown protocol",
      { IpProtocol: "carrier-pigeon" },
      "InvalidParameterValue: Invalid value 'carrier-pigeon' for IP protocol. Unknown protocol.",
    ],
    [
      "a protocol above 255",
      { IpProtocol: "256" },
      "InvalidParameterValue: Invalid value '256' for IP protocol. Unknown protocol.",
    ],
    [
      "TCP without ports",
      { IpProtocol: "tcp" },
      "InvalidParameterValue: Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.",
    ],
    [
      "ICMP without type",
      { IpProtocol: "icmp" },
      "InvalidParameterValue: Invalid value 'Must specify both from and to ports with ICMP.' for portRange.",
    ],
    [
      "half a port range",
      { IpProtocol: "tcp", ToPort: 22 },
      "InvalidPermission.Malformed: TCP/UDP port (-1) out of range",
    ],
    [
      "a port too high",
      { IpProtocol: "udp", FromPort: 1, ToPort: 65536 },
      "InvalidPermission.Malformed: TCP/UDP port (65536) out of range",
    ],
    [
      "a range backwards",
      { IpProtocol: "tcp", FromPort: 9, ToPort: 8 },
      "InvalidParameterValue: Invalid TCP/UDP port range (9:8)",
    ],
    [
      "no source",
      ssh(),
      "MissingParameter: Missing source specification: include source security group or CIDR information",
    ],
    ["an address for a block", ssh({ CidrIp: "10.0.0.1" }), "InvalidParameterValue: CIDR block 10.0.0.1 is malformed"],
    [
      "an IPv6 block that is none",
      { IpProtocol: "-1", Ipv6Ranges: [{ CidrIpv6: "::1::/3" }] },
      "InvalidParameterValue: CIDR block ::1::/3 is malformed",
    ],
    [
      "the same twice",
      ssh({ CidrIp: "10.0.0.0/8" }, { CidrIp: "10.9.9.9/8" }),
      "InvalidParameterValue: The same permission must not appear multiple times",
    ],
    [
      "a quote in a description",
      ssh({ CidrIp: "10.0.0.0/8", Description: "it's" }),
      "InvalidParameterValue: Invalid rule description. Valid descriptions are strings less than 256 characters from the following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
    ],
    [
      "a prefix list",
      { IpProtocol: "-1", PrefixListIds: [{ PrefixListId: "pl-1" }] },
      "InvalidPrefixListID.NotFound: The prefix list ID 'pl-1' does not exist",
    ],
    [
      "an unknown group",
      { IpProtocol: "-1", UserIdGroupPairs: [{ GroupId: "sg-00000000" }] },
      "InvalidGroup.NotFound: The security group 'sg-00000000' does not exist.",
    ],
  ];
  test.each(wrong)("%s is refused, and nothing is written", async (_, permission, refusal) => {
    const GroupId = await create("web");
    const before = world.store.read().revision;
    expect(await world.refusal("AuthorizeSecurityGroupIngress", { GroupId, IpPermissions: [permission] })).toBe(
      refusal,
    );
    expect(world.store.read().revision).toBe(before);
  });

  test("a rule that is there already is a duplicate, whatever its description", async () => {
    const GroupId = await create("web");
    await world.ok("AuthorizeSecurityGroupIngress", { GroupId, IpPermissions: [ssh({ CidrIp: "0.0.0.0/0" })] });
    expect(
      await world.refusal("AuthorizeSecurityGroupIngress", {
        GroupId,
        IpPermissions: [ssh({ CidrIp: "10.0.0.0/8" }, { CidrIp: "0.0.0.0/0", Description: "again" })],
      }),
    ).toBe(
      'InvalidPermission.Duplicate: the specified rule "peer: 0.0.0.0/0, TCP, from port: 22, to port: 22, ALLOW" already exists',
    );
    expect(
      await world.refusal("AuthorizeSecurityGroupEgress", {
        GroupId,
        IpPermissions: [{ IpProtocol: "-1", IpRanges: [{ CidrIp: "0.0.0.0/0" }] }],
      }),
    ).toBe('InvalidPermission.Duplicate: the specified rule "peer: 0.0.0.0/0, ALL, ALLOW" already exists');
  });

  test("a group has sixty rules of each direction and address family, and no more", async () => {
    const GroupId = await create("web");
    const ranges = Array.from({ length: 60 }, (_, i) => ({ CidrIp: `10.0.${i}.0/24` }));
    await world.ok("AuthorizeSecurityGroupIngress", { GroupId, IpPermissions: [ssh(...ranges)] });
    await world.ok("AuthorizeSecurityGroupIngress", {
      GroupId,
      IpPermissions: [{ IpProtocol: "-1", Ipv6Ranges: [{ CidrIpv6: "::/0" }] }],
    });
    expect(
      await world.refusal("AuthorizeSecurityGroupIngress", {
        GroupId,
        IpPermissions: [ssh({ CidrIp: "192.0.2.0/24" })],
      }),
    ).toStartWith("RulesPerSecurityGroupLimitExceeded: ");
  });

  test("a group of another VPC is no peer", async () => {
    const GroupId = await create("web");
    const foreign = await create("there", await otherVpc());
    expect(
      await world.refusal("AuthorizeSecurityGroupIngress", {
        GroupId,
        IpPermissions: [{ IpProtocol: "-1", UserIdGroupPairs: [{ GroupId: foreign }] }],
      }),
    ).toBe("InvalidGroup.NotFound: You have specified two resources that belong to different networks.");
  });

  test("another account sees no group of this one", async () => {
    const GroupId = await create("web");
    const stranger = "999999999999" as AccountId;
    expect(
      await world.refusal(
        "AuthorizeSecurityGroupIngress",
        { GroupId, IpPermissions: [ssh({ CidrIp: "0.0.0.0/0" })] },
        stranger,
      ),
    ).toBe(`InvalidGroup.NotFound: The security group '${GroupId}' does not exist.`);
  });
});

describe("RevokeSecurityGroup…", () => {
  test("takes what DescribeSecurityGroups shows, and answers what it revoked", async () => {
    const GroupId = await create("web");
    await world.ok("AuthorizeSecurityGroupIngress", {
      GroupId,
      IpPermissions: [ssh({ CidrIp: "0.0.0.0/0", Description: "all" }, { CidrIp: "10.0.0.0/8" })],
    });
    const group = await shown(GroupId);
    const done = await world.ok("RevokeSecurityGroupIngress", { GroupId, IpPermissions: group.IpPermissions });
    expect(done.RevokedSecurityGroupRules).toHaveLength(2);
    expect(done.UnknownIpPermissions).toBeUndefined();
    await world.ok("RevokeSecurityGroupEgress", { GroupId, IpPermissions: group.IpPermissionsEgress });
    expect([...rulesOf(GroupId, false), ...rulesOf(GroupId, true)]).toEqual([]);
  });

  test("in the default VPC unknown rules are listed and the others revoked; elsewhere nothing is", async () => {
    const GroupId = await create("web");
    const there = await create("web", await otherVpc());
    const IpPermissions = [ssh({ CidrIp: "0.0.0.0/0" })];
    for (const id of [GroupId, there]) await world.ok("AuthorizeSecurityGroupIngress", { GroupId: id, IpPermissions });
    const both = [ssh({ CidrIp: "0.0.0.0/0" }, { CidrIp: "192.0.2.0/24" })];
    const done = await world.ok("RevokeSecurityGroupIngress", { GroupId, IpPermissions: both });
    expect(done.UnknownIpPermissions).toMatchObject([{ IpRanges: [{ CidrIp: "192.0.2.0/24" }] }]);
    expect(rulesOf(GroupId, false)).toEqual([]);
    expect(await world.refusal("RevokeSecurityGroupIngress", { GroupId: there, IpPermissions: both })).toBe(
      "InvalidPermission.NotFound: The specified rule does not exist in this security group.",
    );
    expect(rulesOf(there, false)).toHaveLength(1);
  });

  test("by id, only rules of this group and direction", async () => {
    const GroupId = await create("web");
    const [out] = rulesOf(GroupId, true);
    const SecurityGroupRuleIds = [out!.id];
    expect(await world.refusal("RevokeSecurityGroupIngress", { GroupId, SecurityGroupRuleIds })).toStartWith(
      "InvalidSecurityGroupRuleId.NotFound: ",
    );
    await world.ok("RevokeSecurityGroupEgress", { GroupId, SecurityGroupRuleIds });
    expect(rulesOf(GroupId, true)).toEqual([]);
    expect(await world.refusal("RevokeSecurityGroupEgress", { GroupId, SecurityGroupRuleIds: ["sgr-x"] })).toStartWith(
      "InvalidSecurityGroupRuleId.Malformed: ",
    );
    expect(await world.refusal("RevokeSecurityGroupEgress", { GroupId })).toStartWith("MissingParameter: ");
  });
});

describe("rules", () => {
  test("ModifySecurityGroupRules replaces a rule under its id, and refuses to make two the same", async () => {
    const GroupId = await create("web");
    const made = await world.ok("AuthorizeSecurityGroupIngress", {
      GroupId,
      IpPermissions: [ssh({ CidrIp: "0.0.0.0/0", Description: "old" }, { CidrIp: "10.0.0.0/8" })],
    });
    const [a, b] = made.SecurityGroupRules!.map((rule) => rule.SecurityGroupRuleId!) as [string, string];
    const change = (SecurityGroupRuleId: string, CidrIpv4: string) => ({
      GroupId,
      SecurityGroupRules: [
        { SecurityGroupRuleId, SecurityGroupRule: { IpProtocol: "tcp", FromPort: 22, ToPort: 22, CidrIpv4 } },
      ],
    });
    await world.ok("ModifySecurityGroupRules", change(a, "192.0.2.7/32"));
    const [rule] = (await world.ok("DescribeSecurityGroupRules", { SecurityGroupRuleIds: [a] })).SecurityGroupRules!;
    expect(rule).toMatchObject({ SecurityGroupRuleId: a, CidrIpv4: "192.0.2.7/32" });
    expect(rule).not.toHaveProperty("Description");
    expect(await world.refusal("ModifySecurityGroupRules", change(b, "192.0.2.7/32"))).toStartWith(
      "InvalidPermission.Duplicate: ",
    );
  });

  test("descriptions change by permission and by id, and go when none is given", async () => {
    const GroupId = await create("web");
    const made = await world.ok("AuthorizeSecurityGroupIngress", {
      GroupId,
      IpPermissions: [ssh({ CidrIp: "0.0.0.0/0" })],
    });
    const id = made.SecurityGroupRules![0]!.SecurityGroupRuleId!;
    const description = async () =>
      (await world.ok("DescribeSecurityGroupRules", { SecurityGroupRuleIds: [id] })).SecurityGroupRules![0]!
        .Description;
    await world.ok("UpdateSecurityGroupRuleDescriptionsIngress", {
      GroupId,
      IpPermissions: [ssh({ CidrIp: "0.0.0.0/0", Description: "one" })],
    });
    expect(await description()).toBe("one");
    await world.ok("UpdateSecurityGroupRuleDescriptionsIngress", {
      GroupId,
      SecurityGroupRuleDescriptions: [{ SecurityGroupRuleId: id, Description: "two" }],
    });
    expect(await description()).toBe("two");
    await world.ok("UpdateSecurityGroupRuleDescriptionsIngress", {
      GroupId,
      IpPermissions: [ssh({ CidrIp: "0.0.0.0/0" })],
    });
    expect(await description()).toBeUndefined();
    expect(
      await world.refusal("UpdateSecurityGroupRuleDescriptionsIngress", {
        GroupId,
        IpPermissions: [ssh({ CidrIp: "10.0.0.0/8" })],
      }),
    ).toStartWith("InvalidPermission.NotFound: ");
  });
});

describe("DeleteSecurityGroup", () => {
  test("takes the group's rules with it", async () => {
    const GroupId = await create("web");
    expect(await world.ok("DeleteSecurityGroup", { GroupName: "web" })).toEqual({ Return: true, GroupId });
    expect(world.store.read().lookup(securityGroupRules, "byGroup", GroupId)).toEqual([]);
    expect(await world.refusal("DeleteSecurityGroup", { GroupId })).toBe(
      `InvalidGroup.NotFound: The security group '${GroupId}' does not exist.`,
    );
    expect(await world.refusal("DeleteSecurityGroup", { GroupName: "web" })).toBe(
      `InvalidGroup.NotFound: The security group 'web' does not exist in default VPC '${vpcId}'`,
    );
  });

  test("is refused for the default group", async () => {
    const [group] = world.store.read().lookup(securityGroups, "byName", `${vpcId}/default`);
    expect(await world.refusal("DeleteSecurityGroup", { GroupId: group!.id })).toBe(
      `CannotDelete: the specified group: "${group!.id}" name: "default" cannot be deleted by a user`,
    );
  });

  test("is refused while another group's rule or an interface refers to it; its own rules do not count", async () => {
    const [a, b] = [await create("a"), await create("b")];
    const allow = (GroupId: string, peer: string) =>
      world.ok("AuthorizeSecurityGroupIngress", {
        GroupId,
        IpPermissions: [{ IpProtocol: "-1", UserIdGroupPairs: [{ GroupId: peer }] }],
      });
    await allow(a, a);
    await allow(b, a);
    const inUse = `DependencyViolation: resource ${a} has a dependent object`;
    expect(await world.refusal("DeleteSecurityGroup", { GroupId: a })).toBe(inUse);
    await world.ok("DeleteSecurityGroup", { GroupId: b });
    const [instance] = await world.launch({ SecurityGroupIds: [a] });
    expect(await world.refusal("DeleteSecurityGroup", { GroupId: a })).toBe(inUse);
    const eni = (await world.ok("DescribeNetworkInterfaces", {})).NetworkInterfaces![0]!;
    expect(eni.Attachment!.InstanceId).toBe(instance!);
    const [standard] = world.store.read().lookup(securityGroups, "byName", `${vpcId as VpcId}/default`);
    await world.ok("ModifyNetworkInterfaceAttribute", {
      NetworkInterfaceId: eni.NetworkInterfaceId!,
      Groups: [standard!.id],
    });
    await world.ok("DeleteSecurityGroup", { GroupId: a });
  });
});

describe("DescribeSecurityGroups", () => {
  test("by names in the default VPC, with ids beside them", async () => {
    const [a, b] = [await create("a"), await create("b")];
    const found = async (input: object) =>
      (await world.ok("DescribeSecurityGroups", input)).SecurityGroups!.map((group) => group.GroupId);
    expect(await found({ GroupNames: ["b"] })).toEqual([b]);
    expect((await found({ GroupNames: ["b"], GroupIds: [a, b] })).sort()).toEqual([a, b].sort());
    expect(await world.refusal("DescribeSecurityGroups", { GroupNames: ["c"] })).toBe(
      `InvalidGroup.NotFound: The security group 'c' does not exist in default VPC '${vpcId}'`,
    );
  });

  test("filters reach into the permissions of each direction", async () => {
    const [a, b] = [await create("a"), await create("b")];
    await world.ok("AuthorizeSecurityGroupIngress", {
      GroupId: a,
      IpPermissions: [
        ssh({ CidrIp: "192.0.2.0/24" }),
        { IpProtocol: "udp", FromPort: 1, ToPort: 2, UserIdGroupPairs: [{ GroupId: b }] },
        { IpProtocol: "-1", Ipv6Ranges: [{ CidrIpv6: "::/0" }] },
      ],
    });
    const found = async (Name: string, ...Values: string[]) =>
      (await world.ok("DescribeSecurityGroups", { Filters: [{ Name, Values }] })).SecurityGroups!.map((g) => g.GroupId);
    for (const [name, value] of [
      ["ip-permission.cidr", "192.0.2.0/24"],
      ["ip-permission.from-port", "22"],
      ["ip-permission.to-port", "2"],
      ["ip-permission.protocol", "udp"],
      ["ip-permission.group-id", b],
      ["ip-permission.group-name", "b"],
      ["ip-permission.ipv6-cidr", "::/0"],
      ["ip-permission.user-id", "123456789012"],
      ["group-name", "a"],
    ] as const)
      expect(await found(name, value)).toContain(a);
    expect(await found("ip-permission.cidr", "0.0.0.0/0")).toEqual([]);
    expect(await found("egress.ip-permission.cidr", "0.0.0.0/0")).toHaveLength(3);
    expect(await found("ip-permission.group-name", "b")).toEqual([a]);
  });

  test("a view keeps its identity until the group's records change", async () => {
    const id = await create("a");
    const first = await shown(id);
    expect(await shown(id)).toBe(first);
    await create("b");
    expect(await shown(id)).toBe(first);
    await world.ok("AuthorizeSecurityGroupIngress", { GroupId: id, IpPermissions: [ssh({ CidrIp: "0.0.0.0/0" })] });
    expect(await shown(id)).not.toBe(first);
  });
});
