/**
 * Cuts a stream of JSON values into its values. JSON-RPC as OVSDB speaks it (RFC 7047, section 4) puts nothing between two
 * messages, so the end of one is where its brackets close.
 */
export class JsonStream {
  #text = "";
  #at = 0;
  #start = 0;
  #depth = 0;
  #inString = false;
  readonly #decoder = new TextDecoder();

  /** Takes the next bytes; gives the values that are complete now. @throws SyntaxError for what is no JSON */
  push(bytes: Uint8Array): unknown[] {
    this.#text += this.#decoder.decode(bytes, { stream: true });
    const values: unknown[] = [];
    for (; this.#at < this.#text.length; this.#at++) {
      const c = this.#text[this.#at];
      if (this.#inString) {
        if (c === "\\") {
          if (this.#at + 1 === this.#text.length) break;
          this.#at++;
        } else if (c === '"') this.#inString = false;
      } else if (c === '"') this.#inString = true;
      else if (c === "{" || c === "[") this.#depth++;
      else if (c === "}" || c === "]") {
        this.#depth--;
        if (this.#depth <= 0) {
          values.push(JSON.parse(this.#text.slice(this.#start, this.#at + 1)));
          this.#start = this.#at + 1;
          this.#depth = 0;
        }
      }
    }
    this.#text = this.#text.slice(this.#start);
    this.#at -= this.#start;
    this.#start = 0;
    return values;
  }
}
