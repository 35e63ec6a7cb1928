/**
 * The patterns of EC2's filters: `*` stands for any characters or none, `?` for exactly one, and `\` takes the next
 * character literally. Case matters.
 */

/** A pattern as characters, where -1 is `*` and -2 is `?`. */
const ANY = -1;
const ONE = -2;

export type Pattern = (value: string) => boolean;

/** Whether a filter's value has a wildcard or an escape in it. */
export const isPattern = (text: string): boolean => text.includes("*") || text.includes("?") || text.includes("\\");

/**
 * Compiles a pattern. It goes back to the last `*` alone, so that a match costs at most the product of both lengths, and
 * mostly their sum. (A regular expression of many `.*` would take exponential time.)
 */
export function compilePattern(text: string): Pattern {
  const tokens: number[] = [];
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "\\" && at + 1 < text.length) tokens.push(text.charCodeAt(++at));
    else if (char === "*") {
      if (tokens.at(-1) !== ANY) tokens.push(ANY);
    } else tokens.push(char === "?" ? ONE : text.charCodeAt(at));
  }
  return (value) => matches(tokens, value);
}

function matches(tokens: readonly number[], value: string): boolean {
  let token = 0;
  let at = 0;
  let starToken = -1;
  let starAt = 0;
  while (at < value.length) {
    const wanted = tokens[token];
    if (wanted === ANY) {
      starToken = token++;
      starAt = at;
    } else if (wanted !== undefined && (wanted === ONE || wanted === value.charCodeAt(at))) {
      token++;
      at++;
    } else if (starToken >= 0) {
      token = starToken + 1;
      at = ++starAt;
    } else return false;
  }
  while (tokens[token] === ANY) token++;
  return token === tokens.length;
}
