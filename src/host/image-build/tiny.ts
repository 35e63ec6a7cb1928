/**
 * The image `tiny`: a Linux of 1 GiB (some 40 MB of it used) that runs its user data about two seconds after QEMU starts, for
 * tests and small hosts. The distribution's kernel, busybox, bash, dropbear and e2fsprogs, with init scripts of Hive's own (tiny/*.sh) where other
 * images have systemd and cloud-init.
 *
 * The disk boots anywhere by BIOS and GRUB. The same kernel and initramfs lie beside it, so that Hive can have QEMU
 * start them directly (the disk stays the root, so what an instance writes is kept either way): that skips the firmware, the boot loader
 * and the kernel's own decompression, half of the boot under TCG.
 */
import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { gzipSync } from "node:zlib";
import { fail, ok, type Result } from "../../lib/result.ts";
import { GIB } from "../../lib/units.ts";
import type { HostError } from "../host-error.ts";
import { convertImage } from "../qemu-img.ts";
import { run } from "../run.ts";
import { makeBootableDisk } from "./bootable-disk.ts";
import { type BuildOptions, type BuiltImage, cachedDirectory, recipeKey, withScratch } from "./built-image.ts";
import { type ArchiveEntry, packCpio } from "./cpio.ts";
import { neededLibraries } from "./elf.ts";
import { grubConfiguration } from "./grub-configuration.ts";
import { extractPvhKernel } from "./kernel.ts";
import { findModules, type ModuleSet } from "./kernel-modules.ts";
import {
  type Apt,
  describePackages,
  directDependencies,
  fetchPackages,
  findKernelPackage,
  findPackages,
  type Package,
  unpackPackages,
} from "./packages.ts";
import commonScript from "./tiny/common.sh" with { type: "text" };
import consoleScript from "./tiny/console.sh" with { type: "text" };
import dhcpScript from "./tiny/dhcp.sh" with { type: "text" };
import dhcpEventScript from "./tiny/dhcp-event.sh" with { type: "text" };
import hotplugScript from "./tiny/hotplug.sh" with { type: "text" };
import imdsScript from "./tiny/imds.sh" with { type: "text" };
import initramfsInit from "./tiny/initramfs-init.sh" with { type: "text" };
import powerButtonScript from "./tiny/power-button.sh" with { type: "text" };
import rcScript from "./tiny/rc.sh" with { type: "text" };
import shutdownScript from "./tiny/shutdown.sh" with { type: "text" };
import startScript from "./tiny/start.sh" with { type: "text" };
import { directory, file, link, program, writeTree } from "./tree.ts";

const LABEL = "hive-tiny";
/** Raise it when the way an image is put together changes and the scripts and packages don't show it. */
const RECIPE = "tiny 1";
const DISK_BYTES = GIB;

/**
 * `quiet` to `nokaslr`: this is a guest for tests, alone on its machine, and each of these saves a part of a second under TCG: no
 * self-tests of ciphers, no mitigations between its own processes, no probing for a keyboard controller.
 */
export const TINY_COMMAND_LINE =
  `root=LABEL=${LABEL} console=ttyS0,115200 net.ifnames=0 panic=5 quiet cryptomgr.notests mitigations=off audit=0 apparmor=0 ` +
  "i8042.noaux i8042.nokbd tsc=reliable no_timer_check nokaslr";

const ROOT_PACKAGES = ["busybox-static", "bash", "dropbear-bin", "e2fsprogs", "openssh-sftp-server"];
const BOOT_PACKAGES = ["grub-pc-bin", "grub-common"];
/** Programs by name, and where they go. Their libraries follow by what they are linked with. */
const PROGRAMS: readonly (readonly [name: string, to: string])[] = [
  ["bash", "bin/bash"],
  ["dropbear", "usr/sbin/dropbear"],
  ["dropbearkey", "usr/bin/dropbearkey"],
  ["dbclient", "usr/bin/dbclient"],
  ["sftp-server", "usr/lib/openssh/sftp-server"],
  ["resize2fs", "usr/sbin/resize2fs"],
  ["mke2fs", "usr/sbin/mke2fs"],
  ["e2fsck", "usr/sbin/e2fsck"],
];
/** What the scripts need of busybox: which applets it has is the distribution's choice. */
const INITRAMFS_APPLETS = "sh mount insmod cat sleep printf dd sync blockdev switch_root".split(" ");
const ROOT_APPLETS =
  "init insmod ip udhcpc nc acpid uevent hostname poweroff reboot umount mkfifo gunzip base64 od head tee tr sed ipcalc".split(
    " ",
  );
