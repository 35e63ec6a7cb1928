import { expect, test } from "bun:test";
import fc from "fast-check";
import type { InstanceId, NetworkInterfaceId, VolumeId } from "../model/ids.ts";
import type { Desired, DesiredDisk, DesiredNic } from "./desired.ts";
import { type Machine, noMachine } from "./hypervisor-port.ts";
import {
  type Plan,
  type PlanContext,
  POWERDOWN_AGAIN_MS,
  planInstance,
  RESUME_AGAIN_MS,
  type Step,
} from "./plan-instance.ts";

const T = 1_000_000;
const disk = (n: number): DesiredDisk => ({
  volumeId: `vol-0000000${n}` as VolumeId,
  file: `volumes/vol-0000000${n}.qcow2`,
  format: "qcow2",
  sizeBytes: 2 ** 30,
  deviceName: `/dev/sd${"abcdef"[n]}`,
  serial: `vol0000000${n}`,
  root: n === 0,
});
const nic = (n: number): DesiredNic => ({
  eniId: `eni-0000000${n}` as NetworkInterfaceId,
  tap: `hv${n}`,
  mac: `02:00:00:00:00:0${n}`,
  deviceIndex: n,
});
const wanted: Desired = {
  id: "i-00000001" as InstanceId,
  power: "on",
  forced: false,
  powerChangedAt: T,
  bootGeneration: 1,
  rebootGeneration: 0,
  interruptGeneration: 0,
  autoRecovery: true,
  instanceType: "h1.nano",
  cores: 1,
  threadsPerCore: 1,
  memoryMib: 128,
  disks: [disk(0)],
  nics: [nic(0)],
  uuid: "ec2",
  deleteOnTermination: [],
};
const want = (change: Partial<Desired> = {}): Desired => ({ ...wanted, ...change });
const running: Machine = {
  ...noMachine,
  process: "running",
  bootGeneration: 1,
  pid: 7,
  disks: [disk(0).volumeId],
  nics: [nic(0).eniId],
  remains: true,
};
const have = (change: Partial<Machine> = {}): Machine => ({ ...running, ...change });
const died = have({ process: "dead", exit: { cause: "died", reason: "killed" } });
const context: PlanContext = { now: T, gracefulMs: 120_000, mayBoot: true, cleaned: false };
const plan = (steps: Step[], wakeAt?: number): Plan => (wakeAt === undefined ? { steps } : { steps, wakeAt });
const kill: Step = { do: "kill" };
const reap: Step = { do: "reap" };
const off = want({ power: "off" });
const gone = want({ power: "terminated" });
const asked = (firstAt: number, lastAt: number) => have({ powerdown: { firstAt, lastAt } });

