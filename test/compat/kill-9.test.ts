/**
 * SIGKILL at any moment: to the daemon in the middle of whatever it does, to a machine, to Open vSwitch. What was
 * acknowledged stays, machines run on, and what was half made is finished or removed.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { findGuests } from "../../src/host/hypervisor/process.ts";
import { present } from "../../src/lib/assert.ts";
import { seededRandom } from "../../src/lib/random.ts";
import type { NetworkInterfaceId } from "../../src/model/ids.ts";
import { tapName } from "../../src/model/network-names.ts";
import { until } from "../support/hive.ts";
import { nodeUnavailable } from "../support/netns.ts";
import { newKeyPair, printed, sharedHive, tinyImage } from "../support/shared-hive.ts";

const lacks = nodeUnavailable();
if (lacks) console.log(`skipped: the kill -9 loop ${lacks}`);

const ROUNDS = Number(process.env.HIVE_TEST_ROUNDS ?? 10);
const SEED = Number(process.env.HIVE_TEST_SEED ?? Date.now() % 1_000_000);
const MACHINES_MAX = 5;

interface Instance {
  readonly InstanceId: string;
  readonly ClientToken?: string;
  readonly State: { readonly Name: string };
  readonly PrivateIpAddress?: string;
  readonly PublicIpAddress?: string;
  readonly StateReason?: { readonly Code: string; readonly Message: string };
  readonly NetworkInterfaces: readonly { readonly NetworkInterfaceId: string }[];
  readonly BlockDeviceMappings: readonly { readonly Ebs: { readonly VolumeId: string } }[];
}

describe.skipIf(lacks !== undefined)("kill -9", () => {
  const shared = sharedHive();
  const ec2 = (line: string) => shared().aws("ec2", ...line.split(" "));
  const random = seededRandom(SEED);
  const below = (limit: number): number => Buffer.from(random.bytes(4)).readUInt32LE() % limit;
  const oneOf = <T>(all: readonly T[]): T | undefined => (all.length === 0 ? undefined : all[below(all.length)]);

  let run = "";
  let key = "";
  let witness: Instance;
  beforeAll(async () => {
    const ami = await tinyImage(shared());
    key = await newKeyPair(shared(), "k");
    const group = (await ec2("create-security-group --group-name ssh --description ssh")).GroupId;
    await ec2(`authorize-security-group-ingress --group-id ${group} --protocol tcp --port 22 --cidr 0.0.0.0/0`);
    run = `run-instances --image-id ${ami} --instance-type h1.nano --key-name k --security-group-ids ${group} --client-token`;
    const { Instances } = await ec2(`${run} witness`);
    await printed(shared(), Instances[0].InstanceId, "HIVE:ready");
    witness = await instance(Instances[0].InstanceId);
  }, 600_000);

  async function all(): Promise<readonly Instance[]> {
    const { Reservations } = await ec2("describe-instances");
    return Reservations.flatMap((reservation: { Instances: Instance[] }) => reservation.Instances);
  }
  const instance = async (id: string): Promise<Instance> =>
    present(
      (await all()).find((one) => one.InstanceId === id),
      `${id} is described`,
    );
  const ssh = (command: string) => shared().ssh(present(witness.PrivateIpAddress, "address"), key, command);
  const sshWorks = (what: string) =>
    until(async () => (await ssh("echo in").catch(() => "")) === "in\n", `ssh works again after ${what}`, 120_000);

  /** The processes of machines, one line for each: which instance, which process. */
  const processes = (): readonly string[] =>
    [...findGuests(shared().dataDir)]
      .flatMap(([id, found]) => found.map((p) => `${id} ${p.pid}/${p.startTicks}`))
      .sort();

  /** Everything that speaks of machines: the API, processes, TAPs, ports of the bridge, files. Agreement is equality. */
  async function agreement() {
    const instances = await all();
    const on = instances.filter((one) => one.State.Name === "running");
    const there = instances.filter((one) => one.State.Name !== "terminated");
    const { node, dataDir } = shared();
    const lines = async (...argv: string[]) => (await node.exec(argv)).stdout.split("\n");
    const enis = (some: readonly Instance[]) =>
      some.flatMap((one) => one.NetworkInterfaces.map((eni) => eni.NetworkInterfaceId));
    const taps = enis(on)
      .map((id) => tapName(id as NetworkInterfaceId))
      .sort();
    const volumes = there.flatMap((one) => one.BlockDeviceMappings.map((device) => device.Ebs.VolumeId)).sort();
    const links = (await lines("ip", "-br", "link")).map((line) => line.split(/[\s@]/)[0]!);
    const described = (answer: string[]) => answer.sort();
    return {
      told: {
        running: on.map((one) => one.InstanceId).sort(),
        taps,
        ports: taps,
        volumes,
        files: volumes,
        interfaces: enis(there).sort(),
      },
      found: {
        running: processes().map((line) => line.split(" ")[0]!),
        taps: links.filter((name) => /^hv[0-9a-f]{12}$/.test(name)).sort(),
        ports: (await lines("ovs-vsctl", "list-ports", "br-int"))
          .filter((name) => /^hv[0-9a-f]{12}$/.test(name))
          .sort(),
        volumes: described((await ec2("describe-volumes")).Volumes.map((v: { VolumeId: string }) => v.VolumeId)),
        files: readdirSync(join(dataDir, "volumes"))
          .map((name) => name.replace(".qcow2", ""))
          .sort(),
        interfaces: described(
          (await ec2("describe-network-interfaces")).NetworkInterfaces.map(
            (e: { NetworkInterfaceId: string }) => e.NetworkInterfaceId,
          ),
        ),
      },
    };
  }

  /** Waits until every instance is where it was told to go, and all agree. */
  async function settled(): Promise<readonly Instance[]> {
    const moving = ["pending", "stopping", "shutting-down"];
    await until(async () => (await all()).every((one) => !moving.includes(one.State.Name)), "states settle", 180_000);
    let last: Awaited<ReturnType<typeof agreement>> | undefined;
    await until(
      async () => {
        last = await agreement();
        return Bun.deepEquals(last.told, last.found);
      },
      "host and API agree",
      20_000,
    ).catch(() => expect(last?.found).toEqual(last?.told as never));
    return all();
  }

  test(`the daemon, ${ROUNDS} times while instances are made, stopped, started, rebooted and terminated`, async () => {
    console.log(`kill -9 loop: HIVE_TEST_SEED=${SEED}`);
    const bootId = await ssh("cat /proc/sys/kernel/random/boot_id");
    const tokens = ["witness"];
    let acknowledged = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const before = await settled();
      const running = processes();
      const [touched, asked] = [new Set<string>(), [] as string[]];
      const pick = (state: string) => {
        const one = oneOf(
          before.filter((i) => i.State.Name === state && i.ClientToken !== "witness" && !touched.has(i.InstanceId)),
        );
        if (one) touched.add(one.InstanceId);
        return one?.InstanceId;
      };
      for (let action = 0; action < 10 && asked.length < 3; action++) {
        const live =
          before.filter((i) => i.State.Name !== "terminated").length + asked.filter((a) => a.startsWith("run")).length;
        const kind =
          live < 3
            ? "run"
            : oneOf(["run", "stop-instances", "start-instances", "reboot-instances", "terminate-instances"])!;
        if (kind === "run" && live < MACHINES_MAX) {
          tokens.push(`t${round}.${action}`);
          asked.push(`${run} ${tokens.at(-1)}`);
        } else if (kind !== "run") {
          const id = pick(
            kind === "start-instances" || (kind === "terminate-instances" && below(2) === 0) ? "stopped" : "running",
          );
          if (id) asked.push(`${kind} --instance-ids ${id}`);
        }
      }
      const answers = asked.map((line) =>
        ec2(line).then(
          () => true,
          () => false,
        ),
      );
      // On a slow host the CLI itself takes seconds to start: every other time the clock runs from the first call that arrives.
      const said = shared().output().length;
      if (below(2) === 0) await until(() => shared().output().length > said, "a call arrives", 20_000).catch(() => {});
      await Bun.sleep(below(2000));
      await shared().kill("SIGKILL");
      acknowledged += (await Promise.all(answers)).filter(Boolean).length;
      if (below(2) === 0) {
        void shared()
          .start()
          .catch(() => undefined); // and once more, while it takes things up
        await Bun.sleep(below(1000));
        await shared().kill("SIGKILL");
      }
      await shared().start();

      // Whoever heard no answer asks again with the same token, and gets one instance.
      for (const token of tokens.slice(1)) {
        const { Instances } = await ec2(`${run} ${token}`);
        expect(Instances).toHaveLength(1);
      }
      const after = await settled();
      const kept = running.filter((line) => !touched.has(line.split(" ")[0]!));
      expect(processes()).toEqual(expect.arrayContaining(kept));
      expect(after.map((i) => i.ClientToken).sort()).toEqual([...tokens].sort());
      for (const { InstanceId, State } of before) {
        const now = present(
          after.find((i) => i.InstanceId === InstanceId),
          `${InstanceId} is not lost`,
        );
        if (!touched.has(InstanceId)) expect(now.State.Name).toBe(State.Name);
      }
      for (const property of ["PrivateIpAddress", "PublicIpAddress"] as const) {
        const taken = after.flatMap((i) => (i.State.Name === "terminated" ? [] : (i[property] ?? [])));
        expect(new Set(taken).size).toBe(taken.length);
      }
    }
    console.log(`${tokens.length} instances, ${acknowledged} changes acknowledged before a kill`);
    expect(await ssh("cat /proc/sys/kernel/random/boot_id")).toBe(bootId);
    const others = (await all()).filter((i) => i.ClientToken !== "witness" && i.State.Name !== "terminated");
    if (others.length > 0) await ec2(`terminate-instances --instance-ids ${others.map((i) => i.InstanceId).join(" ")}`);
    expect((await settled()).filter((i) => i.State.Name !== "terminated").map((i) => i.ClientToken)).toEqual([
      "witness",
    ]);
  }, 1_200_000);

  test("Open vSwitch's daemons: ssh works again once they are back", async () => {
    const { node } = shared();
    await node.stopSwitch("SIGKILL");
    await node.startSwitch();
    await sshWorks("ovs-vswitchd died");
    await node.stopDatabase("SIGKILL");
    await until(
      async () =>
        (
          await shared()
            .hive("status")
            .catch((cause) => String(cause))
        ).includes("ovsdb-server"),
      "status says so",
    );
    await node.startDatabase();
    await sshWorks("ovsdb-server died");
    const port = (await settled()).find((i) => i.InstanceId === witness.InstanceId);
    expect(port?.State.Name).toBe("running");
  }, 300_000);

  test("a machine: its instance is stopped with a reason at once, and starts again", async () => {
    const id = witness.InstanceId;
    await ssh("echo kept >/root/state; sync");
    process.kill(present(findGuests(shared().dataDir).get(id)?.[0], "its process").pid, "SIGKILL");
    await until(async () => (await instance(id)).State.Name === "stopped", "it is stopped", 10_000);
    const { StateReason } = await instance(id);
    expect(StateReason).toEqual({
      Code: "Server.InternalError",
      Message: expect.stringMatching(/^Server\.InternalError: The machine's process \(QEMU\) /),
    });
    await ec2(`start-instances --instance-ids ${id}`);
    await printed(shared(), id, "HIVE:ready");
    expect(await ssh("cat /root/state")).toBe("kept\n");
  }, 300_000);

  test("a machine while no daemon runs: the next daemon says so", async () => {
    const id = witness.InstanceId;
    const { pid } = present(findGuests(shared().dataDir).get(id)?.[0], "its process");
    await shared().kill("SIGKILL");
    process.kill(pid, "SIGKILL");
    await shared().start();
    await until(async () => (await instance(id)).State.Name === "stopped", "it is stopped", 10_000);
    expect((await instance(id)).StateReason?.Message).toContain("while Hive was not running");
    await ec2(`terminate-instances --instance-ids ${id}`);
    await settled();
    expect(processes()).toEqual([]);
  }, 120_000);
});
