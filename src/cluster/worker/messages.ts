/**
 * What the store's thread and consensus's thread say to each other. Each side gathers what it has to say in one turn of
 * its loop into one batch (`channel.ts`), and the other takes a batch's messages one after another.
 *
 * Everything rests on their order: it is kept, from one side to the other, over all kinds of messages. So the state that a
 * `snapshot` or `digest` is asked of is the one after the entries handed over before it and no others; an election that is
 * told was won or lost at just that place among the entries; and an answer comes after whatever was done before it was given.
 * Nothing is kept between the two directions: what the store proposes may cross the news that this node leads no more, and is
 * then dropped, as it names its term.
 */
import type { Fields, Level } from "../../lib/log.ts";
import type { Result } from "../../lib/result.ts";
import type { StoreError } from "../../model/store.ts";
import type { ConsensusError, ConsensusStatus, StoredSnapshot } from "../consensus.ts";
import type { FoundLog, Ground, Replayed } from "../node/open-consensus.ts";
import type { PeerAddress, Tls, TransportLimits, TransportStats } from "../node/tcp-transport.ts";
import type { ConfigurationChange, Entry, Index, PeerId, SnapshotPoint, Term } from "../raft/types.ts";

/** Where a node listens for the others, for a Worker that does. See `TcpTransportOptions`; `clusterId` is the handshake's. */
export type ListenAt = {
  readonly hostname: string;
  readonly port: number;
  readonly clusterId: string;
  readonly secret: Uint8Array;
  readonly tls?: Tls;
  /** Whether any node may speak that proved itself, though it is not among the peers: one that joins. */
  readonly admitsStrangers?: boolean;
  readonly limits?: Partial<TransportLimits>;
  /** The Worker's program, where it isn't Hive's own: a test's, whose disk has faults. */
  readonly program?: string | URL;
};

export type ToConsensus =
  | { readonly type: "open"; readonly ground: Ground; readonly listen: Omit<ListenAt, "program"> }
  | { readonly type: "start"; readonly replayed: Replayed | undefined }
  | { readonly type: "propose"; readonly term: Term; readonly commands: Packed }
  /** All entries up to there are applied. */
  | { readonly type: "applied"; readonly index: Index }
  /** The state machine came upon something that cannot be. It takes no further entries. */
  | { readonly type: "defect"; readonly message: string }
  | { readonly type: "peers"; readonly peers: ReadonlyMap<PeerId, PeerAddress> }
  | Question<ConsensusCalls>
  | Answer
  | { readonly type: "close" };

export type ToStore =
  | { readonly type: "opened"; readonly result: Result<OpenedLog, StoreError> }
  | { readonly type: "started"; readonly result: Result<ConsensusStatus, StoreError> }
  /** Comes before whatever it is news for. */
  | { readonly type: "status"; readonly status: ConsensusStatus }
  | { readonly type: "apply"; readonly entries: PackedEntries }
  | { readonly type: "gained" | "lost"; readonly term: Term }
  | { readonly type: "leader"; readonly leader: PeerId | undefined }
  | Question<MachineCalls>
  | Answer
  | { readonly type: "log"; readonly level: Level; readonly event: string; readonly fields: Fields | undefined }
  | { readonly type: "closed" };

export type OpenedLog = Omit<FoundLog, "entries"> & { readonly entries: PackedEntries; readonly port: number };

// --- Questions, and their answers

export type ConsensusCalls = {
  readonly readIndex: { readonly ask: undefined; readonly answer: Result<Index, ConsensusError> };
  readonly changeConfiguration: { readonly ask: ConfigurationChange; readonly answer: Result<void, ConsensusError> };
  readonly transferLeadership: { readonly ask: PeerId | undefined; readonly answer: Result<void, ConsensusError> };
  readonly request: {
    readonly ask: { readonly to: PeerId; readonly body: Uint8Array; readonly timeoutMs: number };
    readonly answer: Result<Uint8Array, ConsensusError>;
  };
  readonly stats: { readonly ask: undefined; readonly answer: Result<TransportStats, ConsensusError> };
};

export type MachineCalls = {
  readonly install: { readonly ask: StoredSnapshot; readonly answer: Result<void, string> };
  readonly verify: { readonly ask: string; readonly answer: Result<SnapshotPoint, string> };
  readonly snapshot: { readonly ask: SnapshotPoint; readonly answer: Result<StoredSnapshot, string> };
  readonly digest: { readonly ask: undefined; readonly answer: number };
  /** Whether the store's thread is there. */
  readonly ping: { readonly ask: undefined; readonly answer: undefined };
  readonly answer: { readonly ask: { readonly from: PeerId; readonly body: Uint8Array }; readonly answer: Uint8Array };
};

type Calls = { readonly [call: string]: { readonly ask: unknown; readonly answer: unknown } };
export type Question<Of extends Calls> = {
  [Call in keyof Of]: {
    readonly type: "question";
    readonly id: number;
    readonly call: Call;
    readonly ask: Of[Call]["ask"];
  };
}[keyof Of];
/** `thrown`: there is no answer, for a defect. */
export type Answer = {
  readonly type: "answer";
  readonly id: number;
  readonly value?: unknown;
  readonly thrown?: string;
};

// --- Many byte strings as one

/**
 * One buffer, which changes hands without a copy, and where each string in it ends. A view that is sent takes the whole buffer
 * behind it along, and each one that is sent costs as much as kilobytes in another (64 of 300 bytes: 45 us there and back,
 * packed 11; Bun 1.4).
 */
export type Packed = { readonly bytes: Uint8Array<ArrayBuffer>; readonly ends: readonly number[] };

export function pack(all: readonly Uint8Array[]): Packed {
  let size = 0;
  const ends = all.map(({ length }) => {
    size += length;
    return size;
  });
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const each of all) {
    bytes.set(each, at);
    at += each.length;
  }
  return { bytes, ends };
}

export function unpack({ bytes, ends }: Packed): Uint8Array[] {
  let start = 0;
  return ends.map((end) => {
    const each = bytes.subarray(start, end);
    start = end;
    return each;
  });
}

/** Entries without gaps, from `first` on. Each of `terms` holds for so many of them. */
export type PackedEntries = {
  readonly first: Index;
  readonly terms: readonly { readonly term: Term; readonly count: number }[];
  readonly data: Packed;
};

export function packEntries(entries: readonly Entry[]): PackedEntries {
  const terms: { term: Term; count: number }[] = [];
  for (const { term } of entries) {
    const run = terms.at(-1);
    if (run?.term === term) run.count++;
    else terms.push({ term, count: 1 });
  }
  return { first: entries[0]?.index ?? 0, terms, data: pack(entries.map(({ data }) => data)) };
}

export function unpackEntries({ first, terms, data }: PackedEntries): Entry[] {
  const all = unpack(data);
  let at = 0;
  return terms.flatMap(({ term, count }) =>
    Array.from({ length: count }, (): Entry => ({ index: first + at, term, data: all[at++]! })),
  );
}
