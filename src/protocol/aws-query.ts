/**
 * The AWS query protocol (Smithy: aws.protocols#awsQuery), for STS and, in its turn, IAM. Lists are `Name.member.1` unless
 * they are flattened; an answer nests its output in `<XResult>`.
 */
import { present } from "../lib/assert.ts";
import { fail, type Result } from "../lib/result.ts";
import type { AwsError } from "../model/errors.ts";
import { stsTables } from "../schema/sts/tables.ts";
import type { StsOperationName, StsOperations } from "../schema/sts/types.ts";
import type { Form } from "./aws-query-form.ts";
import { invalidAction } from "./ec2-query.ts";
import { lazyService, type Service } from "./shape.ts";
import { QueryDecoder } from "./shape-query.ts";
import { utf8, xmlEncoder } from "./xml-encode.ts";
import { escapeXml } from "./xml-text.ts";

const decoder = new QueryDecoder({
  member: ({ name, traits }) => traits.x ?? name,
  listItem: (list, { traits }) =>
    list.traits.xmlFlattened !== undefined || traits.xmlFlattened !== undefined ? "" : (list.item.traits.x ?? "member"),
  mapEntry: (map, { traits }) =>
    map.traits.xmlFlattened !== undefined || traits.xmlFlattened !== undefined ? "" : "entry",
});

type OperationsOf = { readonly [operation: string]: { readonly input: object; readonly output: object } };

/** The codec of one service that speaks the AWS query protocol. */
export interface AwsQueryCodec<Operations> {
  readonly service: () => Service;
  readonly isOperation: (name: string) => name is keyof Operations & string;
  /** As decodeEc2Query: never throws; the same errors. */
  readonly decode: <Name extends keyof Operations & string>(
    operation: Name,
    form: Form,
  ) => Result<Operations[Name] extends { input: infer Input } ? Input : never, AwsError>;
  /** The body of a successful answer, in UTF-8. */
  readonly encode: <Name extends keyof Operations & string>(
    operation: Name,
    output: Operations[Name] extends { output: infer Output } ? Output : never,
    requestId: string,
  ) => Uint8Array<ArrayBuffer>;
}

/** The codec of a service; `Operations` is its generated map. */
export function awsQueryCodec<Operations extends { [Name in keyof Operations]: OperationsOf[string] }>(
  service: () => Service,
): AwsQueryCodec<Operations> {
  return {
    service,
    isOperation: (name): name is keyof Operations & string => service().has(name),
    decode: (operation, form) => {
      const shape = service().operation(operation);
      if (!shape) return fail(invalidAction(operation));
      return decoder.decode(shape.input, form) as Result<never, AwsError>;
    },
    encode: (operation, output, requestId) => {
      const shape = present(service().operation(operation), `${service().name} has ${operation}`).output;
      const content = shape ? xmlEncoder.append("", shape, output as object) : "";
      const result = shape ? `<${operation}Result>${content}</${operation}Result>` : "";
      const metadata = `<ResponseMetadata><RequestId>${escapeXml(requestId)}</RequestId></ResponseMetadata>`;
      return utf8.encode(
        `<${operation}Response xmlns="${service().xmlNamespace}">${result}${metadata}</${operation}Response>`,
      );
    },
  };
}

/** STS: `sts.decode("GetCallerIdentity", form)`, `sts.encode("GetCallerIdentity", output, requestId)`. */
export const sts: AwsQueryCodec<StsOperations> = awsQueryCodec<StsOperations>(lazyService(stsTables));

/** Whether STS has an operation of this name. */
export const isStsOperation = (name: string): name is StsOperationName => sts.isOperation(name);

/** The body of an error in the AWS query protocol; a status of 500 and above is the receiver's fault. */
export function encodeAwsQueryError(
  error: AwsError,
  requestId: string,
  service: Service = sts.service(),
): Uint8Array<ArrayBuffer> {
  const fault = error.status >= 500 ? "Receiver" : "Sender";
  return utf8.encode(
    `<ErrorResponse xmlns="${service.xmlNamespace}"><Error><Type>${fault}</Type><Code>${escapeXml(error.code)}</Code><Message>${escapeXml(error.message)}</Message></Error><RequestId>${escapeXml(requestId)}</RequestId></ErrorResponse>`,
  );
}
