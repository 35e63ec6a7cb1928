/** How a command reaches the daemon: which endpoint, which keys; and the signed requests that it makes. */
import { XMLParser } from "fast-xml-parser";
import { type Credentials, signRequest, UNSIGNED_PAYLOAD } from "../protocol/sigv4-sign.ts";
import { type AwsProfile, profileInFolder, userProfile } from "./aws-profile.ts";

export interface Connection {
  readonly endpoint: string;
  readonly region: string;
  readonly credentials: Credentials | undefined;
}

export const DEFAULT_ENDPOINT = "http://127.0.0.1:9999";
/** Where a daemon keeps its state unless told otherwise; its own profile is the last place that is looked in. */
export const DEFAULT_DATA_DIR = "/var/lib/hive";

type Env = Readonly<Record<string, string | undefined>>;

/**
 * Endpoint: `--endpoint`, else HIVE_ENDPOINT, else the profile (AWS_PROFILE, else `hive`), else the default. Keys: the
 * environment's, else the profile's. @throws CommandFailed for an endpoint that is no URL
 */
export function resolveConnection(flag: string | undefined, env: Env, dataDir = DEFAULT_DATA_DIR): Connection {
  const name = env.AWS_PROFILE ?? "hive";
  const profile: AwsProfile = userProfile(env, name) ?? profileInFolder(`${dataDir}/aws`, "hive") ?? {};
  const endpoint = flag ?? env.HIVE_ENDPOINT ?? env.AWS_ENDPOINT_URL ?? profile.endpointUrl ?? DEFAULT_ENDPOINT;
  const accessKeyId = env.AWS_ACCESS_KEY_ID ?? profile.accessKeyId;
  const secretAccessKey = env.AWS_SECRET_ACCESS_KEY ?? profile.secretAccessKey;
  if (!isEndpoint(endpoint)) {
    throw new CommandFailed(`the endpoint ${endpoint} is not a URL such as ${DEFAULT_ENDPOINT}`, "Usage");
  }
  return {
    endpoint: endpoint.replace(/\/+$/, ""),
    region: env.AWS_REGION ?? env.AWS_DEFAULT_REGION ?? profile.region ?? "us-east-1",
    credentials: accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey } : undefined,
  };
}

/** Whether a text is an endpoint: `http://host:port` or `https://…`. */
export const isEndpoint = (text: string): boolean => /^https?:\/\/[^/]/.test(text) && URL.canParse(text);

/** What went wrong, in a sentence for the person at the terminal. */
export class CommandFailed extends Error {
  override readonly name = "CommandFailed";
  readonly code: string;
  constructor(message: string, code = "Failed") {
    super(message);
    this.code = code;
  }
}

const noCredentials = () =>
  new CommandFailed(
    `no keys to sign with: set AWS_PROFILE, AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE as \`hive server\` prints them, or ` +
      `AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY${isRoot() ? "" : `; keys in ${DEFAULT_DATA_DIR}/aws are for root (sudo)`}`,
    "NoCredentials",
  );
const noDaemon = (endpoint: string, why: string) =>
  new CommandFailed(
    `no daemon answers at ${endpoint} (${why}). Start one with \`hive server\`, or name another with --endpoint`,
    "NoDaemon",
  );

const isRoot = () => process.getuid?.() === 0;
const HEALTH_TIMEOUT_MS = 5000;

/**
 * Makes sure that Hive answers and that there are keys to ask it with, before a command does anything that takes long.
 * @throws CommandFailed with what to do
 */
export async function requireDaemon(connection: Connection): Promise<Connection> {
  const url = new URL(`${connection.endpoint}/_hive/health`);
  const response = await reach(connection, url, { signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS) });
  const body = await response.text();
  if (response.status === 503) {
    throw new CommandFailed(`the daemon at ${connection.endpoint} cannot serve yet: ${messageIn(body) ?? body.trim()}`);
  }
  if (!response.ok) {
    throw new CommandFailed(
      `what answers at ${connection.endpoint} is not Hive (${response.status} for /_hive/health); name the daemon with --endpoint`,
    );
  }
  if (!connection.credentials) throw noCredentials();
  return connection;
}

