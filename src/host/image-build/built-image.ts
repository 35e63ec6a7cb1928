/** What every image builder takes and gives. */
import { chmod, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fail, ok, type Result } from "../../lib/result.ts";
import { errnoOf, type HostError, ioFailed } from "../host-error.ts";
import { syncFile } from "../qemu-img.ts";

export type BuildOptions = {
  /** Absolute. For scratch: a directory is made in it and removed again, up to 3 GB. */
  readonly workDirectory: string;
  /** Absolute. Keeps downloaded packages and finished images; may be removed at any time when no build runs. */
  readonly cacheDirectory: string;
  /** Told what is being done, as a short phrase, at each step. */
  readonly onProgress?: (message: string) => void;
  readonly signal?: AbortSignal;
};

export type BuiltImage = {
  readonly format: "qcow2";
  /** Absolute; in the cache. Copy it, or use it as it is and never write to it. */
  readonly file: string;
  /** What a guest sees: whole GiB, as EBS counts. */
  readonly virtualBytes: number;
  readonly architecture: "x86_64";
  readonly name: string;
  readonly description: string;
  readonly rootDeviceName: "/dev/xvda";
  readonly bootMode: "legacy-bios";
  /** Who logs in with the instance's key pair. */
  readonly loginUser: string;
  /** With `initrdFile` and `kernelCommandLine`, boots the same disk without firmware or boot loader (QEMU's -kernel). */
  readonly kernelFile?: string;
  readonly initrdFile?: string;
  readonly kernelCommandLine?: string;
};

/** A digest of everything that an image is made of: equal inputs name the same image. 16 hexadecimal digits. */
export function recipeKey(inputs: readonly (string | Uint8Array)[]): string {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const input of inputs) hasher.update(`${input.length}:`).update(input);
  return hasher.digest("hex").slice(0, 16);
}

/** Runs `work` with a fresh scratch directory and removes that whatever happens. */
export async function withScratch<T>(
  options: BuildOptions,
  name: string,
  work: (scratch: string) => Promise<Result<T, HostError>>,
): Promise<Result<T, HostError>> {
  let scratch: string | undefined;
  try {
    await mkdir(options.workDirectory, { recursive: true });
    scratch = await mkdtemp(join(options.workDirectory, `hive-build-${name}-`));
    return await work(scratch);
  } catch (cause) {
    return fail(ioFailed(`build the image ${name}`, cause));
  } finally {
    if (scratch) await rm(scratch, { recursive: true, force: true });
  }
}

/**
 * The directory of a finished image: taken from the cache, or filled by `make` under a temporary name, synced and renamed. Of two
 * builds of the same image that run at once, the first to finish wins and the other takes its result.
 */
export async function cachedDirectory(
  cacheDirectory: string,
  name: string,
  make: (directory: string) => Promise<Result<readonly string[], HostError>>,
): Promise<Result<{ directory: string; fromCache: boolean }, HostError>> {
  const images = join(cacheDirectory, "images");
  const directory = join(images, name);
  let temporary: string | undefined;
  try {
    if (await Bun.file(join(directory, "complete")).exists()) return ok({ directory, fromCache: true });
    await mkdir(images, { recursive: true });
    temporary = await mkdtemp(join(images, `.${name}-`));
    await chmod(temporary, 0o755); // QEMU reads it as a user of its own
    const made = await make(temporary);
    if (!made.ok) return made;
    await Bun.write(join(temporary, "complete"), "");
    for (const file of [...made.value, "complete", "."]) await syncFile(join(temporary, file));
    try {
      await rename(temporary, directory);
    } catch (cause) {
      const taken = ["ENOTEMPTY", "EEXIST"].includes(errnoOf(cause) ?? "");
      if (!taken || !(await Bun.file(join(directory, "complete")).exists())) throw cause;
    }
    await syncFile(images);
    return ok({ directory, fromCache: false });
  } catch (cause) {
    return fail(ioFailed(`keep the image in ${images}`, cause));
  } finally {
    if (temporary) await rm(temporary, { recursive: true, force: true });
  }
}