const LIBRARY_DIRECTORIES = [
  "lib/x86_64-linux-gnu",
  "usr/lib/x86_64-linux-gnu",
  "lib64",
  "usr/lib64",
  "lib",
  "usr/lib",
];
const PROGRAM_DIRECTORIES = ["bin", "usr/bin", "sbin", "usr/sbin", "usr/lib/openssh"];

/** Modules by stage, in the order of need; what they depend on comes before them, and what is built in is left out. */
const MODULES = {
  first: ["virtio_pci", "virtio_blk", "nvme"],
  fallback: ["virtio_scsi", "ahci", "ata_piix", "sd_mod", "xen-blkfront"],
  boot: ["virtio_net", "evdev", "button"],
  balloon: ["virtio_balloon"],
  random: ["virtio-rng"],
} as const;

const SCRIPTS = [
  commonScript,
  consoleScript,
  dhcpScript,
  dhcpEventScript,
  hotplugScript,
  imdsScript,
  initramfsInit,
  powerButtonScript,
  rcScript,
  shutdownScript,
  startScript,
];

/**
 * Builds `tiny`, or finds it in the cache (a fraction of a second). No root needed. Needs apt, dpkg, e2fsprogs and qemu-utils on the host
 * (Debian 12 or later, or Ubuntu), 150 MB of scratch and, the first time, some 35 MB of downloads.
 */
export async function buildTiny(options: BuildOptions): Promise<Result<BuiltImage, HostError>> {
  const { cacheDirectory, signal } = options;
  const progress = options.onProgress ?? (() => {});
  progress("asking apt for packages");
  const chosen = await choosePackages(cacheDirectory, progress, signal);
  if (!chosen.ok) return chosen;
  const { apt, packages } = chosen.value;
  const kernelRelease = packages.find(({ name }) => name.startsWith("linux-image-"))!.name.slice("linux-image-".length);
  const key = recipeKey([
    RECIPE,
    TINY_COMMAND_LINE,
    JSON.stringify(MODULES),
    ...SCRIPTS,
    ...packages.map((p) => `${p.fileName} ${p.hash}`),
  ]);

  const cached = await cachedDirectory(cacheDirectory, `tiny-${key}`, (into) =>
    withScratch(options, "tiny", async (scratch) => {
      const files = await fetchPackages(apt, packages, cacheDirectory, progress, signal);
      if (!files.ok) return files;
      progress("unpacking");
      const unpacked = join(scratch, "packages");
      const done = await unpackPackages(files.value, unpacked, signal);
      if (!done.ok) return done;
      return assemble({ unpacked, scratch, into, kernelRelease, key, progress, signal });
    }),
  );
  if (!cached.ok) return cached;
  const at = cached.value.directory;
  return ok({
    format: "qcow2",
    file: join(at, "disk.qcow2"),
    virtualBytes: DISK_BYTES,
    architecture: "x86_64",
    name: `hive-tiny-${key.slice(0, 8)}`,
    description: `Hive tiny (Linux ${kernelRelease}, busybox, dropbear); log in as root`,
    rootDeviceName: "/dev/xvda",
    bootMode: "legacy-bios",
    loginUser: "root",
    kernelFile: join(at, "vmlinuz"),
    initrdFile: join(at, "initrd"),
    kernelCommandLine: TINY_COMMAND_LINE,
  });
}

/** The packages, and as many of those they depend on as it takes to have every library (which only unpacking shows). */
async function choosePackages(
  cacheDirectory: string,
  progress: (message: string) => void,
  signal: AbortSignal | undefined,
): Promise<Result<{ apt: Apt; packages: Package[] }, HostError>> {
  const base = await findPackages([...ROOT_PACKAGES, ...BOOT_PACKAGES], cacheDirectory, progress, signal);
  if (!base.ok) return base;
  const { apt } = base.value;
  const kernel = await findKernelPackage(apt, signal);
  if (!kernel.ok) return kernel;
  const isLibrary = (name: string) => /^(lib|zlib)/.test(name);
  const names = new Set<string>([...ROOT_PACKAGES, ...BOOT_PACKAGES, kernel.value]);
  // Ubuntu keeps a kernel's modules in a package of their own.
  const ofKernel = await directDependencies(apt, [kernel.value], signal);
  if (!ofKernel.ok) return ofKernel;
  for (const name of ofKernel.value) if (name.startsWith("linux-modules-")) names.add(name);
  // Two steps reach every library that the programs are linked with; a third would bring nothing new.
  let from: string[] = ROOT_PACKAGES;
  for (let step = 0; step < 2; step++) {
    const found = await directDependencies(apt, from, signal);
    if (!found.ok) return found;
    from = found.value.filter((name) => isLibrary(name) && !names.has(name));
    for (const name of from) names.add(name);
    if (from.length === 0) break;
  }
  const packages = await describePackages(apt, [...names].sort(), signal);
  return packages.ok ? ok({ apt, packages: packages.value }) : packages;
}

