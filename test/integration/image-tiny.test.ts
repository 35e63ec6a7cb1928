/** The image `tiny`, built for real and booted under QEMU, without the rest of Hive. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { BuiltImage } from "../../src/host/image-build/built-image.ts";
import { buildTiny } from "../../src/host/image-build/tiny.ts";
import { createVolume, inspectImage } from "../../src/host/qemu-img.ts";
import { runChecked } from "../../src/host/run.ts";
import { present } from "../../src/lib/assert.ts";
import { GIB } from "../../src/lib/units.ts";
import { FakeImds, Guest, type GuestOptions, testCache, unpackBusybox } from "./image-guest.ts";

/** Generous: cores are shared, and an emulated guest takes several times as long on a busy host. */
const BOOT_MS = 120_000;
const TEST_MS = 10 * 60_000;

const scratch = mkdtempSync(join(tmpdir(), "hive-image-test-"));
const workDirectory = join(scratch, "work");
const imdses: FakeImds[] = [];
const guests: Guest[] = [];
let image: BuiltImage;
let busybox: string;
let volumes = 0;

beforeAll(async () => {
  const built = await buildTiny({ workDirectory, cacheDirectory: testCache() });
  if (!built.ok) throw new Error(built.error.message);
  image = built.value;
  busybox = await unpackBusybox(testCache(), join(scratch, "busybox"));
}, TEST_MS);

afterAll(async () => {
  for (const guest of guests) await guest.dispose();
  for (const imds of imdses) imds.stop();
  rmSync(scratch, { recursive: true, force: true });
});

async function newVolume(bytes = GIB): Promise<string> {
  const file = join(scratch, `volume-${volumes++}.qcow2`);
  const made = await createVolume({
    file,
    format: "qcow2",
    sizeBytes: bytes,
    backing: { file: image.file, format: "qcow2" },
  });
  if (!made.ok) throw new Error(made.error.message);
  return file;
}
function newImds(): FakeImds {
  const imds = new FakeImds();
  imdses.push(imds);
  return imds;
}
function boot(options: Omit<GuestOptions, "busybox">): Guest {
  const guest = new Guest({ busybox, ...options });
  guests.push(guest);
  return guest;
}
const direct = () => ({
  kernel: present(image.kernelFile, "tiny has a kernel"),
  initrd: present(image.initrdFile, "tiny has an initramfs"),
  commandLine: present(image.kernelCommandLine, "tiny has a command line"),
});
async function newKey(name: string): Promise<{ file: string; public: string }> {
  const file = join(scratch, name);
  const made = await runChecked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file]);
  if (!made.ok) throw new Error(made.error.message);
  return { file, public: readFileSync(`${file}.pub`, "utf8").trim() };
}
const hostKeyOn = (console: string): string =>
  present(/-----BEGIN SSH HOST KEY KEYS-----\n(ssh-ed25519 \S+)/.exec(console)?.[1], "the console shows the host key");
async function powerOff(guest: Guest): Promise<void> {
  await guest.qmp("system_powerdown");
  expect(await guest.exited(BOOT_MS)).toBe(0);
  expect(guest.console()).toContain("HIVE:shutdown");
}

describe("building tiny", () => {
  test(
    "a second build takes everything from the cache and leaves no scratch behind",
    async () => {
      const again = await buildTiny({
        workDirectory,
        cacheDirectory: testCache(),
        onProgress: (m) => expect(m).not.toMatch(/disk|unpack/),
      });
      expect(again).toEqual({ ok: true, value: image });
      expect(existsSync(workDirectory) ? readdirSync(workDirectory) : []).toEqual([]);
      expect(await inspectImage(image.file)).toMatchObject({ ok: true, value: { format: "qcow2", virtualBytes: GIB } });
    },
    TEST_MS,
  );

  test(
    "a build that is cancelled leaves neither an image nor scratch",
    async () => {
      const cacheDirectory = join(scratch, "cancelled");
      const abort = new AbortController();
      const onProgress = (message: string) => message === "unpacking" && abort.abort();
      await runChecked(["mkdir", "-p", cacheDirectory]);
      await runChecked(["cp", "-r", join(testCache(), "packages"), cacheDirectory]);
      const result = await buildTiny({ workDirectory, cacheDirectory, onProgress, signal: abort.signal });
      expect(result).toMatchObject({ ok: false, error: { kind: "aborted" } });
      expect(readdirSync(join(cacheDirectory, "images"))).toEqual([]);
      expect(readdirSync(workDirectory)).toEqual([]);
    },
    TEST_MS,
  );
});

