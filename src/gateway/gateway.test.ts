import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { DescribeVpcsCommand, EC2Client } from "@aws-sdk/client-ec2";
import { answered, startTestGateway, TEST_ACCOUNT, type TestGateway } from "../../test/support/test-gateway.ts";
import { openMemoryStore } from "../cluster/open-memory-store.ts";
import type { Clock } from "../lib/clock.ts";
import { randomHex } from "../lib/random.ts";
import { fail, ok } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import { unsupportedOperation } from "../model/errors.ts";
import type { HandlerTable } from "../model/operation.ts";
import { put, type Store } from "../model/store.ts";
import { allTables, idempotency, tags } from "../model/tables.ts";
import { signRequest } from "../protocol/sigv4-sign.ts";
import type { Ec2Operations, Vpc } from "../schema/ec2/types.ts";

/** A VPC that stands in the store as its tags alone: enough of a resource to see effects by. */
const vpcOf = (record: TagsRecord): Vpc => ({
  VpcId: record.resourceId,
  State: "available",
  Tags: Object.entries(record.tags).map(([Key, Value]) => ({ Key, Value })),
});
let decided = 0;
const handlers: HandlerTable<Ec2Operations> = {
  DescribeVpcs: {
    kind: "describe",
    ids: { kind: "Vpc", of: (input) => input.VpcIds, idOf: (vpc: Vpc) => vpc.VpcId! },
    list: (_input, { state }) => ok(state.all(tags).map(vpcOf)),
    page: { min: 5, max: 1000, key: (vpc: Vpc) => vpc.VpcId! },
    answer: (items) => ({ Vpcs: items as readonly Vpc[] }),
  },
  DescribeInstances: {
    kind: "describe",
    ids: { kind: "Instance", of: (input) => input.InstanceIds, idOf: () => "" },
    list: () => ok([]),
    page: { min: 5, max: 1000, key: () => "" },
    answer: () => ({ Reservations: [] }),
  },
  // Takes a client token; answers a date, and what a retry must get again.
  CreateVolume: {
    kind: "mutation",
    decide: (input, { accountId, region, random, now }) => {
      decided++;
      if (input.AvailabilityZone === "refuse") return fail(unsupportedOperation("refused"));
      const resourceId = `vpc-${randomHex(random, 17)}`;
      const record: TagsRecord = { resourceId, resourceType: "vpc", accountId, region, tags: { n: resourceId } };
      return ok({
        writes: [put(tags, record)],
        output: { VolumeId: resourceId, CreateTime: new Date(now), Size: input.Size, Iops: 3 },
      });
    },
  },
  // Its answer is larger than a record may be.
  RunInstances: {
    kind: "mutation",
    decide: (input) =>
      ok({
        writes: [],
        output: {
          Instances: Array.from({ length: input.MaxCount! }, (_, n) => ({
            InstanceId: `i-${n}`,
            KeyName: "k".repeat(3000),
          })),
        },
      }),
  },
  DescribeAccountAttributes: { kind: "query", answer: () => ok({ AccountAttributes: [] }) },
  DescribeRegions: {
    kind: "query",
    answer: () => {
      throw new Error("a defect");
    },
  },
  DescribeHosts: { kind: "query", answer: () => Promise.reject(new Error("a defect, later")) },
};

let now = Date.UTC(2025, 0, 2, 3, 4, 5);
const clock: Clock = { now: () => now, monotonicMs: () => performance.now(), sleep: () => new Promise(setImmediate) };
let hive: TestGateway;
beforeAll(async () => {
  hive = await startTestGateway(handlers, { clock });
});
afterAll(() => hive.stop());

const REQUEST_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

