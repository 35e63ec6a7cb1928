/** The walk-through's main line by other people's libraries: the JavaScript SDK with its waiters, and boto3. */
import { beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { present } from "../../src/lib/assert.ts";
import { until } from "../support/hive.ts";
import { nodeUnavailable } from "../support/netns.ts";
import { printed, sharedHive, tinyImage } from "../support/shared-hive.ts";

const lacks = nodeUnavailable();
if (lacks) console.log(`skipped: the SDKs' walk-through ${lacks}`);
const boto3 = Bun.spawnSync(["python3", "-c", "import boto3"]).exitCode === 0;
if (!boto3) console.log("skipped: boto3's walk-through needs boto3 (apt-get install python3-boto3)");

describe.skipIf(lacks !== undefined)("the SDKs", () => {
  const shared = sharedHive();
  let ami = "";
  let group = "";
  beforeAll(async () => {
    ami = await tinyImage(shared());
    const ec2 = (line: string) => shared().aws("ec2", ...line.split(" "));
    group = (await ec2("create-security-group --group-name sdk --description sdk")).GroupId;
    await ec2(`authorize-security-group-ingress --group-id ${group} --protocol tcp --port 22 --cidr 0.0.0.0/0`);
  }, 600_000);

  /** What a program in the node's namespace needs to find the endpoint and the keys, in the SDKs' own ways. */
  const environment = () => [
    "env",
    "AWS_PROFILE=hive",
    `AWS_CONFIG_FILE=${join(shared().dataDir, "aws/config")}`,
    `AWS_SHARED_CREDENTIALS_FILE=${join(shared().dataDir, "aws/credentials")}`,
    `HIVE_ENDPOINT=${shared().endpoint}`,
    "AWS_EC2_METADATA_DISABLED=true",
  ];

  test("@aws-sdk/client-ec2 finds the endpoint by the profile alone, and its waiters see a machine's whole life", async () => {
    const program = join(import.meta.dir, "sdk-walk-through-client.ts");
    const client = shared().node.spawn([...environment(), process.execPath, program, ami, group]);
    const said = async (step: string) => {
      await client.waitFor(new RegExp(`"step":"${step}"`), 200_000);
      const lines = client.output().split("\n");
      return JSON.parse(
        present(
          lines.find((line) => line.includes(`"step":"${step}"`)),
          step,
        ),
      );
    };
    const key = join(shared().node.directory, "sdk.pem");
    writeFileSync(key, (await said("key")).KeyMaterial, { mode: 0o600 });
    expect(await said("dry-run")).toMatchObject({ name: "DryRunOperation" });
    const running = await said("running");
    expect(running).toMatchObject({
      state: "running",
      launched: true,
      Tags: [{ Key: "Name", Value: "größer & <kleiner>" }],
    });
    await printed(shared(), running.id, "HIVE:ready");
    const write = "cat /root/greeting; echo kept >/root/state; sync";
    expect(await shared().ssh(running.PublicIpAddress, key, write)).toBe("by the SDK\n");
    client.write("go on\n");
    expect(await said("rebooted")).toMatchObject({ state: "running" });
    await printed(shared(), running.id, "HIVE:ready", 2);
    client.write("go on\n");
    expect((await said("stopped")).PublicIpAddress).toBeUndefined();
    const started = await said("started");
    await printed(shared(), running.id, "HIVE:ready");
    expect(await shared().ssh(started.PublicIpAddress, key, "cat /root/state")).toBe("kept\n");
    client.write("go on\n");
    expect((await said("paged")).types).toBeGreaterThan(5);
    expect(await said("terminated")).toMatchObject({ state: "terminated" });
    await until(() => Bun.spawnSync(["kill", "-0", String(client.pid)]).exitCode !== 0, "the program ends");
  }, 400_000);

  test.skipIf(!boto3)(
    "boto3 runs, finds, pages and terminates through resources, clients and waiters",
    async () => {
      const program = join(import.meta.dir, "sdk-walk-through-client.py");
      const { stdout } = await shared().node.exec([...environment(), "python3", program, ami], { timeoutMs: 200_000 });
      expect(stdout).toBe("done\n");
    },
    240_000,
  );
});
