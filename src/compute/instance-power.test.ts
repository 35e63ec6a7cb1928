import { afterEach, beforeEach, expect, test } from "bun:test";
import { type ComputeWorld, computeWorld } from "../../test/support/compute-world.ts";
import { put } from "../model/store.ts";
import { instances, networkInterfaces } from "../model/tables.ts";

let world: ComputeWorld;
let id: string;
beforeEach(async () => {
  world = await computeWorld();
  [id] = (await world.launch()) as [string];
});
afterEach(() => world.close());

const shown = async () => (await world.ok("DescribeInstances", { InstanceIds: [id] })).Reservations![0]!.Instances![0]!;
const record = () => world.store.read().get(instances, id)!;

test("an instance is pending, running, stopping, stopped, and says who stopped it and when", async () => {
  expect((await shown()).State).toEqual({ Code: 0, Name: "pending" });
  await world.observe(id, "running");
  expect((await shown()).State).toEqual({ Code: 16, Name: "running" });
  expect((await shown()).StateReason).toBeUndefined();

  world.now += 60_000;
  const stop = await world.ok("StopInstances", { InstanceIds: [id] });
  expect(stop.StoppingInstances).toEqual([
    { InstanceId: id, CurrentState: { Code: 64, Name: "stopping" }, PreviousState: { Code: 16, Name: "running" } },
  ]);
  await world.observe(id, "absent");
  const stopped = await shown();
  expect(stopped.State).toEqual({ Code: 80, Name: "stopped" });
  expect(stopped.StateTransitionReason).toBe("User initiated (2026-01-01 00:01:00 GMT)");
  expect(stopped.StateReason).toEqual({
    Code: "Client.UserInitiatedShutdown",
    Message: "Client.UserInitiatedShutdown: User initiated shutdown",
  });
  // Once more changes nothing.
  const again = await world.ok("StopInstances", { InstanceIds: [id] });
  expect(again.StoppingInstances![0]).toMatchObject({
    CurrentState: { Name: "stopped" },
    PreviousState: { Name: "stopped" },
  });
});

test("a start is a new boot with a new launch time and a public address", async () => {
  await world.observe(id, "running");
  await world.ok("StopInstances", { InstanceIds: [id] });
  await world.observe(id, "absent");
  const eni = world.store.read().all(networkInterfaces)[0]!;
  const { publicIp: _, ...released } = eni;
  await world.write([put(networkInterfaces, released)]);
  expect((await shown()).PublicIpAddress).toBeUndefined();

  world.now += 5000;
  const start = await world.ok("StartInstances", { InstanceIds: [id] });
  expect(start.StartingInstances).toEqual([
    { InstanceId: id, CurrentState: { Code: 0, Name: "pending" }, PreviousState: { Code: 80, Name: "stopped" } },
  ]);
  const started = await shown();
  expect(started.PublicIpAddress).toMatch(/^198\.18\./);
  expect(started.LaunchTime).toEqual(new Date(world.now));
  expect(started.StateTransitionReason).toBe("");
  expect(record()).toMatchObject({ bootGeneration: 2, power: "on", forced: false });
  expect(record().transition).toBeUndefined();
  const again = await world.ok("StartInstances", { InstanceIds: [id] });
  expect(again.StartingInstances![0]).toMatchObject({
    CurrentState: { Name: "pending" },
    PreviousState: { Name: "pending" },
  });
  expect(record().bootGeneration).toBe(2);
});

test("force makes a stop that is under way forced, and keeps its time", async () => {
  await world.observe(id, "running");
  await world.ok("StopInstances", { InstanceIds: [id] });
  const at = record().powerChangedAt;
  await world.observe(id, "stopping");
  world.now += 1000;
  await world.ok("StopInstances", { InstanceIds: [id], Force: true });
  expect(record()).toMatchObject({ forced: true, powerChangedAt: at, power: "off" });
});

