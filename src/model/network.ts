import type {
  AccountId,
  DhcpOptionsId,
  InstanceId,
  InternetGatewayId,
  NetworkAclAssociationId,
  NetworkAclId,
  NetworkInterfaceAttachmentId,
  NetworkInterfaceId,
  RouteTableAssociationId,
  RouteTableId,
  SecurityGroupId,
  SecurityGroupRuleId,
  SubnetId,
  VpcCidrAssociationId,
  VpcId,
} from "./ids.ts";

/** Fields that every network resource has. */
interface Owned {
  readonly accountId: AccountId;
  readonly region: string;
  readonly createdAt: number;
}

export interface VpcRecord extends Owned {
  readonly id: VpcId;
  /** Dotted IPv4 CIDR, canonical. */
  readonly cidrBlock: string;
  readonly cidrAssociationId: VpcCidrAssociationId;
  readonly isDefault: boolean;
  readonly instanceTenancy: "default" | "dedicated";
  readonly enableDnsSupport: boolean;
  readonly enableDnsHostnames: boolean;
  readonly dhcpOptionsId: DhcpOptionsId;
  /** Tells VPCs apart on the wire (tunnel key, conntrack zone, OpenFlow metadata): 1 to 65535, unique in the cluster. */
  readonly networkKey: number;
}

export interface SubnetRecord extends Owned {
  readonly id: SubnetId;
  readonly vpcId: VpcId;
  readonly zone: string;
  readonly cidrBlock: string;
  readonly defaultForAz: boolean;
  readonly mapPublicIpOnLaunch: boolean;
}

export interface DhcpOptionsRecord extends Owned {
  readonly id: DhcpOptionsId;
  readonly options: readonly { readonly key: string; readonly values: readonly string[] }[];
}

export interface InternetGatewayRecord extends Owned {
  readonly id: InternetGatewayId;
  readonly vpcId?: VpcId;
}

export interface RouteTableRecord extends Owned {
  readonly id: RouteTableId;
  readonly vpcId: VpcId;
  readonly routes: readonly RouteRecord[];
  readonly associations: readonly RouteTableAssociation[];
}
export interface RouteTableAssociation {
  readonly id: RouteTableAssociationId;
  readonly main: boolean;
  readonly subnetId?: SubnetId;
}
export interface RouteRecord {
  readonly destinationCidrBlock: string;
  readonly target:
    | { readonly kind: "local" }
    | { readonly kind: "internet-gateway"; readonly id: InternetGatewayId }
    | { readonly kind: "network-interface"; readonly id: NetworkInterfaceId };
  readonly origin: "CreateRouteTable" | "CreateRoute";
}

export interface NetworkAclRecord extends Owned {
  readonly id: NetworkAclId;
  readonly vpcId: VpcId;
  readonly isDefault: boolean;
  readonly entries: readonly NetworkAclEntry[];
  readonly associations: readonly { readonly id: NetworkAclAssociationId; readonly subnetId: SubnetId }[];
}
export interface NetworkAclEntry {
  /** 1 to 32766; 32767 is the closing deny-all. Lowest first. */
  readonly ruleNumber: number;
  /** IANA number as text; `-1` is all. */
  readonly protocol: string;
  readonly action: "allow" | "deny";
  readonly egress: boolean;
  readonly cidrBlock: string;
  readonly portRange?: { readonly from: number; readonly to: number };
  readonly icmp?: { readonly type: number; readonly code: number };
}

export interface SecurityGroupRecord extends Owned {
  readonly id: SecurityGroupId;
  readonly vpcId: VpcId;
  /** Unique in its VPC, up to 255 characters. */
  readonly name: string;
  readonly description: string;
}

/** One permission: one protocol and port range to or from one source. AWS's `sgr-…`. */
export interface SecurityGroupRuleRecord {
  readonly id: SecurityGroupRuleId;
  readonly accountId: AccountId;
  readonly region: string;
  readonly groupId: SecurityGroupId;
  readonly egress: boolean;
  /** `tcp`, `udp`, `icmp`, `icmpv6`, an IANA number as text, or `-1` for all. */
  readonly protocol: string;
  /** TCP/UDP: first port; ICMP: type. -1: all. */
  readonly fromPort: number;
  /** TCP/UDP: last port; ICMP: code. -1: all. */
  readonly toPort: number;
  readonly peer:
    | { readonly kind: "ipv4"; readonly cidr: string }
    | { readonly kind: "ipv6"; readonly cidr: string }
    | {
        readonly kind: "group";
        readonly groupId: SecurityGroupId;
        readonly accountId: AccountId;
        readonly vpcId?: VpcId;
      }
    | { readonly kind: "prefix-list"; readonly prefixListId: string };
  readonly description?: string;
}

/** An ENI. */
export interface NetworkInterfaceRecord extends Owned {
  readonly id: NetworkInterfaceId;
  readonly vpcId: VpcId;
  readonly subnetId: SubnetId;
  readonly zone: string;
  readonly description: string;
  /** Lower-case, colon-separated; locally administered. */
  readonly macAddress: string;
  /** First is the primary. Never empty. */
  readonly privateIpAddresses: readonly PrivateAddress[];
  readonly ipv6Addresses: readonly string[];
  readonly groupIds: readonly SecurityGroupId[];
  readonly sourceDestCheck: boolean;
  readonly interfaceType: "interface";
  readonly requesterManaged: boolean;
  readonly attachment?: NetworkInterfaceAttachment;
  /** Asked for at launch: a public address from the pool whenever its instance is on. */
  readonly associatePublicIp: boolean;
  /** The auto-assigned public address it holds now. Released when the instance stops. */
  readonly publicIp?: string;
}
export interface PrivateAddress {
  readonly address: string;
  readonly primary: boolean;
}
export interface NetworkInterfaceAttachment {
  readonly id: NetworkInterfaceAttachmentId;
  readonly instanceId: InstanceId;
  readonly instanceOwnerId: AccountId;
  readonly deviceIndex: number;
  readonly networkCardIndex: number;
  readonly deleteOnTermination: boolean;
  readonly attachTime: number;
}
