/**
 * What the API references state of members' values and the SDK's schemas do not carry: lengths, ranges and patterns, as JSON
 * Schema keywords by `Structure.Member`. A list's `items` constrain its items. What AWS refuses with a code of its own
 * (InvalidAMIName.Malformed) is the handler's and not in here: a breach of these is InvalidParameterValue.
 */
export type Constraints = { readonly [member: string]: { readonly [keyword: string]: unknown } };

export const NO_CONSTRAINTS: Constraints = {};

/** A client token is up to 64 ASCII characters (EC2 API reference, "Ensuring idempotency"). */
const CLIENT_TOKEN = { maxLength: 64, pattern: "^[\\x00-\\x7f]*$" };

/** EC2's, from its API reference. */
export const EC2_CONSTRAINTS: Constraints = {
  "RunInstancesRequest.ClientToken": CLIENT_TOKEN,
  "CreateVolumeRequest.ClientToken": CLIENT_TOKEN,
  "CreateNatGatewayRequest.ClientToken": CLIENT_TOKEN,
  "CreateLaunchTemplateRequest.ClientToken": CLIENT_TOKEN,
  "CreateKeyPairRequest.KeyName": { minLength: 1, maxLength: 255 },
  "ImportKeyPairRequest.KeyName": { minLength: 1, maxLength: 255 },
  "CreateSecurityGroupRequest.GroupName": { minLength: 1, maxLength: 255 },
  "CreateSecurityGroupRequest.Description": { minLength: 1, maxLength: 255 },
};