test("a terminated instance loses its addresses, can be terminated again, and nothing else", async () => {
  await world.observe(id, "running");
  const first = await world.ok("TerminateInstances", { InstanceIds: [id] });
  expect(first.TerminatingInstances![0]).toEqual({
    InstanceId: id,
    CurrentState: { Code: 32, Name: "shutting-down" },
    PreviousState: { Code: 16, Name: "running" },
  });
  await world.observe(id, "absent");
  const gone = await shown();
  expect(gone.State).toEqual({ Code: 48, Name: "terminated" });
  expect(gone).toMatchObject({
    NetworkInterfaces: [],
    BlockDeviceMappings: [],
    SecurityGroups: [],
    PrivateDnsName: "",
  });
  expect(gone.PrivateIpAddress).toBeUndefined();
  expect(gone.VpcId).toBeUndefined();
  const again = await world.ok("TerminateInstances", { InstanceIds: [id, id] });
  expect(again.TerminatingInstances).toHaveLength(1);
  const state = "is not in a state from which it can be";
  expect(await world.refusal("StartInstances", { InstanceIds: [id] })).toBe(
    `IncorrectInstanceState: The instance '${id}' ${state} started.`,
  );
  expect(await world.refusal("StopInstances", { InstanceIds: [id] })).toContain(`${state} stopped.`);
  expect(await world.refusal("RebootInstances", { InstanceIds: [id] })).toContain(`${state} rebooted.`);
  expect(
    await world.refusal("ModifyInstanceAttribute", { InstanceId: id, DisableApiTermination: { Value: true } }),
  ).toStartWith("IncorrectInstanceState");
});

test("a pending instance cannot be stopped, but terminated", async () => {
  expect(await world.refusal("StopInstances", { InstanceIds: [id] })).toStartWith("IncorrectInstanceState");
  expect(await world.refusal("RebootInstances", { InstanceIds: [id] })).toStartWith("IncorrectInstanceState");
  const done = await world.ok("TerminateInstances", { InstanceIds: [id] });
  expect(done.TerminatingInstances![0]!.PreviousState!.Name).toBe("pending");
});

test("protection guards against termination and stopping, and one protected instance guards the others of the call", async () => {
  const [other] = (await world.launch()) as [string];
  await world.observe(id, "running");
  await world.ok("ModifyInstanceAttribute", { InstanceId: id, DisableApiTermination: { Value: true } });
  await world.ok("ModifyInstanceAttribute", { InstanceId: id, Attribute: "disableApiStop", Value: "true" });
  expect(await world.refusal("TerminateInstances", { InstanceIds: [other, id] })).toBe(
    `OperationNotPermitted: The instance '${id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.`,
  );
  expect(world.store.read().get(instances, other)!.power).toBe("on");
  expect(await world.refusal("StopInstances", { InstanceIds: [id] })).toBe(
    `OperationNotPermitted: The instance '${id}' may not be stopped. Modify its 'disableApiStop' instance attribute and try again.`,
  );
});

test("a reboot and an interrupt are counted, on a running instance only", async () => {
  expect(await world.refusal("SendDiagnosticInterrupt", { InstanceId: id })).toStartWith("IncorrectInstanceState");
  await world.observe(id, "running");
  await world.ok("RebootInstances", { InstanceIds: [id] });
  await world.ok("SendDiagnosticInterrupt", { InstanceId: id });
  expect(record()).toMatchObject({ rebootGeneration: 1, interruptGeneration: 1, bootGeneration: 1 });
});

test("hibernation is refused", async () => {
  await world.observe(id, "running");
  expect(await world.refusal("StopInstances", { InstanceIds: [id], Hibernate: true })).toStartWith(
    "UnsupportedHibernationConfiguration",
  );
});

test("ids are malformed before they are missing, and the missing ones are all named", async () => {
  const none = ["i-00000000000000001", "i-00000000000000002"];
  expect(await world.refusal("StartInstances", { InstanceIds: [...none, "i-x"] })).toBe(
    `InvalidInstanceID.Malformed: Invalid id: "i-x"`,
  );
  expect(await world.refusal("TerminateInstances", { InstanceIds: [id, ...none] })).toBe(
    `InvalidInstanceID.NotFound: The instance IDs '${none.join(", ")}' do not exist`,
  );
  expect(await world.refusal("TerminateInstances", { InstanceIds: [id] }, "999999999999" as never)).toStartWith(
    "InvalidInstanceID.NotFound",
  );
});

test("an instance whose guest shut itself down says so", async () => {
  await world.observe(id, "absent");
  await world.write([
    put(instances, {
      ...record(),
      power: "off",
      transition: {
        code: "Client.InstanceInitiatedShutdown",
        message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
      },
    }),
  ]);
  expect(await shown()).toMatchObject({
    State: { Name: "stopped" },
    StateTransitionReason: "",
    StateReason: {
      Code: "Client.InstanceInitiatedShutdown",
      Message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
    },
  });
});

test("monitoring is switched on and off", async () => {
  const on = await world.ok("MonitorInstances", { InstanceIds: [id] });
  expect(on.InstanceMonitorings).toEqual([{ InstanceId: id, Monitoring: { State: "enabled" } }]);
  expect((await shown()).Monitoring).toEqual({ State: "enabled" });
  await world.ok("UnmonitorInstances", { InstanceIds: [id] });
  expect((await shown()).Monitoring).toEqual({ State: "disabled" });
});
