import { expect, test } from "bun:test";
import type { InstanceId, NodeId } from "../model/ids.ts";
import { noHypervisor } from "./no-hypervisor.ts";

test("a machine that an earlier daemon had is found with its devices, so that none is plugged in again", async () => {
  const instanceId = "i-1" as InstanceId;
  const seen = {
    instanceId,
    nodeId: "node-1" as NodeId,
    process: "running",
    bootGeneration: 3,
    rebootGeneration: 1,
    interruptGeneration: 0,
    accel: "none",
    since: 0,
    cleaned: false,
  } as const;
  const hypervisor = noHypervisor([seen], (id) => ({ disks: [`disk of ${id}`], nics: [`interface of ${id}`] }));
  expect((await hypervisor.observe(true)).get(instanceId)).toMatchObject({
    process: "running",
    bootGeneration: 3,
    disks: ["disk of i-1"],
    nics: ["interface of i-1"],
  });
});
