/** Serial consoles over a websocket: binary frames both ways. Many may watch one console, and all may type. */
import type { ServerWebSocket, WebSocketHandler } from "bun";

/** The node's serial consoles; kept by the hypervisor. */
export interface ConsoleHub {
  /** The end of what the console said since the last start; undefined for an instance that has no console here. */
  output(instanceId: string): Uint8Array | undefined;
  /**
   * Calls `onData` with what the console says from now on, and `onEnd` when the machine is gone; with `output` in the same
   * turn of the event loop nothing is missing or double. Undefined when no machine runs.
   */
  watch(instanceId: string, onData: (bytes: Uint8Array) => void, onEnd: () => void): (() => void) | undefined;
  /** Types into the console; false when no machine runs. */
  write(instanceId: string, bytes: Uint8Array): boolean;
}

export interface ConsoleSocketData {
  readonly instanceId: string;
  readonly hub: ConsoleHub;
  unwatch?: () => void;
}

/** Above this a watcher is too slow to follow; it's closed rather than allowed to fill memory. */
const BACKLOG_BYTES_MAX = 4 * 1024 * 1024;

/** How much of what was said before a new watcher is sent: a screen or two. */
const TAIL_BYTES = 4 * 1024;

/** Bun's handlers for console sockets. */
export const consoleWebSocket: WebSocketHandler<ConsoleSocketData> = {
  maxPayloadLength: 64 * 1024,
  // A console may be silent for days; the connection's end is noticed by TCP.
  idleTimeout: 0,
  open(socket: ServerWebSocket<ConsoleSocketData>) {
    const { hub, instanceId } = socket.data;
    const before = hub.output(instanceId);
    if (before && before.byteLength > 0) socket.sendBinary(before.subarray(-TAIL_BYTES));
    const unwatch = hub.watch(
      instanceId,
      (bytes) => {
        if (socket.getBufferedAmount() > BACKLOG_BYTES_MAX) socket.close(1013, "too slow to follow the console");
        else socket.sendBinary(bytes);
      },
      () => socket.close(1000, "the machine has ended"),
    );
    if (unwatch) socket.data.unwatch = unwatch;
    else socket.close(1000, "no machine is running");
  },
  message(socket, message) {
    const bytes = typeof message === "string" ? new TextEncoder().encode(message) : new Uint8Array(message);
    if (!socket.data.hub.write(socket.data.instanceId, bytes)) socket.close(1000, "no machine is running");
  },
  close(socket) {
    socket.data.unwatch?.();
  },
};

/**
 * The console's output as a stream; with `follow`, what comes after it too, until the machine ends or the reader goes.
 * Undefined for an instance that has no console here.
 */
export function streamConsole(
  hub: ConsoleHub,
  instanceId: string,
  follow: boolean,
  signal: AbortSignal,
): ReadableStream<Uint8Array> | undefined {
  const before = hub.output(instanceId);
  if (!before) return undefined;
  let unwatch: (() => void) | undefined;
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const end = () => {
          if (!unwatch) return;
          unwatch();
          unwatch = undefined;
          controller.close();
        };
        controller.enqueue(before);
        if (follow) {
          const watched = hub.watch(
            instanceId,
            (bytes) => {
              if ((controller.desiredSize ?? 0) < -BACKLOG_BYTES_MAX) end();
              else controller.enqueue(bytes);
            },
            end,
          );
          if (watched) {
            unwatch = watched;
            signal.addEventListener("abort", end, { once: true });
            return;
          }
        }
        controller.close();
      },
      cancel() {
        unwatch?.();
        unwatch = undefined;
      },
    },
    new ByteLengthQueuingStrategy({ highWaterMark: 64 * 1024 }),
  );
}
