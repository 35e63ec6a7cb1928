/** What the AWS CLI asks besides running machines: filters, pages, dry runs, retries, errors. No machine runs (`--accel none`). */
import { beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../support/hive.ts";
import { nodeUnavailable } from "../support/netns.ts";
import { sharedHive } from "../support/shared-hive.ts";

const lacks = nodeUnavailable();
if (lacks) console.log(`skipped: the AWS CLI's requests ${lacks}`);
const TEST_MS = 120_000;

describe.skipIf(lacks !== undefined)("the AWS CLI without machines", () => {
  const shared = sharedHive({ accel: "none" });
  const ec2 = (line: string, ...more: string[]) => shared().aws("ec2", ...line.split(" "), ...more);
  const ec2Fails = (line: string, ...more: string[]) => shared().awsFails("ec2", ...line.split(" "), ...more);
  const idsOf = (answer: { Reservations: { Instances: { InstanceId: string }[] }[] }) =>
    answer.Reservations.flatMap((r) => r.Instances.map((i) => i.InstanceId)).sort();

  let ami = "";
  let ids: string[] = [];
  beforeAll(async () => {
    const disk = join(shared().node.directory, "disk.raw");
    const bytes = new Uint8Array(1 << 20);
    bytes.set([0x55, 0xaa], 510); // a boot sector's signature
    writeFileSync(disk, bytes);
    ami = await shared().hive("image", "import", disk, "--name", "bootable");
    const tags = "ResourceType=instance,Tags=[{Key=team,Value=blue},{Key=Name,Value=web-1}]";
    const blue = await ec2(
      `run-instances --image-id ${ami} --instance-type h1.nano --count 3 --tag-specifications ${tags}`,
    );
    const other = await ec2(`run-instances --image-id ${ami} --instance-type h1.micro`);
    ids = [...blue.Instances, ...other.Instances].map((i: { InstanceId: string }) => i.InstanceId);
    await ec2(`wait instance-running --instance-ids ${ids.join(" ")}`);
  }, TEST_MS);
  const blue = () => ids.slice(0, 3).sort();

  test(
    "filters match by tag, by wildcard, by state and by type, and all of them together",
    async () => {
      const describe = async (filters: string) => idsOf(await ec2(`describe-instances --filters ${filters}`));
      expect(await describe("Name=tag:team,Values=blue")).toEqual(blue());
      expect(await describe("Name=tag:Name,Values=w?b-*")).toEqual(blue());
      expect(await describe("Name=tag-key,Values=team Name=instance-type,Values=h1.micro")).toEqual([]);
      expect(
        await describe("Name=instance-state-name,Values=running,stopped Name=instance-type,Values=h1.micro"),
      ).toEqual([ids[3]!]);
      expect(await ec2Fails("describe-instances --filters Name=colour,Values=red")).toContain(
        "(InvalidParameterValue)",
      );
    },
    TEST_MS,
  );

  test(
    "pages are followed by the CLI, and cut by --max-items",
    async () => {
      expect(idsOf(await ec2("describe-instances --page-size 5"))).toEqual([...ids].sort());
      const cut = await ec2("describe-instance-types --page-size 5 --max-items 7");
      expect(cut.InstanceTypes).toHaveLength(7);
      const rest = await ec2(`describe-instance-types --page-size 5 --starting-token ${cut.NextToken}`);
      const all = await ec2("describe-instance-types");
      expect(rest.InstanceTypes).toHaveLength(all.InstanceTypes.length - 7);
      expect(await ec2Fails("describe-instances --starting-token nonsense --max-items 5")).toMatch(/token/i);
    },
    TEST_MS,
  );

  test(
    "a dry run changes nothing and says that it would have worked",
    async () => {
      expect(await ec2Fails(`terminate-instances --instance-ids ${ids[0]} --dry-run`)).toContain("(DryRunOperation)");
      expect(await ec2Fails("create-key-pair --key-name dry --dry-run")).toContain("(DryRunOperation)");
      expect((await ec2("describe-key-pairs")).KeyPairs).toEqual([]);
      expect(await ec2Fails("terminate-instances --instance-ids i-00000000000000000 --dry-run")).toContain(
        "(InvalidInstanceID.NotFound)",
      );
    },
    TEST_MS,
  );

  test(
    "a client token makes a retry the same launch, and another request with it a mismatch",
    async () => {
      const run = `run-instances --image-id ${ami} --client-token once --instance-type`;
      const made = await ec2(`${run} h1.nano`);
      const again = await ec2(`${run} h1.nano`);
      expect(again.Instances[0].InstanceId).toBe(made.Instances[0].InstanceId);
      expect(again.ReservationId).toBe(made.ReservationId);
      expect(await ec2Fails(`${run} h1.micro`)).toContain("(IdempotentParameterMismatch)");
      await ec2(`terminate-instances --instance-ids ${made.Instances[0].InstanceId}`);
    },
    TEST_MS,
  );

  test(
    "ids are told apart: malformed, unknown, and several at once",
    async () => {
      expect(await ec2Fails("describe-instances --instance-ids i-xyz")).toContain("(InvalidInstanceID.Malformed)");
      expect(await ec2Fails("start-instances --instance-ids i-0123456789abcdef0")).toContain(
        "(InvalidInstanceID.NotFound)",
      );
      expect(await ec2Fails(`stop-instances --instance-ids ${ids[0]} i-0123456789abcdef0`)).toContain(
        "(InvalidInstanceID.NotFound)",
      );
      expect(await ec2Fails(`run-instances --image-id ami-0123456789abcdef0 --instance-type h1.nano`)).toContain(
        "(InvalidAMIID.NotFound)",
      );
      expect(await ec2Fails(`run-instances --image-id ${ami} --instance-type h1.giant`)).toContain(
        "(InvalidParameterValue)",
      );
      expect(await ec2Fails(`run-instances --image-id ${ami} --instance-type h1.nano --key-name none`)).toContain(
        "(InvalidKeyPair.NotFound)",
      );
    },
    TEST_MS,
  );

  test(
    "what Hive does not do yet is refused as such",
    async () => {
      expect(await ec2Fails("describe-spot-instance-requests")).toContain("(UnsupportedOperation)");
      expect(await ec2Fails("describe-instances", "--filters", `Name=tag:x,Values=${"y,".repeat(300)}z`)).toContain(
        "(FilterLimitExceeded)",
      );
    },
    TEST_MS,
  );

  test(
    "instances change state, with a reason that says no machine is behind them",
    async () => {
      const id = ids[3]!;
      await ec2(`stop-instances --instance-ids ${id}`);
      await ec2(`wait instance-stopped --instance-ids ${id}`);
      await ec2(`start-instances --instance-ids ${id}`);
      await ec2(`wait instance-running --instance-ids ${id}`);
      const { InstanceStatuses } = await ec2(`describe-instance-status --instance-ids ${id}`);
      expect(InstanceStatuses[0]).toMatchObject({ InstanceState: { Name: "running" } });
      const { Reservations } = await ec2(`describe-instances --instance-ids ${id}`);
      expect(Reservations[0].Instances[0].StateReason?.Message).toContain("--accel none");
    },
    TEST_MS,
  );

  test(
    "instances that are gone are shown as terminated, and all of it is still there after kill -9",
    async () => {
      await ec2(`terminate-instances --instance-ids ${blue().join(" ")}`);
      await ec2(`wait instance-terminated --instance-ids ${blue().join(" ")}`);
      await shared().restart("SIGKILL");
      const running = await ec2("describe-instances --filters Name=instance-state-name,Values=running");
      expect(idsOf(running)).toEqual([ids[3]!]);
      await until(async () => (await ec2("describe-volumes")).Volumes.length === 1, "volumes of the terminated go");
    },
    TEST_MS,
  );
});
