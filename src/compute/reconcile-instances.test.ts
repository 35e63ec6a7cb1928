import { afterEach, expect, test } from "bun:test";
import { openMemoryStore } from "../cluster/open-memory-store.ts";
import { present } from "../lib/assert.ts";
import { systemClock } from "../lib/clock.ts";
import { silentLog } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { fail, ok } from "../lib/result.ts";
import type { AccountId, InstanceId, NetworkInterfaceId, NodeId, VolumeId } from "../model/ids.ts";
import type { VolumeRecord } from "../model/image.ts";
import type { InstanceRecord } from "../model/instance.ts";
import { instanceState, stateReason } from "../model/instance-state.ts";
import type { NetworkInterfaceRecord } from "../model/network.ts";
import { put, type Store, type Write } from "../model/store.ts";
import { allTables, instances, instancesObserved, networkInterfaces, tags, volumes } from "../model/tables.ts";
import type { Hypervisor, Machine } from "./hypervisor-port.ts";
import { noHypervisor } from "./no-hypervisor.ts";
import { TERMINATED_SHOWN_MS } from "./plan-observed.ts";
import { type InstanceReconciler, startInstanceReconciler } from "./reconcile-instances.ts";

const nodeId = "node-1" as NodeId;
const owned = { accountId: "000000000000" as AccountId, region: "us-east-1", createdAt: 0 };
const idOf = (n: number) => `i-${n.toString(16).padStart(8, "0")}` as InstanceId;

function instance(n: number, change: Partial<InstanceRecord> = {}): InstanceRecord {
  return {
    ...owned,
    id: idOf(n),
    zone: "us-east-1a",
    nodeId,
    reservationId: "r-00000001" as InstanceRecord["reservationId"],
    launchIndex: 0,
    launchedBy: "root",
    launchTime: n,
    imageId: "ami-00000001" as InstanceRecord["imageId"],
    instanceType: "h1.nano",
    power: "on",
    forced: false,
    bootGeneration: 1,
    rebootGeneration: 0,
    interruptGeneration: 0,
    powerChangedAt: Date.now(),
    shutdownBehavior: "stop",
    disableApiTermination: false,
    disableApiStop: false,
    ebsOptimized: false,
    monitoring: false,
    metadataOptions: {
      httpTokens: "optional",
      httpEndpoint: "enabled",
      httpPutResponseHopLimit: 1,
      httpProtocolIpv6: "disabled",
      instanceMetadataTags: "disabled",
    },
    privateDnsNameOptions: {
      hostnameType: "ip-name",
      enableResourceNameDnsARecord: false,
      enableResourceNameDnsAAAARecord: false,
    },
    cpuOptions: { coreCount: 1, threadsPerCore: 1 },
    placement: { tenancy: "default" },
    maintenanceAutoRecovery: "default",
    rootDeviceName: "/dev/xvda",
    blockDevices: [
      { deviceName: "/dev/xvda", volumeId: volumeId(n), deleteOnTermination: true, attachTime: 0 },
      { deviceName: "/dev/sdf", volumeId: volumeId(n + 0x1000), deleteOnTermination: false, attachTime: 0 },
    ],
    ...change,
  };
}
const volumeId = (n: number) => `vol-${n.toString(16).padStart(8, "0")}` as VolumeId;
const eniId = (n: number) => `eni-${n.toString(16).padStart(8, "0")}` as NetworkInterfaceId;

function volume(n: number, id: VolumeId, deviceName: string, deleteOnTermination: boolean): VolumeRecord {
  return {
    ...owned,
    id,
    zone: "us-east-1a",
    nodeId,
    size: 1,
    volumeType: "gp3",
    encrypted: false,
    attachment: { instanceId: idOf(n), deviceName, deleteOnTermination, attachTime: 0 },
  };
}

function eni(n: number, deleteOnTermination: boolean): NetworkInterfaceRecord {
  return {
    ...owned,
    id: eniId(n),
    vpcId: "vpc-00000001" as NetworkInterfaceRecord["vpcId"],
    subnetId: "subnet-00000001" as NetworkInterfaceRecord["subnetId"],
    zone: "us-east-1a",
    description: "",
    macAddress: "02:00:00:00:00:01",
    privateIpAddresses: [{ address: "172.31.0.4", primary: true }],
    ipv6Addresses: [],
    groupIds: [],
    sourceDestCheck: true,
    interfaceType: "interface",
    requesterManaged: false,
    associatePublicIp: true,
    publicIp: "198.18.0.7",
    attachment: {
      id: "eni-attach-00000001" as NonNullable<NetworkInterfaceRecord["attachment"]>["id"],
      instanceId: idOf(n),
      instanceOwnerId: owned.accountId,
      deviceIndex: 0,
      networkCardIndex: 0,
      deleteOnTermination,
      attachTime: 0,
    },
  };
}

