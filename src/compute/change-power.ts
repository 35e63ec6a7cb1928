/** What Start, Stop and Terminate share: a change of `power`, told as EC2 tells it. */
import type { InstanceRecord } from "../model/instance.ts";
import { instanceState } from "../model/instance-state.ts";
import type { Call } from "../model/operation.ts";
import { put, type Write } from "../model/store.ts";
import { instances, instancesObserved } from "../model/tables.ts";
import type { InstanceStateChange } from "../schema/ec2/types.ts";
import { stateOnWire } from "./instance-view.ts";

export interface PowerChange {
  readonly writes: readonly Write[];
  readonly change: InstanceStateChange;
}

/** The change from `before` to `after`; no write when they are one and the same. */
export function powerChange(before: InstanceRecord, after: InstanceRecord, call: Call): PowerChange {
  const seen = call.state.get(instancesObserved, before.id);
  return {
    writes: after === before ? [] : [put(instances, after)],
    change: {
      InstanceId: before.id,
      CurrentState: stateOnWire(instanceState(after, seen)),
      PreviousState: stateOnWire(instanceState(before, seen)),
    },
  };
}
