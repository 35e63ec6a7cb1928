import { describe, expect, test } from "bun:test";
import type { InstanceId, NodeId } from "./ids.ts";
import type { InstanceObserved, InstanceRecord } from "./instance.ts";
import { type InstanceStateName, instanceState, stateReason } from "./instance-state.ts";

const wanted = (power: InstanceRecord["power"], bootGeneration = 1): InstanceRecord =>
  ({
    power,
    bootGeneration,
    transition: { code: "Client.UserInitiatedShutdown", message: "User initiated" },
  }) as InstanceRecord;
const seen = (process: InstanceObserved["process"], bootGeneration = 1): InstanceObserved => ({
  instanceId: "i-0" as InstanceId,
  nodeId: "n" as NodeId,
  process,
  bootGeneration,
  rebootGeneration: 0,
  interruptGeneration: 0,
  accel: "tcg",
  since: 0,
  cleaned: false,
});

const table: [string, InstanceRecord, InstanceObserved | undefined, InstanceStateName][] = [
  ["asked for, not yet seen", wanted("on"), undefined, "pending"],
  ["its process starts", wanted("on"), seen("starting"), "pending"],
  ["its process runs", wanted("on"), seen("running"), "running"],
  ["started again while the old process still runs", wanted("on", 2), seen("running", 1), "pending"],
  ["started again after a stop", wanted("on", 2), seen("absent", 1), "pending"],
  ["could not be started", wanted("on"), seen("failed"), "pending"],
  ["asked to stop, still running", wanted("off"), seen("running"), "stopping"],
  ["asked to stop, shutting down", wanted("off"), seen("stopping"), "stopping"],
  ["stopped", wanted("off"), seen("absent"), "stopped"],
  ["stopped before it was ever seen", wanted("off"), undefined, "stopped"],
  ["failed, then stopped", wanted("off"), seen("failed"), "stopped"],
  ["asked to end, still running", wanted("terminated"), seen("running"), "shutting-down"],
  ["ended", wanted("terminated"), seen("absent"), "terminated"],
];
test.each(table)("%s", (_, instance, observed, state) => expect(instanceState(instance, observed)).toBe(state));

describe("the reason", () => {
  test("of a machine that cannot start is what its node saw", () => {
    const reason = { code: "Server.InternalError", message: "no disk" };
    expect(stateReason(wanted("on"), { ...seen("failed"), reason })).toEqual(reason);
  });
  test("of a stopped machine is who stopped it", () => {
    expect(stateReason(wanted("off"), seen("absent"))?.code).toBe("Client.UserInitiatedShutdown");
  });
  test("of a running machine is none", () => {
    expect(stateReason(wanted("on"), seen("running"))).toBeUndefined();
  });
  test("of one that runs with no machine behind it says just that", () => {
    const reason = stateReason(wanted("on"), { ...seen("running"), accel: "none" });
    expect(reason?.message).toContain("--accel none");
  });
});
