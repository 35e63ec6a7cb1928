/**
 * The socket of the metadata service: HTTP/1.x as guests speak it, one connection a `Conversation`. Guests are hostile:
 * heads, bodies, connections and time are bounded, and who has no port on this node is not spoken to. Answers come from
 * the pure service; this file knows nothing of instances.
 */
import type { Socket, TCPSocketListener } from "bun";
import { reasonOf } from "../lib/http-status.ts";
import type { Log } from "../lib/log.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { MetadataResponse } from "../vpc/metadata/exchange.ts";
import type { MetadataService } from "../vpc/metadata/service.ts";
import { type HostError, ioFailed } from "./host-error.ts";
import { type HttpHead, keepsAlive, readRequest } from "./http-head.ts";
import { DEFAULT_TTL, openSetTtl } from "./ip-ttl.ts";

export interface MetadataServerOptions {
  readonly hostname: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly service: MetadataService;
  readonly log: Log;
  /** From a connection's start, or its last answer, to the next whole request. */
  readonly requestTimeoutMs?: number;
  /** Connections from one source at a time. */
  readonly connectionsPerSourceMax?: number;
}

export interface MetadataServer {
  readonly port: number;
  /** Ends every connection and releases the address. */
  stop(): void;
}

const REQUEST_TIMEOUT_MS = 20_000;
const CONNECTIONS_PER_SOURCE_MAX = 64;
/** What one connection may have sent ahead of its answers. */
const INPUT_BYTES_MAX = 64 * 1024;

/** Answer as bytes. A HEAD has the length of the body and not the body. */
function serialize(response: MetadataResponse, keep: boolean, withBody: boolean, now: Date): Buffer {
  const body = typeof response.body === "string" ? Buffer.from(response.body, "utf8") : Buffer.from(response.body);
  const lines = [
    `HTTP/1.1 ${response.status} ${reasonOf(response.status)}`,
    `Content-Type: ${response.contentType}`,
    `Content-Length: ${body.length}`,
    `Date: ${now.toUTCString()}`,
    "Server: EC2ws",
    `Connection: ${keep ? "keep-alive" : "close"}`,
    ...Object.entries(response.headers ?? {}).map(([name, value]) => `${name}: ${value}`),
  ];
  const head = Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
  return withBody ? Buffer.concat([head, body]) : head;
}

const refusal = (status: number): MetadataResponse => ({ status, contentType: "text/plain", body: "" });

/** What one connection is in the middle of. */
interface Conversation {
  readonly source: string;
  input: Buffer;
  /** Bytes that the kernel had no room for. */
  output: Buffer;
  /** No more requests are read; the connection ends once `output` is out. */
  closing: boolean;
  /** The guest has closed its side: what it asked before is still answered. */
  halfClosed: boolean;
  deadline: ReturnType<typeof setTimeout> | undefined;
}

