/**
 * Random inputs and outputs, made by walking the SDK's own schemas, so that what Hive's generator dropped or misnamed shows.
 * Hive's shape is walked beside it for the values of enums, which the SDK's schemas lack, and must agree at every step.
 */
import type { NormalizedSchema } from "@smithy/core/schema";
import type { Member, Shape } from "../../src/protocol/shape.ts";

/** Mulberry32: small, seeded, the same everywhere. Not for secrets. */
export class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** At least 0, under 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }
}

export type Style = {
  /** `full` sets every member, to find a misnamed one for certain; `sparse` leaves most out. */
  readonly fill: "full" | "sparse";
  /** Queries cannot carry an empty list or structure; answers can. */
  readonly empties: boolean;
};

const PIECES = [
  "a",
  "Z",
  "0",
  "-",
  " ",
  ".",
  "&",
  "<",
  ">",
  '"',
  "'",
  "%",
  "+",
  "=",
  "\n",
  "\r",
  "]]>",
  "é",
  "漢",
  "😀",
  "&amp;",
];

export class Samples {
  readonly #dice: Dice;
  readonly #style: Style;
  constructor(dice: Dice, style: Style) {
    this.#dice = dice;
    this.#style = style;
  }

  /**
   * A value of the schema. Where empty ones are not wanted and this one came out empty: undefined, unless `must` says that it
   * is needed, and then it gets an item or member.
   */
  value(schema: NormalizedSchema, shape: Shape, member: Member | undefined, depth = 0, must = false): unknown {
    const dice = this.#dice;
    const filled = must && !this.#style.empties;
    if (schema.isStructSchema()) return this.#structure(schema, shape, depth, filled);
    if (schema.isListSchema()) {
      if (shape.kind !== "list") throw new Error(`${schema.getName()} is a list, Hive has ${shape.kind}`);
      const { item } = shape;
      const length = this.#style.fill === "full" ? 2 : Math.max(dice.below(4), filled ? 1 : 0);
      const items = Array.from({ length }, () =>
        this.value(schema.getValueSchema(), item.shape, item, depth + 1, filled),
      );
      const present = items.filter((value) => value !== undefined);
      return present.length === 0 && !this.#style.empties ? undefined : present;
    }
    if (schema.isMapSchema()) {
      if (shape.kind !== "map") throw new Error(`${schema.getName()} is a map, Hive has ${shape.kind}`);
      const { value } = shape;
      const keys = Array.from({ length: 1 + dice.below(3) }, (_, i) => `key${i}${this.#text()}x`);
      return Object.fromEntries(
        keys.map((key) => [key, this.value(schema.getValueSchema(), value.shape, value, depth + 1)]),
      );
    }
    if (schema.isStringSchema()) {
      if (shape.kind !== "string") throw new Error(`${member?.name} is a string, Hive has ${shape.kind}`);
      if (shape.values) return dice.pick([...shape.values]);
      return `x${this.#text()}x`;
    }
    if (schema.isNumericSchema()) {
      if (shape.kind === "float") return Math.round(dice.next() * 1e6) / 1e3;
      if (shape.kind === "integer") return dice.pick([0, 1, -1, dice.below(1e6), 2 ** 53 - 1, -(2 ** 31)]);
    }
    if (schema.isBooleanSchema() && shape.kind === "boolean") return dice.next() < 0.5;
    // No milliseconds from before 1970: the SDK's own reading of them differs from what it writes.
    if (schema.isTimestampSchema() && shape.kind === "timestamp")
      return new Date(dice.below(2 ** 31) * 1000 + dice.below(1000));
    if (schema.isBlobSchema() && shape.kind === "blob")
      return Uint8Array.from({ length: 1 + dice.below(40) }, () => dice.below(256));
    throw new Error(`${schema.getName()} ${member?.name}: Hive has ${shape.kind}`);
  }

  #structure(schema: NormalizedSchema, shape: Shape, depth: number, filled: boolean): unknown {
    if (shape.kind !== "structure") throw new Error(`${schema.getName()} is a structure, Hive has ${shape.kind}`);
    const members = [...schema.structIterator()];
    if (members.length !== shape.members.length) throw new Error(`members of ${schema.getName()}`);
    const value: { [name: string]: unknown } = {};
    for (const [at, [name, memberSchema]] of members.entries()) {
      const member = shape.members[at]!;
      if (member.name !== name) throw new Error(`${schema.getName()}.${name}: Hive has ${member.name}`);
      const last = filled && at === members.length - 1 && Object.keys(value).length === 0;
      // The SDK fills in a missing token by itself.
      const must = member.required || memberSchema.isIdempotencyToken() || last;
      if (!must && !this.#wanted(depth)) continue;
      const made = this.value(memberSchema, member.shape, member, depth + 1, must);
      if (made !== undefined) value[name] = made;
    }
    return Object.keys(value).length === 0 && depth > 0 && !this.#style.empties ? undefined : value;
  }

  #wanted(depth: number): boolean {
    return this.#style.fill === "full" ? depth < 24 : this.#dice.next() < (depth === 0 ? 0.5 : 0.3);
  }

  #text(): string {
    return Array.from({ length: this.#dice.below(8) }, () => this.#dice.pick(PIECES)).join("");
  }
}
