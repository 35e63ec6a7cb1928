/**
 * The image `debian-12`: a full Debian with systemd and cloud-init's Ec2 data source, put together by mmdebstrap from signed
 * packages. What cloud-init does on EC2 it does here: the user `debian` gets the instance's key, user data of every kind is
 * applied, and the root file system grows to its volume.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { fail, ok, type Result } from "../../lib/result.ts";
import { GIB, MINUTE_MS } from "../../lib/units.ts";
import { type HostError, missingProgram, unsupported } from "../host-error.ts";
import { convertImage } from "../qemu-img.ts";
import { runChecked, searchPath } from "../run.ts";
import { makeBootableDisk } from "./bootable-disk.ts";
import { type BuildOptions, type BuiltImage, cachedDirectory, recipeKey, withScratch } from "./built-image.ts";
import { grubConfiguration } from "./grub-configuration.ts";
import { fetchPackages, findPackages, unpackPackages } from "./packages.ts";
import { directory, file, writeTree } from "./tree.ts";

const LABEL = "hive-debian";
const RECIPE = "debian-12 1";
const DISK_BYTES = 2 * GIB;

const PACKAGES = [
  ..."linux-image-cloud-amd64 initramfs-tools systemd systemd-sysv udev dbus cloud-init cloud-guest-utils openssh-server".split(
    " ",
  ),
  ..."ifupdown isc-dhcp-client netbase iproute2 iputils-ping ca-certificates curl wget sudo e2fsprogs fdisk zstd procps less".split(
    " ",
  ),
  "vim-tiny",
];

const COMMAND_LINE = `root=LABEL=${LABEL} ro console=tty0 console=ttyS0,115200 net.ifnames=0 consoleblank=0`;

/** In place before the kernel's package is set up, so that its initramfs is made once and holds the drivers of virtual machines. */
const BEFORE_PACKAGES = [
  directory("etc"),
  directory("etc/initramfs-tools"),
  directory("etc/initramfs-tools/conf.d"),
  // A guess from the hardware at hand ("most", "dep") would be a guess about the machine that builds.
  file("etc/initramfs-tools/conf.d/hive", "MODULES=list\n"),
  directory("usr"),
  directory("usr/share"),
  directory("usr/share/initramfs-tools"),
  directory("usr/share/initramfs-tools/modules.d"),
  file(
    "usr/share/initramfs-tools/modules.d/hive",
    "virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\nvirtio_net\nvirtio_rng\nnvme\next4\nxen-blkfront\n",
  ),
];

const CLOUD_CONFIG = `# Made for Hive: the machine is on EC2 as far as it can tell.
datasource_list: [ Ec2 ]
datasource:
  Ec2:
    metadata_urls: [ "http://169.254.169.254" ]
    max_wait: 120
    timeout: 10
apt: { preserve_sources_list: true }
# There are no locales to choose from: /etc/default/locale stays as it is.
locale: "false"
# Key types that no client needs any more take an emulated processor many seconds to make.
ssh_genkeytypes: [ ed25519, ecdsa ]
`;

