/** The image `debian-12`, built for real (needs root, mmdebstrap and a minute or two) and taken through a first boot and a restart. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildDebian12 } from "../../src/host/image-build/debian.ts";
import { buildTiny } from "../../src/host/image-build/tiny.ts";
import { createVolume, inspectImage } from "../../src/host/qemu-img.ts";
import { runChecked } from "../../src/host/run.ts";
import { assert, present } from "../../src/lib/assert.ts";
import { GIB } from "../../src/lib/units.ts";
import { FakeImds, Guest, testCache, unpackBusybox } from "../integration/image-guest.ts";

const BOOT_MS = 10 * 60_000;
const scratch = mkdtempSync(join(tmpdir(), "hive-debian-test-"));
const imds = new FakeImds();
let guest: Guest | undefined;
afterAll(async () => {
  await guest?.dispose();
  imds.stop();
  rmSync(scratch, { recursive: true, force: true });
});

test(
  "debian-12 sees EC2, lets debian in with the instance's key, runs user data, fills its volume and stops at the power button",
  async () => {
    const options = { workDirectory: join(scratch, "work"), cacheDirectory: testCache() };
    const [built, tiny] = [await buildDebian12(options), await buildTiny(options)];
    if (!built.ok) throw new Error(built.error.message);
    if (!tiny.ok) throw new Error(tiny.error.message);
    const image = built.value;
    expect(await inspectImage(image.file)).toMatchObject({
      ok: true,
      value: { format: "qcow2", virtualBytes: image.virtualBytes },
    });
    const again = await buildDebian12(options);
    expect(again).toEqual(built);

    const keyFile = join(scratch, "key");
    await runChecked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keyFile]);
    imds.publicKeys = [{ name: "key", key: readFileSync(`${keyFile}.pub`, "utf8").trim() }];
    imds.userData = "#cloud-config\nruncmd:\n  - [ sh, -c, 'echo HIVE-USER-DATA-RAN > /dev/console' ]\n";
    const disk = join(scratch, "disk.qcow2");
    const backing = { file: image.file, format: image.format };
    const made = await createVolume({ file: disk, format: "qcow2", sizeBytes: 8 * GIB, backing });
    assert(made.ok, "the volume is made");
    const busybox = await unpackBusybox(testCache(), join(scratch, "busybox"));
    guest = new Guest({ disk, imds, busybox, memoryMib: 512, translationCacheMib: 128 });

    await guest.waitFor(/login: /, BOOT_MS);
    await guest.waitFor(/HIVE-USER-DATA-RAN/, BOOT_MS);
    await guest.waitFor(/Cloud-init v\. \S+ finished at .* Datasource DataSourceEc2/, BOOT_MS);
    expect(imds.requests).toContain("PUT /latest/api/token");
    const hostKey = present(/^(ssh-ed25519 \S+) /m.exec(guest.console())?.[1], "the console shows the host key");
    const probe = "whoami; hostname; cloud-init query platform; sudo id -u; df -k --output=size / | tail -1";
    const seen = await guest.ssh("debian", keyFile, hostKey, probe);
    assert(seen.ok, seen.ok ? "" : seen.error.message);
    const [user, hostname, platform, root, kib] = seen.value.stdout.trim().split("\n");
    expect({ user, hostname, platform, root }).toEqual({
      user: "debian",
      hostname: "ip-169-254-0-15",
      platform: "ec2",
      root: "0",
    });
    expect(Number(kib)).toBeGreaterThan(7.5 * 1024 * 1024);

    await guest.qmp("system_powerdown");
    expect(await guest.exited(BOOT_MS)).toBe(0);
  },
  40 * 60_000,
);
