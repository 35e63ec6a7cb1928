/** Chooses a kernel's modules for an image: the ones wanted, those they depend on, in an order that `insmod` can follow. */
import { readFile, unlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { HostError } from "../host-error.ts";
import { runChecked } from "../run.ts";
import { moduleDependencies } from "./elf.ts";
import { listTree } from "./tree.ts";

export type ModuleSet = {
  /** Names in loading order, by stage. What the first stage has loaded isn't named again. */
  readonly stages: { readonly [stage: string]: readonly string[] };
  readonly contents: ReadonlyMap<string, Buffer>;
};

/** The kernel takes `-` and `_` in a module's name for the same. */
const normal = (name: string): string => name.replaceAll("-", "_");

/**
 * Orders modules so that each comes after those it depends on. Names that `dependencies` doesn't know are built into the
 * kernel, or not for this machine: left out. Pure.
 */
export async function orderModules(
  wanted: readonly string[],
  dependencies: (name: string) => Promise<readonly string[] | undefined>,
): Promise<string[]> {
  const order: string[] = [];
  const seen = new Set<string>();
  const visit = async (name: string): Promise<void> => {
    const key = normal(name);
    if (seen.has(key)) return;
    seen.add(key);
    const needed = await dependencies(key);
    if (!needed) return;
    for (const other of needed) await visit(other);
    order.push(key);
  };
  for (const name of wanted) await visit(name);
  return order;
}

/** Reads the modules for each stage out of unpacked packages, decompressed (Debian 13 compresses them with xz, Ubuntu with zstd). */
export async function findModules(
  unpacked: string,
  release: string,
  wanted: { readonly [stage: string]: readonly string[] },
): Promise<Result<ModuleSet, HostError>> {
  const paths = new Map<string, string>();
  for (const root of [`lib/modules/${release}`, `usr/lib/modules/${release}`]) {
    const found = await listTree(join(unpacked, root)).catch(() => []);
    for (const path of found) {
      const match = /^(.+)\.ko(\.xz|\.zst)?$/.exec(basename(path));
      if (match) paths.set(normal(match[1]!), join(unpacked, root, path));
    }
  }
  if (paths.size === 0)
    return fail({ kind: "not-found", message: `the kernel package holds no modules for ${release}` });

  const contents = new Map<string, Buffer>();
  let failure: HostError | undefined;
  const dependencies = async (name: string) => {
    const path = paths.get(name);
    if (!path) return undefined;
    const content = await readModule(path);
    if (!content.ok) {
      failure ??= content.error;
      return undefined;
    }
    contents.set(name, content.value);
    return moduleDependencies(content.value);
  };
  const stages: { [stage: string]: string[] } = {};
  let loaded: readonly string[] | undefined;
  for (const [stage, names] of Object.entries(wanted)) {
    const order = await orderModules(names, dependencies);
    stages[stage] = order.filter((name) => !loaded?.includes(name));
    loaded ??= order;
  }
  return failure ? fail(failure) : ok({ stages, contents });
}

async function readModule(path: string): Promise<Result<Buffer, HostError>> {
  if (path.endsWith(".zst")) return ok(Buffer.from(Bun.zstdDecompressSync(await readFile(path))));
  if (!path.endsWith(".xz")) return ok(await readFile(path));
  const plain = path.slice(0, -".xz".length);
  const done = await runChecked(["xz", "-dkf", path]);
  if (!done.ok) return done;
  const content = await readFile(plain);
  await unlink(plain);
  return ok(content);
}
