import { expect, test } from "bun:test";
import { type Desired, instanceUuid, volumeSerial } from "../../compute/desired.ts";
import { seededRandom } from "../../lib/random.ts";
import { newId } from "../../model/ids.ts";
import { blockNodes, type QemuFacts, qemuCommandLine, SPARE_PORTS, translationCacheMib } from "./command-line.ts";

const random = seededRandom(5);
const facts: QemuFacts = {
  program: "/usr/bin/qemu",
  accel: "tcg",
  network: "tap",
  checksumOffload: false,
  sandbox: true,
};
const disk = (root: boolean): Desired["disks"][number] => {
  const volumeId = newId("Volume", random);
  const snapshotId = newId("Snapshot", random);
  return {
    volumeId,
    file: `volumes/${volumeId}.qcow2`,
    format: "qcow2",
    sizeBytes: 2 ** 30,
    ...(root ? { backing: { snapshotId, file: `snapshots/${snapshotId}/disk.qcow2`, format: "qcow2" as const } } : {}),
    deviceName: root ? "/dev/xvda" : "/dev/sdf",
    serial: volumeSerial(volumeId),
    root,
  };
};
const nic = (deviceIndex: number): Desired["nics"][number] => {
  const eniId = newId("NetworkInterface", random);
  return { eniId, tap: `hv${eniId.slice(-12)}`, mac: "02:00:00:00:00:01", deviceIndex };
};
const id = newId("Instance", random);
const desired: Desired = {
  id,
  power: "on",
  forced: false,
  powerChangedAt: 0,
  bootGeneration: 1,
  rebootGeneration: 0,
  interruptGeneration: 0,
  autoRecovery: true,
  instanceType: "m5.large",
  cores: 1,
  threadsPerCore: 2,
  memoryMib: 8192,
  disks: [disk(true), disk(false)],
  nics: [nic(0), nic(1)],
  uuid: instanceUuid(id),
  deleteOnTermination: [],
};
const lineOf = (change: Partial<Desired> = {}, facts_: Partial<QemuFacts> = {}) =>
  qemuCommandLine({ ...desired, ...change }, { ...facts, ...facts_ });
/** Values after each `option`. */
const valuesOf = (line: readonly string[], option: string) => line.filter((_, i) => line[i - 1] === option);
const devices = (line: readonly string[]) =>
  valuesOf(line, "-device").flatMap((text) => (text.startsWith("{") ? [JSON.parse(text)] : []));

test("the same instance on the same host has the same command line", () => {
  expect(lineOf()).toEqual(lineOf());
});

test("the guest can tell that it is on EC2", () => {
  expect(desired.uuid).toMatch(/^ec2[0-9a-f]{5}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
  const smbios = valuesOf(lineOf(), "-smbios").join(" ");
  expect(smbios).toContain(`manufacturer=Amazon EC2,product=m5.large,serial=${desired.uuid},uuid=${desired.uuid}`);
  expect(smbios).toContain(`asset=${id}`);
});

test("disks are virtio-blk with the volume's id as serial, the root first and not behind a port", () => {
  const [root, data] = devices(lineOf()).filter((d) => d.driver === "virtio-blk-pci");
  expect(root).toMatchObject({ bus: "pcie.0", serial: desired.disks[0]!.serial, bootindex: 1 });
  expect(root.serial).toHaveLength(20);
  expect(data).toMatchObject({ bus: "port0", addr: "0x0" });
});

test("the backing image is opened read-only, by the name in the tables and not by that in the volume's header", () => {
  const nodes = blockNodes(desired.disks[0]!);
  expect(nodes.map((node) => node["read-only"] === true)).toEqual([true, true, false, false]);
  expect(nodes.at(-1)).toMatchObject({ backing: `${desired.disks[0]!.volumeId}.b` });
  expect(blockNodes(desired.disks[1]!).at(-1)).toMatchObject({ backing: null });
});

test("devices behind ports each have their own, and ports are left for more", () => {
  const line = lineOf();
  const ports = valuesOf(line, "-device").filter((text) => text.startsWith("pcie-root-port"));
  expect(ports).toHaveLength(2 + SPARE_PORTS);
  expect(new Set(ports.map((text) => text.match(/chassis=\d+/)?.[0])).size).toBe(ports.length);
  const used = devices(line)
    .map((d) => d.bus)
    .filter((bus) => bus !== "pcie.0");
  expect(used).toEqual(["port0", "port1"]);
});

test("checksums are left to the device only where the data path computes them", () => {
  const csum = (facts_: Partial<QemuFacts>) =>
    devices(lineOf({}, facts_)).find((d) => d.driver === "virtio-net-pci").csum;
  expect(csum({})).toBe(false);
  expect(csum({ checksumOffload: true })).toBeUndefined();
});

test("no network means no interface", () => {
  expect(devices(lineOf({}, { network: "none" })).some((d) => d.netdev)).toBe(false);
});

test("a kernel is started directly where the image has one, else the disk's boot loader is", () => {
  expect(lineOf()).not.toContain("-kernel");
  const direct = lineOf({ directBoot: { kernelFile: "snapshots/s/vmlinuz", commandLine: "a=b,c -daemonize" } });
  expect(valuesOf(direct, "-kernel")).toEqual(["snapshots/s/vmlinuz"]);
  expect(valuesOf(direct, "-append")).toEqual(["a=b,c -daemonize"]);
});

test("socket paths fit, however deep the data directory is", () => {
  const paths = lineOf().flatMap((argument) => argument.match(/path=([^,]+)/)?.[1] ?? []);
  expect(paths.length).toBe(3);
  for (const path of paths) expect(path.length).toBeLessThan(108);
});

test("the translation cache is bounded for every size of guest", () => {
  expect([128, 256, 512, 1024, 8192].map(translationCacheMib)).toEqual([32, 64, 128, 128, 256]);
  expect(valuesOf(lineOf({ memoryMib: 128 }), "-accel")).toEqual(["tcg,thread=multi,tb-size=32"]);
  expect(valuesOf(lineOf({}, { accel: "kvm" }), "-cpu")).toEqual(["host"]);
});
