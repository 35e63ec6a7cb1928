/**
 * The shapes of a service, read from the tables that smithy/emit-tables.ts wrote. Nothing here knows a protocol: the codecs
 * compile these shapes into decoders and encoders of their own, one at a time, when each is first used.
 *
 * A table is text, a shape a line: its name, a space, and a JSON row `[kind, traits, members, required]`, where a member is
 * `[name, target, traits?]` and a target is one of the texts that smithy/model.ts lists. Making a Service only splits
 * the text into lines (under a millisecond for EC2's 3,364 shapes); a row is parsed when its shape is first asked for.
 */
import { assert, present } from "../lib/assert.ts";

/** What a generated tables.ts exports. */
export interface ServiceTables {
  readonly name: string;
  readonly serviceId: string;
  readonly apiVersion: string;
  readonly protocol: string;
  readonly xmlNamespace: string;
  readonly operations: string;
  readonly shapes: string;
  readonly enums: string;
}

/** Smithy traits by their names, but `x` for xmlName and `q` for ec2QueryName. */
export interface Traits {
  readonly x?: string;
  readonly q?: string;
  readonly xmlFlattened?: unknown;
  readonly idempotencyToken?: unknown;
  readonly sensitive?: unknown;
  readonly [trait: string]: unknown;
}

export type TimestampFormat = "protocol" | "date-time" | "http-date" | "epoch-seconds";

export type Shape =
  | { readonly kind: "string"; readonly values: ReadonlySet<string> | undefined }
  | { readonly kind: "integer" | "float" | "boolean" | "blob" | "document" | "bigInteger" | "bigDecimal" }
  | { readonly kind: "timestamp"; readonly format: TimestampFormat }
  | Structure
  | ListShape
  | MapShape;
export interface Structure {
  readonly kind: "structure" | "union" | "error";
  readonly name: string;
  readonly traits: Traits;
  readonly members: readonly Member[];
}
export interface ListShape {
  readonly kind: "list";
  readonly name: string;
  readonly traits: Traits;
  readonly item: Member;
}
export interface MapShape {
  readonly kind: "map";
  readonly name: string;
  readonly traits: Traits;
  readonly key: Member;
  readonly value: Member;
}

/** A member, a list's item, or a map's key or value. `shape` is resolved when it is first read: shapes may be recursive. */
export interface Member {
  readonly name: string;
  readonly traits: Traits;
  readonly required: boolean;
  readonly shape: Shape;
}

export interface OperationShape {
  readonly name: string;
  readonly traits: Traits;
  /** undefined: the operation takes no input, or gives no output. */
  readonly input: Structure | undefined;
  readonly output: Structure | undefined;
}

type MemberRow = readonly [name: string, target: string, traits?: Traits];
type ShapeRow = readonly [kind: string, traits: Traits | 0, members: readonly MemberRow[], required?: number];
type OperationRow = readonly [input: string, output: string, traits: Traits | 0];

const NO_TRAITS: Traits = Object.freeze({});
const SIMPLE: ReadonlyMap<string, Shape> = new Map<string, Shape>([
  ["s", { kind: "string", values: undefined }],
  ["i", { kind: "integer" }],
  ["f", { kind: "float" }],
  ["b", { kind: "boolean" }],
  ["x", { kind: "blob" }],
  ["X", { kind: "blob" }],
  ["d", { kind: "document" }],
  ["I", { kind: "bigInteger" }],
  ["D", { kind: "bigDecimal" }],
  ["t", { kind: "timestamp", format: "protocol" }],
  ["t5", { kind: "timestamp", format: "date-time" }],
  ["t6", { kind: "timestamp", format: "http-date" }],
  ["t7", { kind: "timestamp", format: "epoch-seconds" }],
]);

/** A service's model, opened on first use and filled in as it is used. Same name, same object: shapes serve as cache keys. */
export class Service {
  readonly name: string;
  readonly serviceId: string;
  readonly apiVersion: string;
  readonly protocol: string;
  readonly xmlNamespace: string;
  readonly #operationLines: ReadonlyMap<string, string>;
  readonly #shapeLines: ReadonlyMap<string, string>;
  readonly #enumLines: ReadonlyMap<string, string>;
  readonly #operations = new Map<string, OperationShape>();
  readonly #shapes = new Map<string, Shape>();

