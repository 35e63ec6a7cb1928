/**
 * `make`, a pure function, remembering its results for texts of at most `charsMax` characters. What is remembered is all
 * forgotten when there are `entriesMax`: no list of uses has to be kept, and who sends ever new texts gains nothing.
 */
export function textMemo<T>(make: (text: string) => T, entriesMax: number, charsMax: number): (text: string) => T {
  const known = new Map<string, T>();
  return (text) => {
    const found = known.get(text);
    if (found !== undefined) return found;
    const made = make(text);
    if (text.length > charsMax) return made;
    if (known.size >= entriesMax) known.clear();
    known.set(text, made);
    return made;
  };
}
