/**
 * Form parameters → typed input, for EC2's query protocol and the AWS query protocol, which differ only in how they name
 * things. A structure is compiled into a map from wire names to members when it is first met; a parameter's name
 * (`TagSpecification.1.Tag.2.Key`) is walked once through these maps and its value put in place.
 *
 * Property names come from the model and never from the wire, so that no name can reach a prototype. A list is kept with the
 * indexes that its items came with, and put in order at the end: gaps close, and a huge index costs no more than a small one.
 */
import { assert } from "../lib/assert.ts";
import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError, invalidValueFor, missingParameter, unknownParameter } from "../model/errors.ts";
import type { Form } from "./aws-query-form.ts";
import { PARAMETER_NAME_CHARS_MAX, PARAMETERS_MAX } from "./aws-query-form.ts";
import type { ListShape, MapShape, Member, Shape, Structure } from "./shape.ts";
import { Refusal, readScalar } from "./shape-scalar.ts";

/** How a query protocol names what it sends. */
export interface QueryNames {
  member(member: Member): string;
  /** The part between a list's name and the index (`member` in `Tags.member.1`); "" for a flat list. */
  listItem(list: ListShape, owner: Member): string;
  /** The part between a map's name and the index; "" for a flat map. */
  mapEntry(map: MapShape, owner: Member): string;
}

/** Parameters of every request, which belong to no operation's input. `X-Amz-…` are those of a presigned one. */
const isCommon = (name: string): boolean =>
  name === "Action" || name === "Version" || name.startsWith("X-Amz-") || name === "";

/** An entry of a map while its parameters come in. */
type Entry = { key?: string; value?: unknown };
type Built = Record<string, unknown>;
type Node = StructureNode | ListNode | MapNode | { readonly kind: "scalar"; readonly shape: Shape };
type StructureNode = {
  readonly kind: "structure";
  readonly members: ReadonlyMap<string, Slot>;
  readonly required: readonly Slot[];
};
type ListNode = { readonly kind: "list"; readonly part: string; readonly item: Node };
type MapNode = {
  readonly kind: "map";
  readonly part: string;
  readonly key: string;
  readonly valueName: string;
  readonly value: Node;
};
/** A member's place: the wire name, the property, and (when first needed) the node beneath. */
class Slot {
  readonly wire: string;
  readonly property: string;
  readonly #make: () => Node;
  #node: Node | undefined;
  constructor(wire: string, property: string, make: () => Node) {
    // Objects are built with plain assignment: a model with a member called like an Object method would need care.
    assert(!(property in Object.prototype), `${property} is an ordinary name`);
    this.wire = wire;
    this.property = property;
    this.#make = make;
  }
  get node(): Node {
    this.#node ??= this.#make();
    return this.#node;
  }
}

/** A list or map while its parameters come in: items in `values`, with the index that each came with. */
type Indexed = { readonly values: unknown[]; readonly indexes: number[]; byIndex: Map<number, number> | undefined };

/** Compiles and remembers the decoders of one protocol. */
export class QueryDecoder {
  readonly #names: QueryNames;
  readonly #structures = new WeakMap<Structure, StructureNode>();

  constructor(names: QueryNames) {
    this.#names = names;
  }

  /**
   * Decodes a form into an input. Errors, first come first served: UnknownParameter, InvalidParameterValue, then
   * MissingParameter when all is read. Linear in the size of the form.
   */
  decode(input: Structure | undefined, form: Form): Result<Built, AwsError> {
    const { names, values } = form;
    if (names.length > PARAMETERS_MAX) return fail(awsError("InvalidRequest", "The request has too many parameters"));
    const root = input ? this.#structure(input) : NOTHING;
    const reading = new Reading(root);
    for (let i = 0; i < names.length; i++) {
      const name = names[i]!;
      if (isCommon(name)) continue;
      const error = reading.put(name, values[i]!);
      if (error) return fail(error);
    }
    return reading.finish();
  }

  #structure(shape: Structure): StructureNode {
    let node = this.#structures.get(shape);
    if (node) return node;
    const members = new Map<string, Slot>();
    const required: Slot[] = [];
    for (const member of shape.members) {
      const wire = this.#names.member(member);
      assert(!members.has(wire), `${shape.name} has one ${wire}`);
      const slot = new Slot(wire, member.name, () => this.#node(member));
      members.set(wire, slot);
      if (member.required) required.push(slot);
    }
    node = { kind: "structure", members, required };
    this.#structures.set(shape, node);
    return node;
  }

