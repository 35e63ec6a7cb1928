import { assert } from "../../lib/assert.ts";

/**
 * A persistent sorted map: a B+ tree whose nodes are never changed, only replaced along the path to what was written.
 * Every version stays whole for as long as someone holds it, so a snapshot, an overlay of writes that aren't durable
 * yet, and a reader's view cost nothing. Each node knows how many values are under it and their greatest revision, so
 * "has anything in this range changed?" is answered in logarithmic time.
 *
 * Roads not taken: a hash trie has no ranges; a mutable tree with copies for readers stalls on every snapshot.
 */
export type SortedMap<V> = Node<V>;

/** What a value of the map must carry: the revision that wrote it. */
export type Revised = { readonly modRevision: number };

/** What a range holds: how many values, and the greatest revision among them (0 when empty). */
export type Measure = { readonly count: number; readonly maxRevision: number };

type Leaf<V> = Measure & { readonly keys: readonly string[]; readonly values: readonly V[]; readonly children: null };
/** `keys[i]` is the first key under `children[i]`. */
type Branch<V> = Measure & { readonly keys: readonly string[]; readonly children: readonly Node<V>[] };
type Node<V> = Leaf<V> | Branch<V>;

const WIDTH_MAX = 32;
const WIDTH_MIN = 12;
const EMPTY: Leaf<never> = { keys: [], values: [], children: null, count: 0, maxRevision: 0 };

export const emptyMap = <V>(): SortedMap<V> => EMPTY;

export function getFrom<V>(map: SortedMap<V>, key: string): V | undefined {
  let node = map;
  while (node.children !== null) node = node.children[childOf(node.keys, key)]!;
  const at = lowerBound(node.keys, key);
  return node.keys[at] === key ? node.values[at] : undefined;
}

/** The map with `value` under `key`. */
export function withKey<V extends Revised>(map: SortedMap<V>, key: string, value: V): SortedMap<V> {
  const nodes = insert(map, key, value);
  return nodes.length === 1 ? nodes[0]! : branch(nodes);
}

/** The map without `key`; the same map when it has no such key. */
export function withoutKey<V extends Revised>(map: SortedMap<V>, key: string): SortedMap<V> {
  let node = removeFrom(map, key);
  while (node.children !== null && node.children.length === 1) node = node.children[0]!;
  return node;
}

/** Builds a map from entries in strictly ascending key order, in linear time. */
export function fromSorted<V extends Revised>(keys: readonly string[], values: readonly V[]): SortedMap<V> {
  assert(keys.length === values.length, "each key has a value");
  for (let i = 1; i < keys.length; i++) assert(keys[i - 1]! < keys[i]!, "keys ascend");
  if (keys.length === 0) return EMPTY;
  let level: Node<V>[] = chunks(keys.length).map(([from, to]) => leaf(keys.slice(from, to), values.slice(from, to)));
  while (level.length > 1) {
    const below = level;
    level = chunks(below.length).map(([from, to]) => branch(below.slice(from, to)));
  }
  return level[0]!;
}

/** Values with `from` <= key < `to` (either may be left open), in order, at most `limit`. */
export function scan<V>(map: SortedMap<V>, from?: string, to?: string, limit = Number.POSITIVE_INFINITY): V[] {
  const out: V[] = [];
  if (limit > 0) scanInto(map, from, to, limit, out);
  return out;
}

/** Counts the range and finds its greatest revision without walking it. */
export function measure<V extends Revised>(map: SortedMap<V>, from?: string, to?: string): Measure {
  if (from === undefined && to === undefined) return map;
  const start = from === undefined ? 0 : position(map.keys, from, map.children !== null);
  let count = 0;
  let maxRevision = 0;
  for (let i = start; i < map.keys.length; i++) {
    const first = map.keys[i]!;
    if (to !== undefined && first >= to) break;
    if (map.children === null) {
      count++;
      maxRevision = Math.max(maxRevision, map.values[i]!.modRevision);
      continue;
    }
    const next = map.keys[i + 1];
    const whole = (from === undefined || first >= from) && (to === undefined || (next !== undefined && next <= to));
    const part: Measure = whole ? map.children[i]! : measure(map.children[i]!, from, to);
    count += part.count;
    maxRevision = Math.max(maxRevision, part.maxRevision);
  }
  return { count, maxRevision };
}

function scanInto<V>(
  node: Node<V>,
  from: string | undefined,
  to: string | undefined,
  limit: number,
  out: V[],
): boolean {
  const start = from === undefined ? 0 : position(node.keys, from, node.children !== null);
  for (let i = start; i < node.keys.length; i++) {
    if (to !== undefined && node.keys[i]! >= to) return false;
    if (node.children !== null) {
      // Only the first child can begin before `from`.
      if (!scanInto(node.children[i]!, i === start ? from : undefined, to, limit, out)) return false;
    } else {
      out.push(node.values[i]!);
      if (out.length >= limit) return false;
    }
  }
  return true;
}

