/** DescribeInstanceAttribute: one attribute of one instance. */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, invalidValueFor } from "../model/errors.ts";
import type { InstanceRecord } from "../model/instance.ts";
import type { Call, Query } from "../model/operation.ts";
import { images } from "../model/tables.ts";
import type { DescribeInstanceAttributeRequest, InstanceAttribute } from "../schema/ec2/types.ts";
import { groupIdentifier, groupsOf, viewBlockDevices } from "./instance-view.ts";
import { findInstance, interfacesOf } from "./owned.ts";

function readAttribute(name: string, instance: InstanceRecord, call: Call): Result<InstanceAttribute, AwsError> {
  const primary = interfacesOf(call.state, instance.id).slice(0, 1);
  switch (name) {
    case "blockDeviceMapping":
      return ok({ BlockDeviceMappings: viewBlockDevices(instance) });
    case "disableApiStop":
      return ok({ DisableApiStop: { Value: instance.disableApiStop } });
    case "disableApiTermination":
      return ok({ DisableApiTermination: { Value: instance.disableApiTermination } });
    case "ebsOptimized":
      return ok({ EbsOptimized: { Value: instance.ebsOptimized } });
    case "enaSupport":
      return ok({ EnaSupport: { Value: call.state.get(images, instance.imageId)?.enaSupport ?? true } });
    case "enclaveOptions":
      return ok({ EnclaveOptions: { Enabled: false } });
    case "groupSet": {
      const groups = groupsOf(call.state, primary);
      const ids = primary[0]?.groupIds ?? [];
      return ok({ Groups: ids.map((id, i) => groupIdentifier(id, groups[i]?.name)) });
    }
    case "instanceInitiatedShutdownBehavior":
      return ok({ InstanceInitiatedShutdownBehavior: { Value: instance.shutdownBehavior } });
    case "instanceType":
      return ok({ InstanceType: { Value: instance.instanceType } });
    case "kernel":
      return ok({ KernelId: {} });
    case "ramdisk":
      return ok({ RamdiskId: {} });
    case "productCodes":
      return ok({ ProductCodes: [] });
    case "rootDeviceName":
      return ok({ RootDeviceName: { Value: instance.rootDeviceName } });
    case "sourceDestCheck":
      return ok({ SourceDestCheck: { Value: primary[0]?.sourceDestCheck ?? true } });
    case "sriovNetSupport":
      return ok({ SriovNetSupport: {} });
    case "userData":
      return ok({ UserData: instance.userData === undefined ? {} : { Value: instance.userData } });
    default:
      return fail(invalidValueFor("attribute", name, "Unknown attribute."));
  }
}

export const describeInstanceAttribute: Query<DescribeInstanceAttributeRequest, InstanceAttribute> = {
  kind: "query",
  answer(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    const attribute = readAttribute(input.Attribute, instance.value, call);
    return attribute.ok ? ok({ ...attribute.value, InstanceId: instance.value.id }) : attribute;
  },
};
