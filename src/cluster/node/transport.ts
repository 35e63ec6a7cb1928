/**
 * How one node's consensus reaches the others: best effort, like the network it is. Frames may be lost, doubled and late;
 * between two connected nodes they mostly come in order. Every frame comes from an authenticated member of the cluster.
 */
import type { Message, PeerId, SnapshotPoint, Term } from "../raft/types.ts";

/** What travels between nodes. */
export type Frame =
  | { readonly type: "raft"; readonly message: Message }
  /**
   * A piece of the sender's newest snapshot file, at most SNAPSHOT_CHUNK_BYTES. `crc`: CRC-32 of the whole file's bytes up to
   * the end of this piece, so that a resumed transfer is the same file; `total`: the file's length.
   */
  | {
      readonly type: "snapshot-chunk";
      readonly term: Term;
      readonly point: SnapshotPoint;
      readonly offset: number;
      readonly total: number;
      readonly crc: number;
      readonly bytes: Uint8Array;
    }
  /** The receiver has everything up to `offset` of the snapshot at `index`: send on from there. `total` when it is done. */
  | {
      readonly type: "snapshot-ack";
      readonly term: Term;
      readonly index: number;
      readonly offset: number;
      readonly done: boolean;
    }
  | { readonly type: "request"; readonly id: number; readonly body: Uint8Array }
  | { readonly type: "response"; readonly id: number; readonly body: Uint8Array };

export const SNAPSHOT_CHUNK_BYTES = 256 * 1024;
/** The largest frame that is accepted; an append message of one largest command fits. */
export const FRAME_BYTES_MAX = 16 * 1024 * 1024;

export interface Transport {
  /** Sends, or drops: it never waits, and never throws. Frames to one peer that can't go out pile up to a bound only. */
  send(to: PeerId, frame: Frame): void;
  /** What to call for frames, and for connections that broke. Set once, before anything is sent. */
  listen(handlers: { frame(from: PeerId, frame: Frame): void; unreachable(peer: PeerId): void }): void;
  close(): Promise<void>;
}
