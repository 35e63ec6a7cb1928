/** DescribeImages: the images that an account may launch. */
import { ok } from "../lib/result.ts";
import type { ImageRecord } from "../model/image.ts";
import type { Call, Describe } from "../model/operation.ts";
import { images } from "../model/tables.ts";
import type { DescribeImagesRequest, DescribeImagesResult, Image } from "../schema/ec2/types.ts";
import { mayLaunch } from "./image-access.ts";
import { viewImage } from "./image-view.ts";

/** `self`, an account's id, or an alias; Hive has no images of `amazon` or other aliases. */
function ownedBy(image: ImageRecord, owners: readonly string[] | undefined, { accountId }: Call): boolean {
  if (!owners?.length) return true;
  return owners.some((owner) => (owner === "self" ? accountId : owner) === image.ownerId);
}

/** Who has permission to launch it: `all`, `self` or an account that it was shared with by name. */
function executableBy(image: ImageRecord, users: readonly string[] | undefined, { accountId }: Call): boolean {
  if (!users?.length) return true;
  return users.some((user) =>
    user === "all" ? image.public : image.launchAccounts.some((a) => a === (user === "self" ? accountId : user)),
  );
}

const visible = (image: ImageRecord, { accountId, region }: Call): boolean =>
  image.region === region && image.state === "available" && mayLaunch(image, accountId);

/** A deprecated image still works by its id, and its owner always sees it. */
const current = (image: ImageRecord, input: DescribeImagesRequest, { accountId, now }: Call): boolean =>
  image.deprecatedAt === undefined ||
  image.deprecatedAt > now ||
  image.ownerId === accountId ||
  input.IncludeDeprecated === true;

export const describeImages: Describe<DescribeImagesRequest, DescribeImagesResult, Image> = {
  kind: "describe",
  ids: {
    kind: "Image",
    of: (input) => input.ImageIds,
    idOf: (image) => image.ImageId!,
    get(id, _input, call) {
      const image = call.state.get(images, id);
      return image && visible(image, call) ? viewImage(image, call) : undefined;
    },
  },
  list: (input, call) =>
    ok(
      call.state
        .lookup(images, "byRegion", call.region)
        .filter(
          (image) =>
            visible(image, call) &&
            current(image, input, call) &&
            ownedBy(image, input.Owners, call) &&
            executableBy(image, input.ExecutableUsers, call),
        )
        .map((image) => viewImage(image, call)),
    ),
  filters: {
    "is-public": (image) => image.Public,
    "manifest-location": (image) => image.ImageLocation,
    "owner-alias": (image) => image.ImageOwnerAlias,
    "product-code": (image) => image.ProductCodes?.map((code) => code.ProductCodeId),
    "product-code.type": (image) => image.ProductCodes?.map((code) => code.ProductCodeType),
    // Nothing scans Hive's images, and none is bound to instance types.
    ...Object.fromEntries(
      [
        "instance-type-specification.supported-instance-type",
        "instance-type-specification.unsupported-instance-type",
        "scan-result.critical-fix-available-since",
        "scan-result.finding-scan-date",
        "scan-result.high-fix-available-since",
        "scan-result.highest-finding-severity-label",
        "scan-result.informational-fix-available-since",
        "scan-result.low-fix-available-since",
        "scan-result.medium-fix-available-since",
      ].map((name) => [name, () => undefined]),
    ),
  },
  page: { min: 1, max: 1000, key: (image) => image.ImageId! },
  // Ids and the other selections narrow each other.
  answer: (items) => ({ Images: items }),
};
