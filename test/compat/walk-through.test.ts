/**
 * A stranger's first hour with Hive: the unmodified AWS CLI and ssh against a real server with real guests, from the key pair to
 * the last terminate. The tests follow one another, and share two machines.
 */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { present } from "../../src/lib/assert.ts";
import { until } from "../support/hive.ts";
import { nodeUnavailable } from "../support/netns.ts";
import { newKeyPair, printed, sharedHive, tinyImage } from "../support/shared-hive.ts";

const lacks = nodeUnavailable();
if (lacks) console.log(`skipped: the AWS CLI walk-through ${lacks}`);

const USER_DATA = `#!/bin/sh
echo "written by user data" >/root/greeting
(while :; do echo pong | nc -l -p 7000; done) >/dev/null 2>&1 </dev/null &
`;

describe.skipIf(lacks !== undefined)("the AWS CLI's walk-through", () => {
  const shared = sharedHive();
  /** One CLI call: words by spaces, then arguments that may hold some. */
  const ec2 = (line: string, ...more: string[]) => shared().aws("ec2", ...line.split(" "), ...more);
  const ec2Fails = (line: string, ...more: string[]) => shared().awsFails("ec2", ...line.split(" "), ...more);
  const instance = async (id: string) =>
    (await ec2(`describe-instances --instance-ids ${id}`)).Reservations[0].Instances[0];
  /** Waits for a state without the waiter's 15 seconds between two looks. */
  const state = (id: string, wanted: string) =>
    until(async () => (await instance(id)).State.Name === wanted, `${id} is ${wanted}`, 150_000);
  const ssh = (address: string, command: string) => shared().ssh(address, key, command);
  /** Whether a TCP connection from the host opens, is refused, or gets no answer at all. */
  async function connects(address: string, port = 22): Promise<"open" | "refused" | "silent"> {
    const { code } = await shared().node.try(["timeout", "2", "bash", "-c", `exec 3<>/dev/tcp/${address}/${port}`]);
    return code === 0 ? "open" : code === 124 ? "silent" : "refused";
  }

  let key = "";
  let ami = "";
  let group = "";
  let first = "";
  let second = "";
  /** Private addresses, which stay. */
  let firstIp = "";
  let secondIp = "";

  test("every tool asks first who it is", async () => {
    expect(await shared().aws("sts", "get-caller-identity")).toMatchObject({
      Account: "000000000000",
      Arn: "arn:aws:iam::000000000000:root",
    });
  }, 60_000);

  test("the image tiny is built, and described like any AMI", async () => {
    ami = await tinyImage(shared());
    expect(ami).toMatch(/^ami-[0-9a-f]{17}$/);
    const { Images } = await ec2(`describe-images --owners self --image-ids ${ami}`);
    expect(Images[0]).toMatchObject({
      ImageId: ami,
      State: "available",
      RootDeviceType: "ebs",
      Architecture: "x86_64",
    });
  }, 600_000);

  test("key pairs of each kind and format are made", async () => {
    key = await newKeyPair(shared(), "walk");
    const rsa = await ec2("create-key-pair --key-name putty --key-type rsa --key-format ppk");
    expect(rsa.KeyMaterial).toMatch(/^PuTTY-User-Key-File-[23]: ssh-rsa\r?\n/);
    const public_ = await shared().node.exec(["ssh-keygen", "-y", "-f", key]);
    expect(public_.stdout).toMatch(/^ssh-ed25519 /);
    const { KeyPairs } = await ec2("describe-key-pairs");
    expect(KeyPairs.map((pair: { KeyName: string }) => pair.KeyName).sort()).toEqual(["putty", "walk"]);
    expect(await ec2Fails("create-key-pair --key-name walk")).toContain("(InvalidKeyPair.Duplicate)");
  }, 60_000);

  test("a security group opens ssh and ping to all", async () => {
    group = (await ec2("create-security-group --group-name walk --description", "ssh and ping")).GroupId;
    await ec2(`authorize-security-group-ingress --group-id ${group} --protocol tcp --port 22 --cidr 0.0.0.0/0`);
    await ec2(`authorize-security-group-ingress --group-id ${group} --protocol icmp --port -1 --cidr 0.0.0.0/0`);
    const { SecurityGroups } = await ec2(`describe-security-groups --group-ids ${group}`);
    expect(SecurityGroups[0].IpPermissions).toHaveLength(2);
  }, 60_000);

  test("one call runs two machines, which reach running and status ok", async () => {
    const userData = join(shared().node.directory, "user-data.sh");
    writeFileSync(userData, USER_DATA);
    const { SecurityGroups } = await ec2("describe-security-groups --filters Name=group-name,Values=default");
    const run = [
      `run-instances --image-id ${ami} --instance-type h1.nano --count 2 --key-name walk`,
      `--security-group-ids ${group} ${SecurityGroups[0].GroupId} --user-data file://${userData}`,
      "--metadata-options HttpTokens=required,InstanceMetadataTags=enabled",
      "--block-device-mappings DeviceName=/dev/sdf,Ebs={VolumeSize=1}",
      "--tag-specifications ResourceType=instance,Tags=[{Key=Name,Value=walker},{Key=team,Value=blue}]",
    ].join(" ");
    expect(await ec2Fails(`${run} --dry-run`)).toContain("(DryRunOperation)");
    expect((await ec2("describe-instances")).Reservations).toEqual([]);
    const { Instances } = await ec2(run);
    expect(Instances.map((i: { State: { Name: string } }) => i.State.Name)).toEqual(["pending", "pending"]);
    [first, second] = Instances.map((i: { InstanceId: string }) => i.InstanceId);
    [firstIp, secondIp] = Instances.map((i: { PrivateIpAddress: string }) => i.PrivateIpAddress);
    await state(first, "running");
    await state(second, "running");
    await ec2(`wait instance-running --instance-ids ${first} ${second}`);
    await printed(shared(), first, "HIVE:ready");
    await printed(shared(), second, "HIVE:ready");
    await ec2(`wait instance-status-ok --instance-ids ${first} ${second}`);
  }, 300_000);

  test("ssh lets one in with the key, by the private and by the public address, and user data has run", async () => {
    const { PublicIpAddress, PublicDnsName } = await instance(first);
    expect(PublicDnsName).toContain(PublicIpAddress.replaceAll(".", "-"));
    for (const address of [firstIp, PublicIpAddress]) {
      expect(await ssh(address, "cat /root/greeting; hostname")).toBe(
        `written by user data\nip-${firstIp.replaceAll(".", "-")}\n`,
      );
    }
    expect(await ssh(firstIp, "cat /sys/block/vdb/size /sys/block/vdb/serial")).toMatch(
      /^2097152\nvol[0-9a-f]{17}\s*$/,
    );
    expect((await shared().node.exec(["ping", "-c", "1", "-W", "5", PublicIpAddress])).stdout).toContain(
      " 0% packet loss",
    );
  }, 120_000);

  test("metadata is read by IMDSv2 alone, and only with a token of one's own", async () => {
    const imds = ". /usr/lib/hive/imds; mkdir -p /run/hive; imds_token;";
    const read = async (path: string) => ssh(firstIp, `${imds} imds_get ${path}`);
    expect((await read("meta-data/instance-id")).trim()).toBe(first);
    expect((await read("")).trim().split("\n")).toEqual(["dynamic", "meta-data", "user-data"]);
    const names = (await read("meta-data/")).trim().split("\n");
    for (const name of [
      "ami-id",
      "hostname",
      "local-ipv4",
      "public-ipv4",
      "network/",
      "placement/",
      "public-keys/",
      "tags/",
    ]) {
      expect(names).toContain(name);
    }
    expect(await read("meta-data/public-keys/0/openssh-key")).toMatch(/^ssh-ed25519 \S+ walk/);
    expect(await read("user-data")).toBe(USER_DATA);
    expect((await read("meta-data/tags/instance/team")).trim()).toBe("blue");
    const document = JSON.parse(await read("dynamic/instance-identity/document"));
    expect(document).toMatchObject({ instanceId: first, imageId: ami, privateIp: firstIp, region: "us-east-1" });

    const token = (await ssh(firstIp, `${imds} echo $token`)).trim();
    const status = (header: string) =>
      `(printf 'GET /latest/meta-data/instance-id HTTP/1.0\\r\\nHost: x\\r\\n${header}\\r\\n'; sleep 1) | nc -w 5 169.254.169.254 80 | head -1`;
    const shown = `X-aws-ec2-metadata-token: ${token}\\r\\n`;
    expect(await ssh(firstIp, status(shown))).toContain(" 200 ");
    expect(await ssh(firstIp, status(""))).toContain(" 401 ");
    expect(await ssh(secondIp, status(shown))).toContain(" 401 ");
  }, 120_000);

  test("machines reach each other by the default group's rule, the host does not, and both reach the world", async () => {
    const ask = (address: string) => `nc -w 5 ${address} 7000 </dev/null`;
    expect(await ssh(firstIp, ask(secondIp))).toBe("pong\n");
    expect(await connects(secondIp, 7000)).toBe("silent");

    const outside = await shared().node.outside("w", { node: "203.0.113.1/24", outside: "203.0.113.2/24" });
    const server =
      "Bun.listen({hostname:'203.0.113.2',port:80,socket:{open(s){s.end('hello '+s.remoteAddress+'\\n')},data(){}}});console.log('listens')";
    const world = outside.spawn([process.execPath, "-e", server]);
    await world.waitFor(/listens/);
    expect(await ssh(firstIp, "nc -w 10 203.0.113.2 80 </dev/null")).toBe("hello 203.0.113.1\n");
    await world.kill();
  }, 120_000);

  test("what a revoke closes times out, and what an authorize opens works again", async () => {
    const rule = `--group-id ${group} --protocol tcp --port 22 --cidr 0.0.0.0/0`;
    expect(await connects(firstIp)).toBe("open");
    await ec2(`revoke-security-group-ingress ${rule}`);
    await until(async () => (await connects(firstIp)) === "silent", "port 22 closes");
    expect(await connects((await instance(first)).PublicIpAddress)).toBe("silent");
    await ec2(`authorize-security-group-ingress ${rule}`);
    await until(async () => (await connects(firstIp)) === "open", "port 22 opens again");
    expect(await ssh(firstIp, "echo in")).toBe("in\n");
  }, 120_000);

  test("a reboot keeps the disk and the addresses, and begins anew", async () => {
    await ssh(firstIp, "echo kept >/root/state; sync; touch /run/gone");
    const before = await instance(first);
    await ec2(`reboot-instances --instance-ids ${first}`);
    await printed(shared(), first, "HIVE:ready", 2);
    expect(await ssh(firstIp, "cat /root/state; ls /run/gone 2>&1 | grep -c 'No such'")).toBe("kept\n1\n");
    expect(await instance(first)).toMatchObject({
      State: { Name: "running" },
      PublicIpAddress: before.PublicIpAddress,
      LaunchTime: before.LaunchTime,
    });
  }, 240_000);

  test("the console's output is told", async () => {
    const { Output } = await ec2(`get-console-output --instance-id ${first} --latest`);
    expect(Output).toContain("HIVE:ready");
    expect(Output).toContain("BEGIN SSH HOST KEY FINGERPRINTS");
  }, 60_000);

  test("a machine is stopped by its own shutdown, changes its type, and starts with its state and a new public address", async () => {
    const before = await instance(first);
    expect(await ec2Fails(`modify-instance-attribute --instance-id ${first} --instance-type h1.micro`)).toContain(
      "(IncorrectInstanceState)",
    );
    const { StoppingInstances } = await ec2(`stop-instances --instance-ids ${first}`);
    expect(StoppingInstances[0]).toMatchObject({
      CurrentState: { Code: 64, Name: "stopping" },
      PreviousState: { Code: 16 },
    });
    await state(first, "stopped");
    await ec2(`wait instance-stopped --instance-ids ${first}`);
    expect((await ec2(`get-console-output --instance-id ${first}`)).Output).toContain("HIVE:shutdown");
    const stopped = await instance(first);
    expect(stopped.StateReason.Code).toBe("Client.UserInitiatedShutdown");
    expect(stopped.PublicIpAddress).toBeUndefined();

    await ec2(`modify-instance-attribute --instance-id ${first} --instance-type h1.micro`);
    await ec2(`start-instances --instance-ids ${first}`);
    await printed(shared(), first, "HIVE:ready");
    const after = await instance(first);
    expect(after).toMatchObject({ State: { Name: "running" }, InstanceType: "h1.micro", PrivateIpAddress: firstIp });
    expect(after.PublicIpAddress).not.toBe(before.PublicIpAddress);
    const seen = await ssh(after.PublicIpAddress, "cat /root/state; sed -n 's/^MemTotal: *//p' /proc/meminfo");
    expect(seen).toStartWith("kept\n");
    expect(Number.parseInt(present(seen.split("\n")[1], "MemTotal"), 10)).toBeGreaterThan(200_000);
  }, 300_000);

  test("a guest that powers itself off becomes stopped, and says whose doing it was", async () => {
    await ssh(secondIp, "poweroff");
    await state(second, "stopped");
    expect(await instance(second)).toMatchObject({ StateReason: { Code: "Client.InstanceInitiatedShutdown" } });
  }, 240_000);

  test("an image without a kernel boots by its BIOS, shows a screen, and ends for good with its guest when so launched", async () => {
    const [image] = (await ec2(`describe-images --image-ids ${ami}`)).Images;
    const snapshot = image.BlockDeviceMappings[0].Ebs.SnapshotId;
    const disk = join(shared().dataDir, "snapshots", snapshot, "disk.qcow2");
    const bios = await shared().hive("image", "import", disk, "--name", "tiny by BIOS");
    const { Instances } = await ec2(
      `run-instances --image-id ${bios} --instance-type h1.nano --key-name walk --security-group-ids ${group} --instance-initiated-shutdown-behavior terminate`,
    );
    const id = Instances[0].InstanceId;
    await printed(shared(), id, "HIVE:ready");
    const { ImageData } = await ec2(`get-console-screenshot --instance-id ${id}`);
    expect([...Buffer.from(ImageData, "base64").subarray(0, 3)]).toEqual([0xff, 0xd8, 0xff]);
    await ssh(Instances[0].PrivateIpAddress, "poweroff");
    await state(id, "terminated");
    expect(await instance(id)).toMatchObject({ StateReason: { Code: "Client.InstanceInitiatedShutdown" } });
  }, 300_000);

  test("termination protection holds until it is lifted; then all ends, with its volumes and interfaces", async () => {
    await ec2(`modify-instance-attribute --instance-id ${first} --disable-api-termination`);
    expect(await ec2Fails(`terminate-instances --instance-ids ${first} ${second}`)).toContain(
      "(OperationNotPermitted)",
    );
    expect((await instance(second)).State.Name).toBe("stopped");
    await ec2(`modify-instance-attribute --instance-id ${first} --no-disable-api-termination`);
    await ec2(`terminate-instances --instance-ids ${first} ${second}`);
    await state(first, "terminated");
    await ec2(`wait instance-terminated --instance-ids ${first} ${second}`);
    await until(async () => (await ec2("describe-network-interfaces")).NetworkInterfaces.length === 0, "interfaces go");
    const { Volumes } = await ec2("describe-volumes");
    // The added one as well: what a launch by API adds is deleted by default, what is attached later is kept.
    expect(Volumes).toEqual([]);
    await ec2(`delete-security-group --group-id ${group}`);
    await ec2("delete-key-pair --key-name walk");
  }, 240_000);
});
