/**
 * JSON Schemas (draft 7) of inputs, made from the shape tables, and their validators, compiled by ajv at an operation's first
 * use. The decoders already prove names, types, enums and required members of what comes as a query; a schema states
 * the rest (lengths, ranges, patterns: see json-schema-constraints.ts), and is all the proof there is for input from elsewhere.
 *
 * Timestamps and blobs are Date and Uint8Array by then, which JSON Schema cannot describe: two keywords of our own do.
 */
import type { Ajv, ErrorObject, ValidateFunction } from "ajv";
import { unreachable } from "../lib/assert.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, invalidValueFor, missingParameter, unknownParameter } from "../model/errors.ts";
import { type Constraints, NO_CONSTRAINTS } from "./json-schema-constraints.ts";
import type { Member, Service, Structure } from "./shape.ts";

export type JsonSchema = { readonly [keyword: string]: unknown };

/**
 * The schema of a structure, with those that it reaches in `definitions`. Unknown members are refused.
 * `constraints` adds keywords to members, by `Structure.Member`.
 */
export function jsonSchemaOf(root: Structure, constraints: Constraints = NO_CONSTRAINTS): JsonSchema {
  const definitions = new Map<string, JsonSchema>();
  const reference = (shape: Structure): JsonSchema => {
    if (!definitions.has(shape.name)) {
      definitions.set(shape.name, {});
      definitions.set(shape.name, structure(shape));
    }
    return { $ref: `#/definitions/${shape.name}` };
  };
  const structure = (shape: Structure): JsonSchema => ({
    type: "object",
    properties: Object.fromEntries(
      shape.members.map((member) => [member.name, schemaOf(member, constraints[`${shape.name}.${member.name}`])]),
    ),
    required: shape.members.filter((member) => member.required).map((member) => member.name),
    additionalProperties: false,
    ...(shape.kind === "union" ? { minProperties: 1, maxProperties: 1 } : {}),
  });
  const schemaOf = (member: Member, constraint: JsonSchema = {}): JsonSchema => {
    const { shape } = member;
    switch (shape.kind) {
      case "structure":
      case "union":
      case "error":
        return reference(shape);
      case "list":
        return {
          type: "array",
          items: schemaOf(shape.item, constraint.items as JsonSchema),
          ...without(constraint, "items"),
        };
      case "map":
        return { type: "object", additionalProperties: schemaOf(shape.value), ...constraint };
      case "string":
        return { type: "string", ...(shape.values ? { enum: [...shape.values] } : {}), ...constraint };
      case "bigDecimal":
        return { type: "string", ...constraint };
      case "integer":
        return { type: "integer", ...constraint };
      case "float":
        return { type: "number", ...constraint };
      case "boolean":
        return { type: "boolean" };
      case "timestamp":
        return { instanceOfDate: true };
      case "blob":
        return { instanceOfBytes: true };
      case "bigInteger":
      case "document":
        return {};
      default:
        return unreachable(shape);
    }
  };
  const { $ref } = reference(root);
  return { $ref, definitions: Object.fromEntries(definitions) };
}

/**
 * The part of a structure's schema that a decoder has not proven: constraints, and the way to them. undefined: there are none.
 * RunInstances compiles in 2 ms by this one, and in 50 by the whole.
 */
export function constraintSchemaOf(root: Structure, constraints: Constraints): JsonSchema | undefined {
  /** Structures on the way from the root: one that comes again adds nothing that its first place does not look for. */
  const path = new Set<Structure>();
  const ofMember = (member: Member, constraint: JsonSchema | undefined): JsonSchema | undefined => {
    const { shape } = member;
    if (shape.kind === "structure" || shape.kind === "union" || shape.kind === "error") return ofStructure(shape);
    if (shape.kind !== "list") return constraint;
    const items = ofMember(shape.item, constraint?.items as JsonSchema | undefined);
    return items ? { ...constraint, items } : constraint;
  };
  const ofStructure = (shape: Structure): JsonSchema | undefined => {
    if (path.has(shape)) return undefined;
    path.add(shape);
    const properties = shape.members.flatMap((member) => {
      const schema = ofMember(member, constraints[`${shape.name}.${member.name}`]);
      return schema ? [[member.name, schema] as const] : [];
    });
    path.delete(shape);
    return properties.length > 0 ? { properties: Object.fromEntries(properties) } : undefined;
  };
  return ofStructure(root);
}

