/**
 * `hive image import`: from an upload to an AMI. The bytes are looked at as a stranger's, put in place whole, and only then
 * does a record name them: a crash between leaves files without a record, which the next start sweeps.
 */
import { z } from "zod";
import { fail, type Result } from "../lib/result.ts";
import { GIB } from "../lib/units.ts";
import { type AwsError, awsError, invalidParameterValue } from "../model/errors.ts";
import type { ImageId, SnapshotId } from "../model/ids.ts";

/** The largest EBS volume there is (io2 Block Express). */
const VIRTUAL_BYTES_MAX = 64 * 1024 * GIB;

export const importRequest = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9 ()./_'@[\]-]{3,128}$/, "has 3 to 128 letters, digits, spaces and ()[]./-'@_"),
  description: z.string().max(255).optional(),
  disk: z.string().regex(/^[0-9a-f]{32}$/),
  kernel: z
    .string()
    .regex(/^[0-9a-f]{32}$/)
    .optional(),
  initrd: z
    .string()
    .regex(/^[0-9a-f]{32}$/)
    .optional(),
  kernelCommandLine: z.string().max(2048).optional(),
  rootDeviceName: z
    .string()
    .regex(/^\/dev\/[a-z0-9]+$/)
    .default("/dev/xvda"),
  bootMode: z.enum(["legacy-bios", "uefi", "uefi-preferred"]).default("legacy-bios"),
  architecture: z.enum(["x86_64", "arm64", "i386"]).default("x86_64"),
});
export type ImportRequest = z.infer<typeof importRequest>;

/** What an imported image is, once its files are in place. */
export interface ImportedFiles {
  readonly snapshotId: SnapshotId;
  /** Bytes that a guest sees. */
  readonly virtualBytes: number;
  readonly direct: { readonly kernel: boolean; readonly initrd: boolean };
}

/** A failure of the host, as this module needs it. */
interface HostFailure {
  readonly kind: string;
  readonly message: string;
}

/** What importing needs of the node. */
export interface ImportPorts {
  newSnapshotId(): SnapshotId;
  uploadFile(uploadId: string): string;
  /** `bad-image` for a file that is no disk image, or one that refers to others. */
  inspect(
    file: string,
  ): Promise<Result<{ readonly format: "qcow2" | "raw"; readonly virtualBytes: number }, HostFailure>>;
  toQcow2(from: { file: string; format: "qcow2" | "raw" }, to: string): Promise<Result<void, HostFailure>>;
  place(
    snapshotId: SnapshotId,
    files: { disk: string; kernel?: string | undefined; initrd?: string | undefined },
  ): Promise<Result<void, HostFailure>>;
  remove(snapshotId: SnapshotId): Promise<void>;
  forget(uploadId: string): Promise<void>;
  /** Commits the snapshot's and the image's records in one transaction. */
  register(request: ImportRequest, files: ImportedFiles): Promise<Result<ImageId, AwsError>>;
}

/** Imports an image. On any failure nothing is registered; in any case the uploads are gone afterwards. */
export async function importImage(request: ImportRequest, ports: ImportPorts): Promise<Result<ImageId, AwsError>> {
  const imported = await importUploads(request, ports);
  for (const upload of [request.disk, converted(request.disk), request.kernel, request.initrd]) {
    if (upload !== undefined) await ports.forget(upload);
  }
  return imported;
}

/** What a disk of another format is converted to lies beside it, and is swept with it. */
const converted = (uploadId: string) => `${uploadId}.qcow2`;

async function importUploads(request: ImportRequest, ports: ImportPorts): Promise<Result<ImageId, AwsError>> {
  if (request.kernelCommandLine !== undefined && request.kernel === undefined) {
    return fail(invalidParameterValue("kernelCommandLine is given without a kernel"));
  }
  if (request.initrd !== undefined && request.kernel === undefined) {
    return fail(invalidParameterValue("an initrd is given without a kernel"));
  }
  const uploaded = ports.uploadFile(request.disk);
  const seen = await ports.inspect(uploaded);
  if (!seen.ok) return fail(imageRefused(seen.error));
  if (seen.value.virtualBytes > VIRTUAL_BYTES_MAX)
    return fail(invalidParameterValue("the image is larger than 64 TiB"));

  let disk = uploaded;
  if (seen.value.format !== "qcow2") {
    disk = ports.uploadFile(converted(request.disk));
    const made = await ports.toQcow2({ file: uploaded, format: seen.value.format }, disk);
    if (!made.ok) return fail(imageRefused(made.error));
  }
  const snapshotId = ports.newSnapshotId();
  const file = (upload: string | undefined) => (upload === undefined ? undefined : ports.uploadFile(upload));
  const placed = await ports.place(snapshotId, { disk, kernel: file(request.kernel), initrd: file(request.initrd) });
  if (!placed.ok) return fail(imageRefused(placed.error));

  const registered = await ports.register(request, {
    snapshotId,
    virtualBytes: seen.value.virtualBytes,
    direct: { kernel: request.kernel !== undefined, initrd: request.initrd !== undefined },
  });
  if (!registered.ok) await ports.remove(snapshotId);
  return registered;
}

function imageRefused(error: HostFailure): AwsError {
  if (error.kind === "no-space") return awsError("InsufficientDiskSpace", error.message, 507);
  if (error.kind === "bad-image" || error.kind === "not-found") return invalidParameterValue(error.message);
  return awsError("ImportFailed", error.message, 500);
}
