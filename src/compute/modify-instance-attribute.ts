/**
 * ModifyInstanceAttribute and ResetInstanceAttribute: one attribute a call, in either of EC2's two forms: a structure of
 * its own (`InstanceType.Value=…`), or its name in Attribute and its text in Value.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError, invalidParameterCombination, invalidValueFor } from "../model/errors.ts";
import type { InstanceRecord } from "../model/instance.ts";
import type { NetworkInterfaceRecord } from "../model/network.ts";
import type { Call, Mutation } from "../model/operation.ts";
import { put, type Write } from "../model/store.ts";
import { instances, networkInterfaces, volumes, vpcs } from "../model/tables.ts";
import type {
  InstanceBlockDeviceMappingSpecification,
  ModifyInstanceAttributeRequest,
  ResetInstanceAttributeRequest,
  Unit,
} from "../schema/ec2/types.ts";
import { notInState, notYet } from "./errors.ts";
import { oneOf, parseUserData, userDataOf } from "./instance-options.ts";
import { defaultCpuOptions, instanceType } from "./instance-types.ts";
import { findGroups } from "./launch-network.ts";
import { findInstance, interfacesOf, stateOf } from "./owned.ts";

/** The attribute that a request changes, and to what. */
type Change =
  | { readonly attribute: "instanceType" | "instanceInitiatedShutdownBehavior"; readonly value: string }
  | { readonly attribute: "userData"; readonly base64: string | undefined }
  | {
      readonly attribute: "disableApiTermination" | "disableApiStop" | "ebsOptimized" | "sourceDestCheck";
      readonly on: boolean;
    }
  | { readonly attribute: "groupSet"; readonly ids: readonly string[] }
  | { readonly attribute: "blockDeviceMapping"; readonly mappings: readonly InstanceBlockDeviceMappingSpecification[] };

const BOOLEANS = ["disableApiTermination", "disableApiStop", "ebsOptimized", "sourceDestCheck"] as const;

/** Reads the one change. Errors: InvalidParameterCombination for none or several, and those of its value. */
export function readChange(input: ModifyInstanceAttributeRequest): Result<Change, AwsError> {
  const changes: Result<Change, AwsError>[] = [];
  const given: [Change["attribute"], { readonly Value?: boolean | undefined } | undefined][] = [
    ["disableApiTermination", input.DisableApiTermination],
    ["disableApiStop", input.DisableApiStop],
    ["ebsOptimized", input.EbsOptimized],
    ["sourceDestCheck", input.SourceDestCheck],
  ];
  for (const [attribute, value] of given)
    if (value) changes.push(ok({ attribute, on: value.Value ?? false } as Change));
  if (input.InstanceType) changes.push(ok({ attribute: "instanceType", value: input.InstanceType.Value ?? "" }));
  if (input.InstanceInitiatedShutdownBehavior)
    changes.push(
      ok({
        attribute: "instanceInitiatedShutdownBehavior",
        value: input.InstanceInitiatedShutdownBehavior.Value ?? "",
      }),
    );
  if (input.UserData) {
    const data = userDataOf(input.UserData.Value ?? new Uint8Array());
    changes.push(data.ok ? ok({ attribute: "userData", base64: data.value }) : data);
  }
  if (input.Groups?.length) changes.push(ok({ attribute: "groupSet", ids: input.Groups }));
  if (input.BlockDeviceMappings?.length)
    changes.push(ok({ attribute: "blockDeviceMapping", mappings: input.BlockDeviceMappings }));
  if (input.Kernel || input.Ramdisk) changes.push(fail(notYet("A paravirtual kernel or RAM disk")));
  if (input.EnclaveOptions) changes.push(fail(notYet("AWS Nitro Enclaves")));
  if (input.EnaSupport || input.SriovNetSupport)
    changes.push(fail(notYet("Changing enhanced networking of an instance")));
  // Attribute beside a structure only repeats what the structure says.
  if (input.Attribute !== undefined && changes.length === 0) changes.push(readNamed(input.Attribute, input.Value));
  if (changes.length === 0) return fail(invalidParameterCombination("No attributes specified."));
  return changes.length > 1
    ? fail(invalidParameterCombination("Fields for multiple attribute types specified"))
    : changes[0]!;
}

