/**
 * Runs machines under QEMU. A machine's process is in a session of its own and outlives the daemon; a daemon that starts
 * finds it in /proc, knows from the launch record what it is, and takes up its monitor again. Each is confined: a user that owns
 * nothing else, no way to gain privileges, QEMU's seccomp sandbox, limits where the host offers control groups, and no
 * file but its own.
 *
 *   DIR/instances/<id>/generation.json   the launch record       DIR/instances/<id>/qemu.log   its stderr
 *   DIR/instances/<id>/run/              sockets, console.log: the one folder that the process may write in
 *   DIR/volumes/<vol-id>.qcow2           over DIR/snapshots/<snap-id>/disk.qcow2, beside which kernel and initrd lie
 */
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import type { Desired, DesiredDisk, DesiredNic } from "../compute/desired.ts";
import type { Hypervisor, Machine, StepFailure } from "../compute/hypervisor-port.ts";
import type { Step } from "../compute/plan-instance.ts";
import { unreachable } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { MIB, SECOND_MS } from "../lib/units.ts";
import type { InstanceId } from "../model/ids.ts";
import { type Confinement, confine, findConfinement, type GuestLimits, inScope, unconfine } from "./cgroup.ts";
import { type Console, consoleOutput, forgetConsole, readHostileFile } from "./console.ts";
import { type HostError, ioFailed, missingProgram } from "./host-error.ts";
import { BootSlots } from "./hypervisor/boot-slots.ts";
import { consoleFiles, Guest, stderrFile } from "./hypervisor/guest.ts";
import { type LaunchRecord, readLaunchRecord, removeLaunchRecord } from "./hypervisor/launch-record.ts";
import { DevicePlugger } from "./hypervisor/plug-devices.ts";
import { endProcess, findGuests, hostBootId, isAlive, processOf } from "./hypervisor/process.ts";
import { ppmToJpeg } from "./hypervisor/screenshot.ts";
import { ensureGuestTap, letOpenTun } from "./hypervisor/tap.ts";
import { makeVolumeFile, orphanVolumes, removeHalfMadeVolumes, removeVolumeFile } from "./hypervisor/volume-files.ts";
import { removeTap } from "./net/tap.ts";
import { asGuestUser, type GuestUser, giveTo, guestUser, letRead } from "./privilege.ts";
import {
  instanceFolder,
  type QemuFacts,
  qemuCommandLine,
  runFile,
  runFolder,
  translationCacheMib,
} from "./qemu/command-line.ts";
import { searchPath } from "./run.ts";

export interface QemuHypervisorOptions {
  /** Absolute. Made if it is not there. */
  readonly dataDir: string;
  readonly accel: "kvm" | "tcg";
  readonly network: QemuFacts["network"];
  /** See `QemuFacts`. Default false: right with every data path. */
  readonly checksumOffload?: boolean;
  readonly mtu?: number;
  readonly clock: Clock;
  readonly log: Log;
  /** Guests that boot at once. Default: processors, or four times as many with KVM. */
  readonly bootSlots?: number;
  /** Hears that TAP devices were made, so that the network agent looks for them. */
  readonly onPorts?: () => void;
}

export const QEMU_PROGRAM = "qemu-system-x86_64";
const SCREEN_BYTES_MAX = 256 * MIB;
const ADOPT_MS = 2 * SECOND_MS;

/** The port of the reconciler, and what the API asks of a machine that runs. */
export interface QemuHypervisor extends Hypervisor {
  /** What holds guests in, for `hive status`. */
  readonly confinement: { readonly user: GuestUser | undefined; readonly limits: Confinement };
  /** The serial console of a machine that runs; undefined when there is none. */
  console(id: InstanceId): Console | undefined;
  /** The last 64 KiB of console output of the last start, until its record is forgotten. */
  consoleOutput(id: InstanceId): { readonly bytes: Uint8Array; readonly at: number } | undefined;
  /** The screen as a JPEG. @param wakeUp presses a key first, to end a screen saver */
  screenshot(id: InstanceId, wakeUp: boolean): Promise<Result<Uint8Array, HostError>>;
  /** Lets go of all machines, which run on. */
  close(): void;
}

