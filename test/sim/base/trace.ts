/** What happened, as one number: two runs of a seed must end with the same. Lines are made only for a reader. */
export class Trace {
  #hash = 0x811c9dc5;
  events = 0;
  readonly #print: ((line: string) => void) | undefined;

  constructor(print?: (line: string) => void) {
    this.#print = print;
  }

  get isPrinting(): boolean {
    return this.#print !== undefined;
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  /** Takes numbers (times, terms, indexes) in; their fractions count. */
  mix(value: number): void {
    // Murmur3's mixing of the two halves of a fixed-point form.
    this.#mix32(Math.floor(value * 1024) | 0);
    this.#mix32(Math.floor((value * 1024) / 2 ** 32) | 0);
  }

  mixText(text: string): void {
    for (let i = 0; i < text.length; i++) this.#mix32(text.charCodeAt(i));
  }

  line(at: number, text: () => string): void {
    this.#print?.(`${at.toFixed(3).padStart(12)}  ${text()}`);
  }

  #mix32(value: number): void {
    let k = Math.imul(value, 0xcc9e2d51);
    k = (k << 15) | (k >>> 17);
    this.#hash ^= Math.imul(k, 0x1b873593);
    this.#hash = (this.#hash << 13) | (this.#hash >>> 19);
    this.#hash = (Math.imul(this.#hash, 5) + 0xe6546b64) | 0;
  }
}
