/**
 * The instance reconciler of one node. A pass writes what was seen, in one transaction, then plans each instance that may
 * have changed, and starts its steps. Steps of one instance run in order, those of different instances side by side, and
 * no pass waits for them: a guest that is slow to unplug holds up no other.
 *
 * Which instances a pass looks at is a hint only: a resync looks at all, and the first pass of a daemon is one.
 */
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { ok } from "../lib/result.ts";
import type { InstanceId, NodeId } from "../model/ids.ts";
import type { InstanceRecord } from "../model/instance.ts";
import { type AnyTable, type Change, changesOf, type Reader, type Store, type Write } from "../model/store.ts";
import { instances, instancesObserved, networkInterfaces, snapshots, volumes } from "../model/tables.ts";
import { type BackOffLimits, ItemBackOff } from "../reconcile/back-off.ts";
import { type Loop, type PassReport, startLoop } from "../reconcile/loop.ts";
import { type Desired, desiredInstance, type MemoryOfType } from "./desired.ts";
import { type Hypervisor, type Machine, noMachine, type StepFailure } from "./hypervisor-port.ts";
import { type Plan, planInstance, recovers, type Step } from "./plan-instance.ts";
import { decideObservation, forgetAt, type LaunchFailure } from "./plan-observed.ts";

export interface InstanceReconcilerOptions {
  readonly store: Store<unknown>;
  readonly nodeId: NodeId;
  readonly hypervisor: Hypervisor;
  readonly memoryOf: MemoryOfType;
  /** How long a guest has for its own shutdown. */
  readonly gracefulMs: number;
  /** Waits between tries of an instance's step that failed. */
  readonly backOff?: BackOffLimits;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface InstanceReconciler {
  readonly loop: Loop;
  /** Looks at everything anew, soon. */
  resync(): void;
  /** Stops passes and waits for the steps that run. The machines go on. */
  stop(): Promise<void>;
}

/** A start that fails for a reason that may pass is tried this often before the instance is given up. */
const LAUNCH_ATTEMPTS_MAX = 3;
/** The same steps again within this time are a step without effect, and wait as a failed one does. */
const REPEAT_MS = 1000;
/** Instances in one transaction: bounded, so that its size is. */
const OBSERVED_BATCH = 500;

const WATCHED: readonly AnyTable[] = [
  instances,
  volumes,
  networkInterfaces,
  snapshots,
] as readonly object[] as readonly AnyTable[];

/** Starts the reconciler; it runs until `stop`. */
export function startInstanceReconciler(options: InstanceReconcilerOptions): InstanceReconciler {
  const reconciler = new Reconciler(options);
  const loop = startLoop({
    name: "instances",
    pass: ({ resync }) => reconciler.pass(resync),
    clock: options.clock,
    random: options.random,
    log: options.log,
  });
  const stopping = new AbortController();
  reconciler.wake = loop.wake;
  options.hypervisor.onChange((id) => reconciler.touch(id));
  const watching = reconciler.watch(stopping.signal);
  return {
    loop,
    resync: () => reconciler.touchAll(),
    async stop() {
      stopping.abort();
      await loop.stop();
      await reconciler.settled();
      await watching;
    },
  };
}

class Reconciler {
  wake: () => void = () => {};
  readonly #options: InstanceReconcilerOptions;
  readonly #backOff: ItemBackOff;
  #all = true;
  #dirty = new Set<string>();
  /** Instances that wait for something that names no instance: a boot slot, a snapshot. */
  readonly #waiting = new Set<string>();
  readonly #deadlines = new Map<string, number>();
  readonly #inFlight = new Map<string, Promise<void>>();
  readonly #launchFailures = new Map<string, LaunchFailure>();
  readonly #cleaned = new Set<string>();
  readonly #lastPlans = new Map<string, { readonly steps: string; readonly at: number }>();

  constructor(options: InstanceReconcilerOptions) {
    this.#options = options;
    this.#backOff = new ItemBackOff(options.random, options.backOff);
  }

