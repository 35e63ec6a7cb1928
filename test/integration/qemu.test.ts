/** The hypervisor on real QEMU processes with the tiny image. Needs root for users and TAPs; says so where it is skipped. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { Desired } from "../../src/compute/desired.ts";
import type { Machine } from "../../src/compute/hypervisor-port.ts";
import { consoleFiles } from "../../src/host/hypervisor/guest.ts";
import { findGuests, processOf } from "../../src/host/hypervisor/process.ts";
import type { QemuHypervisor } from "../../src/host/hypervisor.ts";
import { run } from "../../src/host/run.ts";
import { present } from "../../src/lib/assert.ts";
import { ComputeLab, printed, until, WAIT_MS } from "./compute-lab.ts";

const TEST_MS = 3 * WAIT_MS;
const root = process.getuid?.() === 0;
const taps: string[] = [];
let lab: ComputeLab;
beforeAll(async () => {
  lab = await ComputeLab.open();
}, TEST_MS);
afterAll(async () => {
  await lab?.close(taps);
}, TEST_MS);

const seen = async (hypervisor: QemuHypervisor, { id }: Desired): Promise<Machine> =>
  present((await hypervisor.observe(false)).get(id), "the hypervisor knows the machine");
const prints = (hypervisor: QemuHypervisor, { id }: Desired, what: string | RegExp) =>
  until(`the console prints ${what}`, () =>
    typeof what === "string" ? printed(hypervisor, id).includes(what) : what.test(printed(hypervisor, id)),
  );
const becomes = (hypervisor: QemuHypervisor, desired: Desired, process: Machine["process"]) =>
  until(`${desired.id} is ${process}`, async () => {
    const machine = await seen(hypervisor, desired);
    return machine.process === process ? machine : undefined;
  });
/** Types a command into the root shell on the serial console. */
const type = (hypervisor: QemuHypervisor, { id }: Desired, command: string) =>
  expect(present(hypervisor.console(id), "it has a console").write(Buffer.from(`${command}\r`))).toBe(true);
/** A shell answers on the console: the guest is up, and listens to its power button. */
const shellReady = async (hypervisor: QemuHypervisor, desired: Desired, marker = "shell-is-up") => {
  await prints(hypervisor, desired, "HIVE:init");
  await until("a shell answers", async () => {
    type(hypervisor, desired, `echo ${marker.slice(0, 3)}""${marker.slice(3)}`);
    await Bun.sleep(500);
    return printed(hypervisor, desired.id).includes(marker);
  });
};

