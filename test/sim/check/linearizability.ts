/**
 * Is there an order in which the operations of a history could have happened one at a time, each between its call and its
 * return, so that every one of them saw what it says it saw? (Herlihy and Wing 1990.)
 *
 * The search is Wing and Gong's (1993) with Lowe's memory of the configurations that were met before (2017). What keeps it
 * small: operations on keys that have nothing to do with each other are judged apart; an operation that only reads is taken
 * as soon as it fits, for nothing later can need it to wait; and one with an unknown outcome, of whose writes nobody saw any,
 * is left out, since the history without it is linearizable if and only if the history with it is.
 */

/** A register's content. Writers never write the same number twice to a key; 0 is the absence of the key. */
export type Value = number;
export type Pairs = readonly (readonly [key: string, value: Value])[];

export type Operation = {
  /** Positions in the order in which calls and returns happened. All are different. */
  readonly call: number;
  /** Undefined: the outcome is unknown. It may have taken effect at any moment after its call, or never. */
  readonly return: number | undefined;
  /** What it found: it can only have happened where each key had this value. */
  readonly requires: Pairs;
  /** What it wrote, all at once. */
  readonly effects: Pairs;
};

export type Verdict =
  | { readonly kind: "linearizable" }
  | { readonly kind: "violation"; readonly keys: readonly string[]; readonly operations: readonly Operation[] }
  /** The search was given up after so many steps. */
  | { readonly kind: "unknown"; readonly keys: readonly string[] };

/** @param stepsMax how long to search, over all keys; a million steps take a second or two */
export function checkLinearizability(history: readonly Operation[], stepsMax = 2_000_000): Verdict {
  const budget = { steps: stepsMax };
  let unknown: Verdict | undefined;
  for (const { keys, operations } of partitions(withoutUnseen(history))) {
    const outcome = search(keys, operations, budget);
    if (outcome === "violation") return { kind: "violation", keys, operations };
    if (outcome === "unknown") unknown ??= { kind: "unknown", keys };
  }
  return unknown ?? { kind: "linearizable" };
}

/** Leaves out what can't matter: unknown operations that wrote nothing, or nothing that anyone saw. */
function withoutUnseen(history: readonly Operation[]): readonly Operation[] {
  let kept = history;
  for (;;) {
    const seen = new Set<string>();
    for (const { requires } of kept) for (const [key, value] of requires) seen.add(`${key}\0${value}`);
    const next = kept.filter(
      (operation) =>
        operation.return !== undefined || operation.effects.some(([key, value]) => seen.has(`${key}\0${value}`)),
    );
    // What only an operation that fell away saw is unseen, too.
    if (next.length === kept.length) return kept;
    kept = next;
  }
}

/** Operations by the sets of keys that they hang together over. */
function partitions(history: readonly Operation[]): { keys: readonly string[]; operations: Operation[] }[] {
  const parent = new Map<string, string>();
  const root = (key: string): string => {
    let at = key;
    for (let up = parent.get(at); up !== undefined && up !== at; up = parent.get(at)) at = up;
    parent.set(key, at);
    return at;
  };
  const keysOf = ({ requires, effects }: Operation) => [...requires, ...effects].map(([key]) => key);
  for (const operation of history) {
    const [first, ...others] = keysOf(operation);
    if (first === undefined) continue;
    if (!parent.has(first)) parent.set(first, first);
    for (const key of others) parent.set(parent.has(key) ? root(key) : key, root(first));
  }
  const found = new Map<string, { keys: Set<string>; operations: Operation[] }>();
  for (const operation of history) {
    const keys = keysOf(operation);
    if (keys.length === 0) continue;
    const name = root(keys[0]!);
    const part = found.get(name) ?? { keys: new Set(), operations: [] };
    found.set(name, part);
    for (const key of keys) part.keys.add(key);
    part.operations.push(operation);
  }
  return [...found.values()].map(({ keys, operations }) => ({ keys: [...keys].sort(), operations }));
}

type Compiled = {
  readonly requires: readonly (readonly [slot: number, value: Value])[];
  readonly effects: readonly (readonly [slot: number, value: Value])[];
  readonly isKnown: boolean;
};

