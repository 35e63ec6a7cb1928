/** What EC2 answers about security groups, in its words. */
import { type AwsError, awsError, invalidParameterValue, missingParameter } from "../../model/errors.ts";

/** Name, description and rule description take the same characters. */
export const TEXT_CHARACTERS = /^[a-zA-Z0-9. _\-:/()#,@[\]+=&;{}!$*]*$/;
export const TEXT_LENGTH_MAX = 255;
const CHARACTER_SET = "strings less than 256 characters from the following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*";

export const ruleDescriptionInvalid = (): AwsError =>
  invalidParameterValue(`Invalid rule description. Valid descriptions are ${CHARACTER_SET}`);

/** For GroupName and GroupDescription; undefined when the text may be used. */
export function groupTextInvalid(parameter: "GroupName" | "GroupDescription", text: string): AwsError | undefined {
  if (text === "") return missingParameter(parameter);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII is what is asked about
  if (!/^[\x00-\x7f]*$/.test(text))
    return invalidParameterValue(
      `Value (${text}) for parameter ${parameter} is invalid. Character sets beyond ASCII are not supported.`,
    );
  if (text.length <= TEXT_LENGTH_MAX && TEXT_CHARACTERS.test(text)) return undefined;
  const [noun, plural] = parameter === "GroupName" ? ["name", "names"] : ["description", "descriptions"];
  return invalidParameterValue(`Invalid security group ${noun}. Valid ${plural} are ${CHARACTER_SET}`);
}

export const groupNameLikeId = (name: string): AwsError =>
  invalidParameterValue(
    `Value (${name}) for parameter GroupName is invalid. Group names may not be in the format sg-*.`,
  );

export const groupNameReserved = (name: string): AwsError =>
  invalidParameterValue(`Cannot use reserved security group name: ${name}`);

export const groupDuplicate = (name: string, vpcId: string): AwsError =>
  awsError("InvalidGroup.Duplicate", `The security group '${name}' already exists for VPC '${vpcId}'`);

export const groupNameNotFound = (name: string, vpcId: string): AwsError =>
  awsError("InvalidGroup.NotFound", `The security group '${name}' does not exist in default VPC '${vpcId}'`);

export const groupInUse = (groupId: string): AwsError =>
  awsError("DependencyViolation", `resource ${groupId} has a dependent object`);

export const groupCannotDelete = (groupId: string, name: string): AwsError =>
  awsError("CannotDelete", `the specified group: "${groupId}" name: "${name}" cannot be deleted by a user`);

export const groupLimitExceeded = (): AwsError =>
  awsError("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.");

export const noDefaultVpc = (): AwsError => awsError("VPCIdNotSpecified", "No default VPC for this user");

export const noDefaultVpcForName = (): AwsError =>
  awsError(
    "VPCIdNotSpecified",
    "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.",
  );

export const ruleDuplicate = (text: string): AwsError =>
  awsError("InvalidPermission.Duplicate", `the specified rule "${text}" already exists`);

export const ruleRepeated = (): AwsError => invalidParameterValue("The same permission must not appear multiple times");

export const ruleNotFound = (): AwsError =>
  awsError("InvalidPermission.NotFound", "The specified rule does not exist in this security group.");

export const ruleLimitExceeded = (): AwsError =>
  awsError("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.");

export const ruleMalformed = (message: string): AwsError => awsError("InvalidPermission.Malformed", message);

export const sourceMissing = (): AwsError =>
  awsError("MissingParameter", "Missing source specification: include source security group or CIDR information");

export const prefixListNotFound = (id: string): AwsError =>
  awsError("InvalidPrefixListID.NotFound", `The prefix list ID '${id}' does not exist`);

export const cidrMalformed = (text: string): AwsError => invalidParameterValue(`CIDR block ${text} is malformed`);
