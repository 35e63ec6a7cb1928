/**
 * Reads the segments of a directory after whatever happened to it, and decides what the log is. Nothing is changed here:
 * `SegmentLog.open` carries the decision out.
 *
 * Three things are told apart. A *torn tail* is what a crash leaves of the last write, which nobody was told to be durable:
 * it is cut. *Leftovers* are files that a later one replaced: they go. Everything else that fails its checks is *damage*, and
 * may be entries that this node acknowledged. A node alone refuses to start then, since nothing can make up for them. A node
 * with peers gets them back from those: `plan-repair.ts` says how, and what the node owes until then.
 */
import { present } from "../../../lib/assert.ts";
import type { Log } from "../../../lib/log.ts";
import { fail, ok, type Result } from "../../../lib/result.ts";
import { MIB } from "../../../lib/units.ts";
import { type Disk, type DiskFile, errorCode } from "../disk.ts";
import { IDENTITY_NAME } from "./identity.ts";
import { type Entry, type HardState, LOG_LOST, UNKNOWN_VOTE } from "./log-storage.ts";
import {
  type Extent,
  lastIndexOf,
  newHeader,
  planRepair,
  type ScannedSegment,
  type SnapshotPoint,
} from "./plan-repair.ts";
import { decodeSegmentHeader, KIND_SEAL, SEGMENT_HEADER_BYTES, type SegmentHeader } from "./record.ts";
import { scanSegment, surveySegment } from "./scan-segment.ts";
import { isSegmentName, isSetAsideName, sequenceOf } from "./segment-files.ts";

/** One segment as it was found: what it holds of the log, and where. */
export type RecoveredSegment = {
  readonly header: SegmentHeader;
  readonly path: string;
  readonly bytes: number;
  /** Offset and term of each entry, from `header.firstIndex`. */
  readonly offsets: number[];
  readonly terms: number[];
  /** Where its last record ends. */
  end: number;
};

/** How the last segment goes on. */
export type Tail = {
  /** The CRC of its last record. */
  readonly chain: number;
  /** The last write, to be made durable again. */
  readonly rewrite: Uint8Array;
  readonly rewriteAt: number;
  readonly isSealed: boolean;
};

export type RecoveredLog = {
  readonly segments: readonly RecoveredSegment[];
  readonly entries: readonly Entry[];
  readonly hardState: HardState;
  /** The last segment goes on, or a new one begins with this header. */
  readonly next: { readonly tail: Tail } | { readonly begin: SegmentHeader };
  /** Files that no longer count; and those of them that someone may want to see, in the order in which they go. */
  readonly superseded: readonly string[];
  readonly damaged: readonly string[];
};

export type RecoverError = { readonly reason: "corrupt" | "newer"; readonly message: string };

/** For a node that has peers: the newest good snapshot, which the log has to lead on from. */
export type RepairOptions = { readonly snapshot: SnapshotPoint };

const REBUILD =
  "Nothing was changed. If this node has peers, move its store directory away and let it join again: it is rebuilt from " +
  "them. If it is alone, restore the file from a backup.";

/** Where the log is damaged, and how that shows. */
type Fault = { readonly path: string; readonly offset: number; readonly what: string };

const corrupt = ({ path, offset, what }: Fault): RecoverError => ({
  reason: "corrupt",
  message: `The log is damaged: ${path}, offset ${offset}: ${what}. No crash explains this. ${REBUILD}`,
});
const newer = (path: string, version: number): RecoverError => ({
  reason: "newer",
  message: `${path} has format version ${version}: a later version of Hive wrote it. Start that version.`,
});
const lost = (directory: string): RecoverError => ({
  reason: "corrupt",
  message: `The log in ${directory} is gone: there is an ${IDENTITY_NAME} file, and no segment. ${REBUILD}`,
});

/**
 * Reads all segments of a directory and decides what the log is; changes nothing.
 * A later segment's first index ends what the earlier ones count for: that is how a suffix is cut off atomically.
 * @param repair undefined: any damage is refused
 */
