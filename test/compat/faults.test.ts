/** What goes wrong on real hosts, done to a real daemon: each time a clear sentence and the right exit code, and nothing lost. */
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findGuests } from "../../src/host/hypervisor/process.ts";
import { present } from "../../src/lib/assert.ts";
import { HIVE, type Hive, until, withHive } from "../support/hive.ts";
import { nodeUnavailable } from "../support/netns.ts";
import { newKeyPair, printed, tinyImage } from "../support/shared-hive.ts";

const lacks = nodeUnavailable();
if (lacks) console.log(`skipped: the faults of a host ${lacks}`);
const TEST_MS = 300_000;

/** One CLI call, its words separated by spaces. */
const ec2 = (hive: Hive, line: string) => hive.aws("ec2", ...line.split(" "));
const instance = async (hive: Hive, id: string) =>
  (await ec2(hive, `describe-instances --instance-ids ${id}`)).Reservations[0].Instances[0];
const inState = (hive: Hive, id: string, state: string) =>
  until(async () => (await instance(hive, id)).State.Name === state, `${id} is ${state}`, 60_000);
/** A daemon that should not come up: its exit code and what it says. */
async function refused(hive: Hive, dataDir: string, ...flags: string[]): Promise<{ code: number; stderr: string }> {
  const argv = [HIVE, "server", "--role=all", "--data-dir", dataDir, "--accel", "none", ...flags];
  const { code, stderr } = await hive.node.try(argv, { timeoutMs: 20_000 });
  return { code, stderr };
}
/** A raw disk with nothing on it but a boot sector's signature. */
function emptyDisk(hive: Hive): string {
  const file = join(hive.node.directory, "empty.raw");
  const bytes = new Uint8Array(1 << 20);
  bytes.set([0x55, 0xaa], 510);
  writeFileSync(file, bytes);
  return file;
}

