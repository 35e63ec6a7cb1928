/**
 * DescribeInstanceStatus. What Hive can vouch for: the machine runs (instance status), and its node has a network (system
 * status). A machine counts as initializing for its first seconds, as its guest cannot answer yet.
 */
import { ok } from "../lib/result.ts";
import type { NodeRecord } from "../model/common-records.ts";
import { zonesOf } from "../model/config.ts";
import type { InstanceObserved, InstanceRecord } from "../model/instance.ts";
import { instanceState } from "../model/instance-state.ts";
import type { Call, Describe } from "../model/operation.ts";
import { instances, instancesObserved, nodes } from "../model/tables.ts";
import { memoView } from "../model/view.ts";
import { zoneId } from "../model/zones.ts";
import type {
  DescribeInstanceStatusRequest,
  DescribeInstanceStatusResult,
  InstanceStatus,
  InstanceStatusSummary,
  StatusType,
  SummaryStatus,
} from "../schema/ec2/types.ts";
import { stateOnWire } from "./instance-view.ts";
import { allOwned, getOwned } from "./owned.ts";

/** How long a machine is initializing after it was seen to run. */
export const INITIALIZING_MS = 10_000;

const summary = (Status: SummaryStatus, reachability: StatusType): InstanceStatusSummary => ({
  Status,
  Details: [{ Name: "reachability", Status: reachability }],
});
const OK = summary("ok", "passed");
const INITIALIZING = summary("initializing", "initializing");
const IMPAIRED = summary("impaired", "failed");
const NOT_APPLICABLE: InstanceStatusSummary = { Status: "not-applicable" };

const viewStatus = memoView(
  (
    instance: InstanceRecord,
    observed: InstanceObserved | undefined,
    networkOk: boolean,
    initializing: boolean,
    zone: string,
  ): InstanceStatus => {
    const state = instanceState(instance, observed);
    const runs = state === "running";
    const system = !runs ? NOT_APPLICABLE : networkOk ? (initializing ? INITIALIZING : OK) : IMPAIRED;
    const own = !runs ? NOT_APPLICABLE : initializing ? INITIALIZING : OK;
    return {
      AvailabilityZone: instance.zone,
      AvailabilityZoneId: zone,
      Operator: { Managed: false },
      Events: [],
      InstanceId: instance.id,
      InstanceState: stateOnWire(state),
      InstanceStatus: own,
      SystemStatus: system,
      AttachedEbsStatus: own === OK ? { Status: "ok", Details: [{ Name: "reachability", Status: "passed" }] } : own,
    };
  },
);

/** A node with no network to give (`none`) is not impaired for it. */
const networkWorks = (node: NodeRecord | undefined): boolean =>
  node !== undefined && (node.network.ok || node.network.mode === "none");

function view(instance: InstanceRecord, { state, config, region, now }: Call): InstanceStatus {
  const observed = state.get(instancesObserved, instance.id);
  const initializing = observed?.process === "running" && now - observed.since < INITIALIZING_MS;
  const works = networkWorks(state.get(nodes, instance.nodeId));
  return viewStatus(instance, observed, works, initializing, zoneId(region, zonesOf(config), instance.zone));
}

const shown = (status: InstanceStatus, input: DescribeInstanceStatusRequest): boolean =>
  input.IncludeAllInstances === true || status.InstanceState?.Name === "running";

export const describeInstanceStatus: Describe<
  DescribeInstanceStatusRequest,
  DescribeInstanceStatusResult,
  InstanceStatus
> = {
  kind: "describe",
  ids: {
    kind: "Instance",
    of: (input) => input.InstanceIds,
    idOf: (status) => status.InstanceId!,
    get(id, _input, call) {
      const instance = getOwned(call, instances, id);
      return instance && view(instance, call);
    },
  },
  list: (input, call) =>
    ok(
      allOwned(call, instances)
        .map((instance) => view(instance, call))
        .filter((status) => shown(status, input)),
    ),
  filters: {
    "instance-status.reachability": (status) => status.InstanceStatus?.Details?.map((detail) => detail.Status),
    "instance-status.status": (status) => status.InstanceStatus?.Status,
    "system-status.reachability": (status) => status.SystemStatus?.Details?.map((detail) => detail.Status),
  },
  page: { min: 5, max: 1000, key: (status) => status.InstanceId! },
  // Named instances that do not run are left out here: they exist, and so are no error.
  answer: (items, input) => ({ InstanceStatuses: items.filter((status) => shown(status, input)) }),
};
