/**
 * What EBS lets a volume be, by type.
 * https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
 */
import { fail, ok, type Result } from "../lib/result.ts";
import {
  type AwsError,
  awsError,
  invalidParameterCombination,
  invalidParameterValue,
  invalidValueFor,
} from "../model/errors.ts";
import type { VolumeType } from "../model/image.ts";

interface Rule {
  /** GiB. */
  readonly size: readonly [min: number, max: number];
  readonly iops?: { readonly min: number; readonly max: number; readonly perGib: number; readonly required: boolean };
  /** MiB/s, and at most this many for each provisioned I/O operation. */
  readonly throughput?: { readonly min: number; readonly max: number; readonly perIops: number };
  readonly bootable: boolean;
}

const RULES: { readonly [type in VolumeType]: Rule } = {
  gp2: { size: [1, 16384], bootable: true },
  gp3: {
    size: [1, 65536],
    iops: { min: 3000, max: 80000, perGib: 500, required: false },
    throughput: { min: 125, max: 2000, perIops: 0.25 },
    bootable: true,
  },
  io1: { size: [4, 16384], iops: { min: 100, max: 64000, perGib: 50, required: true }, bootable: true },
  io2: { size: [4, 65536], iops: { min: 100, max: 256000, perGib: 1000, required: true }, bootable: true },
  st1: { size: [125, 16384], bootable: false },
  sc1: { size: [125, 16384], bootable: false },
  standard: { size: [1, 1024], bootable: true },
};

/** gp3's baseline, which every gp3 volume has. */
const GP3_IOPS = 3000;
const GP3_THROUGHPUT = 125;

export interface VolumeShape {
  readonly size: number;
  readonly volumeType: VolumeType;
  readonly iops?: number;
  readonly throughput?: number;
}

export const isVolumeType = (text: string): text is VolumeType => Object.hasOwn(RULES, text);

/** Whether a root volume can be of this type. */
export const isBootable = (type: VolumeType): boolean => RULES[type].bootable;

/**
 * A volume of these figures, with what its type adds: gp3's baseline, and gp2's three I/O operations a second for each
 * GiB (100 to 16,000). Errors: InvalidParameterValue, InvalidParameterCombination, MissingParameter.
 */
export function volumeShape(
  volumeType: string,
  size: number,
  iops: number | undefined,
  throughput: number | undefined,
): Result<VolumeShape, AwsError> {
  if (!isVolumeType(volumeType)) return fail(invalidValueFor("volumeType", volumeType));
  const rule = RULES[volumeType];
  const [least, most] = rule.size;
  if (!Number.isInteger(size) || size < least)
    return fail(
      invalidParameterValue(`Volume of ${size}GiB is too small for volume type ${volumeType}; minimum is ${least}GiB.`),
    );
  if (size > most)
    return fail(
      invalidParameterValue(`Volume of ${size}GiB is too large for volume type ${volumeType}; maximum is ${most}GiB.`),
    );
  if (iops !== undefined && !rule.iops)
    return fail(invalidParameterCombination(`The parameter iops is not supported for ${volumeType} volumes.`));
  if (throughput !== undefined && !rule.throughput)
    return fail(invalidParameterCombination(`The parameter throughput is not supported for ${volumeType} volumes.`));
  if (iops === undefined && rule.iops?.required)
    return fail(awsError("MissingParameter", `The request must contain the parameter iops for ${volumeType} volumes.`));
  if (iops !== undefined && rule.iops) {
    if (iops < rule.iops.min)
      return fail(invalidParameterValue(`Volume iops of ${iops} is too low; minimum is ${rule.iops.min}.`));
    if (iops > rule.iops.max)
      return fail(invalidParameterValue(`Volume iops of ${iops} is too high; maximum is ${rule.iops.max}.`));
    // gp3's baseline is not subject to the ratio: an 1 GiB volume has its 3,000 as well.
    const ratio = iops / size;
    if (ratio > rule.iops.perGib && iops > rule.iops.min)
      return fail(
        invalidParameterValue(
          `Iops to volume size ratio of ${ratio.toFixed(6)} is too high; maximum is ${rule.iops.perGib}.`,
        ),
      );
  }
  if (throughput !== undefined && rule.throughput) {
    const bounds = rule.throughput;
    if (throughput < bounds.min || throughput > bounds.max)
      return fail(
        invalidParameterValue(
          `Throughput of ${throughput} is out of range; it must be between ${bounds.min} and ${bounds.max} MiB/s.`,
        ),
      );
    const ratio = throughput / (iops ?? GP3_IOPS);
    if (ratio > bounds.perIops)
      return fail(
        invalidParameterValue(
          `Throughput (MiBps) to iops ratio of ${ratio.toFixed(6)} is too high; maximum is ${bounds.perIops} MiBps per iops.`,
        ),
      );
  }
  switch (volumeType) {
    case "gp3":
      return ok({ size, volumeType, iops: iops ?? GP3_IOPS, throughput: throughput ?? GP3_THROUGHPUT });
    case "gp2":
      return ok({ size, volumeType, iops: Math.min(16000, Math.max(100, size * 3)) });
    default:
      return ok({ size, volumeType, ...(iops !== undefined && { iops }) });
  }
}
