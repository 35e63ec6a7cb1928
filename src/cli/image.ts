/** `hive image`: makes an image or takes one from a file, and hands it to the daemon. */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import type { BuildOptions, BuiltImage } from "../host/image-build/built-image.ts";
import type { Result } from "../lib/result.ts";
import { CommandFailed, type Connection, ec2, hiveRequest, items, text } from "./connection.ts";
import { progress } from "./output.ts";

export const BUILDABLE = ["tiny", "debian-12"] as const;
export type Buildable = (typeof BUILDABLE)[number];
/** Builds an image from the distribution's packages; given by the process, since only it may start programs. */
export type Builders = Readonly<
  Record<Buildable, (options: BuildOptions) => Promise<Result<BuiltImage, { readonly message: string }>>>
>;

interface NewImage {
  readonly name: string;
  readonly description?: string | undefined;
  readonly disk: string;
  readonly kernel?: string | undefined;
  readonly initrd?: string | undefined;
  readonly kernelCommandLine?: string | undefined;
  readonly rootDeviceName?: string | undefined;
  readonly bootMode?: string | undefined;
}

/** The account's own image with this name, if there is one. */
export async function findImage(connection: Connection, name: string): Promise<string | undefined> {
  const answer = await ec2(connection, "DescribeImages", {
    "Owner.1": "self",
    "Filter.1.Name": "name",
    "Filter.1.Value.1": name,
  });
  const found = items(answer.imagesSet)[0];
  return found && text(found.imageId);
}

/** Builds an image and registers it; one that is registered already is not built again. @returns its `ami-…` id */
export async function buildImage(
  connection: Connection,
  which: Buildable,
  builders: Builders,
  options: { readonly name?: string | undefined; readonly cacheDirectory: string; readonly workDirectory: string },
): Promise<string> {
  const step = progress(`Building the image ${which}`);
  const built = await builders[which]({
    cacheDirectory: options.cacheDirectory,
    workDirectory: options.workDirectory,
    onProgress: (message) => step.update(message),
  });
  if (!built.ok) {
    step.fail();
    throw new CommandFailed(built.error.message);
  }
  const image = built.value;
  step.done(image.name);
  const name = options.name ?? image.name;
  const existing = await findImage(connection, name);
  if (existing) return existing;
  return registerImage(connection, {
    name,
    description: image.description,
    disk: image.file,
    kernel: image.kernelFile,
    initrd: image.initrdFile,
    kernelCommandLine: image.kernelCommandLine,
    rootDeviceName: image.rootDeviceName,
    bootMode: image.bootMode,
  });
}

/** Uploads a disk image and registers it as an AMI. @returns its `ami-…` id */
export async function registerImage(connection: Connection, image: NewImage): Promise<string> {
  const { disk, kernel, initrd, ...facts } = image;
  const uploads = {
    disk: await upload(connection, disk),
    kernel: kernel === undefined ? undefined : await upload(connection, kernel),
    initrd: initrd === undefined ? undefined : await upload(connection, initrd),
  };
  const step = progress(`Registering ${image.name}`);
  try {
    const response = await hiveRequest(connection, "POST", "/_hive/images", JSON.stringify({ ...facts, ...uploads }));
    const { imageId } = (await response.json()) as { imageId: string };
    step.done(imageId);
    return imageId;
  } catch (cause) {
    step.fail();
    throw cause;
  }
}

async function upload(connection: Connection, file: string): Promise<string> {
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile()) throw new CommandFailed(`${file} is not a file`);
  const total = found.size;
  const step = progress(`Uploading ${basename(file)}`);
  let sent = 0;
  const counted = Bun.file(file)
    .stream()
    .pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, controller) {
          sent += chunk.byteLength;
          if (process.stderr.isTTY) step.update(`${Math.floor((100 * sent) / Math.max(total, 1))} % of ${mib(total)}`);
          controller.enqueue(chunk);
        },
      }),
    );
  try {
    const response = await hiveRequest(connection, "POST", "/_hive/uploads", { stream: counted, bytes: total });
    const { uploadId } = (await response.json()) as { uploadId: string };
    step.done(mib(total));
    return uploadId;
  } catch (cause) {
    step.fail();
    throw cause;
  }
}

const mib = (bytes: number) => `${(bytes / (1024 * 1024)).toFixed(1)} MiB`;
