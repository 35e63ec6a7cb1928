/** The plain options of an instance, read from a request: user data, metadata options, CPU options and the like. */
import { fail, ok, type Result } from "../lib/result.ts";
import { KIB } from "../lib/units.ts";
import {
  type AwsError,
  awsError,
  invalidParameterCombination,
  invalidParameterValue,
  invalidValueFor,
} from "../model/errors.ts";
import type { InstanceRecord, MetadataOptions, PrivateDnsNameOptions } from "../model/instance.ts";
import type {
  CpuOptionsRequest,
  InstanceMetadataOptionsRequest,
  PrivateDnsNameOptionsRequest,
} from "../schema/ec2/types.ts";
import { notYet } from "./errors.ts";
import { defaultCpuOptions, type InstanceType } from "./instance-types.ts";

export const USER_DATA_BYTES_MAX = 16 * KIB;

/** One of a closed set of words. Errors: InvalidParameterValue. */
export const oneOf = <W extends string>(name: string, text: string, words: readonly W[]): Result<W, AwsError> =>
  words.includes(text as W) ? ok(text as W) : fail(invalidValueFor(name, text));

/** Base64 user data, kept as it came but for white space. `undefined` for none. Errors: InvalidUserData.Malformed, InvalidParameterValue. */
export function parseUserData(text: string | undefined): Result<string | undefined, AwsError> {
  if (text === undefined || text === "") return ok(undefined);
  const compact = text.replace(/\s/g, "");
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(compact) || compact.replace(/=/g, "").length % 4 === 1)
    return fail(awsError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."));
  return sized(compact);
}

/** User data as bytes. Errors: InvalidParameterValue above 16 KiB. */
export const userDataOf = (bytes: Uint8Array): Result<string | undefined, AwsError> =>
  bytes.length === 0 ? ok(undefined) : sized(Buffer.from(bytes).toString("base64"));

function sized(base64: string): Result<string, AwsError> {
  const bytes = Math.floor((base64.replace(/=/g, "").length * 3) / 4);
  return bytes > USER_DATA_BYTES_MAX
    ? fail(invalidParameterValue(`User data is limited to ${USER_DATA_BYTES_MAX} bytes`))
    : ok(base64);
}

/** Metadata options of a new instance. IMDSv1 stays open where the image does not say v2.0, as on EC2. */
export const defaultMetadataOptions = (imdsSupport: string | undefined): MetadataOptions => ({
  httpTokens: imdsSupport === "v2.0" ? "required" : "optional",
  httpEndpoint: "enabled",
  httpPutResponseHopLimit: imdsSupport === "v2.0" ? 2 : 1,
  httpProtocolIpv6: "disabled",
  instanceMetadataTags: "disabled",
});

/** `before` with what a request changes. Errors: InvalidParameterValue, InvalidParameterCombination. */
export function changeMetadataOptions(
  before: MetadataOptions,
  asked: InstanceMetadataOptionsRequest,
): Result<MetadataOptions, AwsError> {
  const tokens = oneOf("HttpTokens", asked.HttpTokens ?? before.httpTokens, ["optional", "required"]);
  if (!tokens.ok) return tokens;
  const endpoint = oneOf("HttpEndpoint", asked.HttpEndpoint ?? before.httpEndpoint, ["enabled", "disabled"]);
  if (!endpoint.ok) return endpoint;
  const ipv6 = oneOf("HttpProtocolIpv6", asked.HttpProtocolIpv6 ?? before.httpProtocolIpv6, ["enabled", "disabled"]);
  if (!ipv6.ok) return ipv6;
  const tags = oneOf("InstanceMetadataTags", asked.InstanceMetadataTags ?? before.instanceMetadataTags, [
    "enabled",
    "disabled",
  ]);
  if (!tags.ok) return tags;
  if (ipv6.value === "enabled") return fail(notYet("The metadata service over IPv6"));
  const hops = asked.HttpPutResponseHopLimit ?? before.httpPutResponseHopLimit;
  if (!Number.isInteger(hops) || hops < 1 || hops > 64)
    return fail(invalidValueFor("HttpPutResponseHopLimit", String(hops), "It must be between 1 and 64."));
  return ok({
    httpTokens: tokens.value,
    httpEndpoint: endpoint.value,
    httpPutResponseHopLimit: hops,
    httpProtocolIpv6: ipv6.value,
    instanceMetadataTags: tags.value,
  });
}

/** Cores and threads. Errors: InvalidParameterValue, InvalidParameterCombination, UnsupportedOperation. */
export function cpuOptions(
  type: InstanceType,
  asked: CpuOptionsRequest | undefined,
): Result<InstanceRecord["cpuOptions"], AwsError> {
  const whole = defaultCpuOptions(type);
  if (!asked) return ok(whole);
  if (asked.AmdSevSnp === "enabled") return fail(notYet("AMD SEV-SNP"));
  if (asked.NestedVirtualization === "enabled") return fail(notYet("Nested virtualization"));
  if (asked.CoreCount === undefined && asked.ThreadsPerCore === undefined) return ok(whole);
  if (type.hypervisor === "xen")
    return fail(invalidParameterCombination(`CpuOptions are not supported for instance type ${type.name}.`));
  const coreCount = asked.CoreCount ?? whole.coreCount;
  const threadsPerCore = asked.ThreadsPerCore ?? whole.threadsPerCore;
  if (!Number.isInteger(coreCount) || coreCount < 1 || coreCount > whole.coreCount)
    return fail(
      invalidValueFor("CoreCount", String(coreCount), `Instance type ${type.name} has 1 to ${whole.coreCount}.`),
    );
  if (!Number.isInteger(threadsPerCore) || threadsPerCore < 1 || threadsPerCore > whole.threadsPerCore)
    return fail(
      invalidValueFor(
        "ThreadsPerCore",
        String(threadsPerCore),
        `Instance type ${type.name} has 1 to ${whole.threadsPerCore}.`,
      ),
    );
  return ok({ coreCount, threadsPerCore });
}

export function privateDnsNameOptions(
  before: PrivateDnsNameOptions,
  asked: PrivateDnsNameOptionsRequest | undefined,
): Result<PrivateDnsNameOptions, AwsError> {
  const type = oneOf("HostnameType", asked?.HostnameType ?? before.hostnameType, ["ip-name", "resource-name"]);
  if (!type.ok) return type;
  return ok({
    hostnameType: type.value,
    enableResourceNameDnsARecord: asked?.EnableResourceNameDnsARecord ?? before.enableResourceNameDnsARecord,
    enableResourceNameDnsAAAARecord: asked?.EnableResourceNameDnsAAAARecord ?? before.enableResourceNameDnsAAAARecord,
  });
}
