/** EC2's network operations. */
import type { HandlerTable } from "../model/operation.ts";
import type { Ec2Operations } from "../schema/ec2/types.ts";
import { createDefaultVpc } from "./default-vpc.ts";
import { describeDhcpOptions } from "./dhcp-options.ts";
import { describeInternetGateways } from "./internet-gateways.ts";
import { describeNetworkAcls } from "./network-acls.ts";
import { describeNetworkInterfaceAttribute, modifyNetworkInterfaceAttribute } from "./network-interface-attributes.ts";
import { describeNetworkInterfaces } from "./network-interfaces.ts";
import { describeRouteTables } from "./route-tables.ts";
import { authorizeSecurityGroupEgress, authorizeSecurityGroupIngress } from "./security-groups/authorize.ts";
import { createSecurityGroup, deleteSecurityGroup, describeSecurityGroups } from "./security-groups/groups.ts";
import { revokeSecurityGroupEgress, revokeSecurityGroupIngress } from "./security-groups/revoke.ts";
import {
  describeSecurityGroupRules,
  modifySecurityGroupRules,
  updateSecurityGroupRuleDescriptionsEgress,
  updateSecurityGroupRuleDescriptionsIngress,
} from "./security-groups/rules.ts";
import { describeSubnets } from "./subnets.ts";
import { describeVpcAttribute, describeVpcs } from "./vpcs.ts";

/** The handler of every network operation that Hive carries out. They need nothing but the call itself. */
export const vpcHandlers = {
  AuthorizeSecurityGroupEgress: authorizeSecurityGroupEgress,
  AuthorizeSecurityGroupIngress: authorizeSecurityGroupIngress,
  CreateDefaultVpc: createDefaultVpc,
  CreateSecurityGroup: createSecurityGroup,
  DeleteSecurityGroup: deleteSecurityGroup,
  DescribeDhcpOptions: describeDhcpOptions,
  DescribeInternetGateways: describeInternetGateways,
  DescribeNetworkAcls: describeNetworkAcls,
  DescribeNetworkInterfaceAttribute: describeNetworkInterfaceAttribute,
  DescribeNetworkInterfaces: describeNetworkInterfaces,
  DescribeRouteTables: describeRouteTables,
  DescribeSecurityGroupRules: describeSecurityGroupRules,
  DescribeSecurityGroups: describeSecurityGroups,
  DescribeSubnets: describeSubnets,
  DescribeVpcAttribute: describeVpcAttribute,
  DescribeVpcs: describeVpcs,
  ModifyNetworkInterfaceAttribute: modifyNetworkInterfaceAttribute,
  ModifySecurityGroupRules: modifySecurityGroupRules,
  RevokeSecurityGroupEgress: revokeSecurityGroupEgress,
  RevokeSecurityGroupIngress: revokeSecurityGroupIngress,
  UpdateSecurityGroupRuleDescriptionsEgress: updateSecurityGroupRuleDescriptionsEgress,
  UpdateSecurityGroupRuleDescriptionsIngress: updateSecurityGroupRuleDescriptionsIngress,
} satisfies HandlerTable<Ec2Operations>;
