import { afterAll, beforeAll, expect, test } from "bun:test";
import { startTestGateway, type TestGateway } from "../../test/support/test-gateway.ts";
import { ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import type { HandlerTable } from "../model/operation.ts";
import { put } from "../model/store.ts";
import { tags } from "../model/tables.ts";
import type { Ec2Operations, InternetGateway, Subnet, Vpc } from "../schema/ec2/types.ts";

let listed = 0;
const handlers: HandlerTable<Ec2Operations> = {
  DescribeVpcs: {
    kind: "describe",
    list: (_input, { state }) => {
      listed++;
      return ok(state.all(tags).map((record): Vpc => ({ VpcId: record.resourceId })));
    },
    answer: (items) => ({ Vpcs: items as readonly Vpc[] }),
  },
  // An answer that follows the time.
  DescribeSubnets: {
    kind: "describe",
    list: (_input, { now }) => ok([{ SubnetId: `at ${now}` } satisfies Subnet]),
    answer: (items) => ({ Subnets: items as readonly Subnet[] }),
  },
  // An answer that follows who asks.
  DescribeInternetGateways: {
    kind: "describe",
    list: (_input, { principal }) => {
      listed++;
      return ok([{ OwnerId: principal.arn } satisfies InternetGateway]);
    },
    answer: (items) => ({ InternetGateways: items as readonly InternetGateway[] }),
  },
};

let now = Date.UTC(2025, 0, 2);
let hive: TestGateway;
beforeAll(async () => {
  const clock = { now: () => now, monotonicMs: () => performance.now(), sleep: () => new Promise(setImmediate) };
  hive = await startTestGateway(handlers, { clock });
});
afterAll(() => hive.stop());

async function addVpc(resourceId: string): Promise<void> {
  const record: TagsRecord = {
    resourceId,
    resourceType: "vpc",
    accountId: "123456789012" as TagsRecord["accountId"],
    region: "us-east-1",
    tags: {},
  };
  await hive.store.transact(() => ok({ writes: [put(tags, record)], value: undefined }));
}
const idOf = (text: string) => /<requestId>(.*?)<\/requestId>/.exec(text)![1]!;
const withoutId = (text: string) => text.replace(/<requestId>.*?<\/requestId>/, "");

test("a question that is asked again is answered from what was answered, each time with its own request id", async () => {
  await addVpc("vpc-1");
  const first = await hive.call("DescribeVpcs");
  const before = listed;
  // At once, so that an answer which another one overwrote would show.
  const again = await Promise.all(Array.from({ length: 32 }, () => hive.call("DescribeVpcs")));
  expect(listed).toBe(before);
  const ids = again.map(({ text, headers }) => {
    expect(withoutId(text)).toBe(withoutId(first.text));
    expect(idOf(text)).toBe(headers.get("x-amzn-requestid")!);
    return idOf(text);
  });
  expect(new Set(ids).size).toBe(32);
});

test("a commit is seen by the next answer", async () => {
  await hive.call("DescribeVpcs");
  await addVpc("vpc-2");
  expect((await hive.call("DescribeVpcs")).text).toContain("vpc-2");
});

test("another question has another answer, and one that is refused stays so", async () => {
  expect((await hive.call("DescribeVpcs", { DryRun: "true" })).code).toBe("DryRunOperation");
  expect((await hive.call("DescribeVpcs", { DryRun: "true" })).code).toBe("DryRunOperation");
  expect((await hive.call("DescribeVpcs")).status).toBe(200);
});

test("an answer that follows the time is made anew", async () => {
  expect((await hive.call("DescribeSubnets")).text).toContain(`at ${now}`);
  now += 1000;
  expect((await hive.call("DescribeSubnets")).text).toContain(`at ${now}`);
});

test("so is one that follows who asks", async () => {
  const before = listed;
  await hive.call("DescribeInternetGateways");
  await hive.call("DescribeInternetGateways");
  expect(listed).toBe(before + 2);
});

test("a signature that does not match is refused, however well the question is known", async () => {
  await hive.call("DescribeVpcs");
  const body = "Action=DescribeVpcs&Version=2016-11-15";
  const authorization = `AWS4-HMAC-SHA256 Credential=${hive.keys.accessKeyId}/20250102/us-east-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=${"0".repeat(64)}`;
  const headers = { authorization, "x-amz-date": "20250102T000000Z" };
  const refused = await fetch(`${hive.url}/`, { method: "POST", headers, body });
  expect(await refused.text()).toContain("AuthFailure");
  expect(refused.status).toBe(401);
});
