/** One account's compute and network API on a real store in memory, with a node, a default VPC and an image: for tests of handlers. */
import { openMemoryStore } from "../../src/cluster/open-memory-store.ts";
import { computeHandlers } from "../../src/compute/handlers.ts";
import type { ComputePorts } from "../../src/compute/ports.ts";
import { decideImportImage } from "../../src/compute/register-image.ts";
import { type AnyInput, type AnyOperation, runOperation } from "../../src/gateway/run-operation.ts";
import { assert, present } from "../../src/lib/assert.ts";
import { seededRandom } from "../../src/lib/random.ts";
import { fail, ok, type Result } from "../../src/lib/result.ts";
import { GIB } from "../../src/lib/units.ts";
import type { NodeRecord } from "../../src/model/common-records.ts";
import { type Config, configSchema, zonesOf } from "../../src/model/config.ts";
import { type AwsError, awsError } from "../../src/model/errors.ts";
import { type AccountId, type ImageId, type NodeId, newId, type SnapshotId } from "../../src/model/ids.ts";
import type { InstanceObserved } from "../../src/model/instance.ts";
import type { SubnetRecord } from "../../src/model/network.ts";
import type { Call } from "../../src/model/operation.ts";
import { put, type Store, translateStoreErrors, type Write } from "../../src/model/store.ts";
import { allTables, instances, instancesObserved, nodes, subnets } from "../../src/model/tables.ts";
import type { Ec2Operations } from "../../src/schema/ec2/types.ts";
import { decideDefaultVpc } from "../../src/vpc/default-vpc.ts";
import { vpcHandlers } from "../../src/vpc/handlers.ts";

export const ACCOUNT = "123456789012" as AccountId;
export const REGION = "us-east-1";
const NODE = "node-1" as NodeId;

export interface ComputeWorld {
  readonly store: Store<AwsError>;
  readonly config: Config;
  readonly imageId: ImageId;
  readonly snapshotId: SnapshotId;
  /** The default subnet of each zone, in the order of zones. */
  readonly subnets: readonly SubnetRecord[];
  /** Milliseconds since the epoch; tests move it. */
  now: number;
  call<Name extends keyof Ec2Operations>(
    name: Name,
    input: Partial<Ec2Operations[Name]["input"]>,
    as?: AccountId,
  ): Promise<Result<Ec2Operations[Name]["output"], AwsError>>;
  /** The answer of a call that has to succeed. */
  ok<Name extends keyof Ec2Operations>(
    name: Name,
    input: Partial<Ec2Operations[Name]["input"]>,
    as?: AccountId,
  ): Promise<Ec2Operations[Name]["output"]>;
  /** `Code: message` of a call that has to fail. */
  refusal<Name extends keyof Ec2Operations>(
    name: Name,
    input: Partial<Ec2Operations[Name]["input"]>,
    as?: AccountId,
  ): Promise<string>;
  write(writes: readonly Write[]): Promise<void>;
  /** Plays the node's agent: the machine of the instance's current generation is seen so. */
  observe(instanceId: string, process: InstanceObserved["process"], over?: Partial<InstanceObserved>): Promise<void>;
  /** RunInstances with the world's image and h1.nano: the instances' ids. */
  launch(input?: Partial<Ec2Operations["RunInstances"]["input"]>): Promise<string[]>;
  close(): Promise<void>;
}

