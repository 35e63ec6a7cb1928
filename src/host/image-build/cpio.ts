/** An initramfs archive: cpio's "newc" format, as Linux reads it (Documentation/driver-api/early-userspace/buffer-format.rst). */

export type ArchiveEntry =
  | { readonly path: string; readonly type: "directory"; readonly mode: number }
  | { readonly path: string; readonly type: "file"; readonly mode: number; readonly content: Uint8Array }
  | { readonly path: string; readonly type: "symlink"; readonly target: string }
  | {
      readonly path: string;
      readonly type: "character-device";
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

const TYPE_BITS = { directory: 0o040000, file: 0o100000, symlink: 0o120000, "character-device": 0o020000 } as const;

/**
 * Packs entries, parents first, owned by root with time 0: the same entries give the same bytes.
 * Each is a header of 6 + 13 × 8 hexadecimal characters, the name with its NUL, and the content, both padded to 4 bytes.
 */
export function packCpio(entries: readonly ArchiveEntry[]): Buffer {
  const parts: Buffer[] = [];
  entries.forEach((entry, index) => {
    parts.push(...packEntry(entry, index + 1));
  });
  parts.push(...packEntry({ path: "TRAILER!!!", type: "file", mode: 0, content: new Uint8Array() }, 0));
  return Buffer.concat(parts);
}

function packEntry(entry: ArchiveEntry, inode: number): Buffer[] {
  const content =
    entry.type === "file" ? Buffer.from(entry.content) : Buffer.from(entry.type === "symlink" ? entry.target : "");
  const mode = inode === 0 ? 0 : TYPE_BITS[entry.type] | (entry.type === "symlink" ? 0o777 : entry.mode);
  const [major, minor] = entry.type === "character-device" ? [entry.major, entry.minor] : [0, 0];
  const name = Buffer.from(`${entry.path}\0`);
  const links = entry.type === "directory" ? 2 : 1;
  //             inode  mode  uid gid links  mtime size            dev maj/min  rdev maj/min  name length  check
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, major, minor, name.length, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
  return [padded(Buffer.concat([Buffer.from(header), name])), padded(content)];
}

function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % 4;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - rest)]);
}
