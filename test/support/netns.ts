/**
 * A node to test on: a fresh network namespace with its own Open vSwitch (userspace datapath), so that a test
 * changes nothing of the host and of other tests. Needs root, iproute2, ethtool and Open vSwitch.
 *
 *   await withNode(async (node) => {
 *     await node.exec(["ip", "addr"]);
 *     const guest = await node.guest("g1", { device: tapName(eni.id), mac: eni.macAddress });
 *     await guest.exec(["ping", "-c1", "10.0.0.1"]);
 *   });
 *
 * Everything that was made goes away again when the callback returns or throws, and when the test process is ended by
 * a signal that can be caught. Processes are ended by pid.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunOptions, type RunOutput, run } from "../../src/host/run.ts";
import { present } from "../../src/lib/assert.ts";

export type Exec = (argv: readonly string[], options?: RunOptions) => Promise<RunOutput>;

/** One network namespace. `exec` throws when the program exits with another code than 0, `try` tells the code. */
export interface Namespace {
  readonly name: string;
  /** What to put in front of a command to run it here. */
  readonly prefix: readonly string[];
  readonly exec: Exec;
  readonly try: Exec;
  /** Starts a program that is ended with the node at the latest. */
  spawn(argv: readonly string[]): Spawned;
}
export interface Spawned {
  readonly pid: number;
  /** All that it wrote to stdout and stderr until now. */
  output(): string;
  /** Resolves once its output matches; throws after `timeoutMs` (default 10 s) with what there is. */
  waitFor(pattern: RegExp, timeoutMs?: number): Promise<void>;
  write(text: string): void;
  /** Sends a signal (SIGKILL by default) and waits. @returns the exit code, or 128 and the number of the signal that ended it */
  kill(signal?: NodeJS.Signals): Promise<number>;
}

export interface GuestOptions {
  /** The end of the veth pair that stays in the node's namespace, in place of a TAP. At most 15 characters. */
  readonly device: string;
  readonly mac: string;
  /** With prefix length, as in `10.0.0.4/24`; none for a guest that asks DHCP. */
  readonly address?: string;
  readonly gateway?: string;
}

export interface TestNode extends Namespace {
  /** Its own directory, gone afterwards. */
  readonly directory: string;
  /** What Open vSwitch's tools need to find this node's daemons: OVS_RUNDIR and its siblings. */
  readonly env: { readonly OVS_RUNDIR: string; readonly OVS_DBDIR: string; readonly OVS_LOGDIR: string };
  /** The database's socket, as `--db` wants it. */
  readonly ovsdb: string;
  /** A guest without a machine: a namespace whose `eth0` is the other end of `device`. */
  guest(name: string, options: GuestOptions): Promise<Namespace>;
  /** A namespace joined to the node's by a veth: the world outside. The node's end is `up<n>`, with `nodeAddress`. */
  outside(name: string, addresses: { node: string; outside: string }): Promise<Namespace>;
  startDatabase(): Promise<void>;
  startSwitch(): Promise<void>;
  /** Ends the daemon by its pid (SIGKILL by default), and waits until it is gone. */
  stopDatabase(signal?: NodeJS.Signals): Promise<void>;
  stopSwitch(signal?: NodeJS.Signals): Promise<void>;
}

let counter = 0;
const SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema";