describe("an answer", () => {
  test("carries one request id in its header, its body and the log line", async () => {
    const answer = await hive.call("DescribeVpcs");
    expect(answer.status).toBe(200);
    const id = answer.headers.get("x-amzn-requestid")!;
    expect(id).toMatch(REQUEST_ID);
    expect(answer.text).toContain(`<requestId>${id}</requestId>`);
    expect(answer.headers.get("content-type")).toBe("text/xml;charset=UTF-8");
    expect(hive.events.at(-1)).toMatchObject({
      event: "api.call",
      level: "info",
      requestId: id,
      service: "ec2",
      action: "DescribeVpcs",
      principal: `arn:aws:iam::${TEST_ACCOUNT}:root`,
      sourceIp: "127.0.0.1",
      code: "ok",
      status: 200,
    });
  });

  test("of an error has EC2's form", async () => {
    const { text, headers, status } = await hive.call("Nonsense");
    expect(status).toBe(400);
    expect(text).toBe(
      `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>InvalidAction</Code><Message>The action Nonsense is not valid for this web service.</Message></Error></Errors><RequestID>${headers.get("x-amzn-requestid")}</RequestID></Response>`,
    );
  });

  test("of an error has STS's form for STS", async () => {
    const { text, status } = await hive.call("Nonsense", {}, { service: "sts" });
    expect(status).toBe(400);
    expect(text).toContain("<ErrorResponse");
    expect(text).toContain("<Message>Could not find operation Nonsense for version 2011-06-15</Message>");
  });

  test("of a defect is InternalError, with the cause in the log alone", async () => {
    for (const action of ["DescribeRegions", "DescribeHosts"]) {
      const answer = await hive.call(action);
      expect(answer).toMatchObject({ status: 500, code: "InternalError" });
      expect(answer.message).toContain(answer.headers.get("x-amzn-requestid")!);
      expect(answer.text).not.toContain("a defect");
      expect(hive.events.at(-1)).toMatchObject({
        level: "error",
        cause: { message: expect.stringContaining("a defect") },
      });
    }
  });
});

const wrong: [string, () => Promise<{ status: number; code: string | undefined }>, number, string][] = [
  [
    "an action that is modelled but not built",
    () => hive.call("AcceptAddressTransfer", { Address: "x" }),
    400,
    "UnsupportedOperation",
  ],
  ["another version", () => hive.call("DescribeVpcs", {}, { version: "2011-01-01" }), 400, "NoSuchVersion"],
  ["no version", () => hive.call("DescribeVpcs", {}, { version: "" }), 400, "MissingParameter"],
  ["no action", () => hive.call(""), 400, "MissingAction"],
  ["an unknown parameter", () => hive.call("DescribeVpcs", { Colour: "red" }), 400, "UnknownParameter"],
  ["another region", () => hive.call("DescribeVpcs", {}, { region: "eu-west-1" }), 401, "AuthFailure"],
  ["a service that is not served", () => hive.call("ListUsers", {}, { service: "iam" }), 400, "UnsupportedOperation"],
  ["a malformed id", () => hive.call("DescribeVpcs", { "VpcId.1": "vpc-x" }), 400, "InvalidVpcID.Malformed"],
  [
    "an id that is not there",
    () => hive.call("DescribeVpcs", { "VpcId.1": "vpc-00000000" }),
    400,
    "InvalidVpcID.NotFound",
  ],
  [
    "an unknown filter",
    () => hive.call("DescribeVpcs", { "Filter.1.Name": "x", "Filter.1.Value.1": "y" }),
    400,
    "InvalidParameterValue",
  ],
  [
    "ids with MaxResults",
    () => hive.call("DescribeInstances", { "InstanceId.1": "i-00000000", MaxResults: "5" }),
    400,
    "InvalidParameterCombination",
  ],
  ["a page too small", () => hive.call("DescribeVpcs", { MaxResults: "4" }), 400, "InvalidParameterValue"],
  ["a made-up token", () => hive.call("DescribeVpcs", { MaxResults: "5", NextToken: "abc" }), 400, "InvalidNextToken"],
  ["DryRun", () => hive.call("DescribeVpcs", { DryRun: "true" }), 412, "DryRunOperation"],
  ["DryRun of a query", () => hive.call("DescribeAccountAttributes", { DryRun: "true" }), 412, "DryRunOperation"],
  [
    "a million characters",
    () => hive.call("DescribeVpcs", { "VpcId.1": "x".repeat(1_000_000) }),
    400,
    "InvalidVpcID.Malformed",
  ],
];
test.each(wrong)("%s is refused as AWS does", async (_, call, status, code) => {
  expect(await call()).toMatchObject({ status, code });
});

