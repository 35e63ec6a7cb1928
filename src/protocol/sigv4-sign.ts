/**
 * The client's side of AWS Signature Version 4, for Hive's own commands (header form).
 * Source: "Signature Version 4 signing process", AWS General Reference.
 */
import { createHash, createHmac } from "node:crypto";

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export interface RequestToSign {
  readonly method: string;
  readonly url: URL;
  readonly service: string;
  readonly region: string;
  /** Lower-case names. `host` and `x-amz-*` are added; all are signed. */
  readonly headers: Readonly<Record<string, string>>;
  /** The body, or the word `UNSIGNED-PAYLOAD` when it is streamed. */
  readonly body: string | Uint8Array | { readonly hash: string };
  /** Milliseconds since the epoch. */
  readonly now: number;
}

export const UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD";

const sha256 = (data: string | Uint8Array) => createHash("sha256").update(data).digest("hex");
const hmac = (key: string | Uint8Array, data: string) => createHmac("sha256", key).update(data).digest();
const encode = (text: string) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

/** The headers to send: those given, with host, x-amz-date, x-amz-content-sha256 and authorization. */
export function signRequest(request: RequestToSign, credentials: Credentials): Record<string, string> {
  const time = new Date(request.now).toISOString().replace(/[-:]|\.\d{3}/g, "");
  const day = time.slice(0, 8);
  const { body, url } = request;
  const payloadHash = typeof body === "object" && "hash" in body ? body.hash : sha256(body);
  const headers: Record<string, string> = {
    ...request.headers,
    host: url.host,
    "x-amz-date": time,
    "x-amz-content-sha256": payloadHash,
  };
  const names = Object.keys(headers).sort();
  const signedHeaders = names.join(";");
  const query = [...url.searchParams]
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .sort()
    .join("&");
  const path = url.pathname.split("/").map(encodeOnceMore).join("/");
  const canonical = [
    request.method,
    path,
    query,
    ...names.map((name) => `${name}:${headers[name]!.trim().replace(/ +/g, " ")}`),
    "",
    signedHeaders,
    payloadHash,
  ].join("\n");
  const scope = `${day}/${request.region}/${request.service}/aws4_request`;
  const toSign = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${sha256(canonical)}`;
  const key = [request.region, request.service, "aws4_request"].reduce<Buffer>(
    (previous, part) => hmac(previous, part),
    hmac(`AWS4${credentials.secretAccessKey}`, day),
  );
  const signature = createHmac("sha256", key).update(toSign).digest("hex");
  headers.authorization = `AWS4-HMAC-SHA256 Credential=${credentials.accessKeyId}/${scope}, SignedHeaders=${signedHeaders}, Signature=${signature}`;
  return headers;
}

/** Services other than S3 sign the path encoded a second time. */
const encodeOnceMore = (segment: string) => encode(segment);
