/** GetConsoleOutput, GetConsoleScreenshot and SendDiagnosticInterrupt: what reaches the machine itself. */
import { fail, ok } from "../lib/result.ts";
import { KIB } from "../lib/units.ts";
import type { Mutation, Query } from "../model/operation.ts";
import { put } from "../model/store.ts";
import { instances } from "../model/tables.ts";
import type {
  GetConsoleOutputRequest,
  GetConsoleOutputResult,
  GetConsoleScreenshotRequest,
  GetConsoleScreenshotResult,
  SendDiagnosticInterruptRequest,
  Unit,
} from "../schema/ec2/types.ts";
import { notInState } from "./errors.ts";
import { findInstance, stateOf } from "./owned.ts";
import type { ComputePorts } from "./ports.ts";

/** EC2 shows the last 64 KiB. */
export const CONSOLE_OUTPUT_BYTES_MAX = 64 * KIB;

/** With and without Latest alike: what the console printed last is always at hand. */
export const getConsoleOutput = (ports: ComputePorts): Query<GetConsoleOutputRequest, GetConsoleOutputResult> => ({
  kind: "query",
  async answer(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    const output = await ports.consoleOutput(instance.value.id);
    if (!output.ok) return output;
    const { bytes, at } = output.value;
    return ok({
      InstanceId: instance.value.id,
      Timestamp: new Date(at),
      Output: Buffer.from(bytes.subarray(Math.max(0, bytes.length - CONSOLE_OUTPUT_BYTES_MAX))).toString("base64"),
    });
  },
});

export const getConsoleScreenshot = (
  ports: ComputePorts,
): Query<GetConsoleScreenshotRequest, GetConsoleScreenshotResult> => ({
  kind: "query",
  async answer(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    if (stateOf(call.state, instance.value) !== "running") return fail(notInState(instance.value.id, "running"));
    // A trial run presses no key on the console.
    if (input.DryRun) return ok({ InstanceId: instance.value.id });
    const jpeg = await ports.screenshot(instance.value.id, input.WakeUp ?? false);
    if (!jpeg.ok) return jpeg;
    return ok({ InstanceId: instance.value.id, ImageData: Buffer.from(jpeg.value).toString("base64") });
  },
});

/** The node's agent sends one NMI for each new generation. */
export const sendDiagnosticInterrupt: Mutation<SendDiagnosticInterruptRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    if (stateOf(call.state, instance.value) !== "running") return fail(notInState(instance.value.id, "running"));
    const interruptGeneration = instance.value.interruptGeneration + 1;
    return ok({ writes: [put(instances, { ...instance.value, interruptGeneration })], output: {} });
  },
};
