/**
 * The network interfaces that an instance starts with. First the request is read into a plan that holds for every
 * instance of the launch; then each instance takes its addresses.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError, invalidParameterCombination, invalidParameterValue } from "../model/errors.ts";
import { idNotFound, type SecurityGroupId } from "../model/ids.ts";
import { assignable, contains, formatIpv4, parseIpv4, trustedCidr } from "../model/ipv4.ts";
import type { NetworkInterfaceRecord, SecurityGroupRecord, SubnetRecord, VpcRecord } from "../model/network.ts";
import type { Call } from "../model/operation.ts";
import { networkInterfaces, securityGroups, subnets, vpcs } from "../model/tables.ts";
import type { InstanceNetworkInterfaceSpecification, RunInstancesRequest } from "../schema/ec2/types.ts";
import { notYet } from "./errors.ts";
import type { InstanceType } from "./instance-types.ts";
import { allOwned, findOwned, getOwned } from "./owned.ts";

export type PlannedInterface =
  | {
      readonly kind: "new";
      readonly deviceIndex: number;
      readonly subnet: SubnetRecord;
      readonly groupIds: readonly SecurityGroupId[];
      readonly description: string;
      /** Addresses that the request names, the primary first; then how many more. */
      readonly addresses: readonly number[];
      readonly secondaryCount: number;
      readonly associatePublicIp: boolean;
      readonly deleteOnTermination: boolean;
    }
  | {
      readonly kind: "existing";
      readonly deviceIndex: number;
      readonly eni: NetworkInterfaceRecord;
      readonly subnet: SubnetRecord;
      readonly deleteOnTermination: boolean;
    };

/** The zone is that of the primary interface; all are in it, and in one VPC. Sorted by device index. */
export interface NetworkPlan {
  readonly zone: string;
  readonly vpc: VpcRecord;
  readonly interfaces: readonly PlannedInterface[];
}

/** Most security groups that one interface can have: AWS's quota. */
export const GROUPS_PER_INTERFACE_MAX = 5;

const outsideDefaultVpc = (): AwsError => awsError("VPCIdNotSpecified", "No default VPC for this user");

/** The subnet that is named, else the default one of the zone that is asked for, else the first. */
function findSubnet(
  call: Call,
  subnetId: string | undefined,
  zone: string | undefined,
): Result<SubnetRecord, AwsError> {
  if (subnetId !== undefined) {
    const subnet = findOwned(call, "Subnet", subnets, subnetId);
    if (subnet.ok && zone !== undefined && subnet.value.zone !== zone)
      return fail(
        invalidParameterValue(
          `Value (${zone}) for parameter availabilityZone is invalid. Subnet '${subnetId}' is in the availability zone ${subnet.value.zone}`,
        ),
      );
    return subnet;
  }
  const vpc = allOwned(call, vpcs).find((candidate) => candidate.isDefault);
  if (!vpc) return fail(outsideDefaultVpc());
  const defaults = call.state
    .lookup(subnets, "byVpc", vpc.id)
    .filter((subnet) => subnet.defaultForAz && (zone === undefined || subnet.zone === zone))
    .sort((a, b) => (a.zone < b.zone ? -1 : 1));
  if (defaults.length > 0) return ok(defaults[0]!);
  return fail(
    zone === undefined
      ? awsError("MissingInput", `No subnets found for the default VPC '${vpc.id}'. Please specify a subnet.`)
      : awsError("MissingInput", `No default subnet for availability zone: '${zone}'.`),
  );
}

/** The groups named by id or name, or the VPC's default group. */
export function findGroups(
  call: Call,
  vpc: VpcRecord,
  ids: readonly string[] | undefined,
  names: readonly string[] | undefined,
  subnetId: string,
): Result<SecurityGroupId[], AwsError> {
  const found: SecurityGroupRecord[] = [];
  for (const id of ids ?? []) {
    const group = findOwned(call, "SecurityGroup", securityGroups, id);
    if (!group.ok) return group;
    if (group.value.vpcId !== vpc.id)
      return fail(
        awsError("InvalidParameter", `Security group ${id} and subnet ${subnetId} belong to different networks.`),
      );
    found.push(group.value);
  }
  for (const name of names ?? []) {
    const group = call.state.lookup(securityGroups, "byName", `${vpc.id}/${name}`)[0];
    if (!group)
      return fail(
        awsError("InvalidGroup.NotFound", `The security group '${name}' does not exist in default VPC '${vpc.id}'`),
      );
    found.push(group);
  }
  if (found.length === 0) found.push(...call.state.lookup(securityGroups, "byName", `${vpc.id}/default`));
  const groupIds = [...new Set(found.map((group) => group.id))];
  return groupIds.length > GROUPS_PER_INTERFACE_MAX
    ? fail(
        awsError(
          "SecurityGroupsPerInterfaceLimitExceeded",
          `The maximum number of security groups per interface is ${GROUPS_PER_INTERFACE_MAX}.`,
        ),
      )
    : ok(groupIds);
}

