/**
 * The QEMU command line of an instance: a pure function of the machine that is wanted and of what this host can do.
 *
 * The machine looks as an EC2 instance does where guests look: the volume's id is its disk's serial number, the root disk is
 * in slot 4, the primary interface in slot 5, so that it is `ens5`, and SMBIOS says `Amazon EC2`. Disks are virtio-blk and not
 * NVMe as on Nitro: QEMU 7.2's NVMe now and then loses a guest's doorbell under emulation, and the disk is dead after three time-outs
 * of thirty seconds; and virtio-blk halts a guest whose host disk is full, where NVMe hands it an error. Disks and interfaces
 * that may be detached while the machine runs sit behind PCI Express root ports, as q35 plugs nothing into its root bus;
 * some ports are left empty for what comes later.
 *
 * Paths are relative to the data directory, in which QEMU is started: a guest's process needs no permission to search what lies
 * above it, and socket paths stay below the 107 bytes that Linux allows however deep the directory is.
 */
import type { Desired, DesiredDisk, DesiredNic } from "../../compute/desired.ts";

export interface QemuFacts {
  readonly program: string;
  readonly accel: "kvm" | "tcg";
  /** `tap`: the host's network; `user`: QEMU's own, with the guest's ssh port forwarded to a free port on loopback. */
  readonly network: "tap" | "user" | "none";
  /** The data path computes checksums that a guest left to its device. Open vSwitch's userspace data path does not. */
  readonly checksumOffload: boolean;
  /** Told to the guest when it is not 1500. */
  readonly mtu?: number;
  readonly sandbox: boolean;
}

/** Root ports left empty at start, for disks and interfaces that are attached later. */
export const SPARE_PORTS = 6;
const PORTS_PER_SLOT = 8;

export const instanceFolder = (id: string): string => `instances/${id}`;
/** The one folder that the guest's process may write in. */
export const runFolder = (id: string): string => `${instanceFolder(id)}/run`;
export const runFile = {
  qmp: (id: string) => `${runFolder(id)}/qmp.sock`,
  /** A monitor for a person with a debugger: the daemon holds the other, which serves one client. */
  operatorQmp: (id: string) => `${runFolder(id)}/qmp-operator.sock`,
  serial: (id: string) => `${runFolder(id)}/serial.sock`,
  consoleLog: (id: string) => `${runFolder(id)}/console.log`,
  screen: (id: string) => `${runFolder(id)}/screen.ppm`,
} as const;

/** How a process of ours is known in `/proc`: the argument after `-name`. */
export const processName = (id: string): string => `guest=${id},debug-threads=on`;

/** The program and its arguments. */
export function qemuCommandLine(desired: Desired, facts: QemuFacts): readonly string[] {
  const { id } = desired;
  const root = desired.disks.filter((disk) => disk.root);
  const extraDisks = desired.disks.filter((disk) => !disk.root);
  const [primary, ...extraNics] = facts.network === "none" ? [] : desired.nics;
  const behindPorts = extraDisks.length + extraNics.length;
  return [
    facts.program,
    ...["-name", processName(id)],
    ...["-nodefaults", "-no-user-config", "-display", "none"],
    ...["-machine", "q35,vmport=off,hpet=off,dump-guest-core=off"],
    ...accelerator(desired, facts),
    ...["-m", `size=${desired.memoryMib}M`],
    ...["-smp", topology(desired)],
    ...["-uuid", desired.uuid],
    ...smbios(desired),
    ...["-rtc", "base=utc"],
    ...["-boot", "strict=on"],
    // A guest that powers itself off leaves its process there, to tell a shutdown from a death.
    "-no-shutdown",
    ...(facts.sandbox ? ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"] : []),
    ...monitor("qmp", runFile.qmp(id)),
    ...monitor("qmp-operator", runFile.operatorQmp(id)),
    ...serial(id),
    ...["-vga", "std"],
    ...["-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng,bus=pcie.0,addr=0x3"],
    ...rootPorts(behindPorts + SPARE_PORTS),
    ...root.flatMap((disk) => diskArguments(disk, { bus: "pcie.0", addr: "0x4", bootindex: 1 })),
    ...(primary ? nicArguments(primary, facts, { bus: "pcie.0", addr: "0x5" }) : []),
    ...extraDisks.flatMap((disk, index) => diskArguments(disk, portPlace(index))),
    ...extraNics.flatMap((nic, index) => nicArguments(nic, facts, portPlace(extraDisks.length + index))),
    ...directBoot(desired),
  ];
}

/**
 * The translation cache of TCG grows towards 1 GiB a machine if it is not told otherwise. Smaller than the guest's working
 * set it thrashes: 8 MiB made a tiny guest four times slower, 32 as fast as any.
 */
export function translationCacheMib(memoryMib: number): number {
  if (memoryMib <= 192) return 32;
  if (memoryMib <= 384) return 64;
  return memoryMib < 2048 ? 128 : 256;
}

function accelerator(desired: Desired, facts: QemuFacts): readonly string[] {
  if (facts.accel === "kvm") return ["-accel", "kvm", "-cpu", "host"];
  return ["-accel", `tcg,thread=multi,tb-size=${translationCacheMib(desired.memoryMib)}`, "-cpu", "max"];
}

function topology({ cores, threadsPerCore }: Desired): string {
  return `cpus=${cores * threadsPerCore},sockets=1,cores=${cores},threads=${threadsPerCore}`;
}

function smbios({ id, uuid, instanceType }: Desired): readonly string[] {
  const type = instanceType.replaceAll(",", ",,");
  return [
    ...["-smbios", "type=0,vendor=Amazon EC2,version=1.0"],
    ...["-smbios", `type=1,manufacturer=Amazon EC2,product=${type},serial=${uuid},uuid=${uuid}`],
    ...["-smbios", `type=2,manufacturer=Amazon EC2,asset=${id}`],
    ...["-smbios", "type=3,manufacturer=Amazon EC2,asset=Amazon EC2"],
  ];
}

function monitor(name: string, path: string): readonly string[] {
  return ["-chardev", `socket,id=${name},path=${path},server=on,wait=off`, "-mon", `chardev=${name},mode=control`];
}

/** QEMU itself writes the log, so that output survives while no daemon listens; appending, so that it can be cut short. */
function serial(id: string): readonly string[] {
  const socket = `socket,id=serial,path=${runFile.serial(id)},server=on,wait=off`;
  return ["-chardev", `${socket},logfile=${runFile.consoleLog(id)},logappend=on`, "-serial", "chardev:serial"];
}

const portName = (index: number): string => `port${index}`;
/** The one slot of a root port. Named, or QEMU puts a second device where no guest looks for one, and says nothing. */
export const portPlace = (index: number): Place => ({ bus: portName(index), addr: "0x0" });

function rootPorts(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => {
    const slot = 0x10 + Math.floor(index / PORTS_PER_SLOT);
    const place = `addr=0x${slot.toString(16)}.${index % PORTS_PER_SLOT},multifunction=on`;
    // Guests reserve I/O ports for each bridge, of which there are few; no device here uses any.
    return ["-device", `pcie-root-port,id=${portName(index)},bus=pcie.0,chassis=${index + 1},${place},io-reserve=0`];
  }).flat();
}