let open: { reconciler: InstanceReconciler; store: Store }[] = [];
afterEach(async () => {
  for (const { reconciler, store } of open) {
    await reconciler.stop();
    await store.close();
  }
  open = [];
});

let skewMs = 0;
const clock = { ...systemClock, now: () => Date.now() + skewMs };

async function world(hypervisor: Hypervisor = noHypervisor([])) {
  skewMs = 0;
  const store = await openMemoryStore(allTables);
  const reconciler = startInstanceReconciler({
    store,
    nodeId,
    hypervisor,
    memoryOf: (type) => (type === "h1.nano" ? 128 : undefined),
    gracefulMs: 60_000,
    backOff: { firstMs: 10, maxMs: 50 },
    clock,
    random: seededRandom(1),
    log: silentLog,
  });
  open.push({ reconciler, store });
  const write = async (...writes: Write[]) => {
    const done = await store.transact(() => ok({ writes, value: undefined }));
    expect(done.ok).toBe(true);
  };
  const get = (n: number) => store.read().get(instances, idOf(n));
  const seen = (n: number) => store.read().get(instancesObserved, idOf(n));
  const stateOf = (n: number) => {
    const record = get(n);
    return record && instanceState(record, seen(n));
  };
  const until = async (what: string, condition: () => boolean) => {
    const limit = performance.now() + 5000;
    while (!condition()) {
      if (performance.now() > limit) throw new Error(`within 5 s: ${what}; ${JSON.stringify([get(1), seen(1)])}`);
      await Bun.sleep(1);
    }
  };
  const launch = (n: number, change: Partial<InstanceRecord> = {}) =>
    write(
      put(instances, instance(n, change)),
      put(volumes, volume(n, volumeId(n), "/dev/xvda", true)),
      put(volumes, volume(n, volumeId(n + 0x1000), "/dev/sdf", false)),
      put(networkInterfaces, eni(n, true)),
      put(tags, { ...owned, resourceId: idOf(n), resourceType: "instance", tags: { Name: "x" } }),
    );
  const change = (n: number, with_: Partial<InstanceRecord>) =>
    write(put(instances, { ...present(get(n), "it exists"), ...with_ }));
  return { store, reconciler, launch, change, get, seen, stateOf, until };
}

/** No machines, but guests that do what a test says. */
function scripted() {
  const inner = noHypervisor([]);
  const forced = new Map<InstanceId, Machine>();
  let listener: (id?: InstanceId) => void = () => {};
  const hypervisor: Hypervisor = {
    ...inner,
    observe: async (resync) => new Map([...(await inner.observe(resync)), ...forced]),
    apply: async (desired, step) => {
      if (["reap", "kill", "reset"].includes(step.do)) forced.delete(desired.id);
      return inner.apply(desired, step);
    },
    onChange: (heard) => {
      listener = heard;
    },
  };
  const becomes = async (n: number, machine: Partial<Machine>) => {
    const now = present((await inner.observe(false)).get(idOf(n)), "it runs");
    forced.set(idOf(n), { ...now, ...machine });
    listener(idOf(n));
  };
  return { hypervisor, becomes };
}

test("an instance runs, stops, starts again and is terminated; what it held goes as it should", async () => {
  const { launch, change, get, seen, stateOf, until, store } = await world();
  await launch(1);
  await until("it runs", () => stateOf(1) === "running");
  expect(seen(1)).toMatchObject({ process: "running", bootGeneration: 1, accel: "none", nodeId, cleaned: false });
  expect(store.read().get(networkInterfaces, eniId(1))?.publicIp).toBe("198.18.0.7");

  await change(1, { power: "off", powerChangedAt: Date.now() });
  await until("it is stopped", () => stateOf(1) === "stopped");
  const released = present(store.read().get(networkInterfaces, eniId(1)), "its interface stays");
  expect(released.publicIp).toBeUndefined();
  expect(released.attachment?.instanceId).toBe(idOf(1));

  await change(1, { power: "on", bootGeneration: 2, powerChangedAt: Date.now() });
  await until("it runs again", () => stateOf(1) === "running");
  expect(seen(1)?.bootGeneration).toBe(2);

  await change(1, { rebootGeneration: 1 });
  await until("it was rebooted", () => seen(1)?.rebootGeneration === 1 && stateOf(1) === "running");

  await change(1, { power: "terminated", powerChangedAt: Date.now() });
  await until("it is cleaned up", () => stateOf(1) === "terminated" && seen(1)?.cleaned === true);
  const state = store.read();
  expect(state.get(volumes, volumeId(1))).toBeUndefined();
  expect(present(state.get(volumes, volumeId(0x1001)), "the other volume stays").attachment).toBeUndefined();
  expect(state.get(networkInterfaces, eniId(1))).toBeUndefined();
  expect(get(1)?.blockDevices).toEqual([]);
});

