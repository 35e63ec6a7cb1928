/**
 * DescribeInstanceCreditSpecifications: Hive's vCPUs never slow down for want of credits, so what burstable instances have
 * is `unlimited`.
 */
import { ok } from "../lib/result.ts";
import type { InstanceRecord } from "../model/instance.ts";
import type { Call, Describe } from "../model/operation.ts";
import { instances } from "../model/tables.ts";
import { memoView } from "../model/view.ts";
import type {
  DescribeInstanceCreditSpecificationsRequest,
  DescribeInstanceCreditSpecificationsResult,
  InstanceCreditSpecification,
} from "../schema/ec2/types.ts";
import { instanceType } from "./instance-types.ts";
import { allOwned, getOwned } from "./owned.ts";

const view = memoView(
  (instance: InstanceRecord): InstanceCreditSpecification => ({ InstanceId: instance.id, CpuCredits: "unlimited" }),
);
const burstable = (instance: InstanceRecord, { config }: Call): boolean =>
  instanceType(config, instance.instanceType)?.burstable === true && instance.power !== "terminated";

export const describeInstanceCreditSpecifications: Describe<
  DescribeInstanceCreditSpecificationsRequest,
  DescribeInstanceCreditSpecificationsResult,
  InstanceCreditSpecification
> = {
  kind: "describe",
  ids: {
    kind: "Instance",
    of: (input) => input.InstanceIds,
    idOf: (item) => item.InstanceId!,
    get(id, _input, call) {
      const instance = getOwned(call, instances, id);
      return instance && view(instance);
    },
  },
  list: (_input, call) =>
    ok(
      allOwned(call, instances)
        .filter((instance) => burstable(instance, call))
        .map((instance) => view(instance)),
    ),
  page: { min: 5, max: 1000, key: (item) => item.InstanceId! },
  answer: (items) => ({ InstanceCreditSpecifications: items }),
};