export async function computeWorld(
  options: {
    readonly config?: Record<string, unknown>;
    readonly node?: Partial<NodeRecord>;
    readonly ports?: Partial<ComputePorts>;
    readonly seed?: number;
  } = {},
): Promise<ComputeWorld> {
  const config = configSchema.parse({ accountId: ACCOUNT, region: REGION, ...options.config });
  const store = translateStoreErrors(await openMemoryStore(allTables), (error) =>
    awsError("Unavailable", error.message, 503),
  );
  const random = seededRandom(options.seed ?? 1);
  const missing = () => Promise.resolve(fail(awsError("InternalError", "No host here", 500)));
  const handlers: object = {
    ...vpcHandlers,
    ...computeHandlers({ consoleOutput: missing, screenshot: missing, ...options.ports }),
  };
  const snapshotId = newId("Snapshot", random);

  const write = async (writes: readonly Write[]) => {
    const done = await store.transact(() => ok({ writes, value: undefined }));
    assert(done.ok, "the world's writes are taken");
  };
  const node: NodeRecord = {
    id: NODE,
    name: "one",
    region: REGION,
    zone: zonesOf(config)[0]!,
    roles: ["gateway", "compute", "vpc", "config"],
    version: "0",
    accel: "none",
    accelReason: "a test",
    vcpus: 4,
    memoryMib: 8192,
    diskGib: 100,
    allocatableVcpus: 64,
    allocatableMemoryMib: 8192,
    network: { mode: "ovs", ok: true, reason: "" },
    startedAt: 0,
    ...options.node,
  };
  await write([put(nodes, node), ...decideDefaultVpc(store.read(), ACCOUNT, REGION, zonesOf(config), random, 0)]);
  const image = decideImportImage(store.read(), {
    accountId: ACCOUNT,
    region: REGION,
    nodeId: NODE,
    snapshotId,
    name: "tiny",
    virtualBytes: 2 * GIB,
    now: 0,
    random,
  });
  assert(image.ok, "the world's image is taken");
  await write(image.value.writes);

  let requests = 0;
  const world: ComputeWorld = {
    store,
    config,
    imageId: image.value.output.imageId,
    snapshotId,
    subnets: [...store.read().all(subnets)].sort((a, b) => (a.zone < b.zone ? -1 : 1)),
    now: Date.UTC(2026, 0, 1),
    async call(name, input, as = ACCOUNT) {
      const operation = present((handlers as Record<string, AnyOperation>)[name], `${name} has a handler`);
      const call: Call = {
        requestId: `request-${++requests}`,
        accountId: as,
        region: REGION,
        principal: { accountId: as, arn: `arn:aws:iam::${as}:root`, userId: as, accessKeyId: "AKIA" },
        now: world.now,
        random,
        config,
        state: store.read(),
      };
      const using = { store, tokenKey: new Uint8Array(32), pruner: { tick: async () => {} } };
      // biome-ignore lint/suspicious/noExplicitAny: the output's type follows from the operation's name
      return runOperation(name, operation, input as AnyInput, call, using as any) as any;
    },
    async ok(name, input, as) {
      const answer = await world.call(name, input, as);
      assert(answer.ok, `${name} succeeds, but: ${answer.ok ? "" : `${answer.error.code}: ${answer.error.message}`}`);
      return answer.value;
    },
    async refusal(name, input, as) {
      const answer = await world.call(name, input, as);
      assert(!answer.ok, `${name} is refused`);
      return `${answer.error.code}: ${answer.error.message}`;
    },
    write,
    async observe(instanceId, process, over = {}) {
      const instance = present(store.read().get(instances, instanceId), "the observed instance exists");
      const { bootGeneration, rebootGeneration, interruptGeneration } = instance;
      await write([
        put(instancesObserved, {
          instanceId: instance.id,
          nodeId: instance.nodeId,
          process,
          bootGeneration,
          rebootGeneration,
          interruptGeneration,
          accel: "tcg",
          since: world.now,
          cleaned: false,
          ...over,
        }),
      ]);
    },
    async launch(input = {}) {
      const reservation = await world.ok("RunInstances", {
        ImageId: world.imageId,
        InstanceType: "h1.nano" as never,
        MinCount: 1,
        MaxCount: 1,
        ...input,
      });
      return reservation.Instances!.map((instance) => instance.InstanceId!);
    },
    close: () => store.close(),
  };
  return world;
}
