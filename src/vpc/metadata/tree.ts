/**
 * What an instance can read of itself at 169.254.169.254, as a tree: `<version>/meta-data/…`, `dynamic/…`, `user-data`.
 * Every published version of the tree answers with the newest content.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
 */
import { privateDnsName, publicDnsName } from "../../model/dns-names.ts";
import type { InstanceRecord } from "../../model/instance.ts";
import type { NetworkInterfaceRecord } from "../../model/network.ts";
import { interfacesOf } from "../../model/owned.ts";
import type { Reader } from "../../model/store.ts";
import { images, securityGroups, subnets, tags, vpcs } from "../../model/tables.ts";
import { zoneId } from "../../model/zones.ts";
import type { IdentitySigner } from "./identity.ts";

/** A directory's entries by name, a leaf's text, or the bytes of user data. Functions are made only when asked for. */
export type TreeNode = string | Uint8Array | Directory | (() => string);
export interface Directory {
  readonly entries: ReadonlyMap<string, TreeNode>;
  /** The listing, where it is not simply the names. */
  readonly listing?: string;
}

export const VERSIONS = [
  "1.0",
  "2007-01-19",
  "2007-03-01",
  "2007-08-29",
  "2007-10-10",
  "2007-12-15",
  "2008-02-01",
  "2008-09-01",
  "2009-04-04",
  "2011-01-01",
  "2011-05-01",
  "2012-01-12",
  "2014-02-25",
  "2014-11-05",
  "2015-10-20",
  "2016-04-19",
  "2016-06-30",
  "2016-09-02",
  "2018-03-28",
  "2018-08-17",
  "2018-09-24",
  "2019-10-01",
  "2020-10-27",
  "2021-01-03",
  "2021-03-23",
  "2021-07-15",
  "2022-07-09",
  "2022-09-24",
  "2024-04-11",
  "latest",
] as const;

export interface TreeContext {
  readonly state: Reader;
  /** Names of the region's zones, for zone ids. */
  readonly zones: readonly string[];
  /** Undefined while the key of the cloud is being made: the signatures are then missing. */
  readonly signer: IdentitySigner | undefined;
}

type Entries = { readonly [name: string]: TreeNode | undefined };

/** A directory of those entries that are there, in the order of their names. */
function directory(entries: Entries | ReadonlyMap<string, TreeNode>, listing?: string): Directory {
  const pairs = entries instanceof Map ? [...entries] : Object.entries(entries as Entries);
  const present = pairs.filter((pair): pair is [string, TreeNode] => pair[1] !== undefined);
  present.sort(([a], [b]) => (a < b ? -1 : 1));
  return listing === undefined ? { entries: new Map(present) } : { entries: new Map(present), listing };
}

// Bytes have a method of that name too.
const isDirectory = (node: TreeNode): node is Directory => typeof node === "object" && !(node instanceof Uint8Array);

/** One name a line; a directory's ends in a slash. */
export const listingOf = (node: Directory): string =>
  node.listing ?? [...node.entries].map(([name, child]) => (isDirectory(child) ? `${name}/` : name)).join("\n");

const primaryAddress = (eni: NetworkInterfaceRecord | undefined): string | undefined =>
  eni?.privateIpAddresses[0]?.address;

/** Finds a path in the tree; undefined when nothing is there. A leaf may be asked for with a slash at its end. */
export function lookUp(context: TreeContext, instance: InstanceRecord, path: string): string | Uint8Array | undefined {
  const names = segmentsOf(path);
  const [version, ...below] = names ?? [];
  if (names === undefined) return undefined;
  if (version === undefined) return VERSIONS.join("\n");
  if (!(VERSIONS as readonly string[]).includes(version)) return undefined;
  let node: TreeNode | undefined = versionTree(context, instance);
  for (const name of below) node = node && isDirectory(node) ? node.entries.get(name) : undefined;
  if (node === undefined) return undefined;
  if (isDirectory(node)) return listingOf(node);
  return typeof node === "function" ? node() : node;
}

