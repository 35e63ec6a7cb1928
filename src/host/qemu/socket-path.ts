import { closeSync, constants, openSync } from "node:fs";
import { basename, dirname } from "node:path";

/** `sun_path` is 108 bytes, its NUL included (unix(7)). */
const SOCKET_PATH_BYTES_MAX = 107;

/** Runs `use` with a path of the same socket that is short enough to connect to: through a descriptor of its folder. */
export async function withSocketPath<T>(path: string, use: (path: string) => Promise<T>): Promise<T> {
  if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return use(path);
  const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await use(`/proc/self/fd/${folder}/${basename(path)}`);
  } finally {
    closeSync(folder);
  }
}
