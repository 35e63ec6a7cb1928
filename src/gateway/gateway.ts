/**
 * The AWS endpoint. One port serves every service: the signature's scope says which is meant. A request is read whole,
 * its signature checked, its form decoded by the service's codec, and its operation run; the answer goes out with a
 * request id that also stands in the log line of the call.
 *
 * Every AWS query is to `/`, and goes around the router, whose part of a small call would be a twentieth.
 */
import { Hono } from "hono";
import type { Credentials } from "../iam/credentials.ts";
import { assert } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Metrics } from "../lib/metrics.ts";
import type { Random } from "../lib/random.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import type { Config } from "../model/config.ts";
import { type AwsError, awsError, internalError, missingParameter } from "../model/errors.ts";
import { HEADERS_MAX, QUERY_BODY_BYTES_MAX, QUERY_STRING_CHARS_MAX } from "../model/limits.ts";
import type { Call, HandlerTable, Principal } from "../model/operation.ts";
import { type Store, translateStoreErrors } from "../model/store.ts";
import { formValue, parseForm } from "../protocol/aws-query-form.ts";
import { claimedService, verifySignature } from "../protocol/sigv4.ts";
import { EMPTY_SHA256, type SignableHeaders, SigningKeys, sha256Hex } from "../protocol/sigv4-canonical.ts";
import { signatureError } from "../protocol/sigv4-failures.ts";
import type { Ec2Operations } from "../schema/ec2/types.ts";
import type { StsOperations } from "../schema/sts/types.ts";
import { AnswerCache, watched } from "./answer-cache.ts";
import { type Audit, createAudit } from "./audit.ts";
import { dialectOf, encodeForeignError, serviceNotServed } from "./error-answer.ts";
import { TokenPruner } from "./idempotency.ts";
import { readBody } from "./read-body.ts";
import { headersOf, mayHaveBody, targetOf, tooMany } from "./request-head.ts";
import { requestIds } from "./request-ids.ts";
import { type AnyInput, type AnyOperation, type Running, runOperation } from "./run-operation.ts";
import { ec2Endpoint, type ServiceEndpoint, stsEndpoint } from "./service-endpoint.ts";
import { storeErrorAsAws } from "./store-errors.ts";

/** What the gateway needs of the listener. */
export interface Listener {
  requestIP?(request: Request): { readonly address: string } | null;
}

export interface GatewayOptions<L extends Listener = Listener> {
  readonly config: Config;
  readonly store: Store;
  readonly services: {
    readonly ec2: HandlerTable<Ec2Operations>;
    readonly sts: HandlerTable<StsOperations>;
  };
  readonly credentials: Credentials;
  /** 32 bytes that authenticate page tokens, the same on every gateway: `sealingKey.derive("page tokens")`. */
  readonly tokenKey: Uint8Array;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Why requests can't be served yet, in a sentence; undefined once they can. The store's health is looked at besides. */
  readonly unready?: () => string | undefined;
  /** Answers `/_hive/…` other than health and metrics. It calls `authenticate` itself, since it knows its bodies. */
  readonly hiveRoutes?: (request: Request, server: L) => Response | Promise<Response>;
}

export interface Gateway<L extends Listener = Listener> {
  /** For Bun.serve. Never rejects, and answers whatever comes. */
  fetch(request: Request, server: L): Response | Promise<Response>;
  /**
   * Who signed a request to `/_hive/…` (service name `hive`). `body` is the whole body, or `unsigned` where it is
   * streamed: the client then signs UNSIGNED-PAYLOAD in its place. Errors: as the JSON services word them.
   */
  authenticate(request: Request, body: Uint8Array | "unsigned"): Promise<Result<Principal, AwsError>>;
}

/** Services of the whole cloud are signed for us-east-1, whichever region the client is in. */
const GLOBAL_SERVICES: ReadonlySet<string> = new Set(["sts", "iam"]);
const GLOBAL_REGION = "us-east-1";

/** One request on its way: what its answer and its log line need. */
interface Exchange {
  readonly request: Request;
  readonly sourceIp: string | undefined;
  readonly requestId: string;
  readonly startedMs: number;
  readonly now: number;
  service: string;
  action: string;
  principal: Principal | undefined;
  region: string;
}