const without = (schema: JsonSchema, keyword: string): JsonSchema =>
  Object.fromEntries(Object.entries(schema).filter(([name]) => name !== keyword));

/** Validators of a service's inputs, each compiled when its operation is first validated. */
export class InputValidator {
  readonly #service: () => Service;
  readonly #constraints: Constraints;
  readonly #whole = new Map<string, ValidateFunction | undefined>();
  readonly #constrained = new Map<string, ValidateFunction | undefined>();
  #ajv: Ajv | undefined;

  constructor(service: () => Service, constraints: Constraints = NO_CONSTRAINTS) {
    this.#service = service;
    this.#constraints = constraints;
  }

  /**
   * Checks an input of any origin in full; the input itself is the answer. Errors as the decoders': MissingParameter,
   * UnknownParameter, InvalidParameterValue, which name the member by its path (`TagSpecifications.0.Tags.1.Key`).
   */
  validate<Input>(operation: string, input: Input): Result<Input, AwsError> {
    return check(this.#validator(this.#whole, operation, jsonSchemaOf), input);
  }

  /** Checks what a query decoder has not: the constraints. Free where there are none. Errors: InvalidParameterValue. */
  validateDecoded<Input>(operation: string, input: Input): Result<Input, AwsError> {
    return check(this.#validator(this.#constrained, operation, constraintSchemaOf), input);
  }

  #validator(
    compiled: Map<string, ValidateFunction | undefined>,
    operation: string,
    schemaOf: (input: Structure, constraints: Constraints) => JsonSchema | undefined,
  ): ValidateFunction | undefined {
    if (compiled.has(operation)) return compiled.get(operation);
    const input = this.#service().operation(operation)?.input;
    const schema = input ? schemaOf(input, this.#constraints) : NOTHING;
    const validate = schema && this.#engine().compile(schema);
    compiled.set(operation, validate);
    return validate;
  }

  #engine(): Ajv {
    if (this.#ajv) return this.#ajv;
    // Loaded here and not at the start: it takes 12 ms, and most calls of most operations have nothing for it to check.
    const { Ajv: Engine } = require("ajv") as typeof import("ajv");
    this.#ajv = new Engine({
      strict: true,
      strictTypes: false,
      validateSchema: false,
      addUsedSchema: false,
      verbose: true,
      ownProperties: true,
    });
    const keyword = (name: string, validate: (schema: unknown, data: unknown) => boolean) =>
      this.#ajv?.addKeyword({ keyword: name, errors: false, validate });
    keyword("instanceOfDate", (_, data) => data instanceof Date && !Number.isNaN(data.getTime()));
    keyword("instanceOfBytes", (_, data) => data instanceof Uint8Array);
    return this.#ajv;
  }
}

const NOTHING: JsonSchema = { type: "object", additionalProperties: false };

function check<Input>(validate: ValidateFunction | undefined, input: Input): Result<Input, AwsError> {
  return validate === undefined || validate(input) ? ok(input) : fail(asAwsError(validate.errors![0]!));
}

function asAwsError({ instancePath, keyword, params, data, message }: ErrorObject): AwsError {
  const path = instancePath.slice(1).replaceAll("/", ".");
  const below = (name: unknown) => (path === "" ? String(name) : `${path}.${String(name)}`);
  if (keyword === "required") return missingParameter(below(params.missingProperty));
  if (keyword === "additionalProperties") return unknownParameter(below(params.additionalProperty));
  const shown = typeof data === "object" || data === undefined ? "" : String(data).slice(0, 256);
  const why = keyword === "enum" || keyword === "pattern" ? "" : `The value ${message ?? "is not valid"}.`;
  return invalidValueFor(path, shown, why);
}