describe("tiny under QEMU", () => {
  test(
    "started directly: network, key, host name and user data come from the metadata service; ssh works; the power button ends it",
    async () => {
      const key = await newKey("first");
      const second = await newKey("second");
      const stranger = await newKey("stranger");
      const imds = newImds();
      imds.publicKeys = [
        { name: "first", key: key.public },
        { name: "second", key: second.public },
      ];
      imds.userData = ["#!/bin/bash", "words=(one two)", "echo user data says $" + "{#words[@]}", "exit 3", ""].join(
        "\n",
      );
      const guest = boot({ disk: await newVolume(), imds, direct: direct() });
      await guest.waitFor(/HIVE:init up=[\d.]+\n/, BOOT_MS);
      await guest.waitFor(/HIVE:network up=[\d.]+ 169\.254\.0\.15\n/, BOOT_MS);
      await guest.waitFor(/HIVE:imds up=[\d.]+ i-0123456789abcdef0\n/, BOOT_MS);
      await guest.waitFor(/user data says 2\nHIVE:userdata up=[\d.]+ exit=3\n/, BOOT_MS);
      await guest.waitFor(/HIVE:ready up=[\d.]+\n/, BOOT_MS);
      await guest.waitFor(/root@ip-169-254-0-15:~# /, BOOT_MS);

      const hostKey = hostKeyOn(guest.console());
      const probe = "cat /var/log/user-data.log; hostname; id -u; ps | grep -c '[u]dhcpc'";
      for (const { file } of [key, second]) {
        expect(await guest.ssh("root", file, hostKey, probe)).toMatchObject({
          ok: true,
          value: { stdout: "user data says 2\nip-169-254-0-15\n0\n1\n" },
        });
      }
      const refused = await guest.ssh("root", stranger.file, hostKey, "true");
      expect(!refused.ok && refused.error.stderr).toContain("Permission denied (publickey)");
      await powerOff(guest);
    },
    TEST_MS,
  );

  test(
    "as a whole disk, by BIOS and GRUB: the file system fills a larger volume, a restart keeps its state and doesn't run user data again",
    async () => {
      const key = await newKey("grub");
      const imds = newImds();
      imds.publicKeys = [{ name: "grub", key: key.public }];
      imds.userData = gzipSync("#!/bin/sh\necho ran >> /root/runs\n");
      const disk = await newVolume(4 * GIB);
      const guest = boot({ disk, imds });
      await guest.waitFor(/HIVE:userdata up=[\d.]+ exit=0\n/, BOOT_MS);
      await guest.waitFor(/HIVE:ready/, BOOT_MS);
      const hostKey = hostKeyOn(guest.console());
      const sized = await guest.ssh(
        "root",
        key.file,
        hostKey,
        "df -k / | tail -1 | awk '{print $2}'; echo kept > /root/state",
      );
      expect(Number(sized.ok && sized.value.stdout.trim())).toBeGreaterThan(3.8 * 1024 * 1024);

      const before = guest.console().length;
      await guest.ssh("root", key.file, hostKey, "reboot");
      await guest.waitFor(/HIVE:init[\s\S]*HIVE:ready/, BOOT_MS, before);
      const state = "cat /root/runs /root/state; hostname";
      const expected = { ok: true, value: { stdout: "ran\nkept\nip-169-254-0-15\n" } };
      expect(await guest.ssh("root", key.file, hostKey, state)).toMatchObject(expected);
      await powerOff(guest);

      // Stopped and started again, now directly and from an NVMe disk: it is still the same instance.
      const restarted = boot({ disk, imds, direct: direct(), diskDevice: "nvme" });
      await restarted.waitFor(/HIVE:ready/, BOOT_MS);
      expect(await restarted.ssh("root", key.file, hostKey, state)).toMatchObject(expected);
      expect(restarted.console()).not.toContain("HIVE:userdata");
      await powerOff(restarted);
    },
    TEST_MS,
  );

  test(
    "a new instance from a used disk has host keys, authorized keys and a user data run of its own",
    async () => {
      const [old, next] = [await newKey("old"), await newKey("next")];
      const disk = await newVolume();
      const imds = newImds();
      imds.publicKeys = [{ name: "old", key: old.public }];
      imds.userData = "#!/bin/sh\necho first run\n";
      const first = boot({ disk, imds, direct: direct() });
      await first.waitFor(/first run\n[\s\S]*HIVE:ready/, BOOT_MS);
      const oldHostKey = hostKeyOn(first.console());
      await powerOff(first);

      imds.instanceId = "i-0fedcba9876543210";
      imds.hostname = "ip-10-0-0-9.ec2.internal";
      imds.publicKeys = [{ name: "next", key: next.public }];
      imds.userData = "#cloud-config\npackages: [vim]\n";
      const second = boot({ disk, imds, direct: direct() });
      await second.waitFor(/HIVE:userdata-ignored up=[\d.]+ .*cloud-config is not applied/, BOOT_MS);
      await second.waitFor(/HIVE:ready/, BOOT_MS);
      const newHostKey = hostKeyOn(second.console());
      expect(newHostKey).not.toBe(oldHostKey);
      expect(await second.ssh("root", next.file, newHostKey, "hostname")).toMatchObject({
        ok: true,
        value: { stdout: "ip-10-0-0-9\n" },
      });
      expect((await second.ssh("root", old.file, newHostKey, "true")).ok).toBe(false);
    },
    TEST_MS,
  );

  test(
    "an interface and a disk that are plugged in while it runs are there at once: the interface has an address and routes of its own",
    async () => {
      const key = await newKey("hotplug");
      const imds = newImds();
      imds.publicKeys = [{ name: "hotplug", key: key.public }];
      const extraArguments = [
        ...["-device", "pcie-root-port,id=slot1,chassis=1", "-device", "pcie-root-port,id=slot2,chassis=2"],
        ...["-netdev", "user,id=n1,net=10.9.0.0/24"],
      ];
      const guest = boot({ disk: await newVolume(), imds, direct: direct(), extraArguments });
      await guest.waitFor(/HIVE:ready/, BOOT_MS);
      const hostKey = hostKeyOn(guest.console());
      const data = join(scratch, "data.qcow2");
      const made = await createVolume({ file: data, format: "qcow2", sizeBytes: GIB });
      expect(made.ok).toBe(true);
      await guest.qmp("device_add", {
        driver: "virtio-net-pci",
        netdev: "n1",
        bus: "slot1",
        id: "eni1",
        mac: "0e:00:00:00:00:02",
      });
      await guest.qmp("blockdev-add", {
        driver: "qcow2",
        "node-name": "vol1",
        file: { driver: "file", filename: data },
      });
      await guest.qmp("device_add", {
        driver: "virtio-blk-pci",
        drive: "vol1",
        bus: "slot2",
        id: "vol1",
        serial: "vol0123456789abcdef0",
      });
      const wait = "while ! [ -s /run/hive/eth1.address -a -b /dev/vdb ]; do sleep 0.1; done";
      const use =
        "mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && echo written > /mnt/file && cat /mnt/file /sys/block/vdb/serial; echo";
      const seen = await guest.ssh(
        "root",
        key.file,
        hostKey,
        `${wait}; cat /run/hive/eth1.address; ip rule; ip route show table 101; ip route; ${use}`,
      );
      expect(seen.ok ? seen.value.stderr : seen.error).toBe("");
      const shown = seen.ok ? seen.value.stdout : "";
      expect(shown).toContain("10.9.0.15\n");
      expect(shown).toMatch(/from 10\.9\.0\.15 lookup 101/);
      expect(shown).toMatch(/^10\.9\.0\.0\/24 dev eth1/m);
      expect(shown).toMatch(/^default via 10\.9\.0\.2 dev eth1\s*$/m);
      expect(shown).toMatch(/^default via 10\.9\.0\.2 dev eth1 .*metric 101/m);
      expect(shown).toContain("written\nvol0123456789abcdef0\n");
    },
    TEST_MS,
  );
});