function insert<V extends Revised>(node: Node<V>, key: string, value: V): Node<V>[] {
  if (node.children === null) {
    const at = lowerBound(node.keys, key);
    if (node.keys[at] === key) return [leafWith(node, at, value)];
    const keys = node.keys.toSpliced(at, 0, key);
    const values = node.values.toSpliced(at, 0, value);
    if (keys.length <= WIDTH_MAX) return [leaf(keys, values)];
    return chunks(keys.length).map(([from, to]) => leaf(keys.slice(from, to), values.slice(from, to)));
  }
  const at = childOf(node.keys, key);
  const below = insert(node.children[at]!, key, value);
  if (below.length === 1) return [branchWith(node, at, below[0]!)];
  const children = node.children.toSpliced(at, 1, ...below);
  return chunks(children.length).map(([from, to]) => branch(children.slice(from, to)));
}

function removeFrom<V extends Revised>(node: Node<V>, key: string): Node<V> {
  if (node.children === null) {
    const at = lowerBound(node.keys, key);
    if (node.keys[at] !== key) return node;
    return leaf(node.keys.toSpliced(at, 1), node.values.toSpliced(at, 1));
  }
  const at = childOf(node.keys, key);
  const child = removeFrom(node.children[at]!, key);
  if (child === node.children[at]) return node;
  if (child.keys.length >= WIDTH_MIN || node.children.length === 1) return branch(node.children.with(at, child));
  const left = at > 0 ? at - 1 : at;
  const pair = at > 0 ? [node.children[left]!, child] : [child, node.children[at + 1]!];
  return branch(node.children.toSpliced(left, 2, ...joined(pair[0]!, pair[1]!)));
}

/** Two neighbours as one node, or as two of about the same width. */
function joined<V extends Revised>(left: Node<V>, right: Node<V>): Node<V>[] {
  if (left.children !== null && right.children !== null) {
    const children = [...left.children, ...right.children];
    return chunks(children.length).map(([from, to]) => branch(children.slice(from, to)));
  }
  assert(left.children === null && right.children === null, "all leaves are at the same depth");
  const keys = [...left.keys, ...right.keys];
  const values = [...left.values, ...right.values];
  return chunks(keys.length).map(([from, to]) => leaf(keys.slice(from, to), values.slice(from, to)));
}

function leaf<V extends Revised>(keys: readonly string[], values: readonly V[]): Leaf<V> {
  let maxRevision = 0;
  for (const value of values) if (value.modRevision > maxRevision) maxRevision = value.modRevision;
  return { keys, values, children: null, count: keys.length, maxRevision };
}

/** A leaf with another value at a place. */
function leafWith<V extends Revised>({ keys, values, maxRevision }: Leaf<V>, at: number, value: V): Leaf<V> {
  const replaced = values.with(at, value);
  // The newest write is the rule.
  if (value.modRevision < maxRevision) return leaf(keys, replaced);
  return { keys, values: replaced, children: null, count: keys.length, maxRevision: value.modRevision };
}

/** A branch with another child at a place. */
function branchWith<V>({ keys, children, count, maxRevision }: Branch<V>, at: number, child: Node<V>): Branch<V> {
  const replaced = children.with(at, child);
  if (child.maxRevision < maxRevision) return branch(replaced);
  return {
    keys: child.keys[0] === keys[at] ? keys : keys.with(at, child.keys[0]!),
    children: replaced,
    count: count - children[at]!.count + child.count,
    maxRevision: child.maxRevision,
  };
}

function branch<V>(children: readonly Node<V>[]): Branch<V> {
  let count = 0;
  let maxRevision = 0;
  const keys: string[] = [];
  for (const child of children) {
    keys.push(child.keys[0]!);
    count += child.count;
    if (child.maxRevision > maxRevision) maxRevision = child.maxRevision;
  }
  return { keys, children, count, maxRevision };
}

/** Cuts 0..length into the fewest near-equal parts of at most WIDTH_MAX; one empty part when length is 0. */
function chunks(length: number): [number, number][] {
  if (length <= WIDTH_MAX) return [[0, length]];
  const parts = Math.ceil(length / WIDTH_MAX);
  return Array.from({ length: parts }, (_, i) => [
    Math.floor((i * length) / parts),
    Math.floor(((i + 1) * length) / parts),
  ]);
}

const position = (keys: readonly string[], key: string, inner: boolean): number =>
  inner ? childOf(keys, key) : lowerBound(keys, key);

/** The child that holds `key` if any does. */
function childOf(keys: readonly string[], key: string): number {
  const at = lowerBound(keys, key);
  return keys[at] === key ? at : Math.max(0, at - 1);
}

/** The first position whose key is not before `key`. */
function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