/** The names in a path, percent-decoded; undefined when an escape is malformed. */
function segmentsOf(path: string): string[] | undefined {
  try {
    return path
      .split("/")
      .filter((name) => name !== "")
      .map(decodeURIComponent);
  } catch {
    return undefined;
  }
}

function versionTree(context: TreeContext, instance: InstanceRecord): Directory {
  const userData = instance.userData ? Buffer.from(instance.userData, "base64") : undefined;
  const entries = {
    dynamic: directory({ "instance-identity": identity(context, instance) }),
    "meta-data": metaData(context, instance),
    "user-data": userData,
  };
  // This level alone shows its directories without a slash.
  return directory(entries, ["dynamic", "meta-data", ...(userData ? ["user-data"] : [])].join("\n"));
}

/** The partition of a region, and the domain of its endpoints. */
function servicesOf(region: string): { readonly domain: string; readonly partition: string } {
  if (region.startsWith("cn-")) return { domain: "amazonaws.com.cn", partition: "aws-cn" };
  return { domain: "amazonaws.com", partition: region.startsWith("us-gov-") ? "aws-us-gov" : "aws" };
}

function metaData(context: TreeContext, instance: InstanceRecord): Directory {
  const { state, zones } = context;
  const interfaces = interfacesOf(state, instance.id);
  const [primary] = interfaces;
  const address = primaryAddress(primary);
  const hostname = address && privateDnsName(instance.region, address, instance);
  const { placement } = instance;
  return directory({
    "ami-id": instance.imageId,
    "ami-launch-index": String(instance.launchIndex),
    "ami-manifest-path": "(unknown)",
    "block-device-mapping": blockDevices(instance),
    events: directory({ maintenance: directory({ history: "[]", scheduled: "[]" }) }),
    hostname,
    "instance-action": "none",
    "instance-id": instance.id,
    "instance-life-cycle": "on-demand",
    "instance-type": instance.instanceType,
    "local-hostname": hostname,
    "local-ipv4": address,
    mac: primary?.macAddress,
    metrics: directory({ vhostmd: '<?xml version="1.0" encoding="UTF-8"?>' }),
    network: directory({
      interfaces: directory({
        macs: directory(new Map(interfaces.map((eni) => [eni.macAddress, networkInterface(state, instance, eni)]))),
      }),
    }),
    placement: directory({
      "availability-zone": instance.zone,
      "availability-zone-id": zoneId(instance.region, zones, instance.zone),
      "group-name": placement.groupName,
      "partition-number": placement.partitionNumber === undefined ? undefined : String(placement.partitionNumber),
      region: instance.region,
    }),
    profile: "default-hvm",
    "public-hostname": publicName(state, primary),
    "public-ipv4": primary?.publicIp,
    "public-keys": publicKeys(instance),
    "reservation-id": instance.reservationId,
    "security-groups": primary && groupNames(state, primary),
    services: directory(servicesOf(instance.region)),
    tags: instanceTags(state, instance),
  });
}

/** `ami` and `root` name the root device; the other volumes are `ebs1`, `ebs2` … */
function blockDevices(instance: InstanceRecord): Directory {
  const others = instance.blockDevices.filter((device) => device.deviceName !== instance.rootDeviceName);
  return directory({
    ami: instance.rootDeviceName,
    root: instance.rootDeviceName,
    ...Object.fromEntries(others.map((device, i) => [`ebs${i + 1}`, device.deviceName])),
  });
}

/** The name of an interface's public address, where its VPC gives names. */
const publicName = (state: Reader, eni: NetworkInterfaceRecord | undefined): string | undefined =>
  eni?.publicIp !== undefined && state.get(vpcs, eni.vpcId)?.enableDnsHostnames
    ? publicDnsName(eni.region, eni.publicIp)
    : undefined;

