/** What the gateway needs to know of an AWS service: its version, its codec, how it words errors, its handlers. */
import type { Result } from "../lib/result.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import type { HandlerTable } from "../model/operation.ts";
import { encodeAwsQueryError, sts } from "../protocol/aws-query.ts";
import type { Form } from "../protocol/aws-query-form.ts";
import { decodeEc2Query, ec2Service, invalidAction, isEc2Operation } from "../protocol/ec2-query.ts";
import { encodeEc2Error, encodeEc2Response } from "../protocol/ec2-xml.ts";
import { InputValidator } from "../protocol/json-schema.ts";
import { EC2_CONSTRAINTS } from "../protocol/json-schema-constraints.ts";
import type { Dialect } from "../protocol/sigv4-failures.ts";
import type { Ec2OperationName, Ec2Operations } from "../schema/ec2/types.ts";
import type { StsOperationName, StsOperations } from "../schema/sts/types.ts";
import type { AnyInput, AnyOperation } from "./run-operation.ts";

export interface ServiceEndpoint {
  /** As in the signature's scope. */
  readonly name: string;
  readonly dialect: Dialect;
  readonly apiVersion: string;
  readonly contentType: string;
  isOperation(name: string): boolean;
  handler(name: string): AnyOperation | undefined;
  decode(operation: string, form: Form): Result<AnyInput, AwsError>;
  encode(operation: string, output: object, requestId: string): Uint8Array<ArrayBuffer>;
  encodeError(error: AwsError, requestId: string): Uint8Array<ArrayBuffer>;
  /** Action is one that the service, or the version that was asked for, does not have. */
  unknownAction(action: string, version: string): AwsError;
  unknownVersion(action: string, version: string): AwsError;
}

const handlerIn = (table: object) => {
  const handlers = new Map(Object.entries(table)) as Map<string, AnyOperation>;
  return (name: string) => handlers.get(name);
};

export function ec2Endpoint(table: HandlerTable<Ec2Operations>): ServiceEndpoint {
  const constraints = new InputValidator(ec2Service, EC2_CONSTRAINTS);
  return {
    name: "ec2",
    dialect: "ec2",
    apiVersion: "2016-11-15",
    contentType: "text/xml;charset=UTF-8",
    isOperation: isEc2Operation,
    handler: handlerIn(table),
    decode: (operation, form) => {
      const input = decodeEc2Query(operation as Ec2OperationName, form) as Result<AnyInput, AwsError>;
      return input.ok ? constraints.validateDecoded(operation, input.value) : input;
    },
    encode: (operation, output, requestId) =>
      encodeEc2Response(operation as Ec2OperationName, output as never, requestId),
    encodeError: encodeEc2Error,
    unknownAction: invalidAction,
    unknownVersion: (_action, version) =>
      awsError("NoSuchVersion", `The requested version (${shown(version)}) of service AmazonEC2 does not exist`),
  };
}

export function stsEndpoint(table: HandlerTable<StsOperations>): ServiceEndpoint {
  const notFound = (action: string, version: string) =>
    awsError("InvalidAction", `Could not find operation ${shown(action)} for version ${shown(version)}`);
  return {
    name: "sts",
    dialect: "query",
    apiVersion: "2011-06-15",
    contentType: "text/xml",
    isOperation: sts.isOperation,
    handler: handlerIn(table),
    decode: (operation, form) => sts.decode(operation as StsOperationName, form) as Result<AnyInput, AwsError>,
    encode: (operation, output, requestId) => sts.encode(operation as StsOperationName, output as never, requestId),
    encodeError: (error, requestId) => encodeAwsQueryError(error, requestId),
    unknownAction: notFound,
    unknownVersion: notFound,
  };
}

const shown = (text: string): string => (text.length > 64 ? `${text.slice(0, 64)}…` : text);
