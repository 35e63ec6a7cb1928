/** Keeps one connection to a unix socket: made anew when it is lost, with growing pauses, without a busy loop. */
import type { Clock } from "../../lib/clock.ts";

const FIRST_RETRY_MS = 20;
const MAX_RETRY_MS = 1000;

export interface Protocol {
  /** The connection is there: say hello. */
  open(send: (bytes: Uint8Array | string) => void): void;
  /** @throws whatever it likes when the peer talks nonsense: the connection is closed and made anew */
  data(bytes: Uint8Array, send: (bytes: Uint8Array | string) => void): void;
  /** The connection is lost, or could not be made (`reason`, from the operating system). Called once for each. */
  lost(reason: string): void;
}

/** @returns a function that closes the connection for good */
export function keepConnected(path: string, protocol: Protocol, clock: Clock): () => void {
  const stopping = new AbortController();
  let end: (() => void) | undefined;
  void (async () => {
    let pauseMs = FIRST_RETRY_MS;
    while (!stopping.signal.aborted) {
      const reason = await oneConnection(path, protocol, stopping.signal, (stop) => {
        end = stop;
      });
      end = undefined;
      if (stopping.signal.aborted) return;
      pauseMs = reason.opened ? FIRST_RETRY_MS : Math.min(pauseMs * 2, MAX_RETRY_MS);
      protocol.lost(reason.why);
      await clock.sleep(pauseMs, stopping.signal);
    }
  })();
  return () => {
    stopping.abort();
    end?.();
  };
}

function oneConnection(
  path: string,
  protocol: Protocol,
  signal: AbortSignal,
  onOpen: (stop: () => void) => void,
): Promise<{ readonly opened: boolean; readonly why: string }> {
  return new Promise((resolve) => {
    let opened = false;
    let why = "the connection was closed";
    // What the socket does not take at once waits here for `drain`.
    let backlog: Uint8Array = new Uint8Array();
    const flush = (socket: { write(data: Uint8Array): number }) => {
      const written = socket.write(backlog);
      backlog = backlog.subarray(Math.max(written, 0));
    };
    const sender = (socket: { write(data: Uint8Array): number }) => (bytes: Uint8Array | string) => {
      backlog = Buffer.concat([backlog, typeof bytes === "string" ? Buffer.from(bytes) : bytes]);
      flush(socket);
    };
    Bun.connect({
      unix: path,
      socket: {
        open(socket) {
          if (signal.aborted) return void socket.end();
          opened = true;
          onOpen(() => socket.end());
          protocol.open(sender(socket));
        },
        data(socket, bytes) {
          try {
            protocol.data(bytes, sender(socket));
          } catch (cause) {
            why = `the peer's answer was not understood: ${cause instanceof Error ? cause.message : String(cause)}`;
            socket.end();
          }
        },
        drain: flush,
        close: () => resolve({ opened, why }),
        error(_socket, error) {
          why = error.message;
        },
        connectError: (_socket, error) => resolve({ opened, why: error.message }),
      },
    }).catch((cause) => resolve({ opened, why: cause instanceof Error ? cause.message : String(cause) }));
  });
}