/** The Attribute and Value form. */
function readNamed(attribute: string, value: string | undefined): Result<Change, AwsError> {
  if (value === undefined) return fail(awsError("MissingParameter", "The request must contain the parameter value"));
  const boolean = BOOLEANS.find((name) => name === attribute);
  if (boolean) {
    const text = value.toLowerCase();
    return text === "true" || text === "false"
      ? ok({ attribute: boolean, on: text === "true" })
      : fail(invalidValueFor("value", value, "It must be true or false."));
  }
  switch (attribute) {
    case "instanceType":
    case "instanceInitiatedShutdownBehavior":
      return ok({ attribute, value });
    case "userData": {
      const data = parseUserData(value);
      return data.ok ? ok({ attribute, base64: data.value }) : data;
    }
    case "groupSet":
      return ok({ attribute, ids: [value] });
    default:
      return fail(invalidValueFor("attribute", attribute, "This attribute cannot be modified in this form."));
  }
}

function decideChange(change: Change, instance: InstanceRecord, call: Call): Result<Write[], AwsError> {
  switch (change.attribute) {
    case "instanceType":
      return changeType(change.value, instance, call);
    case "userData": {
      if (stateOf(call.state, instance) !== "stopped") return fail(notInState(instance.id, "stopped"));
      const { userData: _, ...rest } = instance;
      return ok([put(instances, change.base64 === undefined ? rest : { ...rest, userData: change.base64 })]);
    }
    case "instanceInitiatedShutdownBehavior": {
      const behavior = oneOf(change.attribute, change.value, ["stop", "terminate"]);
      return behavior.ok ? ok([put(instances, { ...instance, shutdownBehavior: behavior.value })]) : behavior;
    }
    case "disableApiTermination":
      return ok([put(instances, { ...instance, disableApiTermination: change.on })]);
    case "disableApiStop":
      return ok([put(instances, { ...instance, disableApiStop: change.on })]);
    case "ebsOptimized": {
      if (stateOf(call.state, instance) !== "stopped") return fail(notInState(instance.id, "stopped"));
      if (change.on && instanceType(call.config, instance.instanceType)?.hypervisor === "xen")
        return fail(
          invalidParameterCombination(
            `EBS-optimized instances are not supported for instance type ${instance.instanceType}.`,
          ),
        );
      return ok([put(instances, { ...instance, ebsOptimized: change.on })]);
    }
    case "sourceDestCheck": {
      const eni = onlyInterface(instance, call);
      return eni.ok ? ok([put(networkInterfaces, { ...eni.value, sourceDestCheck: change.on })]) : eni;
    }
    case "groupSet": {
      const eni = onlyInterface(instance, call);
      if (!eni.ok) return eni;
      const vpc = call.state.get(vpcs, eni.value.vpcId)!;
      const groupIds = findGroups(call, vpc, change.ids, undefined, eni.value.subnetId);
      return groupIds.ok ? ok([put(networkInterfaces, { ...eni.value, groupIds: groupIds.value })]) : groupIds;
    }
    case "blockDeviceMapping":
      return changeDevices(change.mappings, instance, call);
  }
}

