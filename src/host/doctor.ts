/** What a host lacks for Hive, each with the command that mends it. Reads the host, changes nothing. */
import { accessSync, constants, existsSync, readFileSync, statfsSync, statSync } from "node:fs";
import { freemem } from "node:os";
import { dirname } from "node:path";
import { GIB, MIB } from "../lib/units.ts";
import { run } from "./run.ts";

export interface Check {
  readonly name: string;
  /** `warn`: Hive works, but less well or without this part. */
  readonly status: "ok" | "warn" | "fail";
  readonly message: string;
  /** The command, or the sentence, that mends it. */
  readonly fix?: string;
}

export interface DoctorOptions {
  readonly dataDir: string;
  /** OVSDB's socket as configured; Open vSwitch's own default when absent. */
  readonly ovsdb?: string | undefined;
}

/** Every check, in the order a person would mend them. */
export async function examineHost(options: DoctorOptions): Promise<Check[]> {
  return Promise.all([
    user(),
    program("qemu", ["qemu-system-x86_64", "--version"], "qemu-system-x86", "fail"),
    program("qemu-img", ["qemu-img", "--version"], "qemu-utils", "fail"),
    kvm(),
    tun(),
    openvswitch(options.ovsdb),
    program("nftables", ["nft", "--version"], "nftables", "warn"),
    program("ip", ["ip", "-V"], "iproute2", "fail"),
    program("mmdebstrap", ["mmdebstrap", "--version"], "mmdebstrap", "warn"),
    program("grub-mkimage", ["grub-mkimage", "--version"], "grub-common", "warn"),
    awsCli(),
    memory(),
    disk(options.dataDir),
  ]);
}

const ok = (name: string, message: string): Check => ({ name, status: "ok", message });

function user(): Check {
  if (process.getuid?.() === 0) return ok("user", "root");
  return {
    name: "user",
    status: "warn",
    message: "not root: no TAP devices, no Open vSwitch, and machines run as you",
    fix: "run hive server as root (sudo)",
  };
}

async function program(
  name: string,
  argv: readonly string[],
  debian: string,
  severity: "warn" | "fail",
): Promise<Check> {
  const result = await run(argv, { timeoutMs: 10_000 });
  if (result.ok && result.value.code === 0) return ok(name, result.value.stdout.split("\n")[0]!.trim() || "present");
  const message = result.ok ? `${argv[0]} fails: ${result.value.stderr.trim()}` : `${argv[0]} is not installed`;
  return { name, status: severity, message, fix: `apt-get install ${debian}` };
}

/** An AWS CLI before 2.13 does not read a profile's endpoint_url (its changelog, 2.13.0), and would ask AWS. */
async function awsCli(): Promise<Check> {
  const name = "aws";
  const result = await run(["aws", "--version"], { timeoutMs: 20_000 });
  if (!result.ok || result.value.code !== 0) {
    return { name, status: "warn", message: "no AWS CLI: Hive works without it", fix: "apt-get install awscli" };
  }
  const text = `${result.value.stdout}${result.value.stderr}`.trim().split(" ")[0]!;
  const [, major, minor] = /^aws-cli\/(\d+)\.(\d+)/.exec(text)?.map(Number) ?? [];
  const reads =
    major !== undefined &&
    minor !== undefined &&
    (major > 2 || (major === 2 && minor >= 13) || (major === 1 && minor >= 29));
  if (reads) return ok(name, text);
  return {
    name,
    status: "warn",
    message: `${text}, older than 2.13, does not read the profile's endpoint_url`,
    fix: "alias aws='aws --endpoint-url http://127.0.0.1:9999'",
  };
}

function kvm(): Check {
  const name = "kvm";
  if (!existsSync("/dev/kvm")) {
    return {
      name,
      status: "warn",
      message: "no /dev/kvm: machines run in software emulation (TCG), some ten times slower",
      fix: "enable virtualisation in the firmware, or nested virtualisation in the hypervisor; modprobe kvm_intel or kvm_amd",
    };
  }
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return {
      name,
      status: "warn",
      message: "/dev/kvm cannot be opened by this user",
      fix: "adduser $USER kvm, then log in again",
    };
  }
  const flags = readText("/proc/cpuinfo");
  if (!/\b(vmx|svm)\b/.test(flags)) {
    return {
      name,
      status: "warn",
      message: "/dev/kvm opens, but the processor offers neither VMX nor SVM: machines run in software emulation (TCG)",
      fix: "enable nested virtualisation in the hypervisor; --accel kvm tries it nevertheless",
    };
  }
  return ok(name, "/dev/kvm opens; the server proves it by booting a guest");
}

function tun(): Check {
  const name = "tun";
  try {
    if (statSync("/dev/net/tun").isCharacterDevice()) return ok(name, "/dev/net/tun");
  } catch {
    // Absent: said below.
  }
  return { name, status: "fail", message: "no /dev/net/tun: instances have no network port", fix: "modprobe tun" };
}

async function openvswitch(ovsdb: string | undefined): Promise<Check> {
  const name = "openvswitch";
  const database = ovsdb === undefined ? [] : [`--db=${ovsdb}`];
  const shown = await run(
    ["ovs-vsctl", ...database, "--timeout=3", "--no-wait", "get", "Open_vSwitch", ".", "ovs_version"],
    {
      timeoutMs: 10_000,
    },
  );
  if (!shown.ok)
    return {
      name,
      status: "fail",
      message: "Open vSwitch is not installed",
      fix: "apt-get install openvswitch-switch",
    };
  if (shown.value.code !== 0) {
    const systemd = existsSync("/run/systemd/system");
    return {
      name,
      status: "fail",
      message: `Open vSwitch does not answer: ${shown.value.stderr.trim().split("\n")[0]}`,
      fix: systemd
        ? "systemctl start openvswitch-switch"
        : "/usr/share/openvswitch/scripts/ovs-ctl start --system-id=random",
    };
  }
  const kernel = existsSync("/sys/module/openvswitch");
  // Its start script writes the version; a database that was set up by hand has none.
  const version = shown.value.stdout
    .trim()
    .replace(/^\[\]$/, "answers")
    .replaceAll('"', "");
  return ok(name, `${version}, ${kernel ? "kernel data path" : "userspace data path (no kernel module)"}`);
}

function memory(): Check {
  const free = Math.round(freemem() / MIB);
  if (free >= 512) return ok("memory", `${free} MiB free`);
  return { name: "memory", status: "warn", message: `${free} MiB free: little room for machines` };
}

function disk(dataDir: string): Check {
  let folder = dataDir;
  while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
  const { bavail, bsize } = statfsSync(folder);
  const free = (Number(bavail) * Number(bsize)) / GIB;
  const message = `${free.toFixed(1)} GiB free for ${dataDir}`;
  if (free >= 5) return ok("disk", message);
  return {
    name: "disk",
    status: free < 1 ? "fail" : "warn",
    message,
    fix: "give the data directory a larger file system (--data-dir)",
  };
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
