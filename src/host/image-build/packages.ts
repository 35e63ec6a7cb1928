/**
 * Takes packages of the host's own distribution apart, without installing them: apt chooses the version from the sources that the
 * host is configured with and checks it against their signatures; the file is kept in the cache under its name and version.
 */
import { mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fail, ok, type Result } from "../../lib/result.ts";
import { MINUTE_MS } from "../../lib/units.ts";
import { type HostError, ioFailed, unsupported } from "../host-error.ts";
import { run, runChecked } from "../run.ts";

export type Package = {
  readonly name: string;
  /** As apt names it: name, version and architecture. */
  readonly fileName: string;
  readonly bytes: number;
  /** `SHA256:…`, as the signed index has it; empty if apt doesn't say. */
  readonly hash: string;
};

/** apt, as it was found to work on this host: options that come before the command. */
export type Apt = { readonly options: readonly string[] };

const DOWNLOAD_LIMIT_MS = 15 * MINUTE_MS;

/**
 * Asks apt for the packages' current versions. If the host's package lists don't have them (never fetched, or gone stale), lists
 * are fetched into `cacheDirectory` instead, by the same sources: the host's own state is never changed, and no root is needed.
 */
export async function findPackages(
  names: readonly string[],
  cacheDirectory: string,
  onProgress: (message: string) => void,
  signal: AbortSignal | undefined,
): Promise<Result<{ apt: Apt; packages: Package[] }, HostError>> {
  const architecture = await runChecked(["dpkg", "--print-architecture"]);
  if (!architecture.ok) return architecture;
  if (architecture.value.stdout.trim() !== "amd64") {
    return fail(
      unsupported(
        `images are built for x86_64, on a Debian or Ubuntu of that architecture (this host's is ${architecture.value.stdout.trim()})`,
      ),
    );
  }
  const asRoot = process.getuid?.() === 0 ? ["-o", "APT::Sandbox::User=root"] : [];
  const own: Apt = { options: asRoot };
  const known = await describePackages(own, names, signal);
  if (known.ok) return ok({ apt: own, packages: known.value });

  onProgress("fetching the distribution's package lists");
  const lists = join(cacheDirectory, "apt-lists");
  const privately: Apt = {
    options: [...asRoot, "-o", `Dir::State::Lists=${lists}`, "-o", `Dir::Cache=${join(cacheDirectory, "apt-cache")}`],
  };
  try {
    await mkdir(join(lists, "partial"), { recursive: true });
    await mkdir(join(cacheDirectory, "apt-cache"), { recursive: true });
  } catch (cause) {
    return fail(ioFailed(`create ${lists}`, cause));
  }
  const updated = await runChecked(
    ["apt-get", ...privately.options, "-q", "update"],
    limits(signal, DOWNLOAD_LIMIT_MS),
  );
  if (!updated.ok) return updated;
  const found = await describePackages(privately, names, signal);
  return found.ok ? ok({ apt: privately, packages: found.value }) : found;
}

export async function describePackages(
  apt: Apt,
  names: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Result<Package[], HostError>> {
  const printed = await runChecked(
    ["apt-get", ...apt.options, "-q", "download", "--print-uris", ...names],
    limits(signal),
  );
  if (!printed.ok) return printed;
  const packages = parsePrintedUris(printed.value.stdout);
  const missing = names.filter((name) => !packages.some((p) => p.name === name));
  if (missing.length > 0) {
    return fail({ kind: "not-found", message: `the host's package sources don't have: ${missing.join(", ")}` });
  }
  return ok(packages);
}

/** Reads the lines of `apt-get download --print-uris`: `'URI' FILE BYTES HASH`. */
export function parsePrintedUris(printed: string): Package[] {
  const packages: Package[] = [];
  for (const line of printed.split("\n")) {
    const match = /^'[^']+' ([a-z0-9][a-z0-9.+-]*)_([^\s/]+\.deb) (\d+)(?: (\S+))?$/.exec(line.trim());
    if (!match) continue;
    const [, name = "", rest = "", bytes = "", hash = ""] = match;
    packages.push({ name, fileName: `${name}_${rest}`, bytes: Number(bytes), hash });
  }
  return packages;
}

