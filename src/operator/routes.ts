/**
 * Hive's own HTTP routes, `/_hive/…`, for its commands: status, image uploads, consoles, settings. Every one is signed with the
 * service name `hive` by the account that owns the cloud; answers are JSON, errors `{ code, message }`.
 */
import { Hono } from "hono";
import type { Log } from "../lib/log.ts";
import type { Result } from "../lib/result.ts";
import { GIB } from "../lib/units.ts";
import { addConfigRoutes, type ConfigPorts } from "./config-routes.ts";
import { type ConsoleHub, type ConsoleSocketData, streamConsole } from "./console-socket.ts";
import { type ImportPorts, importImage, importRequest } from "./import-image.ts";
import { type AwsError, awsError, idNotFoundInRoute, internalError, invalidParameterValue } from "./route-errors.ts";
import type { StatusReport } from "./status.ts";

export interface OperatorPorts {
  /** Who signed; `unsigned` bodies are streamed and carry UNSIGNED-PAYLOAD. */
  authenticate(
    request: Request,
    body: Uint8Array | "unsigned",
  ): Promise<Result<{ readonly accessKeyId: string }, AwsError>>;
  status(): Promise<StatusReport>;
  receive(
    body: ReadableStream<Uint8Array>,
    maxBytes: number,
  ): Promise<Result<{ uploadId: string; bytes: number }, { kind: string; message: string }>>;
  readonly images: ImportPorts;
  readonly consoles: ConsoleHub;
  readonly config: ConfigPorts;
  /** PEM of the certificate that instance identity documents verify with; undefined until it is made. */
  identityCertificate(): string | undefined;
  readonly log: Log;
}

/** What the routes need of the listener: the one that can turn a request into a websocket. */
export interface Upgrader {
  upgrade(request: Request, options: { data: ConsoleSocketData }): boolean;
}

const UPLOAD_BYTES_MAX = 1024 * GIB;
const JSON_BYTES_MAX = 64 * 1024;

export function operatorRoutes(ports: OperatorPorts): Hono<{ Bindings: { server: Upgrader } }> {
  const app = new Hono<{ Bindings: { server: Upgrader } }>();

  app.get("/_hive/status", async (c) => {
    const allowed = await ports.authenticate(c.req.raw, new Uint8Array());
    return allowed.ok ? c.json(await ports.status()) : refuse(allowed.error);
  });

  // Public, as AWS's is: it proves documents and opens nothing.
  app.get("/_hive/identity.pem", (c) => {
    const pem = ports.identityCertificate();
    return pem === undefined
      ? refuse(awsError("Unavailable", "this node has made no identity certificate yet", 503))
      : c.text(pem, 200, { "content-type": "application/x-pem-file" });
  });

  app.post("/_hive/uploads", async (c) => {
    const allowed = await ports.authenticate(c.req.raw, "unsigned");
    if (!allowed.ok) return refuse(allowed.error);
    if (!c.req.raw.body) return refuse(invalidParameterValue("the upload has no body"));
    const received = await ports.receive(c.req.raw.body, UPLOAD_BYTES_MAX);
    if (received.ok) return c.json(received.value);
    const status = received.error.kind === "no-space" ? 507 : received.error.kind === "too-large" ? 413 : 500;
    return refuse(awsError(received.error.kind, received.error.message, status));
  });

  app.post("/_hive/images", async (c) => {
    // Before it is known who asks, nothing is read whose length is not known to be small.
    const declared = Number(c.req.header("content-length") ?? Number.NaN);
    if (!(declared <= JSON_BYTES_MAX)) return refuse(invalidParameterValue("the request is too large"));
    const body = new Uint8Array(await c.req.raw.arrayBuffer());
    const allowed = await ports.authenticate(c.req.raw, body);
    if (!allowed.ok) return refuse(allowed.error);
    const parsed = importRequest.safeParse(jsonOf(body));
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      return refuse(
        invalidParameterValue(`${issue?.path.join(".") || "the body"} ${issue?.message ?? "is not valid"}`),
      );
    }
    const imported = await importImage(parsed.data, ports.images);
    return imported.ok ? c.json({ imageId: imported.value }, 201) : refuse(imported.error);
  });

  app.get("/_hive/console/:instanceId", async (c) => {
    const allowed = await ports.authenticate(c.req.raw, new Uint8Array());
    if (!allowed.ok) return refuse(allowed.error);
    const instanceId = c.req.param("instanceId");
    if (!ports.consoles.output(instanceId)) return refuse(idNotFoundInRoute(instanceId));
    const upgraded = c.env.server.upgrade(c.req.raw, { data: { instanceId, hub: ports.consoles } });
    return upgraded ? new Response(null, { status: 101 }) : refuse(invalidParameterValue("a console is a websocket"));
  });

  app.get("/_hive/logs/:instanceId", async (c) => {
    const allowed = await ports.authenticate(c.req.raw, new Uint8Array());
    if (!allowed.ok) return refuse(allowed.error);
    const stream = streamConsole(
      ports.consoles,
      c.req.param("instanceId"),
      c.req.query("follow") === "true",
      c.req.raw.signal,
    );
    if (!stream) return refuse(idNotFoundInRoute(c.req.param("instanceId")));
    return new Response(stream, { headers: { "content-type": "application/octet-stream" } });
  });

  addConfigRoutes(app, ports.config, (request, body) => ports.authenticate(request, body));

  app.onError((cause, c) => {
    ports.log.error("operator.failed", { path: c.req.path, cause });
    return refuse(internalError);
  });
  app.notFound(() => refuse(awsError("NotFound", "there is no such route", 404)));
  return app;
}

const refuse = (error: AwsError): Response =>
  Response.json({ code: error.code, message: error.message }, { status: error.status });

function jsonOf(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return undefined;
  }
}
