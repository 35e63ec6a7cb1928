/** The unmodified AWS CLI against the gateway. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { vpcHandlers } from "../../src/vpc/handlers.ts";
import { startTestGateway, TEST_ACCOUNT, type TestGateway } from "../support/test-gateway.ts";

/** Debian's package; another `aws` may come first in PATH. */
const AWS = "/usr/bin/aws";
const installed = await Bun.file(AWS).exists();
if (!installed) console.log(`skipped: there is no ${AWS} (apt-get install awscli)`);

let hive: TestGateway;
let home: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "hive-cli-"));
  hive = await startTestGateway(vpcHandlers);
});
afterAll(async () => {
  await hive.stop();
  await rm(home, { recursive: true, force: true });
});

async function aws(
  line: string,
  env: Record<string, string> = {},
): Promise<{ code: number; out: string; err: string }> {
  const child = Bun.spawn([AWS, "--endpoint-url", hive.url, "--region", "us-east-1", ...line.split(" ")], {
    env: {
      PATH: "/usr/bin:/bin",
      HOME: home,
      AWS_ACCESS_KEY_ID: hive.keys.accessKeyId,
      AWS_SECRET_ACCESS_KEY: hive.keys.secretAccessKey,
      AWS_MAX_ATTEMPTS: "1",
      ...env,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { code: await child.exited, out, err };
}

test.skipIf(!installed)(
  "who am I, a network, its description by filter, and errors as the CLI prints them",
  async () => {
    const identity = await aws("sts get-caller-identity");
    expect(identity).toMatchObject({ code: 0, err: "" });
    expect(JSON.parse(identity.out)).toEqual({
      UserId: TEST_ACCOUNT,
      Account: TEST_ACCOUNT,
      Arn: `arn:aws:iam::${TEST_ACCOUNT}:root`,
    });
    expect(await aws("ec2 create-default-vpc")).toMatchObject({ code: 0 });
    const [found, none, paged, dryRun, filter, unbuilt, stranger, other] = await Promise.all([
      aws("ec2 describe-vpcs --filters Name=cidr,Values=172.31.* Name=is-default,Values=true --query length(Vpcs)"),
      aws("ec2 describe-vpcs --filters Name=state,Values=pending --query length(Vpcs)"),
      aws("ec2 describe-subnets --page-size 5 --query length(Subnets)"),
      aws("ec2 describe-vpcs --dry-run"),
      aws("ec2 describe-vpcs --filters Name=colour,Values=red"),
      aws("ec2 describe-hosts"),
      aws("ec2 describe-vpcs", { AWS_SECRET_ACCESS_KEY: "wrong" }),
      aws("s3 ls"),
    ]);
    expect([found, none, paged].map(({ out, err }) => out.trim() + err)).toEqual(["1", "0", "1"]);
    expect(dryRun.err).toContain("(DryRunOperation)");
    expect(filter.err).toContain("The filter 'colour' is invalid");
    expect(unbuilt.err).toContain("(UnsupportedOperation)");
    expect(stranger.err).toContain("(AuthFailure)");
    expect(other.err).toContain("(UnsupportedOperation)");
  },
  60_000,
);