/** The packages that one depends on directly (virtual packages and alternatives after the first left out). */
export async function directDependencies(
  apt: Apt,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<Result<string[], HostError>> {
  const printed = await runChecked(["apt-cache", ...apt.options, "depends", "--important", ...names], limits(signal));
  if (!printed.ok) return printed;
  const dependencies = new Set<string>();
  let alternative = false;
  for (const line of printed.value.stdout.split("\n")) {
    const match = /^\s+(\|?)(?:Pre)?Depends: ([a-z0-9][a-z0-9.+-]*)$/.exec(line);
    if (!match) continue;
    if (!alternative) dependencies.add(match[2]!);
    alternative = match[1] === "|";
  }
  return ok([...dependencies]);
}

/**
 * Sees that each package's file is in `cacheDirectory`/packages, checked against the index's hash, and returns their paths.
 * Several builds may do this at once: a file appears there by rename, whole.
 */
export async function fetchPackages(
  apt: Apt,
  packages: readonly Package[],
  cacheDirectory: string,
  onProgress: (message: string) => void,
  signal: AbortSignal | undefined,
): Promise<Result<string[], HostError>> {
  const directory = join(cacheDirectory, "packages");
  let incoming: string | undefined;
  try {
    await mkdir(directory, { recursive: true });
    const absent: Package[] = [];
    for (const wanted of packages) if (!(await isIntact(join(directory, wanted.fileName), wanted))) absent.push(wanted);
    if (absent.length > 0) {
      const megabytes = Math.ceil(absent.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6);
      onProgress(`downloading ${absent.length} packages (${megabytes} MB)`);
      incoming = await mkdtemp(join(directory, ".incoming-"));
      const names = absent.map(({ name }) => name);
      const downloaded = await runChecked(["apt-get", ...apt.options, "-q", "download", ...names], {
        cwd: incoming,
        ...limits(signal, DOWNLOAD_LIMIT_MS),
      });
      if (!downloaded.ok) return downloaded;
      const arrived = await readdir(incoming);
      for (const { name, fileName } of absent) {
        // The lists may have been renewed between the two calls: the newer version then serves as well under its own name only.
        if (!arrived.includes(fileName))
          return fail({
            kind: "not-found",
            message: `the package ${name} changed while it was being fetched; try again`,
          });
        await rename(join(incoming, fileName), join(directory, fileName));
      }
    }
    return ok(packages.map(({ fileName }) => join(directory, fileName)));
  } catch (cause) {
    return fail(ioFailed(`keep packages in ${directory}`, cause));
  } finally {
    if (incoming) await rm(incoming, { recursive: true, force: true });
  }
}

async function isIntact(file: string, wanted: Package): Promise<boolean> {
  const stats = await stat(file).catch(() => undefined);
  if (stats?.size !== wanted.bytes) return false;
  const [kind = "", digest = ""] = wanted.hash.split(":");
  const algorithm = ({ SHA256: "sha256", SHA512: "sha512" } as const)[kind];
  if (!algorithm) return false; // nothing to check it against: let apt fetch and check it again
  return new Bun.CryptoHasher(algorithm).update(await Bun.file(file).arrayBuffer()).digest("hex") === digest;
}

/** Unpacks packages' files into one tree, as they would lie on a disk; runs none of their scripts. */
export async function unpackPackages(
  files: readonly string[],
  tree: string,
  signal: AbortSignal | undefined,
): Promise<Result<void, HostError>> {
  for (const file of files) {
    const unpacked = await runChecked(["dpkg-deb", "-x", file, tree], limits(signal, 5 * MINUTE_MS));
    if (!unpacked.ok) return unpacked;
  }
  return ok(undefined);
}

/** The newest kernel package meant for virtual machines: Debian's cloud kernel, else what Ubuntu's linux-image-virtual stands for. */
export async function findKernelPackage(apt: Apt, signal?: AbortSignal): Promise<Result<string, HostError>> {
  for (const standsFor of ["linux-image-cloud-amd64", "linux-image-virtual"]) {
    const shown = await run(["apt-cache", ...apt.options, "depends", "--important", standsFor], limits(signal));
    if (!shown.ok) return shown;
    const kernel = /^\s+\|?Depends: (linux-image-[0-9]\S*)$/m.exec(shown.value.stdout)?.[1];
    if (shown.value.code === 0 && kernel) return ok(kernel);
  }
  return fail({
    kind: "not-found",
    message:
      "the host's package sources have neither linux-image-cloud-amd64 (Debian) nor linux-image-virtual (Ubuntu); run apt-get update, or check /etc/apt",
  });
}

function limits(signal: AbortSignal | undefined, timeoutMs = MINUTE_MS) {
  return { timeoutMs, ...(signal ? { signal } : {}) };
}
