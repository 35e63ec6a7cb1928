/**
 * What a node with peers does about a damaged log. Pure: it looks at what was found and names what is kept.
 *
 * If the damage is in what the newest snapshot holds anyway, the whole rest of the log is kept and nothing was lost.
 * Otherwise the log is cut at the damage, or starts over after the snapshot, with a new segment whose header says what the
 * node owes (`Damage` in `log-storage.ts`). That header is the repair: files that no longer count are set aside after it
 * is durable, so a crash at any point leaves either the damaged log as it was, or the repaired one with its debt.
 *
 * The debt is at least one entry more than what is kept. The damage may have taken a truncation, and then the last of what
 * is kept was replaced long ago; but a leader only appends to a log that is its own up to there (Log Matching), so with one
 * entry more, a leader has confirmed all of it.
 */
import { type HardState, LOG_LOST, UNKNOWN_VOTE } from "./log-storage.ts";
import { LOG_FORMAT_VERSION, type Recovery, type SegmentHeader } from "./record.ts";
import type { SegmentScan } from "./scan-segment.ts";

export type ScannedSegment = { readonly sequence: number; readonly header: SegmentHeader; readonly scan: SegmentScan };

/** What whole records and headers show of the log as it was. */
export type Extent = { readonly index: number; readonly term: number };

/** The last entry that a snapshot holds, and its term; both 0 when there is none. */
export type SnapshotPoint = { readonly index: number; readonly term: number };

export type Repair<T> = {
  /** The segments that stay, in order; the last one up to where its scan ended. */
  readonly kept: readonly T[];
  /** The header of the segment that is begun after them, unless the last one simply goes on. */
  readonly begin: SegmentHeader | undefined;
};

/**
 * @param counted the segments whose headers are good and that no later one replaced, in order
 * @param isTailGood whether the last of them ends as a log may end, and no file follows it
 * @param sequence of the segment to be begun
 * @param extent undefined when nothing at all was legible
 */
export function planRepair<T extends ScannedSegment>(
  counted: readonly T[],
  isTailGood: boolean,
  snapshot: SnapshotPoint,
  sequence: number,
  extent: Extent | undefined,
): Repair<T> {
  const isBroken = (i: number) => i < counted.length - 1 && counted[i]!.scan.ending.kind !== "followed";
  const leadsOn = (run: readonly T[]) =>
    run.length > 0 && run[0]!.header.firstIndex <= snapshot.index + 1 && lastIndexOf(run.at(-1)!) >= snapshot.index;

  const newest = counted.slice(counted.findLastIndex((_, i) => isBroken(i)) + 1);
  if (isTailGood && leadsOn(newest)) return { kept: newest, begin: undefined };

  const termAtLeast = Math.max(extent?.term ?? 0, snapshot.term);
  const begin = (after: Pick<SegmentHeader, "firstIndex" | "previousTerm" | "chain" | "startsOver">): SegmentHeader => {
    const through = extent ? Math.max(extent.index, after.firstIndex) : LOG_LOST;
    return newHeader(sequence, after, { term: termAtLeast, vote: UNKNOWN_VOTE }, { through, termAtLeast });
  };
  const firstBroken = counted.findIndex((_, i) => isBroken(i));
  const oldest = firstBroken === -1 ? counted : counted.slice(0, firstBroken + 1);
  if (!leadsOn(oldest)) {
    const after = { firstIndex: snapshot.index + 1, previousTerm: snapshot.term, chain: 0, startsOver: true };
    return { kept: [], begin: begin(after) };
  }
  const { header, scan } = oldest.at(-1)!;
  const lastEntry = scan.entries.at(-1);
  // One that keeps no entry is replaced: of two that begin at one index, the later one counts.
  if (!lastEntry) return { kept: oldest.slice(0, -1), begin: begin(header) };
  const chain = scan.last?.crc ?? header.chain;
  return {
    kept: oldest,
    begin: begin({ firstIndex: lastEntry.index + 1, previousTerm: lastEntry.term, chain, startsOver: false }),
  };
}

export const lastIndexOf = ({ header, scan }: ScannedSegment): number => header.firstIndex + scan.entries.length - 1;

export const newHeader = (
  sequence: number,
  after: Pick<SegmentHeader, "firstIndex" | "previousTerm" | "chain" | "startsOver">,
  hardState: HardState,
  recovery: Recovery | undefined,
): SegmentHeader => ({
  format: LOG_FORMAT_VERSION,
  sequence,
  firstIndex: after.firstIndex,
  previousTerm: after.previousTerm,
  chain: after.chain,
  startsOver: after.startsOver,
  hardState,
  recovery,
});