/** Headers that sign a request to Hive's own routes; for callers that make the connection themselves (console). */
export function signedHeaders(
  connection: Connection,
  method: string,
  url: URL,
  body: string | Uint8Array | { readonly hash: string },
  service = "hive",
  headers: Record<string, string> = {},
): Record<string, string> {
  if (!connection.credentials) throw noCredentials();
  const { host: _, ...signed } = signRequest(
    { method, url, service, region: connection.region, headers, body, now: Date.now() },
    connection.credentials,
  );
  return signed;
}

/** One signed request to a `/_hive/…` route. @throws CommandFailed with the daemon's own sentence */
export async function hiveRequest(
  connection: Connection,
  method: string,
  path: string,
  body?: string | { readonly stream: ReadableStream<Uint8Array>; readonly bytes: number },
  signal?: AbortSignal,
): Promise<Response> {
  const url = new URL(`${connection.endpoint}${path}`);
  const streamed = typeof body === "object";
  const headers = signedHeaders(connection, method, url, streamed ? { hash: UNSIGNED_PAYLOAD } : (body ?? ""));
  if (streamed) headers["content-length"] = String(body.bytes);
  const response = await reach(connection, url, {
    method,
    headers,
    ...(body === undefined ? {} : { body: streamed ? body.stream : body }),
    ...(signal && { signal }),
  });
  if (response.ok) return response;
  const text = await response.text();
  throw new CommandFailed(messageIn(text) ?? `${method} ${path} answered ${response.status}: ${text.slice(0, 200)}`);
}

const xml = new XMLParser({
  // A private key ends in a line break, and ssh wants it.
  trimValues: false,
  isArray: (name) => name === "item",
  parseTagValue: false,
  ignoreAttributes: true,
});

/** A value of an EC2 answer: every scalar is text, and a list is `{ item: […] }`. */
export type XmlValue = string | undefined | { readonly [name: string]: XmlValue } | readonly XmlValue[];

/** The members of a structure; empty for anything else. */
export const fields = (value: XmlValue): { readonly [name: string]: XmlValue } =>
  typeof value === "object" && !Array.isArray(value) ? (value as { readonly [name: string]: XmlValue }) : {};
/** The items of a list; an absent or empty list has none. */
export const items = (value: XmlValue): readonly { readonly [name: string]: XmlValue }[] => {
  const list = fields(value).item;
  return Array.isArray(list) ? list.map(fields) : [];
};
export const text = (value: XmlValue): string => (typeof value === "string" ? value : "");

/** One EC2 call by its wire parameters (`InstanceId.1`). @throws CommandFailed with EC2's code and message */
export async function ec2(
  connection: Connection,
  action: string,
  parameters: Readonly<Record<string, string>> = {},
): Promise<{ readonly [name: string]: XmlValue }> {
  const url = new URL(`${connection.endpoint}/`);
  const body = new URLSearchParams({ Action: action, Version: "2016-11-15", ...parameters }).toString();
  const headers = signedHeaders(connection, "POST", url, body, "ec2", {
    "content-type": "application/x-www-form-urlencoded; charset=utf-8",
  });
  const response = await reach(connection, url, { method: "POST", headers, body });
  const answer = fields(xml.parse(await response.text()) as XmlValue);
  if (response.ok) return fields(answer[`${action}Response`]);
  const error = fields(fields(fields(answer.Response).Errors).Error);
  throw new CommandFailed(`${action}: ${text(error.Code)}: ${text(error.Message)}`, text(error.Code));
}

async function reach(connection: Connection, url: URL, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (cause) {
    throw noDaemon(connection.endpoint, whyUnreachable(cause));
  }
}

function whyUnreachable(cause: unknown): string {
  const { code, name, message } = cause as { code?: unknown; name?: unknown; message?: unknown };
  if (code === "ConnectionRefused" || code === "ECONNREFUSED") return "the connection is refused";
  if (name === "TimeoutError") return `it says nothing for ${HEALTH_TIMEOUT_MS / 1000} s`;
  return String(message ?? cause);
}

function messageIn(text: string): string | undefined {
  try {
    const parsed = JSON.parse(text) as { message?: unknown };
    if (typeof parsed.message === "string") return parsed.message;
  } catch {
    const message = /<Message>([^<]*)<\/Message>/.exec(text)?.[1];
    if (message) return message;
  }
  return undefined;
}