  touch(id?: string): void {
    if (id) this.#dirty.add(id);
    else for (const waiting of this.#waiting) this.#dirty.add(waiting);
    this.wake();
  }

  touchAll(): void {
    this.#all = true;
    this.wake();
  }

  async settled(): Promise<void> {
    await Promise.all(this.#inFlight.values());
  }

  async watch(signal: AbortSignal): Promise<void> {
    const { store } = this.#options;
    while (!signal.aborted) {
      const fromRevision = store.read().revision;
      this.touchAll();
      for await (const event of store.watch(WATCHED, { fromRevision, signal })) {
        if (event.kind === "compacted") break;
        this.#touchChanged(event.changes);
      }
      if (!signal.aborted && store.status().health === "closed") return;
    }
  }

  #touchChanged(changes: readonly Change[]): void {
    const { nodeId } = this.#options;
    const before = this.#dirty.size;
    for (const { key, before, after } of changesOf<InstanceRecord>(changes, instances as never)) {
      if ((after ?? before)?.nodeId === nodeId) this.#dirty.add(key);
    }
    for (const table of [volumes, networkInterfaces] as const) {
      for (const change of changesOf<{ attachment?: { instanceId: string } }>(changes, table as never)) {
        for (const record of [change.before, change.after]) {
          if (record?.attachment) this.#dirty.add(record.attachment.instanceId);
        }
      }
    }
    if (changes.some((change) => change.table.name === snapshots.name)) {
      for (const waiting of this.#waiting) this.#dirty.add(waiting);
    }
    if (this.#dirty.size > before) this.wake();
  }

  async pass(resync: boolean): Promise<PassReport> {
    const { store, hypervisor, nodeId, clock } = this.#options;
    const everything = resync || this.#all;
    const dirty = this.#dirty;
    this.#all = false;
    this.#dirty = new Set();
    const now = clock.now();
    for (const [id, at] of this.#deadlines) if (at <= now) dirty.add(id);
    try {
      const machines = await hypervisor.observe(everything);
      const own = everything
        ? store
            .read()
            .lookup(instances, "byNode", nodeId)
            .map((r) => r.id as string)
        : [...dirty];
      const ids = new Set<string>([...own, ...(everything ? machines.keys() : [])]);
      await this.#report(ids, machines, now);
      const report = this.#planAll(store.read(), ids, machines);
      if (everything) await this.#sweep();
      return report;
    } catch (cause) {
      // What was to be looked at still is.
      this.#all ||= everything;
      for (const id of dirty) this.#dirty.add(id);
      throw cause;
    }
  }

  /** Writes what was seen of `ids`, where the tables do not say so yet. */
  async #report(ids: ReadonlySet<string>, machines: ReadonlyMap<InstanceId, Machine>, now: number): Promise<void> {
    const { store } = this.#options;
    const differing = [...ids].filter((id) => this.#observe(store.read(), id, machines, now).length > 0);
    for (let at = 0; at < differing.length; at += OBSERVED_BATCH) {
      const batch = differing.slice(at, at + OBSERVED_BATCH);
      const written = await store.transact((state) =>
        ok({ writes: batch.flatMap((id) => this.#observe(state, id, machines, now)), value: undefined }),
      );
      if (!written.ok) throw new Error("cannot write what was observed of instances", { cause: written.error });
    }
  }

  #observe(state: Reader, id: string, machines: ReadonlyMap<InstanceId, Machine>, now: number): readonly Write[] {
    const instance = state.get(instances, id);
    if (!instance || instance.nodeId !== this.#options.nodeId) return [];
    const machine = machines.get(instance.id) ?? noMachine;
    const launchFailure = this.#launchFailures.get(id);
    return decideObservation(state, instance, machine, {
      nodeId: this.#options.nodeId,
      accel: this.#options.hypervisor.accel,
      now,
      ...(launchFailure ? { launchFailure } : {}),
      recovers: machine.exit?.cause === "host-restarted" && recovers(this.#desired(state, instance), machine),
      cleaned: this.#cleaned.has(id) || state.get(instancesObserved, id)?.cleaned === true,
    });
  }

  #desired(state: Reader, instance: InstanceRecord): Desired {
    return desiredInstance(state, instance, this.#options.memoryOf);
  }

  #planAll(state: Reader, ids: ReadonlySet<string>, machines: ReadonlyMap<InstanceId, Machine>): PassReport {
    const { hypervisor, clock } = this.#options;
    let [converged, changed, bootSlots] = [0, 0, hypervisor.bootSlots()];
    const waitsFor = (id: string) => this.#inFlight.has(id);
    // First come, first served: the order of launch decides who takes a boot slot.
    const order = [...ids].map((id) => ({ id, instance: state.get(instances, id) }));
    order.sort((a, b) => (a.instance?.launchTime ?? 0) - (b.instance?.launchTime ?? 0) || (a.id < b.id ? -1 : 1));
    for (const { id, instance } of order) {
      if (waitsFor(id)) {
        continue; // the end of its steps touches it
      }
      this.#deadlines.delete(id);
      this.#waiting.delete(id);
      const machine = machines.get(id as InstanceId) ?? noMachine;
      if (!instance || instance.nodeId !== this.#options.nodeId) {
        this.#forget(id);
        if (machine.process === "absent" && !machine.remains) continue;
        // Nobody wants it: as if it were terminated at once.
        this.#run(strayOf(id as InstanceId), strayPlan(machine));
        changed++;
        continue;
      }
      const blockedUntil = this.#backOff.waitsUntil(id, clock.now());
      if (blockedUntil !== undefined) {
        this.#deadlines.set(id, blockedUntil);
        continue;
      }
      const want = this.#desired(state, instance);
      const seen = state.get(instancesObserved, id);
      const mayBoot = bootSlots > 0;
      const plan = planInstance(want, machine, {
        now: clock.now(),
        gracefulMs: this.#options.gracefulMs,
        mayBoot,
        cleaned: seen?.cleaned === true || this.#cleaned.has(id),
      });
      if (want.power === "on" && machine.process === "absent") {
        if (want.blocked?.permanent) this.#giveUp(want, blockedTransition(want.blocked.reason));
        else if (plan.steps.length === 0) this.#waiting.add(id);
        else bootSlots--;
      }
      const until = [plan.wakeAt, forgetAt(instance, seen)].filter((at) => at !== undefined);
      if (until.length > 0) this.#deadlines.set(id, Math.min(...until));
      if (plan.steps.length === 0) converged++;
      else if (this.#repeats(id, plan)) {
        const { until: again } = this.#backOff.failed(id, clock.now());
        this.#deadlines.set(id, again);
        converged++;
      } else {
        changed++;
        this.#run(want, plan);
      }
    }
    const wakeAt = this.#deadlines.size > 0 ? Math.min(...this.#deadlines.values()) : undefined;
    return { converged, changed, failed: 0, ...(wakeAt !== undefined ? { wakeAt } : {}) };
  }

  /** True when the same steps were carried out, with success, a moment ago: whatever they do, it is not what they should. */
  #repeats(id: string, plan: Plan): boolean {
    const now = this.#options.clock.monotonicMs();
    const steps = JSON.stringify(plan.steps);
    const last = this.#lastPlans.get(id);
    this.#lastPlans.set(id, { steps, at: now });
    return last?.steps === steps && now - last.at < REPEAT_MS;
  }

  /** Carries out a plan in the background. Its end, good or bad, has the instance looked at again. */
  #run(want: Desired, plan: Plan): void {
    const done = this.#applyAll(want, plan.steps)
      .catch((cause: unknown) => this.#options.log.error("instance.step-broke", { instanceId: want.id, cause }))
      .finally(() => {
        this.#inFlight.delete(want.id);
        this.touch(want.id);
        // A start that came to nothing took no boot slot, and nobody else tells those that wait for one.
        this.touch();
      });
    this.#inFlight.set(want.id, done);
  }

  async #applyAll(want: Desired, steps: readonly Step[]): Promise<void> {
    const { hypervisor, log, clock } = this.#options;
    for (const step of steps) {
      const startedAt = clock.monotonicMs();
      const result = await hypervisor.apply(want, step);
      const wallMs = Math.round(clock.monotonicMs() - startedAt);
      if (result.ok) {
        if (step.do !== "make-volume") log.info(`instance.${step.do}`, { instanceId: want.id, wallMs });
        if (step.do === "spawn") this.#launchFailures.delete(want.id);
        if (step.do === "clean") this.#cleaned.add(want.id);
        continue;
      }
      this.#failed(want, step, result.error);
      return;
    }
    this.#backOff.succeeded(want.id);
  }

  #failed(want: Desired, step: Step, failure: StepFailure): void {
    this.#lastPlans.delete(want.id); // to be repeated is what a failed plan is for
    const { attempts } = this.#backOff.failed(want.id, this.#options.clock.now());
    this.#options.log.error("instance.step-failed", {
      instanceId: want.id,
      step: step.do,
      attempts,
      reason: failure.transition.message,
      cause: failure.cause,
    });
    const launching = step.do === "spawn" || (step.do === "make-volume" && want.power === "on");
    if (launching && (failure.permanent || attempts >= LAUNCH_ATTEMPTS_MAX)) this.#giveUp(want, failure.transition);
  }

  #giveUp(want: Desired, transition: LaunchFailure["transition"]): void {
    this.#launchFailures.set(want.id, { bootGeneration: want.bootGeneration, transition });
    this.#backOff.succeeded(want.id);
    this.touch(want.id);
  }

  #forget(id: string): void {
    this.#launchFailures.delete(id);
    this.#cleaned.delete(id);
    this.#lastPlans.delete(id);
    this.#backOff.succeeded(id);
  }

