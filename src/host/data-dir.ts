/** The data directory's own small files: who this node is, and the AWS profile that reaches it. */
import { mkdir, open, readFile, rename, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Random, randomHex } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { type HostError, ioFailed } from "./host-error.ts";

/** Writes a file whole or not at all: aside, synced, then renamed into place. */
export async function writeFileAtomically(path: string, text: string, mode: number): Promise<void> {
  const aside = `${path}.new`;
  const file = await open(aside, "w", mode);
  try {
    await file.chmod(mode);
    await file.writeFile(text);
    await file.sync();
  } catch (cause) {
    await unlink(aside).catch(() => undefined);
    throw cause;
  } finally {
    await file.close();
  }
  await rename(aside, path);
  const directory = await open(dirname(path), "r");
  await directory.sync().finally(() => directory.close());
}

/** This node's id: made at the first start, the same ever after. `node-` and 17 hexadecimal digits. */
export async function loadNodeId(dataDir: string, random: Random): Promise<Result<string, HostError>> {
  const path = join(dataDir, "node-id");
  try {
    const found = (await readFile(path, "utf8").catch(() => "")).trim();
    if (/^node-[0-9a-f]{17}$/.test(found)) return ok(found);
    const made = `node-${randomHex(random, 17)}`;
    await mkdir(dataDir, { recursive: true, mode: 0o711 });
    await writeFileAtomically(path, `${made}\n`, 0o644);
    return ok(made);
  } catch (cause) {
    return fail(ioFailed(`write ${path}`, cause));
  }
}

export interface AwsProfileFacts {
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/**
 * Writes `DIR/aws/config` and `DIR/aws/credentials` with the profile `hive`, for the AWS CLI and SDKs. Only their owner may
 * read the secret.
 */
export async function writeAwsProfile(dataDir: string, facts: AwsProfileFacts): Promise<Result<string, HostError>> {
  const folder = join(dataDir, "aws");
  const config = `[profile hive]\nregion = ${facts.region}\nendpoint_url = ${facts.endpoint}\noutput = json\n`;
  const credentials = `[hive]\naws_access_key_id = ${facts.accessKeyId}\naws_secret_access_key = ${facts.secretAccessKey}\n`;
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeFileAtomically(join(folder, "config"), config, 0o600);
    await writeFileAtomically(join(folder, "credentials"), credentials, 0o600);
    return ok(folder);
  } catch (cause) {
    return fail(ioFailed(`write the AWS profile in ${folder}`, cause));
  }
}