/** Listens. Errors: `io`, for an address that is not there or is taken. */
export function startMetadataServer(options: MetadataServerOptions): Result<MetadataServer, HostError> {
  const { hostname, service, log } = options;
  const requestTimeoutMs = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
  const perSourceMax = options.connectionsPerSourceMax ?? CONNECTIONS_PER_SOURCE_MAX;
  const connections = new Map<string, number>();
  const setTtl = openSetTtl();
  if (!setTtl) log.warn("metadata.hop_limit_unavailable", { reason: "the C library cannot be reached" });

  type Guest = Socket<Conversation | undefined>;

  /** The first time-out ends our side in good order; a guest that then does not end its own is cut off by the second. */
  function arm(socket: Guest, conversation: Conversation): void {
    clearTimeout(conversation.deadline);
    conversation.deadline = setTimeout(() => {
      if (conversation.closing) {
        socket.terminate();
        return;
      }
      const unfinished = conversation.input.length > 0 && conversation.output.length === 0;
      if (unfinished) send(socket, conversation, serialize(refusal(408), false, true, new Date()));
      conversation.closing = true;
      conversation.input = Buffer.alloc(0);
      endIfDone(socket, conversation);
      arm(socket, conversation);
    }, requestTimeoutMs);
  }

  function send(socket: Guest, conversation: Conversation, bytes: Buffer): void {
    if (conversation.output.length > 0) {
      conversation.output = Buffer.concat([conversation.output, bytes]);
      return;
    }
    const written = Math.max(0, socket.write(bytes));
    if (written < bytes.length) conversation.output = bytes.subarray(written);
  }

  /** Ends our side once everything is out; the guest's end of the connection, or the deadline, does the rest. */
  function endIfDone(socket: Guest, conversation: Conversation): void {
    if (conversation.output.length === 0 && (conversation.closing || conversation.halfClosed)) socket.end();
  }

  function answer(socket: Guest, conversation: Conversation, head: HttpHead): void {
    const keep = keepsAlive(head) && !conversation.halfClosed;
    const response = service.answer(conversation.source, head);
    const bytes = serialize(response, keep, head.method !== "HEAD", new Date());
    const fd = (socket as { readonly fd?: number }).fd;
    const limited = response.hopLimit !== undefined && setTtl !== undefined && fd !== undefined && fd >= 0;
    if (limited) setTtl(fd, response.hopLimit!);
    send(socket, conversation, bytes);
    // The limit is the token's alone. What did not fit the kernel's buffer (a token's answer always does) leaves without.
    if (limited) setTtl(fd, DEFAULT_TTL);
    conversation.closing = !keep;
  }

  /** Answers every whole request that has come, in order, while the guest takes the answers. */
  function pump(socket: Guest, conversation: Conversation): void {
    while (!conversation.closing && conversation.output.length === 0) {
      const step = readRequest(conversation.input);
      if (step.kind === "incomplete") {
        if (conversation.halfClosed) conversation.closing = true;
        break;
      }
      if (step.kind === "refused") {
        send(socket, conversation, serialize(refusal(step.status), false, true, new Date()));
        conversation.closing = true;
        break;
      }
      conversation.input = conversation.input.subarray(step.consumed);
      answer(socket, conversation, step.head);
      arm(socket, conversation);
    }
    if (conversation.closing) conversation.input = Buffer.alloc(0);
    endIfDone(socket, conversation);
  }

  let listener: TCPSocketListener<Conversation | undefined>;
  try {
    listener = Bun.listen<Conversation | undefined>({
      hostname,
      port: options.port,
      allowHalfOpen: true,
      socket: {
        open(socket) {
          const source = socket.remoteAddress;
          const count = connections.get(source) ?? 0;
          if (!service.knows(source) || count >= perSourceMax) {
            log.debug("metadata.refused", { source, connections: count });
            socket.data = undefined;
            socket.terminate();
            return;
          }
          connections.set(source, count + 1);
          socket.data = {
            source,
            input: Buffer.alloc(0),
            output: Buffer.alloc(0),
            closing: false,
            halfClosed: false,
            deadline: undefined,
          };
          arm(socket, socket.data);
        },
        data(socket, bytes) {
          const conversation = socket.data;
          // After the last answer, whatever still comes is read and dropped, so that the answer is not lost to a reset.
          if (!conversation || conversation.closing) return;
          conversation.input = Buffer.concat([conversation.input, bytes]);
          if (conversation.input.length > INPUT_BYTES_MAX) socket.terminate();
          else pump(socket, conversation);
        },
        drain(socket) {
          const conversation = socket.data;
          if (!conversation) return;
          const waiting = conversation.output;
          conversation.output = Buffer.alloc(0);
          send(socket, conversation, waiting);
          pump(socket, conversation);
        },
        end(socket) {
          const conversation = socket.data;
          if (!conversation) return;
          conversation.halfClosed = true;
          pump(socket, conversation);
        },
        close(socket) {
          const conversation = socket.data;
          if (!conversation) return;
          socket.data = undefined;
          clearTimeout(conversation.deadline);
          const left = (connections.get(conversation.source) ?? 1) - 1;
          if (left > 0) connections.set(conversation.source, left);
          else connections.delete(conversation.source);
        },
        error(_socket, error) {
          log.debug("metadata.connection_failed", { error });
        },
      },
    });
  } catch (cause) {
    return fail(ioFailed(`listen for metadata requests on ${hostname} port ${options.port}`, cause));
  }
  return ok({ port: listener.port, stop: () => listener.stop(true) });
}