  /** Only on a state that is surely not behind what this node did before its last restart. */
  async #sweep(): Promise<void> {
    const { store, hypervisor, nodeId } = this.#options;
    const caughtUp = await store.barrier();
    if (!caughtUp.ok) return;
    const state = store.read();
    await hypervisor.sweep(
      new Set(state.lookup(instances, "byNode", nodeId).map((r) => r.id as string)),
      new Set(state.lookup(volumes, "byNode", nodeId).map((r) => r.id as string)),
    );
  }
}

const blockedTransition = (reason: string): LaunchFailure["transition"] => ({
  code: "Server.InternalError",
  message: `Server.InternalError: ${reason}`,
});

const strayPlan = (machine: Machine): Plan => ({
  steps:
    machine.process === "absent"
      ? [{ do: "clean" }]
      : machine.process === "dead"
        ? [{ do: "reap" }, { do: "clean" }]
        : [{ do: "kill" }, { do: "reap" }, { do: "clean" }],
});

/** What is known of a machine that no record speaks of: its id, and that it should not be. */
const strayOf = (id: InstanceId): Desired => ({
  id,
  power: "terminated",
  forced: true,
  powerChangedAt: 0,
  bootGeneration: 0,
  rebootGeneration: 0,
  interruptGeneration: 0,
  autoRecovery: false,
  instanceType: "",
  cores: 1,
  threadsPerCore: 1,
  memoryMib: 0,
  disks: [],
  nics: [],
  uuid: "",
  deleteOnTermination: [],
});
