/** The compute half of EC2: instances, images, key pairs, tags, and the read side of volumes. */
import type { HandlerTable } from "../model/operation.ts";
import type { Ec2Operations } from "../schema/ec2/types.ts";
import { getConsoleOutput, getConsoleScreenshot, sendDiagnosticInterrupt } from "./console.ts";
import { describeInstanceCreditSpecifications } from "./describe-credits.ts";
import { describeImages } from "./describe-images.ts";
import { describeInstanceAttribute } from "./describe-instance-attribute.ts";
import { describeInstanceStatus } from "./describe-instance-status.ts";
import { describeInstanceTypeOfferings, describeInstanceTypes } from "./describe-instance-types.ts";
import { describeInstances } from "./describe-instances.ts";
import { describeAccountAttributes, describeAvailabilityZones, describeRegions } from "./describe-regions.ts";
import { describeSnapshots } from "./describe-snapshots.ts";
import { describeVolumeStatus, describeVolumes } from "./describe-volumes.ts";
import { describeImageAttribute, modifyImageAttribute, resetImageAttribute } from "./image-attribute.ts";
import { createKeyPair, deleteKeyPair, describeKeyPairs, importKeyPair } from "./key-pairs.ts";
import { modifyInstanceAttribute, resetInstanceAttribute } from "./modify-instance-attribute.ts";
import {
  modifyInstanceMaintenanceOptions,
  modifyInstanceMetadataOptions,
  modifyPrivateDnsNameOptions,
} from "./modify-instance-options.ts";
import { monitorInstances, unmonitorInstances } from "./monitor-instances.ts";
import type { ComputePorts } from "./ports.ts";
import { rebootInstances } from "./reboot-instances.ts";
import { deregisterImage, registerImage } from "./register-image.ts";
import { runInstances } from "./run-instances.ts";
import { startInstances } from "./start-instances.ts";
import { stopInstances } from "./stop-instances.ts";
import { createTags, deleteTags, describeTags } from "./tags.ts";
import { terminateInstances } from "./terminate-instances.ts";

/** One table serves one store: DescribeInstances remembers its last answer. */
export const computeHandlers = (ports: ComputePorts): HandlerTable<Ec2Operations> => ({
  RunInstances: runInstances,
  DescribeInstances: describeInstances(),
  DescribeInstanceStatus: describeInstanceStatus,
  StartInstances: startInstances,
  StopInstances: stopInstances,
  RebootInstances: rebootInstances,
  TerminateInstances: terminateInstances,
  MonitorInstances: monitorInstances,
  UnmonitorInstances: unmonitorInstances,
  GetConsoleOutput: getConsoleOutput(ports),
  GetConsoleScreenshot: getConsoleScreenshot(ports),
  SendDiagnosticInterrupt: sendDiagnosticInterrupt,

  DescribeInstanceAttribute: describeInstanceAttribute,
  ModifyInstanceAttribute: modifyInstanceAttribute,
  ResetInstanceAttribute: resetInstanceAttribute,
  ModifyInstanceMetadataOptions: modifyInstanceMetadataOptions,
  ModifyInstanceMaintenanceOptions: modifyInstanceMaintenanceOptions,
  ModifyPrivateDnsNameOptions: modifyPrivateDnsNameOptions,
  DescribeInstanceCreditSpecifications: describeInstanceCreditSpecifications,
  DescribeInstanceTypes: describeInstanceTypes,
  DescribeInstanceTypeOfferings: describeInstanceTypeOfferings,

  DescribeImages: describeImages,
  RegisterImage: registerImage,
  DeregisterImage: deregisterImage,
  DescribeImageAttribute: describeImageAttribute,
  ModifyImageAttribute: modifyImageAttribute,
  ResetImageAttribute: resetImageAttribute,

  CreateKeyPair: createKeyPair,
  ImportKeyPair: importKeyPair,
  DescribeKeyPairs: describeKeyPairs,
  DeleteKeyPair: deleteKeyPair,

  CreateTags: createTags,
  DeleteTags: deleteTags,
  DescribeTags: describeTags,

  DescribeVolumes: describeVolumes,
  DescribeVolumeStatus: describeVolumeStatus,
  DescribeSnapshots: describeSnapshots,

  DescribeRegions: describeRegions,
  DescribeAvailabilityZones: describeAvailabilityZones,
  DescribeAccountAttributes: describeAccountAttributes,
});