  #node(member: Member): Node {
    const shape = member.shape;
    switch (shape.kind) {
      case "structure":
      case "union":
      case "error":
        return this.#structure(shape);
      case "list":
        return { kind: "list", part: this.#names.listItem(shape, member), item: this.#node(shape.item) };
      case "map": {
        const { key, value } = shape;
        const keyNames = { key: key.traits.x ?? "key", valueName: value.traits.x ?? "value" };
        return { kind: "map", part: this.#names.mapEntry(shape, member), ...keyNames, value: this.#node(value) };
      }
      default:
        return { kind: "scalar", shape };
    }
  }
}

const NOTHING: StructureNode = { kind: "structure", members: new Map(), required: [] };

/** One form being read. */
class Reading {
  readonly #root: StructureNode;
  readonly #value: Built = {};
  /** Structures made so far, with the parameter and how much of its name led there: to check what they require. */
  readonly #made: {
    readonly node: StructureNode;
    readonly value: Built;
    readonly name: string;
    readonly end: number;
  }[] = [];
  readonly #indexed = new Map<unknown[], Indexed>();
  readonly #maps: {
    readonly entries: unknown[];
    readonly owner: Built;
    readonly property: string;
    readonly name: string;
  }[] = [];

  constructor(root: StructureNode) {
    this.#root = root;
    if (root.required.length > 0) this.#made.push({ node: root, value: this.#value, name: "", end: 0 });
  }

  /** Puts one parameter in its place, or says why not. */
  put(name: string, text: string): AwsError | undefined {
    if (name.length > PARAMETER_NAME_CHARS_MAX) return unknownParameter(shortened(name));
    let node: StructureNode = this.#root;
    let value = this.#value;
    for (let at = 0; ; ) {
      let end = name.indexOf(".", at);
      if (end < 0) end = name.length;
      const slot = node.members.get(at === 0 && end === name.length ? name : name.slice(at, end));
      if (!slot) return unknownParameter(shortened(name));
      const child = slot.node;
      if (child.kind === "scalar") {
        if (end !== name.length) return unknownParameter(shortened(name));
        if (slot.property in value) return repeated(name);
        const read = readScalar(child.shape, text);
        if (read instanceof Refusal) return invalid(name, text, read);
        value[slot.property] = read;
        return undefined;
      }
      if (child.kind === "structure") {
        if (end === name.length) return unknownParameter(shortened(name));
        let next = value[slot.property] as Built | undefined;
        if (next === undefined) value[slot.property] = next = this.#make(child, name, end + 1);
        node = child;
        value = next;
        at = end + 1;
        continue;
      }
      const step = this.#inList(child, value, slot.property, name, end, text);
      if (step === undefined) return undefined;
      if ("code" in step) return step;
      node = step.node;
      value = step.value;
      at = step.at;
    }
  }

  /** Puts lists in order and checks what is required. */
  finish(): Result<Built, AwsError> {
    for (const indexed of this.#indexed.values()) if (indexed.byIndex) inOrder(indexed);
    for (const { node, value, name, end } of this.#made) {
      for (const slot of node.required) {
        if (!(slot.property in value)) return fail(missingParameter(name.slice(0, end) + slot.wire));
      }
    }
    for (const { entries, owner, property, name } of this.#maps) {
      const map: Built = {};
      for (const entry of entries as Entry[]) {
        if (entry.key === undefined || entry.value === undefined) return fail(missingParameter(`${name}.N`));
        // A key is the caller's text: `__proto__` must become an ordinary property.
        Object.defineProperty(map, entry.key, {
          value: entry.value,
          enumerable: true,
          writable: true,
          configurable: true,
        });
      }
      owner[property] = map;
    }
    return ok(this.#value);
  }

  #make(node: StructureNode, name: string, end: number): Built {
    const value: Built = {};
    if (node.required.length > 0) this.#made.push({ node, value, name, end });
    return value;
  }

  /** From a list's or map's name at `end` on: sets a scalar item (undefined), or finds the structure to go on in. */
  #inList(
    list: ListNode | MapNode,
    owner: Built,
    property: string,
    name: string,
    end: number,
    text: string,
  ): undefined | AwsError | { readonly node: StructureNode; readonly value: Built; readonly at: number } {
    // The AWS query protocol sends an empty list as `Name=`.
    if (end === name.length && list.part !== "" && text === "") {
      if (property in owner) return repeated(name);
      owner[property] = list.kind === "list" ? [] : {};
      return undefined;
    }
    let at = end;
    if (list.part !== "") {
      if (!name.startsWith(`.${list.part}.`, at)) return unknownParameter(shortened(name));
      at += list.part.length + 1;
    }
    const index = readIndex(name, at + 1);
    if (at === name.length || index < 0) return unknownParameter(shortened(name));
    at = endOfIndex(name, at + 1);
    let values = owner[property] as unknown[] | undefined;
    if (values === undefined) {
      owner[property] = values = [];
      this.#indexed.set(values, { values, indexes: [], byIndex: undefined });
      if (list.kind === "map") this.#maps.push({ entries: values, owner, property, name: name.slice(0, end) });
    }
    const indexed = this.#indexed.get(values);
    if (!indexed) return repeated(name);
    if (list.kind === "map") return this.#inMap(list, indexed, index, name, at, text);
    const item = list.item;
    if (item.kind === "scalar") {
      if (at !== name.length) return unknownParameter(shortened(name));
      const read = readScalar(item.shape, text);
      if (read instanceof Refusal) return invalid(name, text, read);
      return place(indexed, index, read) ? undefined : repeated(name);
    }
    if (item.kind !== "structure" || at === name.length) return unknownParameter(shortened(name));
    let value = find(indexed, index) as Built | undefined;
    if (value === undefined) {
      value = this.#make(item, name, at + 1);
      place(indexed, index, value);
    }
    return { node: item, value, at: at + 1 };
  }

  /** An entry of a map, kept as `{ key, value }` until the end. */
  #inMap(map: MapNode, indexed: Indexed, index: number, name: string, at: number, text: string) {
    let entry = find(indexed, index) as Entry | undefined;
    if (entry === undefined) {
      entry = {};
      place(indexed, index, entry);
    }
    const rest = name.slice(at + 1);
    if (rest === map.key) {
      if ("key" in entry) return repeated(name);
      entry.key = text;
      return undefined;
    }
    if (map.value.kind === "scalar" && rest === map.valueName) {
      if ("value" in entry) return repeated(name);
      const read = readScalar(map.value.shape, text);
      if (read instanceof Refusal) return invalid(name, text, read);
      entry.value = read;
      return undefined;
    }
    if (map.value.kind !== "structure" || !rest.startsWith(`${map.valueName}.`))
      return unknownParameter(shortened(name));
    const start = at + 1 + map.valueName.length + 1;
    let value = entry.value as Built | undefined;
    if (value === undefined) entry.value = value = this.#make(map.value, name, start);
    return { node: map.value, value, at: start };
  }
}

