/**
 * A connection to a bridge's management socket that says only one thing: whether ovs-vswitchd is there, without a break. When
 * it restarts, its flows are gone and nothing in the database tells; this connection breaks at once.
 */
import type { Clock } from "../../lib/clock.ts";
import { keepConnected } from "./keep-connected.ts";

// OpenFlow 1.3, sections 7.1 and 7.5.1 to 7.5.3: every message has version, type, length, transaction id.
const VERSION = 4;
const HELLO = 0;
const ECHO_REQUEST = 2;
const ECHO_REPLY = 3;
const HEADER_BYTES = 8;

export interface OpenflowWatch {
  connected(): boolean;
  /** Counts connections: the flows of an earlier one may be gone. */
  epoch(): number;
  close(): void;
}

export function watchOpenflow(path: string, clock: Clock, changed: () => void): OpenflowWatch {
  let connected = false;
  let epoch = 0;
  let pending = Buffer.alloc(0);
  const close = keepConnected(
    path,
    {
      open(send) {
        pending = Buffer.alloc(0);
        send(Uint8Array.of(VERSION, HELLO, 0, HEADER_BYTES, 0, 0, 0, 1));
      },
      data(bytes, send) {
        pending = Buffer.concat([pending, bytes]);
        while (pending.length >= HEADER_BYTES) {
          const length = pending.readUInt16BE(2);
          if (length < HEADER_BYTES) throw new Error(`an OpenFlow message of ${length} bytes`);
          if (pending.length < length) return;
          const message = pending.subarray(0, length);
          pending = Buffer.from(pending.subarray(length));
          if (message[1] === HELLO && !connected) {
            connected = true;
            epoch++;
            changed();
          } else if (message[1] === ECHO_REQUEST) {
            const reply = Buffer.from(message);
            reply[0] = VERSION;
            reply[1] = ECHO_REPLY;
            send(reply);
          }
        }
      },
      lost() {
        const had = connected;
        connected = false;
        if (had) changed();
      },
    },
    clock,
  );
  return { connected: () => connected, epoch: () => epoch, close };
}