/** Reads an address that is asked for. Errors: InvalidParameterValue for one outside the subnet or reserved in it. */
function findAddress(subnet: SubnetRecord, text: string): Result<number, AwsError> {
  const address = parseIpv4(text);
  if (address === undefined) return fail(invalidParameterValue(`invalid value for parameter address: ${text}`));
  const block = trustedCidr(subnet.cidrBlock);
  if (!contains(block, address))
    return fail(invalidParameterValue(`Address ${text} does not fall within the subnet's address range`));
  if (!assignable(block, address))
    return fail(invalidParameterValue(`Address ${text} is in subnet's reserved address range`));
  return ok(address);
}

/**
 * What the launch's interfaces are. Errors: everything that EC2 says about subnets, groups, addresses and interfaces
 * that don't exist, don't fit each other, or exceed what the instance type can hold.
 */
export function planNetwork(
  input: RunInstancesRequest,
  zone: string | undefined,
  type: InstanceType,
  maxCount: number,
  call: Call,
): Result<NetworkPlan, AwsError> {
  const listed = input.NetworkInterfaces ?? [];
  if (input.Ipv6AddressCount || input.Ipv6Addresses?.length) return fail(notYet("An IPv6 address"));
  if (listed.length > 0) {
    const clash = (what: string) =>
      fail(
        invalidParameterCombination(
          `Network interfaces and an instance-level ${what} may not be specified on the same request`,
        ),
      );
    if (input.SubnetId !== undefined) return clash("subnet ID");
    if (input.SecurityGroupIds?.length || input.SecurityGroups?.length) return clash("security groups");
    if (input.PrivateIpAddress !== undefined) return clash("private address");
  }
  if (input.SecurityGroups?.length && input.SubnetId !== undefined)
    return fail(invalidParameterCombination("The parameter groupName cannot be used with the parameter subnet"));
  if (maxCount > 1 && input.PrivateIpAddress !== undefined)
    return fail(
      invalidParameterCombination(
        "The privateIpAddress parameter cannot be specified when launching more than one instance.",
      ),
    );
  const specifications: readonly InstanceNetworkInterfaceSpecification[] =
    listed.length > 0
      ? listed
      : [
          {
            DeviceIndex: 0,
            SubnetId: input.SubnetId,
            Groups: input.SecurityGroupIds,
            PrivateIpAddress: input.PrivateIpAddress,
          },
        ];
  if (specifications.length > type.maximumNetworkInterfaces)
    return fail(
      awsError(
        "AttachmentLimitExceeded",
        `Interface count ${specifications.length} exceeds the limit for ${type.name}`,
      ),
    );

  const planned: PlannedInterface[] = [];
  for (const specification of specifications) {
    const one = planInterface(specification, specifications.length, input.SecurityGroups, zone, type, maxCount, call);
    if (!one.ok) return one;
    planned.push(one.value);
  }
  return checkedTogether(planned, call);
}