test("a missing resource is named", async () => {
  const { message } = await hive.call("DescribeVpcs", { "VpcId.1": "vpc-00000000", "VpcId.2": "vpc-00000001" });
  expect(message).toContain("vpc-00000000");
});

test("pages follow each other over the wire", async () => {
  for (let n = 0; n < 7; n++) await hive.call("CreateVolume", { AvailabilityZone: "a", Size: "1" });
  const seen: string[] = [];
  let token = "";
  do {
    const { text } = await hive.call("DescribeVpcs", { MaxResults: "5", ...(token && { NextToken: token }) });
    seen.push(...[...text.matchAll(/<vpcId>([^<]*)</g)].map((m) => m[1]!));
    token = /<nextToken>([^<]*)</.exec(text)?.[1] ?? "";
  } while (token !== "");
  expect(seen.length).toBe(hive.store.read().count(tags));
  expect(new Set(seen).size).toBe(seen.length);
});

describe("DryRun", () => {
  test("decides and writes nothing", async () => {
    const before = hive.store.read().revision;
    expect(await hive.call("CreateVolume", { AvailabilityZone: "a", Size: "1", DryRun: "true" })).toMatchObject({
      status: 412,
      code: "DryRunOperation",
      message: "Request would have succeeded, but DryRun flag is set.",
    });
    expect(hive.store.read().revision).toBe(before);
  });
  test("tells the refusal that a real call would meet", async () => {
    expect(await hive.call("CreateVolume", { AvailabilityZone: "refuse", DryRun: "true" })).toMatchObject({
      code: "UnsupportedOperation",
    });
  });
});

describe("a ClientToken", () => {
  const parameters = { AvailabilityZone: "a", Size: "3" };
  const body = (text: string) => text.replace(/<requestId>[^<]*/, "");

  test("gives a retry the first answer, dates and all, and no second effect", async () => {
    const first = await hive.call("CreateVolume", { ...parameters, ClientToken: "retry" });
    const count = hive.store.read().count(tags);
    now += 60_000;
    const second = await hive.call("CreateVolume", { ...parameters, ClientToken: "retry" });
    expect(first.status).toBe(200);
    expect(first.text).toContain("<createTime>2025-01-02T");
    expect(body(second.text)).toBe(body(first.text));
    expect(hive.store.read().count(tags)).toBe(count);
  });

  test("has one effect however many use it at once", async () => {
    const count = hive.store.read().count(tags);
    const calls = Array.from({ length: 20 }, () =>
      hive.call("CreateVolume", { ...parameters, ClientToken: "at-once" }),
    );
    const texts = (await Promise.all(calls)).map(({ text }) => body(text));
    expect(new Set(texts).size).toBe(1);
    expect(hive.store.read().count(tags)).toBe(count + 1);
  });

  test("belongs to its parameters", async () => {
    await hive.call("CreateVolume", { ...parameters, ClientToken: "mine" });
    expect(await hive.call("CreateVolume", { ...parameters, Size: "4", ClientToken: "mine" })).toMatchObject({
      status: 400,
      code: "IdempotentParameterMismatch",
    });
  });

  test("isn't used up by a refusal or by DryRun", async () => {
    await hive.call("CreateVolume", { AvailabilityZone: "refuse", ClientToken: "free" });
    await hive.call("CreateVolume", { ...parameters, ClientToken: "free", DryRun: "true" });
    expect((await hive.call("CreateVolume", { ...parameters, ClientToken: "free" })).status).toBe(200);
  });

  test("of 65 characters is refused", async () => {
    expect(await hive.call("CreateVolume", { ...parameters, ClientToken: "x".repeat(65) })).toMatchObject({
      code: "InvalidParameterValue",
    });
  });

  test("is remembered with an answer of megabytes", async () => {
    const many = { MinCount: "1", MaxCount: "1000", ImageId: "ami-00000000", ClientToken: "large" };
    const first = await hive.call("RunInstances", many);
    const second = await hive.call("RunInstances", many);
    expect(first.text.length).toBeGreaterThan(2_000_000);
    expect(body(second.text)).toBe(body(first.text));
  });

  test("is forgotten after a day", async () => {
    await hive.call("CreateVolume", { ...parameters, ClientToken: "old" });
    const before = decided;
    now += 24 * 60 * 60 * 1000;
    await hive.call("CreateVolume", { ...parameters, Size: "9", ClientToken: "old" });
    expect(decided).toBe(before + 1);
    // The pruning goes on behind the answer.
    for (let tries = 0; hive.store.read().count(idempotency) > 1 && tries < 1000; tries++) await Bun.sleep(1);
    expect(
      hive.store
        .read()
        .all(idempotency)
        .map((r) => r.token),
    ).toEqual(["old"]);
  });
});