/** A moment of the history: operation `id` was called, or returned. Links leave out what is already in the order. */
type Moment = { readonly id: number; readonly isCall: boolean; next: Moment | undefined; previous: Moment | undefined };

function search(
  keys: readonly string[],
  history: readonly Operation[],
  budget: { steps: number },
): "linearizable" | "violation" | "unknown" {
  const slotOf = new Map(keys.map((key, slot) => [key, slot]));
  const compiled: Compiled[] = history.map(({ requires, effects, return: returned }) => ({
    requires: requires.map(([key, value]) => [slotOf.get(key)!, value]),
    effects: effects.map(([key, value]) => [slotOf.get(key)!, value]),
    isKnown: returned !== undefined,
  }));
  const { head, returns } = momentsOf(history);

  let state: readonly Value[] = keys.map(() => 0);
  let remaining = compiled.filter(({ isKnown }) => isKnown).length;
  const taken = new Uint16Array((history.length >> 4) + 1);
  const met = new Set<string>();
  const order: { moment: Moment; before: readonly Value[] }[] = [];

  const take = (moment: Moment, after: readonly Value[]) => {
    order.push({ moment, before: state });
    state = after;
    unlink(moment);
    const back = returns[moment.id];
    if (back) {
      unlink(back);
      remaining--;
    }
  };
  const giveBack = () => {
    const { moment, before } = order.pop()!;
    state = before;
    const back = returns[moment.id];
    if (back) {
      relink(back);
      remaining++;
    }
    relink(moment);
    taken[moment.id >> 4]! ^= 1 << (moment.id & 15);
    return moment;
  };

  let at = head.next;
  while (remaining > 0) {
    if (--budget.steps < 0) return "unknown";
    if (at?.isCall) {
      const operation = compiled[at.id]!;
      if (operation.requires.every(([slot, value]) => state[slot] === value)) {
        const after = operation.effects.length === 0 ? state : written(state, operation.effects);
        taken[at.id >> 4]! ^= 1 << (at.id & 15);
        const configuration = `${String.fromCharCode(...taken)}${after.join()}`;
        if (!met.has(configuration)) {
          met.add(configuration);
          take(at, after);
          at = head.next;
          continue;
        }
        taken[at.id >> 4]! ^= 1 << (at.id & 15);
      }
      at = at.next;
      continue;
    }
    // Something returned that does not fit where it would have to: an earlier choice was wrong. That to read was none.
    let undone: Moment | undefined;
    do {
      if (order.length === 0) return "violation";
      undone = giveBack();
    } while (compiled[undone.id]!.effects.length === 0 && compiled[undone.id]!.isKnown);
    at = undone.next;
  }
  return "linearizable";
}

function momentsOf(history: readonly Operation[]): { head: Moment; returns: (Moment | undefined)[] } {
  const timed: { readonly at: number; readonly moment: Moment }[] = [];
  const returns: (Moment | undefined)[] = [];
  history.forEach((operation, id) => {
    const moment = (isCall: boolean): Moment => ({ id, isCall, next: undefined, previous: undefined });
    timed.push({ at: operation.call, moment: moment(true) });
    const back = operation.return === undefined ? undefined : moment(false);
    if (back && operation.return !== undefined) timed.push({ at: operation.return, moment: back });
    returns.push(back);
  });
  timed.sort((a, b) => a.at - b.at);
  const head: Moment = { id: -1, isCall: false, next: undefined, previous: undefined };
  let last = head;
  for (const { moment } of timed) {
    last.next = moment;
    moment.previous = last;
    last = moment;
  }
  return { head, returns };
}

function unlink(moment: Moment): void {
  moment.previous!.next = moment.next;
  if (moment.next) moment.next.previous = moment.previous;
}

function relink(moment: Moment): void {
  moment.previous!.next = moment;
  if (moment.next) moment.next.previous = moment;
}

function written(state: readonly Value[], effects: Compiled["effects"]): readonly Value[] {
  const after = [...state];
  for (const [slot, value] of effects) after[slot] = value;
  return after;
}
