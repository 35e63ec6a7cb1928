import { describe, expect, test } from "bun:test";
import { ec2Service } from "./ec2-query.ts";
import { constraintSchemaOf, InputValidator, jsonSchemaOf } from "./json-schema.ts";
import { EC2_CONSTRAINTS } from "./json-schema-constraints.ts";

const validator = new InputValidator(ec2Service, EC2_CONSTRAINTS);
const outcome = (operation: string, input: unknown): string => {
  const result = validator.validate(operation, input);
  return result.ok ? "ok" : `${result.error.code}: ${result.error.message}`;
};
const run = { MinCount: 1, MaxCount: 1 };

const table: [claim: string, operation: string, input: unknown, outcome: string][] = [
  ["a whole input", "RunInstances", { ...run, TagSpecifications: [{ Tags: [{ Key: "a", Value: "b" }] }] }, "ok"],
  ["a date and a blob", "ImportKeyPair", { KeyName: "k", PublicKeyMaterial: new Uint8Array(3) }, "ok"],
  [
    "text for a blob",
    "ImportKeyPair",
    { KeyName: "k", PublicKeyMaterial: "x" },
    'InvalidParameterValue: Value (x) for parameter PublicKeyMaterial is invalid. The value must pass "instanceOfBytes" keyword validation.',
  ],
  [
    "an absent member",
    "RunInstances",
    { MinCount: 1 },
    "MissingParameter: The request must contain the parameter MaxCount",
  ],
  [
    "an unknown member beneath",
    "RunInstances",
    { ...run, Placement: { Foo: 1 } },
    "UnknownParameter: The parameter Placement.Foo is not recognized",
  ],
  [
    "a value outside of an enum",
    "RunInstances",
    { ...run, Placement: { Tenancy: "mine" } },
    "InvalidParameterValue: Value (mine) for parameter Placement.Tenancy is invalid.",
  ],
  [
    "a fraction for an integer",
    "RunInstances",
    { ...run, MinCount: 1.5 },
    "InvalidParameterValue: Value (1.5) for parameter MinCount is invalid. The value must be integer.",
  ],
  [
    "a client token that is too long",
    "RunInstances",
    { ...run, ClientToken: "x".repeat(65) },
    `InvalidParameterValue: Value (${"x".repeat(65)}) for parameter ClientToken is invalid. The value must NOT have more than 64 characters.`,
  ],
];
test.each(table)("%s", (_, operation, input, expected) => expect(outcome(operation, input)).toBe(expected));

describe("what a decoder has not proven", () => {
  test("is only the constraints and the way to them", () => {
    const constraints = { "Tag.Key": { maxLength: 127 }, "FilterDoesNotExist.X": {} };
    expect(constraintSchemaOf(ec2Service().structure("CreateTagsRequest"), constraints)).toEqual({
      properties: { Tags: { items: { properties: { Key: { maxLength: 127 } } } } },
    });
    expect(constraintSchemaOf(ec2Service().structure("DescribeInstancesRequest"), constraints)).toBeUndefined();
  });

  test("is checked after decoding", () => {
    expect(validator.validateDecoded("RunInstances", { ...run, ClientToken: "é" })).toMatchObject({
      error: { code: "InvalidParameterValue", message: "Value (é) for parameter ClientToken is invalid." },
    });
    expect(validator.validateDecoded("DescribeInstances", {})).toEqual({ ok: true, value: {} });
  });

  test("names members that exist", () => {
    for (const name of Object.keys(EC2_CONSTRAINTS)) {
      const [structure, member] = name.split(".") as [string, string];
      expect(
        ec2Service()
          .structure(structure)
          .members.map((known) => known.name),
      ).toContain(member);
    }
  });
});

test("a schema holds the structures that it reaches, once", () => {
  const { $ref, definitions } = jsonSchemaOf(ec2Service().structure("CreateTagsRequest"));
  expect($ref).toBe("#/definitions/CreateTagsRequest");
  expect(Object.keys(definitions as object).sort()).toEqual(["CreateTagsRequest", "Tag"]);
});