export async function recoverLog(
  disk: Disk,
  directory: string,
  log: Log,
  repair: RepairOptions | undefined,
): Promise<Result<RecoveredLog, RecoverError>> {
  const names = (await disk.list(directory)).toSorted();
  const files: SegmentFile[] = [];
  for (const name of names.filter(isSegmentName)) {
    const path = `${directory}/${name}`;
    const file = await readSegment(disk, path, repair !== undefined);
    const { header } = file;
    if (header !== "bad" && "newerFormat" in header) return fail(newer(path, header.newerFormat));
    const sequence = sequenceOf(name);
    // One that is good and another segment's was written to the wrong place.
    const isOwn = header !== "bad" && header.sequence === sequence;
    files.push({ ...file, path, sequence, header: isOwn ? header : undefined });
  }
  if (files.length === 0) {
    const isLost = names.includes(IDENTITY_NAME);
    if (isLost && !repair) return fail(lost(directory));
    return ok(isLost ? lostLog(present(repair, "a repair").snapshot, log) : NEW_LOG);
  }

  const { counted, superseded } = whatCounts(files);
  const illegible = files.filter(({ header }) => !header);
  const fault = firstFault(illegible, counted, repair);
  if (!fault) return ok(asFound(counted, superseded, log));
  if (!repair) return fail(corrupt(fault));

  // Should the header that says what an earlier repair owes be illegible now: its evidence was kept.
  const aside: Survey[] = [];
  for (const name of names.filter(isSetAsideName)) {
    const { file, dataEnd } = await readSegment(disk, `${directory}/${name}`, true);
    aside.push(surveySegment(file, dataEnd));
  }
  const sequence = 1 + Math.max(...files.map((file) => file.sequence));
  const isTailGood = !endsInDamage(illegible, counted);
  const { kept, begin } = planRepair(counted, isTailGood, repair.snapshot, sequence, extentOf(files, aside));
  log.error("store.log_damaged", {
    ...fault,
    lastGoodIndex: begin ? begin.firstIndex - 1 : lastIndexOf(kept.at(-1)!),
    recoverThrough: begin?.recovery?.through ?? "nothing: a snapshot holds what is damaged",
  });
  const damaged = pathsOf(files.filter((file) => !kept.some(({ path }) => path === file.path)));
  if (!begin) return ok({ ...continued(kept), superseded: [], damaged });
  return ok({ ...contentsOf(kept), hardState: begin.hardState, next: { begin }, superseded: [], damaged });
}

/** A log without damage. */
function asFound(counted: readonly CountedSegment[], superseded: readonly SegmentFile[], log: Log): RecoveredLog {
  const { header, path, scan } = counted.at(-1)!;
  if (scan.ending.kind === "torn") {
    log.warn("store.torn_tail_cut", { path, offset: scan.end, lastIndex: lastIndexOf(counted.at(-1)!) });
  }
  // What was left of a repair that a crash interrupted is still worth a look.
  const gone = pathsOf(superseded);
  const [removed, damaged] = header.recovery ? [[], gone] : [gone, []];
  return { ...continued(counted), superseded: removed, damaged };
}

/** A log that goes on in its last segment. */
function continued(counted: readonly CountedSegment[]) {
  const last = present(counted.at(-1), "the log has a segment");
  return { ...contentsOf(counted), hardState: hardStateOf(last), next: { tail: tailOf(last) } };
}

const pathsOf = (files: readonly SegmentFile[]): string[] => files.map(({ path }) => path);

const NOTHING = { segments: [], entries: [], superseded: [], damaged: [] };
const AT_THE_START = { firstIndex: 1, previousTerm: 0, chain: 0, startsOver: false };
const NEW_HARD_STATE: HardState = { term: 0, vote: "" };
const NEW_LOG: RecoveredLog = {
  ...NOTHING,
  hardState: NEW_HARD_STATE,
  next: { begin: newHeader(1, AT_THE_START, NEW_HARD_STATE, undefined) },
};

/** There was a log, and nothing of it is left. */
function lostLog(snapshot: SnapshotPoint, log: Log): RecoveredLog {
  log.error("store.log_lost", { snapshotIndex: snapshot.index });
  const hardState = { term: snapshot.term, vote: UNKNOWN_VOTE };
  const after = { firstIndex: snapshot.index + 1, previousTerm: snapshot.term, chain: 0, startsOver: true };
  const recovery = { through: LOG_LOST, termAtLeast: snapshot.term };
  return { ...NOTHING, hardState, next: { begin: newHeader(1, after, hardState, recovery) } };
}

