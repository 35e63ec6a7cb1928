/**
 * Requests in EC2's query protocol (Smithy: aws.protocols#ec2Query). It is the AWS query protocol with two differences: a
 * member's name is its ec2QueryName, else its XML name or own name with the first letter upper-cased; and lists are always
 * flat (`InstanceId.1`, `Filter.1.Value.1`).
 */
import { fail, type Result } from "../lib/result.ts";
import { type AwsError, awsError } from "../model/errors.ts";
import { ec2Tables } from "../schema/ec2/tables.ts";
import type { Ec2OperationName, Ec2Operations } from "../schema/ec2/types.ts";
import type { Form } from "./aws-query-form.ts";
import { lazyService, type Member } from "./shape.ts";
import { QueryDecoder } from "./shape-query.ts";

/** EC2's model, opened at its first use. */
export const ec2Service = lazyService(ec2Tables);

/** The name of a member in EC2's query protocol. */
export function ec2QueryName({ name, traits }: Member): string {
  if (traits.q !== undefined) return traits.q;
  const wire = traits.x ?? name;
  return wire.charAt(0).toUpperCase() + wire.slice(1);
}

const decoder = new QueryDecoder({ member: ec2QueryName, listItem: () => "", mapEntry: () => "" });

/** Whether EC2 has an operation of this name. */
export const isEc2Operation = (name: string): name is Ec2OperationName => ec2Service().has(name);

/** What AWS answers to an Action that the service does not have. */
export const invalidAction = (action: string): AwsError =>
  awsError("InvalidAction", `The action ${action.slice(0, 128)} is not valid for this web service.`);

/**
 * The input of `operation` in a form. Action, Version and a presigned request's X-Amz-… are passed over.
 * Errors: InvalidAction, UnknownParameter, MissingParameter, InvalidParameterValue, InvalidParameterCombination (a
 * parameter twice), InvalidRequest (too many). Never throws, whatever the form holds.
 */
export function decodeEc2Query<Name extends Ec2OperationName>(
  operation: Name,
  form: Form,
): Result<Ec2Operations[Name]["input"], AwsError> {
  const shape = ec2Service().operation(operation);
  if (!shape) return fail(invalidAction(operation));
  return decoder.decode(shape.input, form) as Result<Ec2Operations[Name]["input"], AwsError>;
}