const table: [string, Desired, Machine, Partial<PlanContext>, Plan][] = [
  [
    "a new instance gets its volumes, then its machine",
    want({ disks: [disk(0), disk(1)] }),
    noMachine,
    {},
    plan([{ do: "make-volume", disk: disk(0) }, { do: "make-volume", disk: disk(1) }, { do: "spawn" }]),
  ],
  ["without a boot slot it waits", wanted, noMachine, { mayBoot: false }, plan([])],
  [
    "while its snapshot is not complete it waits",
    want({ blocked: { reason: "", permanent: false } }),
    noMachine,
    {},
    plan([]),
  ],
  ["a machine that starts is left alone", wanted, have({ process: "starting" }), {}, plan([])],
  ["a converged machine needs nothing", wanted, running, {}, plan([])],

  [
    "a machine of an earlier start is ended, whatever its guest does",
    want({ bootGeneration: 2 }),
    running,
    {},
    plan([kill, reap]),
  ],
  ["also one that was asked to shut down", want({ bootGeneration: 2 }), asked(T, T), {}, plan([kill, reap])],
  ["what is left of an earlier start is removed before the next", want({ bootGeneration: 2 }), died, {}, plan([reap])],

  ["stop presses the power button", off, running, {}, plan([{ do: "powerdown" }], T + POWERDOWN_AGAIN_MS)],
  ["and waits", off, asked(T, T), { now: T + 1 }, plan([], T + POWERDOWN_AGAIN_MS)],
  [
    "and presses it again: a guest that boots misses it",
    off,
    asked(T, T),
    { now: T + POWERDOWN_AGAIN_MS },
    plan([{ do: "powerdown" }], T + 2 * POWERDOWN_AGAIN_MS),
  ],
  ["but no later than the deadline", off, asked(T, T + 119_000), { now: T + 119_500 }, plan([], T + 120_000)],
  ["after which it is ended", off, asked(T, T + 119_000), { now: T + 120_000 }, plan([kill, reap])],
  ["a forced stop asks nobody", want({ power: "off", forced: true }), running, {}, plan([kill, reap])],
  ["a guest that is halted by a full disk cannot shut down", off, have({ halted: "full" }), {}, plan([kill, reap])],
  [
    "a machine that does not run its guest yet is just ended",
    off,
    have({ process: "starting" }),
    {},
    plan([kill, reap]),
  ],
  ["a guest that has shut down leaves a process to end", off, have({ process: "powered-off" }), {}, plan([kill, reap])],
  ["of a dead process the remains are removed", off, died, {}, plan([reap])],
  ["a stopped instance needs nothing", off, noMachine, {}, plan([])],

  ["terminate shuts down first", gone, running, {}, plan([{ do: "powerdown" }], T + POWERDOWN_AGAIN_MS)],
  ["then removes everything", gone, noMachine, {}, plan([{ do: "clean" }])],
  ["once", gone, noMachine, { cleaned: true }, plan([])],

  [
    "a guest that shut itself down is left for the tables to decide on",
    wanted,
    have({ process: "powered-off" }),
    {},
    plan([]),
  ],
  ["a machine that died is left for the tables to decide on", wanted, died, {}, plan([])],
  [
    "a machine that went with its host is started again",
    wanted,
    have({ process: "dead", exit: { cause: "host-restarted", reason: "" } }),
    {},
    plan([reap]),
  ],
  [
    "unless its owner wants that not",
    want({ autoRecovery: false }),
    have({ process: "dead", exit: { cause: "host-restarted", reason: "" } }),
    {},
    plan([]),
  ],

  [
    "reboot asks the guest first",
    want({ rebootGeneration: 1 }),
    running,
    {},
    plan([{ do: "powerdown" }], T + POWERDOWN_AGAIN_MS),
  ],
  [
    "and starts it anew when it has shut down",
    want({ rebootGeneration: 3 }),
    have({ process: "powered-off" }),
    {},
    plan([{ do: "reset", rebootGeneration: 3 }]),
  ],
  [
    "and resets it when it does not listen",
    want({ rebootGeneration: 1 }),
    asked(T - 120_000, T - 1),
    {},
    plan([{ do: "reset", rebootGeneration: 1 }]),
  ],
  [
    "a reboot that was done is not done again",
    want({ rebootGeneration: 1 }),
    have({ rebootGeneration: 1 }),
    {},
    plan([]),
  ],
  [
    "an interrupt is injected once",
    want({ interruptGeneration: 2 }),
    have({ interruptGeneration: 1 }),
    {},
    plan([{ do: "inject-nmi", interruptGeneration: 2 }]),
  ],
  [
    "a halted guest is asked to go on, and again later",
    wanted,
    have({ halted: "full" }),
    {},
    plan([{ do: "resume" }], T + RESUME_AGAIN_MS),
  ],

  [
    "an attached volume is made and plugged in",
    want({ disks: [disk(0), disk(1)] }),
    running,
    {},
    plan([
      { do: "make-volume", disk: disk(1) },
      { do: "plug-disk", disk: disk(1) },
    ]),
  ],
  [
    "a detached volume is unplugged",
    wanted,
    have({ disks: [disk(0).volumeId, disk(1).volumeId] }),
    {},
    plan([{ do: "unplug-disk", volumeId: disk(1).volumeId }]),
  ],
  [
    "interfaces too; what goes makes room for what comes",
    want({ nics: [nic(0), nic(2)] }),
    have({ nics: [nic(0).eniId, nic(1).eniId] }),
    {},
    plan([
      { do: "unplug-nic", eniId: nic(1).eniId },
      { do: "plug-nic", nic: nic(2) },
    ]),
  ],
];
test.each(table)("%s", (_, desired, machine, change, expected) => {
  expect(planInstance(desired, machine, { ...context, ...change })).toEqual(expected);
});