/** Rules among the interfaces of one instance. */
function checkedTogether(planned: PlannedInterface[], call: Call): Result<NetworkPlan, AwsError> {
  planned.sort((a, b) => a.deviceIndex - b.deviceIndex);
  for (const [i, one] of planned.entries())
    if (one.deviceIndex === planned[i + 1]?.deviceIndex)
      return fail(invalidParameterValue("Each network interface requires a unique device index."));
  const primary = planned[0]!;
  if (primary.deviceIndex !== 0)
    return fail(invalidParameterValue("When specifying network interfaces, you must include a device at index 0."));
  const held = new Set<string>();
  for (const other of planned) {
    const names = other.kind === "existing" ? [other.eni.id] : other.addresses.map(formatIpv4);
    for (const name of names) {
      if (held.has(name))
        return fail(invalidParameterValue(`${name} is specified for more than one network interface.`));
      held.add(name);
    }
    if (other.subnet.zone !== primary.subnet.zone)
      return fail(invalidParameterCombination("All network interfaces must be in the same availability zone."));
    if (other.subnet.vpcId !== primary.subnet.vpcId)
      return fail(invalidParameterCombination("All network interfaces must be in the same VPC."));
  }
  const vpc = getOwned(call, vpcs, primary.subnet.vpcId);
  if (!vpc) return fail(idNotFound("Vpc", primary.subnet.vpcId));
  return ok({ zone: primary.subnet.zone, vpc, interfaces: planned });
}

function planInterface(
  asked: InstanceNetworkInterfaceSpecification,
  count: number,
  groupNames: readonly string[] | undefined,
  zone: string | undefined,
  type: InstanceType,
  maxCount: number,
  call: Call,
): Result<PlannedInterface, AwsError> {
  const refused = unsupportedPart(asked);
  if (refused) return fail(refused);
  const deviceIndex = asked.DeviceIndex;
  if (deviceIndex === undefined) return fail(invalidParameterValue("Each network interface requires a device index."));
  if (deviceIndex < 0 || deviceIndex > 31)
    return fail(invalidParameterValue(`Device index ${deviceIndex} is out of range.`));

  if (asked.NetworkInterfaceId !== undefined) return planExisting(asked, deviceIndex, zone, type, maxCount, call);
  const subnet = findSubnet(call, asked.SubnetId, zone);
  if (!subnet.ok) return subnet;
  const vpc = getOwned(call, vpcs, subnet.value.vpcId);
  if (!vpc) return fail(idNotFound("Vpc", subnet.value.vpcId));
  const groupIds = findGroups(call, vpc, asked.Groups, groupNames, subnet.value.id);
  if (!groupIds.ok) return groupIds;
  const addresses = planAddresses(asked, subnet.value, maxCount, call);
  if (!addresses.ok) return addresses;
  if (
    addresses.value.length + (addresses.value.length === 0 ? 1 : 0) + (asked.SecondaryPrivateIpAddressCount ?? 0) >
    type.ipv4AddressesPerInterface
  )
    return fail(awsError("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit."));
  if (asked.AssociatePublicIpAddress !== undefined && (count > 1 || deviceIndex !== 0))
    return fail(
      invalidParameterCombination(
        "The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces.",
      ),
    );
  return ok({
    kind: "new",
    deviceIndex,
    subnet: subnet.value,
    groupIds: groupIds.value,
    description: asked.Description ?? "",
    addresses: addresses.value,
    secondaryCount: asked.SecondaryPrivateIpAddressCount ?? 0,
    associatePublicIp: count === 1 && (asked.AssociatePublicIpAddress ?? subnet.value.mapPublicIpOnLaunch),
    deleteOnTermination: asked.DeleteOnTermination ?? true,
  });
}

function unsupportedPart(asked: InstanceNetworkInterfaceSpecification): AwsError | undefined {
  if (asked.Ipv6AddressCount || asked.Ipv6Addresses?.length || asked.PrimaryIpv6) return notYet("An IPv6 address");
  if (asked.Ipv4PrefixCount || asked.Ipv4Prefixes?.length || asked.Ipv6PrefixCount || asked.Ipv6Prefixes?.length)
    return notYet("Prefix delegation");
  if (asked.InterfaceType !== undefined && asked.InterfaceType !== "interface")
    return notYet(`A network interface of type ${asked.InterfaceType}`);
  if (asked.NetworkCardIndex)
    return invalidParameterValue(`Network card index ${asked.NetworkCardIndex} exceeds the limit of 1 network card.`);
  if (asked.AssociateCarrierIpAddress) return notYet("A carrier IP address");
  if (asked.EnaSrdSpecification?.EnaSrdEnabled) return notYet("ENA Express");
  return undefined;
}