describe("a signature", () => {
  const signed = (over: { secretAccessKey?: string; accessKeyId?: string; service?: string; offset?: number }) => {
    const text =
      over.service === "sts" ? "Action=GetCallerIdentity&Version=2011-06-15" : "Action=DescribeVpcs&Version=2016-11-15";
    const url = new URL(`${hive.url}/`);
    const headers = signRequest(
      {
        method: "POST",
        url,
        service: over.service ?? "ec2",
        region: "us-east-1",
        headers: {},
        body: text,
        now: now + (over.offset ?? 0),
      },
      { ...hive.keys, ...over },
    );
    return fetch(url, { method: "POST", headers, body: text }).then(answered);
  };
  const table: [string, Parameters<typeof signed>[0], number, string][] = [
    ["by another secret is AuthFailure for EC2", { secretAccessKey: "wrong" }, 401, "AuthFailure"],
    ["by an unknown key is AuthFailure for EC2", { accessKeyId: "AKIAUNKNOWN" }, 401, "AuthFailure"],
    ["of ten minutes ago is RequestExpired for EC2", { offset: -600_000 }, 400, "RequestExpired"],
    [
      "by another secret is SignatureDoesNotMatch for STS",
      { service: "sts", secretAccessKey: "wrong" },
      403,
      "SignatureDoesNotMatch",
    ],
    [
      "by an unknown key is InvalidClientTokenId for STS",
      { service: "sts", accessKeyId: "AKIAUNKNOWN" },
      403,
      "InvalidClientTokenId",
    ],
    [
      "of ten minutes ago is SignatureDoesNotMatch for STS",
      { service: "sts", offset: -600_000 },
      403,
      "SignatureDoesNotMatch",
    ],
  ];
  test.each(table)("%s", async (_, over, status, code) => {
    expect(await signed(over)).toMatchObject({ status, code });
    expect(hive.events.at(-1)).not.toHaveProperty("principal");
  });

  test("that is missing is named, in the words of the version's service", async () => {
    const plain = (body: string) => fetch(`${hive.url}/`, { method: "POST", body }).then(answered);
    const ec2 = await plain("Action=DescribeVpcs&Version=2016-11-15");
    expect(ec2).toMatchObject({ status: 403, code: "MissingAuthenticationToken" });
    expect(ec2.text).toContain("<RequestID>");
    expect((await plain("Action=GetCallerIdentity&Version=2011-06-15")).text).toContain("<ErrorResponse");
  });

  test("of the SDK's client is accepted", async () => {
    now = Date.now();
    const client = new EC2Client({
      endpoint: hive.url,
      region: "us-east-1",
      credentials: hive.keys,
    });
    const { Vpcs } = await client.send(new DescribeVpcsCommand({ Filters: [{ Name: "tag:n", Values: ["vpc-*"] }] }));
    expect(Vpcs!.length).toBe(hive.store.read().count(tags));
    client.destroy();
  });
});

