/**
 * What a run of the core is like: how many nodes, which faults and how often. Drawn from the seed, each fault on or off by
 * chance (swarm testing, Groce et al. 2012: a run with every fault on hides what a run with few would show). Plain data, so
 * that the shrinker can take things away and a regression can be written down.
 */
import type { Options } from "../../../src/cluster/raft/types.ts";
import { calmerPlans, type NetworkPlan } from "../base/plan.ts";
import { Prng } from "../base/prng.ts";

export type CoreFault =
  | "crash"
  | "partition"
  | "pause"
  | "stall"
  | "full"
  | "halt"
  | "damage"
  | "change"
  | "transfer"
  | "unreachable"
  | "drift"
  | "earlyTick";

export type CorePlan = {
  readonly voters: number;
  readonly learners: number;
  /** Nodes that no configuration names yet. */
  readonly spares: number;
  readonly options: Options;
  /** Events until the faults stop. */
  readonly events: number;
  /** Mean milliseconds between two faults of a kind, over the whole cluster; 0 is off. `drift`: parts in a thousand. */
  readonly faults: { readonly [fault in CoreFault]: number };
  readonly network: NetworkPlan;
  readonly disk: { readonly syncMs: number };
  /** How long a node stays down. */
  readonly downMs: number;
  /** How long links stay cut, in election timeouts. */
  readonly cutElections: number;
  /** Mean milliseconds between two. */
  readonly proposals: number;
  readonly reads: number;
  readonly commandBytesMax: number;
  readonly applyMs: number;
  /** A snapshot is made after so many applied entries; 0: never. */
  readonly snapshotEntries: number;
  /** The log is cut at the newest snapshot, or at the one before it. */
  readonly keepsOlder: boolean;
};

export function planOf(seed: number): CorePlan {
  const prng = new Prng(seed, 1);
  const electionMs = prng.pick([100, 150, 250]);
  const driftThousandths = prng.magnitude(0.4, 1, 80);
  const leases = prng.chance(0.4);
  const inOrder = prng.chance(0.6);
  const voters = prng.pick([1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7, 9]);
  const plan: CorePlan = {
    voters,
    learners: prng.chance(0.3) ? prng.between(1, 2) : 0,
    spares: prng.chance(0.5) ? prng.between(1, 3) : 0,
    options: {
      electionMs,
      heartbeatMs: electionMs / prng.pick([3, 5, 8]),
      diskStallMs: electionMs * prng.pick([2, 3]),
      inflightMax: prng.pick([1, 2, 4, 16, 128]),
      inflightBytesMax: prng.pick([200, 2_000, 1_000_000]),
      messageBytesMax: prng.pick([1, 50, 300, 5_000]),
      windowBytesMax: prng.pick([0, 100, 1_000, 50_000]),
      catchUpEntries: prng.pick([0, 3, 20, 1000]),
      // The rates of two clocks differ by at most (1 + d) / (1 - d).
      leaseDrift: leases ? (1 + driftThousandths / 1000) / (1 - driftThousandths / 1000) - 1 : undefined,
    },
    events: prng.between(1_500, 8_000),
    faults: {
      crash: prng.magnitude(0.6, 50, 2_000),
      partition: prng.magnitude(0.6, 50, 2_000),
      pause: prng.magnitude(0.3, 100, 2_000),
      stall: prng.magnitude(0.3, 100, 2_000),
      full: prng.magnitude(0.25, 100, 2_000),
      halt: prng.magnitude(0.2, 200, 3_000),
      damage: prng.magnitude(0.2, 200, 2_000),
      change: prng.magnitude(0.5, 30, 1_500),
      transfer: prng.magnitude(0.4, 50, 2_000),
      unreachable: prng.magnitude(0.3, 30, 1_000),
      drift: driftThousandths,
      earlyTick: prng.magnitude(0.3, 5, 200),
    },
    network: {
      dropped: prng.chance(0.5) ? prng.pick([0.01, 0.05, 0.2, 0.4]) : 0,
      doubled: prng.chance(0.4) ? prng.pick([0.01, 0.1, 0.4]) : 0,
      late: prng.chance(0.4) ? prng.pick([0.01, 0.1, 0.3]) : 0,
      inOrder,
      delayMs: prng.pick([0.3, 1, 4, 12]),
    },
    disk: { syncMs: prng.pick([0.1, 0.5, 2, 8]) },
    downMs: prng.pick([5, 50, 400, 1_500]),
    cutElections: prng.pick([0.5, 2, 6]),
    proposals: prng.pick([2, 5, 15, 50, 200]),
    reads: leases ? prng.pick([1, 5, 20]) : prng.pick([0, 2, 10, 50, 200]),
    commandBytesMax: prng.pick([8, 40, 200]),
    applyMs: prng.pick([0, 0.2, 3]),
    snapshotEntries: prng.chance(0.7) ? prng.pick([3, 10, 40, 150]) : 0,
    keepsOlder: prng.chance(0.5),
  };
  if (prng.chance(0.1)) return leasesUnderFire(plan);
  return prng.chance(0.1) ? changesUnderFire(plan) : plan;
}

export const NO_FAULTS: CorePlan["faults"] = {
  crash: 0,
  partition: 0,
  pause: 0,
  stall: 0,
  full: 0,
  halt: 0,
  damage: 0,
  change: 0,
  transfer: 0,
  unreachable: 0,
  drift: 0,
  earlyTick: 0,
};

/** What breaks a lease takes many short-lived processes, half-cut networks, and logs that stand still while leaders change. */
const leasesUnderFire = (plan: CorePlan): CorePlan => ({
  ...plan,
  voters: 5,
  learners: 0,
  spares: 0,
  options: { ...plan.options, electionMs: 100, heartbeatMs: 33, leaseDrift: 0 },
  faults: { ...NO_FAULTS, crash: 30, partition: 50 },
  network: { ...plan.network, dropped: 0, doubled: 0, late: 0, delayMs: 0.3 },
  disk: { syncMs: 0.1 },
  downMs: 5,
  cutElections: 6,
  proposals: 200,
  reads: 1,
  snapshotEntries: 0,
});

/** Changes of the membership that are cut short, over and over. */
const changesUnderFire = (plan: CorePlan): CorePlan => ({
  ...plan,
  voters: 3,
  learners: 0,
  spares: 2,
  faults: { ...NO_FAULTS, crash: 200, partition: 60, change: 25 },
  network: { ...plan.network, late: 0 },
  downMs: 50,
  proposals: 50,
  reads: 0,
  snapshotEntries: 0,
});

/** The same with less in it, for the shrinker. */
export function simplerPlans(plan: CorePlan): readonly CorePlan[] {
  const plans = calmerPlans(plan);
  const add = (change: Partial<CorePlan>) => plans.push({ ...plan, ...change });
  const { options } = plan;
  if (plan.spares > 0) add({ spares: 0 });
  if (plan.learners > 0) add({ learners: 0 });
  if (plan.voters > 3) add({ voters: 3 });
  if (plan.voters > 5) add({ voters: 5 });
  if (plan.reads > 0) add({ reads: 0 });
  if (plan.snapshotEntries > 0) add({ snapshotEntries: 0 });
  if (plan.applyMs > 0) add({ applyMs: 0 });
  if (plan.proposals < 50) add({ proposals: 50 });
  if (options.leaseDrift !== undefined) add({ options: { ...options, leaseDrift: undefined } });
  if (options.messageBytesMax < 100_000) add({ options: { ...options, messageBytesMax: 100_000 } });
  if (options.windowBytesMax < 100_000) add({ options: { ...options, windowBytesMax: 100_000 } });
  return plans;
}
