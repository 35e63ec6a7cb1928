import type { AccountId, ImageId, InstanceId, NodeId, ReservationId, VolumeId } from "./ids.ts";

/**
 * An instance, as somebody asked for it. Written by API calls, and by the node's agent only when the guest itself asked
 * (it powered off). What the machine does in truth is in `InstanceObserved`; what AWS shows is a function of both
 * (`instance-state.ts`).
 */
export interface InstanceRecord {
  readonly id: InstanceId;
  readonly accountId: AccountId;
  readonly region: string;
  readonly zone: string;
  readonly nodeId: NodeId;
  readonly reservationId: ReservationId;
  /** Place in its reservation, from 0. */
  readonly launchIndex: number;
  readonly launchedBy: string;
  /** Milliseconds since the epoch; as on EC2, the last start. */
  readonly launchTime: number;
  /** When the record was made; never changes. */
  readonly createdAt: number;
  readonly imageId: ImageId;
  readonly instanceType: string;
  readonly keyName?: string;
  /** The key pair's public half at launch, one line in OpenSSH's form: it stays when the key pair is deleted. */
  readonly publicKey?: string;
  readonly clientToken?: string;

  /** What the machine should be. `terminated` is final. */
  readonly power: "on" | "off" | "terminated";
  /** How an `off` or `terminated` is reached: `forced` skips the guest's own shutdown. */
  readonly forced: boolean;
  /** Counts starts, from 1. A process of an earlier generation is not the machine that is wanted now. */
  readonly bootGeneration: number;
  /** Counts RebootInstances calls; the agent resets the machine once for each new value. */
  readonly rebootGeneration: number;
  /** Counts SendDiagnosticInterrupt calls. */
  readonly interruptGeneration: number;
  /** Why `power` has its value, and since when. */
  readonly transition?: StateTransition;
  /** When `power` last changed. */
  readonly powerChangedAt: number;

  /** Base64, as it came. At most 16 KiB decoded. */
  readonly userData?: string;
  readonly shutdownBehavior: "stop" | "terminate";
  readonly disableApiTermination: boolean;
  readonly disableApiStop: boolean;
  readonly ebsOptimized: boolean;
  readonly monitoring: boolean;
  readonly metadataOptions: MetadataOptions;
  readonly privateDnsNameOptions: PrivateDnsNameOptions;
  readonly cpuOptions: { readonly coreCount: number; readonly threadsPerCore: number };
  readonly placement: Placement;
  readonly maintenanceAutoRecovery: "default" | "disabled";
  readonly rootDeviceName: string;
  readonly blockDevices: readonly BlockDevice[];
}

export interface StateTransition {
  /** `Client.UserInitiatedShutdown`, `Client.InstanceInitiatedShutdown`, `Server.InternalError` … */
  readonly code: string;
  readonly message: string;
}

export interface MetadataOptions {
  readonly httpTokens: "optional" | "required";
  readonly httpEndpoint: "enabled" | "disabled";
  /** 1 to 64. */
  readonly httpPutResponseHopLimit: number;
  readonly httpProtocolIpv6: "enabled" | "disabled";
  readonly instanceMetadataTags: "enabled" | "disabled";
}

export interface PrivateDnsNameOptions {
  readonly hostnameType: "ip-name" | "resource-name";
  readonly enableResourceNameDnsARecord: boolean;
  readonly enableResourceNameDnsAAAARecord: boolean;
}

export interface Placement {
  readonly tenancy: "default" | "dedicated" | "host";
  readonly groupName?: string;
  readonly partitionNumber?: number;
  readonly affinity?: string;
}

/** A volume plugged into an instance. */
export interface BlockDevice {
  readonly deviceName: string;
  readonly volumeId: VolumeId;
  readonly deleteOnTermination: boolean;
  readonly attachTime: number;
}

/** What a node's agent last saw of an instance. Written only by the node that hosts it. */
export interface InstanceObserved {
  readonly instanceId: InstanceId;
  readonly nodeId: NodeId;
  /** `absent`: no process and nothing left to do. `failed`: this generation could not be started, or its process died. */
  readonly process: "starting" | "running" | "stopping" | "absent" | "failed";
  /** The boot generation that `process` speaks of; 0 before the first. */
  readonly bootGeneration: number;
  readonly rebootGeneration: number;
  readonly interruptGeneration: number;
  readonly pid?: number;
  /** Which accelerator runs it: `kvm`, `tcg`, or `none` where no machine is behind the record. */
  readonly accel: "kvm" | "tcg" | "none";
  /** Why `failed`, for StateReason and for a person. */
  readonly reason?: StateTransition;
  /** Milliseconds since the epoch, when `process` took this value. */
  readonly since: number;
  /** Everything on the host is removed (set once `power` is `terminated`). */
  readonly cleaned: boolean;
}
