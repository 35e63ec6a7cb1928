/** One `hive server` for all tests of a file: guests are slow to boot, so the tests of a walk-through share theirs. */
import { afterAll, beforeAll } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { HostError } from "../../src/host/host-error.ts";
import type { BuildOptions, BuiltImage } from "../../src/host/image-build/built-image.ts";
import { buildDebian12 } from "../../src/host/image-build/debian.ts";
import { buildTiny } from "../../src/host/image-build/tiny.ts";
import { present } from "../../src/lib/assert.ts";
import type { Result } from "../../src/lib/result.ts";
import { type Hive, type HiveOptions, IMAGE_CACHE, until, withHive } from "./hive.ts";

/** Starts it before the first test of the file and ends it after the last. @returns how tests get at it */
export function sharedHive(options: HiveOptions = {}): () => Hive {
  let hive: Hive | undefined;
  let finish: () => void = () => {};
  let ended: Promise<unknown> = Promise.resolve();
  beforeAll(async () => {
    const up = Promise.withResolvers<Hive>();
    const done = Promise.withResolvers<void>();
    finish = done.resolve;
    ended = withHive(async (started) => {
      up.resolve(started);
      await done.promise;
    }, options);
    ended.catch(up.reject);
    hive = await up.promise;
  }, 120_000);
  afterAll(async () => {
    finish();
    await ended;
  }, 120_000);
  return () => present(hive, "the server is started before the first test");
}

/** Makes a key pair and keeps the private key. @returns its file */
export async function newKeyPair(hive: Hive, name: string, type = "ed25519"): Promise<string> {
  const { KeyMaterial } = await hive.aws("ec2", "create-key-pair", "--key-name", name, "--key-type", type);
  const file = join(hive.node.directory, `${name}.pem`);
  writeFileSync(file, KeyMaterial, { mode: 0o600 });
  chmodSync(file, 0o600);
  return file;
}

const builders: Record<string, (options: BuildOptions) => Promise<Result<BuiltImage, HostError>>> = {
  tiny: buildTiny,
  "debian-12": buildDebian12,
};

/** Builds an image (or finds it in the cache) and registers it. @returns its AMI id */
export async function builtImage(hive: Hive, name: "tiny" | "debian-12"): Promise<string> {
  // From outside first: no mirror can be reached from the node's namespace, only the cache.
  const built = await builders[name]!({ cacheDirectory: IMAGE_CACHE, workDirectory: IMAGE_CACHE });
  if (!built.ok) throw new Error(built.error.message);
  return hive.hive("image", "build", name, "--cache-dir", IMAGE_CACHE);
}
export const tinyImage = (hive: Hive): Promise<string> => builtImage(hive, "tiny");

/** Waits until the guest has printed a line `count` times since its start; generous, as a guest under emulation is slow. */
export async function printed(hive: Hive, instanceId: string, line: string, count = 1): Promise<void> {
  let said = "";
  await until(
    async () => {
      said = await hive.hive("logs", instanceId).catch((cause) => String(cause));
      return said.split(line).length > count;
    },
    `${instanceId} prints ${line}`,
    180_000,
  ).catch((cause) => {
    throw new Error(`${cause.message}; it printed:\n${said.slice(-2000)}`);
  });
}
