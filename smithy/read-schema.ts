/**
 * Reads the schema tuples of an SDK package into a ServiceModel. The tuples are documented by `@smithy/types`
 * (static-schemas, sentinels); a tuple or trait that is not known here stops the generator.
 */
import { dirname, join } from "node:path";
import type { List, MapShape, Member, Operation, ServiceModel, Shape, Structure, Target, Traits } from "./model.ts";
import { NotUnderstood } from "./model.ts";
import { FRACTIONAL, type ServiceSource } from "./services.ts";

/** The folder of an installed package. */
export function packageFolder(name: string): string {
  return dirname(Bun.resolveSync(`${name}/package.json`, import.meta.dir));
}

const SIMPLE: { readonly [sentinel: number]: Target } = {
  0: "s",
  1: "i",
  2: "b",
  4: "t",
  5: "t5",
  6: "t6",
  7: "t7",
  15: "d",
  17: "I",
  19: "D",
  21: "x",
  42: "X",
};

/** The bits of a trait set, in order from bit 0. */
const TRAIT_BITS = [
  "httpLabel",
  "idempotent",
  "idempotencyToken",
  "sensitive",
  "httpPayload",
  "httpResponseCode",
  "httpQueryParams",
];
const KNOWN_TRAITS = new Set([
  ...TRAIT_BITS,
  ...["ec2QueryName", "xmlName", "xmlFlattened", "xmlAttribute", "xmlNamespace", "jsonName", "timestampFormat"],
  ...[
    "http",
    "httpHeader",
    "httpPrefixHeaders",
    "httpQuery",
    "httpError",
    "httpChecksum",
    "httpChecksumRequired",
    "mediaType",
  ],
  ...["error", "awsQueryError", "streaming", "requiresLength", "eventPayload", "eventHeader", "hostLabel", "endpoint"],
]);

function traitsOf(raw: unknown, where: string): Traits {
  if (raw === undefined || raw === 0) return {};
  if (typeof raw === "number") {
    if (raw < 0 || raw >= 1 << TRAIT_BITS.length) throw new NotUnderstood(`trait bits ${raw} of ${where}`);
    return Object.fromEntries(TRAIT_BITS.flatMap((name, bit) => (raw & (1 << bit) ? [[name, 1]] : [])));
  }
  if (typeof raw !== "object" || raw === null) throw new NotUnderstood(`traits of ${where}: ${String(raw)}`);
  for (const name of Object.keys(raw))
    if (!KNOWN_TRAITS.has(name)) throw new NotUnderstood(`trait ${name} of ${where}`);
  return raw as Traits;
}

