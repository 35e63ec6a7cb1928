import { expect, test } from "bun:test";
import { awsError } from "../model/errors.ts";
import type { StsOperationName } from "../schema/sts/types.ts";
import { encodeAwsQueryError, isStsOperation, sts } from "./aws-query.ts";
import { parseForm } from "./aws-query-form.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
function decoded(operation: StsOperationName, body: string): unknown {
  const form = parseForm(body);
  const result = form.ok ? sts.decode(operation, form.value) : form;
  return result.ok ? result.value : `${result.error.code}: ${result.error.message}`;
}

const table: [claim: string, operation: StsOperationName, body: string, outcome: unknown][] = [
  ["no input", "GetCallerIdentity", "Action=GetCallerIdentity&Version=2011-06-15", {}],
  [
    "lists by member",
    "AssumeRole",
    "RoleArn=a&RoleSessionName=s&Tags.member.1.Key=k&Tags.member.1.Value=v&TransitiveTagKeys.member.2=y&TransitiveTagKeys.member.1=x",
    { RoleArn: "a", RoleSessionName: "s", Tags: [{ Key: "k", Value: "v" }], TransitiveTagKeys: ["x", "y"] },
  ],
  [
    "an empty list",
    "AssumeRole",
    "RoleArn=a&RoleSessionName=s&Tags=",
    { RoleArn: "a", RoleSessionName: "s", Tags: [] },
  ],
  ["a flat list", "AssumeRole", "Tags.1.Key=k", "UnknownParameter: The parameter Tags.1.Key is not recognized"],
  [
    "a list both empty and not",
    "AssumeRole",
    "Tags=&Tags.member.1.Key=k",
    "InvalidParameterCombination: The parameter Tags.member.1.Key may only be given once",
  ],
  [
    "an absent member of a tag",
    "AssumeRole",
    "RoleArn=a&RoleSessionName=s&Tags.member.1.Key=k",
    "MissingParameter: The request must contain the parameter Tags.member.1.Value",
  ],
];
test.each(table)("decodes %s", (_, operation, body, outcome) => expect(decoded(operation, body)).toEqual(outcome));

test("an answer nests its result", () => {
  const output = { UserId: "AIDA", Account: "000000000000", Arn: "arn:aws:iam::000000000000:root" };
  expect(text(sts.encode("GetCallerIdentity", output, "req-1"))).toBe(
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><UserId>AIDA</UserId><Account>000000000000</Account><Arn>arn:aws:iam::000000000000:root</Arn></GetCallerIdentityResult><ResponseMetadata><RequestId>req-1</RequestId></ResponseMetadata></GetCallerIdentityResponse>',
  );
});

test("an error says whose fault it is", () => {
  const error = (status: number) => text(encodeAwsQueryError(awsError("Code", "why & how", status), "req-1"));
  expect(error(403)).toBe(
    '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>Code</Code><Message>why &amp; how</Message></Error><RequestId>req-1</RequestId></ErrorResponse>',
  );
  expect(error(503)).toContain("<Type>Receiver</Type>");
});

test("STS has its operations and no others", () => {
  expect(isStsOperation("GetCallerIdentity")).toBe(true);
  expect(isStsOperation("RunInstances")).toBe(false);
});
