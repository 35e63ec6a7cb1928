/**
 * The network agent of a node: keeps bridge, ports, flows, addresses and NAT as the tables say. It wakes for a change in a
 * table that bears on them and for a change on the host (Open vSwitch restarted, a port got its number), and takes no hint
 * from either: every pass plans the whole and applies the difference.
 */
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { Result } from "../lib/result.ts";
import type { Config } from "../model/config.ts";
import type { NetworkInterfaceId } from "../model/ids.ts";
import type { PortDirectory } from "../model/network-names.ts";
import type { Store } from "../model/store.ts";
import {
  instances,
  instancesObserved,
  internetGateways,
  networkInterfaces,
  routeTables,
  securityGroupRules,
  subnets,
  vpcs,
} from "../model/tables.ts";
import { startLoop } from "../reconcile/loop.ts";
import { type DesiredNetwork, type ObservedNetwork, planNetwork } from "./plan-network.ts";

/** Why the host could not do it: one sentence, with what mends it. */
export interface NetworkFault {
  readonly message: string;
}

/** The host as the agent needs it; `host/ovs/network-host.ts` is the one that there is. */
export interface NetworkHost {
  /** What is there. Fails when Open vSwitch cannot be asked. */
  observe(): Promise<Result<ObservedNetwork, NetworkFault>>;
  /**
   * Makes it as wanted. `fresh`: trust nothing that was applied before. Repeating it changes nothing.
   * @returns how many things were changed, and sentences on what is not as one would wish
   */
  apply(
    desired: DesiredNetwork,
    options: { readonly fresh: boolean },
  ): Promise<Result<{ readonly changed: number; readonly notes: readonly string[] }, NetworkFault>>;
  /** Who is told when something on the host changed, or came back. */
  onChange(listener: () => void): void;
  close(): void;
}

export interface NetworkStatus {
  /** The last pass made everything as the tables say. */
  readonly ok: boolean;
  /** Why not, or what falls short although it is; empty when there is nothing to say. */
  readonly reason: string;
  readonly ports: number;
  readonly flows: number;
  /** Of the last pass. */
  readonly passMs?: number;
}

export interface NetworkAgent {
  /** Asks for a pass soon. */
  wake(): void;
  status(): NetworkStatus;
  readonly directory: PortDirectory;
  /** Resolves once a pass that began after the call has ended, well or not. For tests and start-up. */
  settled(): Promise<NetworkStatus>;
  /** Ends the agent; what it made on the host stays. */
  stop(): Promise<void>;
}

export interface NetworkAgentOptions {
  readonly config: Config;
  readonly store: Pick<Store<unknown>, "read" | "watch">;
  readonly nodeId: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly host: NetworkHost;
  /** Hears when `status` says something else than before. */
  readonly onStatus?: (status: NetworkStatus) => void;
}

/** Every table that a plan reads. */
const WATCHED = [
  instances,
  instancesObserved,
  internetGateways,
  networkInterfaces,
  routeTables,
  securityGroupRules,
  subnets,
  vpcs,
] as const;

/** A host that is not ready says so when it is: the pause is only for what gives no sign. */
const BACK_OFF = { firstMs: 100, maxMs: 5_000 };

/** Starts the agent; its first pass begins at once. Ends with `stop`, and closes the host then. */
export function createNetworkAgent(options: NetworkAgentOptions): NetworkAgent {
  const { config, store, nodeId, clock, random, host } = options;
  const log = options.log.with({ part: "network" });
  let directory: ReadonlyMap<string, NetworkInterfaceId> = new Map();
  let status: NetworkStatus = { ok: false, reason: "the first pass has not ended yet", ports: 0, flows: 0 };
  let waiting: ((status: NetworkStatus) => void)[] = [];
  const stopping = new AbortController();

  const report = (next: NetworkStatus) => {
    if (next.ok !== status.ok || next.reason !== status.reason) {
      const { ok, reason } = next;
      if (ok) log.info("network.ok", { reason });
      else log.warn("network.not-ok", { reason });
    }
    const told = next.ok !== status.ok || next.reason !== status.reason || next.ports !== status.ports;
    status = next;
    if (told) options.onStatus?.(next);
  };

  const onePass = async (fresh: boolean) => {
    const startedAt = clock.monotonicMs();
    const observed = await host.observe();
    if (!observed.ok) {
      report({ ...status, ok: false, reason: observed.error.message });
      return { converged: 0, changed: 0, failed: 1 };
    }
    const desired = planNetwork(store.read(), nodeId, config.network, observed.value);
    // Before the flows are in, nobody can come by a new address, and who came by an old one may still be waiting.
    directory = desired.directory;
    const applied = await host.apply(desired, { fresh });
    const counts = { ports: desired.ports.length, flows: desired.flows.length };
    if (!applied.ok) {
      report({ ...counts, ok: false, reason: applied.error.message });
      return { converged: 0, changed: 0, failed: 1 };
    }
    const passMs = clock.monotonicMs() - startedAt;
    report({ ...counts, ok: true, reason: [...desired.notes, ...applied.value.notes].join("; "), passMs });
    return { converged: desired.flows.length, changed: applied.value.changed, failed: 0 };
  };

  const loop = startLoop({
    name: "network",
    clock,
    random,
    log,
    backOff: BACK_OFF,
    pass: async ({ resync }) => {
      const asked = waiting;
      waiting = [];
      try {
        return await onePass(resync);
      } finally {
        for (const resolve of asked) resolve(status);
      }
    },
  });
  host.onChange(() => loop.wake());
  void (async () => {
    while (!stopping.signal.aborted) {
      // `compacted` means only that changes were missed; the pass reads everything anyway.
      for await (const _ of store.watch(WATCHED, { signal: stopping.signal })) loop.wake();
      loop.wake();
      await clock.sleep(BACK_OFF.firstMs, stopping.signal);
    }
  })();

  return {
    wake: loop.wake,
    status: () => status,
    directory: { byMetadataAddress: (address) => directory.get(address) },
    settled: () =>
      new Promise((resolve) => {
        waiting.push(resolve);
        loop.wake();
      }),
    async stop() {
      stopping.abort();
      await loop.stop();
      host.close();
      for (const resolve of waiting.splice(0)) resolve(status);
    },
  };
}
