/** Reads request bodies within bounds. */
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import { DRAINED_BODY_BYTES_MAX } from "../model/limits.ts";

const NO_BODY = new Uint8Array(0);

/**
 * The whole body, at most `limit` bytes. A larger one is read to its end (within DRAINED_BODY_BYTES_MAX) and dropped:
 * a client that is still writing would see a reset connection and not the answer.
 * Errors: RequestEntityTooLarge (413), RequestTimeout when the client stopped in the middle.
 */
export async function readBody(request: Request, limit: number): Promise<Result<Uint8Array, AwsError>> {
  if (request.body === null) return ok(NO_BODY);
  try {
    const declared = Number(request.headers.get("content-length") ?? Number.NaN);
    // The usual case: a length that is stated, and that the server holds the client to.
    if (declared <= limit) return ok(await request.bytes());
    return await readStream(request.body, limit);
  } catch {
    return fail(bodyIncomplete());
  }
}

async function readStream(body: ReadableStream<Uint8Array>, limit: number): Promise<Result<Uint8Array, AwsError>> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    if (bytes <= limit) chunks.push(chunk);
    else chunks.length = 0;
    if (bytes > DRAINED_BODY_BYTES_MAX) break;
  }
  return bytes <= limit ? ok(Buffer.concat(chunks)) : fail(bodyTooLarge(limit));
}

const bodyTooLarge = (limit: number): AwsError =>
  awsError("RequestEntityTooLarge", `The request is larger than ${limit} bytes.`, 413);
const bodyIncomplete = (): AwsError =>
  awsError("RequestTimeout", "The connection was closed before the request was read.", 400);
