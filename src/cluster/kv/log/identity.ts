/**
 * The file `identity` in a store's directory: whose log this is. A node that found itself with another cluster's log
 * would bring entries into its own that nobody agreed on, and one that found another node's, a second voice for it.
 *
 * It is written once, after the log was begun: a directory that has it had a log, so a log that is missing was lost.
 * JSON in one line: {"format": 1, "clusterId", "nodeId", "createdAt" (ISO 8601), "crc" (CRC-32 of the text without it)}.
 */
import { assert } from "../../../lib/assert.ts";
import { fail, ok, type Result } from "../../../lib/result.ts";
import { type Disk, errorCode } from "../disk.ts";
import { type LogError, UNKNOWN_VOTE } from "./log-storage.ts";
import { attempt } from "./segment-files.ts";

export const IDENTITY_NAME = "identity";
const FORMAT = 1;
const BYTES_MAX = 4096;
const NAME_CHARACTERS_MAX = 64;

export type Identity = {
  readonly clusterId: string;
  readonly nodeId: string;
  /** ISO 8601. */
  readonly createdAt: string;
};

/** `foreign`: the directory belongs to another cluster or node. `newer`: a later version of Hive wrote the file. */
export type IdentityError = { readonly reason: "foreign" | "corrupt" | "newer"; readonly message: string };

/** The identity of a directory's log, or undefined when there is none (yet). */
export async function loadIdentity(
  disk: Disk,
  directory: string,
): Promise<Result<Identity | undefined, IdentityError | LogError>> {
  const path = `${directory}/${IDENTITY_NAME}`;
  const read = await attempt("reading the identity", async () => {
    try {
      const file = await disk.open(path, "read");
      try {
        return Buffer.from(await file.read(0, BYTES_MAX)).toString();
      } finally {
        await file.close();
      }
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
  });
  if (!read.ok) return read;
  return read.value === undefined ? ok(undefined) : parse(path, read.value);
}

/** Gives a directory its identity, which it has not got yet. Durable when it resolves; whole or not there after a crash. */
export function createIdentity(disk: Disk, directory: string, identity: Identity): Promise<Result<void, LogError>> {
  assert(isName(identity.clusterId) && isName(identity.nodeId), "a cluster and a node have names");
  const path = `${directory}/${IDENTITY_NAME}`;
  const temporary = `${path}.tmp`;
  return attempt("the identity", async () => {
    await disk.remove(temporary).catch(() => {});
    const file = await disk.open(temporary, "create");
    try {
      await file.write(0, Buffer.from(textOf(identity)));
      await file.datasync();
    } finally {
      await file.close();
    }
    await disk.rename(temporary, path);
    await disk.syncDirectory(directory);
  });
}

/** Refuses an identity that is not this cluster's, or not this node's. Pure. */
export function checkIdentity(
  directory: string,
  found: Identity,
  expected: { readonly clusterId: string; readonly nodeId: string },
): Result<void, IdentityError> {
  for (const [what, key] of [
    ["cluster", "clusterId"],
    ["node", "nodeId"],
  ] as const) {
    if (found[key] === expected[key]) continue;
    return fail({
      reason: "foreign",
      message:
        `The store in ${directory} belongs to ${what} ${found[key]}, and this is ${what} ${expected[key]}. Nothing was ` +
        "changed. Give this node a directory of its own, or the settings with which that store was made.",
    });
  }
  return ok(undefined);
}

function textOf(identity: Identity): string {
  const { clusterId, nodeId, createdAt } = identity;
  const content = { format: FORMAT, clusterId, nodeId, createdAt };
  return `${JSON.stringify({ ...content, crc: Bun.hash.crc32(JSON.stringify(content)) })}\n`;
}

function parse(path: string, text: string): Result<Identity, IdentityError> {
  const corrupt: IdentityError = {
    reason: "corrupt",
    message:
      `${path} is damaged. Nothing was changed. It only says whose store this is: if you are sure that it is this ` +
      "node's, remove the file.",
  };
  let content: Record<string, unknown>;
  try {
    content = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return fail(corrupt);
  }
  if (typeof content !== "object" || content === null) return fail(corrupt);
  const { crc, ...rest } = content;
  if (crc !== Bun.hash.crc32(JSON.stringify(rest))) return fail(corrupt);
  if (typeof rest.format === "number" && rest.format > FORMAT) {
    const message = `${path} has format version ${rest.format}: a later version of Hive wrote it. Start that version.`;
    return fail({ reason: "newer", message });
  }
  const { clusterId, nodeId, createdAt } = rest;
  if (!isName(clusterId) || !isName(nodeId) || typeof createdAt !== "string") return fail(corrupt);
  return ok({ clusterId, nodeId, createdAt });
}

/** Whether this can name a cluster or a node. */
export const isName = (value: unknown): value is string =>
  typeof value === "string" && value.length > 0 && value.length <= NAME_CHARACTERS_MAX && value !== UNKNOWN_VOTE;
