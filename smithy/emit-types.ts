/**
 * Writes the TypeScript types of a service.
 *
 * The rules: the SDK's shape names; lists and maps inline; everything readonly, for an input is a fact and an output may be an
 * immutable record. A member is required where Smithy requires it, on inputs and outputs alike (of EC2's structures that
 * only appear in outputs none requires a member). An enum is a closed union everywhere, so that a handler cannot misspell a
 * state; those in OPEN_ENUMS also take any other string.
 */
import { declaredName } from "./join-declarations.ts";
import type { ServiceModel, Structure, Target } from "./model.ts";
import type { Declarations } from "./read-declarations.ts";
import { OPEN_ENUMS } from "./services.ts";

const SIMPLE: { readonly [target: string]: string } = {
  s: "string",
  i: "number",
  f: "number",
  b: "boolean",
  t: "Date",
  x: "Uint8Array",
  X: "ReadableStream<Uint8Array>",
  d: "unknown",
  I: "bigint",
  D: "string",
};

export function emitTypes(model: ServiceModel, declared: Declarations): string {
  const nameOf = (shape: Structure) => declaredName(shape.name, declared);
  const typeOf = (target: Target): string => {
    if (target.startsWith("[")) return `readonly ${parenthesised(typeOf(target.slice(1)))}[]`;
    if (target.startsWith("{")) return `{ readonly [key: string]: ${typeOf(target.slice(1))} }`;
    if (target.startsWith("=")) return target.slice(1);
    if (!target.startsWith("#")) return SIMPLE[target[0]!]!;
    const shape = model.shapes.get(target.slice(1))!;
    if (shape.kind === "list") return typeOf(`[${shape.item.target}`);
    if (shape.kind === "map") return typeOf(`{${shape.value.target}`);
    return shape.traits.streaming === undefined ? nameOf(shape) : `AsyncIterable<${nameOf(shape)}>`;
  };
  const structure = (shape: Structure): string => {
    if (shape.kind === "union") {
      const cases = shape.members.map((member) => `{ readonly ${member.name}: ${typeOf(member.target)} }`);
      return `export type ${nameOf(shape)} = ${cases.join(" | ")};\n`;
    }
    const rows = shape.members.map((member, at) =>
      at < shape.required
        ? `  readonly ${member.name}: ${typeOf(member.target)};`
        : `  readonly ${member.name}?: ${typeOf(member.target)} | undefined;`,
    );
    return `export interface ${nameOf(shape)} {\n${rows.join("\n")}${rows.length > 0 ? "\n" : ""}}\n`;
  };
  const enums = [...declared.enums].map(([name, values]) => {
    const open = OPEN_ENUMS.includes(`${model.name} ${name}`) ? " | (string & {})" : "";
    return `export type ${name} = ${values.map((value) => JSON.stringify(value)).join(" | ")}${open};\n`;
  });
  const structures = [...model.shapes.values()].flatMap((shape) =>
    shape.kind === "list" || shape.kind === "map" ? [] : [structure(shape)],
  );
  const prefix = pascal(model.name);
  const operations = model.operations.map(
    ({ name, input, output }) => `  ${name}: { input: ${input || "Unit"}; output: ${output || "Unit"} };`,
  );
  return [
    `/** The types of ${model.serviceId}, API version ${model.apiVersion}. Generated: see smithy/emit-types.ts for the rules. */\n`,
    "/** No input, or no output. */\nexport type Unit = { readonly [name: string]: never };\n",
    ...enums,
    ...structures,
    `/** Every operation of ${model.serviceId}, with its input and output. */`,
    `export interface ${prefix}Operations {\n${operations.join("\n")}\n}`,
    `export type ${prefix}OperationName = keyof ${prefix}Operations;\n`,
  ].join("\n");
}

const parenthesised = (type: string) => (/^[\w.<>]+$/.test(type) ? type : `(${type})`);

/** `ec2` → `Ec2`. */
export const pascal = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);