test(
  "a machine boots, is confined, is found again by another daemon, reboots, and is gone without a trace once it is ended",
  async () => {
    const first = await lab.hypervisor();
    const desired = lab.desired();
    await lab.start(first, desired);
    const { pid } = await seen(first, desired);
    expect((await seen(first, desired)).process).toBe("running");
    await shellReady(first, desired);

    // Confined: another user, no capability, no way to new privileges, the seccomp filter, and none of the daemon's files.
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    expect(status).toMatch(/^Seccomp:\t2$/m);
    if (root) {
      const { uid } = present(first.confinement.user, "a root daemon has another user for guests");
      expect(uid).not.toBe(0);
      expect(status).toMatch(/^NoNewPrivs:\t1$/m);
      expect(status).toMatch(new RegExp(`^Uid:\t${uid}\t${uid}\t${uid}\t${uid}$`, "m"));
      expect(status).toMatch(/^CapEff:\t0+$/m);
      expect(status).toMatch(/^CapBnd:\t0+$/m);
      expect(status).toMatch(/^Groups:\t ?$/m);
    }
    const files = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    const onDisk = files.filter((file) => file.startsWith("/") && !file.startsWith("/dev/"));
    expect(onDisk.filter((file) => !file.startsWith(lab.dataDir))).toEqual([]);
    // A session of its own: field 6 of its stat is its own pid.
    expect(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[3]).toBe(String(pid));

    // Two watch the same console; both see what one types.
    const heard = ["", ""];
    const console = present(first.console(desired.id), "a console");
    const stops = heard.map((_, i) => console.watch((chunk) => (heard[i] += Buffer.from(chunk).toString())));
    type(first, desired, "echo two-$((40 + 2))-watchers");
    await until("both watchers hear the guest", () => heard.every((text) => text.includes("two-42-watchers")));
    for (const stop of stops) stop();

    // The guest runs on while nobody is there; the next daemon takes it up, and the console's log has no gap.
    first.close();
    const second = await lab.hypervisor();
    await second.observe(true);
    expect(await seen(second, desired)).toMatchObject({ process: "running", pid, bootGeneration: 1 });
    await until("its console is taken up", () => second.console(desired.id) !== undefined);
    type(second, desired, "echo still-$((40 + 2))-here");
    await prints(second, desired, "still-42-here");
    expect(printed(second, desired.id)).toContain("HIVE:init");

    // Rebooted as EC2 does it: the guest shuts down, then starts in the same process.
    await lab.apply(second, desired, { do: "powerdown" });
    const off = await becomes(second, desired, "powered-off");
    expect(off.pid).toBe(pid);
    const boots = () => printed(second, desired.id).split("HIVE:init").length - 1;
    const before = boots();
    await lab.apply(second, desired, { do: "reset", rebootGeneration: 1 });
    expect(await seen(second, desired)).toMatchObject({ process: "running", pid, rebootGeneration: 1 });
    await until("it boots again", () => boots() > before);
    await shellReady(second, desired, "second-boot-is-up");

    const jpeg = await second.screenshot(desired.id, false);
    expect(jpeg.ok && Buffer.from(jpeg.value.subarray(0, 3)).toString("hex")).toBe("ffd8ff");
    await lab.apply(second, desired, { do: "inject-nmi", interruptGeneration: 1 });
    await until("the guest hears the interrupt", async () => {
      type(second, desired, "grep NMI /proc/interrupts");
      await Bun.sleep(500);
      return /NMI: +[1-9]/.test(printed(second, desired.id));
    });

    await lab.apply(second, desired, { do: "kill" }, { do: "reap" });
    expect(processOf(present(pid, "a pid"))).toBeUndefined();
    expect((await second.observe(false)).has(desired.id)).toBe(false);
    expect(printed(second, desired.id)).toContain("HIVE:init"); // console output outlives the machine
    const gone = { ...desired, deleteOnTermination: desired.disks.map((disk) => disk.volumeId) };
    await lab.apply(second, gone, { do: "clean" });
    await second.sweep(new Set(), new Set());
    expect(readdirSync(join(lab.dataDir, "volumes"))).toEqual([]);
    expect(readdirSync(join(lab.dataDir, "instances"))).toEqual([]);
  },
  TEST_MS,
);

test(
  "a guest that powers itself off is told apart from one that is killed, also by a daemon that was not there",
  async () => {
    const hypervisor = await lab.hypervisor();
    const [polite, killed] = [lab.desired(), lab.desired()];
    for (const desired of [polite, killed]) await lab.start(hypervisor, desired);
    const changed: (string | undefined)[] = [];
    hypervisor.onChange((id) => changed.push(id));

    process.kill(present((await seen(hypervisor, killed)).pid, "a pid"), "SIGKILL");
    const dead = await becomes(hypervisor, killed, "dead");
    expect(dead.exit).toMatchObject({ cause: "died", reason: expect.stringContaining("was killed by SIGKILL") });
    expect(changed).toContain(killed.id);

    await shellReady(hypervisor, polite);
    hypervisor.close();
    const [polites] = [present(findGuests(lab.dataDir).get(polite.id), "it runs on")];
    const between = await lab.hypervisor();
    await between.observe(true);
    await until("its console is taken up", () => between.console(polite.id) !== undefined);
    type(between, polite, "sync; sleep 2; poweroff");
    await prints(between, polite, /sleep 2; poweroff\r?\n/);
    between.close();
    expect(polites).toHaveLength(1);

    const third = await lab.hypervisor();
    await third.observe(true);
    await becomes(third, polite, "powered-off");
    expect((await seen(third, killed)).exit?.cause).toBe("died");
    for (const desired of [polite, killed]) await lab.apply(third, desired, { do: "reap" });
  },
  TEST_MS,
);