/** What this host lacks for `withNode`, as a sentence; undefined when it can run. For `test.skipIf`. */
export function nodeUnavailable(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root for network namespaces";
  for (const program of ["ip", "ethtool", "ping", "tcpdump", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"]) {
    if (!Bun.which(program, { PATH: `${process.env.PATH}:/usr/sbin:/sbin` })) return `${program} is not installed`;
  }
  return existsSync(SCHEMA) ? undefined : `${SCHEMA} is missing`;
}

export interface NodeOptions {
  /** Start without Open vSwitch's daemons; the test starts them itself. */
  readonly stopped?: boolean;
}

/** Makes a node, hands it to `body`, and removes it. */
export async function withNode<T>(body: (node: TestNode) => Promise<T>, options: NodeOptions = {}): Promise<T> {
  const undo: (() => Promise<unknown>)[] = [];
  let cleaned: Promise<void> | undefined;
  const clean = () => {
    cleaned ??= (async () => {
      for (const step of undo.splice(0).reverse()) await step().catch(() => undefined);
    })();
    return cleaned;
  };
  const onSignal = (signal: NodeJS.Signals) => void clean().then(() => process.exit(signal === "SIGINT" ? 130 : 143));
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  try {
    return await body(await makeNode(undo, options));
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
    await clean();
  }
}

async function makeNode(undo: (() => Promise<unknown>)[], options: NodeOptions): Promise<TestNode> {
  const tag = `${process.pid.toString(36)}${(counter++).toString(36)}`;
  const directory = mkdtempSync(join(tmpdir(), "hive-node-"));
  undo.push(async () => rmSync(directory, { recursive: true, force: true }));
  const env = { OVS_RUNDIR: directory, OVS_DBDIR: directory, OVS_LOGDIR: directory, OVS_SYSCONFDIR: directory };
  const ovsdb = `unix:${directory}/db.sock`;
  const self = await makeNamespace(`hn${tag}`, env, undo);
  const daemon = (name: string, argv: readonly string[]) => ({
    start: () =>
      self
        .exec([
          ...argv,
          `--pidfile=${directory}/${name}.pid`,
          `--unixctl=${directory}/${name}.ctl`,
          `--log-file=${directory}/${name}.log`,
          "--detach",
          "--no-chdir",
        ])
        .then(() => undefined),
    stop: (signal: NodeJS.Signals = "SIGKILL") => stopByPidfile(`${directory}/${name}.pid`, signal),
  });
  const database = daemon("ovsdb-server", [
    "ovsdb-server",
    `${directory}/conf.db`,
    `--remote=punix:${directory}/db.sock`,
  ]);
  const vswitch = daemon("ovs-vswitchd", ["ovs-vswitchd", ovsdb]);
  undo.push(() => database.stop("SIGTERM"));
  undo.push(() => vswitch.stop("SIGTERM"));
  await self.exec(["ovsdb-tool", "create", `${directory}/conf.db`, SCHEMA]);
  if (!options.stopped) {
    await database.start();
    await self.exec(["ovs-vsctl", `--db=${ovsdb}`, "--no-wait", "init"]);
    await vswitch.start();
  }
  let outsides = 0;
  return {
    ...self,
    directory,
    env,
    ovsdb,
    startDatabase: database.start,
    startSwitch: vswitch.start,
    stopDatabase: database.stop,
    stopSwitch: vswitch.stop,
    async guest(name, wanted) {
      const guest = await makeNamespace(`hg${tag}${name}`, env, undo);
      await plug(self, wanted.device, guest, wanted.mac);
      await self.exec(["ip", "link", "set", wanted.device, "up"]);
      if (wanted.address) await guest.exec(["ip", "addr", "add", wanted.address, "dev", "eth0"]);
      if (wanted.gateway) await guest.exec(["ip", "route", "add", "default", "via", wanted.gateway]);
      return guest;
    },
    async outside(name, addresses) {
      const world = await makeNamespace(`ho${tag}${name}`, env, undo);
      const device = `up${outsides++}`;
      await plug(self, device, world);
      await self.exec(["ip", "addr", "add", addresses.node, "dev", device]);
      await self.exec(["ip", "link", "set", device, "up"]);
      await world.exec(["ip", "addr", "add", addresses.outside, "dev", "eth0"]);
      return world;
    },
  };
}

/** A veth pair; checksums are computed on both ends, since a userspace datapath forwards packets as they are. */
async function plug(node: Namespace, device: string, guest: Namespace, mac?: string): Promise<void> {
  const address = mac ? ["address", mac] : [];
  await node.exec([
    "ip",
    "link",
    "add",
    device,
    "type",
    "veth",
    "peer",
    "name",
    "eth0",
    ...address,
    "netns",
    guest.name,
  ]);
  await node.exec(["ethtool", "-K", device, "tx", "off"]);
  await guest.exec(["ethtool", "-K", "eth0", "tx", "off"]);
  await guest.exec(["ip", "link", "set", "eth0", "up"]);
}

async function makeNamespace(
  name: string,
  env: { readonly [name: string]: string },
  undo: (() => Promise<unknown>)[],
): Promise<Namespace> {
  const prefix = ["ip", "netns", "exec", name];
  await must(["ip", "netns", "add", name]);
  undo.push(() => must(["ip", "netns", "del", name]));
  await must(["ip", "-n", name, "link", "set", "lo", "up"]);
  const attempt: Exec = async (argv, options = {}) => {
    const result = await run([...prefix, ...argv], { ...options, env: { ...env, ...options.env } });
    if (!result.ok) throw new Error(`${name}: ${argv.join(" ")}: ${result.error.message}`);
    return result.value;
  };
  return {
    name,
    prefix,
    try: attempt,
    async exec(argv, options) {
      const done = await attempt(argv, options);
      if (done.code !== 0)
        throw new Error(`${name}: ${argv.join(" ")}: exit ${done.code}: ${done.stderr || done.stdout}`);
      return done;
    },
    spawn(argv) {
      const child = startProcess([...prefix, ...argv], env);
      undo.push(() => child.kill("SIGKILL"));
      return child;
    },
  };
}

function startProcess(argv: readonly string[], env: { readonly [name: string]: string }): Spawned {
  const child = Bun.spawn([...argv], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, ...env },
  });
  let text = "";
  const read = async (stream: AsyncIterable<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) text += decoder.decode(chunk, { stream: true });
  };
  const reading = Promise.all([read(child.stdout), read(child.stderr)]);
  return {
    pid: child.pid,
    output: () => text,
    async waitFor(pattern, timeoutMs = 10_000) {
      await until(() => pattern.test(text), `${argv.join(" ")} prints ${pattern}, so far: ${text}`, timeoutMs);
    },
    write(line) {
      child.stdin.write(line);
      void child.stdin.flush();
    },
    async kill(signal = "SIGKILL") {
      child.kill(signal);
      const code = await child.exited;
      await reading.catch(() => undefined);
      return code;
    },
  };
}

async function must(argv: readonly string[]): Promise<void> {
  const done = await run(argv);
  if (!done.ok) throw new Error(done.error.message);
  if (done.value.code !== 0) throw new Error(`${argv.join(" ")}: ${done.value.stderr}`);
}

async function stopByPidfile(path: string, signal: NodeJS.Signals): Promise<void> {
  if (!existsSync(path)) return;
  const pid = Number(present(readFileSync(path, "utf8").trim().split("\n")[0], "a pidfile has a line"));
  if (!alive(pid)) return;
  process.kill(pid, signal);
  await until(() => !alive(pid), `process ${pid} ends`, 5_000).catch(() => process.kill(pid, "SIGKILL"));
  await until(() => !alive(pid), `process ${pid} ends`, 5_000);
}

function alive(pid: number): boolean {
  try {
    // A zombie whose parent is another process counts as gone.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Waits until `condition` holds, asking every few milliseconds. @throws Error naming `what` after `timeoutMs` */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await Bun.sleep(10);
  }
}
