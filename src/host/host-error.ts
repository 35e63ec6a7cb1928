/**
 * What can go wrong on a machine, as a value. Host failures are translated once, where they surface (an instance's state
 * reason, a line on stderr), so each carries one sentence that a person can act on.
 */
export type HostErrorKind =
  /** The program, or a part of it, isn't installed; `debianPackage` carries it. */
  | "missing-program"
  /** The program ran and said no; `code` and `stderr` tell. */
  | "command-failed"
  /** It took longer than it may, and was ended. */
  | "timeout"
  /** The caller's signal ended it. */
  | "aborted"
  /** It wrote more than `maxOutputBytes`, and was ended. */
  | "output-too-large"
  /** The file system is full, or a quota or size limit is reached. */
  | "no-space"
  | "permission"
  | "not-found"
  /** A disk image that is no image, is damaged, or asks for what Hive refuses (a backing file, another format…). */
  | "bad-image"
  /** This host can't do that, whatever the input. */
  | "unsupported"
  /** Any other failure of the operating system. */
  | "io";

export type HostError = {
  readonly kind: HostErrorKind;
  /** One sentence, complete: names the file, program or limit, and what mends it where that is known. */
  readonly message: string;
  readonly program?: string;
  readonly debianPackage?: string;
  /** Exit code, for `command-failed`. */
  readonly code?: number;
  /** The end of what the program wrote to stderr, for the log. */
  readonly stderr?: string;
  readonly cause?: unknown;
};

/** The package of Debian (and Ubuntu) that carries a program Hive starts. */
const DEBIAN_PACKAGES: { readonly [program: string]: string } = {
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-system-aarch64": "qemu-system-arm",
  "qemu-img": "qemu-utils",
  "qemu-nbd": "qemu-utils",
  "qemu-storage-daemon": "qemu-system-common",
  "ovs-vsctl": "openvswitch-switch",
  "ovs-ofctl": "openvswitch-switch",
  "ovs-appctl": "openvswitch-switch",
  "ovs-dpctl": "openvswitch-switch",
  "ovs-vswitchd": "openvswitch-switch",
  "ovsdb-server": "openvswitch-switch",
  "ovsdb-tool": "openvswitch-switch",
  "ovsdb-client": "openvswitch-switch",
  ip: "iproute2",
  bridge: "iproute2",
  tc: "iproute2",
  ss: "iproute2",
  ethtool: "ethtool",
  nft: "nftables",
  "apt-get": "apt",
  "apt-cache": "apt",
  "dpkg-deb": "dpkg",
  dpkg: "dpkg",
  mke2fs: "e2fsprogs",
  debugfs: "e2fsprogs",
  resize2fs: "e2fsprogs",
  "grub-mkimage": "grub-common",
  mmdebstrap: "mmdebstrap",
  chroot: "coreutils",
  xz: "xz-utils",
  prlimit: "util-linux",
  "systemd-run": "systemd",
  "ssh-keygen": "openssh-client",
};

export const missingProgram = (program: string): HostError => {
  const debianPackage = DEBIAN_PACKAGES[program];
  const mend = debianPackage ? `install the package ${debianPackage} (apt-get install ${debianPackage})` : "install it";
  return {
    kind: "missing-program",
    message: `${program} is not installed: ${mend}`,
    program,
    ...(debianPackage ? { debianPackage } : {}),
  };
};

export const commandFailed = (program: string, code: number, stderr: string): HostError => {
  const lines = stderr.trim().split("\n");
  const said = lines.slice(-3).join("; ").slice(0, 600);
  const kind = /No space left on device|Disk quota exceeded|File too large/i.test(stderr)
    ? "no-space"
    : "command-failed";
  return { kind, message: `${program} failed (exit code ${code})${said ? `: ${said}` : ""}`, program, code, stderr };
};

export const commandTimedOut = (program: string, timeoutMs: number): HostError => ({
  kind: "timeout",
  message: `${program} did not finish within ${timeoutMs / 1000} s and was ended`,
  program,
});

export const commandAborted = (program: string): HostError => ({
  kind: "aborted",
  message: `${program} was ended because the operation was cancelled`,
  program,
});

export const outputTooLarge = (program: string, maxOutputBytes: number): HostError => ({
  kind: "output-too-large",
  message: `${program} wrote more than ${maxOutputBytes} bytes and was ended`,
  program,
});

const KIND_OF_ERRNO: { readonly [code: string]: HostErrorKind } = {
  ENOSPC: "no-space",
  EDQUOT: "no-space",
  EFBIG: "no-space",
  EACCES: "permission",
  EPERM: "permission",
  EROFS: "permission",
  ENOENT: "not-found",
  ABORT_ERR: "aborted",
};

/** An exception of the operating system (a failed read, a full disk), met while `doing` ("write /var/…"). */
export const ioFailed = (doing: string, cause: unknown): HostError => {
  const code = errnoOf(cause);
  const text = cause instanceof Error ? cause.message : String(cause);
  return { kind: KIND_OF_ERRNO[code ?? ""] ?? "io", message: `cannot ${doing}: ${text}`, cause };
};

/** `ENOENT` and the like, if `cause` is an error of the operating system. */
export const errnoOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : undefined;

export const badImage = (file: string, why: string): HostError => ({ kind: "bad-image", message: `${file}: ${why}` });

export const unsupported = (message: string): HostError => ({ kind: "unsupported", message });
