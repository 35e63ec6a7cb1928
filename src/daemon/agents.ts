/**
 * The agents of one node: compute (machines), vpc (ports and flows, with the metadata and DHCP servers that hang on them). They
 * come up beside the endpoint, not before it, and say in the node's record what they found.
 */
import { hostname } from "node:os";
import { join } from "node:path";
import { instanceType } from "../compute/instance-types.ts";
import { noHypervisor } from "../compute/no-hypervisor.ts";
import { nodeRecord } from "../compute/node-record.ts";
import type { ComputePorts } from "../compute/ports.ts";
import { type InstanceReconciler, startInstanceReconciler } from "../compute/reconcile-instances.ts";
import { type AccelVerdict, chooseAccel } from "../host/accel.ts";
import { hostCapacity } from "../host/capacity.ts";
import { openQemuHypervisor, type QemuHypervisor } from "../host/hypervisor.ts";
import { openNetworkHost } from "../host/ovs/network-host.ts";
import type { SealingKey } from "../iam/sealing-key.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { fail, ok } from "../lib/result.ts";
import { SECOND_MS } from "../lib/units.ts";
import { VERSION } from "../lib/version.ts";
import type { NodeRecord } from "../model/common-records.ts";
import type { Config } from "../model/config.ts";
import { awsError } from "../model/errors.ts";
import type { InstanceId, NodeId } from "../model/ids.ts";
import { instanceState } from "../model/instance-state.ts";
import { snapshotFile } from "../model/node-files.ts";
import type { Role } from "../model/roles.ts";
import { put, type Store } from "../model/store.ts";
import { instances, instancesObserved, networkInterfaces, nodes, snapshots, volumes } from "../model/tables.ts";
import type { ConsoleHub } from "../operator/console-socket.ts";
import { KERNEL_FILE } from "../storage/image-files.ts";
import { createNetworkAgent, type NetworkAgent } from "../vpc/reconcile-network.ts";
import { GuestServers } from "./guest-servers.ts";

export interface AgentsOptions {
  readonly config: Config;
  readonly roles: ReadonlySet<Role>;
  readonly dataDir: string;
  readonly store: Store;
  readonly nodeId: NodeId;
  readonly sealingKey: SealingKey;
  /** How long a guest has for its own shutdown, as it is set now. */
  gracefulShutdownSeconds(): number;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface Agents {
  readonly consoles: ConsoleHub;
  readonly computePorts: ComputePorts;
  /** See `GuestServers.identityCertificate`. */
  identityCertificate(): string | undefined;
  /** Resolves once the node's record stands in the store. */
  readonly announced: Promise<void>;
  /** Stops this node's machines as StopInstances does, and waits for their end. */
  stopInstances(): Promise<void>;
  stop(): Promise<void>;
}

const START_AGAIN_MS = 5 * SECOND_MS;

/** Starts what the roles ask for. Never fails: what a host lacks is said in the node's record, and looked for again. */
export function startAgents(options: AgentsOptions): Agents {
  return new NodeAgents(options);
}

class NodeAgents implements Agents {
  readonly #options: AgentsOptions;
  readonly announced: Promise<void>;
  readonly #started: Promise<void>;
  #accel: AccelVerdict;
  #hypervisor: QemuHypervisor | undefined;
  #reconciler: InstanceReconciler | undefined;
  #network: NetworkAgent | undefined;
  #guestServers: GuestServers | undefined;
  readonly #stopping = new AbortController();

  constructor(options: AgentsOptions) {
    this.#options = options;
    const { config } = options;
    this.#accel =
      config.accel === "none"
        ? { accel: "none", reason: "--accel none: instances are records, no machine runs behind them" }
        : { accel: "tcg", reason: "KVM has not been proven yet" };
    this.announced = this.#announce();
    this.#started = this.announced.then(() => this.#startUntilItWorks());
  }

  /** A host that cannot run machines yet (a full disk, a folder that may not be written) does not end the daemon. */
  async #startUntilItWorks(): Promise<void> {
    const { clock, log } = this.#options;
    while (!this.#stopping.signal.aborted) {
      try {
        return await this.#start();
      } catch (cause) {
        log.error("agents.not-started", { cause, againInMs: START_AGAIN_MS });
        await clock.sleep(START_AGAIN_MS, this.#stopping.signal);
      }
    }
  }

  async #start(): Promise<void> {
    const { config, roles, dataDir, store, nodeId, gracefulShutdownSeconds, clock, random, log } = this.#options;
    const runsMachines = config.accel !== "none";
    if (roles.has("vpc") && runsMachines && config.network.mode === "ovs" && !this.#network) this.#startNetwork();
    if (!roles.has("compute")) return;
    if (runsMachines) {
      const own = store.read().lookup(snapshots, "byNode", nodeId);
      this.#accel = await chooseAccel({
        mode: config.accel,
        dataDir,
        kernels: own.map(({ id }) => join(dataDir, snapshotFile(id, KERNEL_FILE))),
      });
      log.info("accel.chosen", { ...this.#accel });
      await this.#announce();
    }
    if (this.#stopping.signal.aborted) return;
    const hypervisor =
      this.#accel.accel === "none"
        ? noHypervisor(store.read().lookup(instancesObserved, "byNode", nodeId), (id) => ({
            disks: store
              .read()
              .lookup(volumes, "byInstance", id)
              .map((volume) => volume.id),
            nics: store
              .read()
              .lookup(networkInterfaces, "byInstance", id)
              .map((eni) => eni.id),
          }))
        : await this.#openHypervisor(this.#accel.accel);
    this.#reconciler = startInstanceReconciler({
      store,
      nodeId,
      hypervisor,
      memoryOf: (name) => instanceType(config, name)?.memoryMib,
      // Asked for at each pass, so that a change acts at once.
      get gracefulMs() {
        return gracefulShutdownSeconds() * SECOND_MS;
      },
      clock,
      random,
      log,
    });
  }

