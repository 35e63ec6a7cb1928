import { assert } from "../../../lib/assert.ts";
import type { Log } from "../../../lib/log.ts";
import { fail, ok, type Result } from "../../../lib/result.ts";
import { MIB } from "../../../lib/units.ts";
import type { Disk } from "../disk.ts";
import type { Entry, HardState } from "./log-storage.ts";
import {
  decodeSegmentHeader,
  KIND_ENTRY,
  KIND_HARD_STATE,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
} from "./record.ts";
import { type SegmentScan, scanSegment } from "./scan-segment.ts";
import { isSegmentName } from "./segment-files.ts";

/** One segment as it was found: what it holds of the log, and where. */
export type RecoveredSegment = {
  readonly header: SegmentHeader;
  readonly path: string;
  readonly bytes: number;
  /** Offset and term of each entry, from `header.firstIndex`. */
  readonly offsets: number[];
  readonly terms: number[];
};

export type RecoveredLog = {
  readonly segments: readonly RecoveredSegment[];
  readonly entries: readonly Entry[];
  readonly hardState: HardState;
  /** Where the last segment's records end, the CRC of its last record, and the last write, to be made durable again. */
  readonly tail: {
    readonly end: number;
    readonly chain: number;
    readonly rewrite: Uint8Array;
    readonly rewriteAt: number;
  };
  /** Files that no longer count. */
  readonly superseded: readonly string[];
};

export type RecoverError = { readonly reason: "corrupt" | "newer"; readonly message: string };

const REBUILD =
  "Nothing was changed. If this node has peers, move its store directory away and let it join again: it is rebuilt from " +
  "them. If it is alone, restore the file from a backup.";

const corrupt = (path: string, offset: number, what: string): RecoverError => ({
  reason: "corrupt",
  message: `The log is damaged: ${path}, offset ${offset}: ${what}. No crash explains this. ${REBUILD}`,
});
const newer = (path: string, version: number): RecoverError => ({
  reason: "newer",
  message: `${path} has format version ${version}: a later version of Hive wrote it. Start that version.`,
});

/**
 * Reads all segments of a directory and decides what the log is; changes nothing. Undefined when there is none.
 * A later segment's first index ends what the earlier ones count for: that is how a suffix is cut off atomically.
 */
export async function recoverLog(
  disk: Disk,
  directory: string,
  log: Log,
): Promise<Result<RecoveredLog | undefined, RecoverError>> {
  const found: (SegmentFile & { header: SegmentHeader; path: string })[] = [];
  for (const name of (await disk.list(directory)).filter(isSegmentName).sort()) {
    const path = `${directory}/${name}`;
    const segment = await readSegment(disk, path);
    const header = decodeSegmentHeader(segment.file);
    if (header === "bad") return fail(corrupt(path, 0, "the segment's header fails its checksum"));
    if ("newerFormat" in header) return fail(newer(path, header.newerFormat));
    found.push({ header, path, ...segment });
  }
  if (found.length === 0) return ok(undefined);

  const { counted, superseded } = whatCounts(found);
  const segments: RecoveredSegment[] = [];
  const entries: Entry[] = [];
  let scan: SegmentScan | undefined;
  for (const [i, { header, path, file, dataEnd }] of counted.entries()) {
    const next = counted[i + 1]?.header;
    const lastIndex = next ? next.firstIndex - 1 : Number.MAX_SAFE_INTEGER;
    scan = scanSegment(file, dataEnd, header, lastIndex);
    const offsets: number[] = [];
    const terms: number[] = [];
    for (const record of scan.records) {
      if (record.kind !== KIND_ENTRY) continue;
      offsets.push(record.offset);
      terms.push(record.term);
      entries.push({ index: record.index, term: record.term, data: record.payload });
    }
    const reached = header.firstIndex + offsets.length - 1;
    if (next && reached !== lastIndex) {
      return fail(
        corrupt(path, scan.end, `entry ${reached + 1} fails its checksum or is missing, a later file follows`),
      );
    }
    if (next && (scan.records.at(-1)?.crc ?? header.chain) !== next.chain) {
      return fail(corrupt(counted[i + 1]!.path, 0, "the file does not follow the one before it"));
    }
    if (!next && scan.ending.kind === "corrupt") {
      const proof = `a good record at offset ${scan.ending.provenBy} was written after it was durable`;
      return fail(corrupt(path, scan.end, `entry ${reached + 1} fails its checksum, though ${proof}`));
    }
    if (!next && scan.ending.kind === "torn") {
      log.warn("store.torn_tail_cut", { path, offset: scan.end, lastIndex: reached });
    }
    segments.push({ header, path, bytes: file.length, offsets, terms });
  }
  assert(scan, "at least one segment counts");
  return ok({ segments, entries, superseded, ...tailOf(counted.at(-1)!, scan) });
}

function tailOf({ header, file, dataEnd }: SegmentFile & { header: SegmentHeader }, scan: SegmentScan) {
  const last = scan.records.at(-1);
  const vote = scan.records.findLast((record) => record.kind === KIND_HARD_STATE);
  const hardState = vote ? { term: vote.term, vote: Buffer.from(vote.payload).toString() } : header.hardState;
  // The last write may be in the page cache only, whoever wrote it: killed before its sync, or after one that failed. It
  // is about to be shown to readers, so it's written once more and synced; and a torn rest is wiped, lest it be met again.
  const rewriteAt = last?.writeStart ?? SEGMENT_HEADER_BYTES;
  const rest = scan.ending.kind === "torn" ? dataEnd : scan.end;
  const rewrite = Buffer.alloc(rest - rewriteAt);
  file.copy(rewrite, 0, rewriteAt, scan.end);
  return { hardState, tail: { end: scan.end, chain: last?.crc ?? header.chain, rewrite, rewriteAt } };
}

/** Which segments count, given in order of sequence: not what is before a new start, nor what a later one replaces. */
function whatCounts<T extends { header: SegmentHeader; path: string }>(found: readonly T[]) {
  const start = Math.max(
    0,
    found.findLastIndex(({ header }) => header.startsOver),
  );
  const counted: T[] = [];
  const superseded = found.slice(0, start).map(({ path }) => path);
  let before = Number.POSITIVE_INFINITY;
  for (const segment of found.slice(start).reverse()) {
    if (segment.header.firstIndex < before) {
      counted.unshift(segment);
      before = segment.header.firstIndex;
    } else {
      superseded.push(segment.path);
    }
  }
  return { counted, superseded };
}

/** A segment's bytes, and where the zeros begin that it was filled with. */
type SegmentFile = { readonly file: Buffer; readonly dataEnd: number };

const READ_BYTES = MIB;
const ZEROS = Buffer.alloc(READ_BYTES);

/** Reads by way of one small buffer and keeps what isn't zero: the unused rest of a segment then costs no memory. */
async function readSegment(disk: Disk, path: string): Promise<SegmentFile> {
  const opened = await disk.open(path, "read");
  try {
    const file = Buffer.alloc(await opened.size());
    const reuse = Buffer.allocUnsafe(READ_BYTES);
    let dataEnd = 0;
    for (let at = 0; at < file.length; at += READ_BYTES) {
      const bytes = await opened.read(at, Math.min(READ_BYTES, file.length - at), reuse);
      if (Buffer.compare(bytes, ZEROS.subarray(0, bytes.length)) === 0) continue;
      file.set(bytes, at);
      let last = bytes.length - 1;
      while (bytes[last] === 0) last--;
      dataEnd = at + last + 1;
    }
    return { file, dataEnd };
  } finally {
    await opened.close();
  }
}
