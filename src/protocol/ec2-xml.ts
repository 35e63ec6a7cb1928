/** Answers in EC2's query protocol: `<RunInstancesResponse xmlns="…"><requestId>…</requestId>…</RunInstancesResponse>`. */
import { present } from "../lib/assert.ts";
import type { AwsError } from "../model/errors.ts";
import type { Ec2OperationName, Ec2Operations } from "../schema/ec2/types.ts";
import { ec2Service } from "./ec2-query.ts";
import { utf8, xmlEncoder } from "./xml-encode.ts";
import { escapeXml } from "./xml-text.ts";

export { markCacheable } from "./xml-encode.ts";

const DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n';

/**
 * The body of a successful answer, in UTF-8. An operation without an output answers `<return>true</return>`, as EC2 does.
 * Frozen structures in the output are rendered once: see `markCacheable`.
 */
export function encodeEc2Response<Name extends Ec2OperationName>(
  operation: Name,
  output: Ec2Operations[Name]["output"],
  requestId: string,
): Uint8Array<ArrayBuffer> {
  const service = ec2Service();
  const shape = present(service.operation(operation), `EC2 has ${operation}`).output;
  const head = `${DECLARATION}<${operation}Response xmlns="${service.xmlNamespace}/"><requestId>${escapeXml(requestId)}</requestId>`;
  const body = shape ? xmlEncoder.append(head, shape, output) : `${head}<return>true</return>`;
  return utf8.encode(`${body}</${operation}Response>`);
}

/** The body of an EC2 error. Its status is the error's own; `cause` stays here. */
export function encodeEc2Error(error: AwsError, requestId: string): Uint8Array<ArrayBuffer> {
  return utf8.encode(
    `${DECLARATION}<Response><Errors><Error><Code>${escapeXml(error.code)}</Code><Message>${escapeXml(error.message)}</Message></Error></Errors><RequestID>${escapeXml(requestId)}</RequestID></Response>`,
  );
}
