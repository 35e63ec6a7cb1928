/**
 * SCAN's cursors. The protocol wants a number of 64 bits, and a place in a sorted map is a key; so a node remembers for each
 * cursor that it handed out after which key to go on. A place is a key and not a count, so whatever comes and goes meanwhile,
 * a key that is there all the time is seen exactly once. The number is a digest of the key: who scans again uses no more room.
 */
const CURSORS_MAX = 10_000;

export class ScanCursors {
  readonly #keys = new Map<string, string>();

  /** A cursor for what comes after `key`. */
  after(key: string): string {
    // 53 bits, so that clients who read it as a number lose nothing. 0 begins and ends a scan.
    const cursor = String(BigInt(Bun.hash.wyhash(key)) & 0x1f_ffff_ffff_ffffn || 1n);
    this.#keys.delete(cursor);
    if (this.#keys.size >= CURSORS_MAX) this.#keys.delete(this.#keys.keys().next().value as string);
    this.#keys.set(cursor, key);
    return cursor;
  }

  /** The key that a cursor goes on after; undefined for one that this node did not hand out, or too long ago. */
  keyOf(cursor: string): string | undefined {
    return this.#keys.get(cursor);
  }
}