  async #openHypervisor(accel: "kvm" | "tcg"): Promise<QemuHypervisor> {
    const { config, dataDir, clock, log } = this.#options;
    this.#hypervisor = await openQemuHypervisor({
      dataDir,
      accel,
      network: config.network.mode === "ovs" ? "tap" : "none",
      clock,
      log,
      onPorts: () => this.#network?.wake(),
    });
    return this.#hypervisor;
  }

  #startNetwork(): void {
    const { config, store, nodeId, clock, random, log } = this.#options;
    const host = openNetworkHost({ network: config.network, clock, log });
    this.#network = createNetworkAgent({
      config,
      store,
      nodeId,
      clock,
      random,
      log,
      host,
      onStatus: ({ ok: works }) => {
        if (works) this.#guestServers?.listen();
        void this.#announce();
      },
    });
    this.#guestServers = new GuestServers({ ...this.#options, directory: this.#network.directory });
  }

  /** Writes the node's record where it differs from what stands there. */
  async #announce(): Promise<void> {
    const { config, store, nodeId, roles, dataDir, startedAt, log } = this.#options;
    const record = nodeRecord(
      {
        id: nodeId,
        name: hostname(),
        version: VERSION,
        roles: [...roles],
        capacity: hostCapacity(dataDir),
        accel: this.#accel.accel,
        accelReason: this.#accel.reason,
        network: this.#networkState(),
        startedAt,
      },
      config,
    );
    const written = await store.transact((state) => {
      const same = JSON.stringify(state.get(nodes, nodeId)) === JSON.stringify(record);
      return ok({ writes: same ? [] : [put(nodes, record)], value: undefined });
    });
    if (!written.ok && written.error.reason !== "closed")
      log.warn("node.not-announced", { reason: written.error.message });
  }

  #networkState(): NodeRecord["network"] {
    const { config } = this.#options;
    if (config.accel === "none") return { mode: "none", ok: true, reason: "no machine runs, so none is networked" };
    if (config.network.mode === "none")
      return { mode: "none", ok: true, reason: "--network none: machines have no network" };
    if (!this.#network) return { mode: config.network.mode, ok: false, reason: "not looked at yet" };
    const { ok: works, reason, ports } = this.#network.status();
    return {
      mode: "ovs",
      ok: works,
      reason: reason || (works ? `${ports} ${ports === 1 ? "port" : "ports"}` : "not looked at yet"),
    };
  }

  readonly consoles: ConsoleHub = {
    output: (id) => this.#hypervisor?.consoleOutput(id as InstanceId)?.bytes,
    watch: (id, onData, onEnd) => this.#hypervisor?.console(id as InstanceId)?.watch(onData, onEnd),
    write: (id, bytes) => this.#hypervisor?.console(id as InstanceId)?.write(bytes) ?? false,
  };

  readonly computePorts: ComputePorts = {
    consoleOutput: async (id) => {
      const output = this.#hypervisor?.consoleOutput(id);
      return ok(output ?? { bytes: new Uint8Array(), at: this.#options.clock.now() });
    },
    screenshot: async (id, wakeUp) => {
      if (!this.#hypervisor) {
        return fail(awsError("UnsupportedOperation", "No machine runs behind this instance, so it has no screen."));
      }
      const shot = await this.#hypervisor.screenshot(id, wakeUp);
      return shot.ok
        ? shot
        : fail(awsError("InternalError", `The screen could not be read: ${shot.error.message}`, 500));
    },
  };

  identityCertificate(): string | undefined {
    return this.#guestServers?.identityCertificate();
  }

  async stopInstances(): Promise<void> {
    const { store, nodeId, clock, log, gracefulShutdownSeconds } = this.#options;
    const own = () => store.read().lookup(instances, "byNode", nodeId);
    const now = clock.now();
    const asked = await store.transact((state) =>
      ok({
        writes: state
          .lookup(instances, "byNode", nodeId)
          .filter((instance) => instance.power === "on")
          .map((instance) =>
            put(instances, {
              ...instance,
              power: "off",
              forced: false,
              powerChangedAt: now,
              transition: {
                code: "Server.ScheduledStop",
                message: "Server.ScheduledStop: Stopped with the daemon of its host",
              },
            }),
          ),
        value: undefined,
      }),
    );
    if (!asked.ok) return log.error("daemon.instances-not-stopped", { reason: asked.error.message });
    const deadline = clock.monotonicMs() + (gracefulShutdownSeconds() + 30) * SECOND_MS;
    const stopping = () =>
      own().filter((i) => instanceState(i, store.read().get(instancesObserved, i.id)) === "stopping").length;
    while (stopping() > 0 && clock.monotonicMs() < deadline) await clock.sleep(50);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#started;
    await this.#reconciler?.stop();
    this.#hypervisor?.close();
    await this.#guestServers?.stop();
    await this.#network?.stop();
  }
}
