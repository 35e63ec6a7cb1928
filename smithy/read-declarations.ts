/**
 * Reads what the schema tuples lack out of the SDK's d.ts files: the enum of a string member, the values of each enum, and
 * the documentation of the members. The files are machine-written and regular, so that lines are enough; a line that is
 * not understood stops the generator.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { NotUnderstood } from "./model.ts";

export type Declared = {
  /** The type as written, without `| undefined`: `string[]`, `_InstanceType`, `Tag[]`. */
  readonly type: string;
  /** The text of the doc comment, without its stars. */
  readonly documentation: string;
};
export type Declarations = {
  /** By interface, then by member. */
  readonly structures: ReadonlyMap<string, ReadonlyMap<string, Declared>>;
  readonly enums: ReadonlyMap<string, readonly string[]>;
};

/** Reads every d.ts of a package's models except its exception classes, whose members the tuples tell in full. */
export function readDeclarations(folder: string): Declarations {
  const reader = new DeclarationReader();
  const models = join(folder, "dist-types/models");
  for (const file of readdirSync(models).sort()) {
    if (/^(models_\d+|enums)\.d\.ts$/.test(file)) reader.read(readFileSync(join(models, file), "utf8"), file);
  }
  return reader;
}

/** What is of no interest: imports, aliases of enums and of unions, the ends of files. */
const PASSED_OVER = /^(import |export \{\};|export type \w+ = .*;|\s*$)/;

class DeclarationReader implements Declarations {
  readonly structures = new Map<string, Map<string, Declared>>();
  readonly enums = new Map<string, string[]>();
  #members: Map<string, Declared> | undefined;
  #values: string[] | undefined;
  #comment: string[] | undefined;
  #documentation = "";
  /** Depth of braces inside a union's namespace, whose members the tuples tell in full. */
  #skipping = 0;

  /** A line's pattern, and what to do with one; the first that matches is taken. */
  readonly #rules: readonly (readonly [RegExp, (match: RegExpExecArray) => void])[] = [
    [/^export declare namespace \w+ \{$/, () => this.#skipping++],
    [/^export interface (\w+)(?: extends \w+)? \{$/, ([, name]) => this.#structure(name!)],
    [/^export declare const (\w+): \{$/, ([, name]) => this.#enum(name!)],
    [/^ {4}readonly (?:\w+|"[^"]+"): ("(?:[^"\\]|\\.)*");$/, ([, value]) => this.#value(value!)],
    [/^ {4}(\w+)\??: (.+?)(?: \| undefined)?;$/, ([, name, type]) => this.#member(name!, type!)],
    [/^\};?$/, () => this.#end()],
    [PASSED_OVER, () => {}],
  ];

  read(text: string, file: string): void {
    for (const [at, line] of text.split("\n").entries()) {
      if (this.#inComment(line)) continue;
      if (this.#skipping > 0) {
        this.#skipping += line.split("{").length - line.split("}").length;
        continue;
      }
      const understood = this.#rules.some(([pattern, act]) => {
        const match = pattern.exec(line);
        if (match) act(match);
        return match;
      });
      if (!understood) throw new NotUnderstood(`${file}:${at + 1}: ${line.slice(0, 200)}`);
    }
  }

  /** Gathers doc comments: the one before a member is its documentation. */
  #inComment(line: string): boolean {
    if (!this.#comment) {
      if (!/^\s*\/\*\*/.test(line)) return false;
      this.#comment = [];
    }
    this.#comment.push(line.replace(/^\s*(\/\*\*|\*(?!\/))?\s?/, "").replace(/\s*\*\/\s*$/, ""));
    if (line.trimEnd().endsWith("*/")) {
      this.#documentation = this.#comment.join("\n");
      this.#comment = undefined;
    }
    return true;
  }

  #structure(name: string): void {
    if (this.structures.has(name)) throw new NotUnderstood(`a second interface ${name}`);
    this.#members = new Map();
    this.structures.set(name, this.#members);
  }

  #enum(name: string): void {
    if (this.enums.has(name)) throw new NotUnderstood(`a second enum ${name}`);
    this.#values = [];
    this.enums.set(name, this.#values);
  }

  #value(literal: string): void {
    if (!this.#values) throw new NotUnderstood(`a value outside of an enum: ${literal}`);
    this.#values.push(JSON.parse(literal) as string);
  }

  #member(name: string, type: string): void {
    if (!this.#members) throw new NotUnderstood(`a member outside of an interface: ${name}`);
    this.#members.set(name, { type, documentation: this.#documentation });
  }

  #end(): void {
    this.#members = undefined;
    this.#values = undefined;
  }
}