describe.skipIf(lacks !== undefined)("faults", () => {
  test(
    "bad input is refused with a sentence: an image that is none, user data that is too long",
    () =>
      withHive(
        async (hive) => {
          const imported = (name: string, content: string | Uint8Array) => {
            const file = join(hive.node.directory, name);
            writeFileSync(file, content);
            return hive.hive("image", "import", file, "--name", name).then(
              (id) => `imported as ${id}`,
              (cause) => String(cause),
            );
          };
          expect(await imported("letter", "Dear Sir,\n".repeat(1000))).toMatch(/letter.*|neither|not a disk/);
          expect(await imported("archive", Buffer.from("1f8b0800", "hex"))).toContain("gzip");
          expect(
            await imported("broken", Buffer.concat([Buffer.from("QFI\xfb", "latin1"), Buffer.alloc(600, 7)])),
          ).toContain("qcow2");
          expect(await imported("nothing", "")).toContain("exit 1");
          expect((await ec2(hive, "describe-images --owners self")).Images).toEqual([]);
          expect((await ec2(hive, "describe-snapshots --owner-ids self")).Snapshots).toEqual([]);
          expect(readdirSync(join(hive.dataDir, "snapshots"))).toEqual([]);

          const ami = await hive.hive("image", "import", emptyDisk(hive), "--name", "empty");
          const tooLong = join(hive.node.directory, "user-data");
          writeFileSync(tooLong, `#!/bin/sh\n${"#".repeat(16 * 1024)}`);
          const run = `run-instances --image-id ${ami} --instance-type h1.nano --user-data file://${tooLong}`;
          expect(await hive.awsFails("ec2", ...run.split(" "))).toMatch(/InvalidParameterValue.*16384/);
          expect((await ec2(hive, "describe-instances")).Reservations).toEqual([]);
        },
        { accel: "none" },
      ),
    TEST_MS,
  );

  test(
    "a second daemon, a port in use, a wrong flag: a sentence, an exit code, and the first daemon goes on",
    () =>
      withHive(
        async (hive) => {
          const second = await refused(hive, hive.dataDir, "--listen", "127.0.0.1:9998");
          expect(second).toMatchObject({ code: 1, stderr: expect.stringContaining(`(process ${hive.pid})`) });
          const elsewhere = join(hive.node.directory, "elsewhere");
          const port = await refused(hive, elsewhere);
          expect(port).toMatchObject({
            code: 1,
            stderr: expect.stringContaining("127.0.0.1:9999 is in use by another program"),
          });
          expect((await refused(hive, elsewhere, "--listen", "127.0.0.1:9998", "--region", "Mars")).code).toBe(2);
          const file = join(hive.node.directory, "a-file");
          writeFileSync(file, "");
          expect(await refused(hive, join(file, "data"), "--listen", "127.0.0.1:9998")).toMatchObject({
            code: 1,
            stderr: expect.stringContaining(file),
          });
          expect((await ec2(hive, "describe-vpcs")).Vpcs).toHaveLength(1);
          expect(await hive.kill("SIGTERM")).toBe(0);
        },
        { accel: "none" },
      ),
    TEST_MS,
  );

  test(
    "a torn last record is cut, damage before it stops the node and changes nothing",
    () =>
      withHive(
        async (hive) => {
          const store = join(hive.dataDir, "store");
          const names = async () =>
            (await ec2(hive, "describe-key-pairs")).KeyPairs.map((pair: { KeyName: string }) => pair.KeyName);
          const segment = () =>
            join(
              store,
              present(
                readdirSync(store)
                  .sort()
                  .findLast((name) => name.endsWith(".segment")),
                "a segment",
              ),
            );
          const endOf = (bytes: Buffer) => bytes.findLastIndex((byte) => byte !== 0) + 1;
          await newKeyPair(hive, "one");
          await newKeyPair(hive, "two");
          await hive.kill("SIGKILL");

          // A write that never was acknowledged, and did not reach the disk whole.
          const torn = readFileSync(segment());
          torn.fill(0x5a, endOf(torn), endOf(torn) + 37);
          writeFileSync(segment(), torn);
          await hive.start();
          expect(await names()).toEqual(["one", "two"]);

          // The same of the very last record, the third key's or, 50 ms later, a seal: all that came before it is there.
          await newKeyPair(hive, "three");
          await hive.kill("SIGKILL");
          const cut = readFileSync(segment());
          cut.fill(0, endOf(cut) - 20);
          writeFileSync(segment(), cut);
          await hive.start();
          expect(await names()).toEqual(expect.arrayContaining(["one", "two"]));
          await newKeyPair(hive, "four");
          await hive.kill("SIGKILL");

          const good = `${segment()}.good`;
          copyFileSync(segment(), good);
          const damaged = readFileSync(segment());
          const at = Math.floor(endOf(damaged) / 2);
          damaged[at] = damaged[at]! ^ 0xff;
          writeFileSync(segment(), damaged);
          const { code, stderr } = await refused(hive, hive.dataDir);
          expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("The log is damaged") });
          expect(stderr).toContain(segment());
          expect(stderr).toContain("restore the file from a backup");
          expect(readFileSync(segment()).equals(damaged)).toBe(true);
          copyFileSync(good, segment());
          rmSync(good);
          await hive.start();
          expect(await names()).toContain("four");
        },
        { accel: "none" },
      ),
    TEST_MS,
  );

  test(
    "QEMU missing: the instance ends with a reason that names what to install",
    () =>
      withHive(
        async (hive) => {
          const ami = await hive.hive("image", "import", emptyDisk(hive), "--name", "empty");
          const { Instances } = await ec2(hive, `run-instances --image-id ${ami} --instance-type h1.nano`);
          await inState(hive, Instances[0].InstanceId, "terminated");
          expect((await instance(hive, Instances[0].InstanceId)).StateReason).toEqual({
            Code: "Server.InternalError",
            Message: expect.stringMatching(/qemu-system-x86_64 .*apt-get install/),
          });
          await until(async () => (await ec2(hive, "describe-volumes")).Volumes.length === 0, "its volume goes");
        },
        {
          prefix: [
            "unshare",
            "--mount",
            "sh",
            "-c",
            `mount --bind /dev/null ${Bun.which("qemu-system-x86_64")} && exec "$@"`,
            "sh",
          ],
        },
      ),
    TEST_MS,
  );

  test(
    "a disk that is full while a root volume is made ends that instance alone, with a reason; then there is room again",
    async () => {
      const disk = mkdtempSync(join(tmpdir(), "hive-full-"));
      const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=64m,mode=711", "tmpfs", disk]);
      expect(mounted.exitCode).toBe(0);
      try {
        await withHive(
          async (hive) => {
            const ami = await hive.hive("image", "import", emptyDisk(hive), "--name", "empty");
            const run = `run-instances --image-id ${ami} --instance-type h1.nano`;
            const filler = join(disk, "filler");
            Bun.spawnSync(["dd", "if=/dev/zero", `of=${filler}`, "bs=4k"]); // until there is no room
            const { Instances } = await ec2(hive, run);
            const id = Instances[0].InstanceId;
            await inState(hive, id, "terminated");
            expect((await instance(hive, id)).StateReason).toEqual({
              Code: "Server.InsufficientVolumeCapacity",
              Message: expect.stringContaining("space"),
            });
            rmSync(filler);
            await until(async () => (await ec2(hive, "describe-volumes")).Volumes.length === 0, "its volume goes");
            expect(readdirSync(join(hive.dataDir, "volumes"))).toEqual([]);
            const again = (await ec2(hive, run)).Instances[0].InstanceId;
            await inState(hive, again, "running");
          },
          { dataDir: join(disk, "data") },
        );
      } finally {
        Bun.spawnSync(["umount", disk]);
        rmSync(disk, { recursive: true, force: true });
      }
    },
    TEST_MS,
  );

  test(
    "a host that cannot run machines yet is served nevertheless, and runs them once it can",
    async () => {
      const dataDir = mkdtempSync(join(tmpdir(), "hive-blocked-"));
      chmodSync(dataDir, 0o711);
      // Where the machines' folder should be there is something else.
      writeFileSync(join(dataDir, "instances"), "");
      try {
        await withHive(
          async (hive) => {
            await until(() => hive.output().includes("agents.not-started"), "the daemon says so");
            const ami = await hive.hive("image", "import", emptyDisk(hive), "--name", "empty");
            const launched = await ec2(hive, `run-instances --image-id ${ami} --instance-type h1.nano`);
            const id = launched.Instances[0].InstanceId;
            expect((await instance(hive, id)).State.Name).toBe("pending");
            rmSync(join(dataDir, "instances"));
            await inState(hive, id, "running");
          },
          { dataDir, flags: ["--network", "none"] },
        );
      } finally {
        rmSync(dataDir, { recursive: true, force: true });
      }
    },
    TEST_MS,
  );

  test(
    "a daemon without Open vSwitch serves and says so, heals when it comes; machines outlive SIGTERM, and end if so asked",
    async () => {
      // The guests' own user may not pass through here: QEMU is started inside the data directory, and needs nothing above it.
      const closed = mkdtempSync(join(tmpdir(), "hive-closed-"));
      mkdirSync(join(closed, "deeper"));
      chmodSync(closed, 0o700);
      try {
        await withHive(
          async (hive) => {
            const status = () => hive.hive("status", "--output", "json").catch((cause) => String(cause));
            await until(async () => (await status()).includes("Open vSwitch is not ready"), "status says so");
            expect(await status()).toContain("exit 1");
            const ami = await tinyImage(hive);
            const key = await newKeyPair(hive, "k");
            const group = (await ec2(hive, "create-security-group --group-name ssh --description ssh")).GroupId;
            await ec2(
              hive,
              `authorize-security-group-ingress --group-id ${group} --protocol tcp --port 22 --cidr 0.0.0.0/0`,
            );
            const launched = await ec2(
              hive,
              `run-instances --image-id ${ami} --instance-type h1.nano --key-name k --security-group-ids ${group}`,
            );
            const { InstanceId: id, PrivateIpAddress: address } = launched.Instances[0];
            await inState(hive, id, "running");
            await hive.node.startDatabase();
            await hive.node.exec(["ovs-vsctl", `--db=${hive.node.ovsdb}`, "--no-wait", "init"]);
            await hive.node.startSwitch();
            await printed(hive, id, "HIVE:ready");
            expect(await hive.ssh(address, key, "hostname")).toStartWith("ip-172-31-");
            expect(JSON.parse(await status()).network).toMatchObject({ mode: "ovs", ok: true });

            const before = findGuests(hive.dataDir).get(id);
            expect(before).toHaveLength(1);
            expect(await hive.kill("SIGTERM")).toBe(0);
            expect(findGuests(hive.dataDir).get(id)).toEqual(before!);
            await hive.start();
            expect(await hive.ssh(address, key, "echo still here")).toBe("still here\n");
            expect(findGuests(hive.dataDir).get(id)).toEqual(before!);
            expect((await instance(hive, id)).State.Name).toBe("running");

            await hive.kill("SIGTERM");
            await hive.start(["--stop-instances-on-exit"]);
            await inState(hive, id, "running");
            expect(await hive.kill("SIGTERM")).toBe(0);
            expect(findGuests(hive.dataDir).size).toBe(0);
            await hive.start();
            const stopped = await instance(hive, id);
            expect(stopped.State.Name).toBe("stopped");
            expect(stopped.StateReason.Message).toContain("Stopped with the daemon");
            expect(await hive.hive("logs", id)).toContain("HIVE:shutdown");
          },
          { openVswitch: "stopped", dataDir: join(closed, "deeper", "data") },
        );
      } finally {
        rmSync(closed, { recursive: true, force: true });
      }
    },
    TEST_MS,
  );
});