test("a terminated instance is shown for an hour, then forgotten with its tags", async () => {
  const { launch, change, get, seen, until, store, reconciler } = await world();
  await launch(1);
  await change(1, { power: "terminated" });
  await until("it is cleaned up", () => seen(1)?.cleaned === true);
  skewMs = TERMINATED_SHOWN_MS - 60_000;
  reconciler.resync();
  await Bun.sleep(20);
  expect(get(1)).toBeDefined();
  skewMs = TERMINATED_SHOWN_MS + 1000;
  reconciler.resync();
  await until("it is forgotten", () => get(1) === undefined);
  expect(store.read().get(instancesObserved, idOf(1))).toBeUndefined();
  expect(store.read().get(tags, idOf(1))).toBeUndefined();
});

test.each([
  ["stop", "stopped"],
  ["terminate", "terminated"],
] as const)("a guest that shuts itself down with behaviour %s is %s", async (shutdownBehavior, state) => {
  const { hypervisor, becomes } = scripted();
  const { launch, get, stateOf, until } = await world(hypervisor);
  await launch(1, { shutdownBehavior });
  await until("it runs", () => stateOf(1) === "running");
  await becomes(1, { process: "powered-off" });
  await until(`it is ${state}`, () => stateOf(1) === state);
  expect(get(1)?.transition).toEqual({
    code: "Client.InstanceInitiatedShutdown",
    message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
  });
});

test("a guest that shuts down because a reboot asked it to stays running", async () => {
  const { hypervisor, becomes } = scripted();
  const { launch, change, get, stateOf, seen, until } = await world(hypervisor);
  await launch(1);
  await until("it runs", () => stateOf(1) === "running");
  await becomes(1, { process: "running", powerdown: { firstAt: Date.now(), lastAt: Date.now() } });
  await change(1, { rebootGeneration: 1 });
  await becomes(1, { process: "powered-off" });
  await until("it was rebooted", () => seen(1)?.rebootGeneration === 1);
  expect(stateOf(1)).toBe("running");
  expect(get(1)?.power).toBe("on");
});

test("a machine that dies is stopped at once, and says why", async () => {
  const { hypervisor, becomes } = scripted();
  const { launch, get, seen, stateOf, until } = await world(hypervisor);
  await launch(1);
  await until("it runs", () => stateOf(1) === "running");
  await becomes(1, { process: "dead", exit: { cause: "died", reason: "killed by SIGKILL" } });
  await until("it is stopped", () => stateOf(1) === "stopped");
  expect(stateReason(present(get(1), "it exists"), seen(1))).toEqual({
    code: "Server.InternalError",
    message: "Server.InternalError: killed by SIGKILL",
  });
});

test("a first start that fails for good terminates the instance, as on EC2; a later one stops it", async () => {
  const inner = noHypervisor([]);
  let attempts = 0;
  let permanent = true;
  const transition = { code: "Server.InsufficientVolumeCapacity", message: "No space left on device" };
  const hypervisor: Hypervisor = {
    ...inner,
    apply: async (desired, step) => {
      if (step.do !== "spawn") return inner.apply(desired, step);
      attempts++;
      return fail({ permanent, transition });
    },
  };
  const { launch, get, seen, stateOf, until } = await world(hypervisor);
  await launch(1);
  await until("the first is terminated", () => stateOf(1) === "terminated" && seen(1)?.cleaned === true);
  expect(attempts).toBe(1);
  expect(get(1)?.transition).toEqual(transition);
  permanent = false;
  attempts = 0;
  await launch(2, { bootGeneration: 4 });
  await until("the second is stopped", () => stateOf(2) === "stopped");
  expect(attempts).toBe(3);
  expect(stateReason(present(get(2), "it exists"), seen(2))).toEqual(transition);
});