/** The first thing that no crash explains. Without a repair, a missing start is not judged: the caller does. */
function firstFault(
  illegible: readonly SegmentFile[],
  counted: readonly CountedSegment[],
  repair: RepairOptions | undefined,
): Fault | undefined {
  const bad = illegible[0];
  if (bad) return { path: bad.path, offset: 0, what: "the segment's header fails its checksum" };
  for (const [i, segment] of counted.entries()) {
    const { path, scan, unreadableAt } = segment;
    const missing = lastIndexOf(segment) + 1;
    const next = counted[i + 1];
    if (next) {
      if (scan.ending.kind === "followed") continue;
      const what = `entry ${missing} fails its checksum or is missing, a later file follows`;
      if (missing < next.header.firstIndex) return { path, offset: scan.end, what };
      return { path: next.path, offset: 0, what: "the file does not follow the one before it" };
    }
    if (unreadableAt !== undefined) return { path, offset: unreadableAt, what: "the disk can't read it" };
    if (scan.ending.kind !== "corrupt") continue;
    const proof = `a good record at offset ${scan.ending.provenBy} was written after it was durable`;
    return { path, offset: scan.end, what: `entry ${missing} fails its checksum, though ${proof}` };
  }
  const first = counted.at(0)!;
  const last = counted.at(-1)!;
  if (!repair) {
    const what = "the log was cut at damage, and what it lacks has not come back from peers";
    return last.header.recovery && { path: last.path, offset: 0, what };
  }
  const { firstIndex } = first.header;
  if (firstIndex <= repair.snapshot.index + 1) return undefined;
  return {
    path: first.path,
    offset: 0,
    what: `it begins with entry ${firstIndex}, and no snapshot has those before it`,
  };
}

/** Whether what comes last in the directory is not what a log's end may look like. */
function endsInDamage(illegible: readonly SegmentFile[], counted: readonly CountedSegment[]): boolean {
  const last = counted.at(-1);
  if (!last || last.scan.ending.kind === "corrupt" || last.unreadableAt !== undefined) return true;
  return illegible.some(({ sequence }) => sequence > last.sequence);
}

type Survey = Extent | undefined;

/** What whole records and headers show of the log's extent, and what was owed already. Pure. */
function extentOf(files: readonly SegmentFile[], aside: readonly Survey[]): Extent | undefined {
  const shown = [...aside];
  // A segment cuts off what earlier ones hold from its first index on.
  let cut = Number.POSITIVE_INFINITY;
  for (const { file, dataEnd, header } of files.toReversed()) {
    const survey = surveySegment(file, dataEnd);
    shown.push(survey && { ...survey, index: Math.min(survey.index, cut) });
    if (!header) continue;
    cut = Math.min(cut, header.firstIndex - 1);
    shown.push({ index: cut, term: Math.max(header.previousTerm, header.hardState.term) });
    if (header.recovery) shown.push({ index: header.recovery.through, term: header.recovery.termAtLeast });
    if (header.startsOver) break;
  }
  const extents = shown.filter((extent) => extent !== undefined);
  if (extents.length === 0) return undefined;
  return { index: Math.max(...extents.map(({ index }) => index)), term: Math.max(...extents.map(({ term }) => term)) };
}

function contentsOf(counted: readonly CountedSegment[]) {
  const segments: RecoveredSegment[] = [];
  const entries: Entry[] = [];
  for (const { header, path, file, scan } of counted) {
    segments.push({
      header,
      path,
      bytes: file.length,
      offsets: scan.entries.map(({ offset }) => offset),
      terms: scan.entries.map(({ term }) => term),
      end: scan.end,
    });
    for (const { index, term, payload } of scan.entries) entries.push({ index, term, data: payload });
  }
  return { segments, entries };
}

function hardStateOf({ header, scan: { hardState } }: CountedSegment): HardState {
  return hardState ? { term: hardState.term, vote: Buffer.from(hardState.payload).toString() } : header.hardState;
}

