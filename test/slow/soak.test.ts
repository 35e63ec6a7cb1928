/** Forty machines at once on whatever processors there are; the daemon dies under them and comes back; all is as it was. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { availableParallelism, freemem } from "node:os";
import { findGuests } from "../../src/host/hypervisor/process.ts";
import { until, withHive } from "../support/hive.ts";
import { nodeUnavailable } from "../support/netns.ts";
import { tinyImage } from "../support/shared-hive.ts";

const MACHINES = Number(process.env.HIVE_TEST_MACHINES ?? 40);
/** A machine of 128 MiB takes some 140 MiB of its host. */
const NEEDED_BYTES = MACHINES * 200 * 1024 * 1024;
const lacks =
  nodeUnavailable() ?? (freemem() < NEEDED_BYTES ? `needs ${NEEDED_BYTES >> 20} MiB of free memory` : undefined);
if (lacks) console.log(`skipped: the soak ${lacks}`);

test.skipIf(lacks !== undefined)(
  `${MACHINES} machines run at once, outlive kill -9 of the daemon, and end`,
  () =>
    withHive(async (hive) => {
      const ec2 = (line: string) => hive.aws("ec2", ...line.split(" "));
      const seconds = (since: number) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
      const states = async () => {
        const { Reservations } = await ec2("describe-instances");
        return Reservations.flatMap((r: { Instances: { State: { Name: string } }[] }) =>
          r.Instances.map((i) => i.State.Name),
        ) as string[];
      };
      const allAre = (state: string) =>
        until(async () => (await states()).every((one) => one === state), `all are ${state}`, 600_000);
      const processes = () =>
        [...findGuests(hive.dataDir)]
          .flatMap(([id, found]) => found.map((p) => `${id} ${p.pid}/${p.startTicks}`))
          .sort();
      const daemonMib = () =>
        Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${hive.pid}/status`, "utf8"))?.[1]) >> 10;

      const ami = await tinyImage(hive);
      const freeBefore = freemem();
      const began = performance.now();
      const { Instances } = await ec2(`run-instances --image-id ${ami} --instance-type h1.nano --count ${MACHINES}`);
      expect(Instances).toHaveLength(MACHINES);
      const ids = Instances.map((i: { InstanceId: string }) => i.InstanceId) as string[];
      const accepted = seconds(began);
      await allAre("running");
      const running = seconds(began);
      for (const id of ids) {
        await until(
          async () => (await hive.hive("logs", id).catch(() => "")).includes("HIVE:ready"),
          `${id} is ready`,
          600_000,
        );
      }
      const ready = seconds(began);
      const used = Math.round((freeBefore - freemem()) / 2 ** 20);
      const before = processes();
      expect(before.map((line) => line.split(" ")[0]!)).toEqual([...ids].sort());

      const killed = performance.now();
      await hive.restart("SIGKILL");
      const answered = seconds(killed);
      expect(await states()).toEqual(Array(MACHINES).fill("running"));
      await until(() => hive.output().split('"instance.adopted"').length > MACHINES, "all are taken up", 60_000);
      const adopted = seconds(killed);
      expect(await states()).toEqual(Array(MACHINES).fill("running"));
      expect(processes()).toEqual(before);

      const memory = daemonMib();
      const ending = performance.now();
      await ec2(`terminate-instances --instance-ids ${ids.join(" ")}`);
      await allAre("terminated");
      expect(processes()).toEqual([]);
      const rest = await hive.node.exec(["ovs-vsctl", "list-ports", "br-int"]);
      expect(rest.stdout).not.toMatch(/^hv[0-9a-f]{12}$/m);
      console.log(
        `${MACHINES} machines on ${availableParallelism()} processors: accepted after ${accepted}, all running after ${running}, all ready after ` +
          `${ready}, ${used} MiB used in all; kill -9: answers after ${answered}, all taken up after ${adopted}, daemon resident ${memory} MiB; ` +
          `all terminated after ${seconds(ending)}`,
      );
    }),
  30 * 60_000,
);
