/** One QEMU process that runs, or has ended: its monitor, its console, and what is known of it without asking. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Machine } from "../../compute/hypervisor-port.ts";
import type { Log } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { MIB, SECOND_MS } from "../../lib/units.ts";
import type { InstanceId } from "../../model/ids.ts";
import { Console } from "../console.ts";
import type { HostError } from "../host-error.ts";
import { instanceFolder, type QmpArguments, runFile } from "../qemu/command-line.ts";
import { connectQmp, type Qmp, type QmpEvent } from "../qmp.ts";
import { type LaunchRecord, writeLaunchRecord } from "./launch-record.ts";
import { endProcess, type GuestProcess, gone, isAlive } from "./process.ts";

type State = "starting" | "running" | "powered-off" | "dead" | "ended";
type Child = Bun.Subprocess<"ignore", number, number>;

const QUIT_MS = 3 * SECOND_MS;
const KILL_MS = 10 * SECOND_MS;
const READY_MS = 60 * SECOND_MS;
const QMP_RETRY_MS = 5;

export const consoleFiles = (dataDir: string, id: string) => ({
  socket: join(dataDir, runFile.serial(id)),
  log: join(dataDir, runFile.consoleLog(id)),
  kept: join(dataDir, instanceFolder(id), "console.log"),
  seam: join(dataDir, instanceFolder(id), "console.seam"),
});
export const stderrFile = (dataDir: string, id: string) => join(dataDir, instanceFolder(id), "qemu.log");

export interface GuestOptions {
  readonly id: InstanceId;
  readonly dataDir: string;
  readonly record: LaunchRecord;
  readonly log: Log;
  readonly now: () => number;
  /** Hears that something changed that nobody had asked for. */
  readonly changed: () => void;
}

export class Guest {
  readonly console: Console;
  record: LaunchRecord;
  process: GuestProcess | undefined;
  #state: State = "starting";
  #exit: Machine["exit"];
  #powerdown: Machine["powerdown"];
  #halted: string | undefined;
  #qmp: Qmp | undefined;
  #child: Child | undefined;
  #ending = false;
  readonly #deleted = new Map<string, () => void>();
  readonly #options: GuestOptions;

  constructor(options: GuestOptions) {
    this.#options = options;
    this.record = options.record;
    this.console = new Console(consoleFiles(options.dataDir, options.id));
  }

  get id(): InstanceId {
    return this.#options.id;
  }