test(
  "what cannot be started says why, and leaves nothing behind",
  async () => {
    const hypervisor = await lab.hypervisor();
    const desired = lab.desired();
    for (const disk of desired.disks) await lab.apply(hypervisor, desired, { do: "make-volume", disk });
    const refused = await hypervisor.apply({ ...desired, memoryMib: 1024 * 1024 * 1024 }, { do: "spawn" });
    expect(refused.ok).toBe(false);
    if (!refused.ok)
      expect(refused.error.transition.message).toMatch(/QEMU\) ended with exit code 1 .*(memory|RAM|size)/i);
    expect(findGuests(lab.dataDir).has(desired.id)).toBe(false);
    expect(existsSync(join(lab.dataDir, "instances", desired.id, "generation.json"))).toBe(false);

    const lost = { ...desired.disks[0]!, volumeId: desired.disks[0]!.volumeId };
    await lab.apply(hypervisor, { ...desired, deleteOnTermination: [lost.volumeId] }, { do: "clean" });
    const noSnapshot = { ...lost, backing: { ...lost.backing!, file: "snapshots/snap-00000000/disk.qcow2" } };
    const missing = await hypervisor.apply(desired, { do: "make-volume", disk: noSnapshot });
    expect(missing.ok ? "" : missing.error.transition.message).toContain("snap-00000000");
    expect(readdirSync(join(lab.dataDir, "volumes")).filter((name) => name.includes(lost.volumeId))).toEqual([]);
  },
  TEST_MS,
);

test(
  "disks and interfaces are plugged and unplugged while the guest runs",
  async () => {
    const hypervisor = await lab.hypervisor(undefined, root ? "tap" : "user");
    const desired = lab.desired({ nics: [lab.nic(0)] });
    const [disk, nic] = [lab.disk("/dev/sdf", false), lab.nic(1)];
    taps.push(desired.nics[0]!.tap, nic.tap);
    await lab.start(hypervisor, desired);
    await shellReady(hypervisor, desired);
    await lab.apply(
      hypervisor,
      desired,
      { do: "make-volume", disk },
      { do: "plug-disk", disk },
      { do: "plug-nic", nic },
    );
    expect((await seen(hypervisor, desired)).disks).toContain(disk.volumeId);
    await until("the guest sees the disk by its volume id", async () => {
      type(hypervisor, desired, "cat /sys/block/vd*/serial; cat /sys/class/net/*/address");
      await Bun.sleep(500);
      return printed(hypervisor, desired.id).includes(disk.serial) && printed(hypervisor, desired.id).includes(nic.mac);
    });
    if (root) expect(existsSync(`/sys/class/net/${nic.tap}`)).toBe(true);
    await lab.apply(
      hypervisor,
      desired,
      { do: "unplug-disk", volumeId: disk.volumeId },
      { do: "unplug-nic", eniId: nic.eniId },
    );
    expect(await seen(hypervisor, desired)).toMatchObject({
      disks: desired.disks.map((d) => d.volumeId),
      nics: [desired.nics[0]!.eniId],
    });
    if (root) expect(existsSync(`/sys/class/net/${nic.tap}`)).toBe(false);
    await lab.apply(hypervisor, desired, { do: "kill" }, { do: "reap" });
    if (root) expect(existsSync(`/sys/class/net/${desired.nics[0]!.tap}`)).toBe(false);
    expect(existsSync(consoleFiles(lab.dataDir, desired.id).log)).toBe(true);
  },
  TEST_MS,
);

test.skipIf(!root)(
  "a disk that is full while a volume is made fails for good, by name, with nothing half-made (needs root to mount a small disk)",
  async () => {
    const full = await ComputeLab.open();
    const volumes = join(full.dataDir, "volumes");
    mkdirSync(volumes);
    expect((await run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", volumes])).ok).toBe(true);
    try {
      const hypervisor = await full.hypervisor();
      const desired = full.desired();
      const made = await hypervisor.apply(desired, { do: "make-volume", disk: desired.disks[0]! });
      expect(made.ok).toBe(false);
      if (!made.ok) {
        expect(made.error.permanent).toBe(true);
        expect(made.error.transition.code).toBe("Server.InsufficientVolumeCapacity");
        expect(made.error.transition.message).toContain("No space left on device");
      }
      expect(readdirSync(volumes)).toEqual([]);
    } finally {
      await run(["umount", volumes]);
      await full.close();
    }
  },
  TEST_MS,
);