const AFTER_PACKAGES = [
  file("etc/cloud/cloud.cfg.d/90_hive.cfg", CLOUD_CONFIG),
  file("etc/fstab", `LABEL=${LABEL} / ext4 defaults,x-systemd.growfs 0 1\n`),
  file("etc/default/locale", "LANG=C.UTF-8\n"),
  file("etc/hostname", "debian\n"),
  file("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
  // Empty: each instance makes its own at first boot.
  file("etc/machine-id", ""),
  file("etc/network/interfaces", "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n"),
  directory("boot/grub"),
  // The links follow the newest installed kernel.
  file("boot/grub/grub.cfg", grubConfiguration(COMMAND_LINE, "/vmlinuz", "/initrd.img")),
];

/**
 * Builds `debian-12`, or finds it in the cache. Needs root (mmdebstrap makes files of several owners and runs the packages' set-up
 * scripts in a chroot), the packages mmdebstrap, e2fsprogs, qemu-utils and grub-common, 1.5 GB of scratch; takes a minute or two.
 * The cache's key is the version of Debian's kernel, cloud-init, systemd and openssh, which change with every security update that
 * makes a rebuild worth it.
 */
export async function buildDebian12(options: BuildOptions): Promise<Result<BuiltImage, HostError>> {
  const { cacheDirectory, signal } = options;
  const progress = options.onProgress ?? (() => {});
  if (process.getuid?.() !== 0) {
    return fail({
      kind: "permission",
      message: "building debian-12 needs root: run the build with sudo (tiny needs no root)",
    });
  }
  for (const program of ["mmdebstrap", "mke2fs", "qemu-img", "grub-mkimage"]) {
    if (!Bun.which(program, { PATH: searchPath() })) return fail(missingProgram(program));
  }
  progress("asking apt for packages");
  const found = await findPackages(
    ["grub-pc-bin", "cloud-init", "openssh-server", "systemd", "linux-image-cloud-amd64"],
    cacheDirectory,
    progress,
    signal,
  );
  if (!found.ok) return found;
  const { apt, packages } = found.value;
  const sources = await debian12Sources(apt.options);
  if (!sources.ok) return sources;
  if (sources.value.length === 0) {
    return fail(
      unsupported(
        "debian-12 is built from the host's own package sources, and /etc/apt has none for Debian 12 (bookworm)",
      ),
    );
  }
  const contents = [BEFORE_PACKAGES, AFTER_PACKAGES].map((entries) => JSON.stringify(entries));
  const key = recipeKey([RECIPE, ...PACKAGES, ...contents, ...packages.map((p) => `${p.fileName} ${p.hash}`)]);

  const cached = await cachedDirectory(cacheDirectory, `debian-12-${key}`, (into) =>
    withScratch(options, "debian-12", async (scratch) => {
      const tree = join(scratch, "root");
      const before = join(scratch, "before");
      await writeTree(before, [directory("."), ...BEFORE_PACKAGES]);
      progress("installing packages (a minute or two)");
      const made = await runChecked(
        [
          "mmdebstrap",
          ...["--quiet", "--mode=root", "--variant=minbase", "--format=directory", "--architectures=amd64"],
          ...['--aptopt=APT::Install-Recommends "false"', `--include=${PACKAGES.join(",")}`],
          ...["man", "locale", "doc"].map((what) => `--dpkgopt=path-exclude=/usr/share/${what}/*`),
          "--dpkgopt=path-include=/usr/share/doc/*/copyright",
          `--essential-hook=sync-in ${escapeWord(before)} /`,
          "bookworm",
          tree,
          ...sources.value,
        ],
        {
          timeoutMs: 30 * MINUTE_MS,
          env: { TMPDIR: scratch, DEBIAN_FRONTEND: "noninteractive" },
          ...(signal ? { signal } : {}),
        },
      );
      if (!made.ok) return made;
      await writeTree(tree, AFTER_PACKAGES);
      for (const name of await readdir(join(tree, "etc/ssh"))) {
        if (name.startsWith("ssh_host_")) await rm(join(tree, "etc/ssh", name)); // never one pair of keys for all instances
      }

      progress("making the disk");
      const grubPackage = packages.filter(({ name }) => name === "grub-pc-bin");
      const files = await fetchPackages(apt, grubPackage, cacheDirectory, progress, signal);
      if (!files.ok) return files;
      const grubTree = join(scratch, "grub");
      const unpacked = await unpackPackages(files.value, grubTree, signal);
      if (!unpacked.ok) return unpacked;
      const raw = join(scratch, "disk.raw");
      const grub = { grubModules: join(grubTree, "usr/lib/grub/i386-pc"), grubMkimage: "grub-mkimage" };
      const disk = await makeBootableDisk({
        file: raw,
        bytes: DISK_BYTES,
        tree,
        label: LABEL,
        key,
        ...grub,
        scratch,
        signal,
      });
      if (!disk.ok) return disk;
      progress("compressing the disk");
      const to = { file: join(into, "disk.qcow2"), format: "qcow2" } as const;
      const converted = await convertImage({ from: { file: raw, format: "raw" }, to, compress: true }, signal);
      return converted.ok ? ok(["disk.qcow2"]) : converted;
    }),
  );
  if (!cached.ok) return cached;
  return ok({
    format: "qcow2",
    file: join(cached.value.directory, "disk.qcow2"),
    virtualBytes: DISK_BYTES,
    architecture: "x86_64",
    name: `hive-debian-12-${key.slice(0, 8)}`,
    description: "Debian 12 (bookworm) with cloud-init; log in as debian",
    rootDeviceName: "/dev/xvda",
    bootMode: "legacy-bios",
    loginUser: "debian",
  });
}

/** mmdebstrap splits a hook into words as a shell would, though none is started. */
const escapeWord = (word: string): string => word.replace(/[^A-Za-z0-9_./-]/g, "\\$&");

/** The host's own sources for Debian 12, its updates and its security updates, as sources.list lines. */
async function debian12Sources(aptOptions: readonly string[]): Promise<Result<string[], HostError>> {
  const format = "$(REPO_URI)|$(ORIGIN)|$(CODENAME)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)";
  const targets = await runChecked(["apt-get", ...aptOptions, "indextargets", "--format", format]);
  return targets.ok ? ok(sourceLines(targets.value.stdout)) : targets;
}

/** Reads `apt-get indextargets`, one index a line, and keeps Debian 12's package indexes. Pure. */
export function sourceLines(targets: string): string[] {
  const lines = new Set<string>();
  for (const line of targets.split("\n")) {
    const [uri = "", origin, codename = "", release = "", component = "", createdBy] = line.split("|");
    if (origin !== "Debian" || createdBy !== "Packages" || !/^bookworm(-updates|-security)?$/.test(codename)) continue;
    lines.add(`deb ${uri.replace(/\/$/, "")} ${release} ${component}`);
  }
  return [...lines].sort();
}
