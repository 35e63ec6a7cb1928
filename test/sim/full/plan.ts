/** What a run of whole nodes is like; see `../core/plan.ts`. */
import { DEFAULT_OPTIONS, type Options } from "../../../src/cluster/raft/types.ts";
import { calmerPlans, type NetworkPlan } from "../base/plan.ts";
import { Prng } from "../base/prng.ts";

export type FullFault =
  | "crash"
  | "kill"
  | "close"
  | "partition"
  | "unreachable"
  | "pause"
  | "stall"
  | "syncError"
  | "full"
  | "rot"
  | "wallJump"
  | "change"
  | "transfer";

export type FullPlan = {
  readonly voters: number;
  readonly spares: number;
  readonly options: Options;
  readonly events: number;
  /** Mean milliseconds between two faults of a kind, over the whole cluster; 0 is off. */
  readonly faults: { readonly [fault in FullFault]: number };
  readonly driftThousandths: number;
  /** `asBytes`: frames go through the binary codec, and not as they are. */
  readonly network: NetworkPlan & { readonly asBytes: boolean };
  readonly disk: { readonly syncMs: number; readonly readMs: number };
  readonly downMs: number;
  readonly cutElections: number;
  readonly segmentBytes: number;
  readonly snapshotBytesMin: number;
  readonly historyChangesMax: number;
  readonly clients: number;
  /** Mean pause of a client between two operations. */
  readonly thinkMs: number;
  readonly valueBytesMax: number;
  readonly leases: boolean;
};

export function planOf(seed: number): FullPlan {
  const prng = new Prng(seed, 3);
  const electionMs = prng.pick([100, 150, 250]);
  const driftThousandths = prng.magnitude(0.4, 1, 50);
  const hasLeaseReads = prng.chance(0.3);
  const voters = prng.pick([1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5]);
  const plan: FullPlan = {
    voters,
    spares: prng.chance(0.4) ? prng.between(1, 2) : 0,
    options: {
      ...DEFAULT_OPTIONS,
      electionMs,
      heartbeatMs: electionMs / prng.pick([3, 5]),
      diskStallMs: electionMs * prng.pick([2, 4]),
      inflightMax: prng.pick([1, 4, 128]),
      inflightBytesMax: prng.pick([500, 10_000, 1_000_000]),
      messageBytesMax: prng.pick([1, 500, 50_000]),
      windowBytesMax: prng.pick([0, 1_000, 50_000]),
      catchUpEntries: prng.pick([0, 10, 1000]),
      leaseDrift: hasLeaseReads ? (1 + driftThousandths / 1000) / (1 - driftThousandths / 1000) - 1 : undefined,
    },
    events: prng.between(2_000, 8_000),
    faults: {
      crash: prng.magnitude(0.5, 100, 3_000),
      kill: prng.magnitude(0.3, 200, 3_000),
      close: prng.magnitude(0.2, 300, 3_000),
      partition: prng.magnitude(0.5, 100, 3_000),
      unreachable: prng.magnitude(0.2, 50, 2_000),
      pause: prng.magnitude(0.3, 200, 3_000),
      stall: prng.magnitude(0.3, 200, 3_000),
      syncError: prng.magnitude(0.2, 300, 3_000),
      full: prng.magnitude(0.2, 300, 3_000),
      rot: prng.magnitude(0.25, 300, 3_000),
      wallJump: prng.magnitude(0.3, 100, 2_000),
      change: prng.magnitude(0.4, 100, 2_000),
      transfer: prng.magnitude(0.4, 100, 2_000),
    },
    driftThousandths,
    network: {
      dropped: prng.chance(0.4) ? prng.pick([0.01, 0.05, 0.2]) : 0,
      doubled: prng.chance(0.3) ? prng.pick([0.01, 0.1]) : 0,
      late: prng.chance(0.3) ? prng.pick([0.01, 0.1]) : 0,
      inOrder: prng.chance(0.7),
      delayMs: prng.pick([0.2, 1, 5]),
      asBytes: prng.chance(0.5),
    },
    disk: { syncMs: prng.pick([0.1, 1, 6]), readMs: prng.pick([0, 0, 0.5]) },
    downMs: prng.pick([5, 100, 1_000]),
    cutElections: prng.pick([0.5, 2, 8]),
    segmentBytes: prng.pick([8_192, 16_384, 65_536]),
    snapshotBytesMin: prng.pick([500, 2_000, 8_000, 1_000_000]),
    historyChangesMax: prng.pick([5, 40, 1_000]),
    clients: prng.between(1, 6),
    thinkMs: prng.pick([0.5, 5, 25, 80]),
    valueBytesMax: prng.pick([10, 200, 2_000]),
    leases: prng.chance(0.4),
  };
  return prng.chance(0.1) ? restartsUnderFire(plan) : plan;
}

export const NO_FAULTS: FullPlan["faults"] = {
  crash: 0,
  kill: 0,
  close: 0,
  partition: 0,
  unreachable: 0,
  pause: 0,
  stall: 0,
  syncError: 0,
  full: 0,
  rot: 0,
  wallJump: 0,
  change: 0,
  transfer: 0,
};

/** Short-lived processes, and a network that still carries what those before them sent and were sent. */
const restartsUnderFire = (plan: FullPlan): FullPlan => ({
  ...plan,
  voters: 3,
  spares: 0,
  options: { ...plan.options, electionMs: 250, heartbeatMs: 50, leaseDrift: undefined },
  faults: { ...NO_FAULTS, kill: 200 },
  driftThousandths: 0,
  network: { ...plan.network, dropped: 0, doubled: 0, late: 0.3, inOrder: false, delayMs: 1 },
  disk: { syncMs: 0.1, readMs: 0 },
  downMs: 5,
  clients: 4,
  thinkMs: 0.5,
});

/** The same with less in it, for the shrinker. */
export function simplerPlans(plan: FullPlan): readonly FullPlan[] {
  const plans = calmerPlans(plan);
  const add = (change: Partial<FullPlan>) => plans.push({ ...plan, ...change });
  const { network, options } = plan;
  if (network.asBytes) add({ network: { ...network, asBytes: false } });
  if (plan.disk.readMs > 0) add({ disk: { ...plan.disk, readMs: 0 } });
  if (plan.driftThousandths > 0) add({ driftThousandths: 0 });
  if (plan.leases) add({ leases: false });
  if (plan.spares > 0) add({ spares: 0 });
  if (plan.voters > 3) add({ voters: 3 });
  if (plan.clients > 1) add({ clients: plan.clients - 1 });
  if (plan.thinkMs < 80) add({ thinkMs: 80 });
  if (plan.valueBytesMax > 10) add({ valueBytesMax: 10 });
  if (plan.historyChangesMax < 1000) add({ historyChangesMax: 1000 });
  if (plan.snapshotBytesMin < 1_000_000) add({ snapshotBytesMin: 1_000_000 });
  if (options.leaseDrift !== undefined) add({ options: { ...options, leaseDrift: undefined } });
  for (const name of ["inflightMax", "inflightBytesMax", "messageBytesMax", "windowBytesMax"] as const) {
    if (options[name] < DEFAULT_OPTIONS[name]) add({ options: { ...options, [name]: DEFAULT_OPTIONS[name] } });
  }
  return plans;
}