type Assembly = {
  readonly unpacked: string;
  readonly scratch: string;
  readonly into: string;
  readonly kernelRelease: string;
  readonly key: string;
  readonly progress: (message: string) => void;
  readonly signal: AbortSignal | undefined;
};

async function assemble(assembly: Assembly): Promise<Result<readonly string[], HostError>> {
  const { unpacked, scratch, into, kernelRelease, key, progress, signal } = assembly;
  progress("putting the file tree together");
  const modules = await findModules(unpacked, kernelRelease, MODULES);
  if (!modules.ok) return modules;
  const busyboxAt = (await findFile(unpacked, "busybox", PROGRAM_DIRECTORIES)) ?? "";
  const busybox = await readFile(busyboxAt);
  const applets = await run([busyboxAt, "--list"]);
  if (!applets.ok) return applets;
  const appletNames = applets.value.stdout
    .split("\n")
    .filter((name) => /^[a-z0-9[_.-]+$/.test(name) && name !== "busybox");
  const lacking = [...INITRAMFS_APPLETS, ...ROOT_APPLETS].find((name) => !appletNames.includes(name));
  if (lacking) return fail(incomplete(`busybox with ${lacking}`));
  const programs = await collectPrograms(unpacked);
  if (!programs.ok) return programs;

  const bzImage = await readFile(join(unpacked, "boot", `vmlinuz-${kernelRelease}`));
  const initrd = gzipSync(packCpio(initramfsEntries(busybox, modules.value)));
  const tree = join(scratch, "root");
  await writeTree(tree, [directory("."), ...rootEntries(busybox, appletNames, programs.value, modules.value)]);
  await writeTree(tree, [
    directory("boot"),
    directory("boot/grub"),
    file("boot/vmlinuz", bzImage),
    file("boot/initrd", initrd),
    file("boot/grub/grub.cfg", grubConfiguration(TINY_COMMAND_LINE, "/boot/vmlinuz", "/boot/initrd")),
  ]);

  progress("making the disk");
  const raw = join(scratch, "disk.raw");
  const grub = {
    grubModules: join(unpacked, "usr/lib/grub/i386-pc"),
    grubMkimage: join(unpacked, "usr/bin/grub-mkimage"),
  };
  const made = await makeBootableDisk({
    file: raw,
    bytes: DISK_BYTES,
    tree,
    label: LABEL,
    key,
    ...grub,
    scratch,
    signal,
  });
  if (!made.ok) return made;
  const converted = await convertImage(
    { from: { file: raw, format: "raw" }, to: { file: join(into, "disk.qcow2"), format: "qcow2" } },
    signal,
  );
  if (!converted.ok) return converted;
  await Bun.write(join(into, "vmlinuz"), extractPvhKernel(bzImage) ?? bzImage);
  await Bun.write(join(into, "initrd"), initrd);
  return ok(["disk.qcow2", "vmlinuz", "initrd"]);
}

async function findFile(tree: string, name: string, directories: readonly string[]): Promise<string | undefined> {
  for (const at of directories) {
    const path = join(tree, at, name);
    if ((await stat(path).catch(() => undefined))?.isFile()) return path;
  }
  return undefined;
}

/** The programs and, transitively, the shared libraries that they name. */
async function collectPrograms(unpacked: string): Promise<Result<ArchiveEntry[], HostError>> {
  const entries: ArchiveEntry[] = [];
  const wanted = new Set<string>();
  for (const [name, to] of PROGRAMS) {
    const at = await findFile(unpacked, name, PROGRAM_DIRECTORIES);
    if (!at) return fail(incomplete(name));
    const content = await readFile(at);
    entries.push(program(to, content));
    for (const library of neededLibraries(content)) wanted.add(library);
  }
  wanted.add("ld-linux-x86-64.so.2"); // the interpreter that every dynamic program names
  for (const library of wanted) {
    // (A Set's iteration also visits what is added on the way.)
    const at = await findFile(unpacked, library, LIBRARY_DIRECTORIES);
    if (!at) return fail(incomplete(library));
    const content = await readFile(at);
    entries.push(
      program(library.startsWith("ld-linux") ? `lib64/${library}` : `lib/x86_64-linux-gnu/${library}`, content),
    );
    for (const needed of neededLibraries(content)) wanted.add(needed);
  }
  return ok(entries);
}

const incomplete = (name: string): HostError => ({
  kind: "not-found",
  message: `the distribution's packages hold no ${name} where it is expected: this release is not one that tiny can be built from`,
});

function moduleEntries(modules: ModuleSet, stages: readonly (keyof typeof MODULES)[]): ArchiveEntry[] {
  const entries = [directory("lib/modules")];
  const written = new Set<string>();
  for (const stage of stages) {
    const list = modules.stages[stage] ?? [];
    entries.push(file(`lib/modules/${stage}`, `${list.join("\n")}\n`));
    for (const name of list) {
      if (!written.has(name)) entries.push(file(`lib/modules/${name}.ko`, modules.contents.get(name)!));
      written.add(name);
    }
  }
  return entries;
}

function initramfsEntries(busybox: Uint8Array, modules: ModuleSet): ArchiveEntry[] {
  return [
    ...["bin", "dev", "proc", "sys", "newroot", "lib"].map((path) => directory(path)),
    // The kernel opens it for init before devtmpfs is there; without it the first stage would have no voice.
    { path: "dev/console", type: "character-device", mode: 0o600, major: 5, minor: 1 },
    program("bin/busybox", busybox),
    ...INITRAMFS_APPLETS.map((name) => link(`bin/${name}`, "busybox")),
    program("init", initramfsInit),
    ...moduleEntries(modules, ["first", "fallback"]),
  ];
}

function rootEntries(
  busybox: Uint8Array,
  applets: readonly string[],
  programs: readonly ArchiveEntry[],
  modules: ModuleSet,
): ArchiveEntry[] {
  const own = new Set(programs.map(({ path }) => basename(path)));
  const directories =
    "bin sbin dev etc etc/acpi etc/acpi/PWRF home lib lib64 lib/x86_64-linux-gnu mnt opt proc run srv sys usr usr/bin usr/sbin usr/lib usr/lib/hive usr/lib/openssh usr/local usr/local/bin var var/lib var/lib/hive var/log var/tmp";
  return [
    ...directories.split(" ").map((path) => directory(path)),
    directory("root", 0o700),
    directory("tmp", 0o1777),
    program("bin/busybox", busybox),
    ...applets.filter((name) => !own.has(name)).map((name) => link(`bin/${name}`, "busybox")),
    link("sbin/init", "../bin/busybox"),
    link("usr/bin/env", "../../bin/busybox"),
    link("usr/sbin/mkfs.ext4", "mke2fs"),
    link("usr/sbin/fsck.ext4", "e2fsck"),
    link("etc/mtab", "/proc/mounts"),
    link("var/run", "/run"),
    ...programs,
    ...moduleEntries(modules, ["boot", "balloon", "random"]),
    program("usr/lib/hive/rc", rcScript),
    program("usr/lib/hive/start", startScript),
    file("usr/lib/hive/common", commonScript),
    file("usr/lib/hive/imds", imdsScript),
    program("usr/lib/hive/dhcp", dhcpScript),
    program("usr/lib/hive/dhcp-event", dhcpEventScript),
    program("usr/lib/hive/hotplug", hotplugScript),
    program("usr/lib/hive/console", consoleScript),
    program("usr/lib/hive/shutdown", shutdownScript),
    program("etc/acpi/PWRF/00000080", powerButtonScript),
    file("etc/inittab", INITTAB),
    file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    file("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    file("etc/shadow", "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n", 0o600),
    file("etc/shells", "/bin/sh\n/bin/bash\n"),
    file("etc/hosts", "127.0.0.1 localhost\n"),
    file("etc/hostname", "tiny\n"),
    file("etc/os-release", 'ID=hive-tiny\nNAME="Hive tiny"\nPRETTY_NAME="Hive tiny"\n'),
    file("etc/profile", "export PATH=/usr/local/bin:/bin:/sbin:/usr/bin:/usr/sbin\nPS1='\\u@\\h:\\w\\$ '\n"),
    file("var/lib/hive/root-sectors", `${DISK_BYTES / 512 - 2048}\n`),
  ];
}

const INITTAB = `::sysinit:/usr/lib/hive/rc
::once:/usr/lib/hive/start
::respawn:/bin/uevent /usr/lib/hive/hotplug
ttyS0::respawn:-/usr/lib/hive/console
::ctrlaltdel:/bin/reboot
::shutdown:/usr/lib/hive/shutdown
`;