/** Digits of an index: enough for any list that the bound on parameters admits, and exact as a number. */
const INDEX_DIGITS_MAX = 9;

/** The decimal index at `at`, up to a dot or the end; -1 when it is none. */
function readIndex(name: string, at: number): number {
  let index = 0;
  let digits = 0;
  for (; at + digits < name.length; digits++) {
    const code = name.charCodeAt(at + digits);
    if (code === 46) break;
    if (code < 48 || code > 57 || digits === INDEX_DIGITS_MAX) return -1;
    index = index * 10 + code - 48;
  }
  return digits === 0 || (digits > 1 && name.charCodeAt(at) === 48) ? -1 : index;
}

function endOfIndex(name: string, at: number): number {
  const end = name.indexOf(".", at);
  return end < 0 ? name.length : end;
}

/** The item with this index. Nearly always it is the last one, or there is none yet. */
function find(indexed: Indexed, index: number): unknown {
  const { values, indexes, byIndex } = indexed;
  if (byIndex) {
    const at = byIndex.get(index);
    return at === undefined ? undefined : values[at];
  }
  const last = indexes.length - 1;
  if (last < 0 || index > indexes[last]!) return undefined;
  if (index === indexes[last]) return values[last];
  // Out of order: from here on by a map, and sorted at the end.
  indexed.byIndex = new Map(indexes.map((known, at) => [known, at]));
  return find(indexed, index);
}

/** Adds an item; false when there is one with this index. */
function place(indexed: Indexed, index: number, value: unknown): boolean {
  if (find(indexed, index) !== undefined) return false;
  indexed.byIndex?.set(index, indexed.values.length);
  indexed.indexes.push(index);
  indexed.values.push(value);
  return true;
}

function inOrder({ values, indexes }: Indexed): void {
  const items = values.map((value, at) => ({ value, index: indexes[at]! }));
  items.sort((a, b) => a.index - b.index);
  for (let at = 0; at < items.length; at++) values[at] = items[at]!.value;
}

/** Characters of the caller's own text in a message. */
const QUOTED_CHARS_MAX = 256;
const shortened = (text: string): string =>
  text.length <= QUOTED_CHARS_MAX ? text : `${text.slice(0, QUOTED_CHARS_MAX)}…`;

const invalid = (name: string, text: string, refusal: Refusal): AwsError =>
  invalidValueFor(shortened(name), shortened(text), refusal.why);
const repeated = (name: string): AwsError =>
  awsError("InvalidParameterCombination", `The parameter ${shortened(name)} may only be given once`);
