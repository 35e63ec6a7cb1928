/** The instance metadata service: who asks, whether it may, and what it gets. Touches no socket. */
import type { Clock } from "../../lib/clock.ts";
import type { Random } from "../../lib/random.ts";
import type { InstanceRecord } from "../../model/instance.ts";
import type { PortDirectory } from "../../model/network-names.ts";
import type { Reader } from "../../model/store.ts";
import { instances, networkInterfaces } from "../../model/tables.ts";
import { errorPage, type MetadataRequest, type MetadataResponse, text } from "./exchange.ts";
import type { IdentitySigner } from "./identity.ts";
import { issueToken, parseTokenTtl, tokenIsGood } from "./tokens.ts";
import { lookUp } from "./tree.ts";

const TOKEN_PATH = "/latest/api/token";
const TOKEN_HEADER = "x-aws-ec2-metadata-token";
const TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds";

export interface MetadataDependencies {
  readonly read: () => Reader;
  readonly directory: PortDirectory;
  readonly clock: Pick<Clock, "now">;
  readonly random: Random;
  /** TOKEN_KEY_BYTES of secret, the same after a restart. */
  readonly tokenKey: Uint8Array;
  readonly signer: () => IdentitySigner | undefined;
  /** Names of the region's zones. */
  readonly zones: readonly string[];
}

export interface MetadataService {
  /** Whether a port of this node has this metadata address: others are not spoken to. */
  knows(source: string): boolean;
  answer(source: string, request: MetadataRequest): MetadataResponse;
}

export function metadataService(dependencies: MetadataDependencies): MetadataService {
  const { read, directory, clock, random, tokenKey, signer, zones } = dependencies;

  function instanceAt(state: Reader, source: string): InstanceRecord | undefined {
    const eniId = directory.byMetadataAddress(source);
    const attachment = eniId && state.get(networkInterfaces, eniId)?.attachment;
    return attachment ? state.get(instances, attachment.instanceId) : undefined;
  }

  function token(instance: InstanceRecord, request: MetadataRequest): MetadataResponse {
    // A proxy that passes requests on must not be one that passes tokens out.
    if (request.headers.has("x-forwarded-for")) return errorPage(403);
    const ttl = parseTokenTtl(request.headers.get(TTL_HEADER));
    if (ttl === undefined) return errorPage(400);
    return {
      ...text(issueToken(tokenKey, instance.id, ttl, clock.now(), random)),
      headers: { "X-Aws-Ec2-Metadata-Token-Ttl-Seconds": String(ttl) },
      hopLimit: instance.metadataOptions.httpPutResponseHopLimit,
    };
  }

  /** A token that is shown must be good; whether one must be shown is the instance's option. */
  function authorized(instance: InstanceRecord, request: MetadataRequest): boolean {
    const shown = request.headers.get(TOKEN_HEADER);
    if (shown === undefined) return instance.metadataOptions.httpTokens === "optional";
    return tokenIsGood(tokenKey, instance.id, shown, clock.now());
  }

  return {
    knows: (source) => directory.byMetadataAddress(source) !== undefined,
    answer(source, request) {
      const state = read();
      const instance = instanceAt(state, source);
      if (!instance) return errorPage(404);
      if (instance.metadataOptions.httpEndpoint === "disabled") return errorPage(403);
      const path = request.target.split(/[?#]/, 1)[0]!;
      if (path === TOKEN_PATH)
        return request.method === "PUT" ? token(instance, request) : errorPage(405, { Allow: "OPTIONS, PUT" });
      if (request.method !== "GET" && request.method !== "HEAD") return errorPage(405, { Allow: "GET, HEAD" });
      if (!authorized(instance, request)) return errorPage(401);
      const found = lookUp({ state, zones, signer: signer() }, instance, path);
      if (found === undefined) return errorPage(404);
      return typeof found === "string"
        ? text(found)
        : { status: 200, contentType: "application/octet-stream", body: found };
    },
  };
}
