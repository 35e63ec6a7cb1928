/**
 * Disk images by way of qemu-img. The format is always named, never guessed by QEMU; a new image is made under a temporary name,
 * synced, then renamed: a crash leaves no half image under a name that counts.
 */
import { randomBytes } from "node:crypto";
import { link, open, rename, stat, unlink } from "node:fs/promises";
import { basename, dirname, isAbsolute, join } from "node:path";
import { assert } from "../lib/assert.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { GIB, HOUR_MS, MINUTE_MS } from "../lib/units.ts";
import { type DiskFormat, detectFormat, HEAD_BYTES, VIRTUAL_BYTES_MAX } from "./disk-format.ts";
import { badImage, type HostError, ioFailed, missingProgram } from "./host-error.ts";
import { run, runChecked, searchPath } from "./run.ts";

export type { DiskFormat } from "./disk-format.ts";

export type InspectedImage = {
  readonly format: DiskFormat;
  /** What a guest sees, in bytes. */
  readonly virtualBytes: number;
  /** Length of the file, in bytes. */
  readonly fileBytes: number;
};

/** What qemu-img may use on a file that a stranger made: a crafted header must not eat the host. */
const INSPECT_ADDRESS_SPACE_BYTES = 4 * GIB;
const INSPECT_CPU_SECONDS = 60;

/**
 * Says what a disk image is, treating it as hostile: qcow2 or raw only; no backing file, external data file, encryption or unknown
 * feature; a sane virtual size; and for qcow2 sound tables that lie within the file. Changes nothing.
 * @returns `bad-image` with the reason, or another kind when the file can't be read
 */
export async function inspectImage(file: string): Promise<Result<InspectedImage, HostError>> {
  const read = await readHead(file);
  if (!read.ok) return read;
  const { head, fileBytes } = read.value;
  const detected = detectFormat(head, fileBytes);
  if (!detected.ok) return fail(badImage(file, detected.error));
  const { format } = detected.value;
  if (format === "raw") return ok({ format, virtualBytes: fileBytes, fileBytes });

  const info = await confined(["info", "-f", format, "--output=json", `file:${file}`]);
  if (!info.ok) return info;
  if (info.value.code !== 0) return fail(badImage(file, `cannot be read as ${format}: ${lastLine(info.value.stderr)}`));
  const described = parseInfo(info.value.stdout);
  if (!described) return fail(badImage(file, "qemu-img could not describe it"));
  // Checked in the header already; asked again of the program that will open it.
  if (described.backing) return fail(badImage(file, "refers to a backing file"));
  if (described.virtualBytes !== detected.value.virtualBytes) {
    return fail(badImage(file, "changed while it was being read"));
  }
  const check = await confined(["check", "-f", format, "--output=json", `file:${file}`], 10 * MINUTE_MS);
  if (!check.ok) return check;
  // 0 sound, 3 sound but with unused clusters; 2 corrupt, 1 could not be checked.
  if (check.value.code !== 0 && check.value.code !== 3) {
    return fail(badImage(file, "is damaged or cut short: its qcow2 tables point at data that is not there"));
  }
  return ok({ format, virtualBytes: described.virtualBytes, fileBytes });
}

async function readHead(file: string): Promise<Result<{ head: Buffer; fileBytes: number }, HostError>> {
  try {
    const stats = await stat(file); // before opening: opening a FIFO would wait for its writer
    if (!stats.isFile()) return fail(badImage(file, "is not a regular file"));
    if (stats.size === 0) return fail(badImage(file, "is empty"));
    return ok({ head: Buffer.from(await Bun.file(file).slice(0, HEAD_BYTES).arrayBuffer()), fileBytes: stats.size });
  } catch (cause) {
    return fail(ioFailed(`read ${file}`, cause));
  }
}

/** qemu-img under resource limits. `file:` before a name keeps QEMU from reading a protocol into it. */
async function confined(args: readonly string[], timeoutMs = MINUTE_MS) {
  const qemuImg = Bun.which("qemu-img", { PATH: searchPath() });
  if (!qemuImg) return fail(missingProgram("qemu-img"));
  const limits = [`--as=${INSPECT_ADDRESS_SPACE_BYTES}`, `--cpu=${INSPECT_CPU_SECONDS}`];
  return run(["prlimit", ...limits, "--", qemuImg, ...args], { timeoutMs });
}

function parseInfo(json: string): { virtualBytes: number; backing: boolean } | undefined {
  try {
    const info: unknown = JSON.parse(json);
    if (typeof info !== "object" || info === null || !("virtual-size" in info)) return undefined;
    const virtualBytes = info["virtual-size"];
    if (typeof virtualBytes !== "number" || !Number.isSafeInteger(virtualBytes)) return undefined;
    return { virtualBytes, backing: "backing-filename" in info };
  } catch {
    return undefined;
  }
}

