/** The socket of the DHCP server. The bridge's flows make each guest's request come from an address of its own. */
import type { Log } from "../lib/log.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { DhcpService } from "../vpc/dhcp-service.ts";
import { type HostError, ioFailed } from "./host-error.ts";

export interface DhcpServerOptions {
  readonly hostname: string;
  /** 67; 0 for any free one. */
  readonly port: number;
  readonly service: DhcpService;
  readonly log: Log;
}

export interface DhcpServer {
  readonly port: number;
  stop(): void;
}

/** Listens; answers go where the request came from. Errors: `io`, for an address that is not there or is taken. */
export async function startDhcpServer(options: DhcpServerOptions): Promise<Result<DhcpServer, HostError>> {
  const { hostname, port, service, log } = options;
  try {
    const socket = await Bun.udpSocket({
      hostname,
      port,
      socket: {
        data(from, packet, sourcePort, source) {
          const answer = service.answer(source, packet);
          // Best effort: a client that hears nothing asks again.
          if (answer && !from.send(answer, sourcePort, source)) log.debug("dhcp.not_sent", { source });
        },
        error(error) {
          log.debug("dhcp.socket_failed", { error });
        },
      },
    });
    return ok({ port: socket.port, stop: () => socket.close() });
  } catch (cause) {
    return fail(ioFailed(`listen for DHCP requests on ${hostname} port ${port}`, cause));
  }
}
