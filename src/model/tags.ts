/** Tags that come with a request that makes a resource, and the record that keeps them. */
import { fail, ok, type Result } from "../lib/result.ts";
import type { TagsRecord } from "./common-records.ts";
import { type AwsError, awsError, invalidParameterValue } from "./errors.ts";

export const TAGS_PER_RESOURCE_MAX = 50;
export const TAG_KEY_LENGTH_MAX = 128;
export const TAG_VALUE_LENGTH_MAX = 256;

type WireTag = { readonly Key?: string | undefined; readonly Value?: string | undefined };
type WireTagSpecification = {
  readonly ResourceType?: string | undefined;
  readonly Tags?: readonly WireTag[] | undefined;
};
export type Tags = { readonly [key: string]: string };

/**
 * Reads a list of tags. A tag without a value has the empty one. Errors: InvalidParameterValue for a reserved, empty,
 * overlong or repeated key and an overlong value; TagLimitExceeded above 50.
 */
export function parseTags(tags: readonly WireTag[]): Result<Tags, AwsError> {
  const found = new Map<string, string>();
  for (const { Key: key = "", Value: value = "" } of tags) {
    if (key === "") return fail(invalidParameterValue("Tag key cannot be null or empty."));
    if (key.length > TAG_KEY_LENGTH_MAX)
      return fail(invalidParameterValue(`Tag key exceeds the maximum length of ${TAG_KEY_LENGTH_MAX} characters`));
    if (value.length > TAG_VALUE_LENGTH_MAX)
      return fail(invalidParameterValue(`Tag value exceeds the maximum length of ${TAG_VALUE_LENGTH_MAX} characters`));
    if (key.toLowerCase().startsWith("aws:"))
      return fail(invalidParameterValue("Tag keys starting with 'aws:' are reserved for internal use"));
    if (found.has(key)) return fail(invalidParameterValue(`Duplicate tag key '${key}' specified.`));
    found.set(key, value);
  }
  if (found.size > TAGS_PER_RESOURCE_MAX) return fail(tagLimitExceeded());
  // A Map and fromEntries, so that a key such as __proto__ is a key like any other.
  return ok(Object.fromEntries(found));
}

export const tagLimitExceeded = (): AwsError =>
  awsError("TagLimitExceeded", `The maximum number of Tags for a resource has been reached.`);

/**
 * The tags that a request's TagSpecifications give to resources of this type, `{}` when none.
 * @param accepted every resource type that the operation can tag; others are refused, as on EC2
 */
export function tagsFor(
  specifications: readonly WireTagSpecification[] | undefined,
  resourceType: string,
  accepted: readonly string[] = [resourceType],
): Result<Tags, AwsError> {
  const tags: WireTag[] = [];
  for (const specification of specifications ?? []) {
    const type = specification.ResourceType;
    if (type === undefined || type === "")
      return fail(invalidParameterValue("Tag specification resource type must have a value"));
    if (!accepted.includes(type))
      return fail(invalidParameterValue(`'${type}' is not a valid taggable resource type for this operation.`));
    if (!specification.Tags?.length) return fail(invalidParameterValue("Tag specification must have at least one tag"));
    if (type === resourceType) tags.push(...specification.Tags);
  }
  return parseTags(tags);
}

/** Tags as AWS lists them, by key. */
export const tagList = (record: TagsRecord | undefined): { readonly Key: string; readonly Value: string }[] =>
  Object.entries(record?.tags ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([Key, Value]) => ({ Key, Value }));
