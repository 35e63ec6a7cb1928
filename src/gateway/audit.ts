/** What is said about each API call: one line in the log, and figures. */
import type { Log } from "../lib/log.ts";
import type { Metrics } from "../lib/metrics.ts";
import type { Principal } from "../model/operation.ts";

export interface AuditedCall {
  readonly requestId: string;
  /** The signature's, and so the caller's own text until it is verified. */
  readonly service: string;
  /** A modelled operation; empty before one is known. */
  readonly action: string;
  /** Absent where the signature did not prove one. */
  readonly principal: Principal | undefined;
  readonly sourceIp: string | undefined;
  readonly status: number;
  /** `ok`, or the error's code. */
  readonly code: string;
  readonly seconds: number;
  readonly cause: unknown;
}

export interface Audit {
  record(call: AuditedCall): void;
}

export function createAudit(log: Log, metrics: Metrics): Audit {
  const requests = metrics.counter("hive_api_requests_total", "API calls by outcome.", [
    "service",
    "operation",
    "code",
  ]);
  const seconds = metrics.histogram("hive_api_request_seconds", "Time from request to answer.", [
    "service",
    "operation",
  ]);
  return {
    record(call) {
      const { requestId, service, action, principal, sourceIp, status, code, cause } = call;
      // Only what was verified becomes a label: a stranger's text must not make series.
      const knownService = principal && action !== "" ? service : "other";
      const operation = principal && action !== "" ? action : "other";
      requests.add([knownService, operation, code]);
      seconds.observe([knownService, operation], call.seconds);
      const fields = {
        requestId,
        service: service.slice(0, 64),
        action,
        principal: principal?.arn,
        accessKeyId: principal?.accessKeyId,
        sourceIp,
        status,
        code,
        ms: Math.round(call.seconds * 1e6) / 1000,
      };
      if (status >= 500 && cause !== undefined) log.error("api.call", { ...fields, cause });
      else log.info("api.call", fields);
    },
  };
}
