/** The little of ELF (System V ABI, chapters 4 and 5) that tells what a program or a kernel module needs beside it. */

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const DT_NULL = 0;
const DT_NEEDED = 1;
const DT_STRTAB = 5;

/**
 * The shared libraries that a 64-bit little-endian ELF file names (DT_NEEDED), in order.
 * `[]` for a static program and for anything that is no such file.
 */
export function neededLibraries(elf: Buffer): string[] {
  if (elf.length < 64 || elf.toString("latin1", 0, 6) !== "\x7fELF\x02\x01") return [];
  const headersAt = Number(elf.readBigUInt64LE(32));
  const headerBytes = elf.readUInt16LE(54);
  const headerCount = elf.readUInt16LE(56);
  const segments: { type: number; offset: number; address: number; bytes: number }[] = [];
  for (let i = 0; i < headerCount; i++) {
    const at = headersAt + i * headerBytes;
    segments.push({
      type: elf.readUInt32LE(at),
      offset: Number(elf.readBigUInt64LE(at + 8)),
      address: Number(elf.readBigUInt64LE(at + 16)),
      bytes: Number(elf.readBigUInt64LE(at + 32)),
    });
  }
  const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC);
  if (!dynamic) return [];
  const nameOffsets: number[] = [];
  let stringsAddress = 0;
  for (let at = dynamic.offset; at + 16 <= dynamic.offset + dynamic.bytes; at += 16) {
    const tag = Number(elf.readBigInt64LE(at));
    const value = Number(elf.readBigUInt64LE(at + 8));
    if (tag === DT_NULL) break;
    if (tag === DT_NEEDED) nameOffsets.push(value);
    if (tag === DT_STRTAB) stringsAddress = value;
  }
  const home = segments.find(
    (s) => s.type === PT_LOAD && stringsAddress >= s.address && stringsAddress < s.address + s.bytes,
  );
  if (!home) return [];
  const stringsAt = stringsAddress - home.address + home.offset;
  return nameOffsets.map((offset) => cString(elf, stringsAt + offset));
}

/**
 * The modules that a kernel module must be loaded after, from the `depends=` entry of its .modinfo section. (The file
 * modules.dep says the same, but is made by depmod when a package is installed; here packages are only unpacked.)
 */
export function moduleDependencies(module: Buffer): string[] {
  const at = module.indexOf("\0depends=", 0, "latin1");
  if (at < 0) return [];
  return cString(module, at + "\0depends=".length)
    .split(",")
    .filter((name) => name !== "");
}

function cString(bytes: Buffer, at: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString("latin1", at, end < 0 ? bytes.length : end);
}
