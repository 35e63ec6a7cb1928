import type { Random } from "../lib/random.ts";
import { randomHex } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError } from "./errors.ts";

/**
 * Resource ids as EC2 writes them: a prefix, a dash, and 8 (before 2016) or 17 lower-case hexadecimal digits.
 * Every kind has a branded type, so that a subnet's id cannot stand where a VPC's is asked for.
 */
declare const kind: unique symbol;
export type Id<Kind extends string> = string & { readonly [kind]: Kind };

/** Prefix of the id and the word that EC2 uses in `Invalid<Word>.NotFound` and `Invalid<Word>.Malformed`. */
const KINDS = {
  Image: { prefix: "ami", error: "InvalidAMIID", noun: "image id" },
  Instance: { prefix: "i", error: "InvalidInstanceID", noun: "instance ID" },
  Reservation: { prefix: "r", error: "InvalidReservationID", noun: "reservation ID" },
  Volume: { prefix: "vol", error: "InvalidVolume", noun: "volume" },
  Snapshot: { prefix: "snap", error: "InvalidSnapshot", noun: "snapshot" },
  KeyPair: { prefix: "key", error: "InvalidKeyPair", noun: "key pair ID" },
  Vpc: { prefix: "vpc", error: "InvalidVpcID", noun: "vpc ID" },
  Subnet: { prefix: "subnet", error: "InvalidSubnetID", noun: "subnet ID" },
  NetworkInterface: { prefix: "eni", error: "InvalidNetworkInterfaceID", noun: "networkInterface ID" },
  NetworkInterfaceAttachment: { prefix: "eni-attach", error: "InvalidAttachmentID", noun: "attachment ID" },
  SecurityGroup: { prefix: "sg", error: "InvalidGroup", noun: "security group" },
  SecurityGroupRule: { prefix: "sgr", error: "InvalidSecurityGroupRuleId", noun: "security group rule ID" },
  RouteTable: { prefix: "rtb", error: "InvalidRouteTableID", noun: "routeTable ID" },
  RouteTableAssociation: { prefix: "rtbassoc", error: "InvalidAssociationID", noun: "association ID" },
  InternetGateway: { prefix: "igw", error: "InvalidInternetGatewayID", noun: "internetGateway ID" },
  NetworkAcl: { prefix: "acl", error: "InvalidNetworkAclID", noun: "networkAcl ID" },
  NetworkAclAssociation: { prefix: "aclassoc", error: "InvalidAssociationID", noun: "association ID" },
  DhcpOptions: { prefix: "dopt", error: "InvalidDhcpOptionID", noun: "dhcpOption ID" },
  SubnetCidrAssociation: {
    prefix: "subnet-cidr-assoc",
    error: "InvalidSubnetCidrBlockAssociationID",
    noun: "association ID",
  },
  VpcCidrAssociation: { prefix: "vpc-cidr-assoc", error: "InvalidVpcCidrBlockAssociationID", noun: "association ID" },
} as const;

export type IdKind = keyof typeof KINDS;
export type ImageId = Id<"Image">;
export type InstanceId = Id<"Instance">;
export type ReservationId = Id<"Reservation">;
export type VolumeId = Id<"Volume">;
export type SnapshotId = Id<"Snapshot">;
export type KeyPairId = Id<"KeyPair">;
export type VpcId = Id<"Vpc">;
export type SubnetId = Id<"Subnet">;
export type NetworkInterfaceId = Id<"NetworkInterface">;
export type NetworkInterfaceAttachmentId = Id<"NetworkInterfaceAttachment">;
export type SecurityGroupId = Id<"SecurityGroup">;
export type SecurityGroupRuleId = Id<"SecurityGroupRule">;
export type RouteTableId = Id<"RouteTable">;
export type RouteTableAssociationId = Id<"RouteTableAssociation">;
export type InternetGatewayId = Id<"InternetGateway">;
export type NetworkAclId = Id<"NetworkAcl">;
export type NetworkAclAssociationId = Id<"NetworkAclAssociation">;
export type VpcCidrAssociationId = Id<"VpcCidrAssociation">;
export type DhcpOptionsId = Id<"DhcpOptions">;

/** Twelve digits. */
export type AccountId = Id<"Account">;
/** A member of the cluster. */
export type NodeId = Id<"Node">;

/** A fresh id of the current (17-digit) form. */
export function newId<K extends IdKind>(idKind: K, random: Random): Id<K> {
  return `${KINDS[idKind].prefix}-${randomHex(random, 17)}` as Id<K>;
}

const PATTERNS = new Map<IdKind, RegExp>(
  (Object.keys(KINDS) as IdKind[]).map((k) => [k, new RegExp(`^${KINDS[k].prefix}-([0-9a-f]{8}|[0-9a-f]{17})$`)]),
);

/** Reads an id off the wire. Errors: `Invalid….Malformed` of its kind. */
export function parseId<K extends IdKind>(idKind: K, text: string): Result<Id<K>, AwsError> {
  return PATTERNS.get(idKind)!.test(text) ? ok(text as Id<K>) : fail(idMalformed(idKind, text));
}

/** Brands a text that is known to be a well-formed id (read back from the store). */
export const trustedId = <K extends string>(text: string): Id<K> => text as Id<K>;

/** `InvalidInstanceID.Malformed` and its siblings. Volumes and snapshots answer InvalidParameterValue, as on EC2. */
export function idMalformed(idKind: IdKind, text: string): AwsError {
  const { error, noun } = KINDS[idKind];
  if (idKind === "Volume" || idKind === "Snapshot") {
    return awsError(
      "InvalidParameterValue",
      `Value (${text}) for parameter ${noun}Id is invalid. Expected: '${KINDS[idKind].prefix}-...'.`,
    );
  }
  if (idKind === "SecurityGroup")
    return awsError("InvalidGroupId.Malformed", `Invalid id: "${text}" (expecting "sg-...")`);
  return awsError(
    `${error}.Malformed`,
    `Invalid id: "${text}"${idKind === "Instance" ? "" : ` (expecting "${KINDS[idKind].prefix}-...")`}`,
  );
}

/** `InvalidInstanceID.NotFound` and its siblings, in EC2's words. */
export function idNotFound(idKind: IdKind, ids: string | readonly string[]): AwsError {
  const { error, noun } = KINDS[idKind];
  const list = typeof ids === "string" ? [ids] : ids;
  const text = list.join(", ");
  switch (idKind) {
    case "Instance":
      return awsError(
        `${error}.NotFound`,
        list.length === 1 ? `The instance ID '${text}' does not exist` : `The instance IDs '${text}' do not exist`,
      );
    case "Image":
      return awsError(`${error}.NotFound`, `The image id '[${text}]' does not exist`);
    case "SecurityGroup":
    case "Volume":
    case "Snapshot":
      return awsError(`${error}.NotFound`, `The ${noun} '${text}' does not exist.`);
    default:
      return awsError(`${error}.NotFound`, `The ${noun} '${text}' does not exist`);
  }
}

/** Which kind an id's prefix names, for operations that take any resource (CreateTags). */
export function kindOfId(text: string): IdKind | undefined {
  return (Object.keys(KINDS) as IdKind[]).find((k) => PATTERNS.get(k)!.test(text));
}
