/** What a request may cost, and why. AWS's figure where AWS states one. */
import { KIB, MIB } from "../lib/units.ts";

/**
 * The body of a request to a query service (EC2, STS). The largest useful one is RunInstances with 16 KiB of user data in
 * base64 and a few hundred tags. AWS states no figure; a parameter of a million characters must still be told apart from
 * a body that is too large, and so it is one MiB.
 */
export const QUERY_BODY_BYTES_MAX = MIB;

/**
 * What is read (and thrown away) of a body that is too large, so that the client, which writes first and reads after,
 * sees the answer and not a reset connection. A body larger than this is cut off.
 */
export const DRAINED_BODY_BYTES_MAX = 16 * MIB;

/** A query string: Bun refuses request lines above 16 KiB or so with the headers; EC2's own presigned URLs stay below 8. */
export const QUERY_STRING_CHARS_MAX = 64 * KIB;

/** Headers in one request. Clients send about ten. */
export const HEADERS_MAX = 100;

/** Filters in one Describe call, and values in all of them. AWS: 200 values (FilterLimitExceeded). */
export const FILTERS_MAX = 50;
export const FILTER_VALUES_MAX = 200;
/** Characters of one filter value; the longest that could match anything is a tag's value of 256. */
export const FILTER_VALUE_CHARS_MAX = 2048;

/** Ids in one Describe call. AWS documents 1,000 for most. */
export const DESCRIBED_IDS_MAX = 1000;

/** AWS: "up to 64 ASCII characters". */
export const CLIENT_TOKEN_CHARS_MAX = 64;
/** How long a ClientToken is remembered. AWS: at least 24 hours for most operations. */
export const CLIENT_TOKEN_TTL_MS = 24 * 60 * 60 * 1000;
