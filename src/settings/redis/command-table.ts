/** What COMMAND tells of the commands, and how one is found by the name that a client wrote. */
import type { Reply } from "../../protocol/resp.ts";

export interface CommandSpec {
  /** Words with the name, in Redis's terms: negative for "at least". */
  readonly arity: number;
  readonly flags: readonly string[];
  /** Positions of the first and last key among the words (-1: the last word), and the step; zeros without keys. */
  readonly keys: readonly [first: number, last: number, step: number];
}

export const NO_KEYS = [0, 0, 0] as const;

/** By upper-case name. */
export type CommandTable<C extends CommandSpec> = ReadonlyMap<string, C>;

export function findCommand<C extends CommandSpec>(table: CommandTable<C>, name: string): C | undefined {
  return table.get(name) ?? table.get(name.toUpperCase());
}

export const arityFits = (arity: number, words: number): boolean => (arity < 0 ? words >= -arity : words === arity);

/** Answers COMMAND, COMMAND COUNT, COMMAND INFO and COMMAND DOCS, which clients ask for completion and hints. */
export function describeCommands(tables: readonly CommandTable<CommandSpec>[], words: readonly string[]): Reply {
  const all = tables.flatMap((table) => [...table]);
  const [, asked] = words;
  if (asked === undefined) return all.map(describe);
  switch (asked.toUpperCase()) {
    case "COUNT":
      return all.length;
    case "INFO":
      return words.slice(2).map((name) => {
        const found = all.find(([known]) => known === name.toUpperCase());
        return found ? describe(found) : null;
      });
    case "DOCS":
      return { pairs: [] };
    default:
      return { error: "ERR unknown subcommand. COMMAND has COUNT, INFO and DOCS here" };
  }
}

const describe = ([name, { arity, flags, keys }]: [string, CommandSpec]): Reply => [
  name.toLowerCase(),
  arity,
  flags.map((simple) => ({ simple })),
  ...keys,
];
