/**
 * From RunInstances to the guest's init, against the same QEMU command line started by hand: its arguments are taken from
 * Hive's own process; its disk is a fresh overlay of the same image, and disk and TAP are there beforehand. In turns.
 */
import { mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { findGuests } from "../../src/host/hypervisor/process.ts";
import { runFolder } from "../../src/host/qemu/command-line.ts";
import { type Hive, IMAGE_CACHE, until, withHive } from "../support/hive.ts";
import { ROOT_KEY_ENVIRONMENT } from "./hive-process.ts";
import { median } from "./http-load.ts";
import { elements, NodeClient, shownAt } from "./node-client.ts";
import type { Report } from "./report.ts";
import { atMost, below, figure } from "./table.ts";

const MARKER = "HIVE:init";
const READY = "HIVE:ready";
const BOOT_MS = 120_000;
const HAND_TAP = "byhand0";

export async function benchBoot(rounds: number, report: Report): Promise<void> {
  await withHive(
    async (hive) => {
      const imageId = await hive.hive("image", "build", "tiny", "--cache-dir", IMAGE_CACHE);
      const client = await NodeClient.start(hive);
      await hive.node.exec(["ip", "tuntap", "add", "dev", HAND_TAP, "mode", "tap"]);
      await hive.node.exec(["ip", "link", "set", "dev", HAND_TAP, "up"]);
      await report.measure(async () => {
        const own: number[] = [];
        const byHand: number[] = [];
        const answered: number[] = [];
        for (let round = 0; round < rounds; round++) {
          const booted = await bootByHive(hive, client, imageId);
          own.push(booted.initMs);
          answered.push(booted.answeredMs);
          byHand.push(await bootByHand(hive, booted.argv, booted.instanceId, round));
        }
        const ratio = median(own.map((ms, round) => ms / byHand[round]!));
        const list = (values: readonly number[]) => values.map((ms) => figure(ms)).join(", ");
        return [
          {
            measure: `boot: RunInstances to ${MARKER}`,
            value: `${figure(median(own))} ms (${list(own)})`,
            reference: `QEMU by hand: ${figure(median(byHand))} ms (${list(byHand)})`,
            ratio,
            goal: atMost(1.15, ratio),
          },
          {
            measure: "boot: RunInstances answered",
            value: `${figure(median(answered))} ms (${list(answered)})`,
            goal: below(20, median(answered), "ms"),
          },
        ];
      });
    },
    { env: ROOT_KEY_ENVIRONMENT },
  );
}

interface Booted {
  readonly instanceId: string;
  readonly answeredMs: number;
  readonly initMs: number;
  readonly argv: readonly string[];
}

/** Launches a machine, waits until it rests, takes down its command line, and terminates it. */
async function bootByHive(hive: Hive, client: NodeClient, imageId: string): Promise<Booted> {
  const parameters = { ImageId: imageId, InstanceType: "h1.nano", MinCount: "1", MaxCount: "1" };
  const run = await client.call("RunInstances", { ...parameters, ClientToken: crypto.randomUUID() });
  const instanceId = elements(run.body, "instanceId")[0]!;
  const initMs = (await shownAt(hive.dataDir, instanceId, MARKER, BOOT_MS)) - run.sentAt;
  await shownAt(hive.dataDir, instanceId, READY, BOOT_MS);
  const running = findGuests(hive.dataDir).get(instanceId)?.[0];
  if (!running) throw new Error(`${instanceId} has no process`);
  const argv = readFileSync(`/proc/${running.pid}/cmdline`, "utf8").split("\0").slice(0, -1);
  await client.call("TerminateInstances", { "InstanceId.1": instanceId });
  await until(() => findGuests(hive.dataDir).size === 0, `${instanceId} ends`, BOOT_MS);
  return { instanceId, answeredMs: run.answeredAt - run.sentAt, initMs, argv };
}

interface BlockNode {
  readonly driver: string;
  readonly "node-name": string;
  readonly filename?: string;
  readonly file?: string;
  readonly backing?: string | null;
}

/** Starts the same command line in a folder of its own, as root, and kills it when it has reached its init. */
async function bootByHand(hive: Hive, hiveArgv: readonly string[], instanceId: string, round: number): Promise<number> {
  const folder = join(hive.node.directory, `by-hand-${round}`);
  mkdirSync(join(folder, runFolder(instanceId)), { recursive: true });
  symlinkSync(join(hive.dataDir, "snapshots"), join(folder, "snapshots"));
  await makeOverlay(hive, hiveArgv, folder);
  const argv = hiveArgv.map((word) => word.replace(/("ifname":)"[^"]+"/, `$1"${HAND_TAP}"`));
  const startedAt = performance.timeOrigin + performance.now();
  const child = hive.node.spawn(["env", "-C", folder, ...argv]);
  try {
    return (await shownAt(folder, instanceId, MARKER, BOOT_MS)) - startedAt;
  } catch (cause) {
    throw new Error(`QEMU by hand: ${child.output()}`, { cause });
  } finally {
    await child.kill();
  }
}

/** A fresh volume where the command line looks for one, over the same image. */
async function makeOverlay(hive: Hive, argv: readonly string[], folder: string): Promise<void> {
  const nodes = argv.flatMap((word, at) => (argv[at - 1] === "-blockdev" ? [JSON.parse(word) as BlockNode] : []));
  const named = (name: string | null | undefined) => nodes.find((node) => node["node-name"] === name);
  const volume = nodes.find((node) => node.backing);
  const backing = named(volume?.backing);
  const file = named(volume?.file)?.filename;
  const image = named(backing?.file)?.filename;
  if (!volume || !backing || !file || !image) throw new Error("the machine has no disk over an image");
  mkdirSync(join(folder, dirname(file)), { recursive: true });
  const base = ["-b", join(hive.dataDir, image), "-F", backing.driver];
  await hive.node.exec(["qemu-img", "create", "-q", "-f", volume.driver, ...base, join(folder, file)]);
}