const lastLine = (text: string): string => text.trim().split("\n").at(-1) ?? "";

export type NewVolume = {
  readonly file: string;
  readonly format: DiskFormat;
  /** Bytes; whole sectors. With a backing image at least that image's virtual size, or the guest loses its end. */
  readonly sizeBytes: number;
  /** qcow2 only: the image whose content the volume starts with. It must stay where it is, unchanged. */
  readonly backing?: { readonly file: string; readonly format: DiskFormat };
};

/**
 * Makes a sparse volume, empty or over a backing image, in milliseconds whatever its size.
 * An existing `file` is an error (`io`): a volume's data is never written over.
 */
export async function createVolume(volume: NewVolume, signal?: AbortSignal): Promise<Result<void, HostError>> {
  const { file, format, sizeBytes, backing } = volume;
  assertPath(file);
  assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % 512 === 0, "a volume is whole sectors");
  assert(sizeBytes <= VIRTUAL_BYTES_MAX, "a volume is no larger than EBS allows");
  assert(backing === undefined || format === "qcow2", "only qcow2 has a backing image");
  const backingArguments: string[] = [];
  if (backing) {
    assertPath(backing.file);
    backingArguments.push("-b", backing.file, "-F", backing.format);
  }
  return underTemporaryName(file, "keep-existing", (temporary) =>
    runChecked(
      ["qemu-img", "create", "-q", "-f", format, ...backingArguments, temporary, String(sizeBytes)],
      withSignal(signal),
    ),
  );
}

export type Conversion = {
  readonly from: { readonly file: string; readonly format: DiskFormat };
  readonly to: { readonly file: string; readonly format: DiskFormat };
  /** qcow2 only: compress each cluster (zstd). Reads stay cheap; what a guest writes is not compressed. */
  readonly compress?: boolean;
};

/** Copies an image into a new file of the given format, flattened (no backing file) and sparse. Replaces `to.file`, atomically. */
export async function convertImage(conversion: Conversion, signal?: AbortSignal): Promise<Result<void, HostError>> {
  const { from, to, compress } = conversion;
  assertPath(from.file);
  assertPath(to.file);
  assert(!compress || to.format === "qcow2", "only qcow2 compresses");
  const compression = compress ? ["-c", "-o", "compression_type=zstd"] : [];
  return underTemporaryName(to.file, "replace", (temporary) =>
    runChecked(
      ["qemu-img", "convert", "-q", "-f", from.format, "-O", to.format, ...compression, from.file, temporary],
      {
        ...withSignal(signal),
        timeoutMs: 6 * HOUR_MS,
      },
    ),
  );
}

/** Makes a volume that no machine has open larger. Shrinking would cut a guest's data off and is an error of QEMU's. */
export async function resizeVolume(
  file: string,
  format: DiskFormat,
  sizeBytes: number,
): Promise<Result<void, HostError>> {
  assertPath(file);
  assert(
    Number.isSafeInteger(sizeBytes) && sizeBytes % 512 === 0 && sizeBytes <= VIRTUAL_BYTES_MAX,
    "a volume is whole sectors",
  );
  const resized = await runChecked(["qemu-img", "resize", "-q", "-f", format, file, String(sizeBytes)]);
  return resized.ok ? ok(undefined) : resized;
}

const withSignal = (signal: AbortSignal | undefined) => (signal ? { signal } : {});

/** Absolute, so that QEMU reads no protocol prefix (`nbd:`, `json:`) into it, and no option into a leading dash. */
function assertPath(file: string): void {
  assert(isAbsolute(file), `an image's path is absolute: ${file}`);
}

async function underTemporaryName(
  file: string,
  existing: "replace" | "keep-existing",
  make: (temporary: string) => Promise<Result<unknown, HostError>>,
): Promise<Result<void, HostError>> {
  const temporary = join(dirname(file), `.${basename(file)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    const made = await make(temporary);
    if (!made.ok) return made;
    await syncFile(temporary);
    // link(2) refuses an existing name in the same step; rename(2) replaces it.
    if (existing === "replace") await rename(temporary, file);
    else await link(temporary, file);
    await syncFile(dirname(file));
    return ok(undefined);
  } catch (cause) {
    return fail(ioFailed(`create ${file}`, cause));
  } finally {
    await unlink(temporary).catch(() => undefined);
  }
}

/** Waits until a file's data, or a directory's names, are on disk. */
export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
