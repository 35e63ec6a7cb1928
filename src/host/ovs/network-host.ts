/** The network agent's hands: Open vSwitch through its own tools, iproute2, and the host's packet filter. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import type { Config } from "../../model/config.ts";
import { gatewayPort, metadataPort } from "../../model/network-names.ts";
import type { DesiredNetwork, ObservedNetwork } from "../../vpc/plan-network.ts";
import type { NetworkHost } from "../../vpc/reconcile-network.ts";
import { commandFailed, type HostError, unsupported } from "../host-error.ts";
import { applyDevices, applySysctls, foreignBlocks, readAddressing } from "../net/devices.ts";
import { applyNat, forwardBlocked } from "../net/nat.ts";
import type { RunCommand } from "../net/tap.ts";
import { run as runOnHost } from "../run.ts";
import { FlowTable } from "./flow-table.ts";
import { watchOpenflow } from "./openflow-watch.ts";
import { watchOvsdb } from "./ovsdb-watch.ts";
import { nextOfportOf, planVsctl } from "./plan-vsctl.ts";

export interface NetworkHostOptions {
  readonly network: Config["network"];
  readonly clock: Clock;
  readonly log: Log;
  /** The directory of Open vSwitch's sockets; by default that of `network.ovsdb`, else OVS_RUNDIR, else the system's. */
  readonly runDir?: string;
  /** Starts a program; another one runs it in another network namespace. */
  readonly run?: RunCommand;
}

/** ovs-vsctl waits for ovs-vswitchd to do what the database says: milliseconds, unless that is gone. */
const VSCTL_TIMEOUT_S = 5;
/** How long a switch that should be there may take to answer. */
const SWITCH_WAIT_MS = 2_000;
const INSTALL = "apt-get install openvswitch-switch && systemctl start openvswitch-switch";

/** Where Open vSwitch's sockets are, and its database's. Refuses a database that is not at a unix socket (`unsupported`). */
export function ovsPaths(
  network: Config["network"],
  runDir: string | undefined,
): Result<{ readonly runDir: string; readonly database: string }, HostError> {
  const system = existsSync("/run/openvswitch") ? "/run/openvswitch" : "/var/run/openvswitch";
  const given = network.ovsdb;
  if (given === undefined) {
    const directory = runDir ?? process.env.OVS_RUNDIR ?? system;
    return ok({ runDir: directory, database: join(directory, "db.sock") });
  }
  const path = given.startsWith("unix:") ? given.slice("unix:".length) : given;
  if (!path.startsWith("/"))
    return fail(unsupported(`network.ovsdb is ${given}: it has to be unix: and an absolute path`));
  return ok({ runDir: runDir ?? dirname(path), database: path });
}

