/** ModifyInstanceMetadataOptions, ModifyInstanceMaintenanceOptions and ModifyPrivateDnsNameOptions. */
import { fail, ok } from "../lib/result.ts";
import type { Mutation } from "../model/operation.ts";
import { put } from "../model/store.ts";
import { instances } from "../model/tables.ts";
import type {
  ModifyInstanceMaintenanceOptionsRequest,
  ModifyInstanceMaintenanceOptionsResult,
  ModifyInstanceMetadataOptionsRequest,
  ModifyInstanceMetadataOptionsResult,
  ModifyPrivateDnsNameOptionsRequest,
  ModifyPrivateDnsNameOptionsResult,
} from "../schema/ec2/types.ts";
import { notInState, notInStateFor, notYet } from "./errors.ts";
import { changeMetadataOptions, oneOf, privateDnsNameOptions } from "./instance-options.ts";
import { viewMetadataOptions } from "./instance-view.ts";
import { findInstance, stateOf } from "./owned.ts";

export const modifyInstanceMetadataOptions: Mutation<
  ModifyInstanceMetadataOptionsRequest,
  ModifyInstanceMetadataOptionsResult
> = {
  kind: "mutation",
  decide(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    if (instance.value.power === "terminated") return fail(notInStateFor(instance.value.id, "modified"));
    const metadataOptions = changeMetadataOptions(instance.value.metadataOptions, input);
    if (!metadataOptions.ok) return metadataOptions;
    const changed = { ...instance.value, metadataOptions: metadataOptions.value };
    return ok({
      writes: [put(instances, changed)],
      output: { InstanceId: changed.id, InstanceMetadataOptions: viewMetadataOptions(changed) },
    });
  },
};

export const modifyInstanceMaintenanceOptions: Mutation<
  ModifyInstanceMaintenanceOptionsRequest,
  ModifyInstanceMaintenanceOptionsResult
> = {
  kind: "mutation",
  decide(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    if (input.RebootMigration !== undefined && input.RebootMigration !== "default")
      return fail(notYet("Reboot migration"));
    const recovery = oneOf("AutoRecovery", input.AutoRecovery ?? instance.value.maintenanceAutoRecovery, [
      "default",
      "disabled",
    ]);
    if (!recovery.ok) return recovery;
    return ok({
      writes: [put(instances, { ...instance.value, maintenanceAutoRecovery: recovery.value })],
      output: { InstanceId: instance.value.id, AutoRecovery: recovery.value },
    });
  },
};

export const modifyPrivateDnsNameOptions: Mutation<
  ModifyPrivateDnsNameOptionsRequest,
  ModifyPrivateDnsNameOptionsResult
> = {
  kind: "mutation",
  decide(input, call) {
    const instance = findInstance(call, input.InstanceId);
    if (!instance.ok) return instance;
    const names = privateDnsNameOptions(instance.value.privateDnsNameOptions, {
      HostnameType: input.PrivateDnsHostnameType,
      EnableResourceNameDnsARecord: input.EnableResourceNameDnsARecord,
      EnableResourceNameDnsAAAARecord: input.EnableResourceNameDnsAAAARecord,
    });
    if (!names.ok) return names;
    // The host name is given at boot, so another kind of name needs a stopped instance, as on EC2.
    const renamed = names.value.hostnameType !== instance.value.privateDnsNameOptions.hostnameType;
    if (renamed && stateOf(call.state, instance.value) !== "stopped")
      return fail(notInState(instance.value.id, "stopped"));
    return ok({
      writes: [put(instances, { ...instance.value, privateDnsNameOptions: names.value })],
      output: { Return: true },
    });
  },
};