const groupNames = (state: Reader, eni: NetworkInterfaceRecord): string =>
  eni.groupIds.flatMap((id) => state.get(securityGroups, id)?.name ?? []).join("\n");

function networkInterface(state: Reader, instance: InstanceRecord, eni: NetworkInterfaceRecord): Directory {
  const vpcBlock = state.get(vpcs, eni.vpcId)?.cidrBlock;
  const address = eni.privateIpAddresses[0]!.address;
  const index = eni.attachment?.deviceIndex ?? 0;
  return directory({
    "device-number": String(index),
    "interface-id": eni.id,
    "ipv4-associations": eni.publicIp === undefined ? undefined : directory({ [eni.publicIp]: address }),
    "local-hostname": privateDnsName(eni.region, address, index === 0 ? instance : undefined),
    "local-ipv4s": eni.privateIpAddresses.map((a) => a.address).join("\n"),
    mac: eni.macAddress,
    "network-card": String(eni.attachment?.networkCardIndex ?? 0),
    "owner-id": eni.accountId,
    "public-hostname": publicName(state, eni),
    "public-ipv4s": eni.publicIp,
    "security-group-ids": eni.groupIds.join("\n"),
    "security-groups": groupNames(state, eni),
    "subnet-id": eni.subnetId,
    "subnet-ipv4-cidr-block": state.get(subnets, eni.subnetId)?.cidrBlock,
    "vpc-id": eni.vpcId,
    "vpc-ipv4-cidr-block": vpcBlock,
    "vpc-ipv4-cidr-blocks": vpcBlock,
  });
}

/** The key of the launch: deleting the key pair takes it from no instance. */
function publicKeys(instance: InstanceRecord): Directory | undefined {
  const { keyName, publicKey } = instance;
  if (keyName === undefined || publicKey === undefined) return undefined;
  const [type, base64] = publicKey.trim().split(/\s+/);
  return directory(
    { "0": directory({ "openssh-key": `${type} ${base64} ${keyName}\n` }) },
    `0=${keyName}`, // the one listing that says what an entry is
  );
}

/** The instance's tags, when it may read them. A key with a slash has no path. */
function instanceTags(state: Reader, instance: InstanceRecord): Directory | undefined {
  if (instance.metadataOptions.instanceMetadataTags !== "enabled") return undefined;
  const entries = Object.entries(state.get(tags, instance.id)?.tags ?? {}).filter(([key]) => !key.includes("/"));
  return directory({ instance: directory(new Map(entries)) });
}

/** The identity document, written as EC2 writes it: verifiers compare bytes. */
export function identityDocument(state: Reader, instance: InstanceRecord): string {
  const [primary] = interfacesOf(state, instance.id);
  const members: readonly (readonly [string, string | null])[] = [
    ["accountId", instance.accountId],
    ["architecture", state.get(images, instance.imageId)?.architecture ?? "x86_64"],
    ["availabilityZone", instance.zone],
    ["billingProducts", null],
    ["devpayProductCodes", null],
    ["marketplaceProductCodes", null],
    ["imageId", instance.imageId],
    ["instanceId", instance.id],
    ["instanceType", instance.instanceType],
    ["kernelId", null],
    ["pendingTime", `${new Date(instance.launchTime).toISOString().slice(0, 19)}Z`],
    ["privateIp", primaryAddress(primary) ?? null],
    ["ramdiskId", null],
    ["region", instance.region],
    ["version", "2017-09-30"],
  ];
  return `{\n${members.map(([name, value]) => `  "${name}" : ${JSON.stringify(value)}`).join(",\n")}\n}`;
}

function identity({ state, signer }: TreeContext, instance: InstanceRecord): Directory {
  const document = () => identityDocument(state, instance);
  return directory({
    document,
    pkcs7: signer && (() => signer.pkcs7(document())),
    rsa2048: signer && (() => signer.pkcs7(document())),
    signature: signer && (() => signer.signature(document())),
  });
}
