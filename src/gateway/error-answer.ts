/** Errors of services that Hive does not serve, in the form that their clients read. */
import { type AwsError, awsError } from "../model/errors.ts";
import type { Dialect } from "../protocol/sigv4-failures.ts";
import { escapeXml } from "../protocol/xml-text.ts";

/** How a service words errors, told by its signing name and what the client sent. */
export function dialectOf(service: string | undefined, contentType: string | null): Dialect {
  if (service === "ec2") return "ec2";
  if (service === "s3") return "s3";
  return service === "hive" || contentType?.startsWith("application/x-amz-json") || contentType === "application/json"
    ? "json"
    : "query";
}

/** An error's body and content type in a dialect, for a service without a codec. */
export function encodeForeignError(
  error: AwsError,
  dialect: Dialect,
  requestId: string,
): { readonly body: string; readonly contentType: string } {
  const { code, message, status } = error;
  switch (dialect) {
    case "json":
      return {
        body: JSON.stringify({ __type: code, code, message, requestId }),
        contentType: "application/x-amz-json-1.1",
      };
    case "s3":
      return xml(
        `<Error><Code>${escapeXml(code)}</Code><Message>${escapeXml(message)}</Message><RequestId>${requestId}</RequestId></Error>`,
      );
    case "ec2":
      return xml(
        `<Response><Errors><Error><Code>${escapeXml(code)}</Code><Message>${escapeXml(message)}</Message></Error></Errors><RequestID>${requestId}</RequestID></Response>`,
      );
    case "query":
      return xml(
        `<ErrorResponse><Error><Type>${status >= 500 ? "Receiver" : "Sender"}</Type><Code>${escapeXml(code)}</Code><Message>${escapeXml(message)}</Message></Error><RequestId>${requestId}</RequestId></ErrorResponse>`,
      );
  }
}

const xml = (text: string) => ({
  body: `<?xml version="1.0" encoding="UTF-8"?>\n${text}`,
  contentType: "text/xml;charset=UTF-8",
});

export const serviceNotServed = (service: string): AwsError =>
  awsError("UnsupportedOperation", `Hive does not serve the AWS service '${service.slice(0, 64)}'.`);