export interface Place {
  readonly bus: string;
  readonly addr?: string;
  readonly bootindex?: number;
}

function diskArguments(disk: DesiredDisk, place: Place): readonly string[] {
  return [
    ...blockNodes(disk).flatMap((node) => ["-blockdev", JSON.stringify(node)]),
    ...["-device", JSON.stringify(diskDevice(disk, place))],
  ];
}

export type QmpArguments = { readonly [name: string]: unknown };

/**
 * The block graph of a volume, lowest node first. The backing image is named here and not taken from the volume's header,
 * which a guest's process can write: nobody can have it open another file.
 */
export function blockNodes(disk: DesiredDisk): readonly QmpArguments[] {
  const file = (name: string, filename: string, readOnly: boolean): QmpArguments => ({
    driver: "file",
    "node-name": name,
    filename,
    "read-only": readOnly,
    ...(readOnly ? {} : { discard: "unmap" }),
  });
  const { volumeId, backing } = disk;
  return [
    ...(backing
      ? [
          file(`${volumeId}.bf`, backing.file, true),
          {
            driver: backing.format,
            "node-name": `${volumeId}.b`,
            file: `${volumeId}.bf`,
            "read-only": true,
            backing: null,
          },
        ]
      : []),
    file(`${volumeId}.f`, disk.file, false),
    {
      driver: disk.format,
      "node-name": volumeId,
      file: `${volumeId}.f`,
      discard: "unmap",
      backing: backing ? `${volumeId}.b` : null,
    },
  ];
}

/** Node names of a volume, highest first: the order in which they can be removed. */
export const blockNodeNames = (volumeId: string): readonly string[] => [
  volumeId,
  `${volumeId}.f`,
  `${volumeId}.b`,
  `${volumeId}.bf`,
];

export function diskDevice(disk: DesiredDisk, place: Place): QmpArguments {
  return { driver: "virtio-blk-pci", id: disk.volumeId, drive: disk.volumeId, serial: disk.serial, ...place };
}

function nicArguments(nic: DesiredNic, facts: QemuFacts, place: Place): readonly string[] {
  return [
    ...["-netdev", JSON.stringify(nicBackend(nic, facts))],
    ...["-device", JSON.stringify(nicDevice(nic, facts, place))],
  ];
}

export const nicBackendId = (eniId: string): string => `${eniId}.n`;

export function nicBackend(nic: DesiredNic, facts: QemuFacts): QmpArguments {
  const id = nicBackendId(nic.eniId);
  if (facts.network === "user") return { type: "user", id, hostfwd: [{ str: "tcp:127.0.0.1:0-:22" }] };
  return { type: "tap", id, ifname: nic.tap, script: "no", downscript: "no" };
}

/** No option ROM: booting from the network is not offered, and looking for it costs the firmware time. */
export function nicDevice(nic: DesiredNic, facts: QemuFacts, place: Place): QmpArguments {
  return {
    driver: "virtio-net-pci",
    id: nic.eniId,
    netdev: nicBackendId(nic.eniId),
    mac: nic.mac,
    romfile: "",
    ...(facts.checksumOffload ? {} : { csum: false }),
    ...(facts.mtu === undefined ? {} : { host_mtu: facts.mtu }),
    ...place,
  };
}

function directBoot({ directBoot: boot }: Desired): readonly string[] {
  if (!boot) return [];
  return [
    ...["-kernel", boot.kernelFile],
    ...(boot.initrdFile ? ["-initrd", boot.initrdFile] : []),
    ...["-append", boot.commandLine],
  ];
}
