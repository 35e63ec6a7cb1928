/**
 * Writes a service's shapes as data for src/protocol/shape.ts, which documents the rows. Each shape is one line of text, found
 * by an index that is built at the first use of the service and parsed when that shape is first used: a process pays for
 * the operations that it serves and not for all of them.
 */

import { pascal } from "./emit-types.ts";
import type { Member, ServiceModel, Shape, Traits } from "./model.ts";
import type { Declarations } from "./read-declarations.ts";
import { OPEN_ENUMS } from "./services.ts";

/** The two traits that nearly every member has are written short. */
const SHORT: { readonly [trait: string]: string } = { xmlName: "x", ec2QueryName: "q" };

function traitsRow(traits: Traits, name = ""): unknown {
  const said = (trait: string, value: unknown) =>
    // EC2's query name says nothing when it is the rule's: the XML name, else the member's, with its first letter upper-cased.
    trait === "ec2QueryName" && value === pascal(String(traits.xmlName ?? name));
  const entries = Object.entries(traits)
    .filter(([trait, value]) => !said(trait, value))
    .map(([trait, value]) => [SHORT[trait] ?? trait, value]);
  return entries.length > 0 ? Object.fromEntries(entries) : 0;
}

function memberRow(member: Member): unknown[] {
  const traits = traitsRow(member.traits, member.name);
  return traits === 0 ? [member.name, member.target] : [member.name, member.target, traits];
}

function shapeRow(shape: Shape): unknown[] {
  switch (shape.kind) {
    case "list":
      return ["list", traitsRow(shape.traits), [memberRow(shape.item)]];
    case "map":
      return ["map", traitsRow(shape.traits), [memberRow(shape.key), memberRow(shape.value)]];
    default:
      return [shape.kind, traitsRow(shape.traits), shape.members.map(memberRow), shape.required];
  }
}

/** The text of tables.ts. */
export function emitTables(model: ServiceModel, declared: Declarations): string {
  const { name, serviceId, apiVersion, protocol, xmlNamespace } = model;
  const operations = model.operations.map((operation) => [
    operation.name,
    [operation.input, operation.output, traitsRow(operation.traits)],
  ]);
  const shapes = [...model.shapes.values()].map((shape) => [shape.name, shapeRow(shape)]);
  const enums = [...declared.enums].filter(([enumName]) => !OPEN_ENUMS.includes(`${model.name} ${enumName}`));
  return [
    `/** The shapes of ${serviceId} as data. Generated: src/protocol/shape.ts reads it. */`,
    `export const ${name}Tables = {`,
    ...Object.entries({ name, serviceId, apiVersion, protocol, xmlNamespace }).map(
      ([key, value]) => `  ${key}: ${quoted(value)},`,
    ),
    `  operations: ${lines(operations)},`,
    `  shapes: ${lines(shapes)},`,
    `  enums: ${lines(enums)},`,
    "} as const;",
    "",
    "/** Every operation's name, in order. */",
    `export const ${name}OperationNames: readonly import("./types.ts").${pascal(name)}OperationName[] = [`,
    ...model.operations.map((operation) => `  ${quoted(operation.name)},`),
    "];",
    "",
  ].join("\n");
}

/** A string literal of lines, each a name, a space and a value as JSON. */
const lines = (rows: readonly (readonly unknown[])[]): string =>
  quoted(rows.map(([name, value]) => `${name} ${JSON.stringify(value)}\n`).join(""));

/** A literal in single quotes, in which JSON needs few escapes. */
const quoted = (text: string): string =>
  `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'").replaceAll("\n", "\\n")}'`;
