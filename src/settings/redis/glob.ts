/**
 * Redis's patterns for keys and channels: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, and `\` before a character that stands for itself.
 * Compiled once, matched without recursion: at a mismatch only the last `*` takes one character more, so the time is bounded
 * by the pattern's length times the text's.
 */
const STAR = Symbol("*");
/** A string stands for itself. */
type Part = typeof STAR | string | ((code: number) => boolean);

/** A longer one is refused: what it may cost to match grows with it. */
export const PATTERN_CHARS_MAX = 1024;

export function compileGlob(pattern: string): (text: string) => boolean {
  const parts: Part[] = [];
  for (let at = 0; at < pattern.length; ) {
    const character = pattern[at]!;
    if (character === "*") {
      if (parts.at(-1) !== STAR) parts.push(STAR);
      at++;
    } else if (character === "?") {
      parts.push(() => true);
      at++;
    } else if (character === "[") {
      const set = characterSet(pattern, at + 1);
      parts.push(set.has);
      at = set.end;
    } else {
      if (character === "\\" && at + 1 < pattern.length) at++;
      const before = parts.at(-1);
      if (typeof before === "string") parts[parts.length - 1] = before + pattern[at];
      else parts.push(pattern[at]!);
      at++;
    }
  }
  return (text) => matches(parts, text);
}

function matches(parts: readonly Part[], text: string): boolean {
  let [part, at] = [0, 0];
  let star = -1;
  let starAt = 0;
  while (at < text.length) {
    const wanted = parts[part];
    if (wanted === STAR) {
      star = part++;
      starAt = at;
    } else if (typeof wanted === "string" && text.startsWith(wanted, at)) {
      part++;
      at += wanted.length;
    } else if (typeof wanted === "function" && wanted(text.charCodeAt(at))) {
      part++;
      at++;
    } else if (star >= 0) {
      part = star + 1;
      at = ++starAt;
    } else return false;
  }
  while (parts[part] === STAR) part++;
  return part === parts.length;
}

/** The set that begins after a `[`. One that is not closed ends with the pattern, as in Redis. */
function characterSet(pattern: string, from: number): { has: (code: number) => boolean; end: number } {
  let at = from;
  const negated = pattern[at] === "^";
  if (negated) at++;
  const ranges: [number, number][] = [];
  while (at < pattern.length && pattern[at] !== "]") {
    if (pattern[at] === "\\" && at + 1 < pattern.length) at++;
    const low = pattern.charCodeAt(at);
    let high = low;
    if (pattern[at + 1] === "-" && at + 2 < pattern.length && pattern[at + 2] !== "]") {
      high = pattern.charCodeAt(at + 2);
      at += 2;
    }
    ranges.push(low <= high ? [low, high] : [high, low]);
    at++;
  }
  const has = (code: number) => ranges.some(([low, high]) => low <= code && code <= high) !== negated;
  return { has, end: at + 1 };
}

/** What every match begins with: keys elsewhere need not be looked at. */
export function literalPrefix(pattern: string): string {
  let prefix = "";
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern[at]!;
    if (character === "*" || character === "?" || character === "[") break;
    if (character === "\\" && at + 1 < pattern.length) at++;
    prefix += pattern[at];
  }
  return prefix;
}