describe("the listener", () => {
  test("answers what is not an API call", async () => {
    for (const [method, path, status] of [
      ["OPTIONS", "/", 405],
      ["PUT", "/", 405],
      ["DELETE", "/", 405],
      ["GET", "/no/such/path", 404],
      ["POST", "/no/such/path", 404],
      ["GET", "/", 403],
      ["GET", "/_hive/other", 404],
    ] as const) {
      const answer = await answered(
        await fetch(`${hive.url}${path}`, { method, ...(method === "POST" && { body: "x".repeat(100_000) }) }),
      );
      expect({ method, path, status: answer.status }).toEqual({ method, path, status });
      expect(answer.code).toBeDefined();
      expect(answer.headers.get("x-amzn-requestid")).toMatch(REQUEST_ID);
    }
    expect((await fetch(`${hive.url}/`, { method: "HEAD" })).status).toBe(405);
  });

  test("reads a body that is too large before it refuses it", async () => {
    const large = "x".repeat(3_000_000);
    expect(await answered(await fetch(`${hive.url}/`, { method: "POST", body: large }))).toMatchObject({
      status: 413,
      code: "RequestEntityTooLarge",
    });
    const chunked = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let n = 0; n < 30; n++) controller.enqueue(new Uint8Array(100_000));
        controller.close();
      },
    });
    expect(await answered(await fetch(`${hive.url}/`, { method: "POST", body: chunked }))).toMatchObject({
      status: 413,
    });
  });

  test("tells its health and its figures without a signature", async () => {
    expect(await (await fetch(`${hive.url}/_hive/health`)).json()).toEqual({ status: "ok" });
    const metrics = await (await fetch(`${hive.url}/_hive/metrics`)).text();
    expect(metrics).toMatch(/hive_api_requests_total\{service="ec2",operation="DescribeVpcs",code="ok"\} \d+/);
    expect(metrics).toMatch(
      /hive_api_requests_total\{service="other",operation="other",code="MissingAuthenticationToken"\} \d+/,
    );
    expect(metrics).toContain("hive_api_request_seconds_bucket");
  });
});

describe("a store that can't write", () => {
  const broken = (store: Store): Store => ({
    ...store,
    read: () => store.read(),
    transact: async () => fail({ kind: "store", reason: "full", message: "no space left on the disk" }),
    status: () => ({ ...store.status(), health: "full", message: "no space left on the disk" }),
    close: () => store.close(),
  });

  test("makes mutations Unavailable and health 503, and reading goes on", async () => {
    const store = await openMemoryStore(allTables);
    const healthy = await startTestGateway(handlers, { store });
    try {
      const second = await startTestGateway(handlers, { store: broken(store), rootKey: healthy.keys });
      try {
        expect(await second.call("CreateVolume", { AvailabilityZone: "a" })).toMatchObject({
          status: 503,
          code: "Unavailable",
        });
        expect((await second.call("DescribeVpcs")).status).toBe(200);
        const health = await fetch(`${second.url}/_hive/health`);
        expect(health.status).toBe(503);
        expect(await health.json()).toEqual({ status: "unavailable", reason: "no space left on the disk" });
      } finally {
        await second.stop();
      }
    } finally {
      await healthy.stop();
    }
  });
});

test("Hive's own routes know who signed", async () => {
  const server = await startTestGateway(handlers, {
    clock,
    hiveRoutes: async (request): Promise<Response> => {
      const streamed = request.headers.get("x-amz-content-sha256") === "UNSIGNED-PAYLOAD";
      const body = new Uint8Array(await request.arrayBuffer());
      const who = await server.gateway.authenticate(request, streamed ? "unsigned" : body);
      return Response.json(who.ok ? who.value : { code: who.error.code }, { status: who.ok ? 200 : who.error.status });
    },
  });
  try {
    const send = async (service: string, body: string | { hash: string }, sent: string) => {
      const url = new URL(`${server.url}/_hive/images?name=a%20b`);
      const headers = signRequest(
        { method: "POST", url, service, region: "us-east-1", headers: {}, body, now },
        server.keys,
      );
      return (await fetch(url, { method: "POST", headers, body: sent })).json();
    };
    const known = { arn: `arn:aws:iam::${TEST_ACCOUNT}:root` };
    expect(await send("hive", "body", "body")).toMatchObject(known);
    expect(await send("hive", { hash: "UNSIGNED-PAYLOAD" }, "streamed")).toMatchObject(known);
    expect(await send("hive", "body", "other")).toEqual({ code: "InvalidSignatureException" });
    expect(await send("ec2", "body", "body")).toEqual({ code: "InvalidSignatureException" });
  } finally {
    await server.stop();
  }
});