/**
 * The last write may be in the page cache only, whoever wrote it: killed before its sync, or after one that failed. It is
 * about to be shown to readers, so it's written once more and synced; and a torn rest is wiped, lest it be met again.
 */
function tailOf({ header, file, dataEnd, scan }: CountedSegment): Tail {
  const rewriteAt = scan.last?.writeStart ?? SEGMENT_HEADER_BYTES;
  const rest = scan.ending.kind === "torn" ? dataEnd : scan.end;
  const rewrite = Buffer.alloc(rest - rewriteAt);
  file.copy(rewrite, 0, rewriteAt, scan.end);
  return { chain: scan.last?.crc ?? header.chain, rewrite, rewriteAt, isSealed: scan.last?.kind === KIND_SEAL };
}

/** Which segments count, given in order of sequence: not what is before a new start, nor what a later one replaces. */
function whatCounts(files: readonly SegmentFile[]) {
  const legible = files.filter((file): file is SegmentFile & { header: SegmentHeader } => file.header !== undefined);
  const start = Math.max(
    0,
    legible.findLastIndex(({ header }) => header.startsOver),
  );
  const counted: CountedSegment[] = [];
  const superseded: SegmentFile[] = legible.slice(0, start);
  let next: SegmentHeader | undefined;
  for (const segment of legible.slice(start).reverse()) {
    if (next && segment.header.firstIndex >= next.firstIndex) {
      superseded.push(segment);
      continue;
    }
    const scan = scanSegment(segment.file, segment.dataEnd, segment.header, next);
    counted.unshift({ ...segment, scan });
    next = segment.header;
  }
  return { counted, superseded };
}

/** A segment's bytes, where the zeros begin that it was filled with, and the first of those that the disk can't read. */
type SegmentFile = {
  readonly path: string;
  readonly sequence: number;
  /** Undefined when it fails its checks. */
  readonly header: SegmentHeader | undefined;
  readonly file: Buffer;
  readonly dataEnd: number;
  readonly unreadableAt: number | undefined;
};
type CountedSegment = SegmentFile & ScannedSegment;

const READ_BYTES = MIB;
const ZEROS = Buffer.alloc(READ_BYTES);

/** Reads by way of one small buffer and keeps what isn't zero: the unused rest of a segment then costs no memory. */
async function readSegment(disk: Disk, path: string, skipUnreadable: boolean) {
  const opened = await disk.open(path, "read");
  try {
    const file = Buffer.alloc(await opened.size());
    const reuse = Buffer.allocUnsafe(Math.min(READ_BYTES, file.length));
    let dataEnd = 0;
    let unreadableAt: number | undefined;
    for (let at = 0; at < file.length; at += READ_BYTES) {
      const length = Math.min(READ_BYTES, file.length - at);
      const read = await readPiece(opened, at, length, reuse, skipUnreadable);
      unreadableAt ??= read.unreadableAt;
      const { bytes } = read;
      if (Buffer.compare(bytes, ZEROS.subarray(0, bytes.length)) === 0) continue;
      file.set(bytes, at);
      let last = bytes.length - 1;
      while (bytes[last] === 0) last--;
      dataEnd = at + last + 1;
    }
    return { header: decodeSegmentHeader(file), file, dataEnd, unreadableAt };
  } finally {
    await opened.close();
  }
}

const BLOCK_BYTES = 4096;

/** Reads a piece of a file; block by block where the disk fails at it, with zeros for those that can't be read. */
async function readPiece(file: DiskFile, at: number, length: number, reuse: Uint8Array, skipUnreadable: boolean) {
  try {
    return { bytes: await file.read(at, length, reuse), unreadableAt: undefined };
  } catch (error) {
    if (!skipUnreadable || errorCode(error) !== "EIO") throw error;
  }
  const bytes = new Uint8Array(length);
  let unreadableAt: number | undefined;
  for (let done = 0; done < length; done += BLOCK_BYTES) {
    try {
      bytes.set(await file.read(at + done, Math.min(BLOCK_BYTES, length - done)), done);
    } catch (error) {
      if (errorCode(error) !== "EIO") throw error;
      unreadableAt ??= at + done;
    }
  }
  return { bytes, unreadableAt };
}
