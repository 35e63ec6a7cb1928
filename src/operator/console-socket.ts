/** Serial consoles over a websocket: binary frames both ways. Many may watch one console, and all may type. */
import type { ServerWebSocket, WebSocketHandler } from "bun";

/** The node's serial consoles; kept by the hypervisor. */
export interface ConsoleHub {
  /** True for an instance that has, or had, a machine on this node. */
  has(instanceId: string): boolean;
  /** What the console said so far, the last part of it. */
  output(instanceId: string): Promise<Uint8Array>;
  /** Calls `onData` with what the console says from now on, and `onEnd` when the machine is gone. */
  watch(instanceId: string, onData: (bytes: Uint8Array) => void, onEnd: () => void): () => void;
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

/** Bun's handlers for console sockets. A new watcher is first sent the tail of what was said before. */
export const consoleWebSocket: WebSocketHandler<ConsoleSocketData> = {
  maxPayloadLength: 64 * 1024,
  idleTimeout: 0,
  async open(socket: ServerWebSocket<ConsoleSocketData>) {
    const { hub, instanceId } = socket.data;
    const pending: Uint8Array[] = [];
    let live = false;
    const send = (bytes: Uint8Array) => {
      if (socket.getBufferedAmount() > BACKLOG_BYTES_MAX) socket.close(1013, "too slow to follow the console");
      else socket.sendBinary(bytes);
    };
    socket.data.unwatch = hub.watch(
      instanceId,
      (bytes) => (live ? send(bytes) : pending.push(bytes)),
      () => socket.close(1000, "the machine has ended"),
    );
    const before = await hub.output(instanceId);
    // What arrived while the log was read stands in the log too, as far as it was written: better twice than never.
    if (before.byteLength > 0) send(before.subarray(-BACKLOG_TAIL_BYTES));
    live = true;
    if (before.byteLength === 0) for (const bytes of pending) send(bytes);
  },
  message(socket, message) {
    const bytes = typeof message === "string" ? new TextEncoder().encode(message) : new Uint8Array(message);
    if (!socket.data.hub.write(socket.data.instanceId, bytes)) socket.close(1000, "no machine is running");
  },
  close(socket) {
    socket.data.unwatch?.();
  },
};

const BACKLOG_TAIL_BYTES = 4096;

/** The console's log as a stream; with `follow`, what comes after it too, until the machine ends or the reader goes. */
export async function watchLog(
  hub: ConsoleHub,
  instanceId: string,
  follow: boolean,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array> | undefined> {
  if (!hub.has(instanceId)) return undefined;
  let unwatch = () => {};
  return new ReadableStream<Uint8Array>({
    async start(controller) {
      const end = () => {
        unwatch();
        try {
          controller.close();
        } catch {
          // Already closed by the reader.
        }
      };
      controller.enqueue(await hub.output(instanceId));
      if (!follow) return end();
      signal.addEventListener("abort", end, { once: true });
      unwatch = hub.watch(instanceId, (bytes) => controller.enqueue(bytes), end);
    },
    cancel() {
      unwatch();
    },
  });
}
