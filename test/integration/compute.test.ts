/** The compute agent whole: records in the store, the reconciler, and real guests. The API above it is not needed. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { openMemoryStore } from "../../src/cluster/open-memory-store.ts";
import { startInstanceReconciler } from "../../src/compute/reconcile-instances.ts";
import { findGuests } from "../../src/host/hypervisor/process.ts";
import { present } from "../../src/lib/assert.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLog } from "../../src/lib/log.ts";
import { ok } from "../../src/lib/result.ts";
import { type AccountId, type NodeId, newId } from "../../src/model/ids.ts";
import type { ImageRecord } from "../../src/model/image.ts";
import type { InstanceRecord } from "../../src/model/instance.ts";
import { instanceState, stateReason } from "../../src/model/instance-state.ts";
import { put, type Store, type Write } from "../../src/model/store.ts";
import { allTables, images, instances, instancesObserved, snapshots, volumes } from "../../src/model/tables.ts";
import { ComputeLab, printed, random, until, WAIT_MS } from "./compute-lab.ts";

const TEST_MS = 3 * WAIT_MS;
const nodeId = "node-1" as NodeId;
const accountId = "000000000000" as AccountId;
const owned = { accountId, region: "us-east-1", createdAt: 0 };
let lab: ComputeLab;
let store: Store;
const imageId = newId("Image", random);
beforeAll(async () => {
  lab = await ComputeLab.open();
  store = await openMemoryStore(allTables);
  const image: ImageRecord = {
    id: imageId,
    region: "us-east-1",
    ownerId: accountId,
    name: "tiny",
    architecture: "x86_64",
    state: "available",
    createdAt: 0,
    rootDeviceName: "/dev/xvda",
    blockDevices: [
      {
        deviceName: "/dev/xvda",
        snapshotId: lab.snapshotId,
        volumeType: "gp3",
        deleteOnTermination: true,
        encrypted: false,
      },
    ],
    enaSupport: true,
    platformDetails: "Linux/UNIX",
    public: false,
    launchAccounts: [],
    imageLocation: "",
    directBoot: {
      kernelFile: "vmlinuz",
      initrdFile: "initrd",
      commandLine: present(lab.image.kernelCommandLine, "tiny has a command line"),
    },
  };
  await write(
    put(images, image),
    put(snapshots, {
      id: lab.snapshotId,
      region: "us-east-1",
      ownerId: accountId,
      nodeId,
      state: "completed",
      startTime: 0,
      description: "",
      volumeSize: 1,
      virtualBytes: lab.image.virtualBytes,
    }),
  );
}, TEST_MS);
afterAll(async () => {
  await lab?.close();
  await store?.close();
}, TEST_MS);

async function write(...writes: Write[]): Promise<void> {
  const done = await store.transact(() => ok({ writes, value: undefined }));
  expect(done.ok).toBe(true);
}

/** What RunInstances writes. */
async function launch(change: Partial<InstanceRecord> = {}) {
  const [id, volumeId] = [newId("Instance", random), newId("Volume", random)];
  const instance: InstanceRecord = {
    ...owned,
    id,
    zone: "us-east-1a",
    nodeId,
    reservationId: newId("Reservation", random),
    launchIndex: 0,
    launchedBy: "root",
    launchTime: Date.now(),
    imageId,
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
    blockDevices: [{ deviceName: "/dev/xvda", volumeId, deleteOnTermination: true, attachTime: 0 }],
    ...change,
  };
  await write(
    put(instances, instance),
    put(volumes, {
      ...owned,
      id: volumeId,
      zone: "us-east-1a",
      nodeId,
      size: 2,
      volumeType: "gp3",
      encrypted: false,
      snapshotId: lab.snapshotId,
      attachment: { instanceId: id, deviceName: "/dev/xvda", deleteOnTermination: true, attachTime: 0 },
    }),
  );
  const get = () => present(store.read().get(instances, id), "its record is there");
  const seen = () => store.read().get(instancesObserved, id);
  return {
    id,
    volume: join(lab.dataDir, "volumes", `${volumeId}.qcow2`),
    get,
    seen,
    change: (with_: Partial<InstanceRecord>) =>
      write(put(instances, { ...get(), powerChangedAt: Date.now(), ...with_ })),
    reason: () => stateReason(get(), seen()),
    becomes: (state: string) => until(`${id} is ${state}`, () => instanceState(get(), seen()) === state),
  };
}

let stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops) await stop(); // two agents on one directory would fight
  stops = [];
}, TEST_MS);

async function startAgent() {
  const hypervisor = await lab.hypervisor();
  const reconciler = startInstanceReconciler({
    store,
    nodeId,
    hypervisor,
    memoryOf: () => 128,
    gracefulMs: WAIT_MS,
    clock: systemClock,
    random,
    log: silentLog,
  });
  const boots = (id: Parameters<typeof printed>[1]) => printed(hypervisor, id).split("HIVE:init").length - 1;
  const stop = async () => {
    await reconciler.stop();
    hypervisor.close();
  };
  stops.push(stop);
  return { hypervisor, boots, stop };
}

test(
  "from records to a guest and back: run, reboot, stop, start with the same disk, kill, terminate, across daemons",
  async () => {
    let agent = await startAgent();
    const vm = await launch();
    await vm.becomes("running");
    await until("the guest's init runs", () => agent.boots(vm.id) === 1);
    const pid = vm.seen()?.pid;

    // A daemon that goes and comes back changes nothing.
    await agent.stop();
    agent = await startAgent();
    await until("its console is taken up", () => agent.hypervisor.console(vm.id) !== undefined);
    expect(instanceState(vm.get(), vm.seen())).toBe("running");
    expect(vm.seen()?.pid).toBe(pid);

    await vm.change({ rebootGeneration: 1 });
    await until("it boots a second time in the same process", () => agent.boots(vm.id) === 2);
    await until("the reboot is seen", () => vm.seen()?.rebootGeneration === 1);
    expect(vm.seen()?.pid).toBe(pid);

    await vm.change({ power: "off" });
    await vm.becomes("stopped");
    expect(findGuests(lab.dataDir).has(vm.id)).toBe(false);
    expect(existsSync(vm.volume)).toBe(true);

    await vm.change({ power: "on", bootGeneration: 2 });
    await vm.becomes("running");
    await until("it boots from its own disk again", () => agent.boots(vm.id) === 1);

    process.kill(present(vm.seen()?.pid, "it has a process"), "SIGKILL");
    await vm.becomes("stopped");
    expect(vm.reason()?.code).toBe("Server.InternalError");
    expect(vm.reason()?.message).toContain("SIGKILL");

    await vm.change({ power: "terminated" });
    await until("it is cleaned up", () => vm.seen()?.cleaned === true);
    expect(existsSync(vm.volume)).toBe(false);
    expect(vm.get().blockDevices).toEqual([]);
    await agent.stop();
  },
  TEST_MS,
);

test(
  "a guest that powers itself off while no daemon runs is terminated when one comes, as its record says",
  async () => {
    const first = await startAgent();
    const vm = await launch({ shutdownBehavior: "terminate" });
    await vm.becomes("running");
    const type = (text: string) => first.hypervisor.console(vm.id)?.write(Buffer.from(`${text}\r`));
    await until("a shell answers", async () => {
      type("echo shell-$((40 + 2))");
      await Bun.sleep(500);
      return printed(first.hypervisor, vm.id).includes("shell-42");
    });
    type("sleep 3; poweroff; echo po''wered");
    await until("the guest has taken the line", () =>
      /poweroff; echo po''wered\r?\n/.test(printed(first.hypervisor, vm.id)),
    );
    await first.stop();
    await Bun.sleep(100);
    const second = await startAgent();
    await vm.becomes("terminated");
    expect(vm.reason()?.code).toBe("Client.InstanceInitiatedShutdown");
    await until("it is cleaned up", () => vm.seen()?.cleaned === true);
    expect(existsSync(vm.volume)).toBe(false);
    await second.stop();
  },
  TEST_MS,
);

test(
  "a machine that cannot be started ends as a terminated instance that says why, and leaves no file",
  async () => {
    const agent = await startAgent();
    const vm = await launch({ cpuOptions: { coreCount: 4096, threadsPerCore: 1 } });
    await vm.becomes("terminated");
    expect(vm.reason()?.message).toMatch(/QEMU\) ended with exit code 1 .*(CPU|cpus)/i);
    await until("it is cleaned up", () => vm.seen()?.cleaned === true);
    expect(existsSync(vm.volume)).toBe(false);
    expect(readdirSync(join(lab.dataDir, "volumes")).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    await agent.stop();
  },
  TEST_MS,
);
