/**
 * Typed values as plain JSON and back, for what is stored or hashed: a Date becomes `{"$date": ms}`, bytes
 * `{"$bytes": "base64"}`, a bigint `{"$bigint": "digits"}`. An object of one member whose name begins with `$` is wrapped
 * in `{"$object": …}`, so that no value of the caller's can pass for one of these.
 */

/** The value as JSON data. Members that are undefined are left out. */
export function toPlain(value: unknown): unknown {
  if (typeof value === "bigint") return { $bigint: value.toString() };
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Date) return { $date: value.getTime() };
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(toPlain);
  const names = Object.keys(value);
  const plain = Object.fromEntries(
    names
      .map((name) => [name, toPlain((value as Record<string, unknown>)[name])] as const)
      .filter(([, member]) => member !== undefined),
  );
  return names.length === 1 && names[0]!.startsWith("$") ? { $object: plain } : plain;
}

/** What `toPlain` was given. */
export function fromPlain(plain: unknown): unknown {
  if (typeof plain !== "object" || plain === null) return plain;
  if (Array.isArray(plain)) return plain.map(fromPlain);
  const entries = Object.entries(plain);
  if (entries.length === 1) {
    const [name, value] = entries[0]!;
    switch (name) {
      case "$date":
        return new Date(value as number);
      case "$bytes":
        return new Uint8Array(Buffer.from(value as string, "base64"));
      case "$bigint":
        return BigInt(value as string);
      case "$object":
        return Object.fromEntries(Object.entries(value as object).map(([key, member]) => [key, fromPlain(member)]));
    }
  }
  return Object.fromEntries(entries.map(([name, value]) => [name, fromPlain(value)]));
}

/** JSON with the members of every object in order of their names: equal values give equal text. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(ordered(toPlain(value)));
}

function ordered(plain: unknown): unknown {
  if (typeof plain !== "object" || plain === null) return plain;
  if (Array.isArray(plain)) return plain.map(ordered);
  const object = plain as Record<string, unknown>;
  return Object.fromEntries(
    Object.keys(object)
      .sort()
      .map((name) => [name, ordered(object[name])]),
  );
}
