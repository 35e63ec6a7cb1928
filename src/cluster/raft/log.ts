/**
 * The core's view of the log: the term of every entry that the files hold, and the latest entries themselves. A value that
 * never changes: an old one stays valid however the log goes on. What is not in memory any more is read from the files by
 * whoever drives the core.
 */
import { assert } from "../../lib/assert.ts";
import type { Entry, Index, Term } from "./types.ts";

export type LogPosition = { readonly index: Index; readonly term: Term };

export type RaftLog = {
  /** The entry before the first whose term is known: the end of a snapshot. */
  readonly base: LogPosition;
  /** Terms never fall: each run says which entry is the first of its term after `base`. Ascending. */
  readonly runs: readonly LogPosition[];
  readonly last: Index;
  /** Entries `last - (end - start) + 1` to `last` are `items[start]` to `items[end - 1]`. Shared with older logs; only grows. */
  readonly items: Entry[];
  readonly start: number;
  readonly end: number;
  /** Bytes of data in memory. */
  readonly bytes: number;
};

export const emptyLog = (base: LogPosition): RaftLog => ({
  base,
  runs: [],
  last: base.index,
  items: [],
  start: 0,
  end: 0,
  bytes: 0,
});

/** The first index whose entry is in memory; `last + 1` when none is. */
export const firstInMemory = (log: RaftLog): Index => log.last - (log.end - log.start) + 1;

/** The term of an entry from `base` to `last`; undefined for any other. */
export function termAt(log: RaftLog, index: Index): Term | undefined {
  if (index > log.last || index < log.base.index) return undefined;
  for (let i = log.runs.length - 1; i >= 0; i--) if (log.runs[i]!.index <= index) return log.runs[i]!.term;
  return log.base.term;
}

export const lastTerm = (log: RaftLog): Term => log.runs.at(-1)?.term ?? log.base.term;

/** Adds entries that follow the last one. */
export function appended(log: RaftLog, entries: readonly Entry[]): RaftLog {
  if (entries.length === 0) return log;
  let { runs, last, items, start, end, bytes } = log;
  // The array is shared: whoever has the longest view may grow it, others get their own.
  if (items.length !== end) {
    items = items.slice(start, end);
    end -= start;
    start = 0;
  }
  let term = lastTerm(log);
  for (const entry of entries) {
    assert(entry.index === last + 1, "log indexes have no gaps");
    assert(entry.term >= term, "terms never fall along the log");
    if (entry.term !== term) {
      term = entry.term;
      runs = [...runs, { index: entry.index, term }];
    }
    items.push(entry);
    bytes += entry.data.length;
    last++;
    end++;
  }
  return { base: log.base, runs, last, items, start, end, bytes };
}

/** Without the entries after `index`. */
export function truncated(log: RaftLog, index: Index): RaftLog {
  assert(index >= log.base.index, "what a snapshot holds is never cut off");
  if (index >= log.last) return log;
  const keep = Math.max(0, log.end - log.start - (log.last - index));
  const items = log.items.slice(log.start, log.start + keep);
  const bytes = items.reduce((sum, { data }) => sum + data.length, 0);
  const runs = log.runs.filter((run) => run.index <= index);
  return { base: log.base, runs, last: index, items, start: 0, end: keep, bytes };
}

/** Keeps in memory the entries after `index`, and of those before only `bytesMax` bytes. */
export function trimmed(log: RaftLog, index: Index, bytesMax: number): RaftLog {
  let { start, bytes } = log;
  let first = firstInMemory(log);
  while (first <= index && start < log.end && bytes > bytesMax) {
    bytes -= log.items[start]!.data.length;
    start++;
    first++;
  }
  if (start === log.start) return log;
  // The dropped ones are freed once they are most of the array.
  if (start * 2 < log.items.length) return { ...log, start, bytes };
  return { ...log, items: log.items.slice(start, log.end), start: 0, end: log.end - start, bytes };
}

/** The files hold nothing before and at `position` any more. */
export function compacted(log: RaftLog, position: LogPosition): RaftLog {
  if (position.index <= log.base.index) return log;
  assert(termAt(log, position.index) === position.term, "a snapshot ends at an entry of this log");
  const runs = log.runs.filter((run) => run.index > position.index);
  const drop = Math.max(0, position.index - firstInMemory(log) + 1);
  const items = log.items.slice(log.start + drop, log.end);
  const bytes = items.reduce((sum, { data }) => sum + data.length, 0);
  return { base: position, runs, last: log.last, items, start: 0, end: items.length, bytes };
}

/** Entries `from` to `through`, at most `bytesMax` bytes but at least one; undefined when `from` is not in memory. */
export function slice(log: RaftLog, from: Index, through: Index, bytesMax: number): readonly Entry[] | undefined {
  const first = firstInMemory(log);
  if (from < first) return undefined;
  const begin = log.start + from - first;
  let end = begin;
  const limit = Math.min(log.end, begin + through - from + 1);
  let bytes = 0;
  while (end < limit) {
    bytes += log.items[end]!.data.length;
    if (bytes > bytesMax && end > begin) break;
    end++;
  }
  return log.items.slice(begin, end);
}

/** The last entry at or before `index` whose term is at most `term`; `base` is the earliest that is known. */
export function lastWithin(log: RaftLog, index: Index, term: Term): LogPosition | undefined {
  let end = Math.min(index, log.last);
  for (let i = log.runs.length - 1; i >= 0; i--) {
    const run = log.runs[i]!;
    if (run.index > end) continue;
    if (run.term <= term) return { index: end, term: run.term };
    end = run.index - 1;
  }
  return end >= log.base.index && log.base.term <= term ? { index: end, term: log.base.term } : undefined;
}
