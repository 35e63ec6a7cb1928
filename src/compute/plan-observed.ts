/**
 * What a node writes about an instance once it has looked at its machine, in one transaction: the observation itself, and
 * what follows from it for the tables. Here a guest that shut itself down becomes stopped or terminated, a machine that could not be
 * started is given up, and a terminated instance lets go of its volumes and interfaces.
 */
import { HOUR_MS } from "../lib/units.ts";
import type { NodeId } from "../model/ids.ts";
import type { InstanceObserved, InstanceRecord, StateTransition } from "../model/instance.ts";
import type { NetworkInterfaceRecord } from "../model/network.ts";
import { put, type Reader, remove, type Write } from "../model/store.ts";
import { instances, instancesObserved, networkInterfaces, tags, volumes } from "../model/tables.ts";
import type { Machine } from "./hypervisor-port.ts";

/** A start that was given up. */
export interface LaunchFailure {
  readonly bootGeneration: number;
  readonly transition: StateTransition;
}

export interface ObservationContext {
  readonly nodeId: NodeId;
  readonly accel: InstanceObserved["accel"];
  readonly now: number;
  readonly launchFailure?: LaunchFailure;
  /** The machine is dead, and will be started again by the agent itself: that is no end. */
  readonly recovers: boolean;
  /** Everything on the host was removed (only meaningful for a terminated instance). */
  readonly cleaned: boolean;
}

/** AWS shows a terminated instance for about an hour. */
export const TERMINATED_SHOWN_MS = HOUR_MS;

const INSTANCE_INITIATED: StateTransition = {
  code: "Client.InstanceInitiatedShutdown",
  message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
};

/** The writes that record what was seen of one instance; `[]` when the tables say so already. Pure. */
export function decideObservation(
  state: Reader,
  instance: InstanceRecord,
  machine: Machine,
  context: ObservationContext,
): readonly Write[] {
  const before = state.get(instancesObserved, instance.id);
  const seen = observationOf(instance, before, machine, context);
  if (isForgotten(instance, before, context.now)) return forget(state, instance);
  const after = intentAfter(instance, machine, seen, context);
  const writes: Write[] = [];
  if (seen && !same(before, seen)) writes.push(put(instancesObserved, seen));
  // The release follows the state and not the change: what a crash or a race left behind is let go of later.
  let record = after ?? instance;
  if (record.power !== "on" && seen && ended(seen)) {
    if (record.power === "terminated") {
      const released = releaseResources(state, record);
      writes.push(...released);
      if (seen.cleaned && record.blockDevices.length > 0) record = { ...record, blockDevices: [] };
    } else {
      writes.push(...releasePublicAddresses(state, record));
    }
  }
  if (record !== instance) writes.push(put(instances, record));
  return writes;
}

/** When a terminated instance is to be forgotten; undefined for any other. */
export function forgetAt(instance: InstanceRecord, seen: InstanceObserved | undefined): number | undefined {
  return instance.power === "terminated" && seen?.cleaned ? seen.since + TERMINATED_SHOWN_MS : undefined;
}

const isForgotten = (instance: InstanceRecord, seen: InstanceObserved | undefined, now: number): boolean => {
  const at = forgetAt(instance, seen);
  return at !== undefined && now >= at;
};

const ended = (seen: InstanceObserved): boolean => seen.process === "absent" || seen.process === "failed";

function observationOf(
  instance: InstanceRecord,
  before: InstanceObserved | undefined,
  machine: Machine,
  context: ObservationContext,
): InstanceObserved | undefined {
  const found = processOf(instance, before, machine, context);
  if (!found) return undefined;
  const { process, reason } = found;
  const present = machine.process !== "absent";
  const kept = process === "failed" && before?.process === "failed" && !present ? before : undefined;
  if (kept) return { ...kept, cleaned: context.cleaned };
  const bootGeneration = present
    ? machine.bootGeneration
    : (context.launchFailure?.bootGeneration ?? before?.bootGeneration ?? 0);
  return {
    instanceId: instance.id,
    nodeId: context.nodeId,
    process,
    bootGeneration,
    rebootGeneration: present ? machine.rebootGeneration : (before?.rebootGeneration ?? 0),
    interruptGeneration: present ? machine.interruptGeneration : (before?.interruptGeneration ?? 0),
    ...(machine.pid !== undefined && present && process !== "failed" ? { pid: machine.pid } : {}),
    accel: context.accel,
    ...(reason ? { reason } : {}),
    since: before?.process === process && before.bootGeneration === bootGeneration ? before.since : context.now,
    cleaned: instance.power === "terminated" && machine.process === "absent" && context.cleaned,
  };
}

