/** CreateTags, DeleteTags and DescribeTags, for resources of every kind. */
import { fail, ok, type Result } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import { type AwsError, awsError, invalidParameterValue, missingParameter } from "../model/errors.ts";
import type { Call, Describe, Mutation } from "../model/operation.ts";
import { put, remove, type Write } from "../model/store.ts";
import { tags as tagsTable } from "../model/tables.ts";
import { parseTags, TAGS_PER_RESOURCE_MAX, tagLimitExceeded } from "../model/tags.ts";
import { memoView } from "../model/view.ts";
import type {
  CreateTagsRequest,
  DeleteTagsRequest,
  DescribeTagsRequest,
  DescribeTagsResult,
  ResourceType,
  TagDescription,
  Unit,
} from "../schema/ec2/types.ts";
import { allOwned } from "./owned.ts";
import { resourceTypeOf } from "./taggable.ts";

/** Resources of one call, as on EC2. */
const RESOURCES_MAX = 1000;

/** The resources that are named, each once, with EC2's word for their kind. */
function findResources(ids: readonly string[] | undefined, call: Call): Result<Map<string, string>, AwsError> {
  if (!ids?.length) return fail(missingParameter("resourceIdSet"));
  if (ids.length > RESOURCES_MAX)
    return fail(invalidParameterValue(`The request names ${ids.length} resources; the maximum is ${RESOURCES_MAX}.`));
  const found = new Map<string, string>();
  for (const id of ids) {
    const type = resourceTypeOf(id, call);
    if (!type.ok) return type;
    found.set(id, type.value);
  }
  return ok(found);
}

export const createTags: Mutation<CreateTagsRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    if (!input.Tags?.length) return fail(missingParameter("Tag"));
    const added = parseTags(input.Tags);
    if (!added.ok) return added;
    const resources = findResources(input.Resources, call);
    if (!resources.ok) return resources;
    const writes: Write[] = [];
    for (const [resourceId, resourceType] of resources.value) {
      const before = call.state.get(tagsTable, resourceId);
      const tags = { ...before?.tags, ...added.value };
      if (Object.keys(tags).length > TAGS_PER_RESOURCE_MAX) return fail(tagLimitExceeded());
      writes.push(put(tagsTable, { resourceId, resourceType, accountId: call.accountId, region: call.region, tags }));
    }
    return ok({ writes, output: {} });
  },
};

/** Without tags: all of them. A tag without a value goes whatever its value is; one with a value only when it has that. */
export const deleteTags: Mutation<DeleteTagsRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    const resources = findResources(input.Resources, call);
    if (!resources.ok) return resources;
    for (const tag of input.Tags ?? []) {
      if (!tag.Key) return fail(invalidParameterValue("Tag key cannot be null or empty."));
      if (tag.Key.toLowerCase().startsWith("aws:"))
        return fail(awsError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use"));
    }
    const writes: Write[] = [];
    for (const resourceId of resources.value.keys()) {
      const before = call.state.get(tagsTable, resourceId);
      if (!before) continue;
      const goes = ([key, value]: [string, string]) =>
        !input.Tags?.length ||
        input.Tags.some((tag) => tag.Key === key && (tag.Value === undefined || tag.Value === value));
      const kept = Object.entries(before.tags).filter((entry) => !goes(entry));
      if (kept.length === Object.keys(before.tags).length) continue;
      writes.push(
        kept.length === 0
          ? remove(tagsTable, resourceId)
          : put(tagsTable, { ...before, tags: Object.fromEntries(kept) }),
      );
    }
    return ok({ writes, output: {} });
  },
};

/** A resource's tags as DescribeTags lists them. */
const viewTags = memoView((record: TagsRecord) => ({
  items: Object.entries(record.tags).map(
    ([Key, Value]): TagDescription => ({
      ResourceId: record.resourceId,
      ResourceType: record.resourceType as ResourceType,
      Key,
      Value,
    }),
  ),
}));

export const describeTags: Describe<DescribeTagsRequest, DescribeTagsResult, TagDescription> = {
  kind: "describe",
  list: (_input, call) => ok(allOwned(call, tagsTable).flatMap((record) => viewTags(record).items)),
  page: { min: 5, max: 1000, key: (tag) => `${tag.ResourceId}/${tag.Key}` },
  answer: (items) => ({ Tags: items }),
};
