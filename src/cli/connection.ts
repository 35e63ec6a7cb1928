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
 * environment's when an endpoint was named there, else the profile's.
 */
export function resolveConnection(flag: string | undefined, env: Env, dataDir = DEFAULT_DATA_DIR): Connection {
  const name = env.AWS_PROFILE ?? "hive";
  const profile: AwsProfile = userProfile(env, name) ?? profileInFolder(`${dataDir}/aws`, "hive") ?? {};
  const endpoint = flag ?? env.HIVE_ENDPOINT ?? env.AWS_ENDPOINT_URL ?? profile.endpointUrl ?? DEFAULT_ENDPOINT;
  const accessKeyId = env.AWS_ACCESS_KEY_ID ?? profile.accessKeyId;
  const secretAccessKey = env.AWS_SECRET_ACCESS_KEY ?? profile.secretAccessKey;
  return {
    endpoint: endpoint.replace(/\/+$/, ""),
    region: env.AWS_REGION ?? env.AWS_DEFAULT_REGION ?? profile.region ?? "us-east-1",
    credentials: accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey } : undefined,
  };
}

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
    "no keys to sign with: set AWS_PROFILE=hive with AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE as `hive server` prints them, " +
      "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "NoCredentials",
  );

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
): Promise<Response> {
  const url = new URL(`${connection.endpoint}${path}`);
  const streamed = typeof body === "object";
  const headers = signedHeaders(connection, method, url, streamed ? { hash: UNSIGNED_PAYLOAD } : (body ?? ""));
  if (streamed) headers["content-length"] = String(body.bytes);
  const response = await reach(connection, url, {
    method,
    headers,
    ...(body === undefined ? {} : { body: streamed ? body.stream : body }),
  });
  if (response.ok) return response;
  const text = await response.text();
  throw new CommandFailed(messageIn(text) ?? `${method} ${path} answered ${response.status}: ${text.slice(0, 200)}`);
}

const xml = new XMLParser({
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
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new CommandFailed(`no daemon answers at ${connection.endpoint} (${why}). Start one: hive server --role=all`);
  }
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