  machine(): Machine {
    const { record } = this;
    const ended = this.#state === "ended";
    return {
      process: this.#state === "ended" ? "absent" : this.#state,
      bootGeneration: ended ? 0 : record.bootGeneration,
      rebootGeneration: ended ? 0 : record.rebootGeneration,
      interruptGeneration: ended ? 0 : record.interruptGeneration,
      ...(this.process && !ended ? { pid: this.process.pid } : {}),
      ...(this.#powerdown ? { powerdown: this.#powerdown } : {}),
      ...(this.#exit ? { exit: this.#exit } : {}),
      ...(this.#halted ? { halted: this.#halted } : {}),
      disks: record.disks,
      nics: record.nics.map((nic) => nic.eniId),
      remains: true,
    };
  }

  /** Changes the record, on disk first. */
  remember(change: Partial<LaunchRecord>): void {
    const record = { ...this.record, ...change };
    writeLaunchRecord(this.#options.dataDir, this.id, record);
    this.record = record;
  }

  /** Takes charge of a process that this daemon has started. */
  started(process: GuestProcess, child: Child): void {
    this.process = process;
    this.#child = child;
    this.remember({ process });
  }

  /** Takes charge of a process that an earlier daemon had started. It is taken to run until it says otherwise. */
  adopted(process: GuestProcess): void {
    this.process = process;
    this.#state = "running";
  }

  /** The record speaks of a process that is no more. */
  foundDead(hostRestarted: boolean): void {
    this.#state = "dead";
    this.#exit = hostRestarted
      ? { cause: "host-restarted", reason: "The host was restarted" }
      : { cause: "died", reason: this.#whyDead("while Hive was not running") };
  }

  /** Connects to the monitor and the console, waiting until QEMU has made them. */
  async connect(): Promise<Result<void, HostError>> {
    const path = join(this.#options.dataDir, runFile.qmp(this.id));
    const until = performance.now() + READY_MS;
    for (;;) {
      const left = Math.max(1, until - performance.now());
      const connected = await connectQmp(path, (event) => this.#event(event), left);
      if (connected.ok) {
        this.#qmp = connected.value;
        break;
      }
      if (!this.process || !isAlive(this.process)) return fail(await this.#diedAtStart());
      if (performance.now() >= until) return connected;
      await Bun.sleep(QMP_RETRY_MS);
    }
    void this.#qmp.closed.then(() => this.#monitorClosed());
    try {
      await this.console.connect();
    } catch (cause) {
      // Its output is in the log all the same.
      this.#options.log.warn("instance.console-unreachable", { instanceId: this.id, cause });
    }
    return this.refresh();
  }

  /** Asks the machine how it is. */
  async refresh(): Promise<Result<void, HostError>> {
    const answer = await this.execute("query-status");
    if (!answer.ok) return answer;
    this.#setStatus(String((answer.value as { status?: unknown } | null)?.status));
    return ok(undefined);
  }

  async execute(command: string, args?: QmpArguments, timeoutMs?: number): Promise<Result<unknown, HostError>> {
    if (!this.#qmp) return fail({ kind: "io", message: `the monitor of ${this.id} is not connected` });
    return this.#qmp.execute(command, args, timeoutMs);
  }

  async powerdown(): Promise<Result<unknown, HostError>> {
    const now = this.#options.now();
    this.#powerdown = { firstAt: this.#powerdown?.firstAt ?? now, lastAt: now };
    return this.execute("system_powerdown");
  }

  /** A machine that is off begins anew; one that runs is reset as by its button. */
  async reset(): Promise<Result<unknown, HostError>> {
    const reset = await this.execute("system_reset");
    if (!reset.ok) return reset;
    this.#powerdown = undefined;
    const continued = await this.execute("cont");
    if (!continued.ok) return continued;
    return this.refresh();
  }

  /** Ends the process, whatever state it is in: by its monitor, so that it flushes its disks, else by a signal. */
  async end(): Promise<Result<void, HostError>> {
    this.#ending = true;
    const { process } = this;
    if (process && isAlive(process)) {
      // The answer may be lost with the connection: only the process's end counts.
      await this.execute("quit", undefined, QUIT_MS);
      if (!(await gone(process, this.#qmp ? QUIT_MS : 0)) && !(await endProcess(process, KILL_MS))) {
        return fail({ kind: "io", message: `process ${process.pid} of ${this.id} does not end: it waits for I/O` });
      }
    }
    this.#state = "ended";
    this.disconnect();
    return ok(undefined);
  }

  /** Leaves the machine alone, running. */
  disconnect(): void {
    this.#ending = true;
    this.#qmp?.close();
    this.console.close();
  }

  /** Resolves true once QEMU says that the guest has let go of the device, false at the limit. */
  async deviceDeleted(device: string, limitMs: number): Promise<boolean> {
    const heard = new Promise<true>((resolve) => this.#deleted.set(device, () => resolve(true)));
    const result = await Promise.race([heard, Bun.sleep(limitMs).then(() => false)]);
    this.#deleted.delete(device);
    return result;
  }

  #event({ event, data }: QmpEvent): void {
    switch (event) {
      case "SHUTDOWN": // with `guest` false it is our own `quit`, or a signal: the end of the process follows
        if (data.guest !== true) return;
        this.#setStatus("shutdown");
        break;
      case "BLOCK_IO_ERROR":
        if (data.action !== "stop") return;
        this.#halted = data.nospace === true ? "no space left on the host's disk" : `disk error: ${data.reason}`;
        this.#options.log.error("instance.halted", {
          instanceId: this.id,
          reason: this.#halted,
          node: data["node-name"],
        });
        break;
      case "RESUME":
        this.#halted = undefined;
        return;
      case "DEVICE_DELETED":
        if (typeof data.device === "string") this.#deleted.get(data.device)?.();
        return;
      default:
        return;
    }
    this.#options.changed();
  }

  #setStatus(status: string): void {
    if (status === "shutdown") {
      this.#state = "powered-off";
      return;
    }
    this.#state = "running";
    // `prelaunch` is a reset whose continuation was lost with the daemon; `io-error` a full disk.
    this.#halted = status === "running" ? undefined : (this.#halted ?? `QEMU says ${status}`);
  }

  async #monitorClosed(): Promise<void> {
    this.#qmp = undefined;
    const { process } = this;
    if (this.#ending || !process) return;
    if (!(await gone(process, 2 * SECOND_MS))) {
      const again = await this.connect();
      if (again.ok || this.#ending) return;
      await endProcess(process, KILL_MS);
    }
    await this.#exitStatus();
    this.#state = "dead";
    this.#exit = { cause: "died", reason: this.#whyDead() };
    this.#options.log.error("instance.died", { instanceId: this.id, reason: this.#exit.reason });
    this.console.close();
    this.#options.changed();
  }

  /** Lets the exit status of a child arrive; there is none of a process that another daemon started. */
  async #exitStatus(): Promise<void> {
    if (this.#child) await Promise.race([this.#child.exited, Bun.sleep(SECOND_MS)]);
  }

  async #diedAtStart(): Promise<HostError> {
    await this.#exitStatus();
    return { kind: "command-failed", message: this.#whyDead("before the machine was up") };
  }

  #whyDead(when = ""): string {
    const child = this.#child;
    const how = child?.signalCode
      ? `was killed by ${child.signalCode}`
      : child && child.exitCode !== null
        ? `ended with exit code ${child.exitCode}`
        : "ended";
    const said = lastLines(stderrFile(this.#options.dataDir, this.id));
    return `The machine's process (QEMU) ${how}${when ? ` ${when}` : ""}${said ? `: ${said}` : ""}`;
  }
}

/** The last line that QEMU wrote to stderr, without the program's name. */
function lastLines(file: string): string {
  try {
    const descriptor = openSync(file, "r");
    try {
      const text = readFileSync(descriptor).subarray(-MIB).toString("utf8").trim();
      return (text.split("\n").at(-1) ?? "").replace(/^\S*qemu-system-\S+: /, "").slice(0, 500);
    } finally {
      closeSync(descriptor);
    }
  } catch {
    return "";
  }
}