function planExisting(
  asked: InstanceNetworkInterfaceSpecification,
  deviceIndex: number,
  zone: string | undefined,
  type: InstanceType,
  maxCount: number,
  call: Call,
): Result<PlannedInterface, AwsError> {
  const id = asked.NetworkInterfaceId!;
  const fresh: [string, unknown][] = [
    ["subnetId", asked.SubnetId],
    ["groupId", asked.Groups?.length ? asked.Groups : undefined],
    ["privateIpAddress", asked.PrivateIpAddress],
    ["privateIpAddresses", asked.PrivateIpAddresses?.length ? asked.PrivateIpAddresses : undefined],
    ["secondaryPrivateIpAddressCount", asked.SecondaryPrivateIpAddressCount],
    ["description", asked.Description],
    ["associatePublicIpAddress", asked.AssociatePublicIpAddress],
  ];
  const clash = fresh.find(([, value]) => value !== undefined);
  if (clash)
    return fail(
      invalidParameterCombination(
        `The parameter ${clash[0]} may not be specified for an existing network interface (${id}).`,
      ),
    );
  if (maxCount > 1)
    return fail(
      invalidParameterCombination("A network interface ID cannot be specified when launching more than one instance."),
    );
  if (asked.DeleteOnTermination)
    return fail(
      invalidParameterCombination(
        "A network interface may not specify a network interface ID and delete on termination as true.",
      ),
    );
  const eni = findOwned(call, "NetworkInterface", networkInterfaces, id);
  if (!eni.ok) return eni;
  if (eni.value.attachment) return fail(awsError("InvalidNetworkInterface.InUse", `Interface: [${id}] in use.`));
  if (zone !== undefined && eni.value.zone !== zone)
    return fail(
      invalidParameterValue(`Network interface '${id}' is in the availability zone ${eni.value.zone}, not ${zone}`),
    );
  if (eni.value.privateIpAddresses.length > type.ipv4AddressesPerInterface)
    return fail(awsError("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit."));
  const subnet = getOwned(call, subnets, eni.value.subnetId);
  if (!subnet) return fail(idNotFound("Subnet", eni.value.subnetId));
  return ok({ kind: "existing", deviceIndex, eni: eni.value, subnet, deleteOnTermination: false });
}

/** Addresses by name, the primary first; none when the primary is to be chosen by Hive. */
function planAddresses(
  asked: InstanceNetworkInterfaceSpecification,
  subnet: SubnetRecord,
  maxCount: number,
  call: Call,
): Result<number[], AwsError> {
  const named = asked.PrivateIpAddresses ?? [];
  const primaries = named.filter((one) => one.Primary);
  if (primaries.length > 1)
    return fail(invalidParameterCombination("Only one primary private IP address can be specified."));
  if (asked.PrivateIpAddress !== undefined && primaries.length > 0)
    return fail(
      invalidParameterCombination(
        "Only one primary private IP address can be specified: privateIpAddress or privateIpAddresses.",
      ),
    );
  if (named.some((one) => !one.Primary) && (asked.SecondaryPrivateIpAddressCount ?? 0) > 0)
    return fail(
      invalidParameterCombination("secondaryPrivateIpAddressCount cannot be used with secondary private IP addresses."),
    );
  if ((asked.SecondaryPrivateIpAddressCount ?? 0) < 0)
    return fail(invalidParameterValue("secondaryPrivateIpAddressCount must not be negative."));
  const primary = asked.PrivateIpAddress ?? primaries[0]?.PrivateIpAddress;
  const secondary = named.filter((one) => !one.Primary).map((one) => one.PrivateIpAddress ?? "");
  if (primary === undefined && secondary.length > 0)
    return fail(invalidParameterCombination("A primary private IP address must be specified with secondary ones."));
  const texts = [...(primary === undefined ? [] : [primary]), ...secondary];
  if (texts.length > 0 && maxCount > 1)
    return fail(
      invalidParameterCombination("A private IP address cannot be specified when launching more than one instance."),
    );
  const addresses: number[] = [];
  for (const text of texts) {
    const address = findAddress(subnet, text);
    if (!address.ok) return address;
    if (addresses.includes(address.value)) return fail(invalidParameterValue(`Duplicate private IP address ${text}`));
    if (call.state.countOf(networkInterfaces, "byPrivateIp", `${subnet.vpcId}/${text}`) > 0)
      return fail(awsError("InvalidIPAddress.InUse", `Address ${text} is in use.`));
    addresses.push(address.value);
  }
  return ok(addresses);
}
