/** Thrown when something that cannot be is: a defect in Hive, never a caller's mistake. */
export class BrokenInvariant extends Error {
  override readonly name = "BrokenInvariant";
}

/** States what must hold. @throws BrokenInvariant when it does not */
export function assert(condition: unknown, claim: string): asserts condition {
  if (!condition) throw new BrokenInvariant(claim);
}

/** Closes a `switch` over a union: the compiler proves that no case is missing. @throws BrokenInvariant always */
export function unreachable(value: never): never {
  throw new BrokenInvariant(`unexpected value: ${JSON.stringify(value)}`);
}

/** The value, which the caller knows to be there. @throws BrokenInvariant when it is absent */
export function present<T>(value: T | null | undefined, claim: string): T {
  assert(value !== undefined && value !== null, claim);
  return value;
}
