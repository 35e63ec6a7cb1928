/** A guest's file tree as data, and its way onto the host's disk. */
import { chmod, mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ArchiveEntry } from "./cpio.ts";

export const directory = (path: string, mode = 0o755): ArchiveEntry => ({ path, type: "directory", mode });
export const file = (path: string, content: string | Uint8Array, mode = 0o644): ArchiveEntry => ({
  path,
  type: "file",
  mode,
  content: Buffer.from(content),
});
export const program = (path: string, content: string | Uint8Array): ArchiveEntry => file(path, content, 0o755);
export const link = (path: string, target: string): ArchiveEntry => ({ path, type: "symlink", target });

/** Writes entries below `root`, parents first, with the modes they say (whatever the umask). Existing files are replaced. */
export async function writeTree(root: string, entries: readonly ArchiveEntry[]): Promise<void> {
  for (const entry of entries) {
    const path = join(root, entry.path);
    if (entry.type === "directory") {
      await mkdir(path, { recursive: true });
      await chmod(path, entry.mode);
    } else if (entry.type === "file") {
      await writeFile(path, entry.content);
      await chmod(path, entry.mode);
    } else if (entry.type === "symlink") {
      await symlink(entry.target, path);
    }
  }
}

/** Every path below `root`, relative to it, parents first and sorted: symbolic links are named, not followed. */
export async function listTree(root: string, below = ""): Promise<string[]> {
  const paths: string[] = [];
  const children = await readdir(join(root, below), { withFileTypes: true });
  for (const child of children.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = below === "" ? child.name : `${below}/${child.name}`;
    paths.push(path);
    if (child.isDirectory()) paths.push(...(await listTree(root, path)));
  }
  return paths;
}
