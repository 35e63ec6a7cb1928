/**
 * The kernel's own ELF image, taken out of the bzImage that a distribution ships. QEMU starts an ELF with a PVH note directly: no
 * real-mode setup, and no decompression by the guest, which under TCG takes a third of a second. Format of the bzImage:
 * Linux, Documentation/arch/x86/boot.rst.
 */

/** An ELF kernel larger than this is a mistake in reading. */
const ELF_BYTES_MAX = 512 * 1024 * 1024;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;

/**
 * @returns the uncompressed kernel, if it is compressed in a way known here (LZ4: Debian; zstd: Ubuntu) and can be entered by
 *   PVH; `undefined` otherwise, and then the bzImage itself is what to boot
 */
export function extractPvhKernel(bzImage: Buffer): Buffer | undefined {
  if (bzImage.length < 0x260 || bzImage.toString("latin1", 0x202, 0x206) !== "HdrS") return undefined;
  if (bzImage.readUInt16LE(0x206) < 0x0208) return undefined; // payload_offset came with boot protocol 2.08
  const setupSectors = bzImage[0x1f1]! || 4;
  const payloadAt = (setupSectors + 1) * 512 + bzImage.readUInt32LE(0x248);
  const payloadBytes = bzImage.readUInt32LE(0x24c);
  if (payloadBytes < 8 || payloadAt + payloadBytes > bzImage.length) return undefined;
  const payload = bzImage.subarray(payloadAt, payloadAt + payloadBytes);
  // The kernel's build appends the uncompressed size to what the compressor wrote ("size_append").
  const elfBytes = payload.readUInt32LE(payload.length - 4);
  if (elfBytes > ELF_BYTES_MAX) return undefined;
  const elf = decompress(payload.subarray(0, payload.length - 4), elfBytes);
  return elf && hasPvhEntry(elf) ? elf : undefined;
}

function decompress(payload: Buffer, outputBytes: number): Buffer | undefined {
  const magic = payload.readUInt32LE(0);
  if (magic === 0x184c2102) return unpackLz4Legacy(payload, outputBytes);
  if (magic === 0xfd2fb528) return Buffer.from(Bun.zstdDecompressSync(payload));
  return undefined;
}

/**
 * LZ4's "legacy frame", which the kernel's build uses: u32 magic, then blocks of a u32 compressed length and an LZ4 block of up
 * to 8 MiB, each independent (lz4_Frame_format.md and lz4_Block_format.md of the LZ4 project).
 */
export function unpackLz4Legacy(frame: Buffer, outputBytes: number): Buffer | undefined {
  const output = Buffer.allocUnsafe(outputBytes);
  let out = 0;
  for (let at = 4; at + 4 <= frame.length && out < outputBytes; ) {
    const end = at + 4 + frame.readUInt32LE(at);
    if (end > frame.length) return undefined;
    at += 4;
    while (at < end) {
      const token = frame[at++]!;
      let literals = token >> 4;
      if (literals === 15) {
        let more: number;
        do {
          more = frame[at++] ?? 0;
          literals += more;
        } while (more === 255);
      }
      if (at + literals > end || out + literals > outputBytes) return undefined;
      frame.copy(output, out, at, at + literals);
      at += literals;
      out += literals;
      if (at >= end) break; // a block's last sequence is literals alone
      if (at + 2 > end) return undefined;
      const distance = frame.readUInt16LE(at);
      at += 2;
      let length = (token & 15) + 4;
      if (length === 19) {
        let more: number;
        do {
          more = frame[at++] ?? 0;
          length += more;
        } while (more === 255);
      }
      if (distance === 0 || distance > out || out + length > outputBytes) return undefined;
      if (distance >= length) output.copy(output, out, out - distance, out - distance + length);
      else for (let i = 0; i < length; i++) output[out + i] = output[out - distance + i]!; // overlaps: repeats itself
      out += length;
    }
  }
  return out === outputBytes ? output : undefined;
}

/** Whether an ELF file carries the note that names a 32-bit PVH entry point (owner "Xen", type 18). */
function hasPvhEntry(elf: Buffer): boolean {
  if (elf.toString("latin1", 0, 4) !== "\x7fELF") return false;
  const note = Buffer.alloc(8);
  note.writeUInt32LE(XEN_ELFNOTE_PHYS32_ENTRY, 0);
  note.write("Xen\0", 4, "latin1");
  return elf.includes(note);
}