/** What a request asks for: a function of its text alone. */
interface Question {
  readonly endpoint: ServiceEndpoint;
  readonly action: string;
  readonly handler: AnyOperation;
  readonly input: AnyInput;
  /** Given to a Describe in few words. Under it the question, and answers to it, are found again. */
  readonly text?: string;
}

/** Questions that are remembered, and the characters of one. A list of a few dozen ids fits. */
const QUESTIONS_MAX = 256;
const QUESTION_CHARS_MAX = 2048;

const NO_BODY = new Uint8Array(0);
/** Reads every byte, a byte order mark too. */
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** Builds the gateway. `L` is the listener that `fetch` is called with: Bun's server. */
export function createGateway<L extends Listener>(options: GatewayOptions<L>): Gateway<L> {
  const { config, credentials, clock, random, log, metrics } = options;
  const store = translateStoreErrors(options.store, storeErrorAsAws);
  const pruner = new TokenPruner(store, (cause) => log.warn("idempotency.prune-failed", { cause }));
  const running: Running = { store, tokenKey: options.tokenKey, pruner };
  const ec2 = ec2Endpoint(options.services.ec2);
  const sts = stsEndpoint(options.services.sts);
  const endpoints: ReadonlyMap<string, ServiceEndpoint> = new Map([ec2, sts].map((e) => [e.name, e]));
  const signingKeys = new SigningKeys();
  const questions = new Map<string, Question>();
  const answers = new AnswerCache();
  const nextId = requestIds(random);
  const audit: Audit = createAudit(log, metrics);

  const lookup = (accessKeyId: string, sessionToken: string | undefined) => {
    const found = credentials.lookup(accessKeyId, sessionToken);
    return found && { secret: found.secret, identity: found.principal };
  };
  const acceptRegion = (region: string, service: string) =>
    region === config.region || (region === GLOBAL_REGION && GLOBAL_SERVICES.has(service));

  const verify = (
    request: Request,
    headers: SignableHeaders,
    path: string,
    query: string,
    bodyHash: string,
    now: number,
  ) =>
    verifySignature<Principal>(
      { method: request.method, path, query, headers, bodyHash },
      { lookup, acceptRegion, now, signingKeys },
    );

  const begin = (request: Request, server: Listener): Exchange => ({
    request,
    // Asked for at once: it costs ten times as much when the body was waited for.
    sourceIp: server.requestIP?.(request)?.address,
    requestId: nextId(),
    startedMs: clock.monotonicMs(),
    now: clock.now(),
    service: "",
    action: "",
    principal: undefined,
    region: config.region,
  });

  const finish = (exchange: Exchange, status: number, code: string, cause?: unknown): void => {
    audit.record({
      requestId: exchange.requestId,
      service: exchange.service,
      action: exchange.action,
      principal: exchange.principal,
      sourceIp: exchange.sourceIp,
      status,
      code,
      seconds: (clock.monotonicMs() - exchange.startedMs) / 1000,
      cause,
    });
  };

  /** An error in the words of the service that the request was, or seemed, meant for. */
  const refuse = (exchange: Exchange, error: AwsError): Response => {
    const { requestId, service, request } = exchange;
    finish(exchange, error.status, error.code, error.cause);
    const endpoint = endpoints.get(service);
    if (endpoint) return answer(endpoint.encodeError(error, requestId), error.status, endpoint.contentType, requestId);
    const dialect = dialectOf(service, request.headers.get("content-type"));
    const { body, contentType } = encodeForeignError(error, dialect, requestId);
    return answer(body, error.status, contentType, requestId);
  };

  const crashed = (exchange: Exchange, cause: unknown): Response =>
    refuse(exchange, internalError(exchange.requestId, cause));

  /** One call of an AWS query service. One async function and few awaits: each costs a tenth of a small call. */
  const serve = async (request: Request, server: Listener, query: string): Promise<Response> => {
    const exchange = begin(request, server);
    try {
      const headers = headersOf(request);
      let body: Uint8Array = NO_BODY;
      if (mayHaveBody(headers)) {
        if (Number(headers["content-length"]) <= QUERY_BODY_BYTES_MAX) body = await request.bytes();
        else {
          const read = await readBody(request, QUERY_BODY_BYTES_MAX);
          if (!read.ok) return refuse(claimed(exchange, query), read.error);
          body = read.value;
        }
      }
      const opened = open(exchange, headers, query, body);
      if (!opened.ok) return refuse(exchange, opened.error);
      const { endpoint, action, handler, input, text } = opened.value;
      const call = callOf(exchange);
      if (text !== undefined) return describe(exchange, opened.value, text, call);
      const pending = runOperation(action, handler, input, call, running);
      const result = pending instanceof Promise ? await pending : pending;
      if (!result.ok) return refuse(exchange, result.error);
      const encoded = endpoint.encode(action, result.value, exchange.requestId);
      finish(exchange, 200, "ok");
      return answer(encoded, 200, endpoint.contentType, exchange.requestId);
    } catch (cause) {
      // A client that left in the middle is no defect of ours, and nobody reads this answer.
      return request.signal.aborted
        ? refuse(claimed(exchange, query), clientGone())
        : crashed(claimed(exchange, query), cause);
    }
  };

  /** Answers a Describe from what was answered before, where the state has not changed since. */
  const describe = (
    exchange: Exchange,
    { endpoint, action, handler, input }: Question,
    text: string,
    call: Call,
  ): Response => {
    const { requestId } = exchange;
    const { revision } = call.state;
    const asked = `${call.accountId}/${call.region}/${text}`;
    let bytes = answers.find(asked, revision, requestId);
    if (!bytes) {
      const watching = watched(call);
      const result = runOperation(action, handler, input, watching.call, running);
      assert(!(result instanceof Promise), "a Describe waits for nothing");
      if (!result.ok) return refuse(exchange, result.error);
      bytes = endpoint.encode(action, result.value, requestId);
      if (watching.steady()) answers.keep(asked, revision, requestId, bytes);
    }
    finish(exchange, 200, "ok");
    return answer(bytes, 200, endpoint.contentType, requestId);
  };

  /** Notes which service a request claims to be meant for, where its signature has not shown it. */
  const claimed = (exchange: Exchange, query: string): Exchange => {
    if (exchange.service === "") exchange.service = claimedService(headersOf(exchange.request), query) ?? "";
    return exchange;
  };

  /** Checks the signature of a request that is read whole, and decodes what it asks for. */
  const open = (
    exchange: Exchange,
    headers: SignableHeaders,
    query: string,
    body: Uint8Array,
  ): Result<Question, AwsError> => {
    const { request } = exchange;
    const text = body.length === 0 ? "" : utf8.decode(body);
    /** Who sent no service name is told in EC2's words, or STS's by its version. */
    const guessed = (): string => {
      const { service } = claimed(exchange, query);
      exchange.service = service || ((text || query).includes(sts.apiVersion) ? "sts" : "ec2");
      return exchange.service;
    };
    const unverified = (error: AwsError) => {
      guessed();
      return fail(error);
    };
    if (request.method !== "POST" && request.method !== "GET") return unverified(methodNotAllowed(request.method));
    if (query.length > QUERY_STRING_CHARS_MAX) return unverified(queryTooLong());
    if (tooMany(headers)) return unverified(tooManyHeaders());

    const bodyHash = body.length === 0 ? EMPTY_SHA256 : sha256Hex(body);
    const verified = verify(request, headers, "/", query, bodyHash, exchange.now);
    if (!verified.ok) {
      const endpoint = endpoints.get(guessed());
      const dialect = endpoint?.dialect ?? dialectOf(exchange.service, request.headers.get("content-type"));
      return fail(signatureError(verified.error, dialect));
    }
    const { service, identity, region } = verified.value;
    exchange.service = service;
    exchange.principal = identity;
    exchange.region = GLOBAL_SERVICES.has(service) ? config.region : region;
    const endpoint = endpoints.get(service);
    if (!endpoint) return fail(serviceNotServed(service));

    const known = query === "" ? questions.get(text) : undefined;
    if (known?.endpoint === endpoint) {
      exchange.action = known.action;
      return ok(known);
    }
    const form = parseForm(text === "" ? query : query === "" ? text : `${query}&${text}`);
    if (!form.ok) return form;
    const action = formValue(form.value, "Action");
    if (!action) return fail(actionMissing());
    const version = formValue(form.value, "Version");
    if (!version) return fail(missingParameter("Version"));
    if (version !== endpoint.apiVersion) return fail(endpoint.unknownVersion(action, version));
    if (!endpoint.isOperation(action)) return fail(endpoint.unknownAction(action, version));
    exchange.action = action;
    const handler = endpoint.handler(action);
    if (!handler) return fail(notImplemented(action));
    const input = endpoint.decode(action, form.value);
    if (!input.ok) return input;
    const question = { endpoint, action, handler, input: input.value };
    if (handler.kind !== "describe" || query !== "" || text.length > QUESTION_CHARS_MAX) return ok(question);
    if (questions.size >= QUESTIONS_MAX) questions.clear();
    questions.set(text, { ...question, text });
    return ok({ ...question, text });
  };

  const callOf = ({ requestId, principal, region, now }: Exchange): Call => ({
    requestId,
    accountId: principal!.accountId,
    region,
    principal: principal!,
    now,
    random,
    config,
    state: store.read(),
  });

  const authenticate: Gateway<L>["authenticate"] = async (request, body) => {
    const headers = headersOf(request);
    const { path, query } = targetOf(request.url);
    const bodyHash = body === "unsigned" ? "" : sha256Hex(body);
    const verified = verify(request, headers, path, query, bodyHash, clock.now());
    if (!verified.ok) return fail(signatureError(verified.error, "json"));
    const { service, payloadHash, identity } = verified.value;
    if (service !== "hive") {
      const message = `Credential should be scoped to correct service: 'hive', not '${service.slice(0, 64)}'.`;
      return fail(signatureError({ kind: "scope", message }, "json"));
    }
    // A request whose body is at hand has no reason to leave it unsigned.
    if (body !== "unsigned" && payloadHash !== bodyHash) return fail(signatureError({ kind: "mismatch" }, "json"));
    return ok(identity);
  };

  const unreadyReason = (): string | undefined => {
    const reason = options.unready?.();
    if (reason !== undefined) return reason;
    const { health, message } = options.store.status();
    return health === "ok" ? undefined : (message ?? `the store is ${health}`);
  };

  const app = new Hono<{ Bindings: { readonly server: L } }>();
  app.get("/_hive/health", (c) => {
    const reason = unreadyReason();
    return c.json(
      reason === undefined ? { status: "ok" } : { status: "unavailable", reason },
      reason === undefined ? 200 : 503,
    );
  });
  app.get("/_hive/metrics", (c) =>
    c.body(metrics.render(), 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }),
  );
  const { hiveRoutes } = options;
  if (hiveRoutes) app.all("/_hive/*", (c) => hiveRoutes(c.req.raw, c.env.server));
  app.notFound(async (c) => {
    const exchange = begin(c.req.raw, c.env.server);
    const claimed = claimedService(headersOf(c.req.raw), targetOf(c.req.url).query);
    exchange.service = claimed ?? "s3";
    const body = await readBody(c.req.raw, QUERY_BODY_BYTES_MAX);
    return refuse(
      exchange,
      body.ok ? (claimed && !endpoints.has(claimed) ? serviceNotServed(claimed) : pathNotFound()) : body.error,
    );
  });
  app.onError((cause, c) => crashed(begin(c.req.raw, c.env.server), cause));

  return {
    fetch(request, server) {
      const { path, query } = targetOf(request.url);
      return path === "/" ? serve(request, server, query) : app.fetch(request, { server });
    },
    authenticate,
  };
}

const answer = (
  body: string | Uint8Array<ArrayBuffer>,
  status: number,
  contentType: string,
  requestId: string,
): Response => new Response(body, { status, headers: { "content-type": contentType, "x-amzn-requestid": requestId } });

const clientGone = (): AwsError =>
  awsError("RequestTimeout", "The connection was closed before the request was read.", 400);
const actionMissing = (): AwsError => awsError("MissingAction", "The request must contain the parameter Action");
const notImplemented = (action: string): AwsError =>
  awsError("UnsupportedOperation", `The operation ${action} is not supported by this version of Hive.`);
const methodNotAllowed = (method: string): AwsError =>
  awsError("MethodNotAllowed", `The method ${method.slice(0, 32)} is not allowed against this resource.`, 405);
const pathNotFound = (): AwsError => awsError("NotFound", "There is nothing at this path.", 404);
const queryTooLong = (): AwsError =>
  awsError("MalformedQueryString", `The query string is longer than ${QUERY_STRING_CHARS_MAX} characters.`);
const tooManyHeaders = (): AwsError =>
  awsError("RequestHeaderSectionTooLarge", `The request has more than ${HEADERS_MAX} headers.`, 431);