/** Takes charge of the machines of a data directory. */
export async function openQemuHypervisor(options: QemuHypervisorOptions): Promise<QemuHypervisor> {
  mkdirSync(join(options.dataDir, "instances"), { recursive: true, mode: 0o710 });
  const user = await guestUser(options.accel);
  const hypervisor = new Qemu({ ...options, dataDir: realpathSync(options.dataDir) }, user, findConfinement());
  await hypervisor.adopt();
  return hypervisor;
}

class Qemu implements QemuHypervisor {
  readonly accel: "kvm" | "tcg";
  readonly confinement: QemuHypervisor["confinement"];
  readonly #options: QemuHypervisorOptions;
  readonly #guests = new Map<InstanceId, Guest>();
  readonly #bootSlots: BootSlots;
  readonly #plugger: DevicePlugger;
  #listener: (id?: InstanceId) => void = () => {};
  /** Adopted machines that have not been heard of yet. */
  #adopting: Promise<unknown> = Promise.resolve();

  constructor(options: QemuHypervisorOptions, user: GuestUser | undefined, limits: Confinement) {
    this.accel = options.accel;
    this.#options = options;
    this.confinement = { user, limits };
    const slots = options.bootSlots ?? Math.max(2, availableParallelism()) * (options.accel === "kvm" ? 4 : 1);
    this.#bootSlots = new BootSlots(slots, () => this.#listener());
    this.#plugger = new DevicePlugger({
      facts: this.#facts(),
      allowDisk: (disk) => this.#allowDisk(disk),
      makeTaps: (nics) => this.#makeTaps(nics),
    });
    for (const folder of [options.dataDir, this.#path("instances")]) letRead(user, folder);
    if (limits.kind === "none") options.log.warn("guests.unlimited", { reason: limits.reason });
    if (options.network === "tap" && letOpenTun(user)) {
      options.log.info("guests.may-open-tun", { gid: user?.gid });
    }
  }

  #path(...parts: string[]): string {
    return join(this.#options.dataDir, ...parts);
  }

  /** Finds what an earlier daemon left: machines that run, machines that died meanwhile, processes of no known start. */
  async adopt(): Promise<void> {
    removeHalfMadeVolumes(this.#options.dataDir);
    const processes = findGuests(this.#options.dataDir);
    const bootId = hostBootId();
    const connecting: Promise<unknown>[] = [];
    for (const name of readdirSync(this.#path("instances"))) {
      const id = name as InstanceId;
      const record = readLaunchRecord(this.#options.dataDir, id);
      if (!record) continue;
      const recorded = record.process;
      if (!recorded) {
        // The daemon went between writing the record and noting the process: whatever started is not trusted.
        removeLaunchRecord(this.#options.dataDir, id);
        continue;
      }
      const guest = this.#newGuest(id, record);
      this.#guests.set(id, guest);
      if (isAlive(recorded) && processes.get(id)?.some((p) => p.pid === recorded.pid)) {
        guest.adopted(recorded);
        connecting.push(this.#takeUp(guest));
      } else {
        guest.foundDead(record.hostBootId !== bootId);
      }
    }
    for (const [id, found] of processes) {
      const own = this.#guests.get(id as InstanceId)?.process?.pid;
      for (const process of found.filter((p) => p.pid !== own)) {
        this.#options.log.warn("instance.stray-process", { instanceId: id, pid: process.pid });
        await endProcess(process, 10 * SECOND_MS);
      }
    }
    this.#adopting = Promise.all(connecting);
  }

  async #takeUp(guest: Guest): Promise<void> {
    const connected = await guest.connect();
    if (!connected.ok) {
      this.#options.log.error("instance.monitor-silent", { instanceId: guest.id, reason: connected.error.message });
      await guest.end();
      guest.foundDead(false);
    } else {
      this.#options.log.info("instance.adopted", { instanceId: guest.id, pid: guest.process?.pid });
    }
    this.#listener(guest.id);
  }

  #newGuest(id: InstanceId, record: LaunchRecord): Guest {
    const { dataDir, log, clock } = this.#options;
    return new Guest({ id, dataDir, record, log, now: () => clock.now(), changed: () => this.#listener(id) });
  }

  async observe(resync: boolean): Promise<ReadonlyMap<InstanceId, Machine>> {
    if (resync) {
      await Promise.race([this.#adopting, Bun.sleep(ADOPT_MS)]);
      const asked = [...this.#guests.values()].filter((guest) => guest.machine().process === "running");
      await Promise.all(asked.map((guest) => guest.refresh())); // a failure shows in the monitor's end
    }
    return new Map([...this.#guests].map(([id, guest]) => [id, guest.machine()]));
  }

  onChange(listener: (id?: InstanceId) => void): void {
    this.#listener = listener;
  }

  bootSlots(): number {
    return this.#bootSlots.free();
  }

  async apply(desired: Desired, step: Step): Promise<Result<void, StepFailure>> {
    try {
      const done = await this.#apply(desired, step);
      return done.ok ? ok(undefined) : fail(stepFailure(done.error));
    } catch (cause) {
      return fail(stepFailure(ioFailed(`${step.do} ${desired.id}`, cause)));
    }
  }

  async #apply(desired: Desired, step: Step): Promise<Result<unknown, HostError>> {
    const guest = this.#guests.get(desired.id);
    switch (step.do) {
      case "make-volume":
        return makeVolumeFile(this.#options.dataDir, step.disk);
      case "spawn":
        return this.#spawn(desired);
      case "kill":
        this.#bootSlots.release(desired.id);
        return guest ? guest.end() : ok(undefined);
      case "reap":
        return this.#reap(desired.id);
      case "clean":
        return this.#clean(desired);
      default:
        if (!guest) return fail({ kind: "not-found", message: `${desired.id} does not run` });
        return this.#change(guest, step);
    }
  }

  async #change(
    guest: Guest,
    step: Exclude<Step, { do: "make-volume" | "spawn" | "kill" | "reap" | "clean" }>,
  ): Promise<Result<unknown, HostError>> {
    switch (step.do) {
      case "powerdown":
        return guest.powerdown();
      case "reset": {
        const reset = await guest.reset();
        if (reset.ok) guest.remember({ rebootGeneration: step.rebootGeneration });
        return reset;
      }
      case "inject-nmi": {
        const injected = await guest.execute("inject-nmi");
        if (injected.ok) guest.remember({ interruptGeneration: step.interruptGeneration });
        return injected;
      }
      case "resume":
        return guest.execute("cont");
      case "plug-disk":
        return this.#plugger.plugDisk(guest, step.disk);
      case "unplug-disk":
        return this.#plugger.unplugDisk(guest, step.volumeId);
      case "plug-nic":
        return this.#plugger.plugNic(guest, step.nic);
      case "unplug-nic":
        return this.#plugger.unplugNic(guest, step.eniId);
      default:
        return unreachable(step);
    }
  }

  async #spawn(desired: Desired): Promise<Result<void, HostError>> {
    const { id } = desired;
    const running = this.#guests.get(id);
    if (running?.process && isAlive(running.process)) return ok(undefined);
    const program = Bun.which(QEMU_PROGRAM, { PATH: searchPath() });
    if (!program) return fail(missingProgram(QEMU_PROGRAM));
    const prepared = await this.#prepare(desired);
    if (!prepared.ok) return prepared;

    const limits: GuestLimits = {
      vcpus: desired.cores * desired.threadsPerCore,
      memoryMib: desired.memoryMib,
      translationCacheMib: this.accel === "tcg" ? translationCacheMib(desired.memoryMib) : 0,
    };
    const guest = this.#newGuest(id, {
      bootGeneration: desired.bootGeneration,
      rebootGeneration: desired.rebootGeneration,
      interruptGeneration: desired.interruptGeneration,
      hostBootId: hostBootId(),
      vcpus: limits.vcpus,
      disks: desired.disks.map((disk) => disk.volumeId),
      nics: this.#options.network === "none" ? [] : desired.nics.map(({ eniId, tap }) => ({ eniId, tap })),
    });
    guest.remember({});
    const argv = qemuCommandLine(desired, this.#facts(program));
    const { limits: confinement, user } = this.confinement;
    this.#start(guest, inScope(confinement, id, limits, asGuestUser(user, argv)));
    this.#guests.set(id, guest);
    const pid = guest.process?.pid;
    const unlimited = pid === undefined ? undefined : confine(confinement, id, limits, pid);
    if (unlimited) this.#options.log.warn("instance.unlimited", { instanceId: id, reason: unlimited });
    const connected = await guest.connect();
    if (!connected.ok) {
      await guest.end();
      await this.#reap(id);
      return connected;
    }
    if (guest.process) this.#bootSlots.take(id, guest.process);
    return ok(undefined);
  }

  #facts(program: string = QEMU_PROGRAM): QemuFacts {
    const { network, checksumOffload, mtu } = this.#options;
    return {
      program,
      accel: this.accel,
      network,
      checksumOffload: checksumOffload ?? false,
      ...(mtu === undefined ? {} : { mtu }),
      sandbox: true,
    };
  }

  /** Everything that must be there before the process is: folders, TAPs, and permissions on exactly the files it needs. */
  async #prepare(desired: Desired): Promise<Result<void, HostError>> {
    const { user } = this.confinement;
    const { id } = desired;
    const folder = this.#path(instanceFolder(id));
    mkdirSync(folder, { recursive: true, mode: 0o710 });
    letRead(user, folder);
    rmSync(this.#path(runFolder(id)), { recursive: true, force: true });
    forgetConsole(consoleFiles(this.#options.dataDir, id));
    mkdirSync(this.#path(runFolder(id)), { mode: 0o700 });
    giveTo(user, this.#path(runFolder(id)), 0o700);
    for (const disk of desired.disks) this.#allowDisk(disk);
    const { directBoot } = desired;
    for (const file of [directBoot?.kernelFile, directBoot?.initrdFile]) if (file) this.#allowReading(file);
    return this.#makeTaps(desired.nics);
  }

  #allowDisk(disk: DesiredDisk): void {
    letRead(this.confinement.user, this.#path("volumes"));
    giveTo(this.confinement.user, this.#path(disk.file), 0o600);
    if (disk.backing) this.#allowReading(disk.backing.file);
  }

  /** A file, and passing through its folders up to the data directory. */
  #allowReading(file: string): void {
    letRead(this.confinement.user, this.#path(file));
    for (let folder = dirname(file); folder !== "."; folder = dirname(folder)) {
      letRead(this.confinement.user, this.#path(folder));
    }
  }

  async #makeTaps(nics: readonly DesiredNic[]): Promise<Result<void, HostError>> {
    if (this.#options.network !== "tap") return ok(undefined);
    for (const nic of nics) {
      const made = await ensureGuestTap(nic.tap, this.confinement.user);
      if (!made.ok) return made;
    }
    if (nics.length > 0) this.#options.onPorts?.();
    return ok(undefined);
  }

  #start(guest: Guest, argv: readonly string[]): void {
    const { dataDir } = this.#options;
    const stderr = openSync(stderrFile(dataDir, guest.id), "w", 0o600);
    const umask = process.umask(0o077);
    try {
      const child = Bun.spawn([...argv], {
        cwd: dataDir,
        detached: true, // setsid: a signal to the daemon's session or terminal is not for it
        stdio: ["ignore", stderr, stderr],
        env: { PATH: searchPath(), LC_ALL: "C" },
      });
      child.unref();
      guest.started(processOf(child.pid) ?? { pid: child.pid, startTicks: -1 }, child);
    } finally {
      process.umask(umask);
      closeSync(stderr);
    }
  }

  async #reap(id: InstanceId): Promise<Result<void, HostError>> {
    const guest = this.#guests.get(id);
    if (guest) {
      const ended = await guest.end();
      if (!ended.ok) return ended;
      for (const { tap } of this.#options.network === "tap" ? guest.record.nics : []) {
        const removed = await removeTap(tap);
        if (!removed.ok) return removed;
      }
    }
    for (const file of [runFile.qmp, runFile.operatorQmp, runFile.serial, runFile.screen]) {
      rmSync(this.#path(file(id)), { force: true });
    }
    unconfine(this.confinement.limits, id);
    removeLaunchRecord(this.#options.dataDir, id);
    this.#guests.delete(id);
    return ok(undefined);
  }

  async #clean(desired: Desired): Promise<Result<void, HostError>> {
    const reaped = await this.#reap(desired.id);
    if (!reaped.ok) return reaped;
    for (const { tap } of this.#options.network === "tap" ? desired.nics : []) {
      const removed = await removeTap(tap);
      if (!removed.ok) return removed;
    }
    for (const volumeId of desired.deleteOnTermination) removeVolumeFile(this.#options.dataDir, volumeId);
    rmSync(stderrFile(this.#options.dataDir, desired.id), { force: true });
    return ok(undefined);
  }

  async sweep(instances: ReadonlySet<string>, volumes: ReadonlySet<string>): Promise<void> {
    for (const name of readdirSync(this.#path("instances"))) {
      if (instances.has(name) || this.#guests.has(name as InstanceId)) continue;
      rmSync(this.#path("instances", name), { recursive: true, force: true });
    }
    const orphans = orphanVolumes(this.#options.dataDir, volumes);
    if (orphans.length > 0) this.#options.log.warn("volumes.unknown", { volumes: orphans });
  }

  console(id: InstanceId): Console | undefined {
    const console = this.#guests.get(id)?.console;
    return console?.connected ? console : undefined;
  }

  consoleOutput(id: InstanceId): { readonly bytes: Uint8Array; readonly at: number } | undefined {
    return consoleOutput(consoleFiles(this.#options.dataDir, id), this.#guests.get(id)?.console.connected === true);
  }

  async screenshot(id: InstanceId, wakeUp: boolean): Promise<Result<Uint8Array, HostError>> {
    const guest = this.#guests.get(id);
    if (!guest) return fail({ kind: "not-found", message: `${id} does not run` });
    if (wakeUp) {
      await guest.execute("send-key", { keys: [{ type: "qcode", data: "shift" }] });
      await Bun.sleep(500); // a console that was blanked draws itself anew
    }
    const file = this.#path(runFile.screen(id));
    const dumped = await guest.execute("screendump", { filename: runFile.screen(id), format: "ppm" });
    if (!dumped.ok) return dumped;
    try {
      const jpeg = ppmToJpeg(readHostileFile(file, SCREEN_BYTES_MAX));
      return jpeg.ok ? jpeg : fail({ kind: "bad-image", message: `the screen of ${id} is ${jpeg.error}` });
    } catch (cause) {
      return fail(ioFailed(`read the screen of ${id}`, cause));
    } finally {
      if (existsSync(file)) rmSync(file, { force: true });
    }
  }

  close(): void {
    this.#bootSlots.stop();
    for (const guest of this.#guests.values()) guest.disconnect();
  }
}

/** Failures that another try will not mend. */
const PERMANENT = new Set<HostError["kind"]>([
  "missing-program",
  "no-space",
  "not-found",
  "bad-image",
  "unsupported",
  "permission",
]);

function stepFailure(error: HostError): StepFailure {
  const code = error.kind === "no-space" ? "Server.InsufficientVolumeCapacity" : "Server.InternalError";
  return {
    permanent: PERMANENT.has(error.kind),
    transition: { code, message: `${code}: ${error.message}` },
    cause: error,
  };
}
