import type { Result } from "../lib/result.ts";
import type { AwsError } from "../model/errors.ts";
import type { InstanceId } from "../model/ids.ts";

/** What the compute API asks of the hosts that run the machines. The daemon joins them to the agents. */
export interface ComputePorts {
  /** What the serial console printed, the newest last, and when the last byte came (epoch ms). */
  consoleOutput(instanceId: InstanceId): Promise<Result<{ readonly bytes: Uint8Array; readonly at: number }, AwsError>>;
  /** The display as a JPEG. `wakeUp` presses a key first, to end a screen saver. */
  screenshot(instanceId: InstanceId, wakeUp: boolean): Promise<Result<Uint8Array, AwsError>>;
}
