/** What the plans of both simulations have in common. */

export type NetworkPlan = {
  readonly dropped: number;
  readonly doubled: number;
  /** A share of messages that takes up to several election timeouts; with `inOrder`, what follows waits for them. */
  readonly late: number;
  readonly inOrder: boolean;
  readonly delayMs: number;
};

type Plan = {
  /** Events until the faults stop. */
  readonly events: number;
  /** Mean milliseconds between two faults of a kind, over the whole cluster; 0 is off. */
  readonly faults: { readonly [fault: string]: number };
  readonly network: NetworkPlan;
};

/** The same with fewer events, without one fault, or on a better network. */
export function calmerPlans<Some extends Plan>(plan: Some): Some[] {
  const { events, faults, network } = plan;
  const plans: Some[] = [];
  for (const fewer of [events >> 1, Math.floor(events * 0.8)]) if (fewer >= 50) plans.push({ ...plan, events: fewer });
  for (const [fault, mean] of Object.entries(faults)) {
    if (mean > 0) plans.push({ ...plan, faults: { ...faults, [fault]: 0 } });
  }
  for (const trouble of ["dropped", "doubled", "late"] as const) {
    if (network[trouble] > 0) plans.push({ ...plan, network: { ...network, [trouble]: 0 } });
  }
  if (!network.inOrder) plans.push({ ...plan, network: { ...network, inOrder: true } });
  return plans;
}
