/**
 * What a file that claims to be a disk image is, read from its own first bytes. Imported files are hostile: QEMU's own
 * detection believes a raw disk whose guest wrote a qcow2 header into sector 0 (CVE-2006-7193 and its kin), and a qcow2 header may name
 * another file of the host as its backing or data file. So the format is decided here, once, is always passed to QEMU explicitly,
 * and only what is understood is let through.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import { GIB } from "../lib/units.ts";

export type DiskFormat = "qcow2" | "raw";

/** The largest volume EBS has (io2 Block Express): 64 TiB. */
export const VIRTUAL_BYTES_MAX = 64 * 1024 * GIB;
/** Bytes of a file's start that {@link detectFormat} needs to see. */
export const HEAD_BYTES = 1024;

export type DetectedFormat = { readonly format: "raw" } | { readonly format: "qcow2"; readonly virtualBytes: number };

/** Other things that people take for a disk image, by the bytes they start with. */
const OTHER_FORMATS: readonly {
  readonly magic: string;
  readonly at?: number;
  readonly name: string;
  readonly convert?: true;
}[] = [
  { magic: "KDMV", name: "a VMDK image", convert: true },
  { magic: "# Disk DescriptorFile", name: "a VMDK descriptor", convert: true },
  { magic: "COWD", name: "a VMDK image", convert: true },
  { magic: "vhdxfile", name: "a VHDX image", convert: true },
  { magic: "conectix", name: "a VHD image", convert: true },
  { magic: "QED\0", name: "a QED image", convert: true },
  { magic: "<<< ", name: "a VirtualBox VDI image", convert: true },
  { magic: "WithoutFreeSpace", name: "a Parallels image", convert: true },
  { magic: "LUKS\xba\xbe", name: "an encrypted (LUKS) volume" },
  { magic: "\x1f\x8b", name: "a gzip-compressed file; unpack it first" },
  { magic: "\xfd7zXZ\0", name: "an xz-compressed file; unpack it first" },
  { magic: "\x28\xb5\x2f\xfd", name: "a zstd-compressed file; unpack it first" },
  { magic: "BZh", name: "a bzip2-compressed file; unpack it first" },
  { magic: "PK\x03\x04", name: "a zip archive; unpack it first" },
  { magic: "\x7fELF", name: "an ELF program" },
  { magic: "ustar", at: 257, name: "a tar archive; unpack it first" },
];

/**
 * Decides what `head` starts. Pure.
 * @param head the file's first {@link HEAD_BYTES} bytes, or all of it when it is shorter
 * @param fileBytes the file's length
 * @returns the format, or one clause that says why the file is refused
 */
export function detectFormat(head: Uint8Array, fileBytes: number): Result<DetectedFormat, string> {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const text = bytes.toString("latin1");
  if (text.startsWith("QFI\xfb")) return detectQcow2(bytes);
  const other = OTHER_FORMATS.find(({ magic, at }) => text.startsWith(magic, at ?? 0));
  if (other) {
    const mend = other.convert ? "; convert it first: qemu-img convert -O qcow2 FILE NEW.qcow2" : "";
    return fail(`is neither a qcow2 nor a raw disk image but ${other.name}${mend}`);
  }
  // A raw image has no magic of its own. What makes it a disk is a boot record or a partition table (both end in 55 AA;
  // a GUID partition table starts in the second sector).
  const bootRecord = fileBytes >= 512 && text.startsWith("\x55\xaa", 510);
  const gpt = text.startsWith("EFI PART", 512);
  if (!bootRecord && !gpt) {
    return fail("is not a disk image: it has neither a qcow2 header nor a boot record or partition table");
  }
  if (fileBytes % 512 !== 0)
    return fail(`is a raw disk image cut short: ${fileBytes} bytes are not whole 512-byte sectors`);
  if (fileBytes > VIRTUAL_BYTES_MAX) return fail(`is larger than ${VIRTUAL_BYTES_MAX / GIB} GiB`);
  return ok({ format: "raw" });
}

/** Incompatible feature bits of a version 3 header (QEMU's docs/interop/qcow2.txt). */
const DIRTY = 1n;
const CORRUPT = 2n;
const EXTERNAL_DATA_FILE = 4n;
const COMPRESSION_TYPE = 8n;
const EXTENDED_L2 = 16n;
const KNOWN_FEATURES = DIRTY | CORRUPT | EXTERNAL_DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;

/**
 * Reads a qcow2 header. Big-endian; offsets in bytes (QEMU's docs/interop/qcow2.txt):
 *   0 u32 magic   4 u32 version   8 u64 backing file offset   16 u32 backing file length   20 u32 cluster bits
 *   24 u64 virtual size   32 u32 encryption   36 u32 L1 entries   40 u64 L1 offset   72 u64 incompatible features (version 3)
 */
function detectQcow2(bytes: Buffer): Result<DetectedFormat, string> {
  if (bytes.length < 104) return fail("is a qcow2 image cut short within its header");
  const version = bytes.readUInt32BE(4);
  if (version !== 2 && version !== 3)
    return fail(`is a qcow image of version ${version}; only qcow2 versions 2 and 3 are known`);
  if (bytes.readBigUInt64BE(8) !== 0n) {
    return fail("refers to a backing file; flatten it first: qemu-img convert -O qcow2 FILE NEW.qcow2");
  }
  const clusterBits = bytes.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21)
    return fail(`has a qcow2 cluster size of 2^${clusterBits}, which is not allowed`);
  if (bytes.readUInt32BE(32) !== 0) return fail("is an encrypted qcow2 image");
  const virtualBytes = bytes.readBigUInt64BE(24);
  if (virtualBytes === 0n) return fail("has a virtual size of 0 bytes");
  if (virtualBytes > BigInt(VIRTUAL_BYTES_MAX)) {
    return fail(`has a virtual size of ${virtualBytes} bytes, more than ${VIRTUAL_BYTES_MAX / GIB} GiB`);
  }
  const features = version === 3 ? bytes.readBigUInt64BE(72) : 0n;
  if (features & EXTERNAL_DATA_FILE) return fail("keeps its data in an external file, which is refused");
  if (features & CORRUPT) return fail("is marked as corrupt; repair it first: qemu-img check -r all FILE");
  if (features & ~KNOWN_FEATURES) return fail(`uses qcow2 features that are not known (0x${features.toString(16)})`);
  return ok({ format: "qcow2", virtualBytes: Number(virtualBytes) });
}