/** Reads every shape and operation that the package's schema module exports, and those reached from them. */
export async function readService(source: ServiceSource): Promise<ServiceModel> {
  const folder = packageFolder(source.package);
  const schemas = (await import(join(folder, "dist-es/schemas/schemas_0.js"))) as Record<string, unknown>;
  const config = (await import(join(folder, "dist-es/runtimeConfig.shared.js"))) as {
    getRuntimeConfig(config: object): {
      readonly apiVersion: string;
      readonly serviceId: string;
      readonly protocol: new (settings: object) => { getShapeId(): string };
      readonly protocolSettings: { readonly xmlNamespace?: string };
    };
  };
  const runtime = config.getRuntimeConfig({});
  const reader = new TupleReader(source.name);
  for (const [name, tuple] of Object.entries(schemas)) if (name.endsWith("$")) reader.read(tuple, name);
  reader.checkFractional();
  return {
    name: source.name,
    serviceId: runtime.serviceId,
    apiVersion: runtime.apiVersion,
    protocol: new runtime.protocol(runtime.protocolSettings).getShapeId().replace(/^.*#/, ""),
    xmlNamespace: runtime.protocolSettings.xmlNamespace ?? "",
    shapes: reader.shapes,
    operations: reader.operations.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
  };
}

class TupleReader {
  readonly shapes = new Map<string, Shape>();
  readonly operations: Operation[] = [];
  readonly #service: string;
  readonly #seen = new Map<string, unknown>();
  readonly #fractional: Set<string>;

  constructor(service: string) {
    this.#service = service;
    this.#fractional = new Set(FRACTIONAL.filter((entry) => entry.startsWith(`${service} `)));
  }

  /** Reads one exported tuple. The base exception of the package (no namespace of the service's) is not a shape. */
  read(tuple: unknown, where: string): void {
    if (!Array.isArray(tuple)) throw new NotUnderstood(`export ${where}`);
    if (String(tuple[1]).startsWith("smithy.ts.sdk.synthetic.")) return;
    if (tuple[0] === 9) this.#operation(tuple);
    else this.#shape(tuple, where);
  }

  checkFractional(): void {
    if (this.#fractional.size > 0) throw new NotUnderstood(`no such number: ${[...this.#fractional].join(", ")}`);
  }

  #operation(tuple: readonly unknown[]): void {
    const name = String(tuple[2]);
    const side = (raw: unknown, which: string): string => {
      const target = this.#target(raw, `${name} ${which}`).target;
      if (target === "") return "";
      if (!target.startsWith("#")) throw new NotUnderstood(`${which} of ${name}: ${target}`);
      return target.slice(1);
    };
    const operation = { name, traits: traitsOf(tuple[3], name), input: side(tuple[4], "input"), output: "" };
    this.operations.push({ ...operation, output: side(tuple[5], "output") });
  }

  /** Registers a list, map, structure, union or error, and what it refers to. */
  #shape(tuple: readonly unknown[], where: string): string {
    const [kind, , rawName, rawTraits] = tuple;
    const name = String(rawName);
    if (!/^\w+$/.test(name)) throw new NotUnderstood(`shape name ${name}, from ${where}`);
    const seen = this.#seen.get(name);
    if (seen === tuple) return name;
    if (seen) throw new NotUnderstood(`two shapes named ${name}`);
    this.#seen.set(name, tuple);
    const traits = traitsOf(rawTraits, name);
    if (kind === 3 || kind === 4 || kind === -3) {
      const names = tuple[4] as readonly string[];
      const members = tuple[5] as readonly unknown[];
      if (names.length !== members.length) throw new NotUnderstood(`members of ${name}`);
      this.shapes.set(name, {
        kind: kind === 3 ? "structure" : kind === 4 ? "union" : "error",
        name,
        traits,
        members: names.map((member, at) => this.#member(member, members[at], name)),
        required: Number(tuple[6] ?? 0),
      } satisfies Structure);
    } else if (kind === 1) {
      const item = this.#member("member", tuple[4], name);
      this.shapes.set(name, { kind: "list", name, traits, item } satisfies List);
    } else if (kind === 2) {
      const key = this.#member("key", tuple[4], name);
      const value = this.#member("value", tuple[5], name);
      this.shapes.set(name, { kind: "map", name, traits, key, value } satisfies MapShape);
    } else {
      throw new NotUnderstood(`shape kind ${String(kind)} of ${name}`);
    }
    return name;
  }

  #member(name: string, raw: unknown, owner: string): Member {
    const { target, traits } = this.#target(raw, `${owner}.${name}`);
    if (target === "") throw new NotUnderstood(`unit member ${owner}.${name}`);
    const fractional = target === "i" && this.#fractional.delete(`${this.#service} ${owner}.${name}`);
    return { name, target: fractional ? "f" : target, traits };
  }

  /** A reference: sentinel, thunk, tuple, or `[reference, traits]`. The target "" is Smithy's unit. */
  #target(raw: unknown, where: string): { target: Target; traits: Traits } {
    const reference = typeof raw === "function" ? (raw as () => unknown)() : raw;
    if (reference === "unit") return { target: "", traits: {} };
    if (typeof reference === "number") {
      const simple = SIMPLE[reference & 63];
      if (simple === undefined || reference >= 192) throw new NotUnderstood(`sentinel ${reference} of ${where}`);
      return { target: (reference & 128 ? "{" : reference & 64 ? "[" : "") + simple, traits: {} };
    }
    if (!Array.isArray(reference)) throw new NotUnderstood(`reference of ${where}`);
    if (typeof reference[1] !== "string") {
      const inner = this.#target(reference[0], where);
      return { target: inner.target, traits: { ...inner.traits, ...traitsOf(reference[1], where) } };
    }
    if (reference[0] === 0) {
      const inner = this.#target(reference[4], where);
      return { target: inner.target, traits: { ...inner.traits, ...traitsOf(reference[3], where) } };
    }
    const shape = this.#shape(reference, where);
    // A sensitive shape makes every member that refers to it sensitive.
    return { target: `#${shape}`, traits: traitsOf(reference[3], where).sensitive ? { sensitive: 1 } : {} };
  }
}