  constructor(tables: ServiceTables) {
    this.name = tables.name;
    this.serviceId = tables.serviceId;
    this.apiVersion = tables.apiVersion;
    this.protocol = tables.protocol;
    this.xmlNamespace = tables.xmlNamespace;
    this.#operationLines = indexLines(tables.operations);
    this.#shapeLines = indexLines(tables.shapes);
    this.#enumLines = indexLines(tables.enums);
  }

  /** Whether the service has an operation of this name. Any text may be asked for. */
  has(operation: string): boolean {
    return this.#operationLines.has(operation);
  }

  /** The operation, or undefined where the service has none of that name. */
  operation(name: string): OperationShape | undefined {
    const known = this.#operations.get(name);
    if (known) return known;
    const line = this.#operationLines.get(name);
    if (line === undefined) return undefined;
    const [input, output, traits] = JSON.parse(line) as OperationRow;
    const side = (shape: string) => (shape === "" ? undefined : this.structure(shape));
    const operation = { name, traits: traits || NO_TRAITS, input: side(input), output: side(output) };
    this.#operations.set(name, operation);
    return operation;
  }

  /** A structure, union or error by its Smithy name. */
  structure(name: string): Structure {
    const shape = this.#resolve(`#${name}`);
    assert("members" in shape, `${this.name} ${name} is a structure`);
    return shape;
  }

  /** The names of the service's modelled errors and their structures are among these. */
  get shapeNames(): IterableIterator<string> {
    return this.#shapeLines.keys();
  }

  #resolve(target: string): Shape {
    const known = SIMPLE.get(target) ?? this.#shapes.get(target);
    if (known) return known;
    const shape = this.#read(target);
    this.#shapes.set(target, shape);
    return shape;
  }

  #read(target: string): Shape {
    const rest = target.slice(1);
    switch (target[0]) {
      case "=": {
        const line = this.#enumLines.get(rest);
        // An enum that configuration may extend has no line: any string will do.
        return { kind: "string", values: line === undefined ? undefined : new Set(JSON.parse(line) as string[]) };
      }
      case "[":
        return { kind: "list", name: target, traits: NO_TRAITS, item: this.#member(["member", rest]) };
      case "{": {
        const [key, value] = [this.#member(["key", "s"]), this.#member(["value", rest])];
        return { kind: "map", name: target, traits: NO_TRAITS, key, value };
      }
      default:
        return this.#row(rest, JSON.parse(present(this.#shapeLines.get(rest), `${this.name} has ${rest}`)) as ShapeRow);
    }
  }

  #row(name: string, [kind, rawTraits, members, required = 0]: ShapeRow): Shape {
    const traits = rawTraits || NO_TRAITS;
    switch (kind) {
      case "list":
        return { kind, name, traits, item: this.#member(members[0]!) };
      case "map":
        return { kind, name, traits, key: this.#member(members[0]!), value: this.#member(members[1]!) };
      default:
        assert(kind === "structure" || kind === "union" || kind === "error", `${name} is a structure`);
        return { kind, name, traits, members: members.map((member, at) => this.#member(member, at < required)) };
    }
  }

  #member([name, target, traits = NO_TRAITS]: MemberRow, required = false): Member {
    const resolve = () => this.#resolve(target);
    let shape: Shape | undefined;
    return {
      name,
      traits,
      required,
      get shape() {
        shape ??= resolve();
        return shape;
      },
    };
  }
}

/** Splits `name value\n…` into a map from names to values. */
function indexLines(text: string): Map<string, string> {
  const lines = new Map<string, string>();
  for (let at = 0; at < text.length; ) {
    const space = text.indexOf(" ", at);
    const end = text.indexOf("\n", space);
    lines.set(text.slice(at, space), text.slice(space + 1, end));
    at = end + 1;
  }
  return lines;
}

/** Makes the service when it is first asked for, once. */
export function lazyService(tables: ServiceTables): () => Service {
  let service: Service | undefined;
  return () => {
    service ??= new Service(tables);
    return service;
  };
}
