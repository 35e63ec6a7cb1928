/**
 * What a node has to tell: of each member at most one urgent rumour, about its life, and one about its facts; later news takes
 * the place of earlier. Whoever sends a message fills what is left of it from the front. Facts ride along where there is room:
 * they are many times as long, and what they say can wait.
 */
import { rumorBytes } from "./codec.ts";
import { type NodeId, type Options, RUMORS_MAX, type Rumor } from "./types.ts";

export type Telling = {
  readonly rumor: Rumor;
  readonly bytes: number;
  /** How often it was sent, to whomever. */
  readonly told: number;
  /** It is about who lives, and is gossiped for its own sake. */
  readonly isUrgent: boolean;
};

/** Sorted: urgent first, then by `told`, then newest first. */
export type Queue = readonly Telling[];

/** How often a rumour is passed on: enough that nearly all hear it (SWIM, section 4.1). */
const tellingsMax = (retransmits: number, presentCount: number): number =>
  Math.ceil(retransmits * Math.log10(presentCount + 1));

const isAbout = (telling: Telling, id: NodeId, isUrgent: boolean): boolean =>
  telling.rumor.id === id && telling.isUrgent === isUrgent;

/** The queue with `rumor`, instead of what was waiting to be told of that member. */
export function enqueued(queue: Queue, rumor: Rumor, isUrgent: boolean): Queue {
  const at = queue.findIndex((telling) => isAbout(telling, rumor.id, isUrgent));
  const rest = at < 0 ? queue : queue.toSpliced(at, 1);
  const behindUrgent = isUrgent ? 0 : rest.findIndex((telling) => !telling.isUrgent);
  const telling = { rumor, bytes: rumorBytes(rumor), told: 0, isUrgent };
  return rest.toSpliced(behindUrgent < 0 ? rest.length : behindUrgent, 0, telling);
}

/** Names of facts of this member that wait to be told. */
export const waitingFacts = (queue: Queue, id: NodeId, isUrgent: boolean): readonly string[] =>
  queue.find((telling) => isAbout(telling, id, isUrgent))?.rumor.facts.map((fact) => fact.name) ?? [];

/** Rumours that don't fit are passed over, this many. */
const SKIPPED_MAX = 8;

/**
 * Takes what fits into `room` bytes behind `before` other rumours, without anything about `except` (the receiver itself).
 * @returns the rumours, and the queue after they are sent
 */
export function taken(
  queue: Queue,
  room: number,
  before: number,
  except: string | undefined,
  options: Options,
  presentCount: number,
): { readonly rumors: readonly Rumor[]; readonly queue: Queue } {
  if (queue.length === 0) return { rumors: [], queue };
  const urgentMax = tellingsMax(options.retransmits, presentCount);
  const factsMax = tellingsMax(options.factRetransmits, presentCount);
  const rumors: Rumor[] = [];
  const again: Telling[] = [];
  const rest: Telling[] = [];
  let at = 0;
  for (; at < queue.length && rest.length < SKIPPED_MAX && rumors.length + before < RUMORS_MAX; at++) {
    const telling = queue[at]!;
    if (telling.bytes > room || telling.rumor.id === except) {
      rest.push(telling);
      continue;
    }
    room -= telling.bytes;
    rumors.push(telling.rumor);
    const told = telling.told + 1;
    if (told < (telling.isUrgent ? urgentMax : factsMax)) again.push({ ...telling, told });
  }
  if (rumors.length === 0) return { rumors, queue };
  for (; at < queue.length; at++) rest.push(queue[at]!);
  return { rumors, queue: merged(rest, again) };
}

/** Two sorted queues as one. */
function merged(a: readonly Telling[], b: readonly Telling[]): Queue {
  if (b.length === 0) return a;
  const out: Telling[] = [];
  let i = 0;
  for (const telling of b) {
    while (i < a.length && !comesBefore(telling, a[i]!)) out.push(a[i++]!);
    out.push(telling);
  }
  while (i < a.length) out.push(a[i++]!);
  return out;
}

const comesBefore = (a: Telling, b: Telling): boolean => (a.isUrgent === b.isUrgent ? a.told < b.told : a.isUrgent);