test("an instance of an unknown type fails with a sentence and holds up no other", async () => {
  const { launch, get, stateOf, until } = await world();
  await launch(1, { instanceType: "x9.huge" });
  await launch(2);
  await until("the other runs", () => stateOf(2) === "running");
  await until("it is terminated", () => stateOf(1) === "terminated");
  expect(get(1)?.transition?.message).toContain("x9.huge");
});

test("a step that succeeds and changes nothing is not repeated in a busy loop", async () => {
  const inner = noHypervisor([]);
  let resets = 0;
  const stuck: Hypervisor = {
    ...inner,
    apply: async (desired, step) => {
      if (step.do !== "inject-nmi") return inner.apply(desired, step);
      resets++;
      return ok(undefined);
    },
  };
  const { launch, change, stateOf, until } = await world(stuck);
  await launch(1);
  await until("it runs", () => stateOf(1) === "running");
  await change(1, { interruptGeneration: 1 });
  await Bun.sleep(100);
  expect(resets).toBeGreaterThan(0);
  expect(resets).toBeLessThan(25); // about one in 5 to 10 ms, as the back-off of this test says; without it, tens of thousands
});

test("machines wait for boot slots in the order of their launch", async () => {
  const inner = noHypervisor([]);
  const spawned: string[] = [];
  let slots = 0;
  let listener: (id?: InstanceId) => void = () => {};
  const hypervisor: Hypervisor = {
    ...inner,
    bootSlots: () => slots,
    onChange: (heard) => {
      listener = heard;
    },
    apply: async (desired, step) => {
      if (step.do === "spawn") {
        spawned.push(desired.id);
        slots--;
      }
      return inner.apply(desired, step);
    },
  };
  const { launch, stateOf, until } = await world(hypervisor);
  for (const n of [3, 1, 2]) await launch(n);
  await Bun.sleep(10);
  expect(spawned).toEqual([]);
  for (const n of [1, 2, 3]) {
    slots = 1;
    listener();
    await until(`${n} runs`, () => stateOf(n) === "running");
  }
  expect(spawned).toEqual([1, 2, 3].map(idOf));
});

test("a start that fails leaves its boot slot to those that wait", async () => {
  const inner = noHypervisor([]);
  const failing = Promise.withResolvers<void>();
  let slots = 1;
  const hypervisor: Hypervisor = {
    ...inner,
    bootSlots: () => slots,
    apply: async (desired, step) => {
      if (step.do !== "spawn") return inner.apply(desired, step);
      if (desired.id !== idOf(1)) return inner.apply(desired, step);
      slots = 0;
      await failing.promise;
      slots = 1; // and nobody is told: the slot was never taken
      return fail({ permanent: true, transition: { code: "Server.InternalError", message: "no" } });
    },
  };
  const { launch, stateOf, until } = await world(hypervisor);
  await launch(1);
  await until("the first is being started", () => slots === 0);
  await launch(2);
  await Bun.sleep(10);
  expect(stateOf(2)).toBe("pending");
  failing.resolve();
  await until("the second runs", () => stateOf(2) === "running");
});

test("a machine of no record is removed", async () => {
  const hypervisor = noHypervisor([
    {
      instanceId: idOf(9),
      nodeId,
      process: "running",
      bootGeneration: 1,
      rebootGeneration: 0,
      interruptGeneration: 0,
      accel: "none",
      since: 0,
      cleaned: false,
    },
  ]);
  expect((await hypervisor.observe(false)).size).toBe(1);
  await world(hypervisor);
  const limit = performance.now() + 5000;
  while ((await hypervisor.observe(false)).size > 0 && performance.now() < limit) await Bun.sleep(1);
  expect((await hypervisor.observe(false)).size).toBe(0);
});

test("two thousand instances without machines come up in a few transactions", async () => {
  const { store, until, stateOf } = await world();
  const before = store.status().revision;
  for (let from = 1; from <= 2000; from += 500) {
    const writes = Array.from({ length: 500 }, (_, i) => put(instances, instance(from + i)));
    expect((await store.transact(() => ok({ writes, value: undefined }))).ok).toBe(true);
  }
  await until("all run", () => Array.from({ length: 2000 }, (_, i) => stateOf(i + 1)).every((s) => s === "running"));
  expect(store.status().revision - before).toBeLessThan(40);
});