/** Connects to Open vSwitch and stays connected. Never fails: what is missing is told by `observe`, until it comes. */
export function openNetworkHost(options: NetworkHostOptions): NetworkHost {
  const { network, clock, log, run = runOnHost } = options;
  const paths = ovsPaths(network, options.runDir);
  if (!paths.ok) return unusable(paths.error);
  const { runDir, database } = paths.value;
  const bridge = network.bridge;
  const own = [metadataPort(bridge), gatewayPort(bridge)];
  const management = join(runDir, `${bridge}.mgmt`);

  let listener: () => void = () => undefined;
  const changed = () => listener();
  const ovsdb = watchOvsdb(database, clock, changed);
  const openflow = watchOpenflow(management, clock, changed);
  const flows = new FlowTable(`unix:${management}`, run);
  /** The switch that the host's side was last made for; another one has new devices. */
  let epoch = -1;
  /** What was applied to the host besides ports and flows, as text. */
  let surroundings = "";
  let notes: readonly string[] = [];
  let hostRoutes: readonly string[] | undefined;

  const switchAnswers = async (): Promise<boolean> => {
    const deadline = clock.monotonicMs() + SWITCH_WAIT_MS;
    while (!openflow.connected() && clock.monotonicMs() < deadline) await clock.sleep(5);
    return openflow.connected();
  };
  const datapath = async (): Promise<"system" | "netdev"> => {
    if (network.datapath !== "auto") return network.datapath;
    const there = ovsdb.view()?.get(bridge)?.datapathType;
    if (there === "netdev" || there === "system") return there;
    if (existsSync("/sys/module/openvswitch")) return "system";
    const loaded = await run(["modprobe", "-q", "openvswitch"]);
    return loaded.ok && loaded.value.code === 0 ? "system" : "netdev";
  };

  const planPorts = async (desired: DesiredNetwork): Promise<Result<readonly string[], HostError>> => {
    const view = ovsdb.view();
    if (!view) return fail(notRunning("ovsdb-server", database, ovsdb.reason()));
    return planVsctl(desired, view, await datapath());
  };
  const applyPorts = async (commands: readonly string[]): Promise<Result<number, HostError>> => {
    if (commands.length === 0) return ok(0);
    const done = await run(["ovs-vsctl", `--db=unix:${database}`, `--timeout=${VSCTL_TIMEOUT_S}`, "--", ...commands]);
    if (!done.ok) return done;
    if (done.value.code === 0) return ok(commands.filter((word) => word === "--").length + 1);
    if (/Alarm clock|signal 14/i.test(done.value.stderr) || done.value.code === 128 + 14) {
      return fail(notRunning("ovs-vswitchd", management, "it does not answer"));
    }
    return fail(commandFailed("ovs-vsctl", done.value.code, done.value.stderr));
  };

  /** Devices, sysctls and NAT: only when they or the switch changed, since nothing of it is Open vSwitch's to undo. */
  const applySurroundings = async (desired: DesiredNetwork, force: boolean): Promise<Result<number, HostError>> => {
    const wanted = JSON.stringify([desired.devices, desired.nat]);
    if (!force && wanted === surroundings) return ok(0);
    surroundings = "";
    const devices = await applyDevices(desired.devices, run);
    if (!devices.ok) return devices;
    const [sysctls, nat, blocked] = await Promise.all([
      applySysctls(own, run),
      applyNat(bridge, desired.nat, metadataPort(bridge), run),
      forwardBlocked(gatewayPort(bridge), run),
    ]);
    if (!sysctls.ok) return sysctls;
    if (!nat.ok) return nat;
    notes = blocked ? [blocked] : [];
    surroundings = wanted;
    return ok(devices.value);
  };

  return {
    onChange(next) {
      listener = next;
    },
    async observe(): Promise<Result<ObservedNetwork, HostError>> {
      await ovsdb.settled;
      const view = ovsdb.view();
      if (!view) return fail(notRunning("ovsdb-server", database, ovsdb.reason()));
      if (!hostRoutes) {
        const seen = await readAddressing(run);
        if (!seen.ok) return seen;
        hostRoutes = foreignBlocks(seen.value, own);
      }
      const there = view.get(bridge);
      const ports = [...(there?.ports.values() ?? [])].map((port) => {
        const { ofport, ofportRequest } = port;
        return [port.name, { ofport, ofportRequest, interfaceId: port.externalIds.get("iface-id") }] as const;
      });
      return ok({ ports: new Map(ports), nextOfport: nextOfportOf(there), hostRoutes });
    },
    async apply(desired, { fresh }) {
      const commands = await planPorts(desired);
      if (!commands.ok) return commands;
      const there = ovsdb.view()?.has(bridge) ?? false;
      if (there && !(await switchAnswers())) return fail(notRunning("ovs-vswitchd", management, "it does not answer"));
      if (!there) {
        const made = await applyPorts(commands.value);
        if (!made.ok) return made;
        if (!(await switchAnswers())) return fail(notRunning("ovs-vswitchd", management, "it does not answer"));
      }
      const now = openflow.epoch();
      const anew = fresh || now !== epoch;
      if (anew) {
        flows.forget();
        hostRoutes = undefined;
      }
      // A port without flows drops everything, and flows without a port match nothing: no order between the two.
      const [ports, flowed] = await Promise.all([
        there ? applyPorts(commands.value) : ok(1),
        flows.apply(desired.flows),
      ]);
      if (!ports.ok) return ports;
      if (!flowed.ok) return flowed;
      const around = await applySurroundings(desired, anew);
      if (!around.ok) return around;
      if (now !== epoch) log.info("network.switch-ready", { bridge, flows: desired.flows.length });
      epoch = now;
      return ok({ changed: ports.value + flowed.value + around.value, notes });
    },
    close() {
      ovsdb.close();
      openflow.close();
    },
  };
}

const notRunning = (program: string, socket: string, why: string): HostError => ({
  kind: "not-found",
  message: `Open vSwitch is not ready: ${program} at ${socket}: ${why}; install and start it: ${INSTALL}`,
  program,
});

/** A host that the configuration makes unusable for good. */
const unusable = (error: HostError): NetworkHost => ({
  observe: async () => fail(error),
  apply: async () => fail(error),
  onChange: () => undefined,
  close: () => undefined,
});
