/**
 * Ten thousand random and mutated requests through the real listener to the real handlers: none is answered with a 5xx, none
 * breaks the process, and every answer is XML with a request id. A failure prints the seed; HIVE_FUZZ_SEED repeats it.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { XMLValidator } from "fast-xml-parser";
import { openMemoryStore } from "../../src/cluster/open-memory-store.ts";
import { computeHandlers } from "../../src/compute/handlers.ts";
import { decideImportImage } from "../../src/compute/register-image.ts";
import { assert } from "../../src/lib/assert.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { fail, ok } from "../../src/lib/result.ts";
import { GIB } from "../../src/lib/units.ts";
import { incorrectInstanceState } from "../../src/model/errors.ts";
import { type NodeId, newId } from "../../src/model/ids.ts";
import { put } from "../../src/model/store.ts";
import { allTables, nodes, securityGroups, subnets, vpcs } from "../../src/model/tables.ts";
import { decideDefaultVpc } from "../../src/vpc/default-vpc.ts";
import { vpcHandlers } from "../../src/vpc/handlers.ts";
import { startTestGateway, TEST_ACCOUNT, type TestGateway } from "../support/test-gateway.ts";
import { RequestMaker, seeded } from "./gateway-fuzz-requests.ts";

const REQUESTS = Number(process.env.HIVE_FUZZ_REQUESTS ?? 10_000);
const SEED = Number(process.env.HIVE_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
const AT_ONCE = 16;

const NODE = "node-1" as NodeId;
const noHost = () => Promise.resolve(fail(incorrectInstanceState("There is no host in this test.")));
const handlers = { ...vpcHandlers, ...computeHandlers({ consoleOutput: noHost, screenshot: noHost }) };

let hive: TestGateway;
let known: string[];
beforeAll(async () => {
  const store = await openMemoryStore(allTables);
  const built = await store.transact((state) => {
    const random = systemRandom;
    const image = decideImportImage(state, {
      accountId: TEST_ACCOUNT,
      region: "us-east-1",
      nodeId: NODE,
      snapshotId: newId("Snapshot", random),
      name: "tiny",
      virtualBytes: GIB,
      now: 0,
      random,
    });
    if (!image.ok) return image;
    const node = put(nodes, {
      id: NODE,
      name: "one",
      region: "us-east-1",
      zone: "us-east-1a",
      roles: ["gateway", "compute", "vpc", "config"],
      version: "0",
      accel: "none",
      accelReason: "a test",
      vcpus: 1000,
      memoryMib: 1_000_000,
      diskGib: 1_000_000,
      allocatableVcpus: 1_000_000,
      allocatableMemoryMib: 100_000_000,
      network: { mode: "ovs", ok: true, reason: "" },
      startedAt: 0,
    });
    const network = decideDefaultVpc(state, TEST_ACCOUNT, "us-east-1", ["us-east-1a"], random, 0);
    return ok({ writes: [node, ...network, ...image.value.writes], value: image.value.output.imageId as string });
  });
  assert(built.ok, "the world is built");
  const state = store.read();
  known = [built.value, "h1.nano", "us-east-1a", NODE, TEST_ACCOUNT];
  for (const table of [vpcs, subnets, securityGroups])
    known.push(...state.all<{ readonly id: string }>(table as never).map((r) => r.id));
  hive = await startTestGateway(handlers, { store });
  const launched = await hive.call("RunInstances", {
    ImageId: built.value,
    InstanceType: "h1.nano",
    MinCount: "2",
    MaxCount: "2",
  });
  known.push(...[...launched.text.matchAll(/<(?:instanceId|networkInterfaceId|volumeId)>([^<]*)</g)].map((m) => m[1]!));
  assert(launched.status === 200, `instances are launched: ${launched.text}`);
});
afterAll(() => hive.stop());

test(
  `${REQUESTS} requests of seed ${SEED} are all answered as errors or results`,
  async () => {
    const maker = new RequestMaker(seeded(SEED), Object.keys(handlers), known);
    const codes = new Map<string, number>();
    let left = REQUESTS;
    const work = async () => {
      while (left-- > 0) {
        const request = maker.make(hive);
        const { method, target, headers, body } = request;
        const { host: _, ...sent } = headers;
        const response = await fetch(`${hive.url}${target}`, { method, headers: sent, ...(body && { body }) });
        const text = await response.text();
        const shown = () =>
          `seed ${SEED}: ${method} ${target.slice(0, 300)} ${Buffer.from(body ?? "")
            .toString("latin1")
            .slice(
              0,
              3000,
            )}\n→ ${response.status} ${text.slice(0, 1000)}\n${JSON.stringify(hive.events.findLast((e) => e.level === "error"))}`;
        const code = /<Code>([^<]*)</.exec(text)?.[1] ?? (response.ok ? "ok" : `${response.status}`);
        codes.set(code, (codes.get(code) ?? 0) + 1);
        // AWS's own answer to a lack of room is a 500.
        if (response.status >= 500 && code !== "InsufficientInstanceCapacity") throw new Error(shown());
        const id = response.headers.get("x-amzn-requestid");
        if (!id || !/^[0-9a-f-]{36}$/.test(id)) throw new Error(shown());
        const json = response.headers.get("content-type")?.includes("json");
        if (!text.includes(id)) throw new Error(shown());
        if (json ? !JSON.parse(text) : XMLValidator.validate(text) !== true) throw new Error(shown());
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    expect(hive.events.filter((event) => event.level === "error")).toEqual([]);
    // The run is worth something only if much of it came through to the handlers.
    expect(codes.get("ok") ?? 0).toBeGreaterThan(REQUESTS / 100);
    expect(codes.size).toBeGreaterThan(20);
    if (process.env.HIVE_FUZZ_VERBOSE) console.log(Object.fromEntries([...codes].sort((a, b) => b[1] - a[1])));
  },
  { timeout: 120_000 },
);

test("bytes that are no HTTP do no harm", async () => {
  const random = seeded(SEED);
  const { hostname, port } = new URL(hive.url);
  const good = `POST / HTTP/1.1\r\nHost: ${hostname}:${port}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 22\r\n\r\nAction=DescribeRegions`;
  for (let n = 0; n < 200; n++) {
    const bytes = Buffer.from(good);
    for (let k = 0; k < 6; k++) bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
    await new Promise<void>((done) => {
      const socket = connect(Number(port), hostname, () =>
        socket.end(bytes.subarray(0, 1 + Math.floor(random() * bytes.length))),
      );
      socket.on("data", () => socket.destroy());
      socket.on("error", () => done());
      socket.on("close", () => done());
    });
  }
  expect((await hive.call("DescribeRegions")).status).toBe(200);
});