/** What a step does to a machine whose guest obeys; the real thing is proven in test/integration/qemu.test.ts. */
function after(desired: Desired, machine: Machine, step: Step, now: number): Machine {
  switch (step.do) {
    case "spawn":
      return {
        ...noMachine,
        process: "running",
        bootGeneration: desired.bootGeneration,
        rebootGeneration: desired.rebootGeneration,
        interruptGeneration: desired.interruptGeneration,
        disks: desired.disks.map((d) => d.volumeId),
        nics: desired.nics.map((n) => n.eniId),
        remains: true,
      };
    case "powerdown":
      return { ...machine, process: "powered-off", powerdown: { firstAt: now, lastAt: now } };
    case "kill":
      return { ...machine, process: "dead", exit: { cause: "died", reason: "quit" } };
    case "reap":
      return { ...noMachine, remains: machine.remains };
    case "clean":
      return noMachine;
    case "reset":
      return { ...machine, process: "running", rebootGeneration: step.rebootGeneration };
    case "inject-nmi":
      return { ...machine, interruptGeneration: step.interruptGeneration };
    case "plug-disk":
      return { ...machine, disks: [...machine.disks, step.disk.volumeId] };
    case "unplug-disk":
      return { ...machine, disks: machine.disks.filter((id) => id !== step.volumeId) };
    case "plug-nic":
      return { ...machine, nics: [...machine.nics, step.nic.eniId] };
    case "unplug-nic":
      return { ...machine, nics: machine.nics.filter((id) => id !== step.eniId) };
    case "resume": {
      const { halted: _gone, ...rest } = machine;
      return rest;
    }
    case "make-volume":
      return machine;
  }
}

const anyMachine: fc.Arbitrary<Machine> = fc
  .record({
    process: fc.constantFrom("absent", "running", "powered-off", "dead"),
    bootGeneration: fc.integer({ min: 1, max: 3 }),
    rebootGeneration: fc.integer({ min: 0, max: 3 }),
    disks: fc.subarray([0, 1, 2].map((n) => disk(n).volumeId as string)),
    nics: fc.subarray([0, 1].map((n) => nic(n).eniId as string)),
    halted: fc.boolean(),
  })
  .map(({ process, halted, ...rest }) =>
    process === "absent"
      ? noMachine
      : {
          ...running,
          ...rest,
          process,
          ...(halted && process === "running" ? { halted: "full" } : {}),
          ...(process === "dead" ? { exit: { cause: "host-restarted" as const, reason: "" } } : {}),
        },
  );
const anyDesired = fc
  .record({
    power: fc.constantFrom("on" as const, "off" as const, "terminated" as const),
    forced: fc.boolean(),
    bootGeneration: fc.integer({ min: 1, max: 3 }),
    rebootGeneration: fc.integer({ min: 0, max: 3 }),
    extra: fc.subarray([1, 2]),
  })
  .map(({ extra, ...rest }) => want({ ...rest, disks: [disk(0), ...extra.map(disk)] }));

test("from any machine, interrupted after any step, the same end is reached and then nothing is left to do", () => {
  fc.assert(
    fc.property(anyDesired, anyMachine, fc.array(fc.nat(3), { maxLength: 20 }), (desired, machine, cuts) => {
      // A guest that shut itself down while it should run waits for the tables; that is an end of its own.
      fc.pre(
        !(
          desired.power === "on" &&
          machine.process === "powered-off" &&
          machine.bootGeneration === desired.bootGeneration &&
          machine.rebootGeneration >= desired.rebootGeneration
        ),
      );
      let [now, state, cleaned] = [T, machine, false];
      for (let pass = 0; pass < 30; pass++) {
        now += 1000;
        const { steps } = planInstance(desired, state, { ...context, now, cleaned });
        if (steps.length === 0) break;
        // kill -9 of the daemon after some of the steps: the next pass starts from what is there.
        for (const step of steps.slice(0, 1 + (cuts[pass] ?? steps.length))) {
          state = after(desired, state, step, now);
          if (step.do === "clean") cleaned = true;
        }
      }
      expect(planInstance(desired, state, { ...context, now, cleaned }).steps).toEqual([]);
      if (desired.power === "on") {
        expect(state).toMatchObject({ process: "running", bootGeneration: desired.bootGeneration });
        expect([...state.disks].sort()).toEqual(desired.disks.map((d) => d.volumeId as string).sort());
      } else expect(state.process).toBe("absent");
      expect(cleaned).toBe(desired.power === "terminated");
    }),
    { numRuns: 500 },
  );
});