function processOf(
  instance: InstanceRecord,
  before: InstanceObserved | undefined,
  machine: Machine,
  context: ObservationContext,
): { process: InstanceObserved["process"]; reason?: StateTransition } | undefined {
  switch (machine.process) {
    case "starting":
      return { process: instance.power === "on" ? "starting" : "stopping" };
    case "running":
      return { process: instance.power === "on" ? "running" : "stopping" };
    case "powered-off": {
      // A reboot passes through here too, and AWS shows a rebooting instance as running.
      const rebooting = instance.power === "on" && instance.rebootGeneration > machine.rebootGeneration;
      return { process: rebooting ? "running" : "stopping" };
    }
    case "dead": {
      if (context.recovers) return { process: "starting" };
      const reason = {
        code: "Server.InternalError",
        message: `Server.InternalError: ${machine.exit?.reason ?? "The machine's process ended"}`,
      };
      return instance.power === "on" ? { process: "failed", reason } : { process: "stopping" };
    }
    case "absent":
      if (context.launchFailure?.bootGeneration === instance.bootGeneration) {
        return { process: "failed", reason: context.launchFailure.transition };
      }
      if (instance.power === "on") return undefined; // it waits for its start; what was seen last still holds
      // An end by failure keeps its reason until the next start.
      if (before?.process === "failed")
        return { process: "failed", ...(before.reason ? { reason: before.reason } : {}) };
      return { process: "absent" };
  }
}

/**
 * The instance's record where the machine itself changed what is wanted. A machine that fails in its first start is
 * terminated, as on EC2; one that had run before is stopped, and its volumes are kept.
 */
function intentAfter(
  instance: InstanceRecord,
  machine: Machine,
  seen: InstanceObserved | undefined,
  context: ObservationContext,
): InstanceRecord | undefined {
  if (instance.power !== "on") return undefined;
  const current = machine.bootGeneration === instance.bootGeneration;
  if (machine.process === "powered-off" && current && instance.rebootGeneration <= machine.rebootGeneration) {
    const power = instance.shutdownBehavior === "terminate" ? "terminated" : "off";
    return { ...instance, power, forced: false, powerChangedAt: context.now, transition: INSTANCE_INITIATED };
  }
  if (seen?.process !== "failed" || seen.bootGeneration !== instance.bootGeneration) return undefined;
  const neverRan = machine.process === "absent" && instance.bootGeneration === 1;
  return {
    ...instance,
    power: neverRan ? "terminated" : "off",
    forced: true,
    powerChangedAt: context.now,
    ...(seen.reason ? { transition: seen.reason } : {}),
  };
}

function releasePublicAddresses(state: Reader, instance: InstanceRecord): readonly Write[] {
  return state
    .lookup(networkInterfaces, "byInstance", instance.id)
    .filter((eni) => eni.publicIp !== undefined)
    .map((eni) => put(networkInterfaces, withoutPublicIp(eni)));
}

function withoutPublicIp(eni: NetworkInterfaceRecord): NetworkInterfaceRecord {
  const { publicIp: _released, ...rest } = eni;
  return rest;
}

/** Volumes and interfaces of a terminated instance: removed with their tags, or let go of. */
function releaseResources(state: Reader, instance: InstanceRecord): readonly Write[] {
  const writes: Write[] = [];
  for (const eni of state.lookup(networkInterfaces, "byInstance", instance.id)) {
    if (eni.attachment?.deleteOnTermination) {
      writes.push(remove(networkInterfaces, eni.id), remove(tags, eni.id));
    } else {
      const { attachment: _detached, ...rest } = withoutPublicIp(eni);
      writes.push(put(networkInterfaces, rest));
    }
  }
  for (const volume of state.lookup(volumes, "byInstance", instance.id)) {
    if (volume.attachment?.deleteOnTermination) {
      writes.push(remove(volumes, volume.id), remove(tags, volume.id));
    } else {
      const { attachment: _detached, ...rest } = volume;
      writes.push(put(volumes, rest));
    }
  }
  return writes;
}

function forget(state: Reader, instance: InstanceRecord): readonly Write[] {
  return [
    remove(instances, instance.id),
    remove(instancesObserved, instance.id),
    ...(state.get(tags, instance.id) ? [remove(tags, instance.id)] : []),
  ];
}

const same = (a: InstanceObserved | undefined, b: InstanceObserved): boolean => a !== undefined && Bun.deepEquals(a, b);