function changeType(name: string, instance: InstanceRecord, call: Call): Result<Write[], AwsError> {
  if (stateOf(call.state, instance) !== "stopped") return fail(notInState(instance.id, "stopped"));
  const type = instanceType(call.config, name);
  if (!type)
    return fail(awsError("InvalidInstanceAttributeValue", `The instanceType attribute value '${name}' is not valid.`));
  if (name === instance.instanceType) return ok([]);
  const interfaces = interfacesOf(call.state, instance.id);
  if (interfaces.length > type.maximumNetworkInterfaces)
    return fail(
      awsError("AttachmentLimitExceeded", `Interface count ${interfaces.length} exceeds the limit for ${name}`),
    );
  if (interfaces.some((eni) => eni.privateIpAddresses.length > type.ipv4AddressesPerInterface))
    return fail(awsError("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit."));
  return ok([
    put(instances, {
      ...instance,
      instanceType: name,
      cpuOptions: defaultCpuOptions(type),
      ebsOptimized: instance.ebsOptimized && type.hypervisor === "nitro",
    }),
  ]);
}

/** The interface that an instance-level attribute speaks of. Errors: InvalidInstanceID when there are several. */
function onlyInterface(instance: InstanceRecord, call: Call): Result<NetworkInterfaceRecord, AwsError> {
  const interfaces = interfacesOf(call.state, instance.id);
  if (interfaces.length > 1)
    return fail(
      awsError(
        "InvalidInstanceID",
        `There are multiple interfaces attached to instance '${instance.id}'. Please specify an interface ID for the operation instead.`,
      ),
    );
  return interfaces[0] ? ok(interfaces[0]) : fail(notInState(instance.id, "running"));
}

function changeDevices(
  mappings: readonly InstanceBlockDeviceMappingSpecification[],
  instance: InstanceRecord,
  call: Call,
): Result<Write[], AwsError> {
  let blockDevices = instance.blockDevices;
  const writes: Write[] = [];
  for (const { DeviceName: name, Ebs: ebs } of mappings) {
    const device = blockDevices.find((one) => one.deviceName === name);
    if (!device)
      return fail(
        awsError("InvalidInstanceAttributeValue", `No device is currently mapped at ${name ?? "the unnamed device"}`),
      );
    const other = ebs?.VolumeId !== undefined && ebs.VolumeId !== device.volumeId;
    if (other)
      return fail(
        awsError(
          "InvalidInstanceAttributeValue",
          `The volume at ${name} is '${device.volumeId}', not '${ebs.VolumeId}'`,
        ),
      );
    if (ebs?.DeleteOnTermination === undefined) continue;
    const deleteOnTermination = ebs.DeleteOnTermination;
    blockDevices = blockDevices.map((one) => (one === device ? { ...one, deleteOnTermination } : one));
    const volume = call.state.get(volumes, device.volumeId);
    if (volume?.attachment)
      writes.push(put(volumes, { ...volume, attachment: { ...volume.attachment, deleteOnTermination } }));
  }
  return ok([put(instances, { ...instance, blockDevices }), ...writes]);
}

export const modifyInstanceAttribute: Mutation<ModifyInstanceAttributeRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    const change = readChange(input);
    if (!change.ok) return change;
    if (instance.value.power === "terminated") return fail(notInState(instance.value.id, "stopped"));
    const writes = decideChange(change.value, instance.value, call);
    return writes.ok ? ok({ writes: writes.value, output: {} }) : writes;
  },
};

export const resetInstanceAttribute: Mutation<ResetInstanceAttributeRequest, Unit> = {
  kind: "mutation",
  decide(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    switch (input.Attribute) {
      case "sourceDestCheck": {
        const eni = onlyInterface(instance.value, call);
        return eni.ok
          ? ok({ writes: [put(networkInterfaces, { ...eni.value, sourceDestCheck: true })], output: {} })
          : eni;
      }
      case "kernel":
      case "ramdisk":
        // Machines of the hvm kind have neither: they are at their default already.
        return stateOf(call.state, instance.value) === "stopped"
          ? ok({ writes: [], output: {} })
          : fail(notInState(instance.value.id, "stopped"));
      default:
        return fail(invalidValueFor("attribute", input.Attribute, "It can be kernel, ramdisk or sourceDestCheck."));
    }
  },
};
