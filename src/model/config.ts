import { z } from "zod";

/**
 * What the operator decides, from `--config FILE` (YAML) and flags; flags win. Every value has a default that suits one
 * machine. Unknown keys are refused, so that a typing mistake is not silently ignored.
 */
const instanceType = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9-]*\.[a-z0-9-]+$/, "is written family.size, as in h1.nano"),
  vcpus: z.int().min(1).max(448),
  memoryMib: z.int().min(32),
  maximumNetworkInterfaces: z.int().min(1).max(15).default(2),
  ipv4AddressesPerInterface: z.int().min(1).max(50).default(4),
});

export const configSchema = z.strictObject({
  region: z
    .string()
    .regex(/^[a-z]{2}(-[a-z]+)+-\d$/, "is written as in us-east-1")
    .default("us-east-1"),
  /** Availability zones of the region, by name. The first is this node's unless `zone` says otherwise. */
  zones: z.array(z.string()).min(1).max(26).optional(),
  zone: z.string().optional(),
  accountId: z
    .string()
    .regex(/^\d{12}$/, "is twelve digits")
    .default("000000000000"),
  listen: z.string().default("127.0.0.1:9999"),
  /** Where the configuration store is served over the Redis protocol; nowhere when absent. */
  configListen: z.string().optional(),
  /** Where the cloud's state is kept: in Hive's own store, or in an etcd (`cluster/etcd/store-url.ts` reads the rest). */
  store: z
    .string()
    .regex(/^(raft|etcd(\+https)?:\/\/.+)$/, "is raft, or an etcd as in etcd://host:2379,host2:2379")
    .default("raft"),
  accel: z.enum(["auto", "kvm", "tcg", "none"]).default("auto"),
  /** Virtual per physical. vCPUs may be shared (an idle guest uses 0.3 % of one); memory is real, so its factor stays near 1. */
  overcommit: z
    .strictObject({ cpu: z.number().positive().default(32), memory: z.number().positive().default(1) })
    .default({ cpu: 32, memory: 1 }),
  /** MiB kept for the host itself. */
  reservedMemoryMib: z.int().min(0).default(512),
  instanceTypes: z.array(instanceType).default([]),
  network: z
    .strictObject({
      mode: z.enum(["ovs", "user", "none"]).default("ovs"),
      bridge: z
        .string()
        .regex(/^[a-z][a-z0-9-]{0,9}$/, "is an interface name of at most 10 characters")
        .default("br-int"),
      /** OVSDB's socket; Open vSwitch's own default when absent. */
      ovsdb: z.string().optional(),
      datapath: z.enum(["auto", "system", "netdev"]).default("auto"),
      /** Public addresses for instances; the first usable one is the host's own on this network. */
      publicPool: z.string().default("198.18.0.0/16"),
      /** Addresses by which a node's metadata and DHCP servers tell guests apart. Never leaves the node. */
      metadataPool: z.string().default("100.64.0.0/16"),
      /** Masquerade the pool behind the host's own addresses, so that guests reach what the host reaches. */
      masquerade: z.boolean().default(true),
      /** Name servers that DHCP hands out; the host's own when absent. */
      dnsServers: z.array(z.string()).optional(),
    })
    .default({
      mode: "ovs",
      bridge: "br-int",
      datapath: "auto",
      publicPool: "198.18.0.0/16",
      metadataPool: "100.64.0.0/16",
      masquerade: true,
    }),
  /** Seconds a guest has for its own shutdown before it's forced. */
  gracefulShutdownSeconds: z.int().min(1).max(3600).default(120),
  logLevel: z.enum(["debug", "info", "warn", "error"]).default("info"),
});

export type Config = z.infer<typeof configSchema>;
export type InstanceTypeConfig = z.infer<typeof instanceType>;

/** Zones of the region: those named, else `<region>a`. */
export const zonesOf = (config: Config): readonly string[] => config.zones ?? [`${config.region}a`];

/** The zone of this node. */
export const zoneOf = (config: Config): string => config.zone ?? zonesOf(config)[0]!;
