/** A data directory with the tiny image in it, and machines of it without the API: for proving the hypervisor and the reconciler. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Desired, type DesiredDisk, instanceUuid, volumeSerial } from "../../src/compute/desired.ts";
import type { Step } from "../../src/compute/plan-instance.ts";
import { endProcess, findGuests } from "../../src/host/hypervisor/process.ts";
import { openQemuHypervisor, type QemuHypervisor } from "../../src/host/hypervisor.ts";
import type { BuiltImage } from "../../src/host/image-build/built-image.ts";
import { buildTiny } from "../../src/host/image-build/tiny.ts";
import { removeTap } from "../../src/host/net/tap.ts";
import { assert, present } from "../../src/lib/assert.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { type Log, silentLog } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { GIB } from "../../src/lib/units.ts";
import { type InstanceId, newId, type SnapshotId } from "../../src/model/ids.ts";
import { tapName } from "../../src/model/network-names.ts";
import { testCache } from "./image-guest.ts";

export const random = systemRandom;

/** A long limit: other work may hold both processors, and a condition that comes sooner ends the wait. */
export const WAIT_MS = 120_000;

/** Waits until `condition` gives something. @throws with `what` at the limit */
export async function until<T>(
  what: string,
  condition: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const limit = performance.now() + WAIT_MS;
  for (;;) {
    const value = await condition();
    if (value !== undefined && value !== false) return value;
    assert(performance.now() < limit, `within ${WAIT_MS / 1000} s: ${what}`);
    await Bun.sleep(20);
  }
}

export class ComputeLab {
  readonly dataDir = mkdtempSync(join(tmpdir(), "hive-compute-"));
  readonly snapshotId: SnapshotId = newId("Snapshot", random);
  readonly #hypervisors: QemuHypervisor[] = [];
  readonly image: BuiltImage;

  private constructor(image: BuiltImage) {
    this.image = image;
    const folder = join(this.dataDir, "snapshots", this.snapshotId);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    copyFileSync(image.file, join(folder, "disk.qcow2"));
    copyFileSync(present(image.kernelFile, "tiny has a kernel"), join(folder, "vmlinuz"));
    copyFileSync(present(image.initrdFile, "tiny has an initrd"), join(folder, "initrd"));
  }

  static async open(): Promise<ComputeLab> {
    const image = await buildTiny({ workDirectory: tmpdir(), cacheDirectory: testCache() });
    assert(image.ok, image.ok ? "" : image.error.message);
    return new ComputeLab(image.value);
  }

  /** Another daemon's hypervisor on the same directory. */
  async hypervisor(log: Log = silentLog, network: "tap" | "user" | "none" = "none"): Promise<QemuHypervisor> {
    const hypervisor = await openQemuHypervisor({
      dataDir: this.dataDir,
      accel: "tcg",
      network,
      clock: systemClock,
      log,
    });
    this.#hypervisors.push(hypervisor);
    return hypervisor;
  }

  desired(overrides: Partial<Desired> = {}): Desired {
    const id = newId("Instance", random);
    return {
      id,
      power: "on",
      forced: false,
      powerChangedAt: Date.now(),
      bootGeneration: 1,
      rebootGeneration: 0,
      interruptGeneration: 0,
      autoRecovery: true,
      instanceType: "h1.nano",
      cores: 1,
      threadsPerCore: 1,
      memoryMib: 128,
      disks: [this.disk("/dev/xvda", true)],
      nics: [],
      directBoot: {
        kernelFile: `snapshots/${this.snapshotId}/vmlinuz`,
        initrdFile: `snapshots/${this.snapshotId}/initrd`,
        commandLine: present(this.image.kernelCommandLine, "tiny has a command line"),
      },
      uuid: instanceUuid(id),
      deleteOnTermination: [],
      ...overrides,
    };
  }

  disk(deviceName: string, root: boolean): DesiredDisk {
    const volumeId = newId("Volume", random);
    return {
      volumeId,
      file: `volumes/${volumeId}.qcow2`,
      format: "qcow2",
      sizeBytes: GIB,
      ...(root
        ? {
            backing: {
              snapshotId: this.snapshotId,
              file: `snapshots/${this.snapshotId}/disk.qcow2`,
              format: "qcow2" as const,
            },
          }
        : {}),
      deviceName,
      serial: volumeSerial(volumeId),
      root,
    };
  }

  nic(deviceIndex = 0): Desired["nics"][number] {
    const eniId = newId("NetworkInterface", random);
    return { eniId, tap: tapName(eniId), mac: `02:00:00:00:00:0${deviceIndex + 1}`, deviceIndex };
  }

  /** Carries out steps, which must succeed. */
  async apply(hypervisor: QemuHypervisor, desired: Desired, ...steps: Step[]): Promise<void> {
    for (const step of steps) {
      const done = await hypervisor.apply(desired, step);
      assert(done.ok, `${step.do}: ${done.ok ? "" : done.error.transition.message}`);
    }
  }

  async start(hypervisor: QemuHypervisor, desired: Desired): Promise<void> {
    await this.apply(hypervisor, desired, ...desired.disks.map((disk): Step => ({ do: "make-volume", disk })), {
      do: "spawn",
    });
  }

  /** Ends what runs, and removes the directory and the TAPs of `taps`. */
  async close(taps: readonly string[] = []): Promise<void> {
    for (const hypervisor of this.#hypervisors) hypervisor.close();
    for (const processes of findGuests(this.dataDir).values()) {
      for (const process of processes) await endProcess(process, 10_000);
    }
    for (const tap of taps) await removeTap(tap);
    rmSync(this.dataDir, { recursive: true, force: true });
  }
}

/** What the console has printed since the start. */
export const printed = (hypervisor: QemuHypervisor, id: InstanceId): string =>
  Buffer.from(hypervisor.consoleOutput(id)?.bytes ?? []).toString("utf8");
