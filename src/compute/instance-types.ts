/**
 * Instance types: AWS's names with AWS's vCPUs, memory and interface limits, for x86 machines; Hive's own small ones; and
 * the operator's. The figures are what a guest gets: a machine is never smaller than its type says. What Hive cannot
 * promise (network and disk bandwidth, clock speed) is not in the table.
 * https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-types.html
 */
import type { Config } from "../model/config.ts";

export interface InstanceType {
  readonly name: string;
  readonly vcpus: number;
  readonly threadsPerCore: number;
  readonly memoryMib: number;
  readonly maximumNetworkInterfaces: number;
  readonly ipv4AddressesPerInterface: number;
  readonly burstable: boolean;
  readonly currentGeneration: boolean;
  /** `xen` families know no EBS optimisation and no CPU options. */
  readonly hypervisor: "nitro" | "xen";
}

type Size = readonly [size: string, vcpus: number, gib: number, interfaces: number, addresses: number];
type Family = Pick<InstanceType, "threadsPerCore" | "burstable" | "currentGeneration" | "hypervisor"> & {
  readonly names: readonly string[];
  readonly sizes: readonly Size[];
};

/** large to 4xlarge with this many GiB for each vCPU. */
const fixed = (gib: number): readonly Size[] => [
  ["large", 2, 2 * gib, 3, 10],
  ["xlarge", 4, 4 * gib, 4, 15],
  ["2xlarge", 8, 8 * gib, 4, 15],
  ["4xlarge", 16, 16 * gib, 8, 30],
];
const nitro = { threadsPerCore: 2, burstable: false, currentGeneration: true, hypervisor: "nitro" } as const;

const FAMILIES: readonly Family[] = [
  {
    ...nitro,
    names: ["h1"],
    threadsPerCore: 1,
    sizes: [
      ["nano", 1, 0.125, 2, 4],
      ["micro", 1, 0.25, 2, 4],
    ],
  },
  {
    names: ["m1"],
    threadsPerCore: 1,
    burstable: false,
    currentGeneration: false,
    hypervisor: "xen",
    sizes: [["small", 1, 1.7, 2, 4]],
  },
  {
    names: ["t2"],
    threadsPerCore: 1,
    burstable: true,
    currentGeneration: true,
    hypervisor: "xen",
    sizes: [
      ["nano", 1, 0.5, 2, 2],
      ["micro", 1, 1, 2, 2],
      ["small", 1, 2, 3, 4],
      ["medium", 2, 4, 3, 6],
      ["large", 2, 8, 3, 12],
      ["xlarge", 4, 16, 3, 15],
      ["2xlarge", 8, 32, 3, 15],
    ],
  },
  {
    ...nitro,
    names: ["t3", "t3a"],
    burstable: true,
    sizes: [
      ["nano", 2, 0.5, 2, 2],
      ["micro", 2, 1, 2, 2],
      ["small", 2, 2, 3, 4],
      ["medium", 2, 4, 3, 6],
      ["large", 2, 8, 3, 12],
      ["xlarge", 4, 16, 4, 15],
      ["2xlarge", 8, 32, 4, 15],
    ],
  },
  { ...nitro, names: ["m5", "m5a", "m6i", "m7i"], sizes: fixed(4) },
  { ...nitro, names: ["c5", "c6i", "c7i"], sizes: fixed(2) },
  { ...nitro, names: ["r5", "r6i", "r7i"], sizes: fixed(8) },
];

const BUILT_IN: readonly InstanceType[] = FAMILIES.flatMap(({ names, sizes, ...family }) =>
  names.flatMap((name) =>
    sizes.map(([size, vcpus, gib, maximumNetworkInterfaces, ipv4AddressesPerInterface]) => ({
      ...family,
      name: `${name}.${size}`,
      vcpus,
      memoryMib: Math.floor(gib * 1024),
      maximumNetworkInterfaces,
      ipv4AddressesPerInterface,
    })),
  ),
);

/** What RunInstances takes when no type is named, as on EC2. */
export const DEFAULT_INSTANCE_TYPE = "m1.small";

/** Volumes that one instance can hold, its root among them. As on Nitro, where interfaces share the 28. */
export const VOLUMES_PER_INSTANCE_MAX = 27;

const cache = new WeakMap<Config, ReadonlyMap<string, InstanceType>>();

/** Every type, by name; the operator's own replace a built-in one of the same name. */
export function instanceTypes(config: Config): ReadonlyMap<string, InstanceType> {
  const known = cache.get(config);
  if (known) return known;
  const own = config.instanceTypes.map((type): InstanceType => ({ ...nitro, threadsPerCore: 1, ...type }));
  const types = new Map([...BUILT_IN, ...own].map((type) => [type.name, type]));
  cache.set(config, types);
  return types;
}

/** The type, or undefined when there is none of that name. */
export const instanceType = (config: Config, name: string): InstanceType | undefined => instanceTypes(config).get(name);

/** Cores and threads of a whole machine of this type. */
export const defaultCpuOptions = (type: InstanceType) => ({
  coreCount: Math.max(1, type.vcpus / type.threadsPerCore),
  threadsPerCore: type.threadsPerCore,
});
