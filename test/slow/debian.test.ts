/** A real Debian as AMI, end to end: the image is built, imported, launched; cloud-init finds EC2, runs user data, and lets `debian` in. */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { until, withHive } from "../support/hive.ts";
import { nodeUnavailable } from "../support/netns.ts";
import { builtImage, newKeyPair } from "../support/shared-hive.ts";

const lacks = nodeUnavailable();
if (lacks) console.log(`skipped: Debian as a guest ${lacks}`);

const USER_DATA = `#cloud-config
hostname: walker
write_files:
  - { path: /etc/greeting, content: "written by cloud-init" }
runcmd:
  - [ sh, -c, "echo HIVE-USER-DATA-RAN >/dev/console" ]
`;
const BOOT_MS = 600_000;

test.skipIf(lacks !== undefined)(
  "debian-12 as t3.small: cloud-init by the Ec2 data source, ssh as debian, stop and start",
  () =>
    withHive(async (hive) => {
      const began = performance.now();
      const figures: string[] = [];
      const mark = (what: string, since = began) =>
        figures.push(`${what} ${((performance.now() - since) / 1000).toFixed(1)} s`);
      const ec2 = (line: string) => hive.aws("ec2", ...line.split(" "));
      const ami = await builtImage(hive, "debian-12");
      mark("image built and registered");
      const key = await newKeyPair(hive, "k");
      const group = (await ec2("create-security-group --group-name ssh --description ssh")).GroupId;
      await ec2(`authorize-security-group-ingress --group-id ${group} --protocol tcp --port 22 --cidr 0.0.0.0/0`);
      const userData = join(hive.node.directory, "user-data");
      writeFileSync(userData, USER_DATA);

      const launched = performance.now();
      const { Instances } = await ec2(
        `run-instances --image-id ${ami} --instance-type t3.small --key-name k --security-group-ids ${group} --user-data file://${userData} --block-device-mappings DeviceName=/dev/xvda,Ebs={VolumeSize=4} --metadata-options HttpTokens=required`,
      );
      const id = Instances[0].InstanceId;
      const instance = async () => (await ec2(`describe-instances --instance-ids ${id}`)).Reservations[0].Instances[0];
      const console_ = (text: string) =>
        until(
          async () => (await hive.hive("logs", id).catch(() => "")).includes(text),
          `the console says ${text}`,
          BOOT_MS,
        );
      await ec2(`wait instance-running --instance-ids ${id}`);
      const address = (await instance()).PublicIpAddress;
      const ssh = (command: string) => hive.ssh(address, key, command, "debian");
      await until(async () => (await ssh("true").catch(() => undefined)) !== undefined, "ssh lets debian in", BOOT_MS);
      mark("from RunInstances: ssh", launched);
      await console_("HIVE-USER-DATA-RAN");
      mark("user data", launched);
      const status = await ssh(
        "cloud-init status --wait || (cat /run/cloud-init/status.json; sudo grep -E -A9 'WARN|ERROR|Traceback' /var/log/cloud-init.log)",
      );
      expect(status).toMatch(/^\.*\s*status: done\s*$/);
      mark("cloud-init done", launched);

      expect(await ssh("cloud-init query platform; cat /etc/greeting; sudo id -u; hostname; nproc")).toBe(
        "ec2\nwritten by cloud-init0\nwalker\n2\n",
      );
      expect(JSON.parse(await ssh("cat /run/cloud-init/status.json")).v1.datasource).toContain("DataSourceEc2");
      expect(Number(await ssh("df -k --output=size / | tail -1"))).toBeGreaterThan(3.5 * 1024 * 1024);
      // Its own tools know where they are, and the warnings that cloud-init has for a doubtful EC2 are not there.
      expect(await ssh("sudo dmidecode -s system-manufacturer 2>/dev/null || cat /sys/class/dmi/id/sys_vendor")).toBe(
        "Amazon EC2\n",
      );
      expect(await ssh("sudo grep WARNING /var/log/cloud-init.log || true")).toBe("");

      const stopping = performance.now();
      await ec2(`stop-instances --instance-ids ${id}`);
      await until(async () => (await instance()).State.Name === "stopped", "it stops", BOOT_MS);
      mark("stop", stopping);
      const starting = performance.now();
      await ec2(`start-instances --instance-ids ${id}`);
      const again = async () => (await instance()).PublicIpAddress as string | undefined;
      await until(
        async () => {
          const now = await again();
          return now !== undefined && (await hive.ssh(now, key, "cat /etc/greeting", "debian").catch(() => "")) !== "";
        },
        "ssh after the second start",
        BOOT_MS,
      );
      mark("second start to ssh", starting);
      const [qemu] = (await hive.node.exec(["ps", "-eo", "rss,args"])).stdout
        .split("\n")
        .filter((line) => line.includes(`guest=${id},`));
      figures.push(`QEMU resident ${Math.round(Number.parseInt(qemu ?? "", 10) / 1024)} MiB`);
      await ec2(`terminate-instances --instance-ids ${id}`);
      await ec2(`wait instance-terminated --instance-ids ${id}`);
      console.log(`debian-12 as t3.small: ${figures.join(", ")}`);
    }),
  40 * 60_000,
);
